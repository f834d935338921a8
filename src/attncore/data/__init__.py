"""The small real data sets the book uses. Sources and hashes: README.md beside this file."""

from __future__ import annotations

from importlib.resources import files

import numpy as np


def motorcycle() -> tuple[np.ndarray, np.ndarray]:
    """Return 133 readings of a crash helmet in a simulated motorcycle accident.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Time after the impact in milliseconds, `(133,)`, ascending, 39 of them a repeat of
        the one before; and head acceleration in g, `(133,)`. Both float64.

    References
    ----------
    Schmidt, Mattern and Schueler (1981); analysed by Silverman (1985).

    Examples
    --------
    >>> times, accel = motorcycle()
    >>> times.shape, float(times.max()), float(accel.min())
    ((133,), 57.6, -134.0)
    """
    lines = (files(__name__) / "motorcycle.csv").read_text("ascii").splitlines()[1:]
    table = np.array([line.split(",") for line in lines], dtype=np.float64)
    return table[:, 0].copy(), table[:, 1].copy()
