"""A small vector layer: boxes, text, arrows and matrices on a sheet that grows with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from attncore.draw.matrix import ROW, Matrix
from attncore.draw.text import (
    NAME,
    PLAIN,
    SMALL,
    coordinate,
    lines_of,
    markup,
    width_of,
    width_of_name,
)

Point = tuple[float, float]
GAP = 8  # between a box and the arrows that end at it
WHOLE = -1  # stands for the whole where a step could stand: every step is done
LINKS = {  # what a matrix's rows and columns belong to
    "": "",
    "query": " ac-i ac-i{i}",  # row i is query i
    "key": " ac-j ac-j{i}",  # row i is key i
    "both": " ac-i ac-j ac-i{i} ac-j{j}",  # row i is a query, column j a key
    "token": " ac-i ac-j ac-i{i} ac-j{i}",  # row i is token i
    "column": " ac-j ac-j{j}",  # column j is key j
}
STAGES = {  # what a step means to a row
    "": "",
    "lit": " ac-lit",  # all rows are there, and the step's is outlined
    "made": "",  # rows are computed one a step, and stay
    "kept": " ac-kept",  # they stay, and turn grey: they are read again
    "dropped": " ac-dropped",  # they are not kept
}


@dataclass(frozen=True)
class Box:
    """Where something lies, with its anchors for arrows outside of what is written around it."""

    x: float
    y: float
    w: float
    h: float
    above: float = 0  # the height of what is written over it
    before: float = 0  # the width of what is written to its left

    @property
    def end(self) -> float:
        """Where it ends on the right."""
        return self.x + self.w

    @property
    def foot(self) -> float:
        """Where it ends below."""
        return self.y + self.h

    @property
    def center(self) -> Point:
        """Its middle."""
        return (self.x + self.w / 2, self.y + self.h / 2)

    @property
    def left(self) -> Point:
        """Where an arrow from the left ends."""
        return (self.x - self.before - GAP, self.center[1])

    @property
    def right(self) -> Point:
        """Where an arrow to the right begins."""
        return (self.end + GAP, self.center[1])

    @property
    def top(self) -> Point:
        """Where an arrow from above ends."""
        return (self.center[0], self.y - self.above - GAP)

    @property
    def bottom(self) -> Point:
        """Where an arrow downwards begins."""
        return (self.center[0], self.foot + GAP)


class Scene:
    """What is drawn. It grows with its marks; where they begin does not matter."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step
        self.parts: list[str] = []
        self.low: Point = (math.inf, math.inf)
        self.high: Point = (-math.inf, -math.inf)

    @property
    def now(self) -> int:
        """The step that is drawn, or `WHOLE`."""
        return WHOLE if self.step is None else self.step

    def reach(self, *points: Point) -> None:
        """Make room for points."""
        xs, ys = zip(*points, strict=True)
        self.low = (min(self.low[0], *xs), min(self.low[1], *ys))
        self.high = (max(self.high[0], *xs), max(self.high[1], *ys))

    # Marks

    def text(self, at: Point, text: str, look: str = "", *, only: int | None = None) -> None:
        """Write text, its middle at a point. `look` is a role, and small, bold, start or end.

        `only`: it is there at this step alone, or in the whole alone.
        """
        kinds = [f"ac-{name}" for name in look.split()]
        data = ""
        if only is not None:
            data = f' data-only="{only}"'
            kinds += [] if only == self.now else ["ac-off"]
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        x, y = coordinate(at[0]), coordinate(at[1] + 4.5)
        self.parts.append(f'<text x="{x}" y="{y}"{kind}{data}>{markup(text)}</text>')
        wide = width_of(text, SMALL if "small" in look else NAME if "name" in look else PLAIN)
        wide *= 1.1 if "bold" in look else 1
        left = 0 if "start" in look else wide if "end" in look else wide / 2
        self.reach((at[0] - left, at[1] - 9), (at[0] - left + wide, at[1] + 9))

    def rect(
        self, box: Box, role: str, *, opacity: float = 1, corner: float = 3, look: str = ""
    ) -> None:
        """Fill a rectangle."""
        faint = "" if opacity == 1 else f' fill-opacity="{coordinate(opacity)}"'
        extra = "".join(f" ac-{name}" for name in look.split())
        self.parts.append(
            f'<rect x="{coordinate(box.x)}" y="{coordinate(box.y)}" '
            f'width="{coordinate(box.w)}" height="{coordinate(box.h)}" '
            f'rx="{coordinate(corner)}" class="ac-{role}{extra}"{faint}/>'
        )
        self.reach((box.x, box.y), (box.end, box.foot))

    def frame(self, box: Box, role: str, *, dash: bool = False, corner: float = 3) -> None:
        """Outline a rectangle."""
        self.rect(box, role, corner=corner, look="line dash" if dash else "line")

    def path(self, path: str, role: str, *, opacity: float = 1) -> None:
        """Fill a path, given as SVG writes it; make room for it with `reach`."""
        faint = "" if opacity == 1 else f' fill-opacity="{coordinate(opacity)}"'
        self.parts.append(f'<path d="{path}" class="ac-{role}"{faint}/>')

    def line(self, *points: Point, role: str = "soft", dash: bool = False) -> None:
        """Draw a line through points, with round corners."""
        kind = f"ac-line ac-{role}{' ac-dash' if dash else ''}"
        self.parts.append(f'<path d="{rounded(points)}" class="{kind}"/>')
        self.reach(*points)

    def curve(self, *points: Point, role: str = "soft") -> None:
        """Draw a line through points so near one another that it looks smooth."""
        path = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
        self.parts.append(f'<path d="M{path}" class="ac-line ac-{role}"/>')
        self.reach(*points)

    def circle(
        self, center: Point, radius: float, role: str = "soft", *, filled: bool = False
    ) -> None:
        """Draw a circle, or a dot."""
        (x, y), r = center, radius
        self.parts.append(
            f'<circle cx="{coordinate(x)}" cy="{coordinate(y)}" r="{coordinate(r)}" '
            f'class="{"" if filled else "ac-line "}ac-{role}"/>'
        )
        self.reach((x - r, y - r), (x + r, y + r))

    def arrow(
        self, *points: Point, role: str = "soft", label: str = "", dash: bool = False
    ) -> None:
        """Draw an arrow through points; its label is beside the first stretch."""
        *_, (x0, y0), (x1, y1) = points
        length = math.hypot(x1 - x0, y1 - y0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        self.line(*points[:-1], (x1 - 5 * ux, y1 - 5 * uy), role=role, dash=dash)
        corners = [(x1, y1)] + [
            (x1 - 8 * ux + s * 4 * uy, y1 - 8 * uy - s * 4 * ux) for s in (1, -1)
        ]
        head = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in corners)
        self.path(f"M{head}Z", role)
        self.reach((x1, y1))
        if label:
            (ax, ay), (bx, by) = points[:2]
            if ax == bx:
                self.text((ax + 9, (ay + by) / 2), label, f"small start {role}")
            else:
                high = 14 if "_" in label else 11
                self.text(((ax + bx) / 2, (ay + by) / 2 - high), label, f"small {role}")

    @contextmanager
    def row(self, i: int, stage: str = "made") -> Iterator[None]:
        """Whatever is drawn within belongs to step i: it is past, now or later."""
        when = ""
        if self.step is not None:
            when = " ac-past" if i < self.step else " ac-now" if i == self.step else " ac-later"
        self.parts.append(f'<g class="ac-row{STAGES[stage]}{when}" data-i="{i}">')
        yield
        self.parts.append("</g>")

    @contextmanager
    def only(self, step: int) -> Iterator[None]:
        """Whatever is drawn within is there at this step alone, or in the whole alone."""
        off = "" if step == self.now else ' class="ac-off"'
        self.parts.append(f'<g data-only="{step}"{off}>')
        yield
        self.parts.append("</g>")

    @contextmanager
    def cell(self, links: str = "", i: int = 0, j: int = 0, *more: int) -> Iterator[None]:
        """Whatever is drawn within is lit together with what it belongs to: see `LINKS`.

        `more`: further queries that it belongs to.
        """
        kinds = LINKS[links].format(i=i, j=j) + "".join(f" ac-i{n}" for n in more)
        self.parts.append(f'<g class="ac-cell{kinds}">')
        yield
        self.parts.append("</g>")

    # Arrays

    def pixels(self, image: np.ndarray, at: Point, side: float) -> Box:
        """Draw an image, `(rows, columns, 1 or 3)` from 0 to 1, as squares of its own colours."""
        rows, columns, _ = image.shape
        box = Box(*at, columns * side, rows * side)
        colors = np.broadcast_to((255 * image).round().astype(int), (rows, columns, 3))
        places: dict[str, str] = {}  # one path for each colour
        for i, j in np.ndindex(rows, columns):
            x, y = coordinate(box.x + j * side), coordinate(box.y + i * side)
            color = "#" + "".join(f"{part:02x}" for part in colors[i, j])
            square = f"M{x} {y}h{coordinate(side)}v{coordinate(side)}h-{coordinate(side)}z"
            places[color] = places.get(color, "") + square
        for color, path in places.items():
            self.parts.append(f'<path d="{path}" fill="{color}"/>')
        self.frame(box, "soft", corner=0)
        return box

    def put(self, matrix: Matrix, x: float, y: float) -> Box:
        """Draw a matrix with its corner at a point, and return its place."""
        m = matrix
        box = Box(x, y, m.width, m.height, m.above, m.before)
        self.parts.append(f'<g class="ac-m-{m.role}">')  # for a formula that names it
        self._names(m, box)
        for i in range(m.array.shape[0]):
            if m.stage:
                with self.row(i, m.stage):
                    self._row(m, box, i)
                    strip = Box(box.x - 1, box.y + i * ROW, box.w + 2, ROW)
                    self.rect(strip, m.role, corner=4, look="line outline")
            else:
                self._row(m, box, i)
        for side, way in ((box.x - 4, 5), (box.end + 4, -5)):
            corners = ((side + way, box.y - 2), (side, box.y - 2))
            self.line(
                *corners, *((a, 2 * box.center[1] - b) for a, b in corners[::-1]), role=m.role
            )
        self.parts.append("</g>")
        return box

    def _names(self, m: Matrix, box: Box) -> None:
        if m.name:
            at = (box.center[0], box.y - m.above + 9)
            shown = f'{markup(m.name)}<tspan dx="6" class="ac-size">{m.size}</tspan>'
            x, y = map(coordinate, at)
            self.parts.append(f'<text x="{x}" y="{y}" class="ac-name ac-{m.role}">{shown}</text>')
            half = width_of_name(m.name, m.size) / 2
            self.reach((at[0] - half, at[1] - 13), (at[0] + half, at[1]))
        tallest = max((len(lines_of(label)) for label in m.columns), default=0)
        for j, label in enumerate(m.columns):
            for line, text in enumerate(lines_of(label)):
                place = box.y - 11 - 15 * (tallest - 1 - line)
                self.text((box.x + (j + 0.5) * m.column, place), text, f"small {m.column_role}")

    def _row(self, m: Matrix, box: Box, i: int) -> None:
        y = box.y + i * ROW
        if m.rows:
            self.text((box.x - 12, y + ROW / 2), m.rows[i], f"small end {m.row_role}")
        finite = np.abs(m.array[np.isfinite(m.array)])
        largest = float(finite.max()) if finite.size else 0.0
        for j in range(m.array.shape[1]):
            gone = m.hidden is not None and m.hidden(i, j)
            share = max(float(m.array[i, j]), 0.0) / largest if m.shade and largest else 0.0
            opacity = m.hidden_opacity if gone else 0.06 + 0.48 * share if m.shade else 0.14
            place = Box(box.x + j * m.column + 1, y + 1, m.column - 2, ROW - 2)
            with self.cell(m.links, i, j):
                role = "soft" if gone else m.role
                self.rect(place, role, opacity=opacity, look="gone" if gone else "")
                if text := m.text(i, j):
                    self.text(place.center, text, "soft" if gone else "")


def shelves(widths: Sequence[float], room: float) -> list[list[int]]:
    """Return which of these stand in one row, as many as there is room for, but at least one."""
    rows: list[list[int]] = [[]]
    left = room
    for n, width in enumerate(widths):
        if width > left and rows[-1]:
            rows.append([])
            left = room
        rows[-1].append(n)
        left -= width
    return rows


def rounded(points: Sequence[Point], radius: float = 7) -> str:
    """Return a path through points, its corners rounded."""

    def at(x: float, y: float) -> str:
        return f"{coordinate(x)} {coordinate(y)}"

    path = f"M{at(*points[0])}"
    for (ax, ay), (bx, by), (cx, cy) in zip(points, points[1:], points[2:], strict=False):
        before, after = math.hypot(bx - ax, by - ay), math.hypot(cx - bx, cy - by)
        r = min(radius, before / 2, after / 2)
        if r == 0:
            continue
        enter = (bx + (ax - bx) * r / before, by + (ay - by) * r / before)
        leave = (bx + (cx - bx) * r / after, by + (cy - by) * r / after)
        path += f"L{at(*enter)}Q{at(bx, by)} {at(*leave)}"
    return path + f"L{at(*points[-1])}"
