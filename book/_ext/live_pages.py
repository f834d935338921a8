"""Give pages their live cells, if Python for the browser is at hand, and the frames of knobs.

`tools/live_assets.py` puts Pyodide, NumPy, Matplotlib and attncore into _build/live. This
extension copies them beside the scripts in _static/live, with a manifest of their sizes and
hashes, and puts the script into every page. Without them the pages get no Run buttons: no button
is shown that could not work.

`tools/frames.py` draws what cells show for each setting of their knobs into _build/frames. These
are copied too, a file for each of a page's cells with knobs, with the font of their figures.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

from fontTools import subset
from matplotlib import get_data_path
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def assets(app: Sphinx) -> Path | None:
    """Return the folder with Python for the browser, or None."""
    folder = Path(app.srcdir) / "_build" / "live"
    return folder if (folder / "pyodide-lock.json").exists() else None


def frames(app: Sphinx) -> dict[str, Path]:
    """Return the files of frames by the address that a page asks for: page/place.json."""
    folder = Path(app.srcdir) / "_build" / "frames"
    list_of_pages = folder / "pages.json"
    names = json.loads(list_of_pages.read_text("utf-8")) if list_of_pages.exists() else {}
    found = {
        f"{page}/{place}.json": folder / f"{name}.json"
        for page, files in names.items()
        for place, name in enumerate(files, start=1)
    }
    return {address: path for address, path in found.items() if path.exists()}


def add_script(app: Sphinx) -> None:
    """Put script and style into every page, or say why not."""
    drawn = {"data-frames": ""} if frames(app) else {}
    if assets(app):
        app.add_js_file("live/live.mjs", type="module", **drawn)
    else:
        logger.info("No live cells in this build: python tools/live_assets.py makes their parts.")
        if drawn:
            app.add_js_file("live/drawn.mjs", type="module", **drawn)
    app.add_css_file("live/live.css")


def copy_assets(app: Sphinx, error: Exception | None) -> None:
    """Put the assets under _static/live/pyodide."""
    source, target = assets(app), Path(app.outdir) / "_static" / "live" / "pyodide"
    if error is not None or app.builder.format != "html" or source is None:
        return
    target.mkdir(parents=True, exist_ok=True)
    files = {}
    for path in sorted(source.iterdir()):
        content = path.read_bytes()
        if path.suffix in (".mjs", ".wasm", ".zip", ".whl"):
            digest = hashlib.sha256(content).hexdigest()
            files[path.name] = {"bytes": len(content), "sha256": digest}
        copy = target / path.name
        if not copy.exists() or copy.read_bytes() != content:
            shutil.copyfile(path, copy)
    for old in target.iterdir():
        if not (source / old.name).exists():
            old.unlink()
    (target / "manifest.json").write_text(json.dumps({"files": files}), "utf-8")


def copy_frames(app: Sphinx, error: Exception | None) -> None:
    """Put the frames under _static/live/frames, and the characters of their figures as a font."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "live" / "frames"
    shutil.rmtree(target, ignore_errors=True)
    text = set()
    for address, path in frames(app).items():
        (target / address).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / address)
        text |= set(path.read_text("utf-8"))
    if text:
        (target / "dejavu.woff").write_bytes(font("".join(sorted(text))))


def font(text: str) -> bytes:
    """Return DejaVu Sans, matplotlib's font, with no more than the characters of a text."""
    options = subset.Options(flavor="woff", layout_features=["kern"])
    options.drop_tables.append("FFTM")  # of the program that made it
    options.recalc_timestamp = False
    whole = subset.load_font(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", options)
    part = subset.Subsetter(options)
    part.populate(text=text)
    part.subset(whole)
    file = io.BytesIO()
    subset.save_font(whole, file, options)
    return file.getvalue()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", add_script)
    app.connect("build-finished", copy_assets)
    app.connect("build-finished", copy_frames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
