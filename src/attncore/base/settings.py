"""Single numbers, flags and names that a caller chooses; the messages say which is wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np


def check_number(name: str, value: Any) -> float:
    """Return `value` as a float; a bool, a string and what has axes are refused."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, (bool, np.timedelta64)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # an integer above 1.8e308
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def check_positive(name: str, value: object) -> float:
    """Return `value` as a float above 0 and below infinity."""
    number = check_number(name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def check_flag(name: str, value: object) -> bool:
    """Return `value` as a bool; 0, 1, None and arrays are refused."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return `value` if it is one of the names."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
