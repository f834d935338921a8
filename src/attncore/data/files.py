"""The files of this folder, as bytes or as arrays."""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, by name."""
    with np.load(io.BytesIO(read(name))) as found:
        return dict(found)


def read(name: str) -> bytes:
    """Return a file of this folder; a page in the browser loads the large ones when needed."""
    try:
        return (files(__package__) / name).read_bytes()
    except FileNotFoundError:
        folder, _, file = name.rpartition("/")
        stem = file.split(".")[0]
        call = f'{folder}("{stem}")' if folder else f"{stem}()"
        raise FileNotFoundError(
            f"{name} is not part of the browser's package, and a page loads it only for a cell "
            f"that says {call} itself: write this into the cell, or download this page's notebook "
            "and run it on your own machine, with all of attncore"
        ) from None


def names(folder: str) -> list[str]:
    """Return the names of the files in a folder of this one."""
    return sorted(path.name for path in (files(__package__) / folder).iterdir())
