"""Measure where a head that has nothing to say looks, and what windows do to it.

    python tools/measure_sinks.py      about five minutes on one CPU core

Two files in data/kept are for chapter 10. sinks.json: one head of attention, trained from eight
random starts with a sink logit and without one, on texts in which it must rest most of the time:
words follow one another by chance, but after one of three trigger words the word before the trigger
comes again (a task like that of Guo et al., 2024). It has shares of weight, and nats per word where
the word before is no trigger ("plain") and where it is one ("trigger"). whale_sinks.json: bits per
character of the book's model on 160 windows of unseen text when every layer sees only the last
tokens, or the last tokens and the first ones; the mean over the last 128 places of each window.
On another machine the last digits may differ.
"""

from __future__ import annotations

import math
from typing import Any
from unittest.mock import patch

import torch
from kept_runs import keep
from torch.nn.functional import cross_entropy, gelu

from attncore import attention, attention_weights, nn
from attncore.positions import rope
from attncore.training.texts import parts

WORDS, T, d, TRIGGERS = 16, 32, 32, 3  # word 0 begins each text; the words 1 to 3 are triggers
STARTS, STEPS, LATE = 8, 500, 12  # places from 12 on are scored
SEEN = {"all": (T, 0), "last 8": (8, 0), "first and last 7": (7, 1)}  # window, first tokens
WINDOWS = {  # of whale
    "all": (256, 0),
    "last 32": (32, 0),
    "first 1, last 31": (31, 1),
    "first 4, last 28": (28, 4),
    "last 16": (16, 0),
    "first 4, last 12": (12, 4),
}


def seen(length: int, window: int, first: int) -> torch.Tensor:
    """Return the causal mask of the last `window` tokens and the `first` ones."""
    i, j = torch.arange(length)[:, None], torch.arange(length)
    return (j <= i) & ((i - j < window) | (j < first))


def chain() -> torch.Tensor:
    """Return how likely each word follows each, `(WORDS, WORDS)`; nothing goes back to word 0."""
    odds = torch.rand(WORDS, WORDS, generator=torch.Generator().manual_seed(0)).pow(6)
    odds[:, 0] = 0
    return odds / odds.sum(1, keepdim=True)


def batch(seed: int, texts: int = 32) -> torch.Tensor:
    """Return texts `(texts, T + 1)` of the task."""
    draw, odds = torch.Generator().manual_seed(seed), chain()
    x = torch.zeros(texts, T + 1, dtype=torch.long)
    for t in range(1, T + 1):
        x[:, t] = torch.multinomial(odds[x[:, t - 1]], 1, generator=draw)[:, 0]
        if t > 2:
            again = is_trigger(x[:, t - 1])
            x[again, t] = x[again, t - 2]
    return x


def is_trigger(x: torch.Tensor) -> torch.Tensor:
    """Tell which words are triggers."""
    return (x >= 1) & (x <= TRIGGERS)


class Model(torch.nn.Module):
    """One head of causal attention and a network, with turned queries and keys."""

    def __init__(self, sink: bool) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, d)
        self.maps = torch.nn.Linear(d, 3 * d, bias=False)
        self.out = torch.nn.Linear(d, d, bias=False)
        self.up, self.down = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)
        self.norm1, self.norm2 = torch.nn.LayerNorm(d), torch.nn.LayerNorm(d)
        self.logits = torch.nn.Linear(d, WORDS)
        self.sinks = torch.nn.Parameter(torch.zeros(1)) if sink else None

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return query, key and value of each word, `(B, 1, T, d)`."""
        q, k, v = self.maps(self.norm1(self.embed(x)))[:, None].chunk(3, -1)
        places = torch.arange(x.shape[1])
        return rope(q, places), rope(k, places), v

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return logits of the next word, `(B, T, WORDS)`."""
        found = attention(*self.heads(x), mask, sinks=self.sinks)[:, 0]
        x = self.embed(x) + self.out(found)
        return self.logits(x + self.down(gelu(self.up(self.norm2(x)))))


def trained(start: int, sink: bool) -> Model:
    """Return a model trained from a random start."""
    torch.manual_seed(start)
    model, mask = Model(sink), seen(T, T, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    for step in range(STEPS):
        x = batch(10_000 * start + step)
        loss = cross_entropy(model(x[:, :-1], mask).flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@torch.no_grad()
def described(model: Model) -> dict[str, Any]:
    """Return where a trained model looks, and its nats per word with and without windows."""
    text = batch(10**6, texts=512)
    x, late = text[:, :-1], torch.arange(T) >= LATE
    places = {"plain": ~is_trigger(x) & late, "trigger": is_trigger(x) & late}
    q, k, _ = model.heads(x)
    weights = attention_weights(q, k, seen(T, T, 0), sinks=model.sinks)[:, 0]
    before = torch.nn.functional.pad(torch.diagonal(weights, -1, 1, 2), (1, 0))
    looks = {"first word": weights[:, :, 0], "word before": before, "sum": weights.sum(-1)}
    found: dict[str, Any] = {
        name: {kind: round(share[at].mean().item(), 4) for kind, at in places.items()}
        for name, share in looks.items()
    }
    found["nats"] = {}
    for name, (window, first) in SEEN.items():
        logits = model(x, seen(T, window, first)).transpose(1, 2)
        nats = cross_entropy(logits, text[:, 1:], reduction="none")
        found["nats"][name] = {
            kind: round(nats[at].mean().item(), 4) for kind, at in places.items()
        }
    return found


@torch.no_grad()
def whale_bits() -> list[list[float]]:
    """Return whale's bits per character, a row for each window of text, a number for each mask."""
    model = nn.whale(torch.float64)
    texts = model.encode(parts()[1])[0, : 160 * 257].view(160, 257)
    columns = []
    for window, first in WINDOWS.values():
        mask = seen(256, window, first)

        def limited(
            q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, mask: Any = mask, **__: Any
        ) -> torch.Tensor:
            out: torch.Tensor = attention(q, k, v, mask)
            return out

        with patch("attncore.models.functional.attention", limited):
            logits = torch.cat([model(part[:, :-1])[:, -128:] for part in texts.split(8)])
        nats = cross_entropy(logits.transpose(1, 2), texts[:, -128:], reduction="none")
        columns.append(nats.mean(1) / math.log(2))
    return [[round(bits, 4) for bits in row] for row in torch.stack(columns, 1).tolist()]


def main() -> None:
    """Measure, and write."""
    torch.set_num_threads(1)
    bits = whale_bits()
    print(dict(zip(WINDOWS, torch.tensor(bits).mean(0).tolist(), strict=True)))
    keep("whale_sinks", {"seen": list(WINDOWS), "bits": bits})
    runs: dict[str, Any] = {}
    for name, sink in (("no sink logit", False), ("sink logit", True)):
        runs[name] = [described(trained(start, sink)) for start in range(STARTS)]
        for run in runs[name]:
            print(name, run)
    keep("sinks", {"steps": STEPS, "runs": runs})


if __name__ == "__main__":
    main()
