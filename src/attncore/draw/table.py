"""A small table of results, with a title over each column: as HTML and as aligned text."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from attncore.base.arrays import is_tensor
from attncore.base.integers import check_integer
from attncore.base.reading import read_numbers
from attncore.draw.text import number

MOST = {"rows": 60, "columns": 12}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Rows = Mapping[Any, Any] | Sequence[Any]
Digits = int | str  # decimals, or a format such as ".1e"


class Form(NamedTuple):
    """How a column shows its numbers, and whether that was asked for this very column."""

    digits: Digits
    own: bool
    commas: bool = False  # in whole numbers; where one needs them, all of its column have them


class Table:
    """A finished table: Jupyter shows it, and `repr` is the same in aligned text."""

    def __init__(
        self,
        columns: Sequence[str],
        cells: Sequence[Sequence[str]],
        right: Sequence[bool],
        caption: str = "",
    ) -> None:
        self.columns, self.cells, self.right, self.caption = columns, cells, right, caption

    def _repr_html_(self) -> str:
        """Return the table as HTML; it needs no style sheet, and the book has one."""
        sides = [f' style="text-align:{"right" if side else "left"}"' for side in self.right]

        def row(texts: Sequence[str], top: bool) -> str:
            made = []
            for at, (text, side) in enumerate(zip(texts, sides, strict=True)):
                kind, scope = "td", ""
                if text and (top or (at == 0 and not self.right[0])):
                    kind, scope = "th", f' scope="{"col" if top else "row"}"'
                made.append(f"<{kind}{scope}{side}>{escape(text)}</{kind}>")
            return f"<tr>{''.join(made)}</tr>"

        told = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        body = "\n".join(row(texts, False) for texts in self.cells)
        return (
            f'<table class="ac-table">{told}\n<thead>{row(self.columns, True)}</thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table>"
        )

    def __repr__(self) -> str:
        """Return the table as text: a notebook stores this beside the HTML."""
        lines = [self.columns, *self.cells]
        widths = [max(map(_columns_of, texts)) for texts in zip(*lines, strict=True)]

        def row(texts: Sequence[str]) -> str:
            placed = []
            for text, width, right in zip(texts, widths, self.right, strict=True):
                space = " " * (width - _columns_of(text))
                placed.append(space + text if right else text + space)
            return "  ".join(placed).rstrip()

        rule = "  ".join("-" * width for width in widths)
        told = [self.caption] if self.caption else []
        return "\n".join([*told, row(self.columns), rule, *map(row, self.cells)])


def table(
    rows: Rows,
    *,
    columns: Sequence[str] | None = None,
    digits: Digits | Mapping[str, Digits] | None = None,
    caption: str = "",
) -> Table:
    r"""Return a table of results, with numbers aligned and a title over each column.

    .. math:: x_{ij} \text{ in row } i \text{ under the name of column } j

    Parameters
    ----------
    rows
        A list of rows, each a list or a dict from a column's name to its cell; or a matrix, NumPy
        or torch; or a dict from each row's name to its row, whose names are the first column.
        Cells are numbers, strings, bools, or None, which is shown as a dash. At most 60 rows and
        12 columns.
    columns
        The titles, with units where there are some; for rows that are dicts they are their keys
        unless given.
    digits
        Decimals, 0 to 12, or a format such as ".1e" (powers of 10), ".0%" or ","; for all
        columns, or for each by its name. Whole numbers stay whole unless their own column says
        otherwise, and others have 3 decimals unless given.
    caption
        A caption over the table.

    Returns
    -------
    Table
        Shown by Jupyter as HTML; its `repr` is aligned text.

    Raises
    ------
    ValueError
        If there is no row or too many, rows have different lengths, a column has no name, or
        `digits` is no format of numbers or names no column.
    TypeError
        If a row is no list, dict or array, a cell neither number nor text, or a title no string.

    References
    ----------
    HTML Living Standard, section 4.9.1: titles of columns and rows are `th` with a scope.

    Examples
    --------
    >>> table({"raw": [1024, 0.97], "scaled": [1024, 0.21]}, columns=["scores", "D", "largest"])
    scores     D  largest
    ------  ----  -------
    raw     1024    0.970
    scaled  1024    0.210
    """
    titles, cells = _read(rows, columns)
    if not isinstance(caption, str):
        raise TypeError(f"caption must be a string, got {type(caption).__name__}")
    forms = _forms(digits, titles)
    for at, column in enumerate(zip(*cells, strict=True)):
        long = any(isinstance(value, int) and abs(value) >= 10_000 for value in column)
        forms[at] = forms[at]._replace(commas=long)
    shown = [[_shown(*pair) for pair in zip(row, forms, strict=True)] for row in cells]
    right = [
        any(value is not None for value in column)
        and all(value is None or _is_number(value) for value in column)
        for column in zip(*cells, strict=True)
    ]
    return Table(titles, shown, right, caption)


def _read(rows: Any, columns: Any) -> tuple[list[str], list[list[Any]]]:
    """Return the titles, and the cells of each row."""
    keys = list(rows) if isinstance(rows, Mapping) else None
    given = _listed("rows", rows) if keys is None else list(rows.values())
    if not 1 <= len(given) <= MOST["rows"]:
        raise ValueError(
            f"rows must be 1 to {MOST['rows']} to be read as a table, got {len(given)}"
        )
    titles = None if columns is None else _listed("columns", columns)
    if isinstance(given[0], Mapping):
        names = list(given[0])
        for at, row in enumerate(given):
            if not isinstance(row, Mapping) or set(row) != set(names):
                raise ValueError(f"rows[{at}] must have the keys of the first row, {names}")
        own = [str(name) for name in names]
        titles = titles or (own if keys is None else ["", *own])
        given = [[row[name] for name in names] for row in given]
    if titles is None:
        raise ValueError("columns must name the columns: rows that are lists have no names")
    cells = [_listed(f"rows[{at}]", row) for at, row in enumerate(given)]
    if keys is not None:
        cells = [[str(key), *row] for key, row in zip(keys, cells, strict=True)]
    _check(titles, cells)
    return titles, cells


def _check(titles: list[Any], cells: list[list[Any]]) -> None:
    """Raise unless each row has a cell, which can be shown, for each column."""
    for at, title in enumerate(titles):
        if not isinstance(title, str):
            raise TypeError(f"columns[{at}] must be a string, got {type(title).__name__}")
    if not 1 <= len(titles) <= MOST["columns"]:
        raise ValueError(f"columns must be 1 to {MOST['columns']}, got {len(titles)}")
    if len(set(titles)) < len(titles):
        raise ValueError(f"columns must have different names, got {', '.join(titles)}")
    for at, row in enumerate(cells):
        if len(row) != len(titles):
            raise ValueError(
                f"rows[{at}] must have a cell for each of the {len(titles)} columns, got {len(row)}"
            )
        for name, value in zip(titles, row, strict=True):
            if not (_is_number(value) or value is None or isinstance(value, (str, bool))):
                raise TypeError(
                    f"rows[{at}] has {type(value).__name__} under {name!r}: cells are numbers, "
                    "strings, bools or None"
                )
            if isinstance(value, int) and abs(value) >= 10**30:
                raise ValueError(f"rows[{at}] has a number of more than 30 digits under {name!r}")


def _listed(name: str, given: Any) -> list[Any]:
    """Return what a list, tuple, array or tensor holds; single numbers become Python's."""
    if isinstance(given, np.ndarray) or is_tensor(given):
        read_numbers(name, given)  # refuses what is no number, or cannot be read
        given = given.tolist()
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{name} must be a list or an array, got {type(given).__name__}")
    return [_cell(f"{name}[{at}]", value) for at, value in enumerate(given)]


