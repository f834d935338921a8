"""Scaled dot-product attention, for NumPy arrays and torch tensors of any leading shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from attncore.base.arrays import Array, cast
from attncore.base.settings import check_choice
from attncore.core import fused, padding
from attncore.core.call import NO_VALUES, Call, checked
from attncore.core.reference import blocked, reference, weights, why_not_blocked


class Route(NamedTuple):
    """A way to compute a call: the backend it belongs to, why it cannot be taken, and it."""

    backend: str
    why_not: Callable[[Call], str]
    run: Callable[[Call], Array]


BACKENDS = ("auto", "reference", "fused")
ROUTES = (  # the first that can be taken is
    Route("fused", padding.why_not, padding.by_length),
    Route("fused", fused.why_not, fused.fused),
    Route("auto", why_not_blocked, blocked),
    Route("reference", lambda call: "", reference),
)


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
        list there. A tensor of them that torch exports, compiles or traces becomes the mask,
        and is checked when that runs.
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
        and fused.fits_at_once(q, k, v, causal)
    ):
        return fused.at_once(q, k, v, causal)
    check_choice("backend", backend, BACKENDS)
    call = checked(q, k, v, mask, causal, window, bias, scale, lengths)
    hindrance = ""
    for route in ROUTES:
        if backend in ("auto", route.backend):
            hindrance = route.why_not(call)
            if not hindrance:
                return route.run(call)
    raise ValueError(f"backend {backend!r} cannot be used: {hindrance}; use backend='auto'")


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
    call = checked(q, k, NO_VALUES, mask, causal, window, bias, scale, lengths)
    return cast(call.xp, weights(call.settled()), call.q.dtype)
