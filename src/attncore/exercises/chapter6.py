"""Exercises of chapter 6: many heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from attncore.core.attention import attention
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(5)
_X = _rng.normal(size=(5, 12))
_HEADS = _rng.normal(size=(3, 5, 2))  # (H, T, E)
_W_O = _rng.normal(size=(6, 7))
_WIDER = _rng.normal(size=(2, 4, 3))
_Q = _rng.normal(size=(6, 4, 5))  # H = 6
_K, _V = _rng.normal(size=(2, 3, 7, 5))  # G = 3
_UP = _rng.normal(size=(7, 30))  # (d_c, H * D)

Join = Callable[[np.ndarray], np.ndarray]
Split = Callable[[np.ndarray, int], np.ndarray]


def _split(x: np.ndarray, H: int) -> np.ndarray:
    return x.reshape(len(x), H, -1).swapaxes(0, 1)


def _memory_order(x: np.ndarray, H: int) -> np.ndarray:
    return x.reshape(H, len(x), -1)


def _joined(heads: np.ndarray) -> np.ndarray:
    return np.concatenate(list(heads), axis=1)


def _in_turn(rows: np.ndarray, H: int) -> np.ndarray:
    return np.tile(rows, (H // len(rows), 1, 1))


def _absorb(q: np.ndarray, W_UK: np.ndarray) -> np.ndarray:
    return q @ _split(W_UK, len(q)).swapaxes(1, 2)


def _layer(
    x: np.ndarray,
    W_Q: np.ndarray,
    W_K: np.ndarray,
    W_V: np.ndarray,
    W_O: np.ndarray,
    heads: int,
    *,
    scale: float | None = None,
    split: Split = _split,
    join: Join = _joined,
    in_turn: bool = False,
    causal: bool = False,
) -> np.ndarray:
    kv_heads = W_K.shape[1] * heads // W_Q.shape[1]
    q, k, v = split(x @ W_Q, heads), split(x @ W_K, kv_heads), split(x @ W_V, kv_heads)
    if in_turn:
        k, v = _in_turn(k, heads), _in_turn(v, heads)
    return join(attention(q, k, v, scale=scale, causal=causal)) @ W_O


def _maps(
    T: int, d: int, H: int, G: int, D: int, E: int, size: float = 1.0
) -> tuple[np.ndarray | int, ...]:
    """Return what the last exercise's function is given; W_O is square."""
    shapes = (d, H * D), (d, G * D), (d, G * E), (H * E, H * E)
    x = size * _rng.normal(size=(T, d))
    return x, *(_rng.normal(size=shape) / math.sqrt(d) for shape in shapes), H


