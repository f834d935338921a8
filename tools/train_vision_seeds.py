"""Train chapter 15's small vision transformer from 24 seeds, and measure what the chapter says.

    python tools/train_vision_seeds.py      about seven minutes on one CPU core

The seeds differ in the random start and in the order of the images; all learn from the same 1,437
images and are scored on the same 360, as `tools/train_vision.py` does it. Seeds 0 and 7 are the two
models that are kept in the package. What is measured, and kept as data/kept/vision_seeds.json:

- which share of the 360 is told right, with positions and without them;
- which share is still told right when four of the 16 patches are hidden, chosen at random, by the
  attention map of another image, of this image, of all images on average, by rollout, by ink, or
  by what the prediction needed;
- how maps, rollouts, needs and predictions of two seeds agree, for all 276 pairs;
- what the models tell on finer grids of patches than the one they learned, with their table of
  positions resized in several ways, or left out;
- how the share right grows with the images learned from, for five models that learn for 600 steps
  and for two baselines, nearest neighbour and logistic regression, which are tried on 24 other
  splits of the images as well.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch
from kept_runs import keep
from train_vision import CLASSES, HELD_OUT, SHAPE, SIZES, Recipe, parts, train

from attncore import models, softmax
from attncore.images import patches
from attncore.models import functional

SEEDS, DRAWS = 24, 5
STEPS, LONGER = 150, 600
LEARNED_FROM = (45, 90, 180, 360, 720, 1437)
Table = np.ndarray


def model_of(recipe: Recipe, learned: Any = None) -> models.VisionTransformer:
    """Return a model trained to the recipe's last step."""
    state = train(recipe, learned)[recipe.kept[-1]]
    named = {**SIZES, "positions": recipe.positions, "dtype": np.float32}
    model = models.VisionTransformer(SHAPE, CLASSES, **named)
    model.load_state_dict(state)
    return model


