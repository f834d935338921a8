"""Streaming attention: exact, one block of keys at a time, never all the weights."""

from __future__ import annotations

import math
from typing import Any

from attncore import masks
from attncore.base.arrays import Array, cast, wide
from attncore.base.integers import check_sizes
from attncore.base.tracing import varies
from attncore.core.blocks import spans
from attncore.core.call import Call, checked
from attncore.core.fused import fused
from attncore.core.reference import fold, mix


def streaming_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | Array | None = None,
    block: int = 128,
) -> Array:
    r"""Attention that reads keys and values once, in blocks, and forgets each block.

    For every query three things are carried along: the largest score so far m, the sum of
    the weights so far l, and the weighted sum of the values so far o. A block with scores s
    and values V changes them to

    .. math:: m' = \max(m, \max s), \quad l' = e^{m - m'} l + \textstyle\sum e^{s - m'}, \quad
        o' = e^{m - m'} o + e^{s - m'} V

    and after the last block o / l is attention: exact, not an approximation. Queries go in
    blocks too, so the scores in memory are `(..., H, block, block)`, whatever the lengths
    are, unless gradients are recorded.

    Parameters
    ----------
    q, k, v, causal, window, scale
        As in :func:`attention`.
    block
        How many queries, and how many keys, at a time. Exported or compiled with a length
        left open, it is not used: the fused kernel is, which has blocks of its own.

    Returns
    -------
    Array
        `(..., H, Tq, E)`, what :func:`attention` returns, up to rounding.

    Raises
    ------
    ValueError, TypeError
        As :func:`attention`, and if `block` is not an integer of 1 or more.

    References
    ----------
    Milakov and Gimelshein (2018), algorithm 3 (the running sum); Rabe and Staats (2021) (with
    the values, in blocks); Dao et al. (2022), algorithm 1 (in tiles on a GPU).

    Examples
    --------
    >>> import numpy as np
    >>> import attncore as ac
    >>> q, k, v = np.random.default_rng(0).normal(size=(3, 5, 4))
    >>> np.allclose(streaming_attention(q, k, v, block=2), ac.attention(q, k, v))
    True
    """
    check_sizes(block=block)
    call = checked(q, k, v, causal=causal, window=window, scale=scale)
    if varies(call.q.shape[-2], call.k.shape[-2]):  # how many blocks there are would be settled
        return fused(call)
    xp, causal, window = call.xp, call.causal, call.window
    q, k, v = (wide(xp, array) for array in (call.q, call.k, call.v))
    q = q * call.scale
    outs = []
    for rows, keys in spans(q.shape[-2], k.shape[-2], block, causal=causal, window=window):
        n, length = rows.stop - rows.start, keys.stop - keys.start
        band = None
        if call.limited:
            band = masks.causal(n, length, window=window, like=q)
        outs.append(_stream(xp, q[..., rows, :], k[..., keys, :], v[..., keys, :], band, block))
    out = xp.concatenate(outs, axis=-2) if outs else call.nothing()
    return cast(xp, out, call.q.dtype)


def _stream(xp: Any, q: Array, k: Array, v: Array, band: Array | None, block: int) -> Array:
    """Return attention of a few scaled queries to all keys, `band` `(Tq, Tk)` allowing."""
    largest = xp.full_like(q[..., :1], -math.inf)  # m
    total = xp.zeros_like(largest)  # l
    out = Call(q, k, v).nothing()  # o
    for start in range(0, k.shape[-2], block):
        part = slice(start, start + block)
        scores = fold(q, k) @ k[..., part, :].mT
        scores = scores.reshape(*q.shape[:-1], scores.shape[-1])
        if band is not None:
            scores = xp.where(band[:, part], scores, -math.inf)
        new = xp.maximum(largest, xp.amax(scores, axis=-1, keepdims=True))
        base = xp.where(new == -math.inf, 0.0, new)  # nothing seen yet: no inf - inf
        faded, shares = xp.exp(largest - base), xp.exp(scores - base)
        total = faded * total + shares.sum(axis=-1, keepdims=True)
        out = faded * out + mix(shares, v[..., part, :])
        largest = new
    return out / xp.where(total == 0, 1.0, total)
