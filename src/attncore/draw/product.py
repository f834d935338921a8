"""A product of two matrices: each number is a row of the left times a column of the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_labels, read_numbers
from attncore.base.settings import check_choice
from attncore.draw.colors import COLORS
from attncore.draw.matrix import Matrix
from attncore.draw.picture import TALL, WIDE, Picture, check_small, check_step
from attncore.draw.scene import Scene
from attncore.draw.text import SMALL, number, width_of

LINE = 20  # height of a line of text
NAMES = ("A", "B", "A B")


def product(
    left: Array,
    right: Array,
    *,
    names: Sequence[str] | None = None,
    roles: Sequence[str] = ("ink", "ink", "ink"),
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw a product of two matrices, with the right one over the result.

    .. math:: C_{ij} = \sum_l A_{il} B_{lj}

    Each number of the result stands where its row of the left and its column of the right meet.
    At a step the sums of one row are written out.

    Parameters
    ----------
    left, right
        `(m, n)` and `(n, p)`, NumPy or torch, at most 8 by 8.
    names
        Of left, right and result, such as `["Q", "Kᵀ", "QKᵀ"]`.
    roles
        Their colours: query, key, value, weights, or ink.
    rows, columns
        Names of the rows of the left, and of the columns of the right.
    step
        Draw it as it is when this row, counted from 0, is computed. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the matrices do not fit or are too large, a name is missing, or there is no such step
        or colour.
    TypeError
        If they are not real numbers or `step` is no integer.

    References
    ----------
    Vaswani et al. (2017), equation 1, has two of these products.

    Examples
    --------
    >>> product([[1, 2]], [[3], [4]], names=["q", "k", "s"]).words
    'q (1, 2) times k (2, 1) is s (1, 1). Row 0 and column 0: 1·3 + 2·4 = 11.'
    """
    left, right = read_numbers("left", left), read_numbers("right", right)
    for name, array in (("left", left), ("right", right)):
        check_small(name, array)
    if left.shape[1] != len(right):
        raise ValueError(
            "left must have as many columns as right has rows: "
            f"left {shape_of(left)}, right {shape_of(right)}"
        )
    check_step(step, len(left), "rows")
    titles = read_labels("names", NAMES if names is None else names, 3)
    colors = [check_choice("roles", role, COLORS) for role in read_labels("roles", roles, 3)]
    across = None if rows is None else read_labels("rows", rows, len(left))
    down = None if columns is None else read_labels("columns", columns, right.shape[1])
    result = left @ right
    a = Matrix(left, colors[0], titles[0], across or (), row_role=colors[0], links="query",
               stage="lit")  # fmt: skip
    b = Matrix(right, colors[1], titles[1], columns=down or (), column_role=colors[1],
               links="column")  # fmt: skip
    c = Matrix(result, colors[2], titles[2], links="both", stage="made")
    wide, tall = (_scene(step, a, b, c, room) for room in (WIDE, TALL))
    words = (
        f"{titles[0]} {shape_of(left)} times {titles[1]} {shape_of(right)} is {titles[2]} "
        f"{shape_of(result)}. {_row(a, 0)} and column {down[0] if down else 0}: "
        f"{_sum(a, b, c, 0, 0)}."
    )
    steps = [_row(a, i) for i in range(len(left))]
    return Picture("A product of two matrices", words, wide, tall, steps)


def _row(a: Matrix, i: int) -> str:
    """Return how a row is called."""
    return a.rows[i] if a.rows else f"Row {i}"


def _sum(a: Matrix, b: Matrix, c: Matrix, i: int, j: int, room: float = math.inf) -> str:
    """Return how one number of the result comes about, in full if there is room."""
    terms = [
        f"{number(float(x), a.places)}·{_bracketed(number(float(y), b.places))}"
        for x, y in zip(a.array[i], b.array[:, j], strict=True)
    ]
    end = f" = {number(float(c.array[i, j]), c.places)}"
    text = " + ".join(terms) + end
    for first in (2, 1):  # how many terms are written before the dots
        if width_of(text, SMALL) > room and len(terms) > first + 1:
            text = " + ".join([*terms[:first], "…", terms[-1]]) + end
    return text


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("−") else text


def _scene(step: int | None, a: Matrix, b: Matrix, c: Matrix, room: float) -> Scene:
    """Draw the three, and one row's sums beside them or below."""
    s = Scene(step)
    column = max(b.column, c.column)
    x = a.before + a.width + 26
    top = s.put(replace(b, cell=column), x, b.above)
    result = s.put(replace(c, cell=column), x, top.foot + c.above + 16)
    s.put(a, a.before, result.y)
    names = b.columns or [f"column {j}" for j in range(c.array.shape[1])]
    before = max(width_of(name, SMALL) for name in names) + 14
    widest = max(
        width_of(_sum(a, b, c, i, j), SMALL) for i in range(len(a.array)) for j in range(len(names))
    )
    x, y = result.end + 30, b.above + 9
    if x + before + widest > room:
        x, y = 0, result.foot + 26
    for i in range(len(a.array)):
        for only in (i, -1) if i == 0 else (i,):  # of the whole, the first row
            s.text((x, y), _row(a, i), f"small start bold {a.row_role}", only=only)
            for j, name in enumerate(names):
                at = y + LINE * (j + 1)
                s.text((x + before - 10, at), name, f"small end {b.column_role}", only=only)
                total = _sum(a, b, c, i, j, room - before)
                s.text((x + before, at), total, "small start", only=only)
    return s
