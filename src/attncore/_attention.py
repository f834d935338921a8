"""Scaled dot-product attention, for NumPy arrays and torch tensors of any leading shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore import masks
from attncore._arrays import (
    Array,
    as_floats,
    cast,
    check_device,
    check_fits,
    check_mask,
    is_bool,
    is_tensor,
    namespace,
    shape_of,
    wide,
)
from attncore._softmax import weigh

BACKENDS = ("auto", "reference", "fused")


def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    backend: str = "auto",
) -> Array:
    r"""Average the values, weighted by how well each key fits each query.

    .. math:: \operatorname{attention}(Q, K, V)
        = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + B\right) V

    Parameters
    ----------
    q
        Queries `(..., H, Tq, D)`. One head needs no head axis: `(Tq, D)`.
    k
        Keys `(..., G, Tk, D)`. H must be a multiple of G; query head h reads key/value
        head ``h // (H // G)``. Leading axes equal those of `q`.
    v
        Values `(..., G, Tk, E)`.
    mask
        Boolean, broadcast to `(..., H, Tq, Tk)`; True = may attend. See
        :mod:`attncore.masks`. A masked key has weight 0, but a NaN stored in its value, or
        with the fused kernel in its key, still shows in the result (0 * NaN is NaN).
    causal
        Hide the future. Lower-right: query i stands at position Tk - Tq + i.
        (torch's ``is_causal`` is upper-left.)
    window
        See only the last `window` keys, the query's own included. Implies `causal`.
        (flash-attn writes ``window_size=(window - 1, 0)``.)
    bias
        Real numbers added to the scaled scores, broadcast to `(..., H, Tq, Tk)`.
    scale
        What the scores are multiplied by; 1 / sqrt(D) unless given.
    backend
        "reference": the formula as written, which builds the `(Tq, Tk)` weights.
        "fused": ``torch.nn.functional.scaled_dot_product_attention``, which does not.
        "auto": fused for tensors where it is exact and truly fused, else reference.
        The fused CPU kernel has no second derivative; use "reference" for that.

    Returns
    -------
    Array
        `(..., H, Tq, E)` of the library, dtype and device of `q` (integers become floats).
        A query that may attend to nothing returns zeros, with zero gradient.

    Raises
    ------
    ValueError
        If shapes, devices or options do not fit; the message names the axis and the fix.
    TypeError
        If libraries or dtypes are mixed, or `mask` is not boolean.

    References
    ----------
    Vaswani et al. (2017), equation 1; grouped heads: Ainslie et al. (2023), section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> q = np.array([[1.0, 2.0, 3.0]])                                   # (Tq=1, D=3)
    >>> k = np.array([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [1.0, 1.0, 1.0]])
    >>> v = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])                # (Tk=3, E=2)
    >>> attention(q, k, v).round(4)
    array([[0.9951, 0.0049]])
    >>> attention(q, k, v, mask=np.array([False, False, False]))
    array([[0., 0.]])
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    xp, q, k, v = as_floats(q=q, k=k, v=v)
    _check_queries_and_keys(q, k)
    _check_values(k, v)
    scale = _check_scale(scale, q)
    _check_mask_and_bias(xp, q, k, mask, bias)
    if window is not None:
        window = masks.check_window(window)

    why_not = _why_not_fused(xp, q, k, v, bias)
    if backend == "fused" and why_not:
        raise ValueError(f"backend 'fused' cannot be used: {why_not}; use backend='auto'")
    if backend == "reference" or why_not:
        allowed = _allowed(q, k, mask, causal, window)
        weights = _weights(xp, q, k, allowed, bias, scale)
        return cast(xp, _mix(weights, wide(xp, v)), q.dtype)
    return _fused(xp, q, k, v, mask, causal, window, bias, scale)


