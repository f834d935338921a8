"""Measure what a window and few bits do to the book's language model when it has a KV cache.

    python tools/measure_cache.py      about two minutes on one CPU core

Two files in data/kept are for chapter 8. whale_window.json: bits per character on 160 windows of
the unseen text, for caches that keep the last W tokens; each number is the mean over the last 128
places of one window, so that every place has more than W tokens before it. whale_rounding.json:
after how many letters the likeliest text changes, if the cache is left out or if the 20 texts are
written in one batch; null where it does not. Other machines round differently, and there the
places are different.
"""

from __future__ import annotations

import math

import torch
from kept_runs import keep
from torch.nn.functional import cross_entropy

from attncore import KVCache, nn
from attncore.training.texts import parts

WINDOWS, LAST, SIZES = 160, 128, (4, 8, 16, 32, 64, 128, 256)
TEXTS, APART, START, STEPS = 20, 2400, 16, 200


@torch.no_grad()
def scores() -> list[list[float]]:
    """Return bits per character, a row for each window of text and a number for each W."""
    model = nn.whale(torch.float64)
    windows = model.encode(parts()[1])[0, : WINDOWS * 257].view(WINDOWS, 257)
    rows = []
    for part in windows.split(8):
        found = []
        for size in SIZES:
            like = model.embedding.weight
            caches = [
                KVCache(8, 2, 256, 24, window=None if size == 256 else size, like=like)
                for _ in model.blocks
            ]
            logits = model(part[:, :-1], caches)[:, -LAST:]
            nats = cross_entropy(logits.transpose(1, 2), part[:, -LAST:], reduction="none")
            found.append(nats.mean(1) / math.log(2))
        rows.append(torch.stack(found, 1))
    return [[round(bits, 4) for bits in row] for row in torch.cat(rows).tolist()]


@torch.no_grad()
def changes() -> dict[str, dict[str, list[int | None]]]:
    """Return for each dtype how many letters two ways to write a text have in common."""
    unseen = parts()[1]
    found: dict[str, dict[str, list[int | None]]] = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = nn.whale(dtype)
        prompts = torch.cat([model.encode(unseen[n * APART :][:START]) for n in range(TEXTS)])
        alone = torch.cat([model.generate(prompt, STEPS) for prompt in prompts.split(1)])
        anew = [model.generate(prompt, STEPS, cached=False) for prompt in prompts.split(1)]
        found[str(dtype).removeprefix("torch.")] = {
            "no cache": [first(*pair) for pair in zip(alone, torch.cat(anew), strict=True)],
            "one batch": [
                first(*pair) for pair in zip(alone, model.generate(prompts, STEPS), strict=True)
            ],
        }
    return found


def first(text: torch.Tensor, other: torch.Tensor) -> int | None:
    """Return how many letters are written before two texts differ; None if they do not."""
    differ = (text != other).nonzero()
    return int(differ[0]) - START if len(differ) else None


def main() -> None:
    """Measure, and write."""
    torch.set_num_threads(1)
    bits = scores()
    print("bits:", dict(zip(SIZES, torch.tensor(bits).mean(0).tolist(), strict=True)))
    keep("whale_window", {"window": SIZES, "bits": bits})
    found = changes()
    for dtype, ways in found.items():
        print(dtype, {way: sum(n is not None for n in places) for way, places in ways.items()})
    keep("whale_rounding", {"torch": torch.__version__.split("+")[0], "letters": STEPS, **found})


if __name__ == "__main__":
    main()
