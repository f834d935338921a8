"""Attention by the formula as written, for NumPy and torch alike; whole or in blocks."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from attncore.base.arrays import (
    LOW_PRECISION,
    Array,
    cast,
    dtype_name,
    is_float,
    is_tensor,
    wide,
    widest,
)
from attncore.base.tracing import is_traced, varies
from attncore.core.blocks import joined, spans
from attncore.core.call import Call
from attncore.core.dropout import dropped
from attncore.core.softmax import weigh, weigh_and_sum

SCORES_AT_ONCE = 2**21  # 16 MB of float64: about what a processor's cache holds
LEAST_ROWS = 32  # fewer make matrix products slow: 1 row at a time was 4 times slower


def weights(call: Call) -> tuple[Array, Array | None]:
    """Return the weights `(..., H, Tq, Tk)` and, where it is needed, the log-sum-exp of each row.

    Both are in float32 for 16-bit input.
    """
    xp, allowed = call.xp, call.allowed()
    q, k = wide(xp, call.q), wide(xp, call.k)
    # Query heads that share a key head become further rows of one product, so that the
    # keys are never repeated: (..., H, Tq, D) -> (..., G, r Tq, D).
    scores = (fold(q, k) * call.scale) @ k.mT
    scores = scores.reshape(*q.shape[:-1], k.shape[-2])
    scores = capped(xp, scores, call.softcap)
    taken = None
    if call.bias is not None:
        bias, taken = levelled(xp, call.bias, allowed, scores.dtype)
        scores = scores + bias
    if not call.needs_lse:
        found, lse = weigh(xp, scores, allowed, scores.dtype), None
    else:
        found, lse = weigh_and_sum(xp, scores, allowed)
        lse = lse if taken is None else lse + taken
        if call.sinks is not None:
            found, lse = with_sinks(xp, found, lse, call.sinks)
    return dropped(xp, found, call.noise, call.dropout), lse


def capped(xp: Any, scores: Array, softcap: float | None) -> Array:
    """Return scores pressed into -softcap to softcap; small ones hardly change."""
    if softcap is None:
        return scores
    # In the dtype of the scores it must be neither 0 nor infinite, nor its quotients too small.
    info = xp.finfo(scores.dtype)
    softcap = min(max(softcap, float(info.tiny)), float(info.max) ** 0.5)
    if xp is not np:
        return xp.tanh(scores / softcap) * softcap
    with np.errstate(over="ignore"):  # to infinity, whose tanh is 1
        return np.tanh(scores / softcap) * softcap


def with_sinks(xp: Any, out: Array, lse: Array, sinks: Array) -> tuple[Array, Array]:
    """Return rows `(..., H, Tq, N)`, and their log-sum-exp, with one more key in each sum.

    It has the logit of its head's sink, and no value: e^lse / (e^lse + e^sink) of the row stays.
    """
    none = lse == -math.inf
    lse = xp.where(none, 0.0, lse)  # not inf - inf
    if xp is np:
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(sinks - lse))
    else:
        share = xp.sigmoid(lse - sinks)
    both = xp.where(none, sinks, xp.logaddexp(lse, sinks))
    return cast(xp, out * share[..., None], out.dtype), both


def level(xp: Any, bias: Array, allowed: Array | None, dtype: Any) -> Array:
    """Return a bias less the largest number in each row, and minus infinity where not allowed.

    Weights do not change, and the scores keep their digits: in 32 bits -1e9 + 3 is -1e9.
    """
    return levelled(xp, bias, allowed, dtype)[0]


def levelled(
    xp: Any, bias: Array, allowed: Array | None, dtype: Any
) -> tuple[Array, Array | float]:
    """Return what :func:`level` does, and what it took off each row, `(..., H, Tq)`."""
    if not is_float(bias):
        bias = cast(xp, bias, widest(xp, bias))
    bias = cast(xp, bias, xp.promote_types(bias.dtype, dtype))
    if allowed is not None:
        bias = xp.where(allowed, bias, -math.inf)
    if bias.ndim == 0 or bias.shape[-1] == 0:
        return cast(xp, bias, dtype), 0.0
    largest = xp.amax(bias if xp is np else bias.detach(), axis=-1, keepdims=True)
    taken = xp.isfinite(largest)
    if dtype_name(bias) in LOW_PRECISION:
        # 16 bits hold the difference of large numbers that are close, but not of small ones,
        # which do no harm to a score of 32 bits.
        taken = taken & (abs(largest) >= 2**13)
    largest = xp.where(taken, largest, 0.0)
    off = cast(xp, largest[..., 0], dtype)
    if xp is not np:
        return cast(xp, bias - largest, dtype), off
    with np.errstate(over="ignore"):  # to minus infinity, which is a weight of 0
        return cast(xp, bias - largest, dtype), off


def reference(call: Call) -> tuple[Array, Array | None]:
    """Return attention `(..., H, Tq, E)`, and the log-sum-exp, building all weights at once."""
    call, xp = call.settled(), call.xp
    found, lse = weights(call)
    return cast(xp, mix(found, wide(xp, call.v)), call.q.dtype), lse


def why_not_blocked(call: Call) -> str:
    """Say why the formula cannot be taken block by block; '' if it can."""
    Tq, Tk, bias = call.q.shape[-2], call.k.shape[-2], call.bias
    if varies(Tq, Tk):
        return "how many blocks there are is not known yet"
    if bias is not None and learns(bias) and tuple(bias.shape[-2:]) == (Tq, Tk):
        return "the bias has a gradient, as large as all weights"
    return ""


def blocked(call: Call) -> tuple[Array, Array | None]:
    """Return what :func:`reference` does, with memory that grows as Tq + Tk."""
    call = call.settled()
    xp, Tq, Tk = call.xp, call.q.shape[-2], call.k.shape[-2]
    rows_at_once = max(LEAST_ROWS, SCORES_AT_ONCE // max(1, math.prod(call.q.shape[:-2]) * Tk))
    if call.window is not None:
        rows_at_once = max(rows_at_once, min(call.window, Tq))
    if rows_at_once >= Tq:
        return reference(call)
    given = (call.q, call.k, call.v, call.bias, call.scale, call.sinks)
    run = forgetful if learns(*given) else reference
    parts = [
        run(call.part(rows, keys))
        for rows, keys in spans(Tq, Tk, rows_at_once, causal=call.causal, window=call.window)
    ]
    return joined(xp, parts)


def learns(*arrays: Array | None) -> bool:
    """Tell whether a gradient is wanted for one of these."""
    tensors: list[Array] = [array for array in arrays if is_tensor(array)]
    wanted = any(array.requires_grad for array in tensors)
    return wanted and bool(sys.modules["torch"].is_grad_enabled())


def forgetful(call: Call) -> tuple[Array, Array | None]:
    """Return what :func:`reference` does; the weights are computed again for the gradient."""
    from torch.utils.checkpoint import checkpoint

    if not is_traced() and call.xp._C._are_functorch_transforms_active():
        return reference(call)  # torch.func cannot compute again
    # Nothing random happens in it: what is dropped follows from numbers in the call.
    return checkpoint(reference, call, use_reentrant=False, preserve_rng_state=False)


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
