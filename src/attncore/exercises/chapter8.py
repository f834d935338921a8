"""Exercises of chapter 8: the KV cache."""

from __future__ import annotations

import numpy as np

from attncore.core.attention import attention
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(6)
_Q, _K_NEW, _V_NEW = (_rng.normal(size=(1, width)) for width in (4, 4, 3))
_K, _V = _rng.normal(size=(6, 4)), _rng.normal(size=(6, 3))
_LONG = tuple(_rng.normal(size=(rows, 7)) for rows in (1, 1, 1, 40, 40))  # another width too


def _step(q: np.ndarray, k: np.ndarray, v: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
    return attention(q, np.concatenate([K, k]), np.concatenate([V, v]))


EXERCISES = {
    "8.1": Exercise(
        solve=lambda: 96,
        mistakes=(
            (lambda: 48, "keys and values are both kept, and 16 bits are 2 bytes"),
            (lambda: 24, "keys and values are both kept, at 2 bytes for each number"),
            (lambda: 192, "16 bits are 2 bytes, not 4"),
            (lambda: 4, "every layer has a cache of its own"),
            (lambda: 96 * 2**20, "that is in bytes; a MiB is 2 to the 20 of them"),
        ),
    ),
    "8.2": Exercise(
        solve=lambda: 735,
        mistakes=(
            (lambda: 39, "that is with a cache"),
            (lambda: 775, "the last new token is never read"),
            (lambda: 765, "the first new token needs only the 10 of the prompt"),
            (lambda: 300, "the text grows by one token at each step"),
        ),
    ),
    "8.3": Exercise(
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
    "8.4": Exercise(
        solve=lambda: 6144,
        mistakes=(
            (lambda: 12288, "attention needs two products, scores and mixing: 4 T d, not 2 T d"),
            (lambda: 3072, "a multiplication and an addition for each number of the maps: 24 d d"),
            (lambda: 512, "that is one map; those of a layer hold 12 d d numbers"),
            (lambda: 2048, "that is the four maps of attention; with the network it is 12 d d"),
        ),
    ),
    "8.5": Exercise(
        solve=lambda: 2,
        mistakes=(
            (lambda: 3, "divide by 5 and take what is left over; token 0 lies in slot 0"),
            (lambda: 12, "take off 5 as often as it goes: there are only slots 0 to 4"),
            (lambda: 17, "there are only 5 slots"),
        ),
    ),
}
