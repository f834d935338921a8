"""Exercises of chapter 2: scaled dot-product attention."""

from __future__ import annotations

import math

import numpy as np

from attncore.core.attention import attention
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(2)
_Q, _K, _V = _rng.normal(size=(3, 4)), _rng.normal(size=(5, 4)), _rng.normal(size=(5, 2))
_LOUD = 4000 * _Q, _K, _V  # exp overflows, and one maximum for all rows gives 0 / 0
_WIDE = _rng.normal(size=(2, 9)), _rng.normal(size=(5, 9)), _V  # no width but the keys' will do

_MAT = np.array([1.0, 2.0, 0.0])  # scaled scores of the query of 垫子, the mat
_WORD_KEYS = np.array([[0.0, 2, 2, 2], [2, 2, 0, 2], [0, 0, 0, 2]])
_WORD_VALUES = np.array([[2.0, 0, 0, 1], [0, 2, 0, 1], [0, 0, 2, 0]])
_HEADS = tuple(_rng.normal(size=(2, 3, T, 4)) for T in (5, 6, 6))  # (B, H, T, D)
_ONE_LOUD = _HEADS[0] * np.array([1.0, 4000.0, 1.0])[:, None, None], *_HEADS[1:]


def _scale(q: np.ndarray, scale: float | None) -> float:
    return 1 / math.sqrt(q.shape[-1]) if scale is None else scale


def _one_maximum(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float | None) -> np.ndarray:
    scores = _scale(q, scale) * (q @ np.swapaxes(k, -1, -2))
    powers = np.exp(scores - scores.max())
    with np.errstate(invalid="ignore"):
        return powers / powers.sum(axis=-1, keepdims=True) @ v


def _jacobian(p: np.ndarray) -> np.ndarray:
    return np.diag(p) - np.outer(p, p)


EXERCISES = {
    "2.1": Exercise(
        solve=lambda: (4, 3),
        mistakes=(
            (lambda: (4, 6), "that is the shape of the weights; they still multiply the values"),
            (lambda: (4, 8), "the output is made of values, so it is as wide as they are"),
            (lambda: (6, 3), "there is one output row per query"),
            (lambda: (3, 4), "rows first: one row per query"),
        ),
    ),
    "2.2": Exercise(
        solve=lambda: softmax(_MAT) @ _WORD_VALUES,
        mistakes=(
            (
                lambda: softmax(2 * _MAT) @ _WORD_VALUES,
                "the scores are not divided by the square root of the width, which is 2",
            ),
            (
                lambda: softmax(_MAT / 2) @ _WORD_VALUES,
                "the scores are divided by the width: divide by its square root",
            ),
            (
                lambda: np.exp(_MAT) @ _WORD_VALUES,
                "the powers are not divided by their sum",
            ),
            (
                lambda: _MAT / _MAT.sum() @ _WORD_VALUES,
                "the scores are divided by their sum without taking powers of e first",
            ),
            (
                lambda: softmax(_MAT) @ _WORD_KEYS,
                "the weights average the values, and you averaged the keys",
            ),
            (
                lambda: _WORD_VALUES[1],
                "that is the value of the best key alone: every value counts by its weight",
            ),
        ),
    ),
    "2.3": Exercise(
        solve=attention,
        cases=((_Q, _K, _V), _LOUD, _WIDE),
        mistakes=(
            (lambda q, k, v: attention(q, k, v, scale=1.0), "the scores are not scaled"),
            (
                lambda q, k, v: attention(q, k, v, scale=1 / q.shape[-1]),
                "divide by the square root of the width, not by the width",
            ),
            (
                lambda q, k, v: attention(q, k, v, scale=1 / math.sqrt(len(k))),
                "scale by the width of a key (k.shape[1]), not by the number of keys",
            ),
            (
                lambda q, k, v: attention(q, k, v, scale=1 / math.sqrt(v.shape[-1])),
                "scale by the width of a key (k.shape[1]), not by that of a value",
            ),
            (
                lambda q, k, v: softmax(q @ k.T / math.sqrt(q.shape[-1]), axis=0) @ v,
                "each row of the weights must sum to 1: softmax along the last axis",
            ),
        ),
    ),
    "2.4": Exercise(
        solve=_jacobian,
        cases=((np.array([0.5, 0.5]),), (np.array([0.7, 0.2, 0.1]),)),
        mistakes=(
            (
                lambda p: np.diag(p) - p * p,
                "p * p is a row, broadcast over the rows: p_i p_j is np.outer(p, p)",
            ),
            (
                lambda p: np.diag(p * (1 - p)),
                "the diagonal is right, but raising one score lowers all other weights",
            ),
            (lambda p: np.outer(p, p) - np.diag(p), "the sign is the other way round"),
            (
                lambda p: np.diag(p) - p @ p.T,
                "for a one-dimensional p, p @ p.T is a single number: use np.outer(p, p)",
            ),
        ),
    ),
    "2.5": Exercise(
        solve=lambda scores: softmax(scores, axis=0).T,
        cases=((_Q @ _K.T,), (np.array([[0.0, 1.0], [3.0, 0.0]]),)),
        mistakes=(
            (
                lambda scores: softmax(scores, axis=1).T,
                "transposing after the row softmax leaves columns that sum to 1, not rows",
            ),
        ),
    ),
    "2.6": Exercise(
        solve=lambda: 25.0,
        mistakes=(
            (lambda: 5.0, "the distance is squared, and so is the bandwidth"),
            (lambda: 12.5, "compare -|q - k|^2 / 2h^2 with its term in q.k, which has no 2 left"),
            (lambda: 0.04, "a narrow kernel is a sharp one: the scale grows as h shrinks"),
            (lambda: 50.0, "the 2 of the square and the 2 of 2h^2 cancel"),
        ),
    ),
    "2.7": Exercise(
        solve=lambda q, k, v, scale: attention(q, k, v, scale=_scale(q, scale)),
        cases=(
            (_Q, _K, _V, None),
            (*_HEADS, None),
            (*_HEADS, 0.3),
            (*_HEADS, 0.0),
            (*_ONE_LOUD, None),
        ),
        mistakes=(
            (
                lambda q, k, v, scale: attention(q, k, v, scale=1 / math.sqrt(q.shape[-1])),
                "the scale that is given is not used",
            ),
            (
                lambda q, k, v, scale: attention(q, k, v, scale=1.0 if scale is None else scale),
                "without a scale the scores must be divided by the square root of the width",
            ),
            (
                lambda q, k, v, scale: attention(q, k, v, scale=scale or _scale(q, None)),
                "a scale of 0 is a scale, and gives equal weights: ask whether it is None",
            ),
            (
                lambda q, k, v, scale: attention(
                    q, k, v, scale=1 / math.sqrt(q.shape[1]) if scale is None else scale
                ),
                "the width is the last axis, q.shape[-1]; with leading axes q.shape[1] is another",
            ),
            (
                lambda q, k, v, scale: (
                    softmax(_scale(q, scale) * (q @ np.swapaxes(k, -1, -2)), axis=-2) @ v
                ),
                "softmax runs along the keys, the last axis of the scores, not along the queries",
            ),
            (
                _one_maximum,
                "each row needs its own maximum: next to a loud head's, a quiet head's powers are "
                "all 0",
            ),
        ),
    ),
}
