"""Compile the modules that a first Run imports. Started inside Pyodide, by precompile.mjs.

Compiling them is most of the time of a first Run, but compiled modules are larger than their
source. So of the standard library and NumPy only those are compiled that a page of NumPy
cells imports, and of the packages that draw those that a first figure imports. attncore keeps
its source as well, for readers to look at.
"""

import importlib.util
import io
import py_compile
import sys
import tempfile
import zipfile
from pathlib import Path

STDLIB, PACKAGES = "/lib/python314.zip/", "/lib/python3.14/site-packages/"


def imported(folder: str) -> dict[str, str]:
    """Return path and source of every module that came from a folder."""
    found = {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None) or ""
        spec = getattr(module, "__spec__", None)
        # What is frozen into Python is compiled already; its origin is not its path.
        if path.startswith(folder) and path.endswith(".py") and spec and spec.origin == path:
            found[path] = spec.loader.get_source(name)
    return found


def compiled(path: str, source: str) -> bytes:
    """Return a module as a .pyc file that Python believes without looking for its source."""
    # In the standard library the texts of help() go, to save bytes; Pyodide uses its own.
    slim = path.startswith(STDLIB) and "pyodide" not in path
    with tempfile.TemporaryDirectory() as folder:
        plain, target = Path(folder, "module.py"), Path(folder, "module.pyc")
        plain.write_text(source, "utf-8")
        py_compile.compile(
            str(plain),
            str(target),
            dfile=path,
            doraise=True,
            optimize=2 if slim else 0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return target.read_bytes()


def start_numpy() -> None:
    """Import what the first cell of a page needs, and what runs it."""
    import asyncio  # noqa: F401
    import linecache  # noqa: F401
    import traceback  # noqa: F401

    import numpy as np
    import pyodide.code  # noqa: F401

    np.random.default_rng(0).normal(size=3)


def draw() -> None:
    """Make a figure as live_figures.py does."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, layout="constrained")
    left.plot([1, 2], label="$x$")
    left.legend()
    figure.colorbar(right.imshow([[1, 2]]))
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")


def others() -> dict[str, str]:
    """Return the modules that a first Run needs, and a first figure."""
    start_numpy()
    modules = imported(STDLIB) | imported(PACKAGES)
    draw()
    later = imported(PACKAGES).items()
    return modules | {path: source for path, source in later if "/numpy/" not in path}


def ours() -> dict[str, str]:
    """Return the modules of attncore that a first Run needs, and a first model."""
    import attncore.models  # noqa: F401

    return imported(f"{PACKAGES}attncore/")


def place(path: str) -> str:
    """Return where a compiled module belongs: ours beside its source, others in its place."""
    own = path.startswith(f"{PACKAGES}attncore/")
    return importlib.util.cache_from_source(path) if own else f"{path}c"


with zipfile.ZipFile("/compiled.zip", "w") as archive:
    for path, source in (ours() if package == "attncore" else others()).items():  # noqa: F821 (set by precompile.mjs)
        name = place(path).removeprefix(STDLIB).removeprefix(PACKAGES)
        archive.writestr(name, compiled(path, source))
