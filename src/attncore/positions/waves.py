"""Positions as rows to be added; re-exported by attncore.positions."""

from __future__ import annotations

import math

import numpy as np

from attncore.base.arrays import Array, as_floats, cast
from attncore.base.integers import check_integer, check_length, check_product
from attncore.positions.rotary import angles_of, exact
from attncore.positions.speeds import check_waves


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
    base = check_waves(check_integer("D", D), base)
    if isinstance(positions, (int, float, np.number)):  # 3.0 would be one place, 3 is three
        T = check_length("T", positions)
        check_product(T=T)
        positions = np.arange(T)
    xp, floats = as_floats(positions=positions)
    check_product(positions=math.prod(floats.shape), D=D)
    angles = angles_of(xp, exact(xp, positions, floats), D, base)
    waves = xp.stack([xp.sin(angles), xp.cos(angles)], -1)
    return cast(xp, waves.reshape(*floats.shape, D), floats.dtype)
