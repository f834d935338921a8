"""A timetable: which request each row of a batch works on at each step, and where a row is idle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_labels, read_numbers
from attncore.draw.picture import TALL, WIDE, Picture
from attncore.draw.scene import Box, Scene
from attncore.draw.text import SMALL, width_of

MOST = {"tables": 4, "rows": 16, "steps": 600, "request": 999}
HIGH, PITCH = 17, 20  # of a bar, and from row to row
IDLE = -1
Run = tuple[int, int, int]  # request, first step, the step after the last


def timetable(*tables: Array, names: Sequence[str] | None = None) -> Picture:
    r"""Draw which request each row of a batch works on, from step to step.

    .. math:: \text{busy} = \frac{\text{places that are not } -1}{\text{rows} \times \text{steps}}

    A dark bar is a request. A dashed frame is a row that is idle. All tables have one scale, so
    that a shorter one ends further to the left.

    Parameters
    ----------
    *tables
        Integers `(rows, steps)` each, at most 4 tables of 16 rows and 600 steps: the number of a
        request, 0 to 999, or -1 where the row is idle.
    names
        One for each table.

    Returns
    -------
    Picture
        Shown by Jupyter; its `repr` counts steps and busy places.

    Raises
    ------
    ValueError
        If there is no table, one is not `(rows, steps)` or too large, holds something other than
        such numbers, or a name is missing.
    TypeError
        If a table does not hold real numbers.

    References
    ----------
    Yu et al. (2022), section 3.

    Examples
    --------
    >>> timetable([[0, 0, 0, 2], [1, -1, -1, -1]], names=["static"]).words
    'static: 3 requests on 2 rows take 4 steps; 5 of 8 places are busy, 62 %.'
    """
    if not 1 <= len(tables) <= MOST["tables"]:
        raise ValueError(f"tables must be 1 to {MOST['tables']} of them, got {len(tables)}")
    read = [_read(table) for table in tables]
    titles = [""] * len(read) if names is None else read_labels("names", names, len(read))
    longest = max(table.shape[1] for table in read)
    wide, tall = Scene(), Scene()
    for s, width in ((wide, WIDE), (tall, TALL)):
        y = 0.0
        for title, table in zip(titles, read, strict=True):
            y = _table(s, y, title, table, (width - 46) / longest)
        _axis(s, y, longest, (width - 46) / longest)
    told = [_words(title, table) for title, table in zip(titles, read, strict=True)]
    return Picture("Who works on what, step by step", " ".join(told), wide, tall)


def _read(table: Array) -> np.ndarray:
    array = read_numbers("tables", table)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"tables must be (rows, steps) each, got {shape_of(array)}")
    rows, steps = array.shape
    if rows > MOST["rows"] or steps > MOST["steps"]:
        raise ValueError(
            f"tables must have at most {MOST['rows']} rows and {MOST['steps']} steps to be read "
            f"as a picture, got {rows} and {steps}: draw a part, as table[:, :{MOST['steps']}]"
        )
    whole = (array == array.round()) & (array >= IDLE) & (array <= MOST["request"])
    if not whole.all():
        raise ValueError(
            f"tables must hold requests, 0 to {MOST['request']}, or -1 for an idle row, got "
            f"{array[~whole][0]:g}"
        )
    return array.astype(int)


def _counts(table: np.ndarray) -> tuple[int, int, int]:
    """Return how many requests there are, busy places and places."""
    busy = table != IDLE
    return len(np.unique(table[busy])), int(busy.sum()), table.size


def _words(title: str, table: np.ndarray) -> str:
    requests, busy, places = _counts(table)
    rows, steps = table.shape
    return (
        f"{title + ': ' if title else ''}{requests} request{'s' * (requests != 1)} on {rows} "
        f"row{'s' * (rows > 1)} take {steps} step{'s' * (steps > 1)}; {busy} of {places} places "
        f"are busy, {100 * busy / places:.0f} %."
    )


def _runs(row: np.ndarray) -> list[Run]:
    """Return the stretches of a row that have one number."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    return [(int(row[a]), a, b) for a, b in pairwise(edges)]


def _table(s: Scene, y: float, title: str, table: np.ndarray, scale: float) -> float:
    """Draw one table; return where the next one begins."""
    _, busy, places = _counts(table)
    steps = table.shape[1]
    if title:
        s.text((0, y), title, "small start bold")
        y += 18
    told = f"{steps} step{'s' * (steps > 1)}, {100 * busy / places:.0f} % of the places busy"
    s.text((0, y), told, "small start soft")
    y += 14
    for r, row in enumerate(table):
        top = y + r * PITCH
        s.text((28, top + HIGH / 2), str(r), "small end soft")
        for n, (request, start, stop) in enumerate(_runs(row)):
            box = Box(36 + start * scale, top, (stop - start) * scale - 0.8, HIGH)
            if request == IDLE:
                s.frame(box, "soft", dash=True, corner=2)
                continue
            s.rect(box, "ink", opacity=0.3 if n % 2 else 0.16, corner=2)
            if width_of(str(request), SMALL) + 5 <= box.w:
                s.text(box.center, str(request), "small")
    return y + len(table) * PITCH + 16


def _axis(s: Scene, y: float, steps: int, scale: float) -> None:
    """Number the steps below all tables."""
    apart = next(
        apart
        for apart in (1, 2, 5, 10, 20, 50, 100, 200)
        if apart * scale >= width_of(str(steps), SMALL) + 16
    )
    top = y - 12
    s.line((36, top), (36 + steps * scale, top))
    for t in range(0, steps + 1, apart):
        x = 36 + t * scale
        s.line((x, top), (x, top + 4))
        s.text((x, top + 14), str(t), "small soft")
    s.text((36, top + 31), "steps", "small start soft")
