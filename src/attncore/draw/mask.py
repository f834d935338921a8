"""Masks: which query may attend to which key."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from attncore.base.arrays import Array, check_boolean, check_readable, namespace, shape_of
from attncore.base.reading import read_labels, to_numpy
from attncore.draw.matrix import Matrix
from attncore.draw.picture import TALL, WIDE, Picture, check_small
from attncore.draw.scene import Scene, shelves
from attncore.draw.text import listed

MOST = 12  # queries and keys
APART, BELOW = 34, 40  # between two masks, and from one row of them to the next


def mask(
    *allowed: Array,
    names: Sequence[str] | None = None,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
) -> Picture:
    r"""Draw one mask or several side by side: a row for each query, a column for each key.

    .. math:: M_{ij} = \text{true where query } i \text{ may attend to key } j

    A purple cell is allowed, and a grey one is hidden.

    Parameters
    ----------
    *allowed
        Boolean `(Tq, Tk)` each, NumPy or torch, all of one shape and at most 12 by 12. For
        padding, `(B, Tk)`: a row for each sequence.
    names
        One for each mask.
    queries, keys
        Names of the rows and the columns; numbers from 0 unless given. A name of two words, such
        as "猫 cat", stands on two lines over a column.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If there is no mask, one is not `(Tq, Tk)` or too large, shapes differ, or a name is
        missing.
    TypeError
        If a mask is not boolean.

    References
    ----------
    Vaswani et al. (2017), section 3.2.3.

    Examples
    --------
    >>> from attncore.masks import causal
    >>> mask(causal(2, 3), names=["causal"]).words
    '2 queries by 3 keys. causal: query 0 may attend to keys 0 and 1; query 1 to all keys.'
    """
    if not allowed:
        raise ValueError("allowed is missing: give at least one boolean mask (Tq, Tk)")
    read = [_read(array) for array in allowed]
    for other in read[1:]:
        if other.shape != read[0].shape:
            raise ValueError(
                "all allowed must have one shape to be drawn side by side, got "
                f"{shape_of(read[0])} and {shape_of(other)}: draw them one by one"
            )
    titles = [""] * len(read) if names is None else read_labels("names", names, len(read))
    rows = read_labels("queries", queries, len(read[0]))
    columns = read_labels("keys", keys, read[0].shape[1])
    panels = [
        Matrix(
            array.astype(float),
            "weights",
            title,
            rows,
            columns,
            row_role="query",
            column_role="key",
            links="both",
            shade=True,
            numbers=False,
            hidden_opacity=0.12,
            hidden=_hides(array),
        )
        for array, title in zip(read, titles, strict=True)
    ]
    wide, tall = (_scene(panels, width) for width in (WIDE, TALL))
    told = [
        f"{title + ': ' if title else ''}{_words(array, queries, rows, keys, columns)}"
        for array, title in zip(read, titles, strict=True)
    ]
    size = f"{len(rows)} quer{'y' if len(rows) == 1 else 'ies'} by {len(columns)} key"
    words = f"{size}{'s' * (len(columns) > 1)}. {' '.join(told)}"
    return Picture("Who may attend to whom", words, wide, tall)


def _hides(allowed: np.ndarray) -> Callable[[int, int], bool]:
    return lambda i, j: not allowed[i, j]


def _read(allowed: Array) -> np.ndarray:
    namespace(allowed=allowed)  # refuses a masked array
    check_boolean("allowed", allowed)
    check_readable("allowed", allowed)
    if allowed.ndim > 2:
        raise ValueError(
            f"allowed must be (Tq, Tk), got {shape_of(allowed)}: pick one sequence and head, as "
            f"allowed[{', '.join('0' * (allowed.ndim - 2))}]"
        )
    array = to_numpy(allowed)
    check_small("allowed", array, MOST)
    return array > 0


def _words(
    allowed: np.ndarray,
    queries: Sequence[str] | None,
    rows: Sequence[str],
    keys: Sequence[str] | None,
    columns: Sequence[str],
) -> str:
    parts = []
    for i, (row, name) in enumerate(zip(allowed, rows, strict=True)):
        seen = listed(_stretches(row, columns))
        if keys is None and seen:
            seen = f"key{'s' if row.sum() > 1 else ''} {seen}"
        told = "all keys" if row.all() else seen or "nothing"
        subject = f"query {name}" if queries is None else name
        parts.append(f"{subject} {'may attend ' if i == 0 else ''}to {told}")
    return "; ".join(parts) + "."


def _stretches(row: np.ndarray, columns: Sequence[str]) -> list[str]:
    """Return the names of a query's keys; three or more neighbours as the first to the last."""
    found: list[str] = []
    for run in np.split(np.arange(len(row)), np.flatnonzero(np.diff(row)) + 1):
        if row[run[0]]:
            names = [columns[j] for j in run]
            found += names if len(names) < 3 else [f"{names[0]} to {names[-1]}"]
    return found


def _scene(panels: Sequence[Matrix], width: float) -> Scene:
    """Draw the masks side by side, as many in a row as there is room for."""
    s, y = Scene(), 0.0
    rooms = [max(m.before, m.beside) + m.width + m.beside + APART for m in panels]
    for shelf in shelves(rooms, width + APART):
        x = 0.0
        for n in shelf:
            m = panels[n]
            box = s.put(m, x + max(m.before, m.beside), y + m.above)
            seen = int(m.array.sum())
            count = f"{seen} of {m.array.size} allowed"
            s.text((box.center[0], box.foot + 18), count, "small soft")
            x += rooms[n]
        y = box.foot + BELOW
    return s