def attention_weights(
    q: Array,
    k: Array,
    mask: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Array | None = None,
    scale: float | None = None,
) -> Array:
    r"""Return the weights themselves, for looking at; the fused kernel never builds them.

    .. math:: A = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + B\right)

    Parameters
    ----------
    q, k, mask, causal, window, bias, scale
        As in :func:`attention`.

    Returns
    -------
    Array
        `(..., H, Tq, Tk)`; rows sum to 1, or are all 0 where nothing may be attended to.

    Raises
    ------
    ValueError, TypeError
        As :func:`attention`.

    References
    ----------
    Vaswani et al. (2017), equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> attention_weights(np.zeros((3, 2)), np.zeros((3, 2)), causal=True).round(2)
    array([[1.  , 0.  , 0.  ],
           [0.5 , 0.5 , 0.  ],
           [0.33, 0.33, 0.33]])
    """
    xp, q, k = as_floats(q=q, k=k)
    _check_queries_and_keys(q, k)
    scale = _check_scale(scale, q)
    _check_mask_and_bias(xp, q, k, mask, bias)
    if window is not None:
        window = masks.check_window(window)
    weights = _weights(xp, q, k, _allowed(q, k, mask, causal, window), bias, scale)
    return cast(xp, weights, q.dtype)


# -- the reference: the formula as written ---------------------------------------------


def _weights(
    xp: Any, q: Array, k: Array, allowed: Array | None, bias: Array | None, scale: float
) -> Array:
    q, k = wide(xp, q), wide(xp, k)
    # Query heads that share a key head become further rows of one product, so that the
    # keys are never repeated: (..., H, Tq, D) -> (..., G, r Tq, D).
    scores = (_fold(q, k) * scale) @ k.mT
    scores = scores.reshape(*q.shape[:-1], k.shape[-2])
    if bias is not None:
        scores = scores + cast(xp, bias, scores.dtype)
    return weigh(xp, scores, allowed, scores.dtype)


def _mix(weights: Array, v: Array) -> Array:
    """Weights `(..., H, Tq, Tk)` times values `(..., G, Tk, E)`."""
    return (_fold(weights, v) @ v).reshape(*weights.shape[:-1], v.shape[-1])


