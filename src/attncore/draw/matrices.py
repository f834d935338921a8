"""Matrices as a book prints them: numbers between brackets, with names, shapes and signs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from attncore.base.arrays import Array
from attncore.base.integers import check_integer
from attncore.base.reading import read_labels, read_numbers
from attncore.base.settings import check_flag
from attncore.draw.matrix import Matrix
from attncore.draw.picture import Picture, check_small
from attncore.draw.scene import Scene

MOST = 6  # matrices in a row
ROLES = {"Q": "query", "K": "key", "V": "value", "A": "weights", "S": "weights"}
WIDE, TALL, SIGN = 676.0, 350.0, 34.0  # room on a line, and for a sign


def matrix(
    array: Array,
    *,
    name: str = "",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    digits: int | None = None,
    shade: bool = False,
) -> Picture:
    """Draw a matrix: its numbers between brackets, its name and its shape.

    .. math:: X = (x_{ij})

    Parameters
    ----------
    array
        `(rows, columns)`, NumPy or torch, at most 8 by 8. Infinity, such as a masked score, and NaN
        are written as such.
    name
        Written over it with the shape, such as "W_Q"; names that begin with Q, K, V, A or S, and
        maps such as W_Q, have the colour of their role.
    rows, columns
        Names of rows and columns; none unless given. A name of two words, such as "猫 cat",
        stands on two lines over a column.
    digits
        Decimals, 0 to 6. Whole numbers are written as such and others with two unless given.
    shade
        The larger a number, the darker its cell.

    Returns
    -------
    Picture
        Shown by Jupyter; its `repr` has the numbers in words.

    Raises
    ------
    ValueError
        If the array is no matrix or too large to be read, a name is missing, or a number to be
        shaded is not finite.
    TypeError
        If the array is not of real numbers, `name` no string, `digits` no integer, or `shade`
        no bool.

    References
    ----------
    :func:`equation` draws several with signs between them.

    Examples
    --------
    >>> matrix([[1, 2], [3, 4]], name="Q", rows=["cat", "sat"])
    Matrix Q. Q, 2 x 2, has the rows (1, 2), (3, 4).
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got {type(name).__name__}")
    part = _read("array", name, array, digits, check_flag("shade", shade))
    given = _labelled(part, rows, columns)
    return Picture(f"Matrix {name}".rstrip(), _told([part]), *_scenes([given]))


def equation(
    *parts: tuple[str, Array] | str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    digits: int | None = None,
) -> Picture:
    """Draw matrices side by side with signs between them, such as X W_Q = Q.

    .. math:: Q = X W_Q

    Parameters
    ----------
    parts
        Pairs of a name and a matrix `(rows, columns)`, at most 8 by 8, and between them strings
        such as "=" or "+". Two matrices without a sign are a product. At most 6 matrices.
    rows
        Names of the first matrix's rows; none unless given.
    columns
        Names of the last matrix's columns; none unless given.
    digits
        Decimals, 0 to 6. Whole numbers are written as such and others with two unless given.

    Returns
    -------
    Picture
        Shown by Jupyter. Of a product A B = C a number of C, when pointed at, lights its row of A
        and its column of B. The `repr` has the numbers in words.

    Raises
    ------
    ValueError
        If there is no matrix or more than 6, one is too large to be read, or a name is missing.
    TypeError
        If a part is neither a pair nor a string, an array is not of real numbers, or `digits`
        no integer.

    References
    ----------
    :func:`matrix` draws a single one.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1, 2]])
    >>> equation(("X", X), ("W", np.eye(2)), "=", ("Q", X @ np.eye(2))).title
    'X W = Q'
    """
    found: list[Matrix | str] = []
    for at, part in enumerate(parts):
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str):
            found.append(_read(part[0] or f"parts[{at}]", *part, digits))
        else:
            raise TypeError(
                f"parts[{at}] must be a pair (name, matrix) or a sign such as '=', got "
                f"{type(part).__name__}"
            )
    matrices = [part for part in found if isinstance(part, Matrix)]
    if not 1 <= len(matrices) <= MOST:
        raise ValueError(f"parts must have 1 to {MOST} matrices, got {len(matrices)}")
    matrices[0] = _labelled(matrices[0], rows, None)
    matrices[-1] = _labelled(matrices[-1], None, columns)
    kinds = [part if isinstance(part, str) else "" for part in found]
    if kinds == ["", "", "=", ""] and _is_product(*matrices):
        links = ("query", "column", "both")
        matrices = [replace(m, links=link) for m, link in zip(matrices, links, strict=True)]
    rest = iter(matrices)
    found = [part if isinstance(part, str) else next(rest) for part in found]
    title = " ".join(part if isinstance(part, str) else part.name for part in found)
    return Picture(title, _told(matrices), *_scenes(found))


