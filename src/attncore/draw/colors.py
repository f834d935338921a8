"""One colour for each role, the same on every page: on white, and on the book's dark pages."""

from __future__ import annotations

from typing import NamedTuple


class Color(NamedTuple):
    """A colour as text on white and as text on a dark page; in both it has 4.5 : 1 or more."""

    light: str
    dark: str


COLORS = {
    "query": Color("#1f3c9a", "#7e9dfe"),
    "key": Color("#bc5106", "#f28246"),
    "value": Color("#007f4e", "#6cec9d"),
    "weights": Color("#9b4f88", "#b272ab"),
    "ink": Color("#1f2328", "#ced6dd"),
    "soft": Color("#59636e", "#9ca4af"),
}
