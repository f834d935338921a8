"""Train the small model of chapter 13 with many settings and seeds, and keep what came of each.

    python tools/train_choices.py      about six minutes on one CPU core

The model reads the novel as characters, as the first one of train_curves.py. Four questions:

rates       how the learning rate, from 0.0001 to 1 and the same at each step, changes what is
            learned in 400 steps, from six seeds each
schedules   at 0.003 and 0.01: a decay to 0, the same after a warm-up over the first tenth of the
            steps, and this with gradients clipped to length 1
lengths     1,500 steps on 20,000 characters and on all that are seen, from three seeds each
helps       the same on 20,000 with dropout in attention, and with weight decay

The file, data/kept/choices.json, has bits per character: of the steps, as means, and of the end
of the novel, which none has read. On another machine the last digits differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from kept_runs import keep
from torch import Tensor
from torch.nn.functional import cross_entropy
from train_curves import SIZES, parts

from attncore.data import moby_dick
from attncore.nn import Decoder

SEEN, UNSEEN = parts()
CHARACTERS = "".join(sorted(set(moby_dick())))
STEPS, MEAN_OVER, SEEDS = 400, 20, range(6)
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
LONG, LOOK_EVERY, FEW_SEEDS = 1500, 100, range(3)
LENGTHS = (20_000, len(SEEN))
BITS = 1 / math.log(2)

Schedule = Callable[[float], float]  # how far a training is, 0 to 1 -> a share of the rate


def warm(far: float) -> float:
    """Grow from 0 to 1 over the first tenth."""
    return min(1.0, 10 * far)


def decay(far: float) -> float:
    """Fall from 1 to 0 as half a wave of the cosine."""
    return (1 + math.cos(math.pi * far)) / 2


def both(far: float) -> float:
    """Grow, then fall."""
    return warm(far) * decay(far)


def windows(text: str, model: Decoder) -> Tensor:
    """Return a text as windows of T + 1 tokens that overlap by one, (B, T + 1)."""
    return model.encode(text)[0].unfold(0, model.context + 1, model.context)


@torch.no_grad()
def bits(model: Decoder, rows: Tensor) -> float:
    """Return bits per character, with dropout off."""
    model.eval()
    nats = cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:]).item()
    model.train()
    return round(nats * BITS, 4)


def train(
    seed: int,
    *,
    rate: float,
    text: str = SEEN,
    steps: int = STEPS,
    schedule: Schedule = lambda far: 1.0,
    clip: float = math.inf,
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    look: Callable[[int, Decoder], None] = lambda step, model: None,
) -> tuple[Decoder, list[float], list[float]]:
    """Return a model, the loss of each step in bits, and the length of each gradient."""
    torch.manual_seed(seed)
    model = Decoder(CHARACTERS, **SIZES, dropout=dropout)
    tokens = model.encode(text)[0]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=weight_decay, fused=True
    )
    losses, lengths = [], []
    look(0, model)
    for step in range(1, steps + 1):
        starts = torch.randint(len(tokens) - model.context, (16, 1))
        rows = tokens[starts + torch.arange(model.context + 1)]
        optimizer.param_groups[0]["lr"] = rate * schedule((step - 0.5) / steps)
        loss = cross_entropy(model(rows[:, :-1]).mT, rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        lengths.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        optimizer.step()
        losses.append(loss.item() * BITS)
        look(step, model)
    return model, losses, lengths


def means(numbers: list[float]) -> list[float]:
    """Return means over MEAN_OVER steps; a run that has burst has large numbers or none."""
    return [round(mean, 3) for mean in torch.tensor(numbers).view(-1, MEAN_OVER).mean(1).tolist()]


def over_seeds(**settings: Any) -> dict[str, Any]:
    """Train from each seed, and return curves, scores on unseen text, and gradients' lengths."""
    found: dict[str, Any] = {"curves": [], "unseen": [], "gradient": []}
    for seed in SEEDS:
        model, losses, lengths = train(seed, **settings)
        found["curves"].append(means(losses))
        found["unseen"].append(bits(model, windows(UNSEEN, model)))
        found["gradient"].append(means(lengths))
    return found


def epochs(text: str, **settings: Any) -> dict[str, Any]:
    """Train long on a text, and return scores on that text and on unseen text, on the way."""
    found: dict[str, list[list[float]]] = {"seen": [], "unseen": []}
    for seed in FEW_SEEDS:
        curves: dict[str, list[float]] = {"seen": [], "unseen": []}

        def look(step: int, model: Decoder, curves: dict[str, list[float]] = curves) -> None:
            if step % LOOK_EVERY == 0:
                for name, part in (("seen", text), ("unseen", UNSEEN)):
                    curves[name].append(bits(model, windows(part[:20_000], model)))

        train(seed, text=text, steps=LONG, rate=0.003, look=look, **settings)
        for name, curve in curves.items():
            found[name].append(curve)
    return found


def rates() -> dict[str, Any]:
    """Return what came of each rate."""
    return {str(rate): over_seeds(rate=rate) for rate in RATES}


def schedules() -> dict[str, Any]:
    """Return what came of each schedule, at two rates; without one, `rates` has it."""
    ways = {
        "decay": {"schedule": decay},
        "warm-up and decay": {"schedule": both},
        "the same, clipped": {"schedule": both, "clip": 1.0},
    }
    return {
        str(rate): {name: over_seeds(rate=rate, **way) for name, way in ways.items()}
        for rate in (0.003, 0.01)
    }


def lengths() -> dict[str, Any]:
    """Return what came of texts of different lengths."""
    return {str(n): epochs(SEEN[:n]) for n in LENGTHS}


def helps() -> dict[str, Any]:
    """Return what came of ways to learn less by heart."""
    text = SEEN[:20_000]
    return {
        "dropout 0.2": epochs(text, dropout=0.2),
        "weight decay 0.1": epochs(text, weight_decay=0.1),
        "weight decay 1": epochs(text, weight_decay=1.0),
    }


def main() -> None:
    """Train all, and write."""
    torch.set_num_threads(1)
    keep(
        "choices",
        {
            "steps": [*range(MEAN_OVER, STEPS + 1, MEAN_OVER)],
            "rates": rates(),
            "schedules": schedules(),
            "long steps": [*range(0, LONG + 1, LOOK_EVERY)],
            "lengths": lengths(),
            "helps": helps(),
        },
    )


if __name__ == "__main__":
    main()
