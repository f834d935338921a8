"""Sequences of unequal length, on whichever way is faster: without a mask, or with one."""

from __future__ import annotations

from itertools import groupby

from attncore.base.arrays import Array, is_tensor
from attncore.base.tracing import varies
from attncore.core import fused
from attncore.core.blocks import joined
from attncore.core.call import Call

# What a call of the kernel must do to be worth its own: numbers of keys, times queries and,
# for keys are read too, 64 more. Measured on one core: where there were 3e6 of these, slices took
# 1.9 times as long as a mask, at 3e7 as long, and at 4e8 0.8 times.
WORTH_A_CALL = 4e7


def why_not(call: Call) -> str:
    """Say why not to call the kernel once for each run of equal lengths; '' if that pays."""
    if call.lengths is None:
        return "no lengths are given"
    if reason := fused.why_not(call):
        return reason
    if call.mask is not None or call.bias is not None or call.window is not None:
        return "a mask, a bias or a window is given too"
    q, lengths = call.q, call.lengths
    if is_tensor(lengths) or varies(q.shape[2], call.k.shape[2]):
        return "the lengths are not known yet"
    runs = sum(1 for _ in groupby(lengths))
    _, H, Tq, D = q.shape
    worth = q.device.type == "cpu" and sum(lengths) * H * D * (Tq + 64) >= WORTH_A_CALL * runs
    return "" if runs == 1 or worth else "so many small calls take longer than a mask"


def by_length(call: Call) -> tuple[Array, Array | None]:
    """Return attention `(B, H, Tq, E)`, of each sequence with its own keys only."""
    runs = [(n, len(list(same))) for n, same in groupby(call.lengths or ())]
    sizes = [size for _, size in runs]
    # split, unlike slices, has a gradient that is put together once
    parts = zip(call.q.split(sizes), call.k.split(sizes), call.v.split(sizes), strict=True)
    found = [
        _first_keys(call.but(q=q, k=k, v=v, lengths=None), n)
        for (n, _), (q, k, v) in zip(runs, parts, strict=True)
    ]
    return joined(call.xp, found, axis=0)


def _first_keys(call: Call, n: int) -> tuple[Array, Array | None]:
    """Attend to the first n keys. Causal queries at position n or later see them all."""
    if n == 0:
        return call.unseen()
    Tq, Tk = call.q.shape[2], call.k.shape[2]
    call = call.but(k=call.k[:, :, :n], v=call.v[:, :, :n])
    early = min(max(n - (Tk - Tq), 0), Tq) if call.causal else 0
    found = []
    for queries, future in ((call.q[:, :, :early], True), (call.q[:, :, early:], False)):
        if queries.shape[2]:
            found.append(fused.fused(call.but(q=queries, causal=future)))
    return joined(call.xp, found)
