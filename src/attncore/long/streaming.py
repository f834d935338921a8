"""Streaming attention: exact, one block of keys at a time, never all the weights."""

from __future__ import annotations

import math
from typing import Any

from attncore import masks
from attncore.base.arrays import Array, cast, wide
from attncore.base.integers import check_sizes
from attncore.base.tracing import varies
from attncore.core.attention import routed
from attncore.core.blocks import joined, spans
from attncore.core.call import Call, checked
from attncore.core.dropout import dropped
from attncore.core.reference import capped, fold, mix, with_sinks


def streaming_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | Array | None = None,
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float | None = None,
    generator: Any = None,
    return_lse: bool = False,
    block: int = 128,
) -> Any:
    r"""Attention that reads keys and values once, in blocks, and forgets each block.

    For every query three things are carried along: the largest score so far m, the sum of
    the weights so far l, and the weighted sum of the values so far o. A block with scores s
    and values V changes them to

    .. math:: m' = \max(m, \max s), \quad l' = e^{m - m'} l + \textstyle\sum e^{s - m'}, \quad
        o' = e^{m - m'} o + e^{s - m'} V

    and after the last block o / l is attention: exact, not an approximation, and m + log l the
    log-sum-exp. Queries go in blocks too, so the scores in memory are `(..., H, block, block)`,
    whatever the lengths are, unless gradients are recorded.

    Parameters
    ----------
    q, k, v, causal, window, scale, softcap, sinks, dropout, generator, return_lse
        As in :func:`attention`.
    block
        How many queries, and how many keys, at a time. Exported or compiled with a length
        left open, it is not used: what :func:`attention` takes then is.

    Returns
    -------
    Array
        `(..., H, Tq, E)`, what :func:`attention` returns, up to rounding; with `return_lse`
        a pair, as there.

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
    call = checked(
        q, k, v, causal=causal, window=window, scale=scale,
        softcap=softcap, sinks=sinks, dropout=dropout, generator=generator, return_lse=return_lse,
    )  # fmt: skip
    Tq, Tk = call.q.shape[-2], call.k.shape[-2]
    if varies(Tq, Tk) or Tq == 0:  # how many blocks there are would be settled; or there is none
        out, lse = routed(call)
    else:
        out, lse = _by_blocks(call.drawn(), block)
    return (out, lse) if call.wants_lse else out


def _by_blocks(call: Call, block: int) -> tuple[Array, Array]:
    """Return attention and the log-sum-exp, a block of queries after the other."""
    xp, window, dtype = call.xp, call.window, call.q.dtype
    q, k, v = (wide(xp, array) for array in (call.q, call.k, call.v))
    call = call.but(q=q * call.scale, k=k, v=v)
    found = []
    for rows, keys in spans(q.shape[-2], k.shape[-2], block, causal=call.causal, window=window):
        band = None
        if call.limited:
            n, length = rows.stop - rows.start, keys.stop - keys.start
            band = masks.causal(n, length, window=window, like=q)
        found.append(_stream(call.part(rows, keys), band, block))
    out, lse = joined(xp, found)
    if call.sinks is not None:
        out, lse = with_sinks(xp, out, lse, call.sinks)
    return cast(xp, out, dtype), lse


def _stream(call: Call, band: Array | None, block: int) -> tuple[Array, Array]:
    """Return attention of a few scaled queries to all keys, `band` `(Tq, Tk)` allowing."""
    xp, q, k, v = call.xp, call.q, call.k, call.v
    largest = xp.full_like(q[..., :1], -math.inf)  # m
    total = xp.zeros_like(largest)  # l
    out = call.nothing()  # o
    for start in range(0, k.shape[-2], block):
        part = slice(start, start + block)
        scores = fold(q, k) @ k[..., part, :].mT
        scores = capped(xp, scores.reshape(*q.shape[:-1], scores.shape[-1]), call.softcap)
        if band is not None:
            scores = xp.where(band[:, part], scores, -math.inf)
        new = xp.maximum(largest, xp.amax(scores, axis=-1, keepdims=True))
        base = xp.where(new == -math.inf, 0.0, new)  # nothing seen yet: no inf - inf
        faded, shares = xp.exp(largest - base), xp.exp(scores - base)
        total = faded * total + shares.sum(axis=-1, keepdims=True)
        noise = call.noise and (call.noise[0], call.noise[1][part])
        out = faded * out + mix(dropped(xp, shares, noise, call.dropout), v[..., part, :])
        largest = new
    none = total == 0
    total = xp.where(none, 1.0, total)
    return out / total, xp.where(none, -math.inf, largest + xp.log(total))[..., 0]
