"""What knobs show before Python is there is what the cell shows when it runs."""

import functools
import gzip
import json
import re
import runpy
from pathlib import Path

import frame_kernel
import frames
import nbformat
import pytest
from build_book import pages
from jupyter_client.manager import start_new_kernel
from myst_nb.core.read import read_myst_markdown_notebook

from attncore import knobs

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "frames"
MOST_BYTES = 20_000  # of a cell's frames, gzipped
KERNEL = f"__import__('runpy').run_path({frame_kernel.__file__!r})"
SHOW = "__import__('matplotlib_inline.backend_inline').backend_inline.show(True)"

pytestmark = pytest.mark.skipif(not frames.POSSIBLE, reason="Windows cannot fork: no frames")


@functools.cache
def notebook(page):
    return read_myst_markdown_notebook(page.read_text("utf-8"))


def built(page):
    """Return the cells with knobs of a page, each with its file of frames, unpacked."""
    found = {}
    places, names = frames.cells_with_knobs(notebook(page)), frames.keys(notebook(page))
    for place, name in zip(places, names, strict=True):
        path = FOLDER / f"{name}.json"
        assert path.exists(), f"{page.name} was not executed as it stands: run `make book` first"
        found[place] = unpacked(path.read_text("utf-8"))
    return found


def unpacked(text):
    content = json.loads(text)
    for frame in content["frames"].values():
        for message in frame:
            if message["type"] == "svg":
                pieces = [p if isinstance(p, str) else "".join(content["base"][slice(*p)])
                          for p in message["svg"]]  # fmt: skip
                message["svg"] = "".join(pieces)
    return content


BOOK = [page for page in pages(ROOT) if frames.cells_with_knobs(notebook(page))]
PAGES = pytest.mark.parametrize("page", BOOK, ids=lambda page: page.stem)


@PAGES
def test_every_setting_has_a_frame(page):
    for place, content in built(page).items():
        source = notebook(page).cells[place].source
        every = ["\n".join(setting.values()) for setting in frames.settings(source)]

        assert content["source"] == source
        assert list(content["frames"]) == every
        assert all(content["frames"].values())  # each shows something


@PAGES
def test_frames_are_small(page):
    for name in frames.keys(notebook(page)):
        assert len(gzip.compress((FOLDER / f"{name}.json").read_bytes())) <= MOST_BYTES


class Plain:
    """A kernel that runs cells as Jupyter does, but shows figures as SVG."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(cwd=str(ROOT / "book"))
        ready = "import matplotlib.pyplot, matplotlib_inline.backend_inline"
        self.run(ready, f"{KERNEL}['draw_as_svg'](get_ipython())")

    def run(self, code, then=SHOW):
        """Run a cell, and return what it shows, as messages."""
        outputs = []

        def hear(message):
            if message["msg_type"] in ("stream", "display_data", "execute_result"):
                outputs.append(nbformat.v4.output_from_msg(message))

        for text, more in ((code, {}), ("", {"then": then})):
            reply = self.client.execute_interactive(
                text, silent=not text, user_expressions=more, output_hook=hear, timeout=120
            )["content"]
            assert reply["status"] == "ok", "\n".join(reply["traceback"])
        return frames.stored(outputs)

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def plain():
    kernel = Plain()
    yield kernel
    kernel.close()


def some(source):
    """Return settings of a cell: of each knob both ends, and one between."""
    own = {knob.name: knob.value for knob in knobs.find(source)}
    for knob in knobs.find(source):
        for value in {knob.values[0], knob.values[len(knob.values) // 3], knob.values[-1]}:
            yield own | {knob.name: value}


def runs(page):
    """Yield the cells that those with knobs need: cells of torch only if one of these is."""
    places = frames.cells_with_knobs(notebook(page))
    torch = any(is_torch(notebook(page).cells[place]) for place in places)
    for place, cell in enumerate(notebook(page).cells[: places[-1] + 1]):
        tags = cell.metadata.get("tags", ())
        slow = is_torch(cell) and "nbval-ignore-output" in tags
        if cell.cell_type == "code" and not slow and (torch or not is_torch(cell)):
            yield place, cell.source


def is_torch(cell):
    return "needs-torch" in cell.metadata.get("tags", ())


@PAGES
def test_a_cell_that_is_turned_and_run_shows_its_frame(page, plain):
    content = built(page)
    for place, source in runs(page):
        for setting in some(source) if place in content else ():
            shown = plain.run(knobs.turned(source, setting))
            drawn = content[place]["frames"]["\n".join(setting.values())]
            kept = [{k: m[k] for k in m if k not in ("width", "alt")} for m in drawn]

            assert shown == kept, f"{source}\nwith {setting}"
        plain.run(source)


def test_frames_are_the_same_when_drawn_again(tmp_path):
    page = next(page for page in BOOK if page.stem.startswith("ch06"))
    done = frames.execute(
        read_myst_markdown_notebook(page.read_text("utf-8")),
        tmp_path,
        timeout=120,
        resources={"metadata": {"path": str(page.parent)}},
    )

    assert (done.error, done.wrong) == ("", "")
    for name in frames.keys(notebook(page)):
        assert (tmp_path / f"{name}.json").read_bytes() == (FOLDER / f"{name}.json").read_bytes()


def execute(tmp_path, *cells, timeout=60):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    return made, frames.execute(made, tmp_path, timeout=timeout)


def drawn(tmp_path, made):
    return [
        unpacked((tmp_path / f"{n}.json").read_text("utf-8"))["frames"] for n in frames.keys(made)
    ]


def test_text_html_pictures_and_a_quiet_end_are_shown_as_jupyter_does(tmp_path):
    code = """class Html(str):
    _repr_html_ = str.__str__
