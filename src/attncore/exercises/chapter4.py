"""Exercises of chapter 4: self-attention."""

from __future__ import annotations

import math

import numpy as np

from attncore.core.attention import attention
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(4)
_X = _rng.normal(size=(5, 6))  # all widths differ, so that a wrong one shows
_MAPS = tuple(_rng.normal(size=(6, width)) for width in (4, 4, 3))
_WIDER = tuple(_rng.normal(size=(6, width)) for width in (7, 7, 2))
_SCORES = np.array([3.0, 4.0, 1.0, 1.0])  # of the example's fourth token
_State = dict[str, np.ndarray]


def _state(d: int, size: float = 1.0) -> _State:
    return {
        "in_proj_weight": size * _rng.normal(size=(3 * d, d)),
        "in_proj_bias": _rng.normal(size=3 * d),
        "out_proj.weight": _rng.normal(size=(d, d)),
        "out_proj.bias": _rng.normal(size=d),
    }


_STATES = (_state(4), _state(6), _state(4, 60.0))  # the last would let exp overflow
_BATCHES = tuple(_rng.normal(size=shape) for shape in ((2, 3, 4), (1, 5, 6), (2, 3, 4)))


def _self(X: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, X @ W_K, X @ W_V)


def _scaled_by(X: np.ndarray, maps: tuple[np.ndarray, ...], scale: float) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, X @ W_K, X @ W_V, scale=scale)


def _down_the_columns(X: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return softmax(X @ W_Q @ (X @ W_K).T / math.sqrt(W_K.shape[1]), axis=0) @ X @ W_V


def _layer(
    x: np.ndarray,
    state: _State,
    *,
    order: tuple[int, int, int] = (0, 1, 2),
    turned: bool = True,
    biases: tuple[bool, bool] = (True, True),
    out: bool = True,
    scale: float | None = None,
    axis: int = -1,
) -> np.ndarray:
    """Return the layer's result, or what one mistake makes of it."""
    maps, rows = (np.split(state[f"in_proj_{name}"], 3) for name in ("weight", "bias"))
    made = [x @ (maps[n].T if turned else maps[n]) + biases[0] * rows[n] for n in order]
    q, k, v = made
    scores = q @ k.mT * (1 / math.sqrt(x.shape[-1]) if scale is None else scale)
    y = softmax(scores, axis=axis) @ v
    W = state["out_proj.weight"]
    y = y @ (W.T if turned else W) if out else y
    return y + biases[1] * state["out_proj.bias"]


EXERCISES = {
    "4.1": Exercise(
        solve=lambda: np.array([0, 3, 2, 3]),
        mistakes=(
            (lambda: np.array([1, 4, 3, 4]), "the first token of the vocabulary has number 0"),
            (lambda: np.array([0, 1, 2, 3]), "these are the places, not the tokens' numbers"),
            (lambda: np.array([0, 3, 2, 1]), "上 comes twice: it has the same number both times"),
        ),
    ),
    "4.2": Exercise(
        solve=lambda: _SCORES,
        mistakes=(
            (lambda: 2 * _SCORES, "these are not divided by the root of D, which is 2"),
            (lambda: _SCORES / 2, "divide by the root of D = 4, not by D itself"),
            (lambda: softmax(_SCORES, axis=-1), "these are the weights: the scores are asked for"),
            (
                lambda: np.array([0.0, 0.0, 0.0, 1.0]),
                "these are the scores of its key with all queries: its query asks",
            ),
        ),
    ),
    "4.3": Exercise(
        solve=_self,
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
    "4.4": Exercise(
        solve=lambda: 4 * 32**2 + 4 * 32,
        mistakes=(
            (lambda: 3 * 32**2, "the output map and the biases are missing"),
            (lambda: 4 * 32**2, "each of the four maps has a bias of 32 numbers too"),
            (lambda: 3 * 32**2 + 3 * 32, "the output map, with its bias, is missing"),
        ),
    ),
    "4.5": Exercise(
        solve=lambda: 1087,
        mistakes=(
            (lambda: 1086, "1,086 times 1,086 is still a little less than 2 times 768 times 768"),
            (lambda: math.sqrt(2) * 768, "a whole number is asked for: the next larger one"),
            (lambda: 769, "two maps, not one: T times T against 2 times 768 times 768"),
            (lambda: 1331, "that is against three maps; the table needs the value map as well"),
        ),
    ),
    "4.6": Exercise(
        solve=lambda n: 10 * np.roll(np.eye(n), 1, axis=1),
        cases=((3,), (5,)),
        mistakes=(
            (
                lambda n: 10 * np.roll(np.eye(n), -1, axis=1),
                "that circle runs backwards: row i is the query of token i",
            ),
            (lambda n: 10 * np.eye(n), "with this map each token asks itself"),
            (lambda n: np.roll(np.eye(n), 1, axis=1), "the scores are to be 10, and yours are 1"),
            (
                lambda n: 10 * np.eye(n, k=1),
                "the last token asks nobody: let the circle close",
            ),
            (
                lambda n: 10 * (np.roll(np.eye(n), 1, axis=1) + np.roll(np.eye(n), -1, axis=1)),
                "this is symmetric: each token asks both neighbours",
            ),
        ),
    ),
    "4.7": Exercise(
        solve=_layer,
        cases=tuple(zip(_BATCHES, _STATES, strict=True)),
        mistakes=(
            (
                lambda x, state: _layer(x, state, turned=False),
                "torch stores a map turned on its side: multiply by its transpose",
            ),
            (
                lambda x, state: _layer(x, state, order=(1, 0, 2)),
                "the first third of in_proj makes queries, the second keys",
            ),
            (
                lambda x, state: _layer(x, state, order=(0, 2, 1)),
                "keys and values are swapped: the last third of in_proj makes values",
            ),
            (
                lambda x, state: _layer(x, state, scale=1.0),
                "the scores are not divided by the root of the key width",
            ),
            (
                lambda x, state: _layer(x, state, axis=-2),
                "softmax went down the columns: each query's row must sum to 1",
            ),
            (
                lambda x, state: _layer(x, state, biases=(False, True)),
                "the biases of queries, keys and values are missing",
            ),
            (
                lambda x, state: _layer(x, state, biases=(True, False)),
                "the bias of the output map is missing",
            ),
            (lambda x, state: _layer(x, state, out=False), "the output map W_O is missing"),
        ),
    ),
}
