"""Scaled dot-product attention, for NumPy arrays and torch tensors of any leading shape."""

from __future__ import annotations

import sys

import numpy as np

from attncore import masks
from attncore.base.arrays import Array, as_floats, cast
from attncore.base.checks import (
    batch_lengths,
    check_mask_and_bias,
    check_queries_and_keys,
    check_scale,
    check_values,
)
from attncore.base.integers import check_window
from attncore.base.settings import check_choice, check_flag
from attncore.core.fused import fits_at_once, fused, why_not
from attncore.core.padding import by_length, real_keys, slices_pay
from attncore.core.reference import allowed, blocked, reference, weights

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
    scale: float | Array | None = None,
    lengths: Array | None = None,
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
        Real numbers added to the scaled scores, broadcast to `(..., H, Tq, Tk)`, of any dtype:
        they are not rounded to that of `q`. (On a GPU those of more bits make all of it take
        32; give a bias in the dtype of `q` there.)
    scale
        What the scores are multiplied by; 1 / sqrt(D) unless given. A tensor of one number may
        learn: it multiplies the queries, and gets its gradient.
    lengths
        Integers `(B,)`, for q `(B, H, Tq, D)`: how many keys of each sequence are real. The
        same as ``mask=masks.padding(lengths, Tk)``, but where it is faster the others are not
        read, and no mask is built. Lengths on a GPU are fetched, which waits for it; give a
        list there.
    backend
        "reference": the formula as written, which builds the `(Tq, Tk)` weights.
        "fused": ``torch.nn.functional.scaled_dot_product_attention``, which does not.
        "auto": fused for tensors where it is exact, else the formula; NumPy arrays take
        it block by block, so that memory grows as Tq + Tk.
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
        If libraries or dtypes are mixed, `mask` is not boolean, `bias` or `scale` does not hold
        real numbers, or an array is a masked one (``numpy.ma``).

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
    if (
        mask is bias is window is scale is lengths is None
        and type(backend) is str
        and backend == "auto"
        and (causal is False or causal is True)
        and fits_at_once(q, k, v, causal)
    ):
        kernel = sys.modules["torch"].nn.functional.scaled_dot_product_attention
        if causal and q.shape[2] != 1:  # a single query is the last: it has no future
            return kernel(q, k, v, is_causal=True)
        return kernel(q, k, v)
    check_choice("backend", backend, BACKENDS)
    causal = check_flag("causal", causal)
    xp, q, k, v = as_floats(q=q, k=k, v=v)
    check_queries_and_keys(q, k)
    check_values(k, v)
    scale = check_scale(scale, q)
    check_mask_and_bias(xp, q, k, mask, bias)
    if window is not None:
        window = check_window(window)

    hindrance = why_not(q, k, bias)
    if backend == "fused" and hindrance:
        raise ValueError(f"backend 'fused' cannot be used: {hindrance}; use backend='auto'")
    if lengths is not None:
        counts = batch_lengths(q, k, lengths)
        plain = mask is bias is window is None and xp is not np
        if plain and backend != "reference" and not hindrance and slices_pay(q, k, counts):
            return by_length(xp, q, k, v, counts, causal, scale)
        mask = masks.combine(mask, real_keys(xp, k, counts))
    options = (mask, causal, window, bias, scale)
    if backend == "auto" and xp is np:
        return blocked(q, k, v, *options)
    if backend == "reference" or hindrance:
        return reference(xp, q, k, v, *options)
    return fused(xp, q, k, v, *options)


def attention_weights(
    q: Array,
    k: Array,
    mask: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    bias: Array | None = None,
    scale: float | Array | None = None,
    lengths: Array | None = None,
) -> Array:
    r"""Return the weights themselves, for looking at; the fused kernel never builds them.

    .. math:: A = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + B\right)

    Parameters
    ----------
    q, k, mask, causal, window, bias, scale, lengths
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
    causal = check_flag("causal", causal)
    xp, q, k = as_floats(q=q, k=k)
    check_queries_and_keys(q, k)
    scale = check_scale(scale, q)
    check_mask_and_bias(xp, q, k, mask, bias)
    if window is not None:
        window = check_window(window)
    if lengths is not None:
        mask = masks.combine(mask, real_keys(xp, k, batch_lengths(q, k, lengths)))
    found = weights(xp, q, k, allowed(q, k, mask, causal, window), bias, scale)
    return cast(xp, found, q.dtype)
