"""Put the pictures of attncore.draw into the page itself, where they take its theme.

MyST-NB writes an SVG output to a file and shows it as <img>: there it is dark ink on white, and
nothing answers to the mouse. The style sheet, which each picture carries, stands on a page once.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from attncore.draw.sheet import page_sheet

PICTURE = re.compile(r'<svg [^>]*class="ac-picture[ "]')


class InlinePictures(SphinxPostTransform):
    """Replace the images that attncore.draw made by their text."""

    default_priority = 200  # after MyST-NB has chosen what to show of an output
    formats = ("html",)

    def run(self, **options: object) -> None:
        """Do it."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.env.srcdir, image["uri"].lstrip("/"))
            if path.suffix == ".svg" and path.exists():
                text = path.read_text("utf-8").strip()
                if PICTURE.match(text):
                    text = re.sub(r"<style>.*?</style>", "", text, flags=re.S)
                    image.replace_self(nodes.raw("", text, format="html"))


def chinese(app: Sphinx) -> str:
    """Return the rule for the font of the examples' Chinese, with the font in it.

    A font that comes later than the page leaves text blank, in Chromium now and then for good.
    """
    font = Path(app.srcdir, "book", "_static", "chinese.woff").read_bytes()
    return (
        '@font-face{font-family:"Chinese of this book";unicode-range:U+3000-303F,U+4E00-9FFF;'
        f"src:url(data:font/woff;base64,{base64.b64encode(font).decode()})}}\n"
    )


def write_sheet(app: Sphinx) -> None:
    """Write the style sheet among the static files."""
    if app.builder.format == "html":
        folder = Path(app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pictures.css").write_text(chinese(app) + page_sheet(), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_post_transform(InlinePictures)
    app.connect("builder-inited", write_sheet)
    app.add_css_file("pictures.css")
    app.add_js_file("pictures.mjs", type="module")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
