"""Train the three small models of chapter 13 from eight seeds each, and keep their curves.

    python tools/train_curves.py      less than a minute on one CPU core

One model reads the novel as characters, one as pieces of words, and one only its first 1,000
characters. Each is then scored on the end of the novel, which none has read. The chapter trains
each once, from seed 0, by the same recipe. After 200 steps the unseen text costs 3.6 to 3.7 bits
per character as characters, 3.1 to 3.5 as pieces, and 4.1 to 4.6 for the third model.

The file, data/kept/curves.json, has for each model and seed the bits per character, as means over
5 steps, and the scores at the end. On another machine the last digits differ.
"""

from __future__ import annotations

import math

import torch
from kept_runs import keep
from tokenizers import ByteLevelBPETokenizer
from torch.nn.functional import cross_entropy

from attncore.data import moby_dick
from attncore.nn import Decoder
from attncore.training.texts import parts

SIZES = {"d_model": 64, "layers": 1, "heads": 4, "kv_heads": 2, "context": 32}
STEPS, MEAN_OVER, SEEDS = 200, 5, 8


def train(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """Return the loss of each step, in nats per token."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, STEPS)
    losses = []
    for _ in range(STEPS):
        starts = torch.randint(len(tokens) - 32, (16, 1))
        windows = tokens[starts + torch.arange(33)]  # (B, T + 1)
        loss = cross_entropy(model(windows[:, :-1]).mT, windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return torch.tensor(losses)


@torch.no_grad()
def score(model: Decoder, row: torch.Tensor) -> tuple[float, float]:
    """Return nats per token of a row of tokens, and how many bits per character one nat is."""
    n = (len(row) - 1) // model.context * model.context  # whole windows
    x, y = row[:n].view(-1, model.context), row[1 : n + 1]
    nats = cross_entropy(model(x).flatten(0, 1), y).item()
    return nats, n / math.log(2) / len(model.decode(y))


def main() -> None:
    """Train, score, and write."""
    torch.set_num_threads(1)
    seen, unseen = parts()
    characters = "".join(sorted(set(moby_dick())))
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator([seen], vocab_size=512, show_progress=False)
    lessons = {
        "characters": (characters, seen),
        "pieces": (pieces, seen),
        "few characters": (characters, seen[:1000]),
    }
    kept = {}
    for name, (tokenizer, lesson) in lessons.items():
        curves, ends, nats = [], [], []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            model = Decoder(tokenizer, **SIZES)
            curve = train(model, model.encode(lesson)[0])
            per_token, bits = score(model, model.encode(unseen)[0])
            means = (bits * curve).view(-1, MEAN_OVER).mean(1)
            curves.append([round(mean, 3) for mean in means.tolist()])
            ends.append(round(per_token * bits, 4))
            nats.append(round(per_token, 4))
        kept[name] = {"curves": curves, "unseen": ends, "nats per token": nats}
        print(f"{name}: {min(ends)} to {max(ends)} bits per character of unseen text")
    steps = [*range(MEAN_OVER, STEPS + 1, MEAN_OVER)]
    keep("curves", {"steps": steps, "lessons": kept})


if __name__ == "__main__":
    main()
