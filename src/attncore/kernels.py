"""Kernels: functions K from a distance, measured in bandwidths, to a weight at least 0.

Except for `inverse_distance`, each is scaled to enclose the area 1, as in the statistics
literature; in a weighted average that constant cancels. The weight of NaN is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attncore.base.arrays import Array, as_floats


def gaussian(u: Array) -> Array:
    r"""Bell curve: every distance has some weight.

    .. math:: K(u) = e^{-u^2/2} / \sqrt{2\pi}

    `u`: distances over bandwidth, any shape, NumPy or torch. Returns the same shape.
    TypeError if `u` is not numeric.

    References
    ----------
    Silverman (1986), table 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian(np.array([0.0, 1.0, 2.0])).round(3)
    array([0.399, 0.242, 0.054])
    """
    xp, u = as_floats(u=u)
    return xp.exp(-u * u / 2) / math.sqrt(2 * math.pi)


def boxcar(u: Array) -> Array:
    r"""Equal weight within one bandwidth, none beyond.

    .. math:: K(u) = \tfrac12 [\,|u| \le 1\,]

    `u`: distances over bandwidth, any shape, NumPy or torch. Returns the same shape.
    TypeError if `u` is not numeric.

    References
    ----------
    Silverman (1986), table 3.1, "rectangular".

    Examples
    --------
    >>> import numpy as np
    >>> boxcar(np.array([0.0, 1.0, 1.1]))
    array([0.5, 0.5, 0. ])
    """
    xp, u = as_floats(u=u)
    return xp.where(xp.isnan(u), u, xp.where(abs(u) <= 1, xp.ones_like(u) / 2, 0.0))


def epanechnikov(u: Array) -> Array:
    r"""A parabola, cut off at one bandwidth.

    .. math:: K(u) = \tfrac34 \max(0, 1 - u^2)

    Some texts give ``max(0, 1 - |u|)`` under this name; that is :func:`triangular`.

    `u`: distances over bandwidth, any shape, NumPy or torch. Returns the same shape.
    TypeError if `u` is not numeric.

    References
    ----------
    Epanechnikov (1969); Silverman (1986), table 3.1, where u has another unit.

    Examples
    --------
    >>> import numpy as np
    >>> epanechnikov(np.array([0.0, 0.5, 1.0]))
    array([0.75  , 0.5625, 0.    ])
    """
    xp, u = as_floats(u=u)
    return xp.where(abs(u) >= 1, 0.0, 0.75 * (1 - u * u))


def triangular(u: Array) -> Array:
    r"""A straight slope down to one bandwidth.

    .. math:: K(u) = \max(0, 1 - |u|)

    `u`: distances over bandwidth, any shape, NumPy or torch. Returns the same shape.
    TypeError if `u` is not numeric.

    References
    ----------
    Silverman (1986), table 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> triangular(np.array([0.0, 0.5, 1.0]))
    array([1. , 0.5, 0. ])
    """
    xp, u = as_floats(u=u)
    return xp.where(abs(u) >= 1, 0.0, 1 - abs(u))


def inverse_distance(u: Array) -> Array:
    r"""One over the distance: infinite at 0, so an exact match takes all the weight.

    .. math:: K(u) = 1 / |u|

    `u`: distances over bandwidth, any shape, NumPy or torch. Returns the same shape.
    TypeError if `u` is not numeric.

    References
    ----------
    Shepard (1968), with power 1.

    Examples
    --------
    >>> import numpy as np
    >>> inverse_distance(np.array([0.0, 0.5, 2.0]))
    array([inf, 2. , 0.5])
    """
    xp, u = as_floats(u=u)
    at_zero = abs(u) < 1 / xp.finfo(u.dtype).max  # one over less would overflow
    return xp.where(at_zero, math.inf, 1 / xp.where(at_zero, 1.0, abs(u)))


KERNELS: dict[str, Callable[[Array], Array]] = {
    kernel.__name__: kernel
    for kernel in (gaussian, boxcar, epanechnikov, triangular, inverse_distance)
}
