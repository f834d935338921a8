"""Make the book's title images, its icon and the pictures that links to its pages are shown with.

    python tools/make_images.py            write them into book/_static
    python tools/make_images.py --check    only tell whether they are current

The SVG files and og.png are drawn by attncore.draw from the example of the front page. A chapter's
picture in previews/ is the largest that its notebook shows. The SVG files are text, and compared as
such. The others are photographs of a page: what they were made from is noted in them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
from html import escape
from pathlib import Path

import numpy as np
from chromium import ChromiumMissing, launched
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser

from attncore import attention_weights, draw
from attncore.draw.colors import COLORS
from attncore.draw.matrix import Matrix

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "book/_static"
SVG = "image/svg+xml"
TITLE = "Attention, from a table to the KV cache"
SAYS = "An interactive book: small numbers, pictures, and code that runs in the page."
SIZE = {"width": 1200, "height": 630}  # what sites that show links ask for

TOKENS = ["猫 cat", "坐在 sat on", "垫子 mat"]
X = np.array([[0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 0]])
W_Q = np.array([[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, -1]])
W_K = np.array([[2, 0, -2, 2], [0, 0, 0, 0], [0, 0, 0, 2], [0, 2, 2, 0]])
W_V = np.array([[2, 0], [0, 1], [0, 4], [1, 0]])
Q, K, V = X @ W_Q, X @ W_K, X @ W_V
A = attention_weights(Q, K)


def icon() -> str:
    """Return the icon: the weights of the example, the larger the darker."""
    cells = "".join(
        f'<rect x="{1 + 10.25 * j:g}" y="{1 + 10.25 * i:g}" width="9.5" height="9.5" rx="2" '
        f'fill="{COLORS["weights"].light}" fill-opacity="{0.15 + 0.85 * A[i, j] / A.max():.2f}"/>'
        for i, j in np.ndindex(A.shape)
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">{cells}</svg>\n'


def title(theme: str) -> str:
    """Return the title image, for light or dark pages: queries, keys, weights, values, outputs."""
    scene, x = draw.Scene(), 0.0
    last = None
    for array, role in ((Q, "query"), (K, "key"), (A, "weights"), (V, "value"), (A @ V, "ink")):
        shown = Matrix(array, role=role, numbers=False, cell=26, shade=True)
        box = scene.put(shown, x, 0)
        if last and role in ("weights", "ink"):
            scene.arrow((last.end + 10, box.center[1]), (box.x - 10, box.center[1]), role=role)
        last, x = box, box.end + (46 if role in ("key", "value") else 22)
    words = "Queries and keys give weights; weights and values give outputs."
    colors = [f"--ac-{name}:{getattr(color, theme)};" for name, color in COLORS.items()]
    text = draw.Picture("Attention in five matrices", words, scene).svg()
    return text.replace('style="', f'style="--ac-paper:transparent;{"".join(colors)}', 1)


def cards() -> dict[str, str]:
    """Return the pages that photographs are taken of, by the names of the photographs."""
    front = card(TITLE, SAYS, draw.machine(X, W_Q, W_K, W_V, tokens=TOKENS).svg())
    found = {"og.png": front}
    for notebook in sorted((ROOT / "notebooks").glob("ch*.ipynb")):
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        heading = re.search(r"^# (.+)$", text, flags=re.M)[1]  # type: ignore[index]
        drawn = [
            "".join(output["data"][SVG])
            for cell in cells
            for output in cell.get("outputs", ())
            if SVG in output.get("data", {})
        ]
        found[f"previews/{notebook.stem}.png"] = card(heading, TITLE, max(drawn, key=area))
    return found


def area(svg: str) -> float:
    """Return the area of a picture's wide layout; of one that is tall or thin, a third."""
    viewed = re.search(r'viewBox="([^"]+)"', svg)[1].split()  # type: ignore[index]
    width, height = map(float, viewed[2:])
    return width * height / (1 if 1.2 < width / height < 3 else 3)


def card(title: str, says: str, picture: str) -> str:
    """Return the page that a photograph is taken of."""
    size = 46 if len(title) < 42 else 36  # pixels: one line
    font = (STATIC / "chinese.woff").as_uri()
    return f"""<!doctype html><meta charset="utf-8"><style>
@font-face {{ font-family: Chinese; src: url({font}) }}
html {{ --ac-font: "Noto Sans", "Open Sans", sans-serif, Chinese }}
body {{ margin: 0; padding: 30px 60px; font-family: var(--ac-font); color: #1f2328 }}
h1 {{ margin: 0; font-size: {size}px }} p {{ margin: 6px 0 14px; font-size: 25px; color: #59636e }}
svg {{ display: block; margin: auto; height: 460px !important; width: 1080px }}
</style><h1>{escape(title)}</h1><p>{escape(says)}</p>{picture}"""


def source(page: str) -> str:
    """Return the hash of what a photograph is made from; where the book lies does not matter."""
    return hashlib.sha256(page.replace(STATIC.as_uri(), "").encode()).hexdigest()


def texts() -> dict[str, str]:
    """Return the SVG files by name."""
    dark, light = title("dark"), title("light")
    return {"favicon.svg": icon(), "title-light.svg": light, "title-dark.svg": dark}


def photograph(browser: Browser, card: str) -> bytes:
    """Return a photograph of a page."""
    page_file = ROOT / "_build/og.html"
    page_file.parent.mkdir(exist_ok=True)
    page_file.write_text(card, "utf-8")
    page = browser.new_context(viewport=SIZE).new_page()
    page.goto(page_file.as_uri())
    page.evaluate("document.fonts.ready")
    # Chromium leaves text blank that it laid out in an SVG before the text's font had come.
    page.locator("body > svg").evaluate("svg => svg.replaceChildren(...svg.childNodes)")
    image = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    note, data = PngInfo(), io.BytesIO()
    note.add_text("Source", source(card))
    image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(
        data, "png", pnginfo=note, optimize=True
    )
    return data.getvalue()


def stale() -> list[str]:
    """Return the names of the images that are missing or not what they should be."""
    names = [
        name
        for name, text in texts().items()
        if not (STATIC / name).exists() or (STATIC / name).read_text("utf-8") != text
    ]
    return names + [n for n, page in cards().items() if noted(STATIC / n) != source(page)]


def noted(path: Path) -> str:
    """Return what is noted in a photograph as its source; nothing if there is none."""
    if not path.exists():
        return ""
    with Image.open(path) as image:
        return str(image.info.get("Source", ""))


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    names = stale()
    if parser.parse_args().check:
        sys.exit(f"Out of date: {', '.join(names)}. Run tools/make_images.py." if names else 0)
    for name, text in texts().items():
        (STATIC / name).write_text(text, "utf-8", newline="\n")
    pages = cards()
    for old in (STATIC / "previews").glob("*.png"):
        if f"previews/{old.name}" not in pages:
            old.unlink()
    with launched() as browser:
        for name in pages.keys() & {*names}:
            (STATIC / name).parent.mkdir(exist_ok=True)
            (STATIC / name).write_bytes(photograph(browser, pages[name]))
    print(f"Written: {', '.join(names)}" if names else "All are current.")


if __name__ == "__main__":
    try:
        main()
    except ChromiumMissing as problem:
        sys.exit(str(problem))
