"""One call of attention as every route is given it: checked once, and then never changed."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from attncore import masks
from attncore.base.arrays import Array, as_floats, is_tensor, library_of, padding_mask, wide
from attncore.base.checks import (
    batch_lengths,
    check_dropout,
    check_mask_and_bias,
    check_queries_and_keys,
    check_scale,
    check_sinks,
    check_softcap,
    check_values,
)
from attncore.base.integers import check_window
from attncore.base.settings import check_flag
from attncore.base.tracing import known
from attncore.core.blocks import part
from attncore.core.dropout import drawn_seed, places

NO_VALUES: Any = object()
NAMES = (
    "q", "k", "v", "mask", "causal", "window", "bias", "scale", "lengths",
    "softcap", "sinks", "dropout", "generator", "noise", "wants_lse",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What is asked for: q `(..., H, Tq, D)`, k `(..., G, Tk, D)`, v `(..., G, Tk, E)`, and how."""

    q: Array
    k: Array
    v: Array
    mask: Array | None = None
    causal: bool = False
    window: int | None = None
    bias: Array | None = None
    scale: float | Array = 1.0
    lengths: list[int] | Array | None = None
    softcap: float | None = None
    sinks: Array | None = None  # (H, 1), or () where q has no head axis
    dropout: float = 0.0
    generator: Any = None
    noise: tuple[Array, Array] | None = None  # of each row and of each key, once it is drawn
    wants_lse: bool = False

    @property
    def xp(self) -> Any:
        """The library, numpy or torch."""
        return sys.modules["torch"] if is_tensor(self.q) else np

    def but(self, **changes: Any) -> Call:
        """Return the same call with other values.

        ``dataclasses.replace`` does that too, but torch 2.6 cannot compile it.
        """
        return Call(**{**{name: getattr(self, name) for name in NAMES}, **changes})

    @property
    def limited(self) -> bool:
        """Whether queries see only keys up to their own position."""
        return self.causal or self.window is not None

    def settled(self) -> Call:
        """Return the same call with the lengths in its mask."""
        if self.lengths is None:
            return self
        xp, where = library_of(self.q)
        real = padding_mask(xp.asarray(self.lengths, **where), self.k.shape[2])
        return self.but(mask=masks.combine(self.mask, real), lengths=None)

    def drawn(self) -> Call:
        """Return the same call with what its dropout needs, drawn from the generator.

        That is done last of all: what is refused has not changed the generator.
        """
        if not self.dropout or self.noise is not None:
            return self
        seed = drawn_seed(self.xp, self.generator, self.q)
        return self.but(noise=places(self.xp, self.q, self.k, seed), generator=None)

    def part(self, rows: slice, keys: slice) -> Call:
        """Return the call of a block of queries, whose last query sees its last key."""
        return self.but(
            q=self.q[..., rows, :],
            k=self.k[..., keys, :],
            v=self.v[..., keys, :],
            mask=part(self.mask, rows, keys),
            bias=part(self.bias, rows, keys),
            noise=self.noise and (self.noise[0][..., rows, :], self.noise[1][keys]),
        )

    def allowed(self) -> Array | None:
        """Merge mask, causal and window into one boolean mask, or None for no limit."""
        Tq, Tk = self.q.shape[-2], self.k.shape[-2]
        if not self.limited:
            return self.mask
        if known(Tq == 1) and (self.window is None or known(self.window >= Tk)):
            return self.mask  # a single query is the last position: everything is its past
        past = masks.causal(Tq, Tk, window=self.window, like=self.q)
        return masks.combine(self.mask, past)

    def nothing(self) -> Array:
        """Return zeros `(..., H, Tq, E)`."""
        shape = (*self.q.shape[:-1], self.v.shape[-1])
        return self.q.new_zeros(shape) if is_tensor(self.q) else np.zeros(shape, self.q.dtype)

    @property
    def needs_lse(self) -> bool:
        """Whether the log-sum-exp of each row must be known."""
        return self.wants_lse or self.sinks is not None

    def unseen(self) -> tuple[Array, Array | None]:
        """Return the output of queries that see no key, and their log-sum-exp if it is needed."""
        if not self.needs_lse:
            return self.nothing(), None
        least = -math.inf if self.sinks is None else self.sinks
        return self.nothing(), self.xp.zeros_like(wide(self.xp, self.q)[..., 0]) + least


def checked(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    causal: bool = False,
    window: int | None = None,
    bias: Array | None = None,
    scale: float | Array | None = None,
    lengths: Array | None = None,
    *,
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float | None = None,
    generator: Any = None,
    return_lse: bool = False,
) -> Call:
    """Return the call with its arrays as floats of one kind, or raise what does not fit.

    With NO_VALUES, as for the weights alone, the keys stand in for them.
    """
    if v is NO_VALUES:
        xp, q, k = as_floats(q=q, k=k)
        v = k
    else:
        xp, q, k, v = as_floats(q=q, k=k, v=v)
    check_queries_and_keys(q, k)
    check_values(k, v)
    causal = check_flag("causal", causal)
    scale = check_scale(scale, q)
    check_mask_and_bias(xp, q, k, mask, bias)
    window = None if window is None else check_window(window)
    counts = None if lengths is None else batch_lengths(q, k, lengths)
    if softcap is sinks is dropout is generator is None and return_lse is False:
        return Call(q, k, v, mask, causal, window, bias, scale, counts)
    softcap, sinks = check_softcap(softcap), check_sinks(sinks, q)
    wants_lse = check_flag("return_lse", return_lse)
    share = check_dropout(dropout, generator, q)
    return Call(
        q, k, v, mask, causal, window, bias, scale, counts,
        softcap, sinks, share, generator if share else None, None, wants_lse,
    )  # fmt: skip