def right(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that is told right."""
    return float((logits.argmax(axis=1) == labels).mean())


def cls_maps(model: models.VisionTransformer, images: np.ndarray) -> np.ndarray:
    """Return where CLS attends in the last block, the mean over heads: `(B, T)`."""
    maps: np.ndarray = model.weights(images)[-1, :, :, 0, 1:].mean(axis=1)
    return maps


def needed(model: models.VisionTransformer, images: np.ndarray) -> np.ndarray:
    """Return how far each prediction's log-probability falls without each patch: `(B, T)`."""
    every = range(len(images))
    masks = (np.tile(keep, (len(images), 1)) for keep in ~np.eye(16, dtype=bool))
    logits = [model(images), *(model(images, keep) for keep in masks)]
    logs = np.log(softmax(np.array(logits)))[:, every, logits[0].argmax(axis=1)]  # (1 + T, B)
    return (logs[0] - logs[1:]).T


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean correlation of the rows."""
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]))


def meet(a: np.ndarray, b: np.ndarray) -> float:
    """Return how many rows have the same place on top."""
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())


def rollouts(model: models.VisionTransformer, images: np.ndarray) -> np.ndarray:
    """Return attention rollout of CLS, each layer's weights half those of staying: `(B, T)`."""
    flow = np.eye(17)
    for layer in model.weights(images).mean(axis=2):  # (B, 1 + T, 1 + T)
        flow = (layer + np.eye(17)) / 2 @ flow
    return flow[:, 0, 1:]


def without(model: models.VisionTransformer, images: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return the logits when the four patches with the largest marks are hidden."""
    rank = marks.argsort(axis=1, kind="stable").argsort(axis=1)
    logits: np.ndarray = model(images, rank < 12)
    return logits


def stretch(count: int, at: np.ndarray) -> np.ndarray:
    """Return the matrix that reads `count` values at places between them, linearly."""
    at = at.clip(0, count - 1)
    return np.clip(1 - abs(at[:, None] - np.arange(count)), 0, None)


def tables(model: models.VisionTransformer, at: np.ndarray, rng: Any) -> dict[str, Table]:
    """Return tables of positions for a grid of patches at these places of the old grid."""
    old = model.position[1:]
    linear, nearest = stretch(4, at), stretch(4, np.floor(at.clip(0, 3) + 0.25))
    found = {"interpolated": np.kron(linear, linear) @ old}
    found["nearest"] = np.kron(nearest, nearest) @ old
    found["shuffled"] = rng.permutation(found["interpolated"])
    found["none"] = np.zeros_like(found["interpolated"])
    return found


def on_grids(model: models.VisionTransformer, images: np.ndarray, labels: np.ndarray) -> Any:
    """Return the shares told right on two finer grids, by the way to resize the table."""
    rng = np.random.default_rng(0)
    window = np.lib.stride_tricks.sliding_window_view(images[..., 0], (2, 2), axis=(1, 2))
    fine = stretch(8, (np.arange(16) + 0.5) / 2 - 0.5)
    twice = np.einsum("ai,bij,cj->bac", fine, images[..., 0], fine)[..., None]
    grids = {
        "7 x 7": (window.reshape(len(images), 49, 4), np.arange(7) / 2),
        "8 x 8": (patches(twice.astype(np.float32), 2), (np.arange(8) + 0.5) / 2 - 0.5),
    }
    found: dict[str, dict[str, float]] = {}
    old = model.position
    for name, (cut, at) in grids.items():
        found[name] = {}
        model.position = old
        for way, table in tables(model, at, rng).items():
            model.position = np.concatenate([old[:1], table]).astype(np.float32)
            found[name][way] = right(functional.vision(model, cut, None), labels)
    model.position = old
    return found


def nearest(x: np.ndarray, y: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the digit of the nearest image learned from, by the squared distance of pixels."""
    a, b = x.reshape(len(x), -1), images.reshape(len(images), -1)
    return y[((a**2).sum(axis=1) - 2 * b @ a.T).argmin(axis=1)]


def logistic(x: np.ndarray, y: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return the digits by logistic regression: 500 steps of gradient descent."""
    a, b = (np.hstack([v.reshape(len(v), -1), np.ones((len(v), 1))]) for v in (x, images))
    W, hot = np.zeros((65, CLASSES)), np.eye(CLASSES)[y]
    for _ in range(500):
        W -= a.T @ (softmax(a @ W) - hot) / len(a)
    return (b @ W).argmax(axis=1)


BASELINES = {"nearest neighbour": nearest, "logistic regression": logistic}


def main() -> None:
    """Train, measure, and write."""
    torch.set_num_threads(1)
    (x, y), (images, labels) = parts()
    small = images.astype(np.float32)
    ink = patches(small, SIZES["size"]).sum(axis=-1)
    draws = np.random.default_rng(0).random((DRAWS, *ink.shape))
    found: dict[str, Any] = {
        "right": [],
        "right without positions": [],
        "hidden": {},
        "same patch on top": {"map": [], "another image": [], "rollout": []},
        "needed is blank": [],
        "like the ink": {"map": [], "rollout": []},
        "map like rollout": [],
        "grids": {},
    }
    maps, flows, needs, told = [], [], [], []

    def add(at: dict[str, list[float]], name: str, value: float) -> None:
        at.setdefault(name, []).append(round(value, 4))

    for seed in range(SEEDS):
        model = model_of(Recipe(seed, True, (STEPS,)))
        own, flow, need = (f(model, small) for f in (cls_maps, rollouts, needed))
        others = [np.roll(own, k, axis=0) for k in range(1, DRAWS + 1)]
        logits = model(small)
        found["right"].append(round(right(logits, labels), 4))
        bare = model_of(Recipe(seed, False, (2 * STEPS,)))
        found["right without positions"].append(round(right(bare(small), labels), 4))
        average = np.tile(own.mean(axis=0), (HELD_OUT, 1))
        ways = {"random": draws, "another image": others, "all images": [average], "map": [own]}
        ways |= {"rollout": [flow], "ink": [ink], "needed": [need]}
        for way, marks in ways.items():
            shares = [right(without(model, small, m), labels) for m in marks]
            add(found["hidden"], way, float(np.mean(shares)))
        tops = found["same patch on top"]
        add(tops, "map", meet(own, need))
        add(tops, "another image", float(np.mean([meet(m, need) for m in others])))
        add(tops, "rollout", meet(flow, need))
        best = need.argmax(axis=1)
        found["needed is blank"].append(round(float((ink[range(HELD_OUT), best] == 0).mean()), 4))
        add(found["like the ink"], "map", alike(own, ink))
        add(found["like the ink"], "rollout", alike(flow, ink))
        found["map like rollout"].append(round(alike(own, flow), 4))
        for grid, shares_of in on_grids(model, small, labels).items():
            for way, share in shares_of.items():
                add(found["grids"].setdefault(grid, {}), way, share)
        for kept, value in ((maps, own), (flows, flow), (needs, need), (told, logits)):
            kept.append(value)
        print(f"{seed}: right {found['right'][-1]:.3f}", flush=True)

    pairs = list(combinations(range(SEEDS), 2))
    found["pairs"] = {
        "maps alike": [round(alike(maps[a], maps[b]), 3) for a, b in pairs],
        "rollouts alike": [round(alike(flows[a], flows[b]), 3) for a, b in pairs],
        "same top of the map": [round(meet(maps[a], maps[b]), 3) for a, b in pairs],
        "same patch needed most": [round(meet(needs[a], needs[b]), 3) for a, b in pairs],
        "same prediction": [round(meet(told[a], told[b]), 3) for a, b in pairs],
    }

    found["learned from"] = {}
    for n in LEARNED_FROM:
        shares_of = found["learned from"].setdefault(str(n), {})
        for seed in range(DRAWS):
            some = np.random.default_rng(seed).permutation(len(x))[:n]
            model = model_of(Recipe(seed, True, (LONGER,)), (x[some], y[some]))
            add(shares_of, "transformer", right(model(small), labels))
            for name, method in BASELINES.items():
                guess = method(x[some], y[some], images)
                add(shares_of, name, float((guess == labels).mean()))
        print(n, shares_of, flush=True)

    found["splits"] = {}
    every, digit = np.concatenate([x, images]), np.concatenate([y, labels])
    for seed in range(SEEDS):
        order = np.random.default_rng(100 + seed).permutation(len(every))
        test, rest = order[:HELD_OUT], order[HELD_OUT:]
        for name, method in BASELINES.items():
            guess = method(every[rest], digit[rest], every[test])
            add(found["splits"], name, float((guess == digit[test]).mean()))
    path = keep("vision_seeds", found)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
