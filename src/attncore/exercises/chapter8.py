"""Exercises of chapter 8: the KV cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.core.attention import attention
from attncore.exercises.exercise import Exercise
from attncore.exercises.maps import Maps

_rng = np.random.default_rng(6)
_Q, _K_NEW, _V_NEW = (_rng.normal(size=(1, width)) for width in (4, 4, 3))
_K, _V = _rng.normal(size=(6, 4)), _rng.normal(size=(6, 3))
_LONG = tuple(_rng.normal(size=(rows, 7)) for rows in (1, 1, 1, 40, 40))  # another width too


def _step(q: np.ndarray, k: np.ndarray, v: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
    return attention(q, np.concatenate([K, k]), np.concatenate([V, v]))


def _write(
    x: np.ndarray,
    maps: Maps,
    steps: int,
    *,
    empty: bool = False,
    past_only: bool = False,
    overwrite: bool = False,
    old_query: bool = False,
    first_row: bool = False,
    forget: bool = False,
) -> np.ndarray:
    """Continue rows with a cache; each option is a mistake."""
    T, d = np.shape(x)
    K, V = np.zeros((2, T + steps, d))
    rows, n, new, first = [], 0, np.asarray(x, dtype=float), None
    for step in range(steps):
        q, k, v = maps(new)
        start = T if overwrite and step else n
        K[start : start + len(k)], V[start : start + len(k)] = k, v
        n = start + len(k)
        first = q if first is None else first
        query = (first if old_query else q)[:1] if first_row else (first if old_query else q)[-1:]
        low = n - len(k) if forget else 0
        high = len(K) if empty else n - (past_only and step > 0)
        new = attention(query, K[low:high], V[low:high])
        rows.append(new)
    return np.concatenate(rows)


def _with(**mistake: bool) -> Any:
    return lambda x, maps, steps: _write(x, maps, steps, **mistake)


_MAPS = Maps(_rng.normal(size=(3, 4, 4)))
_WIDER = Maps(_rng.normal(size=(3, 6, 6)) / 2)

EXERCISES = {
    "8.1": Exercise(
        solve=lambda: math.exp(3) / (3 * math.exp(3) + 2),
        mistakes=(
            (
                lambda: 1 / (2 * math.exp(3) + 2),
                "a token attends to itself too: its own key is the fifth",
            ),
            (
                lambda: math.exp(6) / (3 * math.exp(6) + 2),
                "divide the scores by the root of the width, which is 2",
            ),
            (
                lambda: math.exp(3) / (2 * math.exp(3) + 2),
                "the weights must sum to 1: the new exponential belongs into the sum too",
            ),
            (lambda: 3.0, "that is the score: take exponentials, and divide by their sum"),
            (lambda: 3 / 9, "weights are shares of the exponentials, not of the scores"),
            (
                lambda: math.exp(3) / (2 * math.exp(3) + math.exp(4) + 2 * math.e),
                "these are the scores of the token before: the query is (2, 1, 2, 0)",
            ),
        ),
    ),
    "8.2": Exercise(
        solve=lambda: 96,
        mistakes=(
            (lambda: 48, "keys and values are both kept, and 16 bits are 2 bytes"),
            (lambda: 24, "keys and values are both kept, at 2 bytes for each number"),
            (lambda: 192, "16 bits are 2 bytes, not 4"),
            (lambda: 4, "every layer has a cache of its own"),
            (lambda: 96 * 2**20, "that is in bytes; a MiB is 2 to the 20 of them"),
        ),
    ),
    "8.3": Exercise(
        solve=lambda: 735,
        mistakes=(
            (lambda: 39, "that is with a cache"),
            (lambda: 775, "the last new token is never read"),
            (lambda: 765, "the first new token needs only the 10 of the prompt"),
            (lambda: 300, "the text grows by one token at each step"),
        ),
    ),
    "8.4": Exercise(
        solve=lambda: 2,
        mistakes=(
            (lambda: 3, "divide by 5 and take what is left over; token 0 lies in slot 0"),
            (lambda: 12, "take off 5 as often as it goes: there are only slots 0 to 4"),
            (lambda: 17, "there are only 5 slots"),
        ),
    ),
    "8.5": Exercise(
        solve=lambda: 6144,
        mistakes=(
            (lambda: 12288, "attention needs two products, scores and mixing: 4 T d, not 2 T d"),
            (lambda: 3072, "a multiplication and an addition for each number of the maps: 24 d d"),
            (lambda: 512, "that is one map; those of a layer hold 12 d d numbers"),
            (lambda: 2048, "that is the four maps of attention; with the network it is 12 d d"),
        ),
    ),
    "8.6": Exercise(
        solve=_step,
        cases=((_Q, _K_NEW, _V_NEW, _K, _V), (_Q, _K_NEW, _V_NEW, _K[:1], _V[:1]), _LONG),
        mistakes=(
            (
                lambda q, k, v, K, V: attention(q, K, V),
                "the new token attends to itself too: append first, then attend",
            ),
            (lambda q, k, v, K, V: attention(q, k, v), "the past is missing"),
            (
                lambda q, k, v, K, V: attention(q, np.concatenate([K[1:], k]), [*V[1:], *v]),
                "the oldest token is missing: nothing said there is a window",
            ),
        ),
    ),
    "8.7": Exercise(
        solve=_with(),
        cases=(
            (_rng.normal(size=(3, 4)), _MAPS, 4),
            (_rng.normal(size=(2, 4)), _MAPS, 3),
            (_rng.normal(size=(7, 6)), _WIDER, 6),
        ),
        mistakes=(
            (
                _with(empty=True),
                "the empty rows of your arrays are keys too: attend only to those written so far",
            ),
            (
                _with(past_only=True),
                "a new row attends to itself too: write its key and value first, then attend",
            ),
            (
                _with(overwrite=True),
                "each new row was written over the one before: count how many rows are kept",
            ),
            (_with(forget=True), "the past is missing: attend to all rows that are kept"),
            (_with(old_query=True), "each row has a query of its own: that of the prompt is old"),
            (
                _with(first_row=True),
                "the next row follows the last row of the prompt, not the first",
            ),
        ),
    ),
}
