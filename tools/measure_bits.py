"""Measure what the book's language model loses if its cache keeps keys and values in few bits.

    python tools/measure_bits.py      about two minutes on one CPU core

Writes data/kept/whale_bits.json for chapter 11: for each way to keep keys and values, the bits per
character that the model loses on 40 windows of the unseen text, spread over all of it. Numbers are
whole numbers of few bits with a low end and a step of 16 bits each: one pair for a row of one
token, or one pair for a channel of 32 tokens in a row. A group of 32 is rounded when it is full;
queries in the group itself read it as it was, for the steps of a channel would tell them of later
tokens.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from kept_runs import keep
from torch.nn.functional import cross_entropy

from attncore import nn, softmax
from attncore.training.texts import parts

WINDOWS, LENGTH, GROUP = 40, 256, 32
WAYS = [  # bits of the keys, shared along; bits of the values, shared along
    (16, "none", 16, "none"),
    (8, "token", 8, "token"),
    (8, "channel", 8, "token"),
    (4, "token", 4, "token"),
    (4, "channel", 4, "token"),
    (4, "token", 16, "none"),
    (4, "channel", 16, "none"),
    (16, "none", 4, "token"),
    (2, "token", 2, "token"),
    (2, "channel", 2, "token"),
]


def there_and_back(x: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
    """Return numbers as they come back from whole numbers of few bits."""
    low = x.amin(axis, keepdim=True)
    step = (x.amax(axis, keepdim=True) - low) / (2**bits - 1)
    low, step = (a.half().double() for a in (low, step))
    whole = ((x - low) / step.clamp(min=1e-8)).round().clamp(0, 2**bits - 1)
    return low + step * whole


def kept(x: torch.Tensor, bits: int, shared: str) -> torch.Tensor:
    """Return keys or values `(B, G, T, D)` as a cache keeps them."""
    if shared == "none":
        return x
    if shared == "token":
        return there_and_back(x, bits, -1)
    B, G, T, D = x.shape
    groups = x.reshape(B, G, T // GROUP, GROUP, D)
    return there_and_back(groups, bits, -2).reshape(x.shape)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, way: Any) -> torch.Tensor:
    """Return causal attention `(B, H, T, D)` to a cache in few bits."""
    T, each = q.shape[2], q.shape[1] // k.shape[1]
    group = torch.arange(T) // GROUP
    own = group[:, None] == group  # the group of the query is not full yet
    k, v, low_k, low_v = (
        a.repeat_interleave(each, 1) for a in (k, v, kept(k, *way[:2]), kept(v, *way[2:]))
    )
    scores = torch.where(own, q @ k.mT, q @ low_k.mT) * q.shape[-1] ** -0.5
    weights = softmax(scores, torch.ones(T, T, dtype=torch.bool).tril())
    return (weights * own) @ v + (weights * ~own) @ low_v


@torch.no_grad()
def bits_of(model: Any, windows: torch.Tensor, way: Any) -> list[float]:
    """Return bits per character for each window `(T + 1,)`."""
    found: dict[str, torch.Tensor] = {}

    def look(name: str, value: torch.Tensor) -> torch.Tensor | None:
        part = name.rsplit(".", 1)[-1]
        found[part] = value
        return attend(found["q"], found["k"], found["v"], way) if part == "heads" else None

    bits = []
    for part in windows.split(8):
        logits = model(part[:, :-1], look=look)
        nats = cross_entropy(logits.transpose(1, 2), part[:, 1:], reduction="none")
        bits += (nats.mean(1) / math.log(2)).tolist()
    return bits


def main() -> None:
    """Measure, and write."""
    torch.set_num_threads(1)
    model = nn.whale(torch.float64)
    unseen = model.encode(parts()[1])[0]
    every = len(unseen) // WINDOWS
    windows = torch.stack([unseen[n * every :][: LENGTH + 1] for n in range(WINDOWS)])
    rows = []
    for way in WAYS:
        rows.append([round(bits, 5) for bits in bits_of(model, windows, way)])
        lost = torch.tensor(rows[-1]).sub(torch.tensor(rows[0])).mean().item()
        print(way, f"{lost:+.5f}")
    print("all 16 bits:", sum(rows[0]) / WINDOWS)
    keep("whale_bits", {"ways": WAYS, "every": every, "bits": rows})


if __name__ == "__main__":
    main()
