"""A vision transformer from its patches to its logits: a column for each row of numbers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_integer, check_least, check_sizes
from attncore.base.reading import read_numbers
from attncore.draw.picture import Picture, check_step
from attncore.draw.scene import Box, Scene

MOST = {"pixels": 16, "patches": 4, "layers": 4}
HIGH = 26.0  # of a box


def vision(
    image: Array,
    size: int,
    *,
    layers: int,
    d_model: int,
    heads: int,
    classes: int,
    step: int | None = None,
) -> Picture:
    r"""Draw a vision transformer: patches, CLS before them, positions, blocks, and one row read.

    .. math:: X = [\,c;\; \operatorname{patches}(\text{image})\, W + b\,] + P, \qquad
        X \leftarrow \operatorname{block}_l(X), \qquad
        \text{logits} = \operatorname{norm}(X_0) W_N + b_N

    Parameters
    ----------
    image
        `(rows, columns)`, NumPy or torch: numbers from 0 (black) to 1 (white), at most 16 by
        16 pixels and 4 patches.
    size
        Side of a patch in pixels; it must divide rows and columns.
    layers
        Number of blocks, 1 to 4.
    d_model
        Width of the rows.
    heads
        Heads of each attention.
    classes
        How many classes there are, and so how many logits.
    step
        Draw it as it is at this step: 0 the patches, 1 their rows, 2 CLS, 3 positions, then a step
        for each block, and last the logits. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter, with its steps; a column, when pointed at, is lit. Its `repr` says it in
        words.

    Raises
    ------
    ValueError
        If the image is too large, has other axes or numbers outside of 0 to 1, `size` does not
        divide it or leaves more than 4 patches, there are no layers or more than 4, a size is
        below 1, or there is no such step.
    TypeError
        If the image is not of real numbers, or a size or `step` is no integer.

    References
    ----------
    Dosovitskiy et al. (2021), figure 1.

    Examples
    --------
    >>> sizes = {"layers": 1, "d_model": 8, "heads": 2, "classes": 3}
    >>> vision([[0.0, 0.5]], 1, **sizes).words.split(". ")[0]
    'Each of the 2 patches of 1 x 1 pixels goes through one learned map and is a row of 8 numbers'
    """
    image = read_numbers("image", image)
    if image.ndim != 2 or 0 in image.shape:
        raise ValueError(f"image must be (rows, columns), got {shape_of(image)}")
    if not ((image >= 0) & (image <= 1)).all():
        raise ValueError(
            "image must hold numbers from 0 (black) to 1 (white); divide by the largest"
        )
    rows, columns = image.shape
    if max(rows, columns) > MOST["pixels"]:
        raise ValueError(
            f"image must have at most {MOST['pixels']} x {MOST['pixels']} pixels to be read as a "
            f"picture, got {rows} x {columns}: draw a part of it, as image[:16, :16]"
        )
    size = check_integer("size", size)
    if size < 1 or rows % size or columns % size:
        raise ValueError(
            f"size must divide the rows and columns of the image, {rows} x {columns}, got {size}"
        )
    count = rows * columns // size**2
    if count > MOST["patches"]:
        raise ValueError(
            f"size must leave at most {MOST['patches']} patches to be drawn, got {size}, "
            f"which makes {count}"
        )
    layers = check_least("layers", layers, 1)
    if layers > MOST["layers"]:
        raise ValueError(f"layers must be at most {MOST['layers']} to be drawn, got {layers}")
    d_model, heads, classes = check_sizes(d_model=d_model, heads=heads, classes=classes)
    steps = ["patches", "one map", "CLS", "positions"]
    steps += [*(f"block {n}" for n in range(layers)), "logits"]
    check_step(step, len(steps), "steps")
    own = f"{heads} head{'s' if heads > 1 else ''}"
    words = (
        f"Each of the {count} patches of {size} x {size} pixels goes through one learned map and "
        f"is a row of {d_model} numbers. A learned row that belongs to no patch, CLS, stands "
        f"before them, and each of the {1 + count} rows gets the row of its place added. In each "
        f"of {layers} blocks attention ({own}) lets all rows hear from all, and the network works "
        f"on each row by itself. At the end only the row of CLS is read: normalised and mapped, it "
        f"is the {classes} logits."
    )
    if step is not None:
        words += f" Drawn up to the step: {steps[step]}."
    cut = [
        image[y : y + size, x : x + size, None]
        for y in range(0, rows, size)
        for x in range(0, columns, size)
    ]
    sizes = {
        "patches": f"{count}×{size * size}",
        "rows": f"{count}×{d_model}",
        "all": f"{1 + count}×{d_model}",
        "attention": f"{own}, {1 + count}×{1 + count}",
        "logits": f"{classes} numbers",
    }
    scenes = Scene(step), Scene(step)
    for scene, column in zip(scenes, (72.0, 37.0), strict=True):
        _draw(scene, cut, layers, sizes, column)
    return Picture("A vision transformer, from patches to logits", words, *scenes, steps)


def _draw(
    s: Scene, cut: list[np.ndarray], layers: int, sizes: dict[str, str], column: float
) -> None:
    """Draw the columns from top to bottom, CLS on the left, and beside them what each stage is."""
    T, wide = len(cut), column - 6
    across, places = (1 + T) * column - 6, [(t + 0.5) * column - 3 for t in range(1 + T)]
    pixel = 28 / len(cut[0])

    def boxes(y: float, role: str, text: str, first: int = 0, last: int = 1 + T) -> None:
        for i in range(first, last):
            box = Box(places[i] - wide / 2, y, wide, HIGH)
            with s.cell("token", i):
                s.rect(box, role, opacity=0.14, corner=5)
                s.text(box.center, text, "small")

    def beside(y: float, name: str, detail: str, role: str = "") -> None:
        s.text((across + 12, y + 5), name, f"small start {role}".strip())
        s.text((across + 12, y + 21), detail, "small start soft")

    def stream(y: float, end: float, first: int = 0, last: int = 1 + T) -> None:
        for x in places[first:last]:
            s.rect(Box(x - 6, y, 12, end - y), "ink", opacity=0.1, corner=2)
            s.arrow((x, y), (x, end), role="ink")

    with s.row(0, "kept"):
        for i, patch in enumerate(cut, 1):
            with s.cell("token", i):
                s.pixels(patch, (places[i] - 14, 0), pixel)
        beside(0, "patches", sizes["patches"])
    with s.row(1, "kept"):
        stream(32, 50, 1)
        boxes(52, "soft", "map", 1)
        beside(52, "one map for all", sizes["rows"])
    with s.row(2, "kept"):
        boxes(52, "ink", "CLS", 0, 1)
        s.frame(Box(places[0] - wide / 2, 52, wide, HIGH), "ink", corner=5)
        s.text((places[0], 40), "learned", "small soft")
    with s.row(3, "kept"):
        stream(80, 98)
        boxes(100, "ink", "+ P" if wide > 40 else "+")
        beside(100, "+ row of the place", sizes["all"])
    y = 102 + HIGH
    for n in range(layers):
        with s.row(4 + n, "kept"):
            stream(y, y + 18)
            bar = Box(0, y + 20, across, HIGH)
            s.rect(bar, "weights", opacity=0.18, corner=6)
            for a, b in pairwise(places):
                middle = (a + b) / 2
                s.arrow((middle, bar.center[1]), (a + 6, bar.center[1]), role="weights")
                s.arrow((middle, bar.center[1]), (b - 6, bar.center[1]), role="weights")
            beside(bar.y, f"block {n}: + attention", sizes["attention"], "weights")
            stream(bar.foot + 2, bar.foot + 16)
            boxes(bar.foot + 18, "ink", "net" if wide > 40 else "")
            beside(bar.foot + 18, f"block {n}: + network", sizes["all"])
            y = bar.foot + 20 + HIGH
    with s.row(4 + layers, "kept"):
        stream(y, y + 18, 0, 1)
        boxes(y + 20, "ink", "norm" if wide > 40 else "", 0, 1)
        s.text((places[1] - wide / 2, y + 32), "the other rows are not read", "small start soft")
        stream(y + HIGH + 22, y + HIGH + 38, 0, 1)
        box = Box(places[0] - wide / 2, y + HIGH + 40, wide, HIGH)
        s.rect(box, "soft", opacity=0.14, corner=5)
        s.text(box.center, "map", "small")
        s.text((places[1] - wide / 2, box.center[1]), f"logits: {sizes['logits']}", "small start")
