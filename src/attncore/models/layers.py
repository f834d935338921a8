"""Attention with learned maps, and the block around it: sizes, checks, and NumPy parameters.

What is the same for a torch module, all but the parameters, is in the classes named `...Parts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    check_readable,
    is_tensor,
    namespace,
    shape_of,
    widest,
)
from attncore.base.checks import check_scale, check_softcap
from attncore.base.integers import check_sizes, check_window
from attncore.base.settings import check_choice, check_flag, check_positive
from attncore.base.tracing import is_traced
from attncore.cache.cross import CrossKVCache
from attncore.cache.growing import KVCache
from attncore.core.attention import attention_weights
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import check_rows
from attncore.models.plain import LayerNorm, Linear, Module, RMSNorm
from attncore.positions.rotary import check_places, check_rope, check_speeds, exact
from attncore.positions.speeds import check_rope_dim

NORMS, NETWORKS = ("layer", "rms"), ("gelu", "swiglu")
ROPE = ("rope", "rope_base", "rope_dim", "rope_speeds", "rope_gain")
OPTIONS = (*ROPE, "head_dim", "bias", "qk_norm", "qk_gain", "scale", "softcap", "sinks")
"""What a block passes on to its attention."""


class RopeParts:
    """What turns the heads of a layer by their positions."""

    rope: str | None
    rope_speeds: tuple[float, ...] | None
    sent_speeds: Any

    def _set_rope(
        self,
        width: int,
        rope: str | None,
        rope_base: float,
        rope_dim: int | None,
        rope_speeds: Array | None,
        rope_gain: float,
    ) -> None:
        self.rope, self.rope_base, self.rope_gain = rope, rope_base, rope_gain
        self.rope_dim, self.rope_speeds, self.sent_speeds = width, None, None
        if rope is None:
            if rope_dim is not None or rope_speeds is not None or rope_gain != 1:
                raise ValueError("rope_dim, rope_speeds and rope_gain need rope=, such as 'half'")
            return
        self.rope_dim = check_rope_dim(rope_dim, width)
        check_rope(self.rope_dim, rope_base, rope)
        self.rope_gain = check_positive("rope_gain", rope_gain)
        if rope_speeds is not None:
            xp = namespace(rope_speeds=rope_speeds)
            speeds = check_speeds(xp, rope_speeds, self.rope_dim)
            check_readable("rope_speeds", speeds)
            self.rope_speeds = tuple(speeds.tolist())  # no cast of the layer will round them

    def speeds_beside(self, x: Array) -> Any:
        """Return the speeds, if they were given, where x is; they are sent to a GPU only once."""
        if self.rope_speeds is None or not is_tensor(x):
            return self.rope_speeds
        if self.sent_speeds is not None and self.sent_speeds.device == x.device:
            return self.sent_speeds
        torch = namespace(x=x)
        options = {"dtype": widest(torch, x), "device": x.device}
        if is_traced():
            return torch.asarray(self.rope_speeds, **options)
        with torch.inference_mode(False):  # what is kept may be met in training too
            self.sent_speeds = torch.asarray(self.rope_speeds, **options)
        return self.sent_speeds

    def _places(self, x: Array, positions: Array) -> Array:
        """Return positions as they turn the heads: `(T,)`, or `(..., 1, T)` for all heads."""
        if self.rope is None:
            raise ValueError("positions are for rope: make the layer with rope='half'")
        xp = namespace(x=x, positions=positions)
        places = exact(xp, positions, x)
        check_places(places, shape_of(x)[:-1])
        return places if places.ndim == 1 else places[..., None, :]


class AttentionParts(RopeParts):
    """Sizes, checks and forward pass of multi-head attention; the parameters are elsewhere."""

    in_proj_weight: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any
    out_proj: Any
    scale: Any
    sinks: Any
    dropout: float = 0.0

    def _set_sizes(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None,
        head_dim: int | None,
        context_dim: int | None,
        norm_eps: float,
    ) -> None:
        kv_heads = heads if kv_heads is None else kv_heads
        context_dim = d_model if context_dim is None else context_dim
        check_sizes(d_model=d_model, heads=heads, kv_heads=kv_heads, context_dim=context_dim)
        if heads % kv_heads:
            raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
        if head_dim is None:
            if d_model % heads:
                raise ValueError(
                    f"heads ({heads}) must divide d_model ({d_model}), or give head_dim"
                )
            head_dim = d_model // heads
        check_sizes(head_dim=head_dim)
        self.norm_eps = check_positive("norm_eps", norm_eps)
        self.d_model, self.heads, self.kv_heads, self.head_dim = d_model, heads, kv_heads, head_dim
        self.context_dim = context_dim
        self.widths = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)

    def _check_scale(self, scale: Any) -> float | None:
        """Return the number that scores are to be multiplied by; None if it is left or learned."""
        if isinstance(scale, str):
            check_choice("scale", scale, ("learned",))
            return None
        return None if scale is None else float(check_scale(scale, scale))

    def _shapes(self) -> dict[str, tuple[int, int]]:
        """Return the shapes of the maps to q, k and v, by name."""
        if self.context_dim == self.d_model:  # one product makes q, k and v of self-attention
            return {"in_proj_weight": (sum(self.widths), self.d_model)}
        sources = (self.d_model, self.context_dim, self.context_dim)
        return {
            f"{name}_proj_weight": (width, source)
            for name, width, source in zip("qkv", self.widths, sources, strict=True)
        }

    def forward(
        self,
        x: Array,
        context: Array | CrossKVCache | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Any = None,
        positions: Array | None = None,
        cache: KVCache | None = None,
        need_weights: bool = False,
        look: Look | None = None,
    ) -> Any:
        """Attend from `x` to `context`, or to itself.

        Parameters
        ----------
        x
            `(..., Tq, d_model)`.
        context
            `(..., Tk, context_dim)` for cross-attention; or what :meth:`cross_cache` made of it,
            x `(B, Tq, d_model)`.
        mask
            Boolean, broadcast to `(..., H, Tq, Tk)`; True = may attend. Not with a cache
            that has a window.
        causal, window
            As in :func:`attncore.attention`: the last query is level with the last key, of a
            context too. A cache's window, if it has one, is used unasked, and no other can be.
        lengths
            `(B,)`, as in :func:`attncore.attention`: how many rows of each sequence of x, or of
            the context, are real. Not with a cache; one of a context has its own.
        positions
            `(T,)`, or `(B, T)` for each of the rows of x `(B, T, d_model)`: where they stand, for
            `rope`. Integers, or floats of 32 bits at least; from 0 on, or from ``cache.length``,
            unless given. Of prompts with padding before them, count from the first real token, and
            give ``mask=masks.padding(lengths, Tk, left=True)``. They turn queries and keys; what is
            causal, and a window, goes by the order of the rows.
        cache
            Self-attention only, x `(B, Tq, d_model)`: its keys and values come before
            those of `x`, which are appended. Causal, as decoding must be. A call that is
            refused appends nothing. Under ``torch.autocast`` queries, keys and values are
            turned into the dtype of the cache. With a :class:`attncore.StaticKVCache` the last
            axis of `mask` has an entry for each slot.
        need_weights
            Whether to return the weights too. They are built then, which costs memory of the size
            of the scores.
        look
            A function of (name, value) that is told of "q", "k", "v", "weights" and "heads", and
            whose result, unless it is None, goes on in place of the value.

        Returns
        -------
        Array
            `(..., Tq, d_model)`; with `need_weights` a pair of it and the weights
            `(..., H, Tq, Tk)`.
        """
        self._check(x, context, lengths)
        if cache is not None:
            check_cache(x, context, mask, window, lengths, cache)
        options = {"causal": causal, "window": window, "lengths": lengths, "cache": cache}
        if positions is not None:
            options["places"] = self._places(x, positions)
        if need_weights is False:
            return functional.attend(self, x, context, mask, **options, look=look)
        if not check_flag("need_weights", need_weights):
            return functional.attend(self, x, context, mask, **options, look=look)
        found: dict[str, Array] = {}
        look = functional.keeping(found, look)
        y = functional.attend(self, x, context, mask, **options, look=look)
        return y, found["weights"]

    def cross_cache(self, context: Array, *, lengths: Any = None) -> CrossKVCache:
        """Return the keys and values of a context, computed once: what a decoder looks up.

        Parameters
        ----------
        context
            `(B, Tk, context_dim)`.
        lengths
            `(B,)`: how many rows of each context are real. All, unless given.
        """
        self._check_context(context)
        if context.ndim != 3:
            raise ValueError(
                f"context must be (B, Tk, context_dim), got {shape_of(context)}: "
                "use context[None] for one"
            )
        k, v = functional.keys_and_values(self, context)
        return CrossKVCache(k, v, lengths=lengths)

    def weights(
        self,
        x: Array,
        context: Array | CrossKVCache | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Any = None,
        positions: Array | None = None,
    ) -> Array:
        """Return the weights `(..., H, Tq, Tk)` that :meth:`forward` would use, to look at.

        The arguments are those of :meth:`forward`, without a cache.
        """
        self._check(x, context, lengths)
        places = None if positions is None else self._places(x, positions)
        q, k, _ = functional.heads(self, x, context, places=places)
        if isinstance(context, CrossKVCache):
            lengths = context.lengths
        limits: dict[str, Any] = {"causal": causal, "window": window, "lengths": lengths}
        options = {**limits, "scale": self.scale, **functional.extras(self)}
        return attention_weights(q, k, mask, **options)

    def _check(self, x: Array, context: Array | CrossKVCache | None, lengths: Any) -> None:
        shared = self.context_dim == self.d_model
        check_rows("x", x, self.in_proj_weight if shared else self.q_proj_weight)
        if x.ndim < 2 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must be (..., T, d_model = {self.d_model}), got {shape_of(x)}")
        if context is None:
            if not shared:
                raise ValueError(f"a context of width {self.context_dim} is needed")
        elif isinstance(context, CrossKVCache):
            self._check_cross_cache(x, context, lengths)
        else:
            self._check_context(context)

    def _check_context(self, context: Array) -> None:
        shared = self.context_dim == self.d_model
        weight = self.in_proj_weight if shared else self.k_proj_weight
        check_rows("context", context, weight, hint="; pass a mask as mask=")
        if self.rope is not None:
            raise ValueError("rope is for self-attention: a context has positions of its own")
        if context.ndim < 2 or context.shape[-1] != self.context_dim:
            raise ValueError(
                f"context must be (..., T, context_dim = {self.context_dim}), "
                f"got {shape_of(context)}"
            )

    def _check_cross_cache(self, x: Array, context: CrossKVCache, lengths: Any) -> None:
        """Refuse keys and values that this layer cannot have made."""
        G, D = self.kv_heads, self.head_dim
        B, found, _, width = shape_of(context.k)
        if (found, width, context.v.shape[3]) != (G, D, D):
            raise ValueError(
                f"context must be a CrossKVCache of {G} key/value heads of width {D}, as "
                f"layer.cross_cache(context) makes it, got k {shape_of(context.k)}, "
                f"v {shape_of(context.v)}"
            )
        if self.rope is not None:
            raise ValueError("rope is for self-attention: a context has positions of its own")
        if x.ndim != 3 or len(x) != B:
            raise ValueError(
                f"with a CrossKVCache of {B} contexts x must be ({B}, T, d_model), got "
                f"{shape_of(x)}: use cache.select(rows) to repeat or to drop contexts"
            )
        if lengths is not None:
            raise ValueError(
                "lengths are kept by the CrossKVCache: give them to layer.cross_cache(context)"
            )


def check_cache(
    x: Array,
    context: Array | None,
    mask: Array | None,
    window: int | None,
    lengths: Any,
    cache: KVCache,
) -> None:
    """Refuse what the cache cannot serve, before anything is appended to it."""
    if isinstance(cache, CrossKVCache):
        raise TypeError("cache must be a KVCache: give a CrossKVCache in place of the context")
    if not isinstance(cache, KVCache):
        raise TypeError(f"cache must be a KVCache, got {type(cache).__name__}")
    if context is not None:
        raise ValueError("a cache is for self-attention: a context never grows")
    if lengths is not None:
        raise ValueError("lengths cannot be used with a cache, whose rows are all one length")
    if x.ndim != 3:
        raise ValueError(f"with a cache x must be (B, T, d_model), got {shape_of(x)}")
    if cache.window is None:
        return
    # The ring comes back out of order, so that columns are not positions.
    if mask is not None:
        raise ValueError(
            f"mask cannot be used with a cache that has a window ({cache.window}), which "
            "keeps no order; make the cache without window= and pass window= here"
        )
    if window is not None and check_window(window) != cache.window:
        raise ValueError(
            f"window ({window}) must be that of the cache ({cache.window}): leave it out, "
            f"or make the cache with window={window}"
        )


class MultiHeadAttention(AttentionParts, Module):
    r"""Several attentions side by side, each with its own maps, mixed by one more map.

    .. math:: \operatorname{head}_h = \operatorname{attention}(x W_Q^h, c W_K^{g}, c W_V^{g}),
        \quad g = \lfloor h G / H \rfloor, \qquad
        y = [\operatorname{head}_0 \dots \operatorname{head}_{H-1}] W_O + b_O

    The NumPy twin of :class:`attncore.nn.MultiHeadAttention`: the same sizes, the same names of
    parameters, the same forward pass, and nothing to train with.

    Parameters
    ----------
    d_model, heads, kv_heads, head_dim, context_dim, bias
        As in :class:`attncore.nn.MultiHeadAttention`.
    rope, rope_base, rope_dim, rope_speeds, rope_gain, qk_norm, qk_gain, norm_eps, scale
        As in :class:`attncore.nn.MultiHeadAttention`.
    softcap, sinks
        As in :class:`attncore.nn.MultiHeadAttention`.
    dtype
        Of the parameters.
    rng
        A seed or a NumPy generator, from which the maps are drawn; biases are 0.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.MultiHeadAttention`.

    References
    ----------
    Vaswani et al. (2017), section 3.2.2; Shazeer (2019); Ainslie et al. (2023); for `rope`
    Su et al. (2024).

    Examples
    --------
    >>> layer = MultiHeadAttention(d_model=32, heads=4, kv_heads=2, rng=0)
    >>> layer(np.zeros((2, 5, 32)), causal=True).shape          # (B, T, d_model)
    (2, 5, 32)
    >>> sorted(layer.state_dict())
    ['in_proj_bias', 'in_proj_weight', 'out_proj.bias', 'out_proj.weight']
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        head_dim: int | None = None,
        context_dim: int | None = None,
        bias: bool = True,
        rope: str | None = None,
        rope_base: float = 10000.0,
        rope_dim: int | None = None,
        rope_speeds: Array | None = None,
        rope_gain: float = 1.0,
        qk_norm: bool = False,
        qk_gain: bool = True,
        norm_eps: float = 1e-5,
        scale: Any = None,
        softcap: float | None = None,
        sinks: bool = False,
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        self._set_sizes(d_model, heads, kv_heads, head_dim, context_dim, norm_eps)
        self.softcap = check_softcap(softcap)
        self.sinks = np.zeros(heads, dtype) if check_flag("sinks", sinks) else None
        self._set_rope(self.head_dim, rope, rope_base, rope_dim, rope_speeds, rope_gain)
        self.scale = self._check_scale(scale)
        if scale == "learned":
            self.scale = np.array(self.head_dim**-0.5, dtype)
        normed, gain = check_flag("qk_norm", qk_norm), check_flag("qk_gain", qk_gain)
        D, eps = self.head_dim, self.norm_eps
        self.q_norm = RMSNorm(D, eps, dtype, gain=gain) if normed else None
        self.k_norm = RMSNorm(D, eps, dtype, gain=gain) if normed else None
        rng = np.random.default_rng(rng)
        for name, (out, into) in self._shapes().items():
            bound = (6 / (out + into)) ** 0.5
            setattr(self, name, rng.uniform(-bound, bound, (out, into)).astype(dtype))
        self.in_proj_bias = np.zeros(sum(self.widths), dtype) if bias else None
        self.out_proj = Linear(self.widths[0], d_model, bias=bias, dtype=dtype, rng=rng)
        if bias:
            self.out_proj.bias[...] = 0


class BlockParts:
    """Checks and forward pass of a block; the parameters are elsewhere."""

    norm1: Any
    options: tuple[str, ...] = OPTIONS

    def _options(
        self,
        d_model: int,
        norm: str,
        norm_eps: float,
        network: str,
        d_ff: int | None,
        attention: dict[str, Any],
    ) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """Check a block's options; return the width of its network, and its attentions' options."""
        check_sizes(d_model=d_model)
        check_choice("norm", norm, NORMS)
        check_choice("network", network, NETWORKS)
        if wrong := sorted(attention.keys() - set(self.options)):
            there = ", ".join(self.options)
            raise TypeError(f"{wrong[0]} is no option: those of attention are {there}")
        own = {"bias": False, "norm_eps": check_positive("norm_eps", norm_eps), **attention}
        cross = {name: value for name, value in own.items() if name not in ROPE}
        (width,) = check_sizes(d_ff=4 * d_model if d_ff is None else d_ff)
        return width, own, cross

    def forward(
        self,
        x: Array,
        context: Array | CrossKVCache | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        positions: Array | None = None,
        cache: KVCache | None = None,
        look: Look | None = None,
    ) -> Array:
        """Return `(B, Tq, d_model)` from x `(B, Tq, d_model)`.

        Parameters
        ----------
        x
            `(B, Tq, d_model)`.
        context
            `(B, Tk, d_model)`, or what ``cross.cross_cache(context)`` made of it, for a block with
            cross-attention only.
        mask
            Boolean, True = may attend: over the context if there is one, else over x.
        causal, positions, cache
            Of the self-attention, as in :class:`MultiHeadAttention`.
        look
            As there, and told of "x" too; names begin with "attention." or "cross.".
        """
        if context is None and hasattr(self, "cross"):
            raise ValueError("this block has a cross-attention: give it a context")
        if context is not None and not hasattr(self, "cross"):
            raise ValueError("a context needs a block with cross=True; pass a mask as mask=")
        self._check(x)
        own: dict[str, Any] = {"causal": causal, "positions": positions, "cache": cache}
        return functional.block(self, x, context, mask, **own, look=look)

    def _check(self, x: Array) -> None:
        weight = getattr(self.norm1, "weight", None)  # another norm may have none
        if weight is None:
            return
        check_rows("x", x, weight)
        if x.ndim < 2 or x.shape[-1] != len(weight):
            raise ValueError(f"x must be (..., T, d_model = {len(weight)}), got {shape_of(x)}")


class Block(BlockParts, Module):
    r"""One layer of a transformer: attention, then a small network on each token.

    .. math:: x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x)), \qquad
        x \leftarrow x + W_2 \operatorname{gelu}(W_1 \operatorname{norm}(x))

    The NumPy twin of :class:`attncore.nn.Block`.

    Parameters
    ----------
    d_model, heads, kv_heads, cross, norm, norm_eps, network, d_ff, attention
        As in :class:`attncore.nn.Block`.
    dtype, rng
        As in :class:`MultiHeadAttention`.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.Block`.

    References
    ----------
    Vaswani et al. (2017), section 3.1; Radford et al. (2019), section 2.3, for norm first.

    Examples
    --------
    >>> Block(d_model=16, heads=4, rng=0)(np.zeros((1, 5, 16))).shape
    (1, 5, 16)
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None = None,
        *,
        cross: bool = False,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        network: str = "gelu",
        d_ff: int | None = None,
        dtype: Any = np.float64,
        rng: Any = None,
        **attention: Any,
    ) -> None:
        d_ff, own, other = self._options(d_model, norm, norm_eps, network, d_ff, attention)
        options: dict[str, Any] = {"dtype": dtype, "rng": np.random.default_rng(rng)}
        gated = network == "swiglu"
        self.norm1 = norm_of(norm, d_model, norm_eps, dtype)
        self.attention = MultiHeadAttention(d_model, heads, kv_heads, **own, **options)
        if cross:
            self.norm_cross = norm_of(norm, d_model, norm_eps, dtype)
            self.cross = MultiHeadAttention(d_model, heads, kv_heads, **other, **options)
        self.norm2 = norm_of(norm, d_model, norm_eps, dtype)
        self.gate = Linear(d_model, d_ff, bias=False, **options) if gated else None
        self.up = Linear(d_model, d_ff, bias=not gated, **options)
        self.down = Linear(d_ff, d_model, bias=not gated, **options)


def norm_of(kind: str, d: int, eps: float, dtype: Any) -> Module:
    """Return a new norm of rows of width d."""
    return LayerNorm(d, dtype, eps) if kind == "layer" else RMSNorm(d, eps, dtype)
