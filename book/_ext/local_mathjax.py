r"""Serve MathJax from the book's own site, so that formulas need no other host.

In a formula \query{Q}, \key{K}, \value{V} and \weights{A} have the colours of the pictures.

The files come from the PyPI package sphinx-mathjax-offline, which carries MathJax 3.2.2
(Apache-2.0). It is a carrier only: its code is not run, and what it carries must have the
SHA-256 of the official npm package mathjax@3.2.2.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from attncore.draw.colors import ROLES

CARRIER = "sphinx-mathjax-offline"
SCRIPT = "tex-chtml.js"
FONTS = "output/chtml/fonts/woff-v2"
CLASSES = "input/tex/extensions/html.js"  # what gives a symbol its class, loaded when one has one
SHA256 = {
    SCRIPT: "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5",
    CLASSES: "e3647c848f26ad228d07043f1e63c56a646da9d20a6c0f180a4067fa9e10facc",
    FONTS: "c55a2b8b53c69c5f0d9dfa69ecb79fb25d5e360b8555dd7f461901a5a674f64b",
}


def carried() -> Path:
    """Return the folder that holds MathJax, after checking it."""
    spec = importlib.util.find_spec(CARRIER)
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError(f"MathJax is missing: pip install {CARRIER}")
    folder = Path(spec.submodule_search_locations[0]) / "static" / "mathjax"
    for name, expected in SHA256.items():
        if fingerprint(folder / name) != expected:
            raise ExtensionError(f"{CARRIER} carries another {name} than the pinned one")
    return folder


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's file names and contents in order."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        if file != path:
            digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Put the scripts and their fonts under _static/mathjax."""
    if error is not None or app.builder.format != "html":
        return
    source, target = carried(), Path(app.outdir) / "_static" / "mathjax"
    for name in (SCRIPT, CLASSES, *(f"{FONTS}/{font.name}" for font in (source / FONTS).iterdir())):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.config.mathjax3_config = {
        "tex": {"macros": {role: [rf"\class{{ac-sym-{role}}}{{#1}}", 1] for role in ROLES}}
    }
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
