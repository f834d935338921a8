"""Exercises of chapter 11: serving many."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(11)
_TARGET, _DRAFT = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.6, 0.3])
_TARGETS, _DRAFTS = _rng.dirichlet(np.ones(6), size=2), _rng.dirichlet(np.ones(6), size=2)


def _missing(target: Any, draft: Any) -> np.ndarray:
    left = np.maximum(np.asarray(target) - np.asarray(draft), 0)
    return left / left.sum()


def _plain(values: Any) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values / values.sum()


def _rounded(
    x: Any,
    bits: int,
    *,
    axis: int = 0,
    steps: int = -1,
    low: bool = True,
    cut: bool = False,
    whole: bool = False,
) -> np.ndarray:
    """Return keys `(T, D)` as they come back from few bits; each option is a mistake."""
    x = np.asarray(x, dtype=float)
    least = x.min(axis, keepdims=True)
    step = (x.max(axis, keepdims=True) - least) / (2**bits + steps)
    counted = (x - least) / step
    counted = np.floor(counted) if cut else np.round(counted)
    return counted if whole else (least if low else 0) + step * counted


def _serve(
    prompts: Any,
    answers: Any,
    rows: int,
    budget: int,
    *,
    static: bool = False,
    prompts_first: bool = False,
    unlimited: bool = False,
    late: bool = False,
    each: bool = False,
    stuck: bool = False,
) -> np.ndarray:
    """Return the step at which each request is finished; each option is a mistake."""
    unread, left = [int(n) for n in prompts], [int(n) for n in answers]
    end, waiting, step = [0] * len(unread), list(range(len(unread))), 0
    busy: list[int] = []
    held: list[int] = []  # rows that are free one step too late
    while waiting or busy:
        if not static or not busy:
            while waiting and len(busy) + len(held) < rows:
                busy.append(waiting.pop(0))
        held = []
        step, room = step + 1, budget
        first = [n for n in busy if bool(unread[n]) == prompts_first]
        for n in first + [n for n in busy if n not in first]:
            wanted = unread[n] or 1
            take = min(wanted, budget if each else room)
            if unlimited and take:
                take = wanted
            room = max(room - take, 0)
            if unread[n]:
                unread[n] -= take
                if unread[n] or late:
                    continue
            elif not take:
                continue
            left[n] -= 1
            if left[n] == 0:
                end[n] = step
        done = [n for n in busy if end[n]]
        busy = [n for n in busy if not end[n]]
        held = done if stuck else []
    return np.array(end)


def _with(function: Any, **mistake: Any) -> Any:
    return lambda *given: function(*given, **mistake)


EXERCISES = {
    "11.1": Exercise(
        solve=lambda: 2,
        mistakes=(
            (lambda: 7, "that is its column: take off the padding before it"),
            (lambda: 5, "that is the padding of this row: how far behind it is column 7?"),
            (lambda: 3, "positions are counted from 0"),
            (lambda: 12, "padding stands before the text: take it off, do not add it"),
        ),
    ),
    "11.2": Exercise(
        solve=lambda: 11,
        mistakes=(
            (lambda: 15, "that is how long static batches take"),
            (lambda: 10, "that is what 20 tokens on two rows need if no row is ever idle"),
            (lambda: 20, "that is one at a time: there are two rows"),
            (lambda: 12, "a row that is free takes the next request in the very next step"),
        ),
    ),
    "11.3": Exercise(
        solve=lambda: 10,
        mistakes=(
            (lambda: 16, "that is without sharing: all texts begin with the same blocks"),
            (lambda: 11, "the last of the four may go on in the block itself: no copy is needed"),
            (
                lambda: 9,
                "three texts copy the half-full block, and all four need one more",
            ),
            (lambda: 7, "each text needs another block: 2 and 3 tokens do not fit in 4 places"),
            (lambda: 6, "shared and half full: whoever writes into it needs a copy"),
        ),
    ),
    "11.4": Exercise(
        solve=lambda: 0.6,
        mistakes=(
            (lambda: 0.4, "that is the chance of a rejection"),
            (
                lambda: 0.29,
                "that is how often two draws agree; sum the smaller of the two",
            ),
            (lambda: 1.4, "that is the sum of the larger ones: a chance is at most 1"),
            (lambda: 0.3, "every token can be kept, not only the draft's favourite"),
        ),
    ),
    "11.5": Exercise(
        solve=lambda: (1 - 0.8**5) / (1 - 0.8) / (1 + 4 * 0.1),
        mistakes=(
            (lambda: (1 - 0.8**5) / (1 - 0.8), "four guesses take time too: 0.4 of a call"),
            (
                lambda: (1 - 0.8**4) / (1 - 0.8) / 1.4,
                "the target adds a token of its own: four guesses give up to five",
            ),
            (
                lambda: (1 + 4 * 0.8) / 1.4,
                "a guess counts only if all before it were kept: 0.8, then 0.8 squared, and so on",
            ),
            (
                lambda: (1 - 0.8**5) / (1 - 0.8) / 0.4,
                "the call of the target takes time too: one call and four guesses",
            ),
        ),
    ),
    "11.6": Exercise(
        solve=_missing,
        cases=((_TARGET, _DRAFT), *zip(_TARGETS, _DRAFTS, strict=True)),
        mistakes=(
            (lambda t, d: _plain(t), "what the draft has offered already must be taken off"),
            (lambda t, d: np.maximum(t - d, 0), "probabilities must sum to 1: divide by the sum"),
            (
                lambda t, d: _plain(np.abs(t - d)),
                "where the draft gave too much nothing is missing: 0, not the distance",
            ),
            (
                lambda t, d: _plain(np.maximum(d - t, 0)),
                "that is what the draft gave too much; the target is missing the opposite",
            ),
            (
                lambda t, d: _plain(np.minimum(t, d)),
                "that is what was drafted and kept: the rest of the target is missing",
            ),
        ),
    ),
    "11.7": Exercise(
        solve=_rounded,
        cases=(
            (_rng.normal(size=(5, 3)), 2),
            (_rng.normal(size=(8, 4)) + 3 * np.arange(4), 4),
            (_rng.normal(size=(32, 2)), 3),
        ),
        mistakes=(
            (
                _with(_rounded, axis=1),
                "that is one step for each token; a channel is a column, along all tokens",
            ),
            (
                _with(_rounded, steps=0),
                "between 2**bits numbers there is one step less",
            ),
            (_with(_rounded, low=False), "add the low end again"),
            (_with(_rounded, cut=True), "round to the nearest step, not down"),
            (_with(_rounded, whole=True), "these are the whole numbers: turn them back"),
        ),
    ),
    "11.8": Exercise(
        solve=_serve,
        cases=(
            ([3, 20, 2, 5], [4, 3, 6, 2], 2, 8),
            ([4, 4, 30, 6, 2, 9], [12, 2, 3, 5, 7, 1], 3, 7),
            ([1], [5], 4, 2),
            ([10, 12, 3, 8, 2, 2, 40], [3, 9, 5, 1, 8, 2, 4], 4, 6),
        ),
        mistakes=(
            (
                _with(_serve, static=True),
                "a free row takes the next request at once: do not wait until all are finished",
            ),
            (
                _with(_serve, prompts_first=True),
                "decoding goes first: a prompt gets what the others leave of the budget",
            ),
            (
                _with(_serve, unlimited=True),
                "a prompt takes no more than what is left of the budget, and goes on next step",
            ),
            (
                _with(_serve, late=True),
                "the step that reads the last of a prompt gives the first token of the answer",
            ),
            (
                _with(_serve, each=True),
                "the budget is for all rows of a step together, not for each",
            ),
            (
                _with(_serve, stuck=True),
                "a row is free in the step right after its request is finished",
            ),
        ),
    ),
}
