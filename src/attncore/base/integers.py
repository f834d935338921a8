"""Lengths, sizes and positions must be whole numbers in range; the messages say which is not."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.tracing import is_symbol, known


def check_window(window: int) -> int:
    """Return `window` as an int, or say what is wrong with it."""
    window = check_integer("window", window)
    if window < 1:
        raise ValueError(f"window must be at least 1 (a query sees itself), got {window}")
    return window


def check_integer(name: str, value: object) -> int:
    """Return `value` as an int; a float, even 2.0, and a bool are refused.

    A size that torch stands a symbol for, while it records, is returned as it is.
    """
    if is_symbol(value):
        return value
    duration = isinstance(value, np.timedelta64)  # an integer of NumPy's, with a unit
    if isinstance(value, bool) or duration or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}")
    return int(value)


def check_sizes(**sizes: object) -> list[int]:
    """Return the named sizes as ints from 1 on."""
    return [check_least(name, size, 1) for name, size in sizes.items()]


def check_least(name: str, value: object, least: int) -> int:
    """Return `value` as an int from `least` on."""
    value = check_integer(name, value)
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def check_length(name: str, value: object) -> int:
    """Return `value` as an int from 0 on."""
    value = check_integer(name, value)
    if value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    return value


def check_product(**sizes: int) -> None:
    """Raise if no memory could hold an array of these sizes."""
    numbers, largest = 1, False
    for size in sizes.values():  # torch.compile cannot follow math.prod here
        numbers, largest = numbers * size, largest or known(size >= 2**59)
    if largest or known(numbers >= 2**59):
        found = ", ".join(f"{name} = {size}" for name, size in sizes.items())
        raise ValueError(f"an array of {found} would have 2**59 numbers or more: too many")


def check_axes(shape: object, axes: str) -> tuple[Any, ...]:
    """Return `shape` if it has one entry for each of the axes, such as "rows, columns"."""
    if not isinstance(shape, (tuple, list)):
        raise TypeError(f"shape must be a tuple ({axes}), got {type(shape).__name__}")
    if len(shape) != len(axes.split(",")):
        raise ValueError(f"shape must be ({axes}), got {tuple(shape)}")
    return tuple(shape)
