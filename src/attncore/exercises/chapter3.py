"""Exercises of chapter 3: masks."""

from __future__ import annotations

import numpy as np

from attncore import masks
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(3)
_SCORES = _rng.normal(size=(4, 5))
_KEEP = _rng.random((4, 5)) < 0.6
_KEEP[1] = False
_LOUD = np.where(_KEEP, _SCORES, 1e4)  # a hidden score may be the largest
_LEVELS = np.array([[1000.0], [0.0], [-1000.0], [0.0]])  # no one maximum serves all rows
_DROP = ~masks.causal(3, 5)
_LENGTHS = np.array([5, 2])
_DROP_WIDE = ~masks.causal(4, 7)
_SHORT = np.array([4, 0, 3])  # the longest ends before the last key, and one is empty


def _one_maximum(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    power = np.exp(np.where(keep, scores - scores[keep].max(), -np.inf))
    total = power.sum(axis=1, keepdims=True)
    return power / np.where(total == 0, 1, total)


EXERCISES = {
    "3.1": Exercise(
        solve=lambda: 15,
        mistakes=(
            (
                lambda: 18,
                "the first two queries see fewer than three keys, and a window of 3 is the "
                "query's own key and two before it, not three",
            ),
            (lambda: 21, "that is causal without a window"),
            (lambda: 12, "a window of 3 is three keys, the query's own included"),
        ),
    ),
    "3.2": Exercise(
        solve=masks.causal,
        cases=((3, 3), (2, 5), (1, 4), (4, 2)),
        mistakes=(
            (
                lambda Tq, Tk: np.tril(np.ones((Tq, Tk), dtype=bool)),
                "that is upper left: with one query and four keys it sees only the first key",
            ),
            (
                lambda Tq, Tk: ~masks.causal(Tq, Tk),
                "the sense is the other way round: True means may attend",
            ),
            (
                lambda Tq, Tk: np.triu(np.ones((Tq, Tk), dtype=bool)),
                "this keeps the future and hides the past",
            ),
        ),
    ),
    "3.3": Exercise(
        solve=softmax,
        cases=(
            (_SCORES, _KEEP),
            (_LOUD, _KEEP),
            (_SCORES + 1000, _KEEP),
            (_SCORES - 1000, _KEEP),
            (_SCORES + _LEVELS, _KEEP),
        ),
        mistakes=(
            (
                lambda scores, keep: softmax(scores) * keep,
                "the kept weights no longer sum to 1: mask the scores, not the weights",
            ),
            (
                lambda scores, keep: softmax(scores * keep),
                "a score of 0 still has a weight; a hidden one must be minus infinity",
            ),
            (
                lambda scores, keep: softmax(np.where(keep, scores, -1e9)),
                "a row with nothing kept is uniform here; it must be all 0",
            ),
            (
                lambda scores, keep: softmax(np.where(keep, scores, -100.0)) * keep,
                "kept scores may be far below -100: fill with minus infinity, or with the "
                "lowest number of the dtype",
            ),
            (
                _one_maximum,
                "each row needs its own maximum: next to another row's, its powers are all 0",
            ),
        ),
    ),
    "3.4": Exercise(
        solve=lambda drop, lengths: ~drop & masks.padding(lengths, drop.shape[1]),
        cases=(
            (_DROP, _LENGTHS),
            (np.zeros((2, 5), dtype=bool), _LENGTHS),
            (_DROP_WIDE, _SHORT),
        ),
        mistakes=(
            (
                lambda drop, lengths: drop & masks.padding(lengths, drop.shape[1]),
                "there True means drop, here True means attend: turn it round with ~",
            ),
            (
                lambda drop, lengths: ~drop | masks.padding(lengths, drop.shape[1]),
                "a pair must be allowed by both masks: use and, not or",
            ),
        ),
    ),
}