class Picture(str):
    _repr_svg_ = str.__str__
n = 1  #@param [1, 2]
print(n)
display(Html(f"<b>{n}</b>"), Picture(f'<svg class="acd">{n}</svg>'))
n + 1"""
    made, done = execute(tmp_path, code, "m = 1  #@param [1, 2]\nm;")

    assert (done.error, done.wrong) == ("", "")
    assert drawn(tmp_path, made) == [
        {
            str(n): [
                {"type": "stream", "name": "stream", "text": f"{n}\n"},
                {"type": "html", "html": f"<b>{n}</b>"},
                {"type": "svg", "svg": f'<svg class="acd">{n}</svg>'},
                {"type": "text", "text": str(n + 1)},
            ]
            for n in (1, 2)
        },
        {"1": [], "2": []},
    ]


def test_the_kernel_goes_on_as_if_nothing_had_been(tmp_path):
    code = """log.append(n := 2)
n = 1  #@param [1, 2]
print(log, sorted(name for name in set(dir()) - before if name[0] != "_"))"""
    made, done = execute(tmp_path, "log = []\nbefore = set(dir())", code, "print(log)")

    assert (done.error, done.wrong) == ("", "")
    assert made.cells[1].outputs[0].text == "[2] ['before', 'n']\n"
    assert made.cells[2].outputs[0].text == "[2]\n"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("print(1 / (2 - n))", r"with n = 2: ZeroDivisionError"),
        ("import time\nprint(time.perf_counter())", "The page shows something else than the cell"),
        (
            "import sys\nif n == 2: print('no', file=sys.stderr)",
            "with n = 2: .*writes to stderr: no",
        ),
        ("if n == 2:\n    while True: pass", "with n = 2: it did not end within 4 s"),
        ("import os\nif n == 2: os._exit(3)", "with n = 2: its process died"),
        ("k = 3  #@param nonsense", "the knob k must be a slider, a boolean or a"),
    ],
)
def test_what_cannot_be_drawn_names_the_cell_and_the_setting(tmp_path, code, complaint):
    _, done = execute(tmp_path, f"n = 1  #@param [1, 2]\n{code}", timeout=4)

    assert done.error == ""
    assert done.wrong.startswith("n = 1  #@param [1, 2]")
    assert re.search(complaint, done.wrong)
    assert not list(tmp_path.glob("*.json"))


def test_a_cell_that_fails_as_the_page_has_it_is_the_pages_fault(tmp_path):
    _, done = execute(tmp_path, "n = 1  #@param [1, 2]\nprint(1 / 0)")

    assert "ZeroDivisionError" in done.error
    assert done.wrong == ""


def test_a_name_changes_with_all_that_is_above_and_nothing_below():
    cells = ["a = 1", "n = 1  #@param [1, 2]\nn", "b = 1"]

    def name(*codes):
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in codes])
        return frames.keys(made)

    first = name(*cells)
    assert len(first) == 1
    assert name("a = 2", *cells[1:]) != first
    assert name(cells[0], cells[1] + " + 1", cells[2]) != first
    assert name(*cells[:2], "b = 2") == first


def test_many_settings_are_drawn_one_knob_at_a_time():
    few = "a = 1  #@param [1, 2, 3]\nb = 1  #@param [1, 2]"
    many = "\n".join(f'{n} = 5  #@param {{type:"slider", min:0, max:9, step:1}}' for n in "abc")

    assert len(frames.settings(few)) == 6
    assert frames.settings(few)[0] == {"a": "1", "b": "1"}
    assert len(frames.settings(many)) == 3 * 10 - 2
    assert all(list(s.values()).count("5") >= 2 for s in frames.settings(many))


def test_numbers_in_words_are_left_alone_by_what_makes_drawings_small():
    text = '<g id="axes_1">\n<text x="1.23456" y="2">0.123456 of <g id="a"></text>\n</g>\n'

    assert frame_kernel.tidy(f"<svg a>\n{text}</svg>").endswith(
        '<text x="1.23" y="2">0.123456 of <g id="a"></text>\n</svg>'
    )


def test_a_cell_that_has_no_words_of_its_own_is_told_by_its_titles():
    words = runpy.run_path(str(frame_kernel.WORDS))["words"]
    from matplotlib.figure import Figure

    figure = Figure()
    assert words(figure) == "Figure made by this cell"
    figure.subplots().set_title("Loss")
    assert words(figure) == "Figure: Loss"
