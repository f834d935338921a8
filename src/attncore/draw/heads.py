"""Several heads: project, split, attend, join, with every number on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_sizes
from attncore.base.reading import read_labels, read_numbers
from attncore.base.settings import check_flag
from attncore.core.attention import attention_weights
from attncore.draw.matrix import ROW, Matrix
from attncore.draw.picture import (
    TALL,
    WIDE,
    Picture,
    check_alike,
    check_maps,
    check_small,
    check_step,
)
from attncore.draw.scene import Box, Scene, shelves
from attncore.masks import causal as causal_mask

BETWEEN, APART, ARROW = 10, 14, 54  # two heads of a matrix, two matrices, X and the others
BLOCK, LABELS = 40, 52  # the least width of a head, for its name; the height of names over heads


def heads(
    x: Array,
    w_q: Array,
    w_k: Array,
    w_v: Array,
    w_o: Array,
    *,
    heads: int,
    tokens: Sequence[str] | None = None,
    causal: bool = False,
    step: int | None = None,
) -> Picture:
    r"""Draw a layer of several heads with all of its numbers: project, split, attend, join.

    .. math:: Y = [\text{head}_0 \dots \text{head}_{H-1}]\, W_O, \qquad
        \text{head}_h = \operatorname{softmax}(Q_h K_h^\top / \sqrt{D})\, V_h

    Parameters
    ----------
    x
        Tokens `(T, d)`, NumPy or torch, at most 8 of them and at most 8 wide.
    w_q, w_k, w_v
        Learned maps `(d, H * D)`, `(d, H * D)` and `(d, H * E)`: head h has the h-th block of
        their columns.
    w_o
        Output map `(H * E, d_out)`.
    heads
        H, which divides the width of queries, keys and values.
    tokens
        Names of the tokens; numbers from 0 unless given.
    causal
        A query attends to no later key.
    step
        Draw it as it is when this query, counted from 0, is computed. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the arrays do not fit or are too large to be read, `heads` does not divide the widths,
        a name is missing, or there is no such step.
    TypeError
        If the arrays are not real numbers, `causal` is no flag or a number is no integer.

    References
    ----------
    Vaswani et al. (2017), section 3.2.2 and figure 2, drawn with numbers.

    Examples
    --------
    >>> import numpy as np
    >>> eye = np.eye(2)
    >>> heads(eye, 2 * eye, eye, eye, eye, heads=2, tokens=["a", "b"]).words.split(". ")[-1]
    'In head 1, a attends most to a (0.50), b attends most to b (0.88).'
    """
    given = {"x": x, "w_q": w_q, "w_k": w_k, "w_v": w_v, "w_o": w_o}
    arrays = {name: read_numbers(name, array) for name, array in given.items()}
    tokens_x, w_o = arrays["x"], arrays["w_o"]
    check_small("x", tokens_x)
    check_small("w_o", w_o)
    maps = {name: arrays[name] for name in ("w_q", "w_k", "w_v")}
    check_maps("x", tokens_x, **maps)
    (H,) = check_sizes(heads=heads)
    causal = check_flag("causal", causal)
    for name, map_ in maps.items():
        if map_.shape[1] % H:
            raise ValueError(f"heads = {H} must divide the width of {name} {shape_of(map_)}")
    check_alike(maps["w_q"], maps["w_k"])
    if len(w_o) != maps["w_v"].shape[1]:
        raise ValueError(
            "w_o must have one row for each column of w_v: "
            f"w_v {shape_of(maps['w_v'])}, w_o {shape_of(w_o)}"
        )
    check_step(step, len(tokens_x))
    names = read_labels("tokens", tokens, len(tokens_x))
    layer = _Layer(arrays, H, names, causal)
    wide, tall = (layer.scene(step, room) for room in (WIDE, TALL))
    return Picture("Several heads: project, split, attend, join", layer.words(), wide, tall, names)


class _Layer:
    """The matrices of a layer, head by head."""

    def __init__(
        self, arrays: dict[str, np.ndarray], count: int, names: list[str], causal: bool
    ) -> None:
        x = arrays["x"]
        self.count, self.names = count, names
        self.x = Matrix(x, name="X", rows=names, row_role="ink bold", links="token", stage="lit")
        split = {name: np.split(x @ arrays[name], count, axis=1) for name in ("w_q", "w_k", "w_v")}
        self.q = [_block(a, "query", "query", "made", None) for a in split["w_q"]]
        self.k = [_block(a, "key", "key", "", None) for a in split["w_k"]]
        self.v = [_block(a, "value", "key", "", None) for a in split["w_v"]]
        allowed = causal_mask(len(x), len(x)) if causal else np.ones((len(x), len(x)), bool)
        weights = [
            attention_weights(q, k, allowed)
            for q, k in zip(split["w_q"], split["w_k"], strict=True)
        ]
        self.a = [
            Matrix(
                a,
                "weights",
                f"A_{h}",
                names,
                names,
                row_role="query",
                column_role="key",
                links="both",
                stage="made",
                shade=True,
                hidden=lambda i, j: not allowed[i, j],
                hidden_text="0",
            )
            for h, a in enumerate(weights)
        ]
        outputs = [a @ v for a, v in zip(weights, split["w_v"], strict=True)]
        joined = np.concatenate(outputs, axis=1)
        digits = Matrix(joined).places  # the same in all heads
        self.o = [
            Matrix(o, name=f"O_{h}", digits=digits, links="query", stage="made")
            for h, o in enumerate(outputs)
        ]
        self.joined = [_block(o, "ink", "query", "made", digits) for o in outputs]
        self.w_o = Matrix(arrays["w_o"], name="W_O")
        self.y = Matrix(joined @ arrays["w_o"], name="Y", links="query", stage="made")

    def words(self) -> str:
        """Return what the picture shows."""
        count, (T, d) = self.count, self.x.array.shape
        D, E = self.q[0].array.shape[1], self.v[0].array.shape[1]
        parts = []
        for h, matrix in enumerate(self.a):
            most = [
                f"{name} attends most to {self.names[j]} ({row[j]:.2f})"
                for name, row, j in zip(
                    self.names, matrix.array, matrix.array.argmax(axis=1), strict=True
                )
            ]
            parts.append(f"In head {h}, {', '.join(most)}.")
        return (
            f"Tokens X ({T}, {d}) become queries, keys and values, cut into {count} "
            f"head{'s' * (count > 1)} of {D} columns. Each head has its own weights ({T}, {T}) "
            f"and its own output ({T}, {E}). The outputs side by side, times W_O "
            f"{shape_of(self.w_o.array)}, are Y {shape_of(self.y.array)}. {' '.join(parts)}"
        )

    def scene(self, step: int | None, room: float) -> Scene:
        """Draw the layer in three parts, one below the other."""
        s = Scene(step)
        s.text((0, 0), "1  project, and split into heads", "start bold")
        y = self._project(s, 16, room) + 28
        D = self.q[0].array.shape[1]
        s.text((0, y), f"2  attend in each head: softmax of QKᵀ ÷ √{D}", "start bold")
        y = self._attend(s, y + 20, room) + 30
        s.text((0, y), "3  join: side by side, times W_O", "start bold")
        self._join(s, y + 22, room)
        return s

    def _project(self, s: Scene, y: float, room: float) -> float:
        """Draw X and what is made of it, head beside head; return where that ends."""
        kinds = ((self.q, "Q"), (self.k, "K"), (self.v, "V"))
        widths = [_width(blocks) + APART for blocks, _ in kinds]
        beside = self.x.before + self.x.width + ARROW + sum(widths) - APART <= room
        x = s.put(self.x, self.x.before, y + (LABELS if beside else self.x.above))
        if beside:
            start, foot = x.end + ARROW, x.y - LABELS
            s.arrow(x.right, (start - 8, x.center[1]))
        else:
            start, foot = 4.0, x.foot + 32
            s.arrow(x.bottom, (x.center[0], foot + 4))
        for shelf in [[0, 1, 2]] if beside else shelves(widths, room + APART):
            at = start
            for n in shelf:
                blocks, name = kinds[n]
                boxes = self._beside(s, blocks, at, foot + LABELS)
                title = f"{name} = X W_{name}"
                middle = (boxes[0].x + boxes[-1].end) / 2
                s.text((middle, foot + LABELS - 36), title, f"bold {blocks[0].role}")
                at = boxes[-1].end + APART
            foot = boxes[-1].foot
        return max(x.foot, foot)

    def _attend(self, s: Scene, y: float, room: float) -> float:
        """Draw each head's weights and output; return where that ends."""
        beside = [a.before + a.width + 44 + o.width for a, o in zip(self.a, self.o, strict=True)]
        below = max(beside) > room  # the outputs are under the weights
        widths = [a.before + a.width for a in self.a] if below else beside
        foot = y
        for shelf in shelves([width + 30 for width in widths], room + 30):
            x, y = 0.0, foot
            for h in shelf:
                a, o = self.a[h], self.o[h]
                weights = s.put(a, x + a.before, y + a.above)
                if below:
                    output = s.put(o, weights.x, weights.foot + 34 + o.above)
                    start = (output.center[0], weights.bottom[1])
                    s.arrow(start, output.top, role="value", label=f"times V_{h}")
                else:
                    output = s.put(o, weights.end + 44, weights.y)
                    s.arrow(weights.right, output.left, role="value", label=f"V_{h}")
                x, foot = x + widths[h] + 30, output.foot + 14
        return foot - 14

    def _join(self, s: Scene, y: float, room: float) -> None:
        """Draw the outputs side by side, the map, and the result."""
        left, width = self.a[0].before, _width(self.joined)
        after = self.w_o.width + 34 + self.y.width
        high = max(self.w_o.height + self.w_o.above, self.y.height + self.y.above)
        middle = y + high - max(self.w_o.height, self.y.height) / 2
        if left + width + 30 + after <= room:
            boxes = self._beside(s, self.joined, left, middle - self.y.height / 2)
            at = boxes[-1].end + 30
        else:
            boxes = self._beside(s, self.joined, left, y + 28)
            at, middle = max(20.0, (room - after) / 2), middle + boxes[0].foot - y + 14
        for i, name in enumerate(self.names):
            s.text((left - 12, boxes[0].y + ROW * (i + 0.5)), name, "small end bold")
        map_ = s.put(self.w_o, at, middle - self.w_o.height / 2)
        result = s.put(self.y, map_.end + 34, middle - self.y.height / 2)
        s.text((at - 15, middle), "×")
        s.text(((map_.end + result.x) / 2, middle), "=")
        for h in range(1, self.count):  # where the rows of the next head begin
            cut = map_.y + ROW * self.joined[0].array.shape[1] * h
            s.line((map_.x - 2, cut), (map_.end + 2, cut), role="ink", dash=True)

    def _beside(self, s: Scene, blocks: Sequence[Matrix], x: float, y: float) -> list[Box]:
        """Draw the heads of one matrix side by side, each with its name."""
        boxes = []
        for h, block in enumerate(blocks):
            boxes.append(s.put(block, x, y))
            s.text((boxes[-1].center[0], y - 13), f"head {h}", f"small {block.role}")
            x = boxes[-1].end + BETWEEN
        return boxes


def _block(array: np.ndarray, role: str, links: str, stage: str, digits: int | None) -> Matrix:
    """Return one head's columns, wide enough for the head's name."""
    matrix = Matrix(array, role, links=links, stage=stage, digits=digits)
    return replace(matrix, cell=max(matrix.column, BLOCK / array.shape[1]))


def _width(blocks: Sequence[Matrix]) -> float:
    return sum(block.width for block in blocks) + BETWEEN * (len(blocks) - 1)
