"""An array to be drawn: its cells, its names, and how much room they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attncore.draw.text import SMALL, lines_of, number, width_of, width_of_name

ROW = 26  # height of a row
LEAST = 24.0  # width of a column


@dataclass(frozen=True)
class Matrix:
    """An array to be drawn: numbers in cells, between brackets, with names around them."""

    array: np.ndarray  # (rows, columns)
    role: str = "ink"
    name: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()  # "猫 cat" is written on two lines
    row_role: str = "soft"
    column_role: str = "soft"
    digits: int | None = None  # whole numbers are written as such, others with two
    links: str = ""
    stage: str = ""
    shade: bool = False  # the larger, the darker
    hidden: Callable[[int, int], bool] | None = None
    hidden_text: str = ""
    hidden_opacity: float = 0
    numbers: bool = True
    cell: float = 0  # width of a column; chosen unless given

    def text(self, i: int, j: int) -> str:
        """Return what a cell shows."""
        if self.hidden is not None and self.hidden(i, j):
            return self.hidden_text
        return number(float(self.array[i, j]), self.places) if self.numbers else ""

    @property
    def places(self) -> int:
        """The number of decimals."""
        if self.digits is not None:
            return self.digits
        finite = self.array[np.isfinite(self.array)]
        return 0 if bool((finite == finite.round()).all()) else 2

    @property
    def column(self) -> float:
        """The width of a column."""
        if self.cell:
            return self.cell
        count, width = self.array.shape
        texts = [self.text(i, j) for i in range(count) for j in range(width)]
        labels = [line for label in self.columns for line in lines_of(label)]
        return max(
            LEAST,
            *(width_of(text) + 8 for text in texts),
            *(width_of(label, SMALL) + 4 for label in labels),
        )

    @property
    def width(self) -> float:
        """The width between the brackets."""
        return self.array.shape[1] * self.column

    @property
    def height(self) -> float:
        """The height between the brackets."""
        return self.array.shape[0] * ROW

    @property
    def above(self) -> float:
        """The height of what is written over it."""
        labels = 15 * max((len(lines_of(label)) for label in self.columns), default=0)
        return 4 + labels + (22 if self.name else 0)

    @property
    def size(self) -> str:
        """Its shape, as it is written beside its name."""
        return f"{self.array.shape[0]}×{self.array.shape[1]}"

    @property
    def beside(self) -> float:
        """How far its name reaches beyond the brackets, on either side."""
        wide = width_of_name(self.name, self.size) if self.name else 0
        return max(0.0, (wide - self.width) / 2)

    @property
    def before(self) -> float:
        """The width of the rows' names."""
        return max((width_of(label, SMALL) + 12 for label in self.rows), default=4)
