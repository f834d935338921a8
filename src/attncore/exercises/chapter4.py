"""Exercises of chapter 4: self- and cross-attention."""

from __future__ import annotations

import math

import numpy as np

from attncore._attention import attention
from attncore._softmax import softmax
from attncore.exercises._exercise import Exercise

_rng = np.random.default_rng(4)
_X = _rng.normal(size=(5, 6))  # widths 6, 4 and 3 all differ, so that a wrong one shows
_C = _rng.normal(size=(7, 6))
_MAPS = tuple(_rng.normal(size=(6, width)) for width in (4, 4, 3))


def _cross(X: np.ndarray, C: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, C @ W_K, C @ W_V)


def _scaled_by(X: np.ndarray, maps: tuple[np.ndarray, ...], scale: float) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, X @ W_K, X @ W_V, scale=scale)


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
        cases=((_X, *_MAPS), (_X[:2], *_MAPS)),
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
                lambda X, W_Q, W_K, W_V: softmax(X @ W_Q @ (X @ W_K).T / 2, axis=0) @ X @ W_V,
                "softmax went down the columns: each query's row must sum to 1",
            ),
            (lambda X, W_Q, W_K, W_V: attention(X @ W_K, X @ W_Q, X @ W_V), "Q and K are swapped"),
        ),
    ),
    "4.3": Exercise(
        solve=_cross,
        cases=((_X, _C, *_MAPS), (_C[:3], _X, *_MAPS)),
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
        solve=lambda: 1331,
        mistakes=(
            (lambda: 1330, "1,330 times 1,330 is still a little less than 3 times 768 times 768"),
            (lambda: 768, "three maps, not one: n times n against 3 times 768 times 768"),
            (lambda: 1537, "that counts the output map as well; the question is about three maps"),
        ),
    ),
    "4.5": Exercise(
        solve=lambda: 250,
        mistakes=(
            (lambda: 249, "249 layers reach back 996 positions: three short"),
            (lambda: 200, "a width of 5 reaches back 4 further positions, not 5"),
            (lambda: 500, "that is for a kernel centred on its position"),
            (lambda: 999, "that is one position a layer; a width of 5 reaches back 4"),
        ),
    ),
}
