"""Exercises of chapter 10: long sequences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attncore.exercises.exercise import Exercise
from attncore.long.linear import features

_rng = np.random.default_rng(8)


def _half(largest: float) -> tuple[float, float, np.ndarray]:
    """Return what one processor gives: the largest score, the two sums."""
    weights = np.exp(_rng.normal(size=5))
    return largest, weights.sum(), weights @ _rng.normal(size=(5, 3))


_HALVES = tuple((*_half(first), *_half(second)) for first, second in ((0.3, 1.7), (2.0, -1.0)))
# These overflow unless the larger one is taken off both, whichever half it is in.
_FAR = tuple((*_half(a), *_half(b)) for a, b in ((1000.0, 1001.0), (1000.0, 0.0), (0.0, 1000.0)))


def _merge(
    m1: float, total1: float, out1: np.ndarray, m2: float, total2: float, out2: np.ndarray
) -> np.ndarray:
    a, b = np.exp(m1 - max(m1, m2)), np.exp(m2 - max(m1, m2))
    return (a * out1 + b * out2) / (a * total1 + b * total2)


def _apart(out1: np.ndarray, total1: float, out2: np.ndarray, total2: float) -> np.ndarray:
    return (out1 / total1 + out2 / total2) / 2


def _longformer(T: int, half: int, tokens: list[int]) -> np.ndarray:
    i = np.arange(T)
    wide = np.isin(i, tokens)
    return (abs(i[:, None] - i) <= half) | wide[:, None] | wide


def _with(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[int, int, list[int]], np.ndarray]:
    """Return a mask that joins the window, and who is global, in another way."""

    def wrong(T: int, half: int, tokens: list[int]) -> np.ndarray:
        i = np.arange(T)
        return change(abs(i[:, None] - i) <= half, np.isin(i, tokens))

    return wrong


_D, _E = 4, 3
_PAST = features(np, _rng.normal(size=(6, _D)))
_STEP = (
    _PAST.T @ _rng.normal(size=(6, _E)),
    _PAST.sum(axis=0),
    *(_rng.normal(size=width) for width in (_D, _D, _E)),
)
_FIRST = (np.zeros((_D, _E)), np.zeros(_D), *(_rng.normal(size=width) for width in (_D, _D, _E)))


def _step(S: np.ndarray, z: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k = features(np, q), features(np, k)
    return q @ (S + np.outer(k, v)) / (q @ (z + k))


EXERCISES = {
    "10.1": Exercise(
        solve=lambda: 24,
        mistakes=(
            (lambda: 16, "that is the window alone"),
            (lambda: 20, "a global token sees all, and is seen by all: a row and a column"),
            (lambda: 27, "pairs that the window keeps already are counted twice"),
            (lambda: 28, "pairs that the window keeps already count once"),
            (lambda: 3, "that is what both keep; a pair counts if either keeps it"),
            (lambda: 36, "that is every pair"),
        ),
    ),
    "10.2": Exercise(
        solve=_merge,
        cases=(*_HALVES, *_FAR),
        mistakes=(
            (
                lambda m1, total1, out1, m2, total2, out2: (out1 + out2) / (total1 + total2),
                "the halves have taken off different largest scores: make them the same first",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: _apart(out1, total1, out2, total2),
                "the halves do not weigh the same: add the sums, then divide",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: _merge(
                    -m1, total1, out1, -m2, total2, out2
                ),
                "the half with the smaller scores is the one that fades",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: (
                    np.exp(m1 - max(m1, m2)) * out1 + np.exp(m2 - max(m1, m2)) * out2
                ),
                "divide by the sum of the weights, faded in the same way",
            ),
        ),
    ),
    "10.3": Exercise(
        solve=lambda: 15,
        mistakes=(
            (lambda: 13, "a window of 8 counts the token itself: it goes back 7"),
            (lambda: 12.5, "a window of 8 counts the token itself, and layers come whole"),
            (lambda: 14, "14 layers go back 98 tokens"),
            (lambda: 100 / 7, "layers come whole"),
            (lambda: 25, "that is for 4 on each side; a causal window looks back only"),
        ),
    ),
    "10.4": Exercise(
        solve=_longformer,
        cases=((7, 1, [2]), (9, 2, []), (8, 0, [0, 5])),
        mistakes=(
            (_with(lambda near, wide: near), "the global tokens are missing"),
            (_with(lambda near, wide: near | wide), "global tokens see all, too: their rows"),
            (
                _with(lambda near, wide: near | wide[:, None]),
                "all see them, too: the columns",
            ),
            (
                _with(lambda near, wide: near & (wide | wide[:, None])),
                "join with or: a pair is kept if either the window or a global token keeps it",
            ),
            (_with(lambda near, wide: wide | wide[:, None]), "the window is missing"),
            (
                _with(lambda near, wide: ~(near | wide | wide[:, None])),
                "true means may attend: yours is the other way round",
            ),
            (
                _with(lambda near, wide: np.tril(near | wide | wide[:, None])),
                "nothing said the mask is causal",
            ),
        ),
    ),
    "10.5": Exercise(
        solve=_step,
        cases=(_STEP, _FIRST),
        mistakes=(
            (
                lambda S, z, q, k, v: features(np, q) @ (S + np.outer(features(np, k), v)),
                "divide by phi(q) times the sum of the features",
            ),
            (
                lambda S, z, q, k, v: (
                    q @ (S + np.outer(features(np, k), v)) / (q @ (z + features(np, k)))
                ),
                "the query goes through phi too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ (S + np.outer(k, v)) / (features(np, q) @ (z + k))
                ),
                "the key goes through phi too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ (S + np.outer(features(np, k), v)) / (features(np, q) @ z)
                    if z.any()
                    else v * np.inf
                ),
                "the new key belongs in z too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ S / (features(np, q) @ z) if z.any() else v * np.nan
                ),
                "the token sees itself too: first add it to both sums, then ask",
            ),
        ),
    ),
}