def _read(where: str, name: str, array: Array, digits: int | None, shade: bool = False) -> Matrix:
    """Return the matrix to draw, in the colour of its role; messages call it `where`."""
    numbers = read_numbers(where, array)
    check_small(where, numbers, finite=shade)  # minus infinity can be written, but not shaded
    if digits is not None and not 0 <= check_integer("digits", digits) <= 6:
        raise ValueError(f"digits must lie in 0 to 6, got {digits}")
    return Matrix(numbers, role_of(name), name, digits=digits, shade=shade)


def role_of(name: str) -> str:
    """Return the role that a name such as "Q", "W_K" or "QKᵀ" has; "Quotient" has none."""
    letters = name.removeprefix("W_")
    if letters.startswith(("QK", "KQ")):
        return "weights"
    return "ink" if re.match("[A-Z][a-z]", letters) else ROLES.get(letters[:1], "ink")


def _labelled(part: Matrix, rows: Sequence[str] | None, columns: Sequence[str] | None) -> Matrix:
    """Return the matrix with names of its rows and columns, those that are given."""
    down, across = part.array.shape
    return replace(
        part,
        rows=part.rows if rows is None else read_labels("rows", rows, down),
        columns=part.columns if columns is None else read_labels("columns", columns, across),
    )


def _is_product(a: Matrix, b: Matrix, c: Matrix) -> bool:
    fits = a.array.shape[1] == b.array.shape[0]
    return fits and c.array.shape == (a.array.shape[0], b.array.shape[1])


def _told(matrices: Sequence[Matrix]) -> str:
    """Return the matrices in words, with all of their numbers."""
    said = []
    for m in matrices:
        down, across = m.array.shape
        rows = ", ".join(f"({', '.join(m.text(i, j) for j in range(across))})" for i in range(down))
        said.append(f"{m.name or 'The matrix'}, {down} x {across}, has the rows {rows}")
    return "; ".join(said) + "."


def _scenes(parts: Sequence[Matrix | str]) -> tuple[Scene, Scene]:
    """Draw the parts from left to right, on as many lines as a wide and a narrow page need."""
    scenes = Scene(), Scene()
    for scene, room in zip(scenes, (WIDE, TALL), strict=True):
        y = 0.0
        for line in _lines(parts, room):
            matrices = [part for part in line if isinstance(part, Matrix)]
            middle = y + max((m.above + m.height / 2 for m in matrices), default=10)
            x = 0.0
            for part in line:
                if isinstance(part, Matrix):
                    scene.put(part, x + max(part.before, part.beside), middle - part.height / 2)
                else:
                    scene.text((x + SIGN / 2 - 5, middle), part, "bold")
                x += _width(part)
            y = middle + max((m.height / 2 for m in matrices), default=10) + 24
    return scenes


def _width(part: Matrix | str) -> float:
    """Return how much room a part takes on a line, with the gap after it."""
    if isinstance(part, str):
        return SIGN
    return max(part.before, part.beside) + part.width + part.beside + 16


def _lines(parts: Sequence[Matrix | str], room: float) -> list[list[Matrix | str]]:
    """Return the parts of each line; a sign stays with the matrix after it."""
    lines: list[list[Matrix | str]] = [[]]
    signs: list[Matrix | str] = []
    for part in parts:
        signs.append(part)
        if isinstance(part, Matrix):
            if lines[-1] and sum(map(_width, [*lines[-1], *signs])) - 16 > room:
                lines.append([])
            lines[-1] += signs
            signs = []
    lines[-1] += signs
    return lines
