"""The gradient of an attention layer, written out by hand: how it learns without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from attncore.base.arrays import shape_of
from attncore.cache.cross import CrossKVCache
from attncore.core.reference import fold
from attncore.models.functional import by_head, maps, side_by_side
from attncore.models.inputs import check_rows
from attncore.models.layers import MultiHeadAttention
from attncore.models.ops import linear
from attncore.positions import rope

Gradients = dict[str, np.ndarray]


def with_gradient(
    layer: MultiHeadAttention,
    x: np.ndarray,
    context: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Any = None,
) -> tuple[np.ndarray, Callable[[np.ndarray], Gradients]]:
    r"""Run a layer; return its result, and the way back from it to the gradients.

    With O = A V for each head, and dO short for the gradient of the loss with respect to O,

    .. math:: dV = A^\top dO, \quad dA = dO\, V^\top, \quad
        dS = A \odot (dA - \operatorname{rowsum}(A \odot dA)), \quad
        dQ = \frac{dS\, K}{\sqrt{D}}, \quad dK = \frac{dS^\top Q}{\sqrt{D}}

    A mask needs no line of its own: where a weight is 0, so is its dS.

    Parameters
    ----------
    layer
        A :class:`attncore.models.MultiHeadAttention`.
    x, context, mask, causal, window, lengths
        As in its ``forward``.

    Returns
    -------
    y, backward
        The result `(..., Tq, d_model)`, and a function: ``backward(d_y)`` takes the gradient of
        the loss with respect to y, of its shape and dtype, and returns a dict of the gradients
        with respect to each parameter, by the names of the state_dict, to "x", and to "context"
        if there is one. Call it before an array that the layer has used is changed in place.

    Raises
    ------
    ValueError, TypeError
        As ``forward``; if `layer` is no such layer, or has `qk_norm`, `scale`, `softcap` or
        `sinks`, or the context is a cache; and ``backward``, if d_y does not fit y.

    References
    ----------
    Rumelhart, Hinton & Williams (1986) for going backwards; Dao et al. (2022), appendix B.2,
    for these lines.

    Examples
    --------
    >>> layer = MultiHeadAttention(d_model=4, heads=2, rng=0)
    >>> x = np.random.default_rng(0).normal(size=(3, 4))           # (T, d)
    >>> y, backward = with_gradient(layer, x)
    >>> gradients = backward(2 * y / y.size)                       # of the loss (y**2).mean()
    >>> for name, parameter in layer.named_parameters():
    ...     parameter -= 0.5 * gradients[name]                     # a step downhill
    >>> bool((layer(x) ** 2).mean() < (y**2).mean())
    True
    """
    if not isinstance(layer, MultiHeadAttention):
        raise TypeError(
            "layer must be an attncore.models.MultiHeadAttention, got "
            f"{type(layer).__name__}: for a torch module call backward() of the loss"
        )
    options = (layer.q_norm, layer.scale, layer.softcap, layer.sinks)
    if any(option is not None for option in options):
        raise ValueError(
            "a layer with qk_norm, a scale, a softcap or sinks has no gradient written out here: "
            "use attncore.nn"
        )
    if isinstance(context, CrossKVCache):
        raise ValueError("a CrossKVCache passes no gradient on: give the context itself")
    kept: dict[str, np.ndarray] = {}  # what the way back needs: q, k, v, weights and heads
    limits: dict[str, Any] = {"causal": causal, "window": window, "lengths": lengths}
    y = layer(x, context, mask, **limits, look=kept.setdefault)

    def backward(d_y: np.ndarray) -> Gradients:
        check_rows("d_y", d_y, layer.out_proj.weight)
        if d_y.shape != y.shape:
            raise ValueError(f"d_y must be {y.shape}, as y is, got {shape_of(d_y)}")
        return gradients(layer, x, context, kept, d_y)

    return y, backward


def gradients(
    layer: MultiHeadAttention,
    x: np.ndarray,
    context: np.ndarray | None,
    kept: Gradients,
    d_y: np.ndarray,
) -> Gradients:
    """Return the gradients by name, from the one of y and what was kept on the way to y."""
    found = {"out_proj.weight": of_map(d_y, side_by_side(kept["heads"]))}  # (d, H D)
    found["out_proj.bias"] = of_bias(d_y)  # (d,)
    d_heads = by_head(linear(d_y, layer.out_proj.weight.T), layer.heads)  # (..., H, Tq, D)
    d_q, d_k, d_v = of_attention(kept["q"], kept["k"], kept["v"], kept["weights"], d_heads)
    d_q, d_k = turned_back(layer, d_q), turned_back(layer, d_k)

    d_rows = [side_by_side(d) for d in (d_q, d_k, d_v)]  # (..., Tq, H D), and (..., Tk, G D) twice
    sources = (x, x, x) if context is None else (x, context, context)
    each = [of_map(d, source) for d, source in zip(d_rows, sources, strict=True)]
    if layer.context_dim == layer.d_model:
        found["in_proj_weight"] = np.concatenate(each)  # ((H + 2 G) D, d)
    else:
        found |= zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), each, strict=True)
    found["in_proj_bias"] = np.concatenate([of_bias(d) for d in d_rows])  # ((H + 2 G) D,)
    found = {name: found[name] for name in layer.state_dict()}  # a layer may have no biases

    by_q, by_k, by_v = (linear(d, W.T) for d, W in zip(d_rows, maps(layer)[0], strict=True))
    if context is None:
        return found | {"x": by_q + by_k + by_v}  # (..., T, d): each row has three roles
    return found | {"x": by_q, "context": by_k + by_v}  # (..., Tq, d), (..., Tk, context_dim)


def of_attention(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, A: np.ndarray, d_O: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradients of q, k and v, from the one of O = A v.

    The r query heads that share a key head are laid out as further rows of one head, so that
    their parts in the gradients of k and v are summed by the products.
    """
    q_rows, A, d_O = fold(q, k), fold(A, k), fold(d_O, k)  # (..., G, r Tq, D or Tk)
    d_v = A.mT @ d_O  # (..., G, Tk, D)
    d_A = d_O @ v.mT  # (..., G, r Tq, Tk)
    d_S = A * (d_A - (A * d_A).sum(-1, keepdims=True))  # (..., G, r Tq, Tk), back through softmax
    d_S = d_S / math.sqrt(q.shape[-1])  # of the products q k^T, before they are scaled
    d_q = d_S @ k  # (..., G, r Tq, D)
    d_k = d_S.mT @ q_rows  # (..., G, Tk, D)
    return d_q.reshape(q.shape), d_k, d_v


def turned_back(layer: MultiHeadAttention, d: np.ndarray) -> np.ndarray:
    """Return the gradient of a row before rope turned it, from the one of the turned row."""
    if layer.rope is None:
        return d
    return rope(
        d,
        -np.arange(d.shape[-2]),
        base=layer.rope_base,
        pairing=layer.rope,
        rope_dim=layer.rope_dim,
        speeds=layer.rope_speeds,
        gain=layer.rope_gain,
    )


def of_map(d_y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the gradient `(out, in)` of W in y = x W^T, summed over all rows."""
    return d_y.reshape(-1, d_y.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def of_bias(d_y: np.ndarray) -> np.ndarray:
    """Return the gradient `(out,)` of b in y = x W^T + b, summed over all rows."""
    return d_y.reshape(-1, d_y.shape[-1]).sum(0)
