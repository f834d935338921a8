"""Positions as numbers added to the scores; re-exported by attncore.positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    as_floats,
    cast,
    check_dense,
    dtype_name,
    is_float,
    is_tensor,
    library_of,
    namespace,
    positions,
    read_array,
    shape_of,
    wide,
)
from attncore.base.integers import check_least, check_product
from attncore.base.settings import check_flag

# A uint64 can be too large for int64, and would come out negative.
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")


def distances(Tq: int, Tk: int | None = None, *, like: Array | None = None) -> Array:
    r"""Return how many tokens back each key lies from each query; negative = in the future.

    .. math:: d_{ij} = p_i - j, \qquad p_i = T_k - T_q + i

    Parameters
    ----------
    Tq, Tk
        Number of queries and of keys; `Tk` is `Tq` unless given.
    like
        An array of the wanted library and device; NumPy without it.

    Returns
    -------
    Array
        Integers `(Tq, Tk)`. A bias that depends on the distance alone is a table indexed by
        them: ``table[:, distances]`` is `(H, Tq, Tk)`.

    Raises
    ------
    ValueError
        If a length is negative.
    TypeError
        If a length is not an integer, or `like` is not an array.

    References
    ----------
    Shaw et al. (2018), section 3.2, with the opposite sign.

    Examples
    --------
    >>> distances(2, 5)
    array([[ 3,  2,  1,  0, -1],
           [ 4,  3,  2,  1,  0]])
    """
    queries, keys = positions(Tq, Tk, like)
    return queries - keys


def alibi(H: int, Tq: int, Tk: int | None = None, *, like: Array | None = None) -> Array:
    r"""Return a bias that falls in a straight line with distance, steeper in some heads.

    .. math:: b_{hij} = -m_h \, |p_i - j|, \qquad m_h = 2^{-8h/H}, \quad h = 1 \dots H

    If H is no power of 2, the heads beyond the largest one below it, N, take every other slope
    of 2N heads, as the authors' program does.

    Parameters
    ----------
    H
        Number of heads.
    Tq, Tk
        As in :func:`distances`.
    like
        An array of the wanted library and device; NumPy without it. Its dtype is taken if it
        is floating point, 32 bits at least: in 16 bits large distances would be rounded.

    Returns
    -------
    Array
        `(H, Tq, Tk)`, at most 0, to be given to :func:`attncore.attention` as ``bias=``. Keys
        in the future are held back like those of the past; the paper always hides them.

    Raises
    ------
    ValueError
        If H is below 1 or a length negative.
    TypeError
        If one of them is not an integer, or `like` is not an array.

    References
    ----------
    Press et al. (2022), section 3.

    Examples
    --------
    >>> alibi(2, 1, 4)
    array([[[-0.1875    , -0.125     , -0.0625    ,  0.        ]],
    <BLANKLINE>
           [[-0.01171875, -0.0078125 , -0.00390625,  0.        ]]])
    """
    H = check_least("H", H, 1)
    xp, options = library_of(like)
    away = abs(distances(Tq, Tk, like=like))
    check_product(H=H, Tq=away.shape[0], Tk=away.shape[1])
    N = 1 << (H.bit_length() - 1)
    slopes = [2 ** (-8 * h / N) for h in range(1, N + 1)]
    slopes += [2 ** (-8 * h / (2 * N)) for h in range(1, 2 * (H - N), 2)]
    options["dtype"] = wide(xp, like).dtype if like is not None and is_float(like) else None
    column = xp.asarray(slopes, **options)[:, None, None]
    return 0.0 - column * cast(xp, away, column.dtype)  # 0 - x, so that 0 is not -0


def t5_bucket(
    distance: Array, *, buckets: int = 32, max_distance: int = 128, causal: bool = False
) -> Array:
    r"""Sort distances into buckets: small ones each alone, large ones in ever wider ranges.

    .. math:: \operatorname{bucket}(d) = \min\!\left(n - 1,\; m + \left\lfloor (n - m)
        \frac{\log(d / m)}{\log(d_{\max} / m)} \right\rfloor\right) \text{ for } d \ge m,
        \text{ else } d

    n is the number of buckets for one direction, and m = n / 2, rounded down. A learned table
    `(H, buckets)` makes a bias of them: ``table[:, t5_bucket(distances(Tq, Tk))]``.

    Parameters
    ----------
    distance
        Integers of any shape, such as :func:`distances`; positive = the key lies in the past.
        (T5's own code has the opposite sign.)
    buckets
        Number of buckets, at least 2 in each direction.
    max_distance
        From here on all distances share the last bucket. More than m.
    causal
        True: all buckets are for the past; the future counts as distance 0, and should be
        hidden. False: half of them, which must be a whole number, are for the future.

    Returns
    -------
    Array
        Integers of the shape, library and device of `distance`, from 0 to ``buckets - 1``.

    Raises
    ------
    ValueError
        If there are too few buckets, or an odd number for two directions, or `max_distance`
        is too small.
    TypeError
        If one of these, or a distance, is not an integer.

    References
    ----------
    Raffel et al. (2020), section 2.1; the formula is in the authors' program only.

    Examples
    --------
    >>> t5_bucket([0, 7, 15, 16, 20, 127, 10**6, -1], causal=True)
    array([ 0,  7, 15, 16, 17, 31, 31,  0])
    >>> t5_bucket([1, 20, -1, -20])
    array([ 1, 10, 17, 26])
    """
    causal = check_flag("causal", causal)
    buckets = check_least("buckets", buckets, 2 if causal else 4)
    if buckets % 2 and not causal:
        raise ValueError(f"buckets must be even, half for each direction, got {buckets}")
    n = buckets if causal else buckets // 2
    m = n // 2
    max_distance = check_least("max_distance", max_distance, m + 1)
    if max_distance >= 2**63:
        raise ValueError(f"max_distance must be below 2**63, as distances are, got {max_distance}")
    xp: Any = namespace(distance=distance)
    bare = not hasattr(distance, "dtype")
    distance = read_array(xp, "distance", distance)
    if bare and 0 in distance.shape:  # [] would be floats
        distance = distance.astype(np.int64)
    check_dense("distance", distance)
    if dtype_name(distance) not in INTEGERS:
        raise TypeError(f"distances must be integers below 2**63, got {dtype_name(distance)}")
    distance = xp.clip(cast(xp, distance, xp.int64), -max_distance, max_distance)
    # Where each bucket but the first begins. In whole numbers, for a logarithm can fall on
    # either side of a bound that is met exactly, as at 16 for 32 buckets in two directions.
    starts = list(range(1, m + 1))
    for step in range(1, n - m):
        d = max(starts[-1], int(m * (max_distance / m) ** (step / (n - m))) - 1)
        while d ** (n - m) < m ** (n - m - step) * max_distance**step:
            d += 1
        starts.append(d)
    where = {"device": distance.device} if is_tensor(distance) else {}
    edges = xp.asarray(starts, **where)
    past = xp.where(distance > 0, distance, 0) if causal else abs(distance)
    bucket = xp.searchsorted(edges, past, side="right")
    return bucket if causal else bucket + xp.where(distance < 0, n, 0)


def skew(by_distance: Array) -> Array:
    r"""Turn scores for each distance into scores for each key, without a loop or an index.

    .. math:: S_{ij} = Z_{i,\,j + T_q - 1 - i}, \qquad \text{column } n \text{ of } Z
                \text{ is for distance } T_k - 1 - n

    Row i has to move left by Tq - 1 - i. One more column, the same numbers read in rows of Tq,
    and the first of these dropped: then each row has moved by one less than the row above.

    Parameters
    ----------
    by_distance
        Z, `(..., Tq, N)` with N = Tq + Tk - 1: from distance Tk - 1 down to 1 - Tq.

    Returns
    -------
    Array
        S, `(..., Tq, Tk)` of the same library, dtype and device.

    Raises
    ------
    ValueError
        If there are no queries, or fewer columns than queries.
    TypeError
        If the scores are not real numbers.

    References
    ----------
    Dai et al. (2019), appendix B.

    Examples
    --------
    >>> skew(np.array([[2, 1, 0, -1], [2, 1, 0, -1]]))           # each column its distance
    array([[ 1.,  0., -1.],
           [ 2.,  1.,  0.]])
    """
    xp, Z = as_floats(by_distance=by_distance)
    if Z.ndim < 2 or not 1 <= Z.shape[-2] <= Z.shape[-1]:
        raise ValueError(
            f"by_distance must be (..., Tq, Tq + Tk - 1), with a query and a key at least, "
            f"got {shape_of(Z)}"
        )
    *lead, Tq, N = shape_of(Z)
    wider = xp.concatenate([xp.zeros_like(Z[..., :1]), Z], -1).reshape(*lead, N + 1, Tq)
    return wider[..., 1:, :].reshape(*lead, Tq, N)[..., : N - Tq + 1]


def xl_bias(
    q: Array,
    k: Array,
    r: Array,
    content_bias: Array,
    position_bias: Array,
) -> Array:
    r"""Transformer-XL's three further terms of the score, as a bias.

    .. math:: b_{ij} = \frac{q_i \cdot r_{p_i - j} + u \cdot k_j + v \cdot r_{p_i - j}}
        {\sqrt{D}}

    The first lets a query ask for a distance, the second favours some keys whoever asks, the
    third some distances whoever asks.

    Parameters
    ----------
    q, k
        `(..., H, Tq, D)` and `(..., H, Tk, D)`; keys that heads share must be repeated.
    r
        `(N, D)` or `(H, N, D)`, with N = Tq + Tk - 1: one row for each distance that occurs,
        from Tk - 1, the oldest key seen from the last query, down to 1 - Tq. In the paper a
        learned map of ``sinusoidal(arange(Tk - 1, -Tq, -1), d)``.
    content_bias, position_bias
        u and v of the paper, `(D,)` or `(H, D)`.

    Returns
    -------
    Array
        `(..., H, Tq, Tk)`, 32 bits at least, to be given to :func:`attncore.attention` as
        ``bias=``; its scale is that of attention's scores.

    Raises
    ------
    ValueError
        If shapes or devices do not fit.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Dai et al. (2019), section 3.3 and, for the shift, appendix B.

    Examples
    --------
    >>> from attncore.positions import sinusoidal
    >>> q = k = np.zeros((3, 4))
    >>> r = sinusoidal(np.arange(2, -3, -1), 4)
    >>> xl_bias(q, k, r, np.zeros(4), np.array([0.0, 2.0, 0.0, 0.0])).round(2)
    array([[ 1.  ,  0.54, -0.42],
           [ 0.54,  1.  ,  0.54],
           [-0.42,  0.54,  1.  ]])
    """
    xp, q, k, r, u, v = as_floats(
        q=q, k=k, r=r, content_bias=content_bias, position_bias=position_bias
    )
    *heads, Tq, D = shape_of(q) if q.ndim > 1 else (0, 0)
    *others, Tk, width = shape_of(k) if k.ndim > 1 else (0, 0)
    if heads != others or width != D or 0 in (Tq, Tk, D):
        raise ValueError(
            f"q and k must be (..., H, T, D), alike but for T, none of it 0: "
            f"q {shape_of(q)}, k {shape_of(k)}; repeat keys that heads share"
        )
    if not _is_one_of(shape_of(r), (Tq + Tk - 1, D), (*heads[-1:], Tq + Tk - 1, D)):
        raise ValueError(
            f"r must have a row for each distance from Tk - 1 to 1 - Tq, "
            f"(H, {Tq + Tk - 1}, {D}) or without H, got {shape_of(r)}"
        )
    for name, row in (("content_bias", u), ("position_bias", v)):
        if not _is_one_of(shape_of(row), (D,), (*heads[-1:], D)):
            raise ValueError(f"{name} must be (D,) = ({D},) or (H, D), got {shape_of(row)}")
    q, k, r, u, v = (wide(xp, array) for array in (q, k, r, u, v))
    u, v = u.reshape(*u.shape[:-1], 1, D), v.reshape(*v.shape[:-1], 1, D)
    return (skew((q + v) @ r.mT) + u @ k.mT) / math.sqrt(D)


def _is_one_of(shape: tuple[int, ...], *wanted: tuple[int, ...]) -> bool:
    """Tell whether a shape is among those wanted; torch.compile misreads `in` with symbols."""
    return any(shape == other for other in wanted)
