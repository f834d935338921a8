"""Numbers and labels to be shown: whatever they came in, as float64 NumPy arrays and strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attncore.base.arrays import (
    Array,
    as_floats,
    check_boolean,
    check_dense,
    check_fits,
    check_readable,
    check_real,
    dtype_name,
    is_bool,
    is_tensor,
    namespace,
    read_array,
)


def to_numpy(array: Array) -> np.ndarray:
    """Return a float64 NumPy copy of an array, a tensor on any device, or a list."""
    namespace(array=array)  # refuses a masked array
    array = read_array(np, "array", array)
    if dtype_name(array) == "object":  # such as fractions
        try:
            return np.array([float(x) for x in array.flat]).reshape(array.shape)
        except Exception as error:  # a foreign object may answer with anything
            raise TypeError(f"array must hold real numbers: {error}") from error
    check_dense("array", array)
    if not is_bool(array):
        check_real("array", array)
    check_readable("array", array)
    if is_tensor(array):
        array = array.detach().cpu().double().resolve_neg().numpy()
    return np.array(array, dtype=np.float64)


def read_numbers(name: str, array: Array) -> np.ndarray:
    """Return real numbers as :func:`to_numpy` does, or say that they are none."""
    _, array = as_floats(**{name: array})
    check_readable(name, array)
    return to_numpy(array)


def read_mask(name: str, mask: Array, shape: tuple[int, ...]) -> np.ndarray:
    """Return a boolean mask, NumPy or torch, as a NumPy array of the scores' shape."""
    check_boolean(name, mask)
    check_readable(name, mask)
    check_fits(name, mask, shape)
    return np.broadcast_to(to_numpy(mask) > 0, shape)


def read_labels(name: str, given: Sequence[str] | None, count: int) -> list[str]:
    """Return `count` labels as strings; numbers from 0 unless given."""
    if given is None:
        return [str(i) for i in range(count)]
    if getattr(given, "ndim", 0) == 1:
        if is_tensor(given):
            check_real(name, given)
            check_readable(name, given)
        given = given.tolist()  # type: ignore[attr-defined]  # a NumPy 1 prints as np.int64(1)
    if not isinstance(given, Sequence):
        raise TypeError(f"{name} must be a list of labels, got {type(given).__name__}")
    if len(given) != count:
        raise ValueError(f"{name} must name all {count} of them, got {len(given)} labels")
    return [str(label) for label in given]
