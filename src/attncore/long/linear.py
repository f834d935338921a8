"""Linear attention: weights without exponentials of scores, so that sums replace (T, T)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from attncore.base.arrays import Array, as_floats, cast, shape_of, wide
from attncore.base.checks import check_queries_and_keys, check_values
from attncore.base.integers import check_sizes
from attncore.base.settings import check_flag
from attncore.base.tracing import varies
from attncore.core.call import Call
from attncore.core.reference import fold, mix


def linear_attention(
    q: Array, k: Array, v: Array, *, causal: bool = False, block: int = 64
) -> Array:
    r"""Average the values with weights in proportion to a dot product of positive features.

    .. math:: o_i = \frac{\phi(q_i) \sum_j \phi(k_j)^\top v_j}{\phi(q_i) \cdot \sum_j \phi(k_j)},
        \qquad \phi(x) = \operatorname{elu}(x) + 1 = \begin{cases} x + 1 & x > 0 \\
        e^x & x \le 0 \end{cases}

    The sums do not depend on the query (with `causal` they run up to i), so work and memory
    grow as T, not as T x T. It is *not* softmax attention computed in another way: the weights
    are others, and no scale turns them into those.

    Parameters
    ----------
    q
        Queries `(..., H, Tq, D)`.
    k, v
        Keys `(..., G, Tk, D)` and values `(..., G, Tk, E)`; heads are shared as in
        :func:`attention`.
    causal
        Hide the future; queries and keys must then be equally many.
    block
        How many tokens `causal` takes at a time: inside a block it builds the weights, between
        blocks it carries the two sums. Exported or compiled with T left open, it takes all at
        once, and so builds all weights.

    Returns
    -------
    Array
        `(..., H, Tq, E)` of the library, dtype and device of `q`; zeros if there are no keys.
        NaN for a query all of whose weights are below the smallest normal number of the dtype:
        the digits of their ratio are lost. Numbers that are very negative throughout a query,
        or throughout all keys, do no harm: a common factor is taken off first. So NaN needs
        features more than about 87 apart (float32; float64: 708) within one head.

    Raises
    ------
    ValueError
        If shapes or `block` do not fit.
    TypeError
        If libraries or dtypes are mixed, or `block` is not an integer.

    References
    ----------
    Katharopoulos et al. (2020), sections 3.2 and 3.3.

    Examples
    --------
    >>> import numpy as np
    >>> q, k = np.zeros((1, 2)), np.array([[0.0, 0.0], [2.0, 2.0]])
    >>> linear_attention(q, k, np.array([[0.0], [1.0]]))     # features 1 and 3: weights 1/4, 3/4
    array([[0.75]])
    """
    xp, q, k, v = as_floats(q=q, k=k, v=v)
    check_queries_and_keys(q, k)
    check_values(k, v)
    causal = check_flag("causal", causal)
    check_sizes(block=block)
    dtype, (q, k, v) = q.dtype, (wide(xp, array) for array in (q, k, v))
    Tq, Tk = q.shape[-2], k.shape[-2]
    if causal and Tq != Tk:
        raise ValueError(
            f"causal linear attention needs as many queries as keys: q {shape_of(q)}, "
            f"k {shape_of(k)}"
        )
    if Tq == 0 or Tk == 0:
        return cast(xp, Call(q, k, v).nothing(), dtype)
    q, k = _scaled_features(xp, q, axis=-1), _scaled_features(xp, k, axis=(-2, -1))
    if not causal:
        return cast(xp, _divide(xp, mix(q, k.mT @ v), mix(q, k.sum(axis=-2)[..., None])), dtype)
    outs = []
    sums = k[..., :0, :].mT @ v[..., :0, :]  # (..., G, D, E), of all blocks before
    totals = k[..., :0, :].sum(axis=-2)[..., None]  # (..., G, D, 1)
    starts: Iterable[int] = [0]
    if varies(Tq):  # how many blocks there are would be settled
        block = Tq
    else:
        starts = range(0, Tq, block)
    for start in starts:
        part = (..., slice(start, start + block), slice(None))
        queries, keys, values = q[part], k[part], v[part]
        scores = fold(queries, keys) @ keys.mT
        scores = xp.tril(scores.reshape(*queries.shape[:-1], keys.shape[-2]))
        total = scores.sum(axis=-1, keepdims=True) + mix(queries, totals)
        outs.append(_divide(xp, mix(scores, values) + mix(queries, sums), total))
        sums = sums + keys.mT @ values
        totals = totals + keys.sum(axis=-2)[..., None]
    return cast(xp, xp.concatenate(outs, axis=-2), dtype)


def features(xp: Any, x: Array, base: Any = 0.0) -> Array:
    """Return elu(x) + 1, over exp(base); the exponential of what is positive is never taken."""
    negative = xp.where(x > 0, 0.0, x)
    return xp.where(x > 0, x + 1, xp.exp(negative - base))


def _scaled_features(xp: Any, x: Array, axis: int | tuple[int, ...]) -> Array:
    """Return features whose largest along `axis` is 1 or more.

    The factor is that of a whole query, or of all keys of a head, so the division takes it
    away again. Where something is positive it is 1.
    """
    largest = xp.amax(x, axis, keepdims=True)
    return features(xp, x, xp.where(largest > 0, 0.0, largest))


def _divide(xp: Any, out: Array, total: Array) -> Array:
    """Return the averages, or NaN where the weights have underflowed: 0 would look real."""
    lost = total < xp.finfo(total.dtype).tiny
    return xp.where(lost, math.nan, out / xp.where(lost, 1.0, total))
