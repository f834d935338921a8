"""Blocks of queries, each with only the keys that it may see: no (Tq, Tk) is ever built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attncore.base.arrays import Array


def spans(
    Tq: int, Tk: int, size: int, *, causal: bool, window: int | None
) -> Iterator[tuple[slice, slice]]:
    """Yield slices of up to `size` queries, each with a slice of the keys any of them sees.

    Within a block the limits are those of the whole, for its last query sees its last key::

        Tq = 4, Tk = 6, size 2, window 3        . 1 1 1 . .    queries 0:2, keys 0:4
                                                . . 1 1 1 .    (with window 3 of 4 keys)
        (query 0 stands at position 2)          ...
    """
    for start in range(0, Tq, size):
        stop = min(start + size, Tq)
        first, last = 0, Tk
        if causal or window is not None:
            last = max(Tk - Tq + stop, 0)
        if window is not None:
            first = min(max(Tk - Tq + start - window + 1, 0), last)
        yield slice(start, stop), slice(first, last)


def part(array: Array | None, rows: slice, columns: slice) -> Array | None:
    """Return the block of a mask or bias, which may broadcast over rows and columns."""
    if array is None or array.ndim == 0:
        return array
    columns = slice(None) if array.shape[-1] == 1 else columns
    if array.ndim == 1:
        return array[columns]
    return array[..., slice(None) if array.shape[-2] == 1 else rows, columns]


def joined(
    xp: Any, parts: Sequence[tuple[Array, Array | None]], axis: int = -2
) -> tuple[Array, Array | None]:
    """Join pairs of outputs `(..., H, Tq, E)` and log-sum-exps `(..., H, Tq)`, or None."""
    if len(parts) == 1:
        return parts[0]
    out = xp.concatenate([out for out, _ in parts], axis=axis)
    lses = [lse for _, lse in parts if lse is not None]
    return out, xp.concatenate(lses, axis=-1 if axis == -2 else axis) if lses else None
