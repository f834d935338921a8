"""Softmax that does not overflow, with a mask and a temperature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import Array, as_floats, cast, check_mask, shape_of, wide
from attncore.base.integers import check_integer
from attncore.base.settings import check_positive


def softmax(
    scores: Array, mask: Array | None = None, *, temperature: float = 1.0, axis: int = -1
) -> Array:
    r"""Turn scores into weights that are at least 0 and sum to 1 along an axis.

    .. math:: p_j = \frac{e^{(s_j - m)/\tau}}{\sum_l e^{(s_l - m)/\tau}}, \qquad m = \max_l s_l

    Subtracting the largest score, before dividing, changes nothing and keeps every exponent
    at or below 0, so nothing overflows. Sums are taken in float32 for 16-bit input.

    Parameters
    ----------
    scores
        Real numbers of any shape, `(..., Tq, Tk)` in attention.
    mask
        Boolean, broadcast to `scores`; True = may attend. A masked score gets weight
        exactly 0, and so does a score of minus infinity. Where nothing is left the
        weights are all 0, and so is their gradient.
    temperature
        :math:`\tau > 0`. Small: the largest score takes all. Large: all alike.
    axis
        The axis that sums to 1.

    Returns
    -------
    Array
        Same library, shape, dtype and device as `scores` (integers become floats).

    Raises
    ------
    ValueError
        If the temperature is not positive and finite, the axis does not exist or the
        mask does not fit.
    TypeError
        If `scores` is not numeric, `mask` is not boolean, the temperature is no number or the
        axis no integer.

    References
    ----------
    Bridle (1990) named it; the largest score is subtracted as in Goodfellow et al.,
    *Deep Learning* (2016), section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0, 999.0])).round(3)
    array([0.422, 0.422, 0.155])
    >>> softmax(np.array([1.0, 2.0]), mask=np.array([False, False]))
    array([0., 0.])
    """
    xp, scores = as_floats(scores=scores)
    temperature = check_positive("temperature", temperature)
    axis = check_integer("axis", axis)
    if not -scores.ndim <= axis < scores.ndim:
        raise ValueError(f"axis {axis} does not exist in scores of shape {shape_of(scores)}")
    if mask is not None:
        check_mask(xp, mask, shape_of(scores), scores)
    return weigh(xp, wide(xp, scores), mask, scores.dtype, axis, temperature)


def weigh(
    xp: Any,
    scores: Array,
    mask: Array | None,
    dtype: Any,
    axis: int = -1,
    temperature: float = 1.0,
) -> Array:
    """Softmax without the checks: `scores` in the precision of the sums, the result in `dtype`."""
    if scores.shape[axis] == 0:
        return cast(xp, scores, dtype)
    allowed, _, filled = _filled(xp, scores, mask, axis)
    if temperature != 1.0:
        filled = _divide(xp, filled, temperature, axis)
    if xp is np:
        powers = np.exp(filled - filled.max(axis=axis, keepdims=True))
        weights = powers / powers.sum(axis=axis, keepdims=True)
    else:
        weights = xp.softmax(filled, dim=axis)
    return cast(xp, xp.where(allowed, weights, 0.0), dtype)


def weigh_and_sum(
    xp: Any, scores: Array, mask: Array | None, axis: int = -1
) -> tuple[Array, Array]:
    """Return what :func:`weigh` does, and the logarithm of the sum that it divides by.

    That is log of the sum of exp(score), without `axis`; minus infinity where nothing is left.
    """
    if scores.shape[axis] == 0:
        return scores, xp.full_like(scores.sum(axis), -math.inf)
    allowed, some, filled = _filled(xp, scores, mask, axis)
    largest = xp.amax(filled if xp is np else filled.detach(), axis, keepdims=True)
    powers = xp.exp(filled - largest)
    total = powers.sum(axis, keepdims=True)
    logarithm = xp.where(some, largest + xp.log(total), -math.inf)
    return xp.where(allowed, powers / total, 0.0), logarithm.squeeze(axis)


def _filled(xp: Any, scores: Array, mask: Array | None, axis: int) -> tuple[Array, Array, Array]:
    """Return what is allowed, which rows have some of it, and scores without the others.

    A row with no key is filled with zeros before the exponential, not after: NaN never arises,
    so its gradient is 0 too (0 * NaN would be NaN on the way back).
    """
    allowed = scores != -math.inf
    if mask is not None:
        allowed = allowed & mask
    some = allowed.any(axis=axis, keepdims=True)
    return allowed, some, xp.where(some, xp.where(allowed, scores, -math.inf), 0.0)


def _divide(xp: Any, scores: Array, temperature: float, axis: int) -> Array:
    """Subtract the largest score, then divide: large / small would be inf, and inf - inf NaN."""
    largest = scores.max(axis, keepdims=True) if xp is np else scores.detach().amax(axis, True)
    # In float32 a temperature of 1e-50 would be 0, and 0 / 0 is NaN.
    temperature = max(temperature, float(xp.finfo(scores.dtype).tiny))
    if xp is not np:  # torch does not warn, and cannot compile what keeps NumPy from it
        return (scores - largest) / temperature
    with np.errstate(over="ignore"):  # to minus infinity, which is a weight of 0
        return (scores - largest) / temperature
