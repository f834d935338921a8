"""A finished picture: its SVG text, in one or two layouts, and its words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from attncore.base.arrays import shape_of
from attncore.base.integers import check_integer
from attncore.draw.scene import Point, Scene
from attncore.draw.sheet import sheet
from attncore.draw.text import coordinate

WIDE, TALL = 676, 346  # the most that the book's column, and a phone, show in full size


@dataclass(frozen=True, repr=False)
class Picture:
    """A finished picture: Jupyter shows it, `svg()` is its text, and `repr` says it in words.

    A page at most 600 pixels wide shows the tall scene, if there is one. `steps` names the steps
    that a reader may walk through, one a row; None is the whole.
    """

    title: str
    words: str
    wide: Scene
    tall: Scene | None = None
    steps: Sequence[str] = ()

    def svg(self) -> str:
        """Return the picture as SVG text."""
        low, (w, h) = _room(self.wide)
        body, kind, variables = "".join(self.wide.parts), "ac-picture", ""
        if self.tall is not None:
            other, (tall_w, tall_h) = _room(self.tall)
            # A box with the tall one's proportions shows this much above and below the wide one.
            height = tall_h * w / tall_w
            top = low[1] + (h - height) / 2
            body = (
                f'<g class="ac-wide">{body}</g><svg class="ac-tall" '
                f'x="{coordinate(low[0])}" y="{coordinate(top)}" '
                f'width="{coordinate(w)}" height="{coordinate(height)}" '
                f'viewBox="{_view(other, (tall_w, tall_h))}">{"".join(self.tall.parts)}</svg>'
            )
            kind += " ac-two"
            ratio = f"{coordinate(tall_w)}/{coordinate(tall_h)}"
            variables = f"--ac-ratio:{ratio};--ac-tall:{coordinate(tall_w)}px;"
        data = ""
        if self.steps:
            # A bar stands between two names, so that none may hold one.
            names = escape(" | ".join(step.replace("|", "¦") for step in self.steps))
            now = "" if self.wide.step is None else f' data-step="{self.wide.step}"'
            data = f' data-steps="{names}"{now}'
        paper = (
            f'<rect class="ac-paper" x="{coordinate(low[0])}" y="{coordinate(low[1])}" '
            f'width="{coordinate(w)}" height="{coordinate(h)}" rx="6"/>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{_view(low, (w, h))}" '
            f'width="{coordinate(w)}" height="{coordinate(h)}" class="{kind}" role="img"{data} '
            f'style="{variables}max-width:100%;height:auto">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.words)}</desc>"
            f"<style>{sheet()}</style>{paper}{body}</svg>\n"
        )

    _repr_svg_ = svg

    def __repr__(self) -> str:
        """Return what the picture shows in words: a notebook stores this beside the SVG."""
        return f"{self.title}. {self.words}"


def _room(scene: Scene) -> tuple[Point, Point]:
    """Return where a scene begins and how large it is, with a little room around it."""
    low = (math.floor(scene.low[0]) - 6, math.floor(scene.low[1]) - 6)
    return low, (math.ceil(scene.high[0]) + 6 - low[0], math.ceil(scene.high[1]) + 6 - low[1])


def _view(low: Point, size: Point) -> str:
    return " ".join(coordinate(x) for x in (*low, *size))


def check_maps(tokens: str, rows: np.ndarray, **maps: np.ndarray) -> None:
    """Raise unless each of the learned maps can be drawn, and applied to these rows of tokens."""
    for name, array in maps.items():
        check_small(name, array)
        if len(array) != rows.shape[1]:
            raise ValueError(
                f"{name} must have one row for each feature of a token: {tokens} "
                f"{shape_of(rows)}, {name} {shape_of(array)}"
            )


def check_alike(w_q: np.ndarray, w_k: np.ndarray) -> None:
    """Raise unless what the two maps make can be compared."""
    if w_q.shape != w_k.shape:
        raise ValueError(f"w_q and w_k must have one shape: {shape_of(w_q)}, {shape_of(w_k)}")


def check_step(step: int | None, count: int, of: str = "queries") -> None:
    """Raise unless `step` is one of the rows that are computed one after another, or None."""
    if step is not None and not 0 <= check_integer("step", step) < count:
        raise ValueError(f"step must be one of the {count} {of}, counted from 0, got {step}")


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise unless all of an array's numbers can be placed or shaded."""
    lost = np.argwhere(~np.isfinite(array))
    if len(lost):
        place = [int(i) for i in lost[0]]
        raise ValueError(
            f"{name} must be finite to be drawn, and is {array[tuple(place)]} at {place}: put a "
            "number there, or leave that row out"
        )


def check_small(name: str, array: np.ndarray, most: int = 8, *, finite: bool = True) -> None:
    """Raise unless an array is a matrix that can be read as a picture."""
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be (rows, columns) to be drawn, got {array.shape}")
    if max(array.shape) > most:
        raise ValueError(
            f"{name} must have at most {most} rows and columns to be read as a picture, got "
            f"{array.shape}: draw a part of it, as {name}[:{most}, :{most}]"
        )
    if finite:
        check_finite(name, array)
