"""One code path for NumPy and torch: which library, which dtype, which shape.

The rest of the package uses the part of the language that NumPy >= 2 and torch
share (``.mT``, ``@``, ``where``, ``amax``, ``axis=``). What differs is settled here.
torch is looked up, never imported: if nobody imported it, no tensor can exist.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from attncore.base.integers import check_length, check_product

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``torch.Tensor``."""

LOW_PRECISION = ("float16", "bfloat16")


def is_tensor(value: object) -> bool:
    """Tell whether `value` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def namespace(**named: object) -> Any:
    """Return the module (numpy or torch) the named arrays belong to; refuse a mix.

    Masked arrays are refused too: most functions would read what is masked as if it were not.
    """
    tensors = [name for name, value in named.items() if is_tensor(value)]
    arrays = [name for name, value in named.items() if isinstance(value, np.ndarray)]
    for name in arrays:
        if isinstance(named[name], np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask would be lost; pass mask= instead: "
                "a.filled(value) is a plain array, and ~np.ma.getmaskarray(a) tells what it shows"
            )
    if tensors and arrays:
        raise TypeError(
            f"NumPy arrays and torch tensors do not mix: {', '.join(arrays)} NumPy, "
            f"{', '.join(tensors)} torch; convert with torch.from_numpy(a) or t.numpy()"
        )
    return sys.modules["torch"] if tensors else np


def dtype_name(array: Array) -> str:
    """Return the dtype's bare name, the same for both libraries and byte orders: 'float32'."""
    dtype = array.dtype
    if isinstance(dtype, np.dtype) and not dtype.isnative:
        dtype = dtype.newbyteorder("=")
    return str(dtype).removeprefix("torch.")


def library_of(like: Array | None) -> tuple[Any, dict[str, Any]]:
    """Return the module of `like` and the options to make arrays on its device."""
    if like is None:
        return np, {}
    if is_tensor(like):
        return namespace(like=like), {"device": like.device}
    if isinstance(like, np.ndarray):
        return np, {}
    raise TypeError(
        "like must be an array of the wanted library and on the wanted device, got "
        f"{type(like).__name__}; for a device alone pass like=torch.empty(0, device=...)"
    )


def positions(Tq: int, Tk: int | None, like: Array | None) -> tuple[Array, Array]:
    """Return the positions of queries `(Tq, 1)`, the last Tq of Tk, and of keys `(1, Tk)`."""
    Tq = check_length("Tq", Tq)
    Tk = Tq if Tk is None else check_length("Tk", Tk)
    check_product(Tq=Tq, Tk=Tk)
    xp, where = library_of(like)
    return xp.arange(Tk - Tq, Tk, **where)[:, None], xp.arange(Tk, **where)[None, :]


def padding_mask(counts: Array, Tk: int) -> Array:
    """Return which keys are real, `(B, 1, 1, Tk)`: of each sequence `(B,)` the first so many."""
    xp, where = library_of(counts)
    return (xp.arange(Tk, **where)[None, :] < counts[:, None])[:, None, None, :]


def as_floats(**named: object) -> tuple[Any, ...]:
    """Return (namespace, array, ...): the named values as floats of one dtype and device.

    Arrays keep their dtype. Integers, Python numbers and lists take the dtype of the
    float arrays beside them, or else float64 (NumPy) and torch's default dtype.
    """
    values = tuple(named.values())
    if alike(values) and is_float(values[0]):
        return (sys.modules["torch"] if is_tensor(values[0]) else np, *values)
    xp = namespace(**named)
    tensors: dict[str, Array] = {n: value for n, value in named.items() if is_tensor(value)}
    check_device(**tensors)
    device = next(iter(tensors.values())).device if tensors else None
    arrays = {name: _as_array(xp, name, value, device) for name, value in named.items()}
    strong = {
        name: array
        for name, array in arrays.items()
        if is_float(array) and (is_tensor(named[name]) or isinstance(named[name], np.ndarray))
    }
    if len({a.dtype for a in strong.values()}) > 1:
        found = ", ".join(f"{name} {dtype_name(a)}" for name, a in strong.items())
        raise TypeError(f"arrays must share one dtype: {found}; convert with {_cast_hint(xp)}")
    if strong:
        dtype = next(iter(strong.values())).dtype
    else:
        dtype = np.dtype(np.float64) if xp is np else xp.get_default_dtype()
    return (xp, *(cast(xp, array, dtype) for array in arrays.values()))


def alike(values: tuple[Any, ...]) -> bool:
    """Tell whether all are plain arrays, or all tensors, of one dtype and device.

    They nearly always are; then no more needs to be looked at.
    """
    first = values[0]
    if type(first) is np.ndarray:
        return all(type(v) is np.ndarray and v.dtype == first.dtype for v in values)
    torch = sys.modules.get("torch")
    return torch is not None and all(
        isinstance(v, torch.Tensor)
        and v.dtype == first.dtype
        and v.device == first.device
        and v.layout == torch.strided
        and not v.is_nested
        for v in values
    )


def check_dense(name: str, array: Array) -> None:
    """Raise if this is a sparse tensor, or a nested one."""
    if not is_tensor(array):
        return
    if array.is_nested:
        raise TypeError(
            f"{name} must be dense, got a nested tensor; use {name}.to_padded_tensor(value)"
        )
    if array.layout != sys.modules["torch"].strided:
        raise TypeError(f"{name} must be dense, got {array.layout}; use {name}.to_dense()")