EXERCISES = {
    "6.1": Exercise(
        solve=lambda: 4 / math.sqrt(2),
        mistakes=(
            (lambda: 4, "this is the dot product: divide by the square root of the head's width"),
            (
                lambda: 4 / math.sqrt(4),
                "this is divided by the root of 4, the layer's width; a head is 2 wide",
            ),
            (lambda: 0, "this is head 0's score: head 1 has the last two columns"),
            (
                lambda: 2 / math.sqrt(2),
                "this is head 0's score with the key of sat on: take head 1, and the key of cat",
            ),
        ),
    ),
    "6.2": Exercise(
        solve=lambda: 2 * 32**2 + 2 * 32 * 16,
        mistakes=(
            (lambda: 4 * 32**2, "that is with 4 key and value heads; here there are 2"),
            (lambda: 2 * 32**2 + 2 * 2 * 8, "each map to keys or values reads all 32 features"),
            (lambda: 2 * 32**2 + 32 * 16, "keys and values have a map each"),
            (lambda: 32**2 + 2 * 32 * 16, "the output map is missing"),
        ),
    ),
    "6.3": Exercise(
        solve=lambda: 3,
        mistakes=(
            (lambda: 5, "13 modulo 8 deals the heads out like cards; neighbours share one"),
            (lambda: 3.25, "a head has a whole number: leave out the remainder"),
            (lambda: 4, "13 divided by 4 is 3 and a bit, and heads are counted from 0"),
            (lambda: 13, "there are only 8 key and value heads"),
        ),
    ),
    "6.4": Exercise(
        solve=_split,
        cases=((_X, 3), (_X, 4), (_X[:2], 6)),
        mistakes=(
            (
                _memory_order,
                "that cuts the numbers in memory order: each head gets pieces of several words",
            ),
            (
                lambda x, H: x.reshape(len(x), -1, H).transpose(2, 0, 1),
                "head 0 has features 0, H, 2H, ...; it should have the first D",
            ),
        ),
    ),
    "6.5": Exercise(
        solve=lambda heads, W_O: _joined(heads) @ W_O,
        cases=((_HEADS, _W_O), (_WIDER, _W_O)),
        mistakes=(
            (
                lambda heads, W_O: heads.reshape(heads.shape[1], -1) @ W_O,
                "reshape mixes words and heads: lay the heads of one word side by side",
            ),
            (
                lambda heads, W_O: _joined(heads[::-1]) @ W_O,
                "the heads are in reverse order",
            ),
            (
                lambda heads, W_O: heads.transpose(1, 2, 0).reshape(heads.shape[1], -1) @ W_O,
                "the features of the heads alternate; each head's should stay together",
            ),
        ),
    ),
    "6.6": Exercise(
        solve=attention,
        cases=((_Q, _K, _V), (_Q[:3], _K, _V), (_Q, _K[:1], _V[:1])),
        mistakes=(
            (
                lambda q, k, v: attention(q, _in_turn(k, len(q)), _in_turn(v, len(q))),
                "tile deals the heads out in turn; neighbouring query heads share one: repeat",
            ),
        ),
    ),
    "6.7": Exercise(
        solve=_absorb,
        cases=((_Q, _UP), (_Q[:2, :1], _UP[:3, :10])),
        mistakes=(
            (
                lambda q, W_UK: q @ _memory_order(W_UK, len(q)).swapaxes(1, 2),
                "W_UK is cut in memory order: each head should get its own columns",
            ),
            (
                lambda q, W_UK: q @ W_UK[:, : q.shape[2]].T,
                "every head has used head 0's columns of W_UK",
            ),
            (
                lambda q, W_UK: q @ _split(W_UK, len(q))[::-1].swapaxes(1, 2),
                "head 0 has used the last head's columns of W_UK",
            ),
            (
                lambda q, W_UK: _absorb(q, W_UK) / math.sqrt(q.shape[2]),
                "leave the scale to the scores: it would be applied twice",
            ),
            (
                lambda q, W_UK: _absorb(q, W_UK) / math.sqrt(len(W_UK)),
                "absorbing changes no score: do not divide by the square root of the row's width",
            ),
        ),
    ),
    "6.8": Exercise(
        solve=_layer,
        cases=(
            _maps(T=5, d=8, H=4, G=2, D=2, E=2),
            _maps(T=3, d=6, H=6, G=3, D=4, E=1),
            _maps(T=4, d=8, H=4, G=1, D=2, E=2),
            _maps(T=6, d=9, H=4, G=2, D=3, E=2, size=60.0),
        ),
        mistakes=(
            (
                lambda *given: _layer(*given, scale=1.0),
                "the scores are not divided: divide them by the square root of D",
            ),
            (
                lambda *given: _layer(*given, scale=given[0].shape[1] ** -0.5),
                "the scale is the root of D, the width of a head, not of d",
            ),
            (
                lambda *given: _layer(*given, split=_memory_order),
                "reshape alone deals out numbers in memory order: cut each row, then swap axes",
            ),
            (
                lambda *given: _layer(*given, in_turn=True),
                "key heads are dealt out in turn; neighbouring query heads share one: repeat",
            ),
            (
                lambda *given: _layer(*given, join=lambda heads: heads.reshape(heads.shape[1], -1)),
                "the heads are joined in memory order: swap the axes back, then reshape",
            ),
            (
                lambda x, W_Q, W_K, W_V, W_O, H: _layer(x, W_Q, W_K, W_V, np.eye(len(W_O)), H),
                "the output map is missing: multiply the joined heads by W_O",
            ),
            (
                lambda *given: _layer(*given, causal=True),
                "a mask hides later tokens; in this layer every token may look at all",
            ),
        ),
    ),
}
