"""The exercise of the front page."""

from __future__ import annotations

import math

import numpy as np

from attncore.exercises.exercise import Exercise

QUERY, KEY, OTHER = np.array([2, 1, 1, 1]), np.array([2, 2, 0, 2]), np.array([0, 2, 2, 2])

EXERCISES = {
    "0.1": Exercise(
        solve=lambda: QUERY @ KEY / math.sqrt(4),
        mistakes=(
            (
                lambda: QUERY @ KEY,
                "this is the dot product: the scaled score is divided by the square root of D",
            ),
            (
                lambda: QUERY @ KEY / 4,
                "this is divided by D: divide by the square root of D",
            ),
            (
                lambda: QUERY @ OTHER / math.sqrt(4),
                "this is the score with the key of cat: take the key of sat on",
            ),
        ),
    ),
}
