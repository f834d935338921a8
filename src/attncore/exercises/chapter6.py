"""Exercises of chapter 6: many heads."""

from __future__ import annotations

import numpy as np

from attncore.core.attention import attention
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(5)
_X = _rng.normal(size=(5, 12))
_HEADS = _rng.normal(size=(3, 5, 2))  # (H, T, E)
_W_O = _rng.normal(size=(6, 7))
_WIDER = _rng.normal(size=(2, 4, 3))
_Q = _rng.normal(size=(6, 4, 5))  # H = 6
_K, _V = _rng.normal(size=(2, 3, 7, 5))  # G = 3


def _split(x: np.ndarray, H: int) -> np.ndarray:
    return x.reshape(len(x), H, -1).swapaxes(0, 1)


EXERCISES = {
    "6.1": Exercise(
        solve=lambda: 2 * 32**2 + 2 * 32 * 16,
        mistakes=(
            (lambda: 4 * 32**2, "that is with 4 key and value heads; here there are 2"),
            (lambda: 2 * 32**2 + 2 * 2 * 8, "each map to keys or values reads all 32 features"),
            (lambda: 2 * 32**2 + 32 * 16, "keys and values have a map each"),
            (lambda: 32**2 + 2 * 32 * 16, "the output map is missing"),
        ),
    ),
    "6.2": Exercise(
        solve=_split,
        cases=((_X, 3), (_X, 4), (_X[:2], 6)),
        mistakes=(
            (
                lambda x, H: x.reshape(H, len(x), -1),
                "that cuts the numbers in memory order: each head gets pieces of several words",
            ),
            (
                lambda x, H: x.reshape(len(x), -1, H).transpose(2, 0, 1),
                "head 0 has features 0, H, 2H, ...; it should have the first D",
            ),
        ),
    ),
    "6.3": Exercise(
        solve=lambda heads, W_O: np.concatenate(list(heads), axis=1) @ W_O,
        cases=((_HEADS, _W_O), (_WIDER, _W_O)),
        mistakes=(
            (
                lambda heads, W_O: heads.reshape(heads.shape[1], -1) @ W_O,
                "reshape mixes words and heads: lay the heads of one word side by side",
            ),
            (
                lambda heads, W_O: np.concatenate(list(heads[::-1]), axis=1) @ W_O,
                "the heads are in reverse order",
            ),
            (
                lambda heads, W_O: heads.transpose(1, 2, 0).reshape(heads.shape[1], -1) @ W_O,
                "the features of the heads alternate; each head's should stay together",
            ),
        ),
    ),
    "6.4": Exercise(
        solve=lambda: 3,
        mistakes=(
            (lambda: 5, "13 modulo 8 deals the heads out like cards; neighbours share one"),
            (lambda: 3.25, "a head has a whole number: leave out the remainder"),
            (lambda: 4, "13 divided by 4 is 3 and a bit, and heads are counted from 0"),
            (lambda: 13, "there are only 8 key and value heads"),
        ),
    ),
    "6.5": Exercise(
        solve=attention,
        cases=((_Q, _K, _V), (_Q[:3], _K, _V), (_Q, _K[:1], _V[:1])),
        mistakes=(
            (
                lambda q, k, v: attention(
                    q, np.tile(k, (len(q) // len(k), 1, 1)), np.tile(v, (len(q) // len(v), 1, 1))
                ),
                "tile deals the heads out in turn; neighbouring query heads share one: repeat",
            ),
        ),
    ),
}
