"""Attention with learned maps, as torch modules. Not loaded by ``import attncore``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from attncore._attention import attention
from attncore._cache import KVCache


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
    device, dtype
        Of the parameters, as in torch.

    Raises
    ------
    ValueError
        If `heads` does not divide `d_model` (and `head_dim` is not given), `kv_heads` does
        not divide `heads`, or, on a call, a width, the context or the cache does not fit.

    References
    ----------
    Vaswani et al. (2017), section 3.2.2; Shazeer (2019); Ainslie et al. (2023).

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
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"heads ({heads}) must be a multiple of kv_heads ({kv_heads})")
        if head_dim is None:
            if d_model % heads:
                raise ValueError(
                    f"heads ({heads}) must divide d_model ({d_model}), or give head_dim"
                )
            head_dim = d_model // heads
        self.d_model, self.heads, self.kv_heads, self.head_dim = d_model, heads, kv_heads, head_dim
        self.context_dim = d_model if context_dim is None else context_dim
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
        self.out_proj = nn.Linear(heads * head_dim, d_model, bias=bias, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the maps anew as ``torch.nn.MultiheadAttention`` does; biases are 0."""
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
            Boolean, broadcast to `(..., H, Tq, Tk)`; True = may attend.
        causal, window
            As in :func:`attncore.attention`.
        cache
            Self-attention only, x `(B, Tq, d_model)`: its keys and values come before
            those of `x`, which are appended. Causal, as decoding must be.

        Returns
        -------
        Tensor
            `(..., Tq, d_model)`.
        """
        self._check(x, context, cache)
        q, k, v = (
            rows.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)  # (..., heads, T, D)
            for rows in self._project(x, context)
        )
        if cache is not None:
            k, v = cache.append(k, v)
            causal = True
            if window is None:
                window = cache.window
        mixed = attention(q, k, v, mask, causal=causal, window=window)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))

    def _project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        bias = self.in_proj_bias
        if context is None and self.context_dim == self.d_model:
            return linear(x, self.in_proj_weight, bias).split(self.widths, dim=-1)
        context = x if context is None else context
        biases: tuple[Tensor | None, ...] = (None, None, None)
        if bias is not None:
            biases = bias.split(self.widths)
        if self.context_dim == self.d_model:
            maps: tuple[Tensor, ...] = self.in_proj_weight.split(self.widths)
        else:
            maps = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        sources = (x, context, context)
        return tuple(linear(s, m, b) for s, m, b in zip(sources, maps, biases, strict=True))

    def _check(self, x: Tensor, context: Tensor | None, cache: KVCache | None) -> None:
        if x.ndim < 2 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must be (..., T, d_model = {self.d_model}), got {tuple(x.shape)}")
        if context is None and self.context_dim != self.d_model:
            raise ValueError(f"a context of width {self.context_dim} is needed")
        if context is not None and context.shape[-1] != self.context_dim:
            raise ValueError(
                f"context must be (..., T, context_dim = {self.context_dim}), "
                f"got {tuple(context.shape)}"
            )
        if cache is not None and context is not None:
            raise ValueError("a cache is for self-attention: a context never grows")
        if cache is not None and x.ndim != 3:
            raise ValueError(f"with a cache x must be (B, T, d_model), got {tuple(x.shape)}")

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` shows."""
        return (
            f"d_model={self.d_model}, heads={self.heads}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}"
        )
