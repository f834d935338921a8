"""Images as rows of patches, and back: what attention over an image attends to."""

from __future__ import annotations

import numpy as np

from attncore.base.arrays import Array, check_dense, is_tensor, namespace, shape_of
from attncore.base.integers import check_axes, check_length, check_sizes


def patches(images: Array, size: int) -> Array:
    r"""Cut images into squares: one row per square, left to right and then down.

    .. math:: x_t = (\text{pixels of square } t), \qquad
        T = \frac{\text{rows}}{\text{size}} \cdot \frac{\text{columns}}{\text{size}}

    Parameters
    ----------
    images
        `(..., rows, columns, channels)`, NumPy or torch, of any dtype. Channels come last,
        and a gray image has one: ``images[..., None]``.
    size
        Side of a square in pixels; it must divide rows and columns.

    Returns
    -------
    Array
        `(..., T, size * size * channels)`: a row holds its square's pixels row by row, the
        channels of a pixel side by side. Same library, dtype and device.

    Raises
    ------
    ValueError
        If there are fewer than three axes, or `size` is below 1 or does not divide.
    TypeError
        If `images` is no array, or a sparse, nested or masked one, or `size` no integer.

    References
    ----------
    Dosovitskiy et al. (2021), section 3.1.

    Examples
    --------
    >>> image = np.arange(16).reshape(4, 4, 1)
    >>> print(image[..., 0])
    [[ 0  1  2  3]
     [ 4  5  6  7]
     [ 8  9 10 11]
     [12 13 14 15]]
    >>> print(patches(image, 2))
    [[ 0  1  4  5]
     [ 2  3  6  7]
     [ 8  9 12 13]
     [10 11 14 15]]
    """
    _check_array("images", images)
    shape = shape_of(images)
    if len(shape) < 3:
        raise ValueError(
            f"images must be (..., rows, columns, channels), got {shape}; "
            "a gray image has one channel: images[..., None]"
        )
    *batch, rows, columns, channels = shape
    down, across = _grid(rows, columns, size)
    cut = images.reshape(*batch, down, size, across, size, channels).swapaxes(-4, -3)
    return cut.reshape(*batch, down * across, size * size * channels)


def from_patches(rows: Array, shape: tuple[int, int], size: int) -> Array:
    r"""Put the squares of :func:`patches` together again.

    .. math:: \operatorname{from\_patches}(\operatorname{patches}(x)) = x

    Parameters
    ----------
    rows
        `(..., T, size * size * channels)`.
    shape
        (rows, columns) of the images, in pixels.
    size
        Side of a square in pixels.

    Returns
    -------
    Array
        `(..., rows, columns, channels)`. Same library, dtype and device.

    Raises
    ------
    ValueError
        If `shape` has not two entries from 0 on, `size` is below 1 or does not divide them, or
        T or the width does not fit.
    TypeError
        If `rows` is no array, or a sparse, nested or masked one, `shape` no tuple, or a length
        no integer.

    References
    ----------
    Dosovitskiy et al. (2021), section 3.1, read backwards.

    Examples
    --------
    >>> image = np.arange(16).reshape(4, 4, 1)
    >>> bool((from_patches(patches(image, 2), (4, 4), 2) == image).all())
    True
    """
    _check_array("rows", rows)
    height, width = check_axes(shape, "rows, columns")
    check_length("rows in shape", height)
    check_length("columns in shape", width)
    down, across = _grid(height, width, size)
    found = shape_of(rows)
    if len(found) < 2 or found[-2] != down * across or found[-1] % size**2:
        raise ValueError(
            f"rows must be (..., {down * across}, {size * size} * channels) for images of "
            f"{height} x {width} pixels in squares of {size}, got {found}"
        )
    *batch, _, numbers = found
    cut = rows.reshape(*batch, down, across, size, size, numbers // size**2).swapaxes(-4, -3)
    return cut.reshape(*batch, height, width, numbers // size**2)


def _grid(rows: int, columns: int, size: int) -> tuple[int, int]:
    """Return how many squares fit down and across."""
    check_sizes(size=size)
    if rows % size or columns % size:
        raise ValueError(
            f"size ({size}) must divide rows ({rows}) and columns ({columns}); "
            "the axes are (..., rows, columns, channels)"
        )
    return rows // size, columns // size


def _check_array(name: str, value: object) -> None:
    if not (isinstance(value, np.ndarray) or is_tensor(value)) or isinstance(value, np.matrix):
        raise TypeError(
            f"{name} must be a NumPy array or a torch tensor, got {type(value).__name__}"
        )
    namespace(**{name: value})  # refuses a masked array
    check_dense(name, value)
