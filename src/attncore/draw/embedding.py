"""From a text to the rows of X: pieces, their numbers, and the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_integer
from attncore.base.reading import read_labels, read_numbers
from attncore.draw.matrix import ROW, Matrix
from attncore.draw.picture import Picture, check_small, check_step
from attncore.draw.scene import Scene
from attncore.draw.text import width_of


def embedding(
    table: Array,
    numbers: Sequence[int],
    *,
    vocabulary: Sequence[str] | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw how tokens become vectors: each has a number, which picks a row of a table.

    .. math:: x_i = W_E[n_i]

    Parameters
    ----------
    table
        The embedding `(N, d)`, NumPy or torch: a row for each token that a model knows, at most
        8 of them and at most 8 wide.
    numbers
        Of the text's tokens, from 0 to N - 1, at most 8 of them. A number may come again.
    vocabulary
        The N tokens that a model knows; numbers from 0 unless given.
    step
        Draw it as it is when this token of the text, counted from 0, is looked up. None draws
        the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the table is too large to be read, a number is of no row, a name is missing, or there
        is no such step.
    TypeError
        If the table is not of real numbers, `numbers` are no list, or a number is no integer.

    References
    ----------
    Bengio et al. (2003), section 2, for the table; Vaswani et al. (2017), section 3.4.

    Examples
    --------
    >>> drawn = embedding([[0, 1], [1, 1]], [1, 0], vocabulary=["cat", "sat"])
    >>> drawn.words.split(". ")[1]
    'sat has number 1 and becomes (1, 1), cat has number 0 and becomes (0, 1)'
    """
    rows = read_numbers("table", table)
    check_small("table", rows)
    known = read_labels("vocabulary", vocabulary, len(rows))
    if isinstance(numbers, str) or not isinstance(numbers, Sequence | np.ndarray):
        raise TypeError(f"numbers must be a list of integers, got {type(numbers).__name__}")
    if not 1 <= len(numbers) <= 8:
        raise ValueError(f"numbers must be those of 1 to 8 tokens, got {len(numbers)}")
    chosen = [check_integer(f"numbers[{at}]", n) for at, n in enumerate(numbers)]
    for at, n in enumerate(chosen):
        if not 0 <= n < len(rows):
            raise ValueError(
                f"numbers[{at}] must be a row of the table {shape_of(rows)}, 0 to "
                f"{len(rows) - 1}, got {n}"
            )
    check_step(step, len(chosen), "tokens")
    tokens = [known[n] for n in chosen]
    whole = Matrix(rows, name="W_E", rows=[f"{n}  {t}" for n, t in enumerate(known)])
    made = Matrix(rows[chosen], name="X", links="query", stage="made", digits=whole.places)
    shown = [[made.text(i, j) for j in range(rows.shape[1])] for i in range(len(chosen))]
    told = [
        f"{token} has number {n} and becomes ({', '.join(row)})"
        for token, n, row in zip(tokens, chosen, shown, strict=True)
    ]
    words = (
        f"A table W_E {shape_of(rows)} has one row for each token that the model knows. "
        f"{', '.join(told)}. The rows, one below the other, are X {shape_of(made.array)}."
    )
    scenes = _scene(tokens, chosen, whole, made, step), _tall(tokens, chosen, whole, made, step)
    return Picture("From tokens to vectors", words, *scenes, tokens)


def _scene(
    tokens: list[str], chosen: list[int], table: Matrix, made: Matrix, step: int | None
) -> Scene:
    """Draw tokens, table and X from left to right."""
    s = Scene(step)
    left, top, high = _listed(s, tokens, chosen, len(table.array))
    start = left + 46
    box = s.put(table, start + 84 + table.before, (high - table.height) / 2)
    out = s.put(made, box.end + 110, top)
    for i, n in enumerate(chosen):
        y, row = top + ROW * (i + 0.5), box.y + ROW * (n + 0.5)
        with s.cell("query", i):
            s.arrow((start, y), (box.x - box.before - 6, row), role="soft")
            s.arrow((box.end + 10, row), (out.x - 8, y), role="ink")
    return s


def _tall(
    tokens: list[str], chosen: list[int], table: Matrix, made: Matrix, step: int | None
) -> Scene:
    """Draw the tokens beside the table, and X below it."""
    s = Scene(step)
    left, top, high = _listed(s, tokens, chosen, len(table.array))
    start = left + 40
    box = s.put(table, start + 34 + table.before, (high - table.height) / 2)
    out = s.put(made, box.x, high + made.above + 46)
    for i, n in enumerate(chosen):
        y, row = top + ROW * (i + 0.5), box.y + ROW * (n + 0.5)
        with s.cell("query", i):
            s.arrow((start, y), (box.x - box.before - 4, row), role="soft")
        s.text((out.x - 12, out.y + ROW * (i + 0.5)), tokens[i], "small end")
    s.arrow((box.center[0], high + 8), (box.center[0], out.y - made.above - 6), role="ink")
    return s


def _listed(
    s: Scene, tokens: list[str], chosen: list[int], rows: int
) -> tuple[float, float, float]:
    """Write the tokens below one another, each with its number, beside a table of so many rows.

    Return how wide they are, where they begin, and how high the taller of both is.
    """
    end = max(width_of(t) for t in tokens) + 8
    high = max(len(chosen), rows) * ROW
    top = (high - len(chosen) * ROW) / 2
    for i, (token, n) in enumerate(zip(tokens, chosen, strict=True)):
        y = top + ROW * (i + 0.5)
        with s.cell("query", i):
            s.text((end - 8, y), token, "bold end")
            s.text((end + 22, y), f"→ {n}")
    return end, top, high
