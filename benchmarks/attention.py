"""Cases of `attention` and their peers: torch's kernel called directly, and by the formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attncore as ac
from attncore.base.arrays import dtype_name

HEADS, WIDTH, CAP = 8, 64, 5.0
Case = tuple[str, dict[str, Callable[[], object]]]


def cases(device: torch.device, dtypes: list[torch.dtype]) -> Iterator[Case]:
    """Yield (what is measured, {"ours": call, peer: call})."""
    for dtype in dtypes:
        for causal in (False, True):
            for length in (4, 512, 1024, 2048, 4096):
                yield square(device, dtype, causal, length)
    for dtype in dtypes if device.type == "cuda" else (torch.float32,):
        yield window(device, dtype, 4096, 256)
        yield chunk(device, dtype, 512, 2048)
        yield padded(device, dtype, 8, 1024)
        yield grouped(device, dtype)
        for extra in ("softcap", "sinks", "lse"):
            yield optional(device, dtype, 2048, extra)


def square(device: torch.device, dtype: torch.dtype, causal: bool, length: int) -> Case:
    """Queries, keys and values of one length."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    name = f"{dtype_name(q)}{', causal' * causal}, T = {length}"
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ac.attention(q, k, v, causal=causal),
        "torch's kernel": lambda: sdpa(q, k, v, is_causal=causal),
        "written out": lambda: written_out(q, k, v, causal),
    }
    if length >= 2048:  # where the time that choosing takes does not count
        runs |= each_of_torchs(q, k, v, causal)
    return name, runs


def each_of_torchs(
    q: Tensor, k: Tensor, v: Tensor, causal: bool
) -> dict[str, Callable[[], object]]:
    """Return a call of each of the kernels torch chooses from on a GPU, where it can be used."""
    usable = {
        SDPBackend.FLASH_ATTENTION: cuda.can_use_flash_attention,
        SDPBackend.EFFICIENT_ATTENTION: cuda.can_use_efficient_attention,
        SDPBackend.CUDNN_ATTENTION: cuda.can_use_cudnn_attention,
    }
    inputs = cuda.SDPAParams(q, k, v, None, 0.0, causal, False)

    def call(kernel: SDPBackend) -> Tensor:
        with sdpa_kernel(kernel):
            return sdpa(q, k, v, is_causal=causal)

    return {
        f"torch's {kernel.name.lower()}": partial(call, kernel)
        for kernel, test in usable.items()
        if test(inputs)
    }


