"""What runs inside a page's kernel to draw frames: see `frames.py`, which puts it there.

Before a cell the kernel forks once for each setting of its knobs. The child runs the cell from the
very state in which the page will run it, hands back what Jupyter would show, and ends.
"""

import ast
import base64
import contextlib
import gc
import importlib
import io
import json
import os
import re
import runpy
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WORDS = Path(__file__).resolve().parent.parent / "book/_static/live/figure_words.py"
PHOTO = 4000  # letters of an embedded image: from here on it is a photograph
NAMES = "'DejaVu Sans', sans-serif"
FONT = f"font-family: {NAMES}; "
HEAD = {"Creator": None, "Date": None, "Format": None, "Type": None}  # a date would change


def draw(codes: list[tuple[str, str]], path: str, timeout: float) -> None:
    """Write what each (code, format of its figures) shows, as JSON: a list of lists of messages."""
    warm(codes[0][0])
    gc.collect()
    gc.freeze()  # or the collector would touch, and so copy, all memory in every child
    with Path(path).open("w", encoding="utf-8") as file:
        json.dump([in_a_child(code, kind, timeout) for code, kind in codes], file)


def warm(code: str) -> None:
    """Do once what every child would do: import what the cell imports, and draw something."""
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        for name in names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            with contextlib.suppress(ModuleNotFoundError):  # a function, perhaps
                importlib.import_module(name)
    if "matplotlib" in sys.modules or "plot" in code:
        import matplotlib.pyplot  # noqa: F401
        import matplotlib_inline.backend_inline  # noqa: F401 (sets how figures are shown)
        from matplotlib.figure import Figure

        figure = Figure()
        figure.subplots().set(title="$x$ a", xlabel="b")
        for kind in ("png", "svg"):
            figure.savefig(io.BytesIO(), format=kind, bbox_inches="tight")


