"""Show the theme's icons by a font that holds no more than the icons in use.

The theme brings its icons twice: as fonts that its style sheet names, 156 kB for the one that is
used, and as a script of 543 kB (compressed) that draws the same ones. Readers should wait for
neither. book.css names the small font, which takes the place of the theme's.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from fontTools import subset
from sphinx.application import Sphinx

SCRIPT = "_static/scripts/fontawesome.js"
FONT = "_static/vendor/fontawesome/webfonts/fa-solid-900.ttf"
NAMED = re.compile(r"((?:\.fa-[\w-]+:before,?)+)\{content:\"\\([0-9a-f]+)\"\}")
WRITTEN = re.compile(r"content:\"\\([0-9a-f]{4})\"|([\ue000-\uf8ff])")


def used(pages: str, scripts: str, sheets: str) -> set[int]:
    """Return the characters of the icons that pages and scripts name, or style sheets show."""
    names = set(re.findall(r"\bfa-([a-z][a-z0-9-]*)", pages + scripts))
    found = {
        int(code, 16)
        for selectors, code in NAMED.findall(sheets)
        if names & set(re.findall(r"\.fa-([\w-]+):before", selectors))
    }
    rest = NAMED.sub("", sheets)
    return found | {int(code, 16) if code else ord(own) for code, own in WRITTEN.findall(rest)}


def shrink(app: Sphinx, error: Exception | None) -> None:
    """Write the font, and leave nothing but a line in the script that every page names."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)

    def text(pattern: str, folder: Path = out) -> str:
        return "".join(path.read_text("utf-8") for path in sorted(folder.rglob(pattern)))

    script = out / SCRIPT
    script.write_text("// The icons are those of icons.woff.\n", "utf-8")
    script.with_name(f"{script.name}.map").unlink(missing_ok=True)
    static = out / "_static"
    characters = used(text("*.html"), text("*.js", static / "scripts"), text("*.css", static))
    (static / "icons.woff").write_bytes(font(out / FONT, characters))


def font(whole: Path, characters: set[int]) -> bytes:
    """Return a font with these characters alone, those that it has."""
    options = subset.Options(flavor="woff", drop_tables=["FFTM"], recalc_timestamp=False)
    loaded = subset.load_font(whole, options)
    part = subset.Subsetter(options)
    part.populate(unicodes=characters)
    part.subset(loaded)
    file = io.BytesIO()
    subset.save_font(loaded, file, options)
    return file.getvalue()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
