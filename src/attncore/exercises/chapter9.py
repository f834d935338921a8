"""Exercises of chapter 9: positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.core.attention import attention
from attncore.exercises.exercise import Exercise
from attncore.exercises.maps import Maps
from attncore.positions import rope, rope_speeds

_rng = np.random.default_rng(7)
_X, _T = _rng.normal(size=(5, 6)), np.array([0, 1, 2, 7, 40])
_LATER = _rng.normal(size=(3, 8)), np.arange(100, 103)
_W = _rng.normal(size=(5, 8))
_NARROW = _rng.normal(size=(7, 6))
_SPEEDS = rope_speeds(16)[0]


def _straight(slope: float, Tq: int, Tk: int) -> np.ndarray:
    return -slope * abs(np.arange(Tk - Tq, Tk)[:, None] - np.arange(Tk))


def _turn(x: np.ndarray, t: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=1)
    angle = t[:, None] * speeds
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1)


def _slowed(
    speeds: np.ndarray,
    factor: float,
    length: int,
    low: float,
    high: float,
    *,
    radians: bool = False,
    free: bool = False,
    swapped: bool = False,
    by_turn: bool = False,
) -> np.ndarray:
    """Slow the slow pairs; each option is a mistake."""
    turns = length * speeds / (1 if radians else 2 * math.pi)
    kept = (turns - low) / (high - low)
    kept = kept if free else np.clip(kept, 0, 1)
    kept = np.where(turns >= high, 1.0, 0.0) if by_turn else kept
    kept = 1 - kept if swapped else kept
    return speeds * (kept + (1 - kept) / factor)


def _slow(**mistake: bool) -> Any:
    return lambda speeds, factor, length, low, high: _slowed(
        speeds, factor, length, low, high, **mistake
    )


def _decode(
    x: np.ndarray,
    maps: Maps,
    W: int,
    *,
    plain_query: bool = False,
    plain_key: bool = False,
    value: bool = False,
    slot: bool = False,
    again: bool = False,
    empty: bool = False,
    all_rows: bool = False,
    stuck: bool = False,
    one_less: bool = False,
    neighbours: bool = False,
) -> np.ndarray:
    """Attend with RoPE, row by row, with a ring of W rows; each option is a mistake."""
    x = np.asarray(x, dtype=float)
    room = len(x) if all_rows else W - 1 if one_less else W
    K, V = np.zeros((2, room, x.shape[1]))
    pairing = "interleaved" if neighbours else "half"
    rows = []
    for t in range(len(x)):
        q, k, v = maps(x[t : t + 1])
        place = t % W if slot else t
        q = q if plain_query else rope(q, [place], pairing=pairing)
        k = k if plain_key else rope(k, [place], pairing=pairing)
        v = rope(v, [t]) if value else v
        at = min(t, room - 1) if stuck else t % room
        K[at], V[at] = k[0], v[0]
        n = room if empty else min(t + 1, room)
        keys = rope(K[:n], np.arange(n)) if again else K[:n]
        rows.append(attention(q, keys, V[:n]))
    return np.concatenate(rows)


def _with(**mistake: bool) -> Any:
    return lambda x, maps, W: _decode(x, maps, W, **mistake)


_FOUR = Maps(_rng.normal(size=(3, 4, 4)), one_row=True)
_SIX = Maps(_rng.normal(size=(3, 6, 6)) / 2, one_row=True)

EXERCISES = {
    "9.1": Exercise(
        solve=lambda: 200 * math.pi,
        mistakes=(
            (lambda: 100.0, "that is a turn of 1 radian; all round is 2 pi of them"),
            (lambda: 20 * math.pi, "the exponent is 2i / d, not i / d"),
            (lambda: math.pi / 50, "that is the speed times 2 pi; divide by the speed"),
            (lambda: 100 * math.pi, "half a turn is not the whole"),
            (lambda: 628.0, "do not round to 628: the period is no whole number"),
            (lambda: 629.0, "do not round up to 629: the period is no whole number"),
            (lambda: 628.3, "do not round to 628.3: give 2 pi times 100 in full"),
            (lambda: 628.32, "do not round to 628.32: give 2 pi times 100 in full"),
        ),
    ),
    "9.2": Exercise(
        solve=lambda: -1,
        mistakes=(
            (lambda: 7, "that is without turning: the distance is 3 quarter-turns"),
            (lambda: 1, "the query has turned further than the key, to the left: (b, -a)"),
            (lambda: -7, "that is half a turn: the distance is 3 quarter-turns"),
            (lambda: -0.5, "a dot product is asked for, without the scale"),
        ),
    ),
    "9.3": Exercise(
        solve=_straight,
        cases=((0.5, 4, 4), (0.25, 2, 5), (1.0, 1, 3)),
        mistakes=(
            (
                lambda m, Tq, Tk: -m * abs(np.arange(Tq)[:, None] - np.arange(Tk)),
                "with fewer queries than keys the queries are the last positions",
            ),
            (
                lambda m, Tq, Tk: -_straight(m, Tq, Tk),
                "that favours far keys: the sign is wrong",
            ),
            (
                lambda m, Tq, Tk: m * (np.arange(Tk) - np.arange(Tk - Tq, Tk)[:, None]),
                "keys in the future are favoured: take the absolute distance",
            ),
        ),
    ),
    "9.4": Exercise(
        solve=rope,
        cases=((_X, _T), _LATER),
        mistakes=(
            (
                lambda x, t: rope(x, t, pairing="interleaved"),
                "those are pairs of neighbours: half-split pairs i and D / 2 + i",
            ),
            (lambda x, t: rope(x, -t), "that turns the other way: check the signs of the sine"),
            (
                lambda x, t: rope(x, np.arange(len(x))),
                "use the positions given, which need not begin at 0",
            ),
            (
                lambda x, t: _turn(x, t, 10000.0 ** (-np.arange(x.shape[1] // 2) / x.shape[1])),
                "the exponent is 2i / D, not i / D",
            ),
        ),
    ),
    "9.5": Exercise(
        solve=lambda W: np.concatenate([W[:, 0::2], W[:, 1::2]], axis=1),
        cases=((_W,), (_NARROW,)),
        mistakes=(
            (
                lambda W: W.reshape(len(W), 2, -1).swapaxes(1, 2).reshape(W.shape),
                "that is the way back, from half-split to interleaved",
            ),
            (
                lambda W: np.concatenate([W[0::2], W[1::2]]),
                "features of the query are columns of W, as Q = XW",
            ),
            (
                lambda W: np.concatenate([W[:, 1::2], W[:, 0::2]], axis=1),
                "the first of each pair goes to the first half",
            ),
        ),
    ),
    "9.6": Exercise(
        solve=lambda: np.array([12, 13, 14]),
        mistakes=(
            (lambda: np.array([5, 6, 7]), "the ring holds 5, but 12 words came before"),
            (lambda: np.array([2, 3, 4]), "those are slots of the ring; a position never wraps"),
            (lambda: np.array([0, 1, 2]), "these words are not the first of the text"),
            (lambda: np.array([13, 14, 15]), "positions are counted from 0"),
            (lambda: np.array([11, 12, 13]), "position 11 is taken: 12 words are 0 to 11"),
        ),
    ),
    "9.7": Exercise(
        solve=_slow(),
        cases=((_SPEEDS, 4.0, 64, 1.0, 4.0), (_SPEEDS, 8.0, 8192, 1, 32), (_SPEEDS, 2, 512, 2, 3)),
        mistakes=(
            (
                lambda speeds, factor, *_: speeds / factor,
                "that is position interpolation: fast pairs keep their speed",
            ),
            (_slow(swapped=True), "the fast pairs were slowed: those with many turns are to stay"),
            (_slow(radians=True), "a turn is 2 pi radians: divide length * speed by it"),
            (_slow(free=True), "kappa must stay between 0 and 1: use np.clip"),
            (_slow(by_turn=True), "between low and high kappa rises in a line, not in one step"),
        ),
    ),
    "9.8": Exercise(
        solve=_with(),
        cases=(
            (_rng.normal(size=(9, 4)), _FOUR, 4),
            (_rng.normal(size=(7, 6)), _SIX, 3),
            (_rng.normal(size=(3, 4)), _FOUR, 5),
        ),
        mistakes=(
            (
                _with(slot=True),
                "a row's position is t, not its slot t % W: the position never wraps",
            ),
            (_with(plain_query=True), "the query is turned too, by its own position"),
            (_with(plain_key=True), "keys are turned too: turn a key before it is kept"),
            (
                _with(plain_query=True, plain_key=True),
                "nothing is turned: turn query and key by t before the key is kept",
            ),
            (_with(value=True), "values are not turned: only queries and keys are"),
            (
                _with(again=True),
                "kept keys are turned already: do not turn them again by their slots",
            ),
            (_with(empty=True), "an empty slot is a key like any other: attend to full ones only"),
            (_with(all_rows=True), "that attends to all rows: only the last W are to be seen"),
            (_with(stuck=True), "only the last slot was written over: the oldest row is to go"),
            (_with(one_less=True), "a window of W holds W rows, the query's own included"),
            (_with(neighbours=True), "those are pairs of neighbours: half-split is asked for"),
        ),
    ),
}