def written_out(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Return attention by the formula, as most tutorials write it."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(~ac.masks.causal(q.shape[-2], like=q), -math.inf)
    return torch.softmax(scores, dim=-1) @ v


def marked(name: str, q: Tensor) -> str:
    """Return a case's name, with the dtype if that is not float32."""
    return name if q.dtype == torch.float32 else f"{name}, {dtype_name(q)}"


def window(device: torch.device, dtype: torch.dtype, length: int, size: int) -> Case:
    """A sliding window: the bound is the bare kernel, once for each block of queries."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    mask = ac.masks.causal(length, window=size, like=q)
    band = ac.masks.causal(size, 2 * size - 1, window=size, like=q)
    flex = torch.compile(flex_attention)
    blocks = create_block_mask(
        lambda b, h, i, j: (i >= j) & (i - j < size), None, None, length, length, device=device
    )

    def bare() -> list[Tensor]:
        first = slice(size)
        outs = [sdpa(q[:, :, first], k[:, :, first], v[:, :, first], is_causal=True)]
        for stop in range(2 * size, length + 1, size):
            rows, keys = slice(stop - size, stop), slice(stop - 2 * size + 1, stop)
            outs.append(sdpa(q[:, :, rows], k[:, :, keys], v[:, :, keys], attn_mask=band))
        return outs

    return marked(f"window {size}, T = {length}", q), {
        "ours": lambda: ac.attention(q, k, v, window=size),
        "FlexAttention": lambda: flex(q, k, v, block_mask=blocks),
        "the bare blocks": bare,
        "torch's kernel, mask": lambda: sdpa(q, k, v, attn_mask=mask),
        "torch's kernel, no window": lambda: sdpa(q, k, v, is_causal=True),
    }


def chunk(device: torch.device, dtype: torch.dtype, queries: int, keys: int) -> Case:
    """The next tokens of a prompt that is read in parts."""
    q = torch.randn(1, HEADS, queries, WIDTH, device=device, dtype=dtype)
    k, v = torch.randn(2, 1, HEADS, keys, WIDTH, device=device, dtype=dtype).unbind()
    mask = ac.masks.causal(queries, keys, like=q)
    return marked(f"causal, {queries} queries on {keys} keys", q), {
        "ours": lambda: ac.attention(q, k, v, causal=True),
        "torch's kernel, mask": lambda: sdpa(q, k, v, attn_mask=mask),
        "torch's kernel, no mask": lambda: sdpa(q, k, v),
    }


def padded(device: torch.device, dtype: torch.dtype, batch: int, longest: int) -> Case:
    """Sequences of half the longest to the longest, in equal steps."""
    q, k, v = torch.randn(3, batch, HEADS, longest, WIDTH, device=device, dtype=dtype).unbind()
    lengths = [longest // 2 + longest * n // (2 * batch - 2) for n in range(batch)]
    mask = ac.masks.padding(torch.tensor(lengths, device=device), longest)
    return marked(f"{batch} sequences of {lengths[0]} to {longest} keys", q), {
        "ours": lambda: ac.attention(q, k, v, lengths=lengths),
        "torch's kernel, mask": lambda: sdpa(q, k, v, attn_mask=mask),
        "torch's kernel, no mask": lambda: sdpa(q, k, v),
    }


def grouped(device: torch.device, dtype: torch.dtype) -> Case:
    """One new token, 8 sequences, 8 query heads on 2 key/value heads."""
    q = torch.randn(8, HEADS, 1, WIDTH, device=device, dtype=dtype)
    k, v = torch.randn(2, 8, 2, 4096, WIDTH, device=device, dtype=dtype).unbind()
    flex = torch.compile(flex_attention)

    def repeated() -> Tensor:
        return sdpa(q, k.repeat_interleave(4, dim=1), v.repeat_interleave(4, dim=1))

    return marked("decode, 8 heads on 2, 4096 keys", q), {
        "ours": lambda: ac.attention(q, k, v, causal=True),
        "torch's kernel, enable_gqa": lambda: sdpa(q, k, v, enable_gqa=True),
        "torch's kernel, keys repeated": repeated,
        "FlexAttention": lambda: flex(q, k, v, enable_gqa=True),
    }


def optional(device: torch.device, dtype: torch.dtype, length: int, extra: str) -> Case:
    """Causal attention with what torch's kernel lacks: a softcap, sinks or the log-sum-exp."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    sinks = torch.randn(HEADS, device=device)
    flex = torch.compile(flex_attention)
    blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=device)
    hidden = ~ac.masks.causal(length, like=q)
    options = {"softcap": {"softcap": CAP}, "sinks": {"sinks": sinks}, "lse": {"return_lse": True}}

    def flexible() -> object:
        if extra == "softcap":
            return flex(q, k, v, block_mask=blocks, score_mod=capped)
        out, lse = flex(q, k, v, block_mask=blocks, return_lse=True)
        return (out, lse) if extra == "lse" else rested(out, lse)

    def rested(out: Tensor, lse: Tensor) -> Tensor:
        return out * torch.sigmoid(lse - sinks[:, None])[..., None].to(dtype)

    def written() -> object:
        scores = q @ k.mT / math.sqrt(WIDTH)
        scores = CAP * torch.tanh(scores / CAP) if extra == "softcap" else scores
        scores = scores.masked_fill(hidden, -math.inf)
        out = torch.softmax(scores, dim=-1) @ v
        if extra == "softcap":
            return out
        lse = torch.logsumexp(scores.float(), dim=-1)
        return (out, lse) if extra == "lse" else rested(out, lse)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: ac.attention(q, k, v, causal=True, **options[extra]),
        "written out": written,
        "torch's kernel, no extra": lambda: sdpa(q, k, v, is_causal=True),
    }
    if extra == "softcap" or device.type != "cpu":  # there it tells no log-sum-exp
        runs["FlexAttention"] = flexible
    return marked(f"{extra}, causal, T = {length}", q), runs


def capped(score: Tensor, *_: Tensor) -> Tensor:
    """Return a score pressed into -CAP to CAP."""
    return CAP * torch.tanh(score / CAP)
