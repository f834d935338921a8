"""Attention with learned maps, as torch modules. Not loaded by ``import attncore``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attncore.base.arrays import Array
from attncore.base.checks import check_share, check_softcap
from attncore.base.settings import check_flag
from attncore.models.layers import OPTIONS, AttentionParts, BlockParts


class MultiHeadAttention(AttentionParts, nn.Module):
    r"""Several attentions side by side, each with its own maps, mixed by one more map.

    .. math:: \operatorname{head}_h = \operatorname{attention}(x W_Q^h, c W_K^{g}, c W_V^{g}),
        \quad g = \lfloor h G / H \rfloor, \qquad
        y = [\operatorname{head}_0 \dots \operatorname{head}_{H-1}] W_O + b_O

    Self-attention if no context c is given (then c = x), else cross-attention. `kv_heads`
    equal to `heads` is multi-head attention, 1 is multi-query, between them grouped-query.

    Parameters and buffers have the names and shapes of ``torch.nn.MultiheadAttention``, so
    that with ``kv_heads=heads`` either loads the other's ``state_dict``. Its masks are the other
    way round: where torch's layer is given ``attn_mask=m`` or ``key_padding_mask=m``, boolean,
    True hides a key, and here it is ``mask=~m``, or ``mask=~m[:, None, None]`` of the second.

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
    rope_base, rope_dim, rope_speeds, rope_gain
        Its base; how many features of a head turn, all unless given; their speeds, constants, in
        place of the base; and what the turned ones are multiplied by. The last two are what
        :func:`attncore.positions.rope_speeds` returns.
    qk_norm, qk_gain
        Whether each query and key is brought to mean square 1 over its D features, before it turns
        (RMSNorm), and whether D learned factors follow, the same in all heads.
    norm_eps
        What is added to the mean square under the root.
    scale
        What scores are multiplied by: 1 / sqrt(D) unless given, or "learned", a parameter that
        starts there.
    softcap
        No score gets beyond this number, up or down; as in :func:`attncore.attention`.
    sinks
        Whether each query head learns the logit of a sink, which starts at 0; see there.
    dropout
        The chance of each weight to be dropped in training mode; nothing is dropped after
        ``layer.eval()``. Which are, follows from ``torch.manual_seed``.
    device, dtype
        Of the parameters, as in torch.

    Raises
    ------
    ValueError
        If a size is below 1, `heads` does not divide `d_model` (and `head_dim` is not
        given), `kv_heads` does not divide `heads`, `rope` is no pairing or `head_dim` is odd
        with it, an option is out of range, or, on a call, a width, a device, the context, the
        positions or the cache does not fit.
    TypeError
        If a size is not an integer, or, on a call, x or the context is no dense tensor of the
        dtype of the parameters (under ``torch.autocast`` of any floating-point one).

    References
    ----------
    Vaswani et al. (2017), section 3.2.2; Shazeer (2019); Ainslie et al. (2023); for `rope`
    Su et al. (2024); for `qk_norm` Henry et al. (2020), with the norm of Zhang & Sennrich (2019);
    for `softcap`, `sinks` and `dropout` as :func:`attncore.attention`.

    Examples
    --------
    >>> layer = MultiHeadAttention(d_model=32, heads=4, kv_heads=2)
    >>> layer(torch.zeros(2, 5, 32), causal=True).shape          # (B, T, d_model)
    torch.Size([2, 5, 32])
    >>> layer(torch.zeros(2, 5, 32), torch.zeros(2, 7, 32)).shape
    torch.Size([2, 5, 32])
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
        dropout: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._set_sizes(d_model, heads, kv_heads, head_dim, context_dim, norm_eps)
        self.softcap = check_softcap(softcap)
        self.dropout = check_share(dropout)
        self._set_rope(self.head_dim, rope, rope_base, rope_dim, rope_speeds, rope_gain)
        number = self._check_scale(scale)
        normed, gain = check_flag("qk_norm", qk_norm), check_flag("qk_gain", qk_gain)
        options = {"device": device, "dtype": dtype}

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, **options))

        for name, shape in self._shapes().items():
            self.register_parameter(name, parameter(*shape))
        self.register_parameter("in_proj_bias", parameter(sum(self.widths)) if bias else None)
        self.scale = parameter() if scale == "learned" else number
        self.register_parameter("sinks", parameter(heads) if check_flag("sinks", sinks) else None)
        norm = {"eps": self.norm_eps, "elementwise_affine": gain, **options}
        self.q_norm = nn.RMSNorm(self.head_dim, **norm) if normed else None
        self.k_norm = nn.RMSNorm(self.head_dim, **norm) if normed else None
        self.out_proj = nn.Linear(self.widths[0], d_model, bias=bias, **options)  # draws it
        self._draw_inner_maps()

    def reset_parameters(self) -> None:
        """Draw all maps anew as a new ``torch.nn.MultiheadAttention`` does; biases are 0.

        Learned factors are 1 again, a learned scale 1 / sqrt(D), and sinks 0.
        """
        self.out_proj.reset_parameters()
        for norm in (self.q_norm, self.k_norm):
            if norm is not None:
                norm.reset_parameters()
        self._draw_inner_maps()

    def _draw_inner_maps(self) -> None:
        """Draw the maps to q, k and v, and set every bias, that of W_O too, and sinks to 0."""
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            elif name == "scale":
                nn.init.constant_(parameter, self.head_dim**-0.5)
            else:
                nn.init.zeros_(parameter)
        if self.out_proj.bias is not None:
            nn.init.zeros_(self.out_proj.bias)

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` shows."""
        return (
            f"d_model={self.d_model}, heads={self.heads}, kv_heads={self.kv_heads}, "
            f"head_dim={self.head_dim}"
            + (f", rope={self.rope!r}" if self.rope else "")
            + (f", rope_dim={self.rope_dim}" if self.rope_dim != self.head_dim else "")
            + (f", softcap={self.softcap}" if self.softcap is not None else "")
            + (f", dropout={self.dropout}" if self.dropout else "")
        )


class Block(BlockParts, nn.Module):
    r"""One layer of a transformer: attention, then a small network on each token.

    .. math:: x \leftarrow x + \operatorname{attention}(\operatorname{norm}(x)), \qquad
        x \leftarrow x + W_2 \operatorname{gelu}(W_1 \operatorname{norm}(x))

    With ``cross=True`` an attention to a context comes between the two.

    Parameters
    ----------
    d_model, heads, kv_heads
        As in :class:`MultiHeadAttention`.
    cross
        Whether the block has a cross-attention.
    norm, norm_eps
        "layer", or "rms": the norm does not subtract the mean, and has no bias; and what is added
        under its root.
    network
        "gelu": as above, with biases; or "swiglu": W_2 (silu(W_g x) * W_1 x), without.
    d_ff
        The width of the network: 4 times `d_model` unless given.
    attention
        Other options of :class:`MultiHeadAttention`: `head_dim`, `bias` (False unless given),
        `qk_norm`, `qk_gain`, `scale`, `softcap`, `sinks`, `dropout`, and for the self-attention
        those of `rope`.

    Raises
    ------
    ValueError
        If the widths do not fit, an option is none of the above, or a context is missing or too
        much.
    TypeError
        As :class:`MultiHeadAttention`.

    References
    ----------
    Vaswani et al. (2017), section 3.1; Radford et al. (2019), section 2.3, for norm first;
    Zhang & Sennrich (2019) for "rms", Shazeer (2020) for "swiglu".

    Examples
    --------
    >>> Block(d_model=16, heads=4)(torch.zeros(1, 5, 16)).shape
    torch.Size([1, 5, 16])
    >>> block = Block(d_model=16, heads=4, cross=True)
    >>> block(torch.zeros(1, 5, 16), torch.zeros(1, 7, 16), causal=True).shape
    torch.Size([1, 5, 16])
    """

    options = (*OPTIONS, "dropout")

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
        **attention: Any,
    ) -> None:
        super().__init__()
        d_ff, own, other = self._options(d_model, norm, norm_eps, network, d_ff, attention)
        gated = network == "swiglu"
        self.norm1 = norm_of(norm, d_model, norm_eps)
        self.attention = MultiHeadAttention(d_model, heads, kv_heads, **own)
        if cross:
            self.norm_cross = norm_of(norm, d_model, norm_eps)
            self.cross = MultiHeadAttention(d_model, heads, kv_heads, **other)
        self.norm2 = norm_of(norm, d_model, norm_eps)
        self.gate = nn.Linear(d_model, d_ff, bias=False) if gated else None
        self.up = nn.Linear(d_model, d_ff, bias=not gated)
        self.down = nn.Linear(d_ff, d_model, bias=not gated)


def norm_of(kind: str, d: int, eps: float) -> nn.Module:
    """Return a new norm of rows of width d."""
    return nn.LayerNorm(d, eps) if kind == "layer" else nn.RMSNorm(d, eps)
