"""Scoring functions, which say how well each key fits each query.

Given queries `(..., Tq, D)` and keys `(..., Tk, D)` they return scores `(..., Tq, Tk)`,
larger = fits better; `bilinear` and `additive` allow two widths. A score is any real number;
softmax turns a row of them into weights.
"""

from __future__ import annotations

import math
from typing import Any

from attncore.base.arrays import Array, as_floats, check_readable, is_tensor, namespace, shape_of
from attncore.base.settings import check_positive


def dot(q: Array, k: Array) -> Array:
    r"""Dot product of each query with each key.

    .. math:: s_{ij} = q_i \cdot k_j

    Parameters
    ----------
    q, k
        `(..., Tq, D)` and `(..., Tk, D)`.

    Returns
    -------
    Array
        `(..., Tq, Tk)`.

    Raises
    ------
    ValueError
        If the last axes differ or the leading axes do not broadcast.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Luong et al. (2015), section 3.1, "dot".

    Examples
    --------
    >>> import numpy as np
    >>> dot(np.array([[1, 2, 3]]), np.array([[1, 2, 3], [-1, -2, -3], [1, 1, 1]]))
    array([[ 14., -14.,   6.]])
    """
    _, q, k = _queries_and_keys(q, k)
    return q @ k.mT


def scaled_dot(q: Array, k: Array) -> Array:
    r"""Dot product over the square root of the width, so that its spread does not grow with it.

    .. math:: s_{ij} = q_i \cdot k_j / \sqrt{D}

    Parameters, returns and errors as :func:`dot`.

    References
    ----------
    Vaswani et al. (2017), section 3.2.1.

    Examples
    --------
    >>> import numpy as np
    >>> scaled_dot(np.array([[1, 2, 3]]), np.array([[1, 1, 1]])).round(3)
    array([[3.464]])
    """
    _, q, k = _queries_and_keys(q, k)
    return (q / math.sqrt(q.shape[-1])) @ k.mT


def cosine(q: Array, k: Array) -> Array:
    r"""Cosine of the angle between query and key: direction only, from -1 to 1.

    .. math:: s_{ij} = \frac{q_i \cdot k_j}{\lVert q_i\rVert\,\lVert k_j\rVert}

    A zero vector has no direction; its cosine is taken as 0.

    Parameters, returns and errors as :func:`dot`.

    References
    ----------
    Graves et al. (2014), equation 6.

    Examples
    --------
    >>> import numpy as np
    >>> cosine(np.array([[1, 2, 3]]), np.array([[1, 2, 3], [-1, -2, -3], [1, 1, 1]])).round(3)
    array([[ 1.   , -1.   ,  0.926]])
    """
    xp, q, k = _queries_and_keys(q, k)
    return _unit(xp, q) @ _unit(xp, k).mT


def neg_sq_distance(q: Array, k: Array, *, bandwidth: float = 1.0) -> Array:
    r"""Minus the squared distance over twice the squared bandwidth: the log of a Gaussian.

    .. math:: s_{ij} = -\frac{\lVert q_i - k_j\rVert^2}{2h^2}

    Computed from the differences, which is exact for near neighbours but needs memory for
    `(..., Tq, Tk, D)` numbers.

    Parameters
    ----------
    q, k
        As in :func:`dot`.
    bandwidth
        h > 0, in the units of the features; a tensor of one number can be learned.

    Returns
    -------
    Array
        `(..., Tq, Tk)`, at most 0.

    Raises
    ------
    ValueError
        If `bandwidth` is not positive and finite, and as :func:`dot`.
    TypeError
        If `bandwidth` is no number, and as :func:`dot`.

    References
    ----------
    Nadaraya (1964) and Watson (1964), with a Gaussian kernel.

    Examples
    --------
    >>> import numpy as np
    >>> neg_sq_distance(np.array([[57.0]]), np.array([[51.0], [56.0], [58.0]]))
    array([[-18. ,  -0.5,  -0.5]])
    """
    _, q, k = _queries_and_keys(q, k)
    bandwidth = check_bandwidth(bandwidth, q=q)
    difference = (q[..., :, None, :] - k[..., None, :, :]) / bandwidth
    return 0.0 - (difference**2).sum(axis=-1) / 2  # 0 - x, so that an exact match is 0, not -0


