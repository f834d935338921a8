"""An image cut into patches, and the row of tokens that they make."""

from __future__ import annotations

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_integer
from attncore.base.reading import read_numbers
from attncore.draw.picture import Picture
from attncore.draw.scene import Box, Point, Scene

MOST = 16  # rows and columns of pixels, and patches
PITCH = 40  # from token to token


def patches(image: Array, size: int, *, step: int | None = None) -> Picture:
    r"""Draw an image, its cut into patches, and the patches as a row of tokens.

    .. math:: T = \frac{\text{rows}}{\text{size}} \cdot \frac{\text{columns}}{\text{size}}

    Parameters
    ----------
    image
        `(rows, columns)`, or with a last axis of 1 or 3 channels, NumPy or torch: numbers from 0
        (black) to 1 (white). At most 16 by 16 pixels and 16 patches.
    size
        Side of a patch in pixels; it must divide rows and columns.
    step
        Point out this patch, counted from 0. None points out none.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each patch; its `repr` says it in words.

    Raises
    ------
    ValueError
        If the image is too large, has other axes or numbers outside of 0 to 1, `size` does not
        divide it, or there is no such step.
    TypeError
        If the image is not of real numbers, or `size` or `step` is no integer.

    References
    ----------
    Dosovitskiy et al. (2021), figure 1.

    Examples
    --------
    >>> patches([[0.0, 0.5], [0.5, 1.0]], 1).words.split(". ")[1]
    'The 2 x 2 patches, read row by row, are a row of 4 tokens of 1 x 1 x 1 = 1 number each.'
    """
    image = read_numbers("image", image)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"image must be (rows, columns), or end with 1 or 3 channels, got {shape_of(image)}"
        )
    rows, columns, channels = image.shape
    if max(rows, columns) > MOST:
        raise ValueError(
            f"image must have at most {MOST} x {MOST} pixels to be read as a picture, got "
            f"{rows} x {columns}: draw a part of it, as image[:{MOST}, :{MOST}]"
        )
    if not ((image >= 0) & (image <= 1)).all():
        raise ValueError(
            "image must hold numbers from 0 (black) to 1 (white); divide by the largest"
        )
    size = check_integer("size", size)
    if size < 1 or rows % size or columns % size:
        raise ValueError(
            f"size must divide the rows and columns of the image, {rows} x {columns}, got {size}"
        )
    down, across = rows // size, columns // size
    count = down * across
    if count > MOST:
        raise ValueError(
            f"size must leave at most {MOST} patches to be read as a picture, got {size}, "
            f"which makes {count}"
        )
    if step is not None and not 0 <= check_integer("step", step) < count:
        raise ValueError(f"step must be one of the {count} patches, counted from 0, got {step}")
    cut = [
        image[y : y + size, x : x + size]
        for y in range(0, rows, size)
        for x in range(0, columns, size)
    ]
    pixel = 112 / max(rows, columns)
    wide, tall = Scene(step), Scene(step)
    _draw(wide, image, cut, across, pixel, 1.3 * pixel, 16)
    _draw(tall, image, cut, across, pixel, 1.2 * pixel, 8)
    numbers = size * size * channels
    words = (
        f"An image of {rows} x {columns} pixels is cut into patches of {size} x {size}. The {down} "
        f"x {across} patches, read row by row, are a row of {count} tokens of {size} x {size} x "
        f"{channels} = {numbers} number{'s' if numbers > 1 else ''} each."
    )
    names = [f"patch {t}" for t in range(count)]
    return Picture("An image as a row of patches", words, wide, tall, names)


def _draw(
    s: Scene,
    image: np.ndarray,
    cut: list[np.ndarray],
    across: int,
    pixel: float,
    larger: float,
    most: int,
) -> None:
    """Draw the image, its cut to the right, and the tokens below, at most so many on a line."""
    rows, columns, channels = image.shape
    size, count = len(cut[0]), len(cut)
    down, side, per_line = count // across, size * larger, min(most, count)
    width = columns * pixel + 62 + across * (side + 8) - 8
    left = max(0.0, (per_line * PITCH - width) / 2)
    height = max(rows * pixel, down * (side + 20) - 6)
    whole = s.pixels(image, (left, 20 + (height - rows * pixel) / 2), pixel)
    for b in range(1, down):
        y = whole.y + b * size * pixel
        s.line((whole.x, y), (whole.end, y), role="key")
    for b in range(1, across):
        x = whole.x + b * size * pixel
        s.line((x, whole.y), (x, whole.foot), role="key")
    grid = Box(
        whole.end + 62, 20 + (height - down * (side + 20) + 6) / 2, left + width - whole.end - 62, 0
    )
    s.text((whole.center[0], -2), f"{rows}×{columns} pixels", "small soft")
    s.text((grid.center[0], -2), f"{count} patches, {size}×{size} each", "small soft")
    s.arrow((whole.end + 12, whole.center[1]), (grid.x - 12, whole.center[1]), label="cut")
    for t, patch in enumerate(cut):
        at = (grid.x + t % across * (side + 8), grid.y + t // across * (side + 20) + 14)
        _patch(s, patch, at, larger, t)
    under, small = height + 44, min(larger, 30 / size)
    s.text((0, under), "one row of tokens", "small start bold")
    for t, patch in enumerate(cut):
        x = t % per_line * PITCH + (PITCH - size * small) / 2
        _patch(s, patch, (x, under + 28 + t // per_line * 56), small, t)
    foot = under + 48 + (count - 1) // per_line * 56 + size * small
    numbers = size * size * channels
    told = f"X is {count}×{numbers}: a token is {size}×{size}×{channels} = {numbers} numbers"
    s.text((0, foot), told.removesuffix("s" if numbers == 1 else ""), "small start soft")


def _patch(s: Scene, patch: np.ndarray, at: Point, pixel: float, t: int) -> None:
    """Draw a patch with its number over it."""
    side = len(patch) * pixel
    with s.row(t, "lit"), s.cell("token", t):
        s.text((at[0] + side / 2, at[1] - 9), str(t), "small")
        s.pixels(patch, at, pixel)
        s.rect(Box(at[0] - 2, at[1] - 2, side + 4, side + 4), "key", look="line outline")