def _fold(rows: Array, shared: Array) -> Array:
    """View `(..., H, T, N)` as `(..., G, (H // G) T, N)`, to meet `shared` `(..., G, ., .)`."""
    if rows.ndim == 2:
        return rows
    *lead, heads, length, width = rows.shape
    groups = shared.shape[-3]
    return rows.reshape(*lead, groups, heads // max(groups, 1) * length, width)


def _allowed(
    q: Array, k: Array, mask: Array | None, causal: bool, window: int | None
) -> Array | None:
    """Merge `mask`, `causal` and `window` into one boolean mask, or None for no limit."""
    Tq, Tk = q.shape[-2], k.shape[-2]
    if not causal and window is None:
        return mask
    if Tq == 1 and (window is None or window >= Tk):
        return mask  # a single query is the last position: everything is its past
    return masks.combine(mask, masks.causal(Tq, Tk, window=window, like=q))


# -- the fused route: torch's own kernel ---------------------------------------------------


def _why_not_fused(xp: Any, q: Array, k: Array, v: Array, bias: Array | None) -> str:
    """Say why torch's fused kernel would be wrong or not fused here; '' if it is fine."""
    if xp is np:
        return "the arrays are NumPy"
    if v.shape[-1] != q.shape[-1]:
        return f"it needs values as wide as keys: {_shapes(k=k, v=v)}"
    if 0 in q.shape or 0 in k.shape:
        return f"an axis is empty: {_shapes(q=q, k=k)}"
    if bias is not None and bias.requires_grad:
        return "it has no gradient for the bias"
    return ""


def _fused(
    torch: Any,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    causal: bool,
    window: int | None,
    bias: Array | None,
    scale: float,
) -> Array:
    # is_causal is torch's upper-left mask: ours only when the two lengths are equal.
    square = causal and window is None and mask is None and bias is None
    square = square and q.shape[-2] == k.shape[-2]
    extra = None if square else _allowed(q, k, mask, causal, window)
    if bias is not None:
        bias = cast(torch, bias, q.dtype)
        extra = bias if extra is None else torch.where(extra, bias, -math.inf)
    if extra is not None:
        extra = _four_axes(extra.expand(*extra.shape[:-1], k.shape[-2]), q)
    q4, k4, v4 = (_four_axes(array, array) for array in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        q4,
        k4,
        v4,
        attn_mask=extra,
        is_causal=square,
        scale=scale,
        enable_gqa=q4.shape[1] != k4.shape[1],
    )
    return out.reshape(*q.shape[:-1], v.shape[-1])


def _four_axes(array: Array, whole: Array) -> Array:
    """View as `(B, heads, rows, columns)`, the only rank torch fuses.

    `array` is `whole` itself or a mask that broadcasts over its leading axes.
    """
    if array.ndim == whole.ndim == 4:
        return array
    array = array.reshape((1,) * (max(whole.ndim, 4) - array.ndim) + tuple(array.shape))
    lead = array.shape[:-3]
    if len(lead) > 1:
        if any(size != 1 for size in lead):
            array = array.expand(*whole.shape[:-3], *array.shape[-3:])
        array = array.flatten(0, len(lead) - 1)
    return array


# -- checks ------------------------------------------------------------------------------


def _check_queries_and_keys(q: Array, k: Array) -> None:
    if q.ndim < 2 or q.ndim != k.ndim:
        raise ValueError(
            f"q and k must both be (..., T, D) with the same number of axes: "
            f"{_shapes(q=q, k=k)}; add one with a[None]"
        )
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"queries and keys must be equally wide (last axis D): {_shapes(q=q, k=k)}"
        )
    if q.shape[-1] == 0:
        raise ValueError(
            f"queries and keys need at least one feature (last axis D): {_shapes(q=q, k=k)}"
        )
    if q.shape[:-3] != k.shape[:-3]:
        raise ValueError(
            f"axes before the heads must be equal: {_shapes(q=q, k=k)}; "
            "repeat the smaller one with broadcast_to"
        )
    if q.ndim > 2 and (k.shape[-3] == 0 or q.shape[-3] % k.shape[-3]):
        raise ValueError(
            f"query heads ({q.shape[-3]}) must be a multiple of key/value heads "
            f"({k.shape[-3]}): {_shapes(q=q, k=k)}"
        )


def _check_values(k: Array, v: Array) -> None:
    if v.ndim != k.ndim:
        raise ValueError(f"k and v must have the same number of axes: {_shapes(k=k, v=v)}")
    if v.shape[-2] != k.shape[-2]:
        raise ValueError(f"k and v must have one row per key: {_shapes(k=k, v=v)}")
    if v.shape[:-2] != k.shape[:-2]:
        raise ValueError(f"k and v must have the same heads and leading axes: {_shapes(k=k, v=v)}")


def _shapes(**named: Array) -> str:
    return ", ".join(f"{name} {shape_of(array)}" for name, array in named.items())


def _check_scale(scale: float | None, q: Array) -> float:
    if scale is None:
        return 1 / math.sqrt(q.shape[-1])
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, got {scale}")
    return float(scale)


def _check_mask_and_bias(
    xp: Any, q: Array, k: Array, mask: Array | None, bias: Array | None
) -> None:
    scores_shape = (*shape_of(q)[:-1], k.shape[-2])
    if mask is not None:
        check_mask(xp, mask, scores_shape, q)
    if bias is not None:
        namespace(bias=bias, q=q)
        if not (isinstance(bias, np.ndarray) or is_tensor(bias)):
            raise TypeError(f"bias must be an array, got {type(bias).__name__}")
        if is_bool(bias):
            raise TypeError("bias must be numbers to add, got bool; pass a boolean array as mask=")
        check_fits("bias", bias, scores_shape)
        check_device(bias=bias, q=q)
