"""Cases of `attention` and their peers: torch's kernel called directly, and by the formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attncore as ac
from attncore.base.arrays import dtype_name

HEADS, WIDTH = 8, 64
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
        for option in (softcap, sinks, log_sum_exp, dropout):
            yield option(device, dtype, 2048)
        yield packed(device, dtype, 4096)


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


def causal_inputs(
    device: torch.device, dtype: torch.dtype, length: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, BlockMask]:
    """Return queries, keys, values, the causal mask, and that of FlexAttention."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device=device)
    return q, k, v, ac.masks.causal(length, like=q), blocks


def softcap(device: torch.device, dtype: torch.dtype, length: int) -> Case:
    """Scores pressed together, as Gemma 2 does it."""
    q, k, v, mask, blocks = causal_inputs(device, dtype, length)
    flex, cap = torch.compile(flex_attention), 20.0

    def written() -> Tensor:
        scores = torch.tanh(q @ k.mT / math.sqrt(WIDTH) / cap) * cap
        return torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1) @ v

    def press(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return marked(f"softcap, causal, T = {length}", q), {
        "ours": lambda: ac.attention(q, k, v, causal=True, softcap=cap),
        "FlexAttention": lambda: flex(q, k, v, score_mod=press, block_mask=blocks),
        "written out": written,
    }


def sinks(device: torch.device, dtype: torch.dtype, length: int) -> Case:
    """A key without a value in each head, as GPT-OSS has it."""
    q, k, v, mask, blocks = causal_inputs(device, dtype, length)
    flex, logits = torch.compile(flex_attention), torch.linspace(-1, 1, HEADS).to(q)

    def by_flex() -> Tensor:
        out, lse = flex(q, k, v, block_mask=blocks, return_lse=True)
        return out * torch.sigmoid(lse - logits[:, None])[..., None]

    def written() -> Tensor:
        scores = (q @ k.mT / math.sqrt(WIDTH)).masked_fill(~mask, -math.inf)
        column = logits[:, None, None].expand(1, HEADS, length, 1)
        return torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1] @ v

    return marked(f"sinks, causal, T = {length}", q), {
        "ours": lambda: ac.attention(q, k, v, causal=True, sinks=logits),
        "FlexAttention": by_flex,
        "written out": written,
    }


def log_sum_exp(device: torch.device, dtype: torch.dtype, length: int) -> Case:
    """Keys in two halves, merged."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    flex = torch.compile(flex_attention)
    halves = [slice(length // 2), slice(length // 2, length)]

    def merged() -> Tensor:
        parts = [ac.attention(q, k[:, :, half], v[:, :, half], return_lse=True) for half in halves]
        return ac.merge(*zip(*parts, strict=True))[0]

    def by_flex() -> Tensor:
        parts = [flex(q, k[:, :, half], v[:, :, half], return_lse=True) for half in halves]
        return ac.merge(*zip(*parts, strict=True))[0]

    return marked(f"two halves of the keys, T = {length}", q), {
        "ours": merged,
        "FlexAttention": by_flex,
        "torch's kernel, at once": lambda: sdpa(q, k, v),
        "written out": lambda: written_out(q, k, v, causal=False),
    }


def dropout(device: torch.device, dtype: torch.dtype, length: int) -> Case:
    """A tenth of the weights dropped: each peer drops others."""
    q, k, v, mask, _ = causal_inputs(device, dtype, length)
    generator, share = torch.Generator(device).manual_seed(0), 0.1

    def written() -> Tensor:
        scores = (q @ k.mT / math.sqrt(WIDTH)).masked_fill(~mask, -math.inf)
        return torch.nn.functional.dropout(torch.softmax(scores, dim=-1), share) @ v

    return marked(f"dropout, causal, T = {length}", q), {
        "ours": lambda: ac.attention(q, k, v, causal=True, dropout=share, generator=generator),
        "torch's kernel": lambda: sdpa(q, k, v, is_causal=True, dropout_p=share),
        "written out": written,
    }


def packed(device: torch.device, dtype: torch.dtype, length: int) -> Case:
    """Documents of many lengths in one row."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, device=device, dtype=dtype).unbind()
    ends = [length * n * n // 256 for n in range(17)]  # the last is 31 times the first
    mask = ac.masks.documents(ends, causal=True, like=q)
    number = torch.bucketize(
        torch.arange(length, device=device), torch.tensor(ends[1:], device=device), right=True
    )
    flex = torch.compile(flex_attention, dynamic=False)  # else its C++ is at fault
    blocks = create_block_mask(
        lambda b, h, i, j: (i >= j) & (number[i] == number[j]),
        None,
        None,
        length,
        length,
        device=device,
    )
    return marked(f"16 documents packed, causal, T = {length}", q), {
        "ours": lambda: ac.packed_attention(q, k, v, ends, causal=True),
        "FlexAttention": lambda: flex(q, k, v, block_mask=blocks),
        "torch's kernel, mask": lambda: sdpa(q, k, v, attn_mask=mask),
    }
