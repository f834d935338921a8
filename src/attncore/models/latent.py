"""Multi-head latent attention: sizes, checks, and NumPy parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.checks import check_scale
from attncore.base.integers import check_sizes
from attncore.base.settings import check_choice, check_flag, check_positive
from attncore.cache.growing import KVCache
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import check_rows
from attncore.models.layers import RopeParts, check_cache
from attncore.models.plain import Linear, Module, RMSNorm
from attncore.positions.rotary import PAIRINGS


class LatentParts(RopeParts):
    """Sizes, checks and forward pass of latent attention; the parameters are elsewhere."""

    q_proj: Any
    q_a_proj: Any
    kv_b_proj: Any
    map_kind: type = Linear

    def _set_sizes(
        self,
        d_model: int,
        heads: int,
        rank: int,
        rope_dim: int,
        head_dim: int | None,
        value_dim: int | None,
        q_rank: int | None,
        rope: str,
        scale: float | None,
        norm_eps: float,
    ) -> None:
        d_model, heads = check_sizes(d_model=d_model, heads=heads)
        if head_dim is None:
            if d_model % heads:
                raise ValueError(
                    f"heads ({heads}) must divide d_model ({d_model}), or give head_dim"
                )
            head_dim = d_model // heads
        value_dim = head_dim if value_dim is None else value_dim
        rank, head_dim, value_dim, rope_dim = check_sizes(
            rank=rank, head_dim=head_dim, value_dim=value_dim, rope_dim=rope_dim
        )
        self.d_model, self.heads, self.rank = d_model, heads, rank
        self.head_dim, self.value_dim, self.rope_dim = head_dim, value_dim, rope_dim
        self.q_rank = None if q_rank is None else check_sizes(q_rank=q_rank)[0]
        check_choice("rope", rope, PAIRINGS)
        self.norm_eps = check_positive("norm_eps", norm_eps)
        width = head_dim + rope_dim
        self.scale = width**-0.5 if scale is None else float(check_scale(scale, scale))

    def _maps(self, bias: bool) -> dict[str, tuple[int, int, bool]]:
        """Return of each map, by name, the widths that it takes and makes, and its bias."""
        d, D, E, R, H = self.d_model, self.head_dim, self.value_dim, self.rope_dim, self.heads
        bias = check_flag("bias", bias)
        queries = H * (D + R)
        if self.q_rank is None:
            found = {"q_proj": (d, queries, False)}
        else:
            found = {
                "q_a_proj": (d, self.q_rank, bias),
                "q_b_proj": (self.q_rank, queries, False),
            }
        return {
            **found,
            "kv_a_proj_with_mqa": (d, self.rank + R, bias),
            "kv_b_proj": (self.rank, H * (D + E), False),
            "o_proj": (H * E, d, bias),
        }

    def _norms(self) -> dict[str, int]:
        """Return the width of each norm by name."""
        return {"kv_a_layernorm": self.rank} | (
            {} if self.q_rank is None else {"q_a_layernorm": self.q_rank}
        )

    def can_absorb(self) -> bool:
        """Tell whether the map from rows to keys and values is as it was made.

        What has been put in its place, such as an adapter, may be more than its weight.
        """
        return type(self.kv_b_proj) is self.map_kind

    def forward(
        self,
        x: Array,
        mask: Array | None = None,
        *,
        causal: bool = False,
        window: int | None = None,
        lengths: Any = None,
        positions: Array | None = None,
        cache: KVCache | None = None,
        absorb: bool | None = None,
        need_weights: bool = False,
        look: Look | None = None,
    ) -> Any:
        """Attend from `x` to itself.

        Parameters
        ----------
        x
            `(..., T, d_model)`.
        mask, causal, window, lengths, positions, need_weights
            As in :meth:`MultiHeadAttention.forward`.
        cache
            As there, x `(B, T, d_model)`: ``KVCache(B, 1, capacity, rank + rope_dim, value_dim=0,
            like=x)``, or such a :class:`attncore.StaticKVCache`.
        absorb
            True: queries are mapped to the rows that are kept, and no key or value of a head is
            made. False: they are made. Both give the same, to rounding. Unless given, the one that
            multiplies less: absorbed for decoding, plain for a prompt.
        look
            As there. Absorbed, "q", "k" and "v" are as wide as the rows, and "k" and "v" have one
            head.

        Returns
        -------
        Array
            `(..., T, d_model)`; with `need_weights` a pair of it and the weights
            `(..., H, T, Tk)`.
        """
        first = self.q_proj if self.q_rank is None else self.q_a_proj
        check_rows("x", x, first.weight)
        if x.ndim < 2 or x.shape[-1] != self.d_model:
            raise ValueError(f"x must be (..., T, d_model = {self.d_model}), got {shape_of(x)}")
        if cache is not None:
            check_cache(x, None, mask, window, lengths, cache)
            self._check_sizes(x, cache)
        if absorb is not None and check_flag("absorb", absorb) and not self.can_absorb():
            raise ValueError(
                f"absorb=True reads the weight of kv_b_proj, but {type(self.kv_b_proj).__name__} "
                "has taken its place: leave absorb out"
            )
        options = {"causal": causal, "window": window, "lengths": lengths, "cache": cache}
        if positions is not None:
            options["places"] = self._places(x, positions)
        if not check_flag("need_weights", need_weights):
            return functional.latent(self, x, mask, **options, absorb=absorb, look=look)
        found: dict[str, Array] = {}
        look = functional.keeping(found, look)
        y = functional.latent(self, x, mask, **options, absorb=absorb, look=look)
        return y, found["weights"]

    def _check_sizes(self, x: Array, cache: KVCache) -> None:
        """Refuse a cache of keys and values; what it is to hold is one row for all heads."""
        wanted = (len(x), 1, self.rank + self.rope_dim, 0)
        if cache.sizes != wanted:
            B, G, width, E = cache.sizes
            raise ValueError(
                f"the cache must be KVCache({wanted[0]}, 1, capacity, rank + rope_dim = "
                f"{wanted[2]}, value_dim=0, like=x), got one of {B} sequences, {G} heads, keys of "
                f"width {width} and values of width {E}"
            )


class LatentAttention(LatentParts, Module):
    r"""Attention whose keys and values are maps of one narrow row per token, which alone is kept.

    .. math:: c = \operatorname{norm}(x W_{DKV}), \qquad
        \operatorname{head}_h = \operatorname{attention}(
        [q_h, \operatorname{rope}(q'_h)], [c W_{UK}^h, \operatorname{rope}(x W_{KR})], c W_{UV}^h)

    The NumPy twin of :class:`attncore.nn.LatentAttention`: the same sizes, the same names of
    parameters, the same forward pass, and nothing to train with.

    Parameters
    ----------
    d_model, heads, rank, rope_dim, head_dim, value_dim, q_rank, bias, scale, norm_eps
        As in :class:`attncore.nn.LatentAttention`.
    rope, rope_base, rope_speeds, rope_gain
        As in :class:`attncore.nn.LatentAttention`.
    dtype
        Of the parameters.
    rng
        A seed or a NumPy generator, from which the maps are drawn.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.LatentAttention`.

    References
    ----------
    DeepSeek-AI (2024), section 2.1.

    Examples
    --------
    >>> layer = LatentAttention(d_model=32, heads=4, rank=12, rope_dim=4, rng=0)
    >>> layer(np.zeros((2, 5, 32)), causal=True).shape          # (B, T, d_model)
    (2, 5, 32)
    >>> sorted(name.removesuffix(".weight") for name in layer.state_dict())
    ['kv_a_layernorm', 'kv_a_proj_with_mqa', 'kv_b_proj', 'o_proj', 'q_proj']
    """

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
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        widths = (d_model, heads, rank, rope_dim, head_dim, value_dim, q_rank)
        self._set_sizes(*widths, rope, scale, norm_eps)
        self._set_rope(self.rope_dim, rope, rope_base, rope_dim, rope_speeds, rope_gain)
        rng = np.random.default_rng(rng)
        for name, (into, out, biased) in self._maps(bias).items():
            setattr(self, name, Linear(into, out, bias=biased, dtype=dtype, rng=rng))
        for name, width in self._norms().items():
            setattr(self, name, RMSNorm(width, self.norm_eps, dtype))
