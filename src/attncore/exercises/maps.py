"""Maps to queries, keys and values that notice what is mapped again."""

from __future__ import annotations

from typing import Any

import numpy as np


class Maps:
    """Queries, keys and values of rows. A copy, which is what a reader gets, maps a row once.

    With `one_row` a copy takes rows one at a time only.
    """

    def __init__(self, maps: np.ndarray, *, one_row: bool = False, strict: bool = False) -> None:
        self.maps, self.one_row, self.strict = maps, one_row, strict
        self.seen: set[bytes] = set()

    def __call__(self, rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return three arrays, or say what was asked wrongly."""
        rows = np.asarray(rows, dtype=float)
        if rows.ndim != 2 or rows.shape[1] != self.maps.shape[1]:
            raise ValueError(f"maps takes rows (n, {self.maps.shape[1]}), got {rows.shape}")
        if self.strict and self.one_row and len(rows) != 1:
            raise ValueError(f"give maps one row at a time, (1, d), got {rows.shape}")
        new = {np.round(row, 9).tobytes() for row in rows}
        if self.strict and new & self.seen:
            raise ValueError("a row was mapped a second time: keep its key and its value")
        self.seen |= new
        q, k, v = (rows @ one for one in self.maps)
        return q, k, v

    def __deepcopy__(self, memo: dict[int, Any]) -> Maps:
        return Maps(self.maps, one_row=self.one_row, strict=True)

    def __repr__(self) -> str:
        return "maps"
