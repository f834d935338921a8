"""Train the chapter on vision's three small models, and keep them in the package.

    python tools/train_vision.py      ten seconds on one CPU core

Two models with positions differ only in the random start and in the order of the images they
learn from; the third has no positions and learns for twice the steps. Each is trained as the
chapter's own cells do it, on 1,437 of the handwritten digits, and scored on the other 360, of which
they tell 95, 94 and 67 % right.

The second model is no typical one, and the chapter says so: `tools/train_vision_seeds.py` trains
24 such models, and of the first fourteen this is the one for which another image's attention map
does most nearly what the image's own does.

The files are this script's result on one machine. Elsewhere rounding differs, and with it every
bit; the scores should come out about the same.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from kept_models import keep
from torch.nn.functional import cross_entropy

from attncore import nn
from attncore.data import digits
from attncore.models import trained

SHAPE, CLASSES = (8, 8, 1), 10
SIZES = {"size": 2, "d_model": 32, "layers": 2, "heads": 4}
HELD_OUT = 360
RATE, BATCH = 0.004, 64


class Recipe(NamedTuple):
    """What to train, and at which steps to keep it; the last ends the training."""

    seed: int
    positions: bool
    kept: tuple[int, ...]


RECIPES = {
    "vision": Recipe(seed=0, positions=True, kept=(0, 30, 45, 60, 100, 150)),
    "vision_second": Recipe(seed=7, positions=True, kept=(0, 30, 45, 60, 100, 150)),
    "vision_no_positions": Recipe(seed=0, positions=False, kept=(300,)),
}
"""Of the third model the chapter looks at the end alone."""


def parts() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images `(B, 8, 8, 1)` from 0 to 1 and their digits: to learn from, and held out."""
    images, labels = digits()
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[:HELD_OUT], order[HELD_OUT:]
    images = images[..., None] / 16
    return (images[train], labels[train]), (images[test], labels[test])


Learned = tuple[np.ndarray, np.ndarray]


def train(recipe: Recipe, learned: Learned | None = None) -> dict[int, dict[str, np.ndarray]]:
    """Return the parameters of a model at each step to keep.

    It learns from all images but those held out, unless others are given with their digits.
    """
    images, labels = parts()[0] if learned is None else learned
    x, y = torch.from_numpy(images).float(), torch.from_numpy(labels)
    torch.manual_seed(recipe.seed)
    model = nn.VisionTransformer(SHAPE, CLASSES, positions=recipe.positions, **SIZES)
    steps = recipe.kept[-1]
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    states = {}
    for step in range(steps + 1):
        if step in recipe.kept:
            states[step] = {name: p.numpy().copy() for name, p in model.state_dict().items()}
        if step < steps:
            some = torch.randint(len(x), (BATCH,))
            loss = cross_entropy(model(x[some]), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return states


def share_right(name: str, step: int | None = None) -> float:
    """Return how many of the held-out images a kept model tells right."""
    _, (images, labels) = parts()
    return float((trained(name, step)(images).argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, keep and score."""
    torch.set_num_threads(1)
    for name, recipe in RECIPES.items():
        named = {**SIZES, "positions": recipe.positions}
        path = keep(name, "VisionTransformer", [SHAPE, CLASSES], named, train(recipe))
        scores = {step: round(share_right(name, step), 3) for step in recipe.kept}
        print(f"{path.name}: {path.stat().st_size:,} bytes, right at each step {scores}, SHA-256")
        print(hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
