"""Attention with learned maps, and the block around it: sizes, checks, and NumPy parameters.

What is the same for a torch module, all but the parameters, is in the classes named `...Parts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.integers import check_sizes, check_window
from attncore.cache.growing import KVCache
from attncore.core.attention import attention_weights
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import check_rows
from attncore.models.plain import LayerNorm, Linear, Module
from attncore.positions import check_rope


class AttentionParts:
    """Sizes, checks and forward pass of multi-head attention; the parameters are elsewhere."""

    in_proj_weight: Any
    q_proj_weight: Any
    k_proj_weight: Any
    v_proj_weight: Any
    in_proj_bias: Any
    out_proj: Any

    def _set_sizes(
        self,
        d_model: int,
        heads: int,
        kv_heads: int | None,
        head_dim: int | None,
        context_dim: int | None,
        rope: str | None,
        rope_base: float,
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
        if rope is not None:
            check_rope(head_dim, rope_base, rope)
        self.rope, self.rope_base = rope, rope_base
        self.d_model, self.heads, self.kv_heads, self.head_dim = d_model, heads, kv_heads, head_dim
        self.context_dim = context_dim
        self.widths = (heads * head_dim, kv_heads * head_dim, kv_heads * head_dim)

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
        context: Array | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Any = None,
        cache: KVCache | None = None,
        look: Look | None = None,
    ) -> Array:
        """Attend from `x` to `context`, or to itself.

        Parameters
        ----------
        x
            `(..., Tq, d_model)`.
        context
            `(..., Tk, context_dim)` for cross-attention.
        mask
            Boolean, broadcast to `(..., H, Tq, Tk)`; True = may attend. Not with a cache
            that has a window.
        causal, window
            As in :func:`attncore.attention`: the last query is level with the last key, of a
            context too. A cache's window, if it has one, is used unasked, and no other can be.
        lengths
            `(B,)`, as in :func:`attncore.attention`: how many rows of each sequence of x, or of
            the context, are real. Not with a cache.
        cache
            Self-attention only, x `(B, Tq, d_model)`: its keys and values come before
            those of `x`, which are appended. Causal, as decoding must be. A call that is
            refused appends nothing. Under ``torch.autocast`` queries, keys and values are
            turned into the dtype of the cache. With a :class:`attncore.StaticKVCache` the last
            axis of `mask` has an entry for each slot.
        look
            A function of (name, value) that is told of "q", "k", "v", "weights" and "heads", and
            whose result, unless it is None, goes on in place of the value.

        Returns
        -------
        Array
            `(..., Tq, d_model)`.
        """
        self._check(x, context)
        if cache is not None:
            self._check_cache(x, context, mask, window, lengths, cache)
        options = {"causal": causal, "window": window, "lengths": lengths}
        return functional.attend(self, x, context, mask, **options, cache=cache, look=look)

    def weights(
        self,
        x: Array,
        context: Array | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Any = None,
    ) -> Array:
        """Return the weights `(..., H, Tq, Tk)` that :meth:`forward` would use, to look at.

        The arguments are those of :meth:`forward`, without a cache.
        """
        self._check(x, context)
        q, k, _ = functional.heads(self, x, context)
        return attention_weights(q, k, mask, causal=causal, window=window, lengths=lengths)

    def _check(self, x: Array, context: Array | None) -> None:
        shared = self.context_dim == self.d_model
        weight = self.in_proj_weight if shared else self.q_proj_weight
        check_rows("x", x, weight)
        if x.ndim < 2 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must be (..., T, d_model = {self.d_model}), got {shape_of(x)}")
        if context is None:
            if not shared:
                raise ValueError(f"a context of width {self.context_dim} is needed")
            return
        check_rows("context", context, weight, hint="; pass a mask as mask=")
        if self.rope is not None:
            raise ValueError("rope is for self-attention: a context has positions of its own")
        if context.ndim < 2 or context.shape[-1] != self.context_dim:
            raise ValueError(
                f"context must be (..., T, context_dim = {self.context_dim}), "
                f"got {shape_of(context)}"
            )

    @staticmethod
    def _check_cache(
        x: Array,
        context: Array | None,
        mask: Array | None,
        window: int | None,
        lengths: Any,
        cache: KVCache,
    ) -> None:
        """Refuse what the cache cannot serve, before anything is appended to it."""
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
    d_model, heads, kv_heads, head_dim, context_dim, bias, rope, rope_base
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
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        self._set_sizes(d_model, heads, kv_heads, head_dim, context_dim, rope, rope_base)
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

    def forward(
        self,
        x: Array,
        context: Array | None = None,
        mask: Array | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
        look: Look | None = None,
    ) -> Array:
        """Return `(B, Tq, d_model)` from x `(B, Tq, d_model)`.

        Parameters
        ----------
        x
            `(B, Tq, d_model)`.
        context
            `(B, Tk, d_model)`, for a block with cross-attention only.
        mask
            Boolean, True = may attend: over the context if there is one, else over x.
        causal, cache
            Of the self-attention, as in :class:`MultiHeadAttention`.
        look
            As there, and told of "x" too; names begin with "attention." or "cross.".
        """
        if context is None and hasattr(self, "cross"):
            raise ValueError("this block has a cross-attention: give it a context")
        if context is not None and not hasattr(self, "cross"):
            raise ValueError("a context needs a block with cross=True; pass a mask as mask=")
        self._check(x)
        return functional.block(self, x, context, mask, causal=causal, cache=cache, look=look)

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
    d_model, heads, kv_heads, cross
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
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        check_sizes(d_model=d_model)
        rng = np.random.default_rng(rng)
        options: dict[str, Any] = {"dtype": dtype, "rng": rng}
        self.norm1 = LayerNorm(d_model, dtype)
        self.attention = MultiHeadAttention(d_model, heads, kv_heads, bias=False, **options)
        if cross:
            self.norm_cross = LayerNorm(d_model, dtype)
            self.cross = MultiHeadAttention(d_model, heads, kv_heads, bias=False, **options)
        self.norm2 = LayerNorm(d_model, dtype)
        self.up = Linear(d_model, 4 * d_model, **options)
        self.down = Linear(4 * d_model, d_model, **options)
