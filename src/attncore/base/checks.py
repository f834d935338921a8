"""What queries, keys, values, mask and bias must be; the messages name the axis and the fix."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    cast,
    check_dense,
    check_device,
    check_fits,
    check_mask,
    check_readable,
    check_real,
    dtype_name,
    is_bool,
    is_tensor,
    namespace,
    read_array,
    shape_of,
)
from attncore.base.integers import check_integer
from attncore.base.settings import check_number, check_positive
from attncore.base.tracing import holds, is_traced


def check_queries_and_keys(q: Array, k: Array) -> None:
    """Raise unless queries fit keys."""
    if q.ndim < 2 or q.ndim != k.ndim:
        raise ValueError(
            f"q and k must both be (..., T, D) with the same number of axes: "
            f"{_shapes(q=q, k=k)}; add one with a[None]"
        )
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"queries and keys must be equally wide (last axis D): {_shapes(q=q, k=k)}"
        )
    if q.shape[-1] == 0:
        raise ValueError(
            f"queries and keys need at least one feature (last axis D): {_shapes(q=q, k=k)}"
        )
    if q.shape[:-3] != k.shape[:-3]:
        raise ValueError(
            f"axes before the heads must be equal: {_shapes(q=q, k=k)}; "
            "repeat the smaller one with broadcast_to"
        )
    if q.ndim > 2 and (k.shape[-3] == 0 or q.shape[-3] % k.shape[-3]):
        raise ValueError(
            f"query heads ({q.shape[-3]}) must be a multiple of key/value heads "
            f"({k.shape[-3]}): {_shapes(q=q, k=k)}"
        )


def check_values(k: Array, v: Array) -> None:
    """Raise unless there is a value for each key."""
    if v.ndim != k.ndim:
        raise ValueError(f"k and v must have the same number of axes: {_shapes(k=k, v=v)}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"k and v must have one row per key: {_shapes(k=k, v=v)}")
    if v.shape[:-2] != k.shape[:-2]:
        raise ValueError(f"k and v must have the same heads and leading axes: {_shapes(k=k, v=v)}")


def _shapes(**named: Array) -> str:
    return ", ".join(f"{name} {shape_of(array)}" for name, array in named.items())


def check_scale(scale: float | Array | None, q: Array) -> float | Array:
    """Return what scores are multiplied by: a float, or a tensor `()`, which may learn."""
    if scale is None:
        return 1 / math.sqrt(q.shape[-1])
    if is_tensor(scale) or isinstance(scale, np.ndarray):
        array: Array = scale
        namespace(scale=array, **({"q": q} if is_tensor(array) else {}))
        check_real("scale", array)
        if math.prod(array.shape) != 1:
            raise ValueError(
                f"scale must be one number, got {shape_of(array)}; for one per head or feature "
                "multiply q by it and pass scale=1.0"
            )
        if is_tensor(array):
            if array.device.type != "cpu":  # a number on the CPU may meet any device
                check_device(scale=array, q=q)
            return array.reshape(())
        scale = array.item()
    number = check_number("scale", scale)
    if not -math.inf < number < math.inf:  # unlike math.isfinite, torch.compile can trace this
        raise ValueError(f"scale must be finite, got {scale}")
    return number


def check_mask_and_bias(
    xp: Any, q: Array, k: Array, mask: Array | None, bias: Array | None
) -> None:
    """Raise unless mask and bias fit the scores."""
    scores_shape = (*shape_of(q)[:-1], k.shape[-2])
    if mask is not None:
        check_mask(xp, mask, scores_shape, q)
    if bias is not None:
        namespace(bias=bias, q=q)
        if not (isinstance(bias, np.ndarray) or is_tensor(bias)):
            raise TypeError(f"bias must be an array, got {type(bias).__name__}")
        if is_bool(bias):
            raise TypeError("bias must be numbers to add, got bool; pass a boolean array as mask=")
        check_real("bias", bias)
        check_fits("bias", bias, scores_shape)
        check_device(bias=bias, q=q)


def check_sinks(sinks: Array | None, q: Array) -> Array | None:
    """Return the logits of sinks as floats, `(H, 1)`, or `()` for q without a head axis."""
    if sinks is None:
        return None
    xp: Any = namespace(sinks=sinks, q=q)
    if not (isinstance(sinks, np.ndarray) or is_tensor(sinks)):
        raise TypeError(f"sinks must be an array, got {type(sinks).__name__}")
    check_real("sinks", sinks)
    heads = q.shape[-3] if q.ndim > 2 else 1
    if sinks.ndim != 1 or sinks.shape[0] != heads:
        raise ValueError(
            f"sinks must be one number per query head, ({heads},), got {shape_of(sinks)}; "
            "for the same in each repeat it"
        )
    check_device(sinks=sinks, q=q)
    # In the precision of the sums: a GPU adds no float64 to scores of 32 bits for nothing.
    sinks = cast(xp, read_array(xp, "sinks", sinks), xp.promote_types(q.dtype, xp.float32))
    return sinks[:, None] if q.ndim > 2 else sinks[0]


def check_softcap(softcap: float | None) -> float | None:
    """Return the largest size of a score, or None for no limit."""
    return None if softcap is None else check_positive("softcap", softcap)


def check_share(dropout: float) -> float:
    """Return the share of the weights to drop."""
    share = check_number("dropout", dropout)
    if not 0 <= share < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
    return share


def check_dropout(dropout: float | None, generator: Any, q: Array) -> float:
    """Return the share of the weights to drop, for which there must be a generator."""
    library = "torch.Generator" if is_tensor(q) else "numpy.random.Generator"
    kind = sys.modules["torch"].Generator if is_tensor(q) else np.random.Generator
    if generator is not None and not isinstance(generator, kind):
        raise TypeError(f"generator must be a {library}, got {type(generator).__name__}")
    share = 0.0 if dropout is None else check_share(dropout)
    if share and generator is None:
        made = "torch.Generator().manual_seed(0)" if is_tensor(q) else "np.random.default_rng(0)"
        raise ValueError(f"dropout needs a generator to draw from, such as {made}")
    return share


def check_lengths(lengths: Array, Tk: int) -> Array:
    """Return lengths `(B,)` as int64, each in 0 to Tk."""
    xp: Any = namespace(lengths=lengths)
    if isinstance(lengths, (list, tuple)) and len(lengths) == 0:
        raise TypeError(
            "lengths is empty and so has no dtype: give one integer per sequence, or "
            "np.zeros(0, dtype=int) for no sequences"
        )
    lengths = read_array(xp, "lengths", lengths)
    check_dense("lengths", lengths)
    if is_bool(lengths) or not dtype_name(lengths).startswith(("int", "uint")):
        raise TypeError(f"lengths must be integers, got {dtype_name(lengths)}")
    if lengths.ndim != 1:
        raise ValueError(f"lengths must be (B,), got {tuple(lengths.shape)}")
    if not is_traced():
        check_readable("lengths", lengths)
    # In their own dtype they might be no match for Tk (uint8), or for `<` at all (uint16).
    # A uint64 beyond int64 becomes negative, which is refused too.
    counts = cast(xp, lengths, xp.int64)
    if not holds((counts >= 0) & (counts <= Tk), "lengths must lie in 0 to Tk"):
        raise ValueError(f"lengths must lie in 0 to Tk = {Tk}, got {lengths.tolist()}")
    return counts


def batch_lengths(q: Array, k: Array, lengths: Array) -> list[int] | Array:
    """Return how many keys of each sequence are real; in a recording a tensor stays one."""
    if q.ndim != 4:
        raise ValueError(
            f"lengths needs a batch, q (B, H, Tq, D), got {_shapes(q=q)}; use mask= otherwise"
        )
    if isinstance(lengths, (list, tuple)):  # without NumPy, so that torch.compile can follow
        counts: Any = [check_integer("a length", n) for n in lengths]
        if any(not 0 <= n <= k.shape[2] for n in counts):
            raise ValueError(f"lengths must lie in 0 to Tk = {k.shape[2]}, got {counts}")
    else:
        found = check_lengths(lengths, k.shape[2])
        counts = found if is_traced() else found.tolist()
    B, given = q.shape[0], counts.shape[0] if is_tensor(counts) else len(counts)
    if given != B:
        raise ValueError(f"lengths must hold one number per sequence, {B}, got {given}")
    return counts


def check_cu_seqlens(
    name: str, given: Any, of: str = "tokens", T: int | None = None
) -> list[int] | Array:
    """Return where documents begin and end, `(N + 1,)`; in a recording a tensor stays one."""
    if isinstance(given, (list, tuple)):  # without NumPy, so that torch.compile can follow
        ends: Any = [check_integer(f"a number of {name}", n) for n in given]
    else:
        namespace(**{name: given})
        if not (isinstance(given, np.ndarray) or is_tensor(given)):
            raise TypeError(f"{name} must be a list or an array, got {type(given).__name__}")
        check_dense(name, given)
        if is_bool(given) or not dtype_name(given).startswith(("int", "uint")):
            raise TypeError(f"{name} must be integers, got {dtype_name(given)}")
        if given.ndim != 1:
            raise ValueError(f"{name} must be (N + 1,) for N documents, got {shape_of(given)}")
        if is_traced() and is_tensor(given) and T is not None:
            ends = given.long()
            sound = (ends[0] == 0) & (ends[-1] == T) & (ends[1:] >= ends[:-1]).all()
            holds(sound, f"{name} must begin with 0, never fall, and end with the number of {of}")
            return ends
        check_readable(name, given)
        ends = given.tolist()
    if len(ends) == 0 or ends[0] != 0:
        raise ValueError(f"{name} must begin with 0, the first token, got {ends[:1]}")
    for before, end in pairwise(ends):
        if end < before:
            raise ValueError(f"{name} must not fall, got {end} after {before}")
    if T is not None and ends[-1] != T:
        raise ValueError(f"{name} must end with the number of {of}, {T}, got {ends[-1]}")
    return ends


def check_documents(queries: list[int] | Array, keys: list[int] | Array) -> None:
    """Raise unless there are as many documents of queries as of keys."""
    if len(queries) != len(keys):
        raise ValueError(
            f"cu_seqlens tells of {len(queries) - 1} documents, cu_seqlens_k of {len(keys) - 1}: "
            "a document without tokens begins and ends at the same number"
        )
