"""Text of a picture: the same on every machine, for nothing is measured and all is rounded."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape

import numpy as np

SMALL, PLAIN, NAME = 12, 13.5, 17  # sizes


def coordinate(x: float) -> str:
    """Return a coordinate as text: at most two decimals, and no -0."""
    text = f"{x:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def number(x: float, digits: int) -> str:
    """Return a number as a cell shows it, with a true minus sign."""
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    if abs(x) >= 1e6:
        return f"{x:.1e}".replace("e+", "e").replace("-", "−")
    text = f"{x:.{digits}f}"
    return (text[1:] if float(text) == 0 and text[0] == "-" else text).replace("-", "−")


def width_of(text: str, size: float = PLAIN) -> float:
    """Return about how wide a text is: a Chinese character is as wide as it is high."""
    return size * sum(_share(c) for c in re.sub(r"_([A-Za-z0-9]+)", r"\1", text))


def width_of_name(name: str, size: str) -> float:
    """Return about how wide an array's name is, bold and italic, with its size after it."""
    return 1.25 * width_of(name, NAME) + width_of(size, SMALL) + 6


def _share(c: str) -> float:
    """Return about how wide a character is, of the size of its font."""
    if ord(c) >= 0x2E80:
        return 1.0
    for width, characters in ((0.85, "mwMW—"), (0.34, " .,:;'|·()[]fijlrtI")):
        if c in characters:
            return width
    return 0.68 if c.isupper() else 0.55 if c.isalpha() else 0.6


def markup(text: str) -> str:
    """Return text for a <text> element: `W_Q` has a subscript."""
    lowered = re.sub(
        r"_([A-Za-z0-9]+)",
        r'<tspan dy="4" font-size="75%">\1</tspan><tspan dy="-4">&#8203;</tspan>',
        escape(text),
    )
    return lowered.removesuffix('<tspan dy="-4">&#8203;</tspan>')


def lines_of(label: str) -> list[str]:
    """Return the lines of a column's name: two if it has a space."""
    return label.split(" ", 1)


def numbers_of(array: np.ndarray) -> list[str]:
    """Return numbers as a table shows them: whole ones as such, others with two decimals."""
    digits = 0 if bool((array == array.round()).all()) else 2
    return [number(float(x), digits) for x in array]


def listed(parts: Sequence[str]) -> str:
    """Return parts of a sentence as a list: a, b and c."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))
