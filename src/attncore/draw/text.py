"""Text of a picture: the same on every machine, for nothing is measured and all is rounded."""

from __future__ import annotations

import math
import re
from html import escape

SMALL, PLAIN, NAME = 12, 13.5, 17  # sizes


def coordinate(x: float) -> str:
    """Return a coordinate as text: at most two decimals, and no -0."""
    text = f"{x:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def number(x: float, digits: int) -> str:
    """Return a number as a cell shows it, with a true minus sign."""
    if math.isinf(x):
        return "−∞" if x < 0 else "∞"
    text = f"{x:.{digits}f}"
    return (text[1:] if float(text) == 0 and text[0] == "-" else text).replace("-", "−")


def width_of(text: str, size: float = PLAIN) -> float:
    """Return about how wide a text is: a Chinese character is as wide as it is high."""
    plain = re.sub(r"_(\w+)", r"\1", text)
    return size * sum(
        1.0 if ord(c) >= 0x2E80 else 0.82 if c in "mwMW—" else 0.32 if c in " .,:;'il|()" else 0.6
        for c in plain
    )


def markup(text: str) -> str:
    """Return text for a <text> element: `W_Q` has a subscript."""
    lowered = re.sub(
        r"_(\w+)",
        r'<tspan dy="4" font-size="75%">\1</tspan><tspan dy="-4">&#8203;</tspan>',
        escape(text),
    )
    return lowered.removesuffix('<tspan dy="-4">&#8203;</tspan>')


def lines_of(label: str) -> list[str]:
    """Return the lines of a column's name: two if it has a space."""
    return label.split(" ", 1)
