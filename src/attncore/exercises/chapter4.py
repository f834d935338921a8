"""Exercises of chapter 4: self- and cross-attention."""

from __future__ import annotations

import math

import numpy as np

from attncore.core.attention import attention
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(4)
_X = _rng.normal(size=(5, 6))  # all widths differ, so that a wrong one shows
_C = _rng.normal(size=(7, 6))
_MAPS = tuple(_rng.normal(size=(6, width)) for width in (4, 4, 3))
_WIDER = tuple(_rng.normal(size=(6, width)) for width in (7, 7, 2))


def _cross(X: np.ndarray, C: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, C @ W_K, C @ W_V)


def _scaled_by(X: np.ndarray, maps: tuple[np.ndarray, ...], scale: float) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, X @ W_K, X @ W_V, scale=scale)


def _down_the_columns(X: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return softmax(X @ W_Q @ (X @ W_K).T / math.sqrt(W_K.shape[1]), axis=0) @ X @ W_V


EXERCISES = {
    "4.1": Exercise(
        solve=lambda: 4 * 32**2 + 4 * 32,
        mistakes=(
            (lambda: 3 * 32**2, "the output map and the biases are missing"),
            (lambda: 4 * 32**2, "each of the four maps has a bias of 32 numbers too"),
            (lambda: 3 * 32**2 + 3 * 32, "the output map, with its bias, is missing"),
        ),
    ),
    "4.2": Exercise(
        solve=lambda X, *maps: _cross(X, X, *maps),
        cases=((_X, *_MAPS), (_X[:2], *_WIDER)),
        mistakes=(
            (
                lambda X, *maps: _scaled_by(X, maps, 1.0),
                "the scores are not divided by the root of the key width",
            ),
            (
                lambda X, *maps: _scaled_by(X, maps, 1 / math.sqrt(X.shape[1])),
                "the scale is the width of the keys, not of X",
            ),
            (
                lambda X, *maps: _scaled_by(X, maps, 1 / maps[0].shape[1]),
                "divide by the root of the key width, not by the width",
            ),
            (
                lambda X, *maps: _scaled_by(X, maps, 1 / math.sqrt(maps[2].shape[1])),
                "the scale is the width of the keys, not of the values",
            ),
            (_down_the_columns, "softmax went down the columns: each query's row must sum to 1"),
            (
                lambda X, W_Q, W_K, W_V: X @ W_Q @ (X @ W_K).T / math.sqrt(W_K.shape[1]) @ X @ W_V,
                "these are scores, not weights: softmax is missing",
            ),
            (lambda X, W_Q, W_K, W_V: attention(X @ W_K, X @ W_Q, X @ W_V), "Q and K are swapped"),
        ),
    ),
    "4.3": Exercise(
        solve=_cross,
        cases=((_X, _C, *_MAPS), (_C[:3], _X, *_WIDER)),
        mistakes=(
            (
                lambda X, C, *maps: _cross(X, X, *maps),
                "this is self-attention: keys and values come from C",
            ),
            (
                lambda X, C, W_Q, W_K, W_V: attention(X @ W_Q, C @ W_K, C @ W_V, scale=1.0),
                "the scores are not divided by the root of the key width",
            ),
        ),
    ),
    "4.4": Exercise(
        solve=lambda: 1087,
        mistakes=(
            (lambda: 1086, "1,086 times 1,086 is still a little less than 2 times 768 times 768"),
            (lambda: math.sqrt(2) * 768, "a whole number is asked for: the next larger one"),
            (lambda: 769, "two maps, not one: T times T against 2 times 768 times 768"),
            (lambda: 1331, "that is against three maps; the table needs the value map as well"),
        ),
    ),
    "4.5": Exercise(
        solve=lambda: 250,
        mistakes=(
            (lambda: 999 / 4, "there is no part of a layer: round up"),
            (lambda: 249, "249 layers reach back 996 positions: three short"),
            (lambda: 200, "a width of 5 reaches back 4 further positions, not 5"),
            (lambda: 500, "that is for a kernel centred on its position"),
            (lambda: 999, "that is one position a layer; a width of 5 reaches back 4"),
        ),
    ),
}
