"""Dropout of weights: whether one is kept follows from a seed and from its place alone.

So every route drops the same weights, whatever its blocks are, NumPy and torch too; and a block
that is computed a second time, for its gradient, need not have kept what it dropped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import Array, cast
from attncore.base.tracing import is_traced

# Odd numbers whose bits look random, as integers with a sign: multiplying by them wraps around,
# and carries what differs in the low bits into the high ones.
GOLDEN_64, MIX_64, LAST_64 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
GOLDEN_32, MIX_32 = -0x61C88647, 0x7FEB352D


def drawn_seed(xp: Any, generator: Any, like: Array) -> Array:
    """Return a random integer `(1,)`, on the device of `like`."""
    if xp is np:
        return generator.integers(2**63, size=1)
    if is_traced() and not xp.compiler.is_dynamo_compiling():
        raise ValueError(
            "dropout cannot be recorded: the program would drop the same weights each time it "
            "runs; record the model without dropout"
        )
    options = {"generator": generator, "device": generator.device}
    return xp.randint(2**63 - 1, (1,), **options).to(like.device)


def places(xp: Any, q: Array, k: Array, seed: Array) -> tuple[Array, Array]:
    """Return random numbers for each row of the weights, `(..., H, Tq, 2)`, and of each key."""
    where: dict[str, Any] = {"dtype": xp.int64}  # NumPy's own has 32 bits in the browser
    where |= {} if xp is np else {"device": q.device}
    shape = q.shape[:-1]
    n = xp.arange(math.prod(shape), **where).reshape(shape)
    n = _shifted(seed + (n + 1) * GOLDEN_64, 30) * MIX_64  # as SplitMix does
    n = _shifted(_shifted(n, 27) * LAST_64, 31)
    rows = xp.stack([n, (n >> 32) | 1], axis=-1)
    keys = xp.arange(k.shape[-2], **where) * GOLDEN_32
    return _low(xp, rows), _low(xp, keys)


def kept(rows: Array, keys: Array, dropout: float) -> Array:
    """Return which weights are kept, `(..., H, Tq, Tk)`: each with chance 1 - dropout."""
    n = keys + rows[..., :1]
    n = _shifted(n, 16, 32) * rows[..., 1:]  # odd: no two keys of a row get one number
    n = _shifted(n, 15, 32) * MIX_32
    return n >= min(round(dropout * 2**32), 2**32 - 1) - 2**31


def dropped(xp: Any, weights: Array, noise: tuple[Array, Array] | None, dropout: float) -> Array:
    """Return the weights with some at 0, and the others over 1 - dropout."""
    if noise is None:
        return weights
    return xp.where(kept(*noise, dropout), weights / (1 - dropout), 0.0)


def _shifted(n: Array, by: int, bits: int = 64) -> Array:
    """Return n xor n >> by, as if n had no sign."""
    return n ^ ((n >> by) & (2 ** (bits - by) - 1))


def _low(xp: Any, n: Array) -> Array:
    """Return the low 32 bits."""
    return cast(xp, n, xp.int32)