def in_a_child(code: str, kind: str, timeout: float) -> Any:
    """Run the code in a child; return its messages, or {"failed": why}."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            answer: Any = shown(code, kind)
        except BaseException as error:  # whatever it is, the parent must hear of it
            answer = {"failed": f"{type(error).__name__}: {error}".removesuffix(": ")}
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writer)
    try:
        return read(reader, time.monotonic() + timeout)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        return {"failed": f"it did not end within {timeout} s; a fork that hangs may wait for a "
                          "thread that a cell above has started"}  # fmt: skip
    finally:
        os.close(reader)
        os.waitpid(child, 0)


def read(reader: int, end: float) -> Any:
    """Return what comes through a pipe, as far as it comes in time."""
    parts = []
    while True:
        if not select.select([reader], [], [], max(0, end - time.monotonic()))[0]:
            raise TimeoutError
        parts.append(os.read(reader, 1 << 16))
        if not parts[-1]:
            return json.loads(b"".join(parts) or b'{"failed": "its process died"}')


def shown(code: str, kind: str) -> list[dict[str, Any]]:
    """Run the code here; return what Jupyter would show, as messages of the live worker."""
    from IPython import get_ipython
    from IPython.display import display
    from IPython.utils.capture import capture_output

    shell, figures = get_ipython(), {}
    if kind == "svg" and "matplotlib" in sys.modules:
        figures = draw_as_svg(shell)
    with capture_output() as got:
        # The value of the last line, too, is shown by what is captured.
        shell.display_trap.hook = lambda value: (
            None if value is None or shell.displayhook.quiet() else display(value)
        )
        # In the history, or the value of a last line that ends in a semicolon would be shown.
        result = shell.run_cell(code, store_history=True)
        if "matplotlib_inline.backend_inline" in sys.modules:
            sys.modules["matplotlib_inline.backend_inline"].show(True)
    if error := result.error_before_exec or result.error_in_exec:
        raise error
    if got.stderr:
        raise RuntimeError(f"the cell writes to stderr: {got.stderr}")
    text = [{"type": "stream", "name": "stream", "text": got.stdout}] if got.stdout else []
    messages = [message(output.data) for output in got.outputs]
    return text + [found | figures.get(found.get("svg"), {}) for found in messages]


def message(data: dict[str, Any]) -> dict[str, Any]:
    """Return one output of Jupyter as the message that the live worker sends for it."""
    if "image/svg+xml" in data:
        return {"type": "svg", "svg": data["image/svg+xml"]}
    if "image/png" in data:
        png = data["image/png"]
        png = base64.b64encode(png).decode() if isinstance(png, bytes) else png
        return {"type": "figure", "png": png.replace("\n", "")}
    if "text/html" in data or "text/latex" in data:
        return {"type": "html", "html": data.get("text/html") or data["text/latex"]}
    return {"type": "text", "text": data["text/plain"]}


def draw_as_svg(shell: Any) -> dict[str, dict[str, Any]]:
    """From now on show figures as SVG; return where the width and the words of each are kept."""
    import matplotlib
    from IPython.core.pylabtools import print_figure
    from matplotlib.figure import Figure

    found: dict[str, dict[str, Any]] = {}
    words: Callable[[Figure], str] = runpy.run_path(str(WORDS))["words"]
    matplotlib.interactive(False)  # or each figure would be drawn twice
    matplotlib.rcParams.update(
        {
            "font.sans-serif": ["DejaVu Sans"],
            "image.composite_image": False,
            "image.interpolation": "none",  # an image's own pixels; the browser makes them larger
            "svg.fonttype": "none",  # letters, not their outlines
            "svg.hashsalt": "attncore",
        }
    )

    def as_svg(figure: Figure) -> str:
        text = print_figure(figure, "svg", metadata=HEAD)
        width = float(re.search(r'width="([\d.]+)pt"', text)[1]) / 72 * figure.dpi
        svg = tidy(text[text.index("<svg") :])
        found[svg] = {"width": round(width), "alt": words(figure)}
        return svg

    formatters = shell.display_formatter.formatters
    formatters["image/png"].pop(Figure, None)
    formatters["image/svg+xml"].for_type(Figure, as_svg)
    return found


def tidy(svg: str) -> str:
    """Return an SVG of matplotlib with less that nobody sees: it is fetched many times over."""
    svg = re.sub(r"<!--.*?-->|(?<=\n) +| *\n(?=[LQCz\"])", "", svg, flags=re.S)
    svg = re.sub(r' (?:d|x|y)="[^"]*"', to_hundredths, svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = svg.replace(FONT, "").replace("<svg ", f'<svg font-family="{NAMES}" ', 1)
    names = dict.fromkeys(re.findall(r'<(?!g )\w+[^>]* id="([^"]+)"', svg))
    for number, name in enumerate(names):  # hashes of what moves: frames would differ for nothing
        svg = svg.replace(f'id="{name}"', f'id="i{number}"').replace(f"#{name}", f"#i{number}")
    svg = re.sub(r"data:image/png;base64,\s*([\w+/=\s]+)", as_webp, svg)
    return "\n".join(without_plain_groups(svg.split("\n")))


def to_hundredths(places: re.Match[str]) -> str:
    """Return places with two decimals: 1/100 of a point is enough."""
    return re.sub(r"(\d+\.\d{2})\d+", r"\1", places[0])


def without_plain_groups(lines: list[str]) -> Iterator[str]:
    """Leave out the <g>, and their ends, that have nothing but a name."""
    kept: list[bool] = []
    for line in filter(None, lines):
        if line.startswith("<g"):
            kept.append(not re.fullmatch(r'<g( id="[^"]*")?>', line))
            if not kept[-1]:
                continue
        elif line == "</g>" and not kept.pop():
            continue
        yield line


def as_webp(found: re.Match[str]) -> str:
    """Return an embedded image made smaller; a photograph loses what the eye does not see."""
    from PIL import Image

    picture, small = Image.open(io.BytesIO(base64.b64decode(found[1]))), io.BytesIO()
    options = {"quality": 75} if len(found[1]) > PHOTO else {"lossless": True, "exact": True}
    picture.convert("RGBA").save(small, "webp", method=6, **options)
    return f"data:image/webp;base64,{base64.b64encode(small.getvalue()).decode()}"
