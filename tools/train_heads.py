"""Train what chapter 6 shows of heads: how many a task needs, and what sharing keys costs.

    python tools/train_heads.py

"blur": chapter 6's two marked words, with 1, 2 and 4 heads, and with 4 heads that share keys and
values; ten random starts each. "sharing": a language model of about a hundred thousand numbers on
Moby-Dick with 8 query heads and 8, 4, 2 and 1 key-value heads, four random starts each, scored in
bits a character on text it has not seen. Both together take about four minutes on one CPU core. The
file is this script's result on one machine; elsewhere the last digits may differ.
"""

from __future__ import annotations

import numpy as np
import torch
from kept_runs import keep

from attncore import models, nn
from attncore.data import moby_dick
from attncore.training.scores import bits_per_character, loss
from attncore.training.texts import parts

BLUR = [(1, 1), (2, 2), (4, 4), (4, 2), (4, 1)]  # heads, key-value heads
SHARED = [8, 4, 2, 1]  # key-value heads of 8 query heads
SIZES = {"d_model": 64, "layers": 2, "heads": 8, "context": 64}
STARTS, LM_STARTS, LM_STEPS = 10, 4, 400


def batch(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 64 sequences of 8 words `(64, 8, 16)`, and the 12 numbers of the marked two."""
    draw = np.random.default_rng(seed)
    x = np.zeros((64, 8, 16))
    x[..., :6] = draw.normal(size=(64, 8, 6))
    place = draw.random((64, 8)).argsort(axis=1)[:, :2]
    rows = np.arange(64)[:, None]
    x[rows, place, [14, 15]] = 4.0  # the marks A and B
    return x, x[rows, place, :6].reshape(64, 1, 12).repeat(8, axis=1)


def blur(heads: int, kv_heads: int, start: int, steps: int = 400) -> float:
    """Return the error of a layer trained from a start, over the mean's, on unseen words."""
    layer = models.MultiHeadAttention(16, heads, kv_heads, rng=start)
    adam = models.Adam(layer.state_dict(), rate=0.02)
    for step in range(steps):
        x, target = batch(10_000 * start + step)
        y, backward = models.with_gradient(layer, x)
        d_y = np.zeros_like(y)
        d_y[..., :12] = 2 * (y[..., :12] - target) / target.size
        adam.step(backward(d_y))
    x, target = batch(10_000 * start + steps)
    return float(np.mean((layer(x)[..., :12] - target) ** 2) / target.var())


def language_model(kv_heads: int, start: int) -> tuple[float, int]:
    """Return the bits a character on unseen text of a model trained from a start, and its size."""
    torch.manual_seed(start)
    text, unseen = parts()
    model = nn.Decoder("".join(sorted(set(moby_dick()))), kv_heads=kv_heads, **SIZES)
    tokens = model.encode(text)[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, LM_STEPS)
    length, draw = model.context + 1, torch.Generator().manual_seed(start)  # the same windows
    for _ in range(LM_STEPS):
        at = torch.randint(len(tokens) - length, (32,), generator=draw)
        optimizer.zero_grad()
        loss(model, torch.stack([tokens[i : i + length] for i in at])).backward()
        optimizer.step()
        schedule.step()
    return bits_per_character(model, unseen), sum(p.numel() for p in model.parameters())


def main() -> None:
    """Train all, print what came out, and keep it."""
    torch.set_num_threads(1)
    tasks, bits, sizes = {}, {}, {}
    for heads, kv_heads in BLUR:
        errors = [round(blur(heads, kv_heads, start), 4) for start in range(STARTS)]
        tasks[f"{heads}/{kv_heads}"] = errors
        print(heads, kv_heads, errors, flush=True)
    for kv_heads in SHARED:
        runs = [language_model(kv_heads, start) for start in range(LM_STARTS)]
        bits[str(kv_heads)] = [round(score, 4) for score, _ in runs]
        sizes[str(kv_heads)] = runs[0][1]
        print(kv_heads, bits[str(kv_heads)], sizes[str(kv_heads)], flush=True)
    keep("heads", {"blur": tasks, "bits": bits, "parameters": sizes})


if __name__ == "__main__":
    main()
