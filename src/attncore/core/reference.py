"""Attention by the formula as written, for NumPy and torch alike; whole or in blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import (
    LOW_PRECISION,
    Array,
    cast,
    dtype_name,
    is_float,
    wide,
    widest,
)
from attncore.core.blocks import spans
from attncore.core.call import Call
from attncore.core.softmax import weigh

SCORES_AT_ONCE = 2**21  # 16 MB of float64: about what a processor's cache holds


def weights(call: Call) -> Array:
    """Return the weights `(..., H, Tq, Tk)`, in float32 for 16-bit input."""
    xp, allowed = call.xp, call.allowed()
    q, k = wide(xp, call.q), wide(xp, call.k)
    # Query heads that share a key head become further rows of one product, so that the
    # keys are never repeated: (..., H, Tq, D) -> (..., G, r Tq, D).
    scores = (fold(q, k) * call.scale) @ k.mT
    scores = scores.reshape(*q.shape[:-1], k.shape[-2])
    if call.bias is not None:
        scores = scores + level(xp, call.bias, allowed, scores.dtype)
    return weigh(xp, scores, allowed, scores.dtype)


def level(xp: Any, bias: Array, allowed: Array | None, dtype: Any) -> Array:
    """Return a bias less the largest number in each row, and minus infinity where not allowed.

    Weights do not change, and the scores keep their digits: in 32 bits -1e9 + 3 is -1e9.
    """
    if not is_float(bias):
        bias = cast(xp, bias, widest(xp, bias))
    bias = cast(xp, bias, xp.promote_types(bias.dtype, dtype))
    if allowed is not None:
        bias = xp.where(allowed, bias, -math.inf)
    if bias.ndim == 0 or bias.shape[-1] == 0:
        return cast(xp, bias, dtype)
    largest = xp.amax(bias if xp is np else bias.detach(), axis=-1, keepdims=True)
    taken = xp.isfinite(largest)
    if dtype_name(bias) in LOW_PRECISION:
        # 16 bits hold the difference of large numbers that are close, but not of small ones,
        # which do no harm to a score of 32 bits.
        taken = taken & (abs(largest) >= 2**13)
    largest = xp.where(taken, largest, 0.0)
    if xp is not np:
        return cast(xp, bias - largest, dtype)
    with np.errstate(over="ignore"):  # to minus infinity, which is a weight of 0
        return cast(xp, bias - largest, dtype)


def reference(call: Call) -> Array:
    """Return attention `(..., H, Tq, E)`, building all weights at once."""
    call, xp = call.settled(), call.xp
    return cast(xp, mix(weights(call), wide(xp, call.v)), call.q.dtype)


def why_not_blocked(call: Call) -> str:
    """Say why the formula cannot be taken block by block; '' if it can."""
    return "" if call.xp is np else "the arrays are of torch, which would keep all for the gradient"


def blocked(call: Call) -> Array:
    """Return what :func:`reference` does, for NumPy, with memory that grows as Tq + Tk."""
    call = call.settled()
    Tq, Tk = call.q.shape[-2], call.k.shape[-2]
    # Fewer than 32 rows make matrix products slow: measured, 1 row at a time is 4 times slower.
    rows_at_once = max(32, SCORES_AT_ONCE // max(1, math.prod(call.q.shape[:-2]) * Tk))
    if call.window is not None:
        rows_at_once = max(rows_at_once, min(call.window, Tq))
    if rows_at_once >= Tq:
        return reference(call)
    out = call.nothing()
    for rows, keys in spans(Tq, Tk, rows_at_once, causal=call.causal, window=call.window):
        out[..., rows, :] = reference(call.part(rows, keys))
    return out


def mix(weights: Array, v: Array) -> Array:
    """Weights `(..., H, Tq, Tk)` times values `(..., G, Tk, E)`."""
    return (fold(weights, v) @ v).reshape(*weights.shape[:-1], v.shape[-1])


def fold(rows: Array, shared: Array) -> Array:
    """View `(..., H, T, N)` as `(..., G, (H // G) T, N)`, to meet `shared` `(..., G, ., .)`."""
    if rows.ndim == 2:
        return rows
    *lead, heads, length, width = rows.shape
    groups = shared.shape[-3]
    return rows.reshape(*lead, groups, heads // max(groups, 1) * length, width)
