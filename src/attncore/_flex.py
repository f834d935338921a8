"""Attention by torch's FlexAttention: one compiled kernel that skips blocks of keys nobody sees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from attncore._arrays import Array
from attncore._fused import four_axes

BLOCK = 128  # queries and keys of a block, as the kernel's own default


def why_not_flex(q: Array, k: Array, v: Array) -> str:
    """Say why FlexAttention cannot be used for these tensors; '' if it can."""
    if q.device.type not in ("cpu", "cuda"):
        return f"it has no kernel for {q.device.type}"
    needs_gradient = q.requires_grad or k.requires_grad or v.requires_grad
    if q.device.type == "cpu" and needs_gradient and sys.modules["torch"].is_grad_enabled():
        return "it has no gradient on the CPU"
    return ""


def flex(
    torch: Any,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    causal: bool,
    window: int | None,
    bias: Array | None,
    scale: float,
) -> Array:
    """Return attention `(..., H, Tq, E)` without building the weights."""
    Tq, Tk = q.shape[-2], k.shape[-2]
    q4, k4, v4 = (four_axes(array, array) for array in (q, k, v))
    shape = (*q4.shape[:-1], Tk)  # (B, H, Tq, Tk), of which nothing is stored
    mask4, bias4 = (
        None if extra is None else four_axes(extra, q).expand(shape) for extra in (mask, bias)
    )
    # Python numbers would be compiled in, and each other number compiled anew.
    offset, limit = (
        None if number is None else torch.full((), number, device=q.device)
        for number in (Tk - Tq if causal or window is not None else None, window)
    )
    out = compiled()(q4, k4, v4, mask4, offset, limit, bias4, scale)
    return out.reshape(*q.shape[:-1], v.shape[-1])


@cache
def compiled() -> Callable[..., Array]:
    """Return :func:`run` compiled: as it is, FlexAttention would build all weights."""
    import torch

    # With fullgraph, too many kinds of calls are an error; without, they run as they are.
    return torch.compile(run, fullgraph=True)


def run(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    offset: Array | None,
    window: Array | None,
    bias: Array | None,
    scale: float,
) -> Array:
    """Call FlexAttention; query i stands at position i + `offset`, unless that is None."""
    from torch.nn.attention.flex_attention import flex_attention

    def allowed(b: Array, h: Array, i: Array, j: Array) -> Array:
        keep = j >= 0
        if offset is not None:
            keep = keep & (i + offset >= j)
        if window is not None:
            keep = keep & (i + offset - j < window)
        return keep if mask is None else keep & mask[b, h, i, j]

    def biased(score: Array, b: Array, h: Array, i: Array, j: Array) -> Array:
        return score if bias is None else score + bias[b, h, i, j]

    out: Array = flex_attention(
        q,
        k,
        v,
        score_mod=None if bias is None else biased,
        block_mask=blocks(q, k, offset, window, allowed),
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out


def blocks(
    q: Array, k: Array, offset: Array | None, window: Array | None, allowed: Callable[..., Array]
) -> Any:
    """Return which blocks of keys each block of queries must visit, told from the band alone."""
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    Tq, Tk = q.shape[2], k.shape[2]
    rows, columns = -(-Tq // BLOCK), -(-Tk // BLOCK)
    first = torch.zeros(rows, dtype=torch.int64, device=q.device)
    last = torch.full_like(first, columns)  # one past the last
    if offset is not None:
        position = offset + BLOCK * torch.arange(rows, device=q.device)  # of the first query
        last = ((position + 2 * BLOCK - 1) // BLOCK).clamp(0, columns)
        if window is not None:
            first = (position - window + 1).clamp(min=0) // BLOCK
    visited = first[:, None] + torch.arange(columns, device=q.device)
    return BlockMask.from_kv_blocks(
        (last - first).clamp(min=0).to(torch.int32)[None, None],
        visited.clamp(max=columns - 1).to(torch.int32)[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=allowed,
        seq_lengths=(Tq, Tk),
    )
