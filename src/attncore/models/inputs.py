"""What a model's call may be given, in either library; the messages name the fix."""

from __future__ import annotations

import sys

import numpy as np

from attncore.base.arrays import (
    Array,
    alike,
    cast,
    check_dense,
    check_device,
    check_readable,
    dtype_name,
    is_float,
    is_tensor,
    namespace,
    read_array,
    shape_of,
)
from attncore.base.tracing import holds, is_traced

INTEGERS = ("int64", "int32")


def check_array(name: str, array: Array, beside: Array) -> None:
    """Raise unless `array` is of the library of `beside`, a parameter, and on its device."""
    if is_tensor(beside):
        if not is_tensor(array):
            fix = f": use torch.from_numpy({name})" if isinstance(array, np.ndarray) else ""
            raise TypeError(f"{name} must be a torch tensor, got {type(array).__name__}{fix}")
        if array.is_nested or array.layout != sys.modules["torch"].strided:
            raise TypeError(
                f"{name} must be dense and not nested: pad it, or use {name}.to_dense()"
            )
        if array.device != beside.device:
            check_device(**{name: array, "parameters": beside})
        return
    if type(array) is not np.ndarray:
        fix = f": use {name}.numpy(), or a model of attncore.nn" if is_tensor(array) else ""
        raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}{fix}")


def check_rows(name: str, rows: Array, weight: Array, hint: str = "") -> None:
    """Raise unless `rows` can enter a map with these weights."""
    if alike((rows, weight)):
        return
    try:
        check_array(name, rows, weight)
        if not is_float(rows):
            raise TypeError(f"{name} must be floating point, got {dtype_name(rows)}")
    except TypeError as error:
        raise TypeError(f"{error}{hint}") from None
    if rows.dtype != weight.dtype and not autocasts(rows):
        cast = f".to({weight.dtype})" if is_tensor(rows) else f".astype('{weight.dtype}')"
        raise TypeError(
            f"{name} is {dtype_name(rows)}, the parameters are {dtype_name(weight)}: "
            f"use {name}{cast}, or make the model in {dtype_name(rows)}"
        )


def check_tokens(tokens: Array, table: Array) -> None:
    """Raise unless these are token numbers `(B, T)` of the library and device of a table."""
    kind, make = (
        ("a torch tensor", "torch.as_tensor")
        if is_tensor(table)
        else ("a NumPy array", "numpy.array")
    )
    if is_tensor(table) != is_tensor(tokens) or not hasattr(tokens, "dtype"):
        raise TypeError(
            f"tokens must be {kind} (B, T), got {type(tokens).__name__}: use model.encode(text) "
            f"or {make}(tokens)"
        )
    check_array("tokens", tokens, table)
    if tokens.ndim != 2 or dtype_name(tokens) not in INTEGERS:
        cast = "tokens.long()" if is_tensor(tokens) else "tokens.astype(int)"
        raise ValueError(
            f"tokens must be integers (B, T), got {dtype_name(tokens)} {shape_of(tokens)}: "
            f"use {cast}, and tokens[None] for one row"
        )


def check_vocabulary(name: str, tokens: Array, N: int) -> None:
    """Raise unless all tokens are known. On a GPU this waits for it."""
    if is_tensor(tokens) and tokens.is_meta:
        return
    wrong = tokens[(tokens < 0) | (tokens >= N)]
    if len(wrong):
        raise ValueError(f"{name} must lie in 0 to N - 1 = {N - 1}, got {int(wrong[0])}")


def check_left_padding(left_padding: Array, tokens: Array, total: int) -> Array:
    """Return how many of `total` tokens are padding, at the start of each row: `(B,)`, int64.

    On a GPU this waits for it.
    """
    xp = namespace(tokens=tokens, left_padding=left_padding)
    where = {"device": tokens.device} if is_tensor(tokens) else {}
    left = read_array(xp, "left_padding", left_padding, **where)
    check_dense("left_padding", left)
    check_device(tokens=tokens, left_padding=left)
    if not dtype_name(left).startswith(("int", "uint")):
        raise TypeError(f"left_padding must be integers, got {dtype_name(left)}")
    if shape_of(left) != shape_of(tokens)[:1]:
        raise ValueError(
            f"left_padding must be (B,) = ({tokens.shape[0]},), one number for each row of "
            f"tokens, got {shape_of(left)}"
        )
    if not is_traced():
        check_readable("left_padding", left)
    left = cast(xp, left, xp.int64)
    if not holds((left >= 0) & (left < total), "left_padding must leave each row a token"):
        raise ValueError(
            f"left_padding must leave each row a token of {total}, got {left.tolist()}"
        )
    return left


def autocasts(array: Array) -> bool:
    """Tell whether ``torch.autocast`` changes dtypes where this array is."""
    if not is_tensor(array):
        return False
    torch, device = sys.modules["torch"], array.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
