"""Ways to tell attention where tokens stand: added to rows or to scores, or by turning.

Attention compares contents only. A position can be added to the rows that enter a layer
(:func:`sinusoidal`), put into queries and keys by turning them (:func:`rope`), or become a
number added to the scores, ``bias=`` (:func:`alibi`, :func:`t5_bucket`, :func:`xl_bias`).
Query i stands at position `Tk - Tq + i` and key j at j, as in :mod:`attncore.masks`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import (
    LOW_PRECISION,
    Array,
    as_floats,
    broadcasts_to,
    cast,
    check_device,
    dtype_name,
    is_tensor,
    namespace,
    read_array,
    shape_of,
    wide,
    widest,
)
from attncore.base.integers import check_integer, check_length, check_product
from attncore.base.settings import check_choice, check_positive
from attncore.positions.relative import alibi, distances, skew, t5_bucket, xl_bias

__all__ = ["alibi", "distances", "rope", "sinusoidal", "skew", "t5_bucket", "xl_bias"]

PAIRINGS = ("half", "interleaved")


def sinusoidal(positions: Array, D: int, *, base: float = 10000.0) -> Array:
    r"""Waves of many lengths, to be added to the rows of a sequence.

    .. math:: P_{t,2i} = \sin(t \omega_i), \qquad P_{t,2i+1} = \cos(t \omega_i), \qquad
        \omega_i = \text{base}^{-2i/D}

    Parameters
    ----------
    positions
        T for the positions 0 to T - 1, or an array `(...)` of positions.
    D
        The width, even: D / 2 waves, each as a sine and a cosine.
    base
        The longest wave takes 2 pi base^(1 - 2/D) tokens.

    Returns
    -------
    Array
        `(T, D)`, or `(..., D)` of the library, dtype and device of `positions` (integers
        become floats).

    Raises
    ------
    ValueError
        If T is negative, D not even and positive, or `base` not positive and finite.
    TypeError
        If T or D is not an integer, or the positions are not real numbers or have 16 bits,
        which do not hold every position above 256 (bfloat16) or 2,048 (float16).

    References
    ----------
    Vaswani et al. (2017), section 3.5.

    Examples
    --------
    >>> sinusoidal(3, 4).round(2)
    array([[ 0.  ,  1.  ,  0.  ,  1.  ],
           [ 0.84,  0.54,  0.01,  1.  ],
           [ 0.91, -0.42,  0.02,  1.  ]])
    """
    base = _check_waves(check_integer("D", D), base)
    if isinstance(positions, (int, float, np.number)):  # 3.0 would be one place, 3 is three
        T = check_length("T", positions)
        check_product(T=T)
        positions = np.arange(T)
    xp, floats = as_floats(positions=positions)
    check_product(positions=math.prod(floats.shape), D=D)
    angles = _angles(xp, _exact(xp, positions, floats), D, base)
    waves = xp.stack([xp.sin(angles), xp.cos(angles)], -1)
    return cast(xp, waves.reshape(*floats.shape, D), floats.dtype)


def rope(x: Array, positions: Array, *, base: float = 10000.0, pairing: str = "half") -> Array:
    r"""Turn each pair (a, b) of features of a query or key by an angle, position times speed.

    .. math:: (a, b) \mapsto (a \cos t\omega_i - b \sin t\omega_i,\;
        a \sin t\omega_i + b \cos t\omega_i), \qquad \omega_i = \text{base}^{-2i/D}

    The dot product of a turned query and a turned key depends on the two vectors and the
    difference of their positions. Turn keys before they enter a cache; do not turn values.

    Parameters
    ----------
    x
        Queries or keys `(..., T, D)`, D even.
    positions
        `(T,)`, or with an axis for each of `(..., T)`, such as `(B, 1, T)`: integers, or floats
        of 32 bits at least. With a cache the first new token stands at ``cache.length``.
    base
        The slowest pair takes 2 pi base^(1 - 2/D) tokens for a turn.
    pairing
        "half": features i and D / 2 + i (GPT-NeoX, Hugging Face's Llama). "interleaved":
        2i and 2i + 1 (the paper, GPT-J, Meta's Llama). One is the other with the features in
        another order, so weights made for one run with the other, and come out wrong.

    Returns
    -------
    Array
        Shape, library, dtype and device of `x` (integers become floats).

    Raises
    ------
    ValueError
        If D is odd, the positions do not fit, or `base` or `pairing` is none of the above.
    TypeError
        If libraries are mixed, or the positions are not real numbers or have 16 bits, which
        do not hold every position above 256 (bfloat16) or 2,048 (float16).

    References
    ----------
    Su et al. (2024), section 3.2.

    Examples
    --------
    >>> q, k = np.array([[1.0, 0.0]]), np.array([[0.5, 2.0]])
    >>> for i, j in ((5, 3), (105, 103)):
    ...     print((rope(q, [i]) @ rope(k, [j]).T).round(4))
    [[1.6105]]
    [[1.6105]]
    """
    namespace(x=x, positions=positions)
    xp, x = as_floats(x=x)
    if x.ndim < 2:
        raise ValueError(f"x must be (..., T, D), got {shape_of(x)}; add an axis with a[None]")
    base = check_rope(x.shape[-1], base, pairing)
    positions = _exact(xp, positions, x)
    *lead, T, D = shape_of(x)
    # (B, T) might broadcast to (H, T), and one position to many tokens: neither is meant.
    fits = positions.ndim in (1, x.ndim - 1) and positions.shape[-1] == T
    if not (fits and broadcasts_to(positions.shape, (*lead, T))):
        raise ValueError(
            f"positions must be (T,) = ({T},), or have an axis for each of (..., T) = "
            f"{(*lead, T)}, such as (B, 1, T): got {shape_of(positions)}"
        )
    angles = _angles(xp, positions, D, base)
    pairs = wide(xp, x)
    cos, sin = cast(xp, xp.cos(angles), pairs.dtype), cast(xp, xp.sin(angles), pairs.dtype)
    if pairing == "half":
        a, b = pairs[..., : D // 2], pairs[..., D // 2 :]
        turned = xp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    else:
        a, b = pairs[..., 0::2], pairs[..., 1::2]
        turned = xp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape)
    return cast(xp, turned, x.dtype)


def check_rope(D: int, base: float, pairing: str) -> float:
    """Return `base` as a float; raise unless features of width D can be turned."""
    check_choice("pairing", pairing, PAIRINGS)
    return _check_waves(D, base)


def _check_waves(D: int, base: float) -> float:
    if D < 1 or D % 2:
        raise ValueError(f"D must be even and positive, got {D}")
    return check_positive("base", base)


def _exact(xp: Any, positions: Array, like: Array) -> Array:
    """Return positions as float64; in 32 bits, angles near 100,000 are off by up to 0.007."""
    as_floats(positions=positions)  # refuses what holds no real numbers
    if hasattr(positions, "dtype") and dtype_name(positions) in LOW_PRECISION:
        raise TypeError(
            f"positions must be integers or floats of 32 bits at least, got "
            f"{dtype_name(positions)}, in which large ones were rounded: give integers"
        )
    if not is_tensor(like):
        return np.asarray(positions, dtype=np.float64)
    if is_tensor(positions):
        check_device(positions=positions, x=like)
    positions = read_array(xp, "positions", positions)
    return xp.as_tensor(positions, dtype=widest(xp, like), device=like.device)


def _angles(xp: Any, positions: Array, D: int, base: float) -> Array:
    """Return position times speed, `(..., D / 2)`."""
    where = {"device": positions.device} if is_tensor(positions) else {}
    speeds = base ** (-xp.arange(0, D, 2, dtype=positions.dtype, **where) / D)
    return positions[..., None] * speeds