def _cell(name: str, value: Any) -> Any:
    """Return a single number of NumPy or torch as one of Python, and others as they are."""
    if getattr(value, "ndim", 1) == 0 and not isinstance(value, np.bool_):
        read_numbers(name, value)
    if isinstance(value, np.generic) or getattr(value, "ndim", 1) == 0:
        value = value.item()
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _forms(digits: Any, titles: list[str]) -> list[Form]:
    """Return how each column shows its numbers."""
    if not isinstance(digits, Mapping):
        form = _form("digits", 3 if digits is None else digits)
        return [Form(form, False)] * len(titles)
    for name in digits:
        if name not in titles:
            raise ValueError(f"digits has no column {name!r} to format: {', '.join(titles)}")
    return [
        Form(_form(f"digits[{name!r}]", digits[name]), True) if name in digits else Form(3, False)
        for name in titles
    ]


def _form(name: str, value: Any) -> Digits:
    """Return decimals or a format that numbers can have."""
    if isinstance(value, str):
        if not re.fullmatch(r",|[+]?,?\.\d\d?[efg%]", value):
            raise ValueError(f"{name} must be decimals or a format such as '.1e', got {value!r}")
        return value
    places = check_integer(name, value)
    if not 0 <= places <= 12:
        raise ValueError(f"{name} must lie in 0 to 12, got {places}")
    return places


def _shown(value: Any, form: Form) -> str:
    """Return a cell as text."""
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        if not form.own:
            return (f"{value:,}" if form.commas else str(value)).replace("-", "−")
    elif not math.isfinite(value):
        return "nan" if math.isnan(value) else number(value, 0)
    if isinstance(form.digits, str):
        exact = value if isinstance(value, int) else float(value)
        text, power, exponent = format(exact, form.digits).partition("e")
        text = text.replace("-", "−")
        return text + (f"·10{str(int(exponent)).translate(RAISED)}" if power else "")
    return number(float(value), form.digits)


def _columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if ord(c) >= 0x2E80 else 1 for c in text)
