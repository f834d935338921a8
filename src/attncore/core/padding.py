"""Sequences of unequal length, on whichever way is faster: without a mask, or with one."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np

from attncore.base.arrays import Array, is_tensor, padding_mask
from attncore.base.tracing import varies
from attncore.core.fused import fused
from attncore.core.reference import nothing

# What a call of the kernel must do to be worth its own: numbers of keys, times queries and,
# for keys are read too, 64 more. Measured on one core: where there were 3e6 of these, slices took
# 1.9 times as long as a mask, at 3e7 as long, and at 4e8 0.8 times.
WORTH_A_CALL = 4e7


def real_keys(xp: Any, k: Array, lengths: list[int] | Array) -> Array:
    """Return the padding mask `(B, 1, 1, Tk)` beside the keys."""
    where = {} if xp is np else {"device": k.device}
    return padding_mask(xp.asarray(lengths, **where), k.shape[2])


def slices_pay(q: Array, k: Array, lengths: list[int] | Array) -> bool:
    """Tell whether to call the kernel once for each run of equal lengths, without a mask."""
    if is_tensor(lengths) or varies(q.shape[2], k.shape[2]):
        return False
    runs = sum(1 for _ in groupby(lengths))
    _, H, Tq, D = q.shape
    return runs == 1 or (
        q.device.type == "cpu" and sum(lengths) * H * D * (Tq + 64) >= WORTH_A_CALL * runs
    )


def by_length(
    torch: Any, q: Array, k: Array, v: Array, lengths: list[int], causal: bool, scale: float | Array
) -> Array:
    """Return attention `(B, H, Tq, E)`, of each sequence with its own keys only."""
    runs = [(n, len(list(same))) for n, same in groupby(lengths)]
    sizes = [size for _, size in runs]
    # split, unlike slices, has a gradient that is put together once
    parts = zip(q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
    outs = [
        _first_keys(torch, *part, n, causal, scale)
        for (n, _), part in zip(runs, parts, strict=True)
    ]
    return outs[0] if len(outs) == 1 else torch.cat(outs)


def _first_keys(
    torch: Any, q: Array, k: Array, v: Array, n: int, causal: bool, scale: float | Array
) -> Array:
    """Attend to the first n keys. Causal queries at position n or later see them all."""
    if n == 0:
        return nothing(torch, q, v)
    Tq, Tk = q.shape[2], k.shape[2]
    k, v = k[:, :, :n], v[:, :, :n]
    early = min(max(n - (Tk - Tq), 0), Tq) if causal else 0
    outs = []
    for queries, future in ((q[:, :, :early], True), (q[:, :, early:], False)):
        if queries.shape[2]:
            outs.append(fused(torch, queries, k, v, None, future, None, None, scale))
    return outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)
