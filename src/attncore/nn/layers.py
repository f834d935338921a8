"""Attention with learned maps, as torch modules. Not loaded by ``import attncore``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from attncore.base.arrays import check_device, dtype_name, shape_of
from attncore.base.integers import check_sizes, check_window
from attncore.cache.growing import KVCache, UndoOnError
from attncore.cache.static import StaticKVCache
from attncore.core.attention import attention, attention_weights
from attncore.masks import combine
from attncore.positions import check_rope
from attncore.positions import rope as turn


def check_rows(name: str, rows: Tensor, weight: Tensor, hint: str = "") -> None:
    """Raise unless `rows` can enter a map with these weights."""
    if not isinstance(rows, Tensor):
        fix = f": use torch.from_numpy({name})" if isinstance(rows, np.ndarray) else ""
        raise TypeError(f"{name} must be a torch tensor, got {type(rows).__name__}{fix}{hint}")
    if not rows.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {dtype_name(rows)}{hint}")
    if rows.is_nested or rows.layout != torch.strided:
        raise TypeError(f"{name} must be dense and not nested: pad it, or use {name}.to_dense()")
    if rows.device != weight.device:
        check_device(**{name: rows, "parameters": weight})
    if rows.dtype != weight.dtype and not autocasts(rows):
        raise TypeError(
            f"{name} is {dtype_name(rows)}, the parameters are {dtype_name(weight)}: "
            f"use {name}.to({weight.dtype}), or convert the module with .to({rows.dtype})"
        )


def autocasts(tensor: Tensor) -> bool:
    """Tell whether ``torch.autocast`` changes dtypes where this tensor is."""
    device = tensor.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


class MultiHeadAttention(nn.Module):
    r"""Several attentions side by side, each with its own maps, mixed by one more map.

    .. math:: \operatorname{head}_h = \operatorname{attention}(x W_Q^h, c W_K^{g}, c W_V^{g}),
        \quad g = \lfloor h G / H \rfloor, \qquad
        y = [\operatorname{head}_1 \dots \operatorname{head}_H] W_O + b_O

    Self-attention if no context c is given (then c = x), else cross-attention. `kv_heads`
    equal to `heads` is multi-head attention, 1 is multi-query, between them grouped-query.

    Parameters and buffers have the names and shapes of ``torch.nn.MultiheadAttention``, so
    that with ``kv_heads=heads`` either loads the other's ``state_dict``.

    Parameters
    ----------
    d_model
        Width of x and of the output.
    heads, kv_heads
        H and G; H must be a multiple of G. G is H unless given.
    head_dim
        D, the width of a head; ``d_model // heads`` unless given.
    context_dim
        Width of the context if it is not `d_model`.
    bias
        Whether the maps add a bias.
    rope
        "half" or "interleaved" turns queries and keys by their positions, before the cache:
        see :func:`attncore.positions.rope`. Self-attention only. Positions count from 0, or
        go on from ``cache.length``. None: no positions.
    rope_base
        Its base.
    device, dtype
        Of the parameters, as in torch.

    Raises
    ------
    ValueError
        If a size is below 1, `heads` does not divide `d_model` (and `head_dim` is not
        given), `kv_heads` does not divide `heads`, `rope` is no pairing or `head_dim` is odd
        with it, or, on a call, a width, a device, the context or the cache does not fit.
    TypeError
        If a size is not an integer, or, on a call, x or the context is no dense tensor of the
        dtype of the parameters (under ``torch.autocast`` of any floating-point one).

    References
    ----------
    Vaswani et al. (2017), section 3.2.2; Shazeer (2019); Ainslie et al. (2023); for `rope`
    Su et al. (2024).

    Examples
    --------
    >>> layer = MultiHeadAttention(d_model=32, heads=4, kv_heads=2)
    >>> layer(torch.zeros(2, 5, 32), causal=True).shape          # (B, T, d_model)
    torch.Size([2, 5, 32])
    >>> layer(torch.zeros(2, 5, 32), torch.zeros(2, 7, 32)).shape
    torch.Size([2, 5, 32])
    """

    in_proj_weight: nn.Parameter
    q_proj_weight: nn.Parameter
    k_proj_weight: nn.Parameter
    v_proj_weight: nn.Parameter
    in_proj_bias: nn.Parameter | None

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
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
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
        options = {"device": device, "dtype": dtype}

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, **options))

        if self.context_dim == d_model:  # one product makes q, k and v of self-attention
            self.in_proj_weight = parameter(sum(self.widths), d_model)
        else:
            for name, width, source in zip(
                "qkv", self.widths, (d_model, self.context_dim, self.context_dim), strict=True
            ):
                self.register_parameter(f"{name}_proj_weight", parameter(width, source))
        self.register_parameter("in_proj_bias", parameter(sum(self.widths)) if bias else None)
        self.out_proj = nn.Linear(heads * head_dim, d_model, bias=bias, **options)  # draws it
        self._draw_inner_maps()

    def reset_parameters(self) -> None:
        """Draw all maps anew as a new ``torch.nn.MultiheadAttention`` does; biases are 0."""
        self.out_proj.reset_parameters()
        self._draw_inner_maps()

    def _draw_inner_maps(self) -> None:
        """Draw the maps to q, k and v, and set every bias, that of W_O too, to 0."""
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        if self.out_proj.bias is not None:
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
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

        Returns
        -------
        Tensor
            `(..., Tq, d_model)`.
        """
        self._check(x, context)
        if cache is not None:
            self._check_cache(x, context, mask, window, lengths, cache)
        q, k, v = self._heads(x, context, cache)
        if cache is not None and k.dtype != cache.dtype and autocasts(k):
            q, k, v = (a.to(cache.dtype) for a in (q, k, v))
        with UndoOnError(cache):
            if cache is not None:
                k, v = cache.append(k, v)
                if isinstance(cache, StaticKVCache):
                    mask = combine(mask, cache.mask(x.shape[-2], window=window))
                    causal, window = False, None
                else:
                    causal = True
                    window = cache.window if window is None else window
            mixed = attention(q, k, v, mask, causal=causal, window=window, lengths=lengths)
            return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def weights(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Return the weights `(..., H, Tq, Tk)` that :meth:`forward` would use, to look at.

        The arguments are those of :meth:`forward`, without a cache.
        """
        self._check(x, context)
        q, k, _ = self._heads(x, context)
        return attention_weights(q, k, mask, causal=causal, window=window, lengths=lengths)

    def _heads(
        self, x: Tensor, context: Tensor | None, cache: KVCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return q `(..., H, Tq, D)`, then k and v `(..., G, Tk, D)`; x follows what is cached."""
        if context is None:  # one product, and one split
            rows = linear(x, self.in_proj_weight, self.in_proj_bias)
            heads = (self.heads, self.kv_heads, self.kv_heads)
            q, k, v = self._by_head(rows).split_with_sizes(heads, dim=-3)
        else:
            q, k, v = (self._by_head(rows) for rows in self._project(x, context))
        if self.rope is not None:
            start = 0 if cache is None else cache.length
            places = start + torch.arange(x.shape[-2], device=x.device)
            q, k = (turn(a, places, base=self.rope_base, pairing=self.rope) for a in (q, k))
        return q, k, v

    def _by_head(self, rows: Tensor) -> Tensor:
        """View `(..., T, H D)` as `(..., H, T, D)`."""
        return rows.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)

    def _project(self, x: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """Return queries of x, keys and values of the context, `(..., T, H D)` each."""
        bias = self.in_proj_bias
        biases: tuple[Tensor | None, ...] = (None, None, None)
        if bias is not None:
            biases = bias.split(self.widths)
        if self.context_dim == self.d_model:
            maps: tuple[Tensor, ...] = self.in_proj_weight.split(self.widths)
        else:
            maps = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        sources = (x, context, context)
        return tuple(linear(s, m, b) for s, m, b in zip(sources, maps, biases, strict=True))

    def _check(self, x: Tensor, context: Tensor | None) -> None:
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
        x: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        window: int | None,
        lengths: Tensor | Sequence[int] | None,
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

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` shows."""
        return (
            f"d_model={self.d_model}, heads={self.heads}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}" + (f", rope={self.rope!r}" if self.rope else "")
        )


class Block(nn.Module):
    r"""One layer of a transformer: attention, then a small network on each token.

    .. math:: x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x)), \qquad
        x \leftarrow x + W_2 \operatorname{gelu}(W_1 \operatorname{norm}(x))

    With ``cross=True`` an attention to a context comes between the two.

    Parameters
    ----------
    d_model, heads, kv_heads
        As in :class:`MultiHeadAttention`. The network is 4 times as wide as `d_model`.
    cross
        Whether the block has a cross-attention.

    Raises
    ------
    ValueError
        If the widths do not fit, or a context is missing or too much.
    TypeError
        As :class:`MultiHeadAttention`.

    References
    ----------
    Vaswani et al. (2017), section 3.1; Radford et al. (2019), section 2.3, for norm first.

    Examples
    --------
    >>> Block(d_model=16, heads=4)(torch.zeros(1, 5, 16)).shape
    torch.Size([1, 5, 16])
    >>> block = Block(d_model=16, heads=4, cross=True)
    >>> block(torch.zeros(1, 5, 16), torch.zeros(1, 7, 16), causal=True).shape
    torch.Size([1, 5, 16])
    """

    def __init__(
        self, d_model: int, heads: int, kv_heads: int | None = None, *, cross: bool = False
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, heads, kv_heads, bias=False)
        if cross:
            self.norm_cross = nn.LayerNorm(d_model)
            self.cross = MultiHeadAttention(d_model, heads, kv_heads, bias=False)
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
    ) -> Tensor:
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
        """
        if context is None and hasattr(self, "cross"):
            raise ValueError("this block has a cross-attention: give it a context")
        if context is not None and not hasattr(self, "cross"):
            raise ValueError("a context needs a block with cross=True; pass a mask as mask=")
        own_mask = mask if context is None else None
        try:
            rows = self.norm1(x)
        except (TypeError, RuntimeError):  # a norm says less of what is wrong
            self.attention._check(x, None)
            raise
        with UndoOnError(cache):
            x = x + self.attention(rows, mask=own_mask, causal=causal, cache=cache)
            if context is not None:
                x = x + self.cross(self.norm_cross(x), context, mask)
            return x + self.down(gelu(self.up(self.norm2(x))))
