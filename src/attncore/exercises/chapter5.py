"""Exercises of chapter 5: cross-attention, and what it is compared with."""

from __future__ import annotations

import math

import numpy as np

from attncore.core.attention import attention
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(5)
_X, _C = _rng.normal(size=(5, 6)), _rng.normal(size=(7, 6))
_WIDE = _rng.normal(size=(4, 8))  # a context of another width
_MAPS = tuple(_rng.normal(size=(6, width)) for width in (4, 4, 3))
_OTHER = tuple(_rng.normal(size=shape) for shape in ((6, 7), (8, 7), (8, 2)))
_W_X, _W_H = _rng.normal(size=(6, 4)), _rng.normal(size=(4, 4)) / 2

# Rows that fill up are large, so that one that is read shows.
_BATCH = _rng.normal(size=(2, 5, 6)), _rng.normal(size=(2, 4, 6)), np.array([4, 2])
_LONG = _rng.normal(size=(3, 2, 6)), 40 * _rng.normal(size=(3, 6, 6)), np.array([1, 6, 3])
_BATCH[1][1, 2:] = 9.0
_LONG[1][0, 1:] = _LONG[1][2, 3:] = 500.0


def _states(C: np.ndarray, W_x: np.ndarray, W_h: np.ndarray, start: float = 0.0) -> np.ndarray:
    h, states = np.full(len(W_h), start), []
    for row in C:
        h = np.tanh(row @ W_x + h @ W_h)
        states.append(h)
    return np.array(states)


def _cross(X: np.ndarray, C: np.ndarray, *maps: np.ndarray) -> np.ndarray:
    W_Q, W_K, W_V = maps
    return attention(X @ W_Q, C @ W_K, C @ W_V)


def _batched(
    x: np.ndarray,
    context: np.ndarray,
    lengths: np.ndarray,
    *maps: np.ndarray,
    hide: str = "before",
    scale: float | None = None,
    least: int = 0,
    axis: int = -1,
) -> np.ndarray:
    """Return cross-attention to real rows alone, or what one mistake makes of it."""
    W_Q, W_K, W_V = maps
    q, k, v = x @ W_Q, context @ W_K, context @ W_V
    scores = q @ k.mT * (1 / math.sqrt(k.shape[-1]) if scale is None else scale)
    real = np.arange(k.shape[1]) < (lengths + least)[:, None, None]
    if hide == "before":
        scores = np.where(real, scores, -np.inf)
    if hide == "zero scores":
        scores = np.where(real, scores, 0.0)
    weights = softmax(scores, axis=axis)
    return np.where(real, weights, 0.0) @ v if hide == "after" else weights @ v


def _of_queries(
    x: np.ndarray, context: np.ndarray, lengths: np.ndarray, *maps: np.ndarray
) -> np.ndarray:
    out = _batched(x, context, lengths, *maps, hide="nothing")
    return np.where((np.arange(x.shape[1]) < lengths[:, None])[..., None], out, 0.0)


