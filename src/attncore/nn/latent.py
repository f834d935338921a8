"""Multi-head latent attention as a torch module. Not loaded by ``import attncore``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from attncore.base.arrays import Array
from attncore.models.latent import LatentParts


class LatentAttention(LatentParts, nn.Module):
    r"""Attention whose keys and values are maps of one narrow row per token, which alone is kept.

    .. math:: c = \operatorname{norm}(x W_{DKV}), \qquad
        \operatorname{head}_h = \operatorname{attention}(
        [q_h, \operatorname{rope}(q'_h)], [c W_{UK}^h, \operatorname{rope}(x W_{KR})], c W_{UV}^h)

    A cache keeps c and one key that turns, shared by all heads, for each token: rank + rope_dim
    numbers, where multi-head attention keeps H (D + E). For decoding the maps to keys and values
    are absorbed into queries and outputs, so that attention reads the rows as they lie.

    Parameters have the names and shapes of DeepSeek-V2 and V3 in transformers, so that either
    loads the other's ``state_dict``.

    Parameters
    ----------
    d_model
        Width of x and of the output.
    heads
        H.
    rank
        The width of c.
    rope_dim
        R, the width of the part of queries and keys that turns.
    head_dim, value_dim
        D, the width of the part that does not turn, ``d_model // heads`` unless given; and E, of
        the values, D unless given.
    q_rank
        The width of the row that queries are maps of; None: they are maps of x.
    bias
        Whether the maps from x, to the two narrow rows, and the output map add a bias.
    rope, rope_base, rope_speeds, rope_gain
        As in :class:`MultiHeadAttention`: "interleaved" or "half", of R features.
    scale
        What scores are multiplied by: 1 / sqrt(D + R) unless given.
    norm_eps
        What is added to the mean square under the root, in the norms of the narrow rows.
    device, dtype
        Of the parameters, as in torch.

    Raises
    ------
    ValueError
        If a size is below 1, `heads` does not divide `d_model` (and `head_dim` is not given),
        `rope_dim` is odd, an option is out of range, or, on a call, a width, a device, the
        positions or the cache does not fit.
    TypeError
        If a size is not an integer, or, on a call, x is no dense tensor of the dtype of the
        parameters (under ``torch.autocast`` of any floating-point one).

    References
    ----------
    DeepSeek-AI (2024), section 2.1.

    Examples
    --------
    >>> import attncore as ac
    >>> layer = LatentAttention(d_model=32, heads=4, rank=12, rope_dim=4)
    >>> x = torch.zeros(2, 5, 32)
    >>> cache = ac.KVCache(2, 1, 100, 12 + 4, value_dim=0, like=x)
    >>> with torch.no_grad():
    ...     layer(x, cache=cache).shape                           # (B, T, d_model)
    torch.Size([2, 5, 32])
    """

    map_kind = nn.Linear

    def __init__(
        self,
        d_model: int,
        heads: int,
        rank: int,
        rope_dim: int,
        *,
        head_dim: int | None = None,
        value_dim: int | None = None,
        q_rank: int | None = None,
        bias: bool = False,
        rope: str = "interleaved",
        rope_base: float = 10000.0,
        rope_speeds: Array | None = None,
        rope_gain: float = 1.0,
        scale: float | None = None,
        norm_eps: float = 1e-6,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        widths = (d_model, heads, rank, rope_dim, head_dim, value_dim, q_rank)
        self._set_sizes(*widths, rope, scale, norm_eps)
        self._set_rope(self.rope_dim, rope, rope_base, rope_dim, rope_speeds, rope_gain)
        options = {"device": device, "dtype": dtype}
        for name, (into, out, biased) in self._maps(bias).items():
            self.add_module(name, nn.Linear(into, out, bias=biased, **options))
        for name, width in self._norms().items():
            self.add_module(name, nn.RMSNorm(width, eps=self.norm_eps, **options))

    def extra_repr(self) -> str:
        """Return what ``print(layer)`` shows."""
        return (
            f"d_model={self.d_model}, heads={self.heads}, rank={self.rank}, "
            f"rope_dim={self.rope_dim}, head_dim={self.head_dim}, value_dim={self.value_dim}"
            + (f", q_rank={self.q_rank}" if self.q_rank is not None else "")
        )
