"""Exercises of chapter 3: masks."""

from __future__ import annotations

import numpy as np

from attncore import masks
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(3)
_HALVES = np.array([1.0, 2.0, 0.0, 0.0])  # the scaled scores of the third token with all four
_SEEN = np.array([False, True, True, False])
_SCORES = _rng.normal(size=(4, 5))
_KEEP = _rng.random((4, 5)) < 0.6
_KEEP[1] = False
_LOUD = np.where(_KEEP, _SCORES, 1e4)  # a hidden score may be the largest
_LEVELS = np.array([[1000.0], [0.0], [-1000.0], [0.0]])  # no one maximum serves all rows
_DROP = ~masks.causal(3, 5)
_LENGTHS = np.array([5, 2])
_DROP_WIDE = ~masks.causal(4, 7)
_SHORT = np.array([4, 0, 3])  # the longest ends before the last key, and one is empty
_OUTPUTS = _rng.normal(size=(3, 4, 2)), np.array([2, 4, 1])
_BATCH = _rng.normal(size=(3, 2, 4, 5))  # (B, H, Tq, Tk)
_REAL = masks.padding([2, 5, 0], 5)  # one sentence is empty


def _apart(lengths: np.ndarray) -> np.ndarray:
    return np.asarray(masks.documents([0, *np.cumsum(lengths)], causal=True))


def _number(lengths: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(lengths)), lengths)


def _one_maximum(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    top = scores[np.broadcast_to(keep, scores.shape)].max()
    power = np.exp(np.where(keep, scores - top, -np.inf))
    total = power.sum(axis=-1, keepdims=True)
    return power / np.where(total == 0, 1, total)


def _hidden_maximum(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    power = np.where(keep, np.exp(scores - scores.max(axis=-1, keepdims=True)), 0)
    total = power.sum(axis=-1, keepdims=True)
    return power / np.where(total == 0, 1, total)


def _by_column(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return softmax(scores, np.broadcast_to(keep, scores.shape), axis=-2)


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
        solve=lambda: softmax(_HALVES, _SEEN),
        mistakes=(
            (
                lambda: softmax(_HALVES) * _SEEN,
                "the kept weights must sum to 1: hide the other scores before softmax",
            ),
            (lambda: softmax(_HALVES), "no score is hidden here"),
            (
                lambda: softmax(_HALVES, _SEEN | np.array([True, False, False, False])),
                "that is the causal mask without the window, which hides the first token as well",
            ),
            (
                lambda: softmax(_HALVES, np.array([True, True, False, False])),
                "a window of 2 is the query's own key and the one before it",
            ),
            (
                lambda: softmax(_HALVES / 2, _SEEN),
                "these scores are scaled already: do not divide them by 2 again",
            ),
        ),
    ),
    "3.3": Exercise(
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
    "3.5": Exercise(
        solve=lambda outputs, lengths: outputs[np.arange(len(lengths)), lengths - 1],
        cases=(_OUTPUTS, (_OUTPUTS[0][:2], np.array([1, 3]))),
        mistakes=(
            (
                lambda outputs, lengths: outputs[:, -1],
                "the last row is that of a filler, unless the sentence fills its whole length",
            ),
            (
                lambda outputs, lengths: outputs[
                    np.arange(len(lengths)), lengths % outputs.shape[1]
                ],
                "one row too far: rows are counted from 0, so the last of n rows is row n - 1",
            ),
            (
                lambda outputs, lengths: np.take(outputs, lengths.max() - 1, axis=1),
                "each sentence has its own length: do not take the longest for all",
            ),
            (
                lambda outputs, lengths: outputs[
                    np.arange(len(lengths)), outputs.shape[1] - lengths
                ],
                "that is the first real row when the filler stands on the left",
            ),
        ),
    ),
    "3.6": Exercise(
        solve=_apart,
        cases=((np.array([2, 2]),), (np.array([3, 1, 2]),), (np.array([1, 0, 4]),)),
        mistakes=(
            (
                lambda lengths: masks.causal(int(lengths.sum())),
                "a later document still reads an earlier one: compare the documents' numbers",
            ),
            (
                lambda lengths: _number(lengths)[:, None] == _number(lengths),
                "the documents are apart, but a token still sees the later ones of its own",
            ),
            (lambda lengths: ~_apart(lengths), "the sense is inverted: True means may attend"),
            (
                lambda lengths: _apart(lengths).T,
                "rows are queries and columns are keys: this shows the future and hides the past",
            ),
            (
                lambda lengths: _apart(lengths) & ~np.eye(int(lengths.sum()), dtype=bool),
                "a token may attend to itself too",
            ),
        ),
    ),
    "3.7": Exercise(
        solve=softmax,
        cases=(
            (_SCORES, _KEEP),
            (_LOUD, _KEEP),
            (_SCORES + 1000, _KEEP),
            (_SCORES - 1000, _KEEP),
            (_SCORES + _LEVELS, _KEEP),
            (_BATCH, _REAL),
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
            (
                _hidden_maximum,
                "subtract the largest kept score: next to a huge hidden one, the kept powers are "
                "all 0",
            ),
            (_by_column, "each row of scores must sum to 1: sum over the last axis"),
        ),
    ),
}
