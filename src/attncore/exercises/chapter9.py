"""Exercises of chapter 9: positions."""

from __future__ import annotations

import math

import numpy as np

from attncore.exercises.exercise import Exercise
from attncore.positions import rope

_rng = np.random.default_rng(7)
_X, _T = _rng.normal(size=(5, 6)), np.array([0, 1, 2, 7, 40])
_LATER = _rng.normal(size=(3, 8)), np.arange(100, 103)
_W = _rng.normal(size=(5, 8))
_NARROW = _rng.normal(size=(7, 6))


def _straight(slope: float, Tq: int, Tk: int) -> np.ndarray:
    return -slope * abs(np.arange(Tk - Tq, Tk)[:, None] - np.arange(Tk))


def _turn(x: np.ndarray, t: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    a, b = np.split(x, 2, axis=1)
    angle = t[:, None] * speeds
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1)


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
    "9.3": Exercise(
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
    "9.4": Exercise(
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
    "9.5": Exercise(
        solve=lambda: np.array([12, 13, 14]),
        mistakes=(
            (lambda: np.array([5, 6, 7]), "the ring holds 5, but 12 words came before"),
            (lambda: np.array([2, 3, 4]), "those are slots of the ring; a position never wraps"),
            (lambda: np.array([0, 1, 2]), "these words are not the first of the text"),
            (lambda: np.array([13, 14, 15]), "positions are counted from 0"),
            (lambda: np.array([11, 12, 13]), "position 11 is taken: 12 words are 0 to 11"),
        ),
    ),
}