EXERCISES = {
    "5.1": Exercise(
        solve=lambda: np.array([2, 7, 2, 6]),
        mistakes=(
            (lambda: np.array([7, 2, 7, 6]), "a row belongs to a query, and there are 2 of them"),
            (lambda: np.array([2, 7, 7, 6]), "the output has one row for each query, not each key"),
            (lambda: np.array([2, 7, 2, 5]), "the output is as wide as a value, not as a key"),
            (lambda: np.array([2, 2, 2, 6]), "the weights have a column for each row of C"),
            (lambda: np.array([7, 7, 7, 6]), "the queries come from X, which has 2 rows"),
        ),
    ),
    "5.2": Exercise(
        solve=lambda: 0.9**29,
        mistakes=(
            (lambda: 0.9**30, "the first row is not multiplied when it is read itself: 29 times"),
            (lambda: 0.1**29, "0.9 of the state is kept at each step, not 0.1"),
            (lambda: 0.9 * 29, "multiply again and again: a power, not a product"),
            (lambda: 1 / 30, "that is its share in an average of 30 rows"),
        ),
    ),
    "5.3": Exercise(
        solve=_cross,
        cases=((_X, _C, *_MAPS), (_C[:3], _X, *_MAPS), (_X, _WIDE, *_OTHER)),
        mistakes=(
            (
                lambda X, C, *maps: attention(X @ maps[0], C @ maps[1], C @ maps[2], scale=1.0),
                "the scores are not divided by the root of the key width",
            ),
            (
                lambda X, C, *maps: attention(
                    X @ maps[0], C @ maps[1], C @ maps[2], scale=1 / math.sqrt(X.shape[1])
                ),
                "the scale is the width of the keys, not of X",
            ),
            (
                lambda X, C, *maps: (
                    softmax(X @ maps[0] @ (C @ maps[1]).T / math.sqrt(maps[1].shape[1]), axis=0)
                    @ (C @ maps[2])
                ),
                "softmax went down the columns: each query's row must sum to 1",
            ),
        ),
    ),
    "5.4": Exercise(
        solve=_states,
        cases=((_C, _W_X, _W_H), (_X[:2], _W_X, -_W_H)),
        mistakes=(
            (
                lambda C, W_x, W_h: np.tanh(C @ W_x),
                "each state needs the one before: h W_h is missing",
            ),
            (
                lambda C, W_x, W_h: np.vstack([np.zeros(len(W_h)), _states(C, W_x, W_h)[:-1]]),
                "the states are one step late: the first one has read the first row",
            ),
            (
                lambda C, W_x, W_h: _states(C, W_x, W_h, 1.0),
                "the state starts from zeros, not from ones",
            ),
            (
                lambda C, W_x, W_h: _states(C, W_x, W_h.T),
                "rows are multiplied from the left: h W_h, and W_h is not transposed",
            ),
            (
                lambda C, W_x, W_h: _states(C[::-1], W_x, W_h),
                "the source is read from its first row to its last",
            ),
        ),
    ),
    "5.5": Exercise(
        solve=lambda: 250,
        mistakes=(
            (lambda: 999 / 4, "there is no part of a layer: round up"),
            (lambda: 249, "249 layers reach back 996 positions: three short"),
            (lambda: 200, "a width of 5 reaches back 4 further positions, not 5"),
            (lambda: 500, "that is for a kernel centred on its position"),
            (lambda: 999, "that is one position a layer; a width of 5 reaches back 4"),
        ),
    ),
    "5.6": Exercise(
        solve=lambda: 1280,
        mistakes=(
            (lambda: 512, "that is where T reaches d: count the four maps too"),
            (lambda: 1024, "that is where attention meets an LSTM"),
            (lambda: 2304, "the four maps, 8 T d d, are missing"),
            (lambda: 2560, "two products are of T by T: 4 T T d, not 2 T T d"),
        ),
    ),
    "5.7": Exercise(
        solve=_batched,
        cases=((*_BATCH, *_MAPS), (*_LONG, *_MAPS)),
        mistakes=(
            (
                lambda *case: _batched(*case, hide="nothing"),
                "the rows that fill up are read: lengths are not used",
            ),
            (
                lambda *case: _batched(*case, hide="after"),
                "the mask came after softmax: the weights of real keys no longer sum to 1",
            ),
            (
                lambda *case: _batched(*case, hide="zero scores"),
                "a score of 0 is not hidden: softmax still gives it weight; use minus infinity",
            ),
            (_of_queries, "lengths count rows of the context: hide keys, not queries"),
            (
                lambda *case: _batched(*case, least=1),
                "one row too many: with a length of n the last real row is n - 1",
            ),
            (
                lambda *case: _batched(*case, scale=1.0),
                "the scores are not divided by the root of the key width",
            ),
            (
                lambda *case: _batched(*case[:3], case[4], case[3], case[5]),
                "W_Q and W_K are swapped: X asks, the context answers",
            ),
        ),
    ),
}