def bilinear(q: Array, k: Array, W: Array) -> Array:
    r"""Dot product after a learned map, for queries and keys of different widths.

    .. math:: s_{ij} = q_i W k_j^\top

    Parameters
    ----------
    q, k
        `(..., Tq, Dq)` and `(..., Tk, Dk)`.
    W
        `(Dq, Dk)`.

    Returns
    -------
    Array
        `(..., Tq, Tk)`.

    Raises
    ------
    ValueError
        If the widths do not match those of `W`.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Luong et al. (2015), section 3.1, "general".

    Examples
    --------
    >>> import numpy as np
    >>> bilinear(np.array([[1.0, 2.0]]), np.array([[3.0]]), W=np.array([[1.0], [0.5]]))
    array([[6.]])
    """
    _, q, k, W = as_floats(q=q, k=k, W=W)
    check_rank(q=q, k=k)
    if shape_of(W) != (q.shape[-1], k.shape[-1]):
        raise ValueError(
            f"W must be (Dq, Dk) = ({q.shape[-1]}, {k.shape[-1]}), got {shape_of(W)}: "
            f"q {shape_of(q)}, k {shape_of(k)}"
        )
    return (q @ W) @ k.mT


def additive(q: Array, k: Array, Wq: Array, Wk: Array, w: Array) -> Array:
    r"""A small network with one hidden layer that looks at query and key together.

    .. math:: s_{ij} = \tanh(q_i W_q + k_j W_k)\, w

    Parameters
    ----------
    q, k
        `(..., Tq, Dq)` and `(..., Tk, Dk)`; memory for `(..., Tq, Tk, N)` is needed.
    Wq, Wk
        `(Dq, N)` and `(Dk, N)`: N hidden units, applied as ``q @ Wq``.
    w
        `(N,)`.

    Returns
    -------
    Array
        `(..., Tq, Tk)`.

    Raises
    ------
    ValueError
        If the widths do not match those of `Wq`, `Wk` and `w`.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Bahdanau et al. (2015), appendix A.1.2.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.array([[1.0]])
    >>> additive(one, np.array([[0.0], [1.0]]), Wq=one, Wk=one, w=np.array([2.0])).round(3)
    array([[1.523, 1.928]])
    """
    xp, q, k, Wq, Wk, w = as_floats(q=q, k=k, Wq=Wq, Wk=Wk, w=w)
    check_rank(q=q, k=k)
    hidden = w.shape[0] if w.ndim == 1 else -1
    if shape_of(Wq) != (q.shape[-1], hidden) or shape_of(Wk) != (k.shape[-1], hidden):
        raise ValueError(
            f"Wq, Wk and w must be ({q.shape[-1]}, N), ({k.shape[-1]}, N) and (N,): "
            f"Wq {shape_of(Wq)}, Wk {shape_of(Wk)}, w {shape_of(w)}"
        )
    return xp.tanh((q @ Wq)[..., :, None, :] + (k @ Wk)[..., None, :, :]) @ w


def check_bandwidth(bandwidth: Any, **beside: Array) -> Any:
    """Return the bandwidth, a positive finite number, as a float or a tensor without axes."""
    if not is_tensor(bandwidth):
        return check_positive("bandwidth", bandwidth)
    namespace(**beside, bandwidth=bandwidth)
    _, bandwidth = as_floats(bandwidth=bandwidth)
    check_readable("bandwidth", bandwidth)
    if bandwidth.numel() != 1:
        raise ValueError(f"bandwidth must be a single number, got {shape_of(bandwidth)}")
    check_positive("bandwidth", bandwidth.detach().item())
    return bandwidth.reshape(())


def check_rank(**named: Array) -> None:
    """Raise unless the two are `(..., T, D)` and their leading axes broadcast."""
    names = " and ".join(named)
    shapes = ", ".join(f"{name} {shape_of(array)}" for name, array in named.items())
    if any(array.ndim < 2 for array in named.values()):
        raise ValueError(f"{names} must be (..., T, D): {shapes}; add an axis with a[None]")
    few, many = sorted((shape_of(array)[:-2] for array in named.values()), key=len)
    aligned = many[len(many) - len(few) :]
    if any(a != b and 1 not in (a, b) for a, b in zip(few, aligned, strict=True)):
        raise ValueError(f"the leading axes of {names} do not broadcast: {shapes}")


def _unit(xp: Any, x: Array) -> Array:
    # Dividing by the largest entry first keeps the squares from over- or underflowing.
    largest = xp.amax(xp.abs(x), axis=-1, keepdims=True)
    x = x / xp.where(largest > 0, largest, 1.0)
    squared = (x * x).sum(axis=-1, keepdims=True)
    # The square root of 0 has an infinite slope: keep it out of the gradient.
    return x / xp.sqrt(xp.where(squared > 0, squared, 1.0))


def _queries_and_keys(q: Array, k: Array) -> tuple[Array, Array, Array]:
    xp, q, k = as_floats(q=q, k=k)
    check_rank(q=q, k=k)
    if q.shape[-1] != k.shape[-1] or q.shape[-1] == 0:
        raise ValueError(
            f"queries and keys must be equally wide, at least 1 (last axis D): "
            f"q {shape_of(q)}, k {shape_of(k)}"
        )
    return xp, q, k
