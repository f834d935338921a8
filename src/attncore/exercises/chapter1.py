"""Exercises of chapter 1: kernel regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attncore.exercises.exercise import Exercise
from attncore.regression import choose_bandwidth, leave_one_out, nadaraya_watson

KEYS = np.array([51.0, 56.0, 58.0])
VALUES = np.array([40.0, 43.0, 48.0])

_rng = np.random.default_rng(1)
_X, _Y = np.sort(_rng.uniform(0, 5, 11)), _rng.normal(size=11)
_WAVE = 3 + 2 * np.sin(_X) + 0.3 * _Y
_WIDTHS = np.array([0.8, 0.05, 0.3, 0.5, 1.2, 5.0])
_FAR = np.array([-900.0, 1.0, 2.5, 900.0])  # exp of the scores of the first and last is 0


def _bell(difference: np.ndarray, h: float = 1.0) -> np.ndarray:
    return np.exp(-(difference**2) / (2 * h * h))


def _weights_at(query: float) -> np.ndarray:
    weights = _bell(query - KEYS)
    return weights / weights.sum()


def _nearest(x: float, keys: np.ndarray, values: np.ndarray) -> float:
    distance = abs(x - keys)
    return float(values[distance == distance.min()].mean())


def _normalise(weights: np.ndarray, axis: int) -> np.ndarray:
    return weights / weights.sum(axis=axis, keepdims=True)


def _seen(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    return nadaraya_watson(x, x, y, bandwidth=h)


def _removed_late(x: np.ndarray, y: np.ndarray, h: float) -> np.ndarray:
    return (_normalise(_bell(x[:, None] - x, h), 1) * (1 - np.eye(len(x)))) @ y


def _forecast(
    x: np.ndarray, y: np.ndarray, candidates: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    h, _ = choose_bandwidth(x, y, candidates.tolist())
    return nadaraya_watson(queries, x, y, bandwidth=h)


def _chosen_by(
    error: Callable[[np.ndarray, np.ndarray, float], float],
) -> Callable[..., np.ndarray]:
    """Return a forecast whose bandwidth makes `error`, of x, y and h, smallest."""

    def forecast(
        x: np.ndarray, y: np.ndarray, candidates: np.ndarray, queries: np.ndarray
    ) -> np.ndarray:
        h = min(candidates, key=lambda h: error(x, y, h))
        return nadaraya_watson(queries, x, y, bandwidth=h)

    return forecast


def _underflowing(
    x: np.ndarray, y: np.ndarray, candidates: np.ndarray, queries: np.ndarray
) -> np.ndarray:
    h, _ = choose_bandwidth(x, y, candidates.tolist())
    with np.errstate(invalid="ignore"):
        return _normalise(_bell(queries[:, None] - x, h), 1) @ y


EXERCISES = {
    "1.1": Exercise(
        solve=lambda: _weights_at(57.5),
        mistakes=(
            (
                lambda: _bell(57.5 - KEYS),
                "these do not sum to 1: divide by their sum",
            ),
            (
                lambda: _normalise(abs(57.5 - KEYS), 0),
                "the farthest key has the largest weight: weigh by the kernel of the distance",
            ),
            (
                lambda: _normalise(np.exp(-((57.5 - KEYS) ** 2)), 0),
                "the exponent is -(q - k)^2 / 2: the 2 is missing",
            ),
        ),
    ),
    "1.2": Exercise(
        solve=_nearest,
        cases=(
            (57.0, KEYS, VALUES),
            (53.0, KEYS, VALUES),  # not what a straight line between the keys would give
            (58.0, KEYS[::-1], VALUES[::-1]),
        ),
        mistakes=(
            (
                lambda x, keys, values: values[abs(x - keys).argmin()],
                "argmin takes the first of two equally near keys: average all that tie",
            ),
        ),
    ),
    "1.3": Exercise(
        solve=lambda x, keys, values, h: nadaraya_watson(x, keys, values, bandwidth=h),
        cases=(
            (np.array([52.0, 57.0]), KEYS, VALUES, 2.0),
            (_X[:4] + 0.1, _X, _Y, 0.7),
        ),
        mistakes=(
            (
                lambda x, keys, values, h: _bell(x[:, None] - keys, h) @ values,
                "the weights of a query do not sum to 1: divide each row by its sum",
            ),
            (
                lambda x, keys, values, h: _normalise(_bell(x[:, None] - keys, h), 0) @ values,
                "you normalised over the queries: each row, not each column, sums to 1",
            ),
            (
                lambda x, keys, values, h: nadaraya_watson(x, keys, values, bandwidth=1.0),
                "the result does not depend on h",
            ),
        ),
    ),
    "1.4": Exercise(
        solve=lambda: VALUES.mean(),
        mistakes=(
            (
                lambda: 45.5,
                "that is the answer for a narrow kernel; a wide one sees all keys alike",
            ),
            (lambda: 0.0, "the weights still sum to 1, so the average cannot vanish"),
        ),
    ),
    "1.5": Exercise(
        solve=lambda x, y, h: leave_one_out(x, y, bandwidth=h),
        cases=((_X, _Y, 0.6), (KEYS, VALUES, 3.0)),
        mistakes=(
            (
                _seen,
                "each point still sees itself: set its own weight to 0 before normalising",
            ),
            (
                _removed_late,
                "the weights no longer sum to 1: remove the point first, then normalise",
            ),
        ),
    ),
    "1.6": Exercise(
        solve=_forecast,
        cases=(
            (_X, _WAVE, _WIDTHS, _X[:5] + 0.05),
            (_X, _WAVE, _WIDTHS[::-1], _FAR),
            (KEYS, VALUES, np.array([1.0, 2.0, 8.0]), np.array([57.0, 53.0])),
        ),
        mistakes=(
            (
                _chosen_by(lambda x, y, h: np.mean((_seen(x, y, h) - y) ** 2)),
                "the bandwidth is judged on notes that see themselves, so the narrowest wins: "
                "leave each note out of its own prediction",
            ),
            (
                _chosen_by(lambda x, y, h: np.mean((_removed_late(x, y, h) - y) ** 2)),
                "the weights of the others no longer sum to 1: hide the note first, then normalise",
            ),
            (
                _chosen_by(lambda x, y, h: -np.mean((leave_one_out(x, y, bandwidth=h) - y) ** 2)),
                "that is the bandwidth with the largest error: take the smallest",
            ),
            (
                _chosen_by(lambda x, y, h: abs(np.mean(leave_one_out(x, y, bandwidth=h) - y))),
                "misses of both signs cancel: square each before you average",
            ),
            (
                lambda x, y, candidates, queries: nadaraya_watson(
                    queries, x, y, bandwidth=candidates[0]
                ),
                "the first candidate is used, not the best",
            ),
            (
                _underflowing,
                "far from all notes every power is 0, and 0 / 0 is NaN: subtract the largest score "
                "of each row first",
            ),
        ),
    ),
}
