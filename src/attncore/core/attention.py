"""Scaled dot-product attention, for NumPy arrays and torch tensors of any leading shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from attncore.base.arrays import Array, cast
from attncore.base.settings import check_choice
from attncore.core import fused, padding
from attncore.core.call import NO_VALUES, Call, checked
from attncore.core.reference import blocked, reference, weights, why_not_blocked


class Route(NamedTuple):
    """A way to compute a call: the backend it belongs to, why it cannot be taken, and it."""

    backend: str
    why_not: Callable[[Call], str]
    run: Callable[[Call], tuple[Array, Array | None]]


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
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float | None = None,
    generator: Any = None,
    return_lse: bool = False,
    backend: str = "auto",
) -> Any:
    r"""Average the values, weighted by how well each key fits each query.

    .. math:: \operatorname{attention}(Q, K, V)
        = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + B\right) V

    With a softcap c, :math:`c \tanh(s / c)` takes the place of each scaled score s, before the
    bias is added. With a sink z, the weights of a row are
    :math:`e^{s_j} / (e^z + \sum_l e^{s_l})`.

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
    softcap
        No score gets beyond this number, up or down. Small scores hardly change.
    sinks
        `(H,)`, one logit for each query head (without a head axis `(1,)`): that of a key which
        has no value. What weight it takes is lost to the others, so that a row sums to less
        than 1, and a head may rest. It may learn.
    dropout
        The chance of each weight to be dropped, at least 0 and below 1. Kept weights are
        multiplied by 1 / (1 - dropout), so the mean of the output stays what it was.
    generator
        What dropout draws from, a ``numpy.random.Generator`` or a ``torch.Generator``: one
        number for each call, from which follows what is dropped. The same number drops the same
        weights, on every route.
    return_lse
        Return the log-sum-exp too: the logarithm of what the exponentials of a row's scores, and
        of its sink, sum to. With it :func:`merge` joins results of parts of the keys.
    backend
        "reference": the formula as written, which builds the `(Tq, Tk)` weights.
        "fused": ``torch.nn.functional.scaled_dot_product_attention``, which does not.
        "auto": fused for tensors where it is exact, else the formula; NumPy arrays take
        it block by block, so that memory grows as Tq + Tk; so do tensors with what the kernel
        lacks: a softcap, dropout and, where gradients are wanted, sinks and the log-sum-exp.
        Exported or compiled with a length left open, those build the weights.
        The fused CPU kernel has no second derivative; use "reference" for that.

    Returns
    -------
    Array
        `(..., H, Tq, E)` of the library, dtype and device of `q` (integers become floats).
        A query that may attend to nothing returns zeros, with zero gradient. With `return_lse`
        a pair: that, and the log-sum-exp `(..., H, Tq)`, in float32 for 16-bit input; minus
        infinity for a query that may attend to nothing and has no sink.

    Raises
    ------
    ValueError
        If shapes, devices or options do not fit; the message names the axis and the fix.
    TypeError
        If libraries or dtypes are mixed, `mask` is not boolean, `bias` or `scale` does not hold
        real numbers, `generator` is not one of the library's, or an array is a masked one
        (``numpy.ma``).

    References
    ----------
    Vaswani et al. (2017), equation 1; grouped heads: Ainslie et al. (2023), section 2.2; softcap:
    Gemma Team (2024), section 2; sinks: OpenAI (2025), section 2.2; dropout: Srivastava et al.
    (2014), section 4, here of the weights.

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
    >>> out, lse = attention(q, k, v, return_lse=True)     # log of e^8.08 + e^-8.08 + e^3.46
    >>> lse.round(2)
    array([8.09])
    """
    if (
        mask is bias is window is scale is lengths is None
        and softcap is sinks is dropout is generator is None
        and return_lse is False
        and type(backend) is str
        and backend == "auto"
        and (causal is False or causal is True)
        and fused.fits_at_once(q, k, v, causal)
    ):
        return fused.at_once(q, k, v, causal)
    check_choice("backend", backend, BACKENDS)
    call = checked(
        q, k, v, mask, causal, window, bias, scale, lengths,
        softcap=softcap, sinks=sinks, dropout=dropout, generator=generator, return_lse=return_lse,
    )  # fmt: skip
    out, lse = routed(call, backend)
    return (out, lse) if call.wants_lse else out


def routed(call: Call, backend: str = "auto") -> tuple[Array, Array | None]:
    """Return attention, and the log-sum-exp if it is needed, by the first route that can."""
    hindrance = ""
    for route in ROUTES:
        if backend in ("auto", route.backend):
            hindrance = route.why_not(call)
            if not hindrance:
                return route.run(call.drawn())
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
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float | None = None,
    generator: Any = None,
) -> Array:
    r"""Return the weights themselves, for looking at; the fused kernel never builds them.

    .. math:: A = \operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{D}} + B\right)

    Parameters
    ----------
    q, k, mask, causal, window, bias, scale, lengths, softcap, sinks, dropout, generator
        As in :func:`attention`. The weights of sinks are not among those returned.

    Returns
    -------
    Array
        `(..., H, Tq, Tk)`; rows sum to 1, or are all 0 where nothing may be attended to. With
        sinks they sum to less, and with dropout to 1 on average.

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
    call = checked(
        q, k, NO_VALUES, mask, causal, window, bias, scale, lengths,
        softcap=softcap, sinks=sinks, dropout=dropout, generator=generator,
    )  # fmt: skip
    return cast(call.xp, weights(call.settled().drawn())[0], call.q.dtype)