def check_real(name: str, array: Array) -> None:
    """Raise unless the array is dense and holds floats or integers."""
    check_dense(name, array)
    kind = dtype_name(array)
    if kind.startswith("float8"):
        raise TypeError(f"{name} is {kind}, with which nothing is computed; use {name}.float()")
    if not (is_float(array) or kind.startswith(("int", "uint"))):
        raise TypeError(f"{name} must hold real numbers, got {kind}")


def cast(xp: Any, array: Array, dtype: Any) -> Array:
    """Return `array` as `dtype`, itself where nothing changes."""
    return array.astype(dtype, copy=False) if xp is np else array.to(dtype)


def is_float(array: Array) -> bool:
    """Tell whether the dtype is a real floating-point one that can be computed with."""
    dtype = array.dtype
    if isinstance(array, np.ndarray):
        return dtype.kind == "f"
    return dtype.is_floating_point and dtype.itemsize > 1  # 8 bits are only stored


def is_bool(array: Array) -> bool:
    """Tell whether the dtype is boolean."""
    return dtype_name(array) == "bool"


def wide(xp: Any, array: Array) -> Array:
    """Return 16-bit floats as float32, where sums are taken; other arrays as they are."""
    return cast(xp, array, xp.float32) if dtype_name(array) in LOW_PRECISION else array


def widest(xp: Any, beside: Array) -> Any:
    """Return float64, or float32 on Apple's GPUs, which have no float64."""
    return xp.float32 if is_tensor(beside) and beside.device.type == "mps" else xp.float64


def shape_of(array: Array) -> tuple[int, ...]:
    """Return the shape as a plain tuple, so that both libraries print it alike."""
    return tuple(array.shape)


def broadcasts_to(shape: Sequence[int], target: Sequence[int]) -> bool:
    """Tell whether `shape` broadcasts to `target` without making `target` larger."""
    if len(shape) > len(target):
        return False
    aligned = target[len(target) - len(shape) :]
    # Not `in (1, want)`: torch.compile would not see that a number equals a symbol.
    return all(have == 1 or have == want for have, want in zip(shape, aligned, strict=True))


def check_boolean(name: str, mask: object, hint: str = "") -> None:
    """Raise unless `mask` is a dense boolean array."""
    if not (isinstance(mask, np.ndarray) or is_tensor(mask)) or isinstance(mask, np.matrix):
        raise TypeError(
            f"{name} must be a boolean array (True = attend), got {type(mask).__name__}"
        )
    if not is_bool(mask):
        raise TypeError(f"{name} must be boolean (True = attend), got {dtype_name(mask)}{hint}")
    check_dense(name, mask)


def check_mask(xp: Any, mask: object, scores_shape: tuple[int, ...], beside: Array) -> None:
    """Raise unless `mask` is a boolean array of the same library that fits the scores."""
    namespace(mask=mask, scores=beside)
    hint = "; turn 0/1 numbers into mask != 0, and pass additive terms as bias="
    check_boolean("mask", mask, hint)
    check_fits("mask", mask, scores_shape)
    check_device(mask=mask, scores=beside)


def check_readable(name: str, array: Array) -> None:
    """Raise if there are no numbers to look at."""
    if is_tensor(array) and array.device.type == "meta":
        raise ValueError(f"{name} is on meta, a device that holds shapes but no numbers")


def check_fits(name: str, array: Array, scores_shape: tuple[int, ...]) -> None:
    """Raise unless `array` broadcasts to the shape of the scores."""
    shape = shape_of(array)
    if broadcasts_to(shape, scores_shape):
        return
    hint = (
        "; a padding mask is (B, 1, 1, Tk): use masks.padding(lengths, Tk)"
        if name == "mask" and len(shape) == 2 and len(scores_shape) > 2
        else ""
    )
    raise ValueError(
        f"{name} {shape} does not broadcast to the scores {scores_shape}, "
        f"which are (..., H, Tq, Tk){hint}"
    )


def check_device(**named: Array) -> None:
    """Raise unless all the named tensors are on one device."""
    tensors = {name: array for name, array in named.items() if is_tensor(array)}
    if len({array.device for array in tensors.values()}) > 1:
        found = ", ".join(f"{name} on {array.device}" for name, array in tensors.items())
        raise ValueError(f"tensors must be on one device: {found}; move them with .to(device)")


def read_array(xp: Any, name: str, value: object, device: Any = None) -> Array:
    """Return an array or tensor as it is, in this machine's order of bytes, and lists as one."""
    if is_tensor(value):
        return value
    try:
        if xp is not np:
            return xp.as_tensor(value, device=device)
        array = np.asarray(value)
    except Exception as error:  # a foreign object may answer with anything
        raise TypeError(f"{name} cannot be read as an array of numbers: {error}") from error
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _as_array(xp: Any, name: str, value: object, device: Any) -> Array:
    array = read_array(xp, name, value, device)
    check_real(name, array)
    return array


def _cast_hint(xp: Any) -> str:
    return "a.astype(dtype)" if xp is np else "t.to(dtype)"
