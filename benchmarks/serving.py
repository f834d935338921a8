"""Cases of decoding many sequences whose keys lie in blocks, against keys that lie in a row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import attncore as ac

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 64
SEQUENCES, LONGEST = 8, 2048
Case = tuple[str, dict[str, Callable[[], object]]]


def cases(device: torch.device) -> Iterator[Case]:
    """Yield a step of blocks of several sizes, of a busy pool and of the worst there can be."""
    for make in (busy, scattered):
        for size in (16, 64, 256):
            yield case(make, size, device)


def case(
    make: Callable[[int, torch.device, int], ac.PagedKVCache],
    size: int,
    device: torch.device,
    longest: int = LONGEST,
) -> Case:
    """Return one token of each sequence, attended to by each of the ways."""
    cache = make(size, device, longest)
    named = list(cache.lengths)[-SEQUENCES:]
    q = torch.randn(len(named), HEADS, 1, HEAD_DIM, device=device)
    alone = [[x.clone()[None] for x in cache.gather(s)] for s in named]
    padded = ac.RaggedKVCache(len(named), KV_HEADS, longest, HEAD_DIM, like=q)
    counts = [cache.lengths[s] for s in named]
    new = [
        torch.cat([torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[2])) for x in pair])
        for pair in zip(*alone, strict=True)
    ]
    k, v = padded.append(*new, counts)
    mask = padded.mask(1, [1] * len(named))
    runs = {
        "ours": lambda: cache.attend(q, named),
        "contiguous, each alone": lambda: each(q, alone),
        "contiguous, padded to one length": lambda: ac.attention(q, k, v, mask),
        "copied together": lambda: each(q, [[x[None] for x in cache.gather(s)] for s in named]),
    }
    return f"{len(named)} sequences, {make.__name__}, blocks of {size}", runs


def each(q: Tensor, pairs: list[list[Tensor]]) -> Tensor:
    """Return attention of each sequence to its own keys and values."""
    return torch.cat([ac.attention(q[b : b + 1], k, v) for b, (k, v) in enumerate(pairs)])


def busy(size: int, device: torch.device, longest: int) -> ac.PagedKVCache:
    """Return a pool that sequences have come to, grown in and left, until few blocks are free."""
    chance = random.Random(0)  # noqa: S311 (no secret)
    cache = pool(3 * SEQUENCES * longest // size, size, device)
    for _ in range(12 * SEQUENCES):
        there = cache.lengths
        grown = {s: min(longest, n + chance.randrange(1, longest // 32)) for s, n in there.items()}
        for s, n in grown.items():
            fill(cache, s, n - there[s], device)
        for s in [s for s, n in grown.items() if n == longest or chance.random() < 0.02]:
            cache.drop(s)
        prompt = chance.randrange(longest // 8, longest // 2)
        if cache.free * size > prompt + longest // 32 * len(grown):
            fill(cache, cache.add(), prompt, device)
        else:
            cache.drop(chance.choice(list(cache.lengths)))
    return cache


def scattered(size: int, device: torch.device, longest: int) -> ac.PagedKVCache:
    """Return a pool that was full of short sequences, half of which have left holes."""
    chance = random.Random(0)  # noqa: S311 (no secret)
    blocks = 2 * SEQUENCES * (longest // size)
    cache = pool(blocks, size, device)
    short = [cache.add() for _ in range(blocks)]
    for s in short:
        fill(cache, s, 1, device)
    for s in chance.sample(short, blocks // 2):
        cache.drop(s)
    for _ in range(SEQUENCES):
        fill(cache, cache.add(), longest, device)
    return cache


def pool(blocks: int, size: int, device: torch.device) -> ac.PagedKVCache:
    """Return an empty cache of these blocks."""
    like = torch.empty(0, device=device)
    return ac.PagedKVCache(blocks, KV_HEADS, HEAD_DIM, size=size, like=like)


def fill(cache: ac.PagedKVCache, sequence: int, n: int, device: torch.device) -> None:
    """Append n random tokens to a sequence."""
    new = torch.randn(2, 1, KV_HEADS, n, HEAD_DIM, device=device)
    cache.append([sequence], *new)
