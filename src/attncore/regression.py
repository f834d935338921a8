"""Kernel regression: predict with an average of known values, the near ones weighing more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    as_floats,
    cast,
    check_readable,
    is_tensor,
    namespace,
    shape_of,
)
from attncore.base.settings import check_choice
from attncore.core.softmax import softmax
from attncore.kernels import KERNELS
from attncore.scores import check_bandwidth, check_rank, neg_sq_distance, scaled_dot


def kernel_weights(
    x: Array, x_train: Array, *, kernel: str = "gaussian", bandwidth: float
) -> Array:
    r"""Weights of the known points for each new point; each row sums to 1.

    .. math:: \alpha_{ij} = \frac{K(|x_i - x'_j| / h)}{\sum_l K(|x_i - x'_l| / h)}

    Parameters
    ----------
    x
        Queries `(m,)`, or `(m, D)` for points with D features.
    x_train
        Keys `(n,)` or `(n, D)`.
    kernel
        A name in ``KERNELS``.
    bandwidth
        h > 0, in the units of `x`; a tensor of one number can be learned.

    Returns
    -------
    Array
        `(m, n)`. A row is all 0 where no key is within reach of the kernel. The Gaussian
        goes through softmax, and has no empty row up to 1e150 bandwidths.

    Raises
    ------
    ValueError
        If the kernel is unknown, the bandwidth is not positive or the shapes do not fit.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Nadaraya (1964); Watson (1964).

    Examples
    --------
    >>> import numpy as np
    >>> kernel_weights([57.0], [51.0, 56.0, 58.0], bandwidth=5.0).round(3)
    array([[0.199, 0.401, 0.401]])
    """
    xp, x, x_train = as_floats(x=x, x_train=x_train)
    return _weights(xp, *_points(x, x_train), kernel, bandwidth, allowed=None)


def nadaraya_watson(
    x: Array, x_train: Array, y_train: Array, *, kernel: str = "gaussian", bandwidth: float
) -> Array:
    r"""Predict y at new points by a weighted average of the known ones.

    .. math:: f(x) = \sum_j \alpha(x, x_j)\, y_j

    Parameters
    ----------
    x, x_train, kernel, bandwidth
        As in :func:`kernel_weights`: queries `(m,)` or `(m, D)`, keys `(n,)` or `(n, D)`.
    y_train
        Values `(n,)`, or `(n, E)`. Those of weight exactly 0 may be anything, even NaN.

    Returns
    -------
    Array
        `(m,)` or `(m, E)`. NaN where no known point is within reach of the kernel: there
        is nothing to average, and 0 would look like a prediction.

    Raises
    ------
    ValueError
        As :func:`kernel_weights`, or if `y_train` has not one row per known point.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Nadaraya (1964); Watson (1964).

    Examples
    --------
    >>> import numpy as np
    >>> nadaraya_watson([57.0], [51.0, 56.0, 58.0], [40.0, 43.0, 48.0], bandwidth=1.0).round(2)
    array([45.5])
    >>> nadaraya_watson([9.0], [0.0], [1.0], kernel="boxcar", bandwidth=1.0)
    array([nan])
    """
    xp, x, x_train, y_train = as_floats(x=x, x_train=x_train, y_train=y_train)
    x, x_train = _points(x, x_train)
    _check_targets(x_train, y_train)
    return _average(xp, _weights(xp, x, x_train, kernel, bandwidth, allowed=None), y_train)


def leave_one_out(
    x_train: Array, y_train: Array, *, kernel: str = "gaussian", bandwidth: float
) -> Array:
    r"""Predict each known point from all the others.

    .. math:: f_{-i}(x_i) = \frac{\sum_{j \ne i} K(|x_i - x_j| / h)\, y_j}
        {\sum_{j \ne i} K(|x_i - x_j| / h)}

    A point whose x occurs twice is predicted by its twin as well.

    Parameters
    ----------
    x_train, y_train, kernel, bandwidth
        As in :func:`nadaraya_watson`.

    Returns
    -------
    Array
        The shape of `y_train`; NaN where no other point is within reach.

    Raises
    ------
    ValueError, TypeError
        As :func:`nadaraya_watson`.

    References
    ----------
    Stone (1974); for kernel regression, Haerdle (1990), section 5.1.

    Examples
    --------
    >>> leave_one_out([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], bandwidth=0.1).round(2)
    array([20., 20., 20.])
    """
    xp, x_train, y_train = as_floats(x_train=x_train, y_train=y_train)
    points, _ = _points(x_train, x_train)
    _check_targets(points, y_train)
    n = points.shape[0]
    where = {"device": points.device} if is_tensor(points) else {}
    others = ~xp.eye(n, dtype=bool if xp is np else xp.bool, **where)
    return _average(xp, _weights(xp, points, points, kernel, bandwidth, others), y_train)


def choose_bandwidth(
    x_train: Array, y_train: Array, bandwidths: Sequence[float], *, kernel: str = "gaussian"
) -> tuple[float, Array]:
    r"""Pick the bandwidth with the smallest leave-one-out error.

    .. math:: \text{RMSE}(h) = \sqrt{\tfrac1n \sum_i (f_{-i}(x_i) - y_i)^2}

    Parameters
    ----------
    x_train, y_train, kernel
        As in :func:`nadaraya_watson`.
    bandwidths
        The candidates, positive numbers.

    Returns
    -------
    (float, numpy.ndarray)
        The best candidate, and the RMSE of each, in the units of `y_train`. A candidate
        that leaves a point without neighbours has RMSE infinity.

    Raises
    ------
    ValueError
        If there is no candidate, every one leaves some point without neighbours, or a known
        point is NaN or infinite.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Haerdle (1990), section 5.1.

    Examples
    --------
    >>> best, rmse = choose_bandwidth([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], [0.5, 5.0])
    >>> best, rmse.round(2)
    (0.5, array([0.71, 1.45]))
    """
    _, row = as_floats(bandwidths=bandwidths)
    check_readable("bandwidths", row)
    if row.ndim != 1:
        raise ValueError(f"bandwidths must be a row of numbers, got {shape_of(row)}")
    candidates = row.tolist()
    if not candidates:
        raise ValueError("bandwidths is empty: give at least one candidate")
    xp, x_train, y_train = as_floats(x_train=x_train, y_train=y_train)
    for name, points in (("x_train", x_train), ("y_train", y_train)):
        check_readable(name, points)
        _check_finite(xp, name, points)
    errors = []
    for h in candidates:
        miss = leave_one_out(x_train, y_train, kernel=kernel, bandwidth=h) - y_train
        miss = miss.detach() if is_tensor(miss) else miss
        errors.append(math.sqrt(float((miss * miss).mean())))
    rmse = np.array(errors)
    rmse[np.isnan(rmse)] = math.inf
    if not np.isfinite(rmse).any():
        raise ValueError(
            f"every bandwidth up to {max(candidates)} leaves a point without neighbours "
            f"under the {kernel} kernel: try larger ones"
        )
    return candidates[int(rmse.argmin())], rmse


def attention_pooling(
    q: Array,
    k: Array,
    v: Array,
    score: Callable[[Array, Array], Array] = scaled_dot,
    mask: Array | None = None,
) -> Array:
    r"""Average the values with weights from any scoring function: kernel regression made general.

    .. math:: f(q) = \sum_j \alpha(q, k_j)\, v_j, \qquad
        \alpha(q, \cdot) = \operatorname{softmax}(\text{score}(q, k_1), \dots)

    With :func:`~attncore.scores.neg_sq_distance` this is Gaussian kernel regression; with
    :func:`~attncore.scores.scaled_dot` it is attention.

    Parameters
    ----------
    q, k, v
        `(..., Tq, D)`, `(..., Tk, D)` and `(..., Tk, E)`. Values of weight exactly 0 may be
        anything, even NaN.
    score
        Maps (q, k) to scores `(..., Tq, Tk)`; see :mod:`attncore.scores`.
    mask
        Boolean, broadcast to the scores; True = may attend.

    Returns
    -------
    Array
        `(..., Tq, E)`; zeros where nothing may be attended to.

    Raises
    ------
    ValueError
        If `score` returns another shape, or `v` has not one row per key.
    TypeError
        If libraries or dtypes are mixed, or `score` is no function.

    References
    ----------
    Tsai et al. (2019), who read attention as a kernel smoother.

    Examples
    --------
    >>> import numpy as np
    >>> from attncore.scores import neg_sq_distance
    >>> keys, values = np.array([[51.0], [56.0], [58.0]]), np.array([[40.0], [43.0], [48.0]])
    >>> attention_pooling(np.array([[57.0]]), keys, values, neg_sq_distance).round(2)
    array([[45.5]])
    """
    xp, q, k, v = as_floats(q=q, k=k, v=v)
    if not callable(score):
        raise TypeError(f"score must be a function of q and k, got {type(score).__name__}")
    check_rank(q=q, k=k)
    scores = score(q, k)
    namespace(score=scores, v=v)
    _, scores = as_floats(score=scores)
    if shape_of(scores)[-2:] != (q.shape[-2], k.shape[-2]):
        raise ValueError(
            f"score must return (..., Tq, Tk) = (..., {q.shape[-2]}, {k.shape[-2]}), "
            f"got {shape_of(scores)}"
        )
    if v.ndim < 2 or v.shape[-2] != k.shape[-2]:
        raise ValueError(f"k and v must have one row per key: k {shape_of(k)}, v {shape_of(v)}")
    check_rank(score=scores, v=v)
    return _mix(xp, cast(xp, softmax(scores, mask), v.dtype), v)


def _points(x: Array, x_train: Array) -> tuple[Array, Array]:
    """Return both as `(., D)`."""
    shapes = f"x {shape_of(x)}, x_train {shape_of(x_train)}"
    if x.ndim != x_train.ndim or x.ndim not in (1, 2):
        raise ValueError(f"x and x_train must both be (n,) or both (n, D): {shapes}")
    if x.ndim == 2 and x.shape[1] != x_train.shape[1]:
        raise ValueError(f"x and x_train must have equally many features (axis 1): {shapes}")
    if x.shape[1:] == (0,):
        raise ValueError(f"x and x_train need at least one feature (axis 1): {shapes}")
    if x_train.shape[0] == 0:
        raise ValueError(f"there must be at least one known point: {shapes}")
    return (x, x_train) if x.ndim == 2 else (x[:, None], x_train[:, None])


def _check_targets(x_train: Array, y_train: Array) -> None:
    if y_train.ndim not in (1, 2) or y_train.shape[0] != x_train.shape[0]:
        raise ValueError(
            f"y_train must have one row per known point: x_train has {x_train.shape[0]}, "
            f"y_train is {shape_of(y_train)}"
        )


def _weights(
    xp: Any, x: Array, x_train: Array, kernel: str, bandwidth: float, allowed: Array | None
) -> Array:
    bandwidth = check_bandwidth(bandwidth, x=x)
    check_choice("kernel", kernel, KERNELS)
    if kernel == "gaussian":
        return softmax(neg_sq_distance(x, x_train, bandwidth=bandwidth), allowed)
    difference = (x[:, None, :] - x_train[None, :, :]) / bandwidth
    distance = abs(difference[..., 0]) if x.shape[1] == 1 else (difference**2).sum(axis=-1) ** 0.5
    weights = KERNELS[kernel](distance)
    if allowed is not None:
        weights = xp.where(allowed, weights, 0.0)
    # Infinite weight: the exact matches share it all, which is the limit of 1/|u| at 0.
    infinite = weights == math.inf
    exact = infinite.any(axis=1, keepdims=True)
    weights = xp.where(exact, xp.where(infinite, xp.ones_like(weights), 0.0), weights)
    total = weights.sum(axis=1, keepdims=True)
    return weights / xp.where(total == 0, 1.0, total)


def _average(xp: Any, weights: Array, y_train: Array) -> Array:
    predicted = _mix(xp, weights, y_train)
    empty = (weights == 0).all(axis=1)
    return xp.where(empty if y_train.ndim == 1 else empty[:, None], math.nan, predicted)


def _mix(xp: Any, weights: Array, values: Array) -> Array:
    """Return `weights @ values`, where a weight of exactly 0 takes nothing, not even NaN."""

    def takes(those: Array) -> Array:
        return cast(xp, weights != 0, values.dtype) @ cast(xp, those, values.dtype) > 0

    mixed = weights @ xp.where(xp.isfinite(values), values, 0.0)  # 0 times infinity is NaN
    up, down = takes(values == math.inf), takes(values == -math.inf)
    mixed = xp.where(up, math.inf, xp.where(down, -math.inf, mixed))
    return xp.where(takes(xp.isnan(values)) | (up & down), math.nan, mixed)


def _check_finite(xp: Any, name: str, points: Array) -> None:
    lost = ~xp.isfinite(points)
    if bool(lost.any()):
        place = [int(i) for i in xp.argwhere(lost)[0]]
        raise ValueError(
            f"{name} is {float(points[tuple(place)])} at {place}, "
            f"and {int(lost.sum())} of its numbers are not finite: leave these points out"
        )
