"""Measure on 160 windows, and on texts of its own, what the book's language model does.

    python tools/measure_whale.py      less than a minute on one CPU core

Two files in data/kept are for chapter 13, whose page has time for one window and a few letters.
whale_context.json: how many bits per character the model loses that reads only the last k
characters, for each window the mean over 12 places. whale_texts.json: 24 passages of the unseen
text, and how the model goes on after the first 16 characters of each, by temperature and top-p;
the n-th from seed n. All is computed in float64, so that rounding changes neither file.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from kept_runs import keep
from torch.nn.functional import cross_entropy

from attncore import models, nn
from attncore.training.texts import parts

LASTS = (1, 2, 4, 8, 16, 32)
WINDOWS, PLACES = 160, range(64, 256, 16)
SETTINGS = ((0, 1), (0.5, 1), (1, 0.8), (1, 1))  # temperature and top-p
PASSAGES, APART, START, STEPS = 24, 2400, 16, 150


@torch.no_grad()
def lost() -> list[list[float]]:
    """Return bits lost for each window and each number of characters read."""
    model = nn.whale(torch.float64)
    windows = model.encode(parts()[1])[0, : WINDOWS * 257].view(WINDOWS, 257)
    t = torch.tensor(PLACES)
    targets = windows[:, t + 1]

    def nats(logits: torch.Tensor) -> torch.Tensor:
        flat = cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
        return flat.view(targets.shape).mean(1)

    whole = nats(torch.cat([model(part[:, :-1])[:, t] for part in windows.split(8)]))
    rows = []
    for k in LASTS:
        ends = windows[:, t[:, None] + torch.arange(1 - k, 1)].flatten(0, 1)
        rows.append((nats(model(ends)[:, -1]) - whole) / math.log(2))
    return [[round(bits, 4) for bits in row] for row in torch.stack(rows, 1).tolist()]


def texts() -> list[dict[str, object]]:
    """Return the passages, with neither temperature nor top-p, and what is written after them."""
    model, unseen = models.whale(np.float64), parts()[1]
    own = [unseen[n * APART :][: START + STEPS] for n in range(PASSAGES)]
    found: list[dict[str, object]] = [{"temperature": None, "top_p": None, "texts": own}]
    for temperature, top_p in SETTINGS:
        wrote = []
        for n, passage in enumerate(own):
            wrote.append(
                model.generate(
                    model.encode(passage[:START]),
                    STEPS,
                    temperature=temperature,
                    top_p=top_p,
                    generator=np.random.default_rng(n) if temperature else None,
                )
            )
        rows = [model.decode(row) for (row,) in wrote]
        found.append({"temperature": temperature, "top_p": top_p, "texts": rows})
    return found


def main() -> None:
    """Measure, and write."""
    torch.set_num_threads(1)
    bits = lost()
    print("bits lost:", dict(zip(LASTS, np.mean(bits, 0).round(3).tolist(), strict=True)))
    keep("whale_context", {"last": LASTS, "bits": bits})
    keep("whale_texts", {"written": texts()})


if __name__ == "__main__":
    main()
