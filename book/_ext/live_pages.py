"""Give pages their live cells, if Python for the browser is at hand.

`tools/live_assets.py` puts Pyodide, NumPy, Matplotlib and attncore into _build/live. This
extension copies them beside the scripts in _static/live, with a manifest of their sizes and
hashes, and puts the script into every page. Without them the pages get no script: no button
is shown that could not work.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def assets(app: Sphinx) -> Path | None:
    """Return the folder with Python for the browser, or None."""
    folder = Path(app.srcdir) / "_build" / "live"
    return folder if (folder / "pyodide-lock.json").exists() else None


def add_script(app: Sphinx) -> None:
    """Put script and style into every page, or say why not."""
    if assets(app):
        app.add_css_file("live/live.css")
        app.add_js_file("live/live.mjs", type="module")
    else:
        logger.info("No live cells in this build: python tools/live_assets.py makes their parts.")


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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("builder-inited", add_script)
    app.connect("build-finished", copy_assets)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
