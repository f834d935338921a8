"""Exercises of chapter 15: vision."""

from __future__ import annotations

import numpy as np

from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise
from attncore.images import patches

_rng = np.random.default_rng(11)
_SQUARE, _WIDE = _rng.normal(size=(6, 6)), _rng.normal(size=(6, 9))
_ORDERS = tuple(_rng.permutation(n) for n in (5, 7))
_MAPS = softmax(_rng.normal(size=(3, 13, 13)))  # (H, 1 + T, 1 + T), 3 rows of 4 patches
_MAPS_5 = softmax(_rng.normal(size=(2, 11, 11)))
_WORDS, _WORDS_6 = softmax(_rng.normal(size=(2, 12))), softmax(_rng.normal(size=(3, 24)))


def _cls_map(weights: np.ndarray, columns: int) -> np.ndarray:
    seen = weights[:, 0, 1:].mean(axis=0)
    return (seen / seen.sum()).reshape(-1, columns)


def _mean_of_shares(weights: np.ndarray) -> np.ndarray:
    """Divide in each head: CLS's weight for itself then counts too."""
    seen = weights[:, 0, 1:]
    return (seen / seen.sum(axis=1, keepdims=True)).mean(axis=0)


def _places(Tk: int, columns: int) -> np.ndarray:
    return np.array([divmod(j, columns) for j in range(Tk)])


EXERCISES = {
    "15.1": Exercise(
        solve=lambda: 65**2,
        mistakes=(
            (lambda: 64**2, "the extra row CLS attends and is attended to as well"),
            (lambda: 64, "that is the number of patches; CLS is a token too, and all score all"),
            (lambda: 64 * 65, "CLS is a query and a key: it asks too, and is asked"),
            (lambda: 64**2 + 1, "CLS scores every token, and every token scores CLS"),
            (lambda: 65, "that is the number of tokens; each of them scores every one"),
            (lambda: (32 * 32) ** 2, "that is a score for each pair of pixels, not of patches"),
            (lambda: 65**2 * 3, "channels lie inside a patch: they are not tokens"),
            (lambda: (32 // 4 + 1) ** 2, "8 patches go across, and as many down"),
        ),
    ),
    "15.2": Exercise(
        solve=lambda image, size: patches(image[..., None], size),
        cases=((_SQUARE, 2), (_WIDE, 3), (_SQUARE, 3)),
        mistakes=(
            (
                lambda image, size: image.reshape(-1, size**2),
                "reshape alone cuts strips of one row of pixels, not squares",
            ),
            (
                lambda image, size: patches(image.T[..., None], size),
                "squares and pixels go down first; they should go across first",
            ),
            (
                lambda image, size: (
                    patches(image[..., None], size)
                    .reshape(-1, size, size)
                    .swapaxes(1, 2)
                    .reshape(-1, size**2)
                ),
                "the squares are right, but the pixels inside go down first",
            ),
        ),
    ),
    "15.3": Exercise(
        solve=np.argsort,
        cases=tuple((order,) for order in _ORDERS),
        mistakes=(
            (lambda order: order, "that shuffles a second time"),
            (lambda order: order[::-1], "reading the order backwards does not undo it"),
            (lambda order: np.arange(len(order)), "that leaves the patches as they are"),
        ),
    ),
    "15.4": Exercise(
        solve=_cls_map,
        cases=((_MAPS, 4), (_MAPS_5, 5), (_MAPS, 3)),
        mistakes=(
            (
                lambda weights, columns: weights[:, 0, 1:].mean(axis=0).reshape(-1, columns),
                "the sum is not 1: CLS keeps some weight for itself",
            ),
            (
                lambda weights, columns: _mean_of_shares(weights).reshape(-1, columns),
                "take the mean over heads first, then divide once",
            ),
            (
                lambda weights, columns: _cls_map(weights.swapaxes(1, 2), columns),
                "column 0 is who attends to CLS; the row is where CLS attends",
            ),
            (
                lambda weights, columns: _cls_map(weights[:1], columns),
                "that is the first head alone: take the mean over heads",
            ),
        ),
    ),
    "15.5": Exercise(
        solve=lambda weights, columns: weights @ _places(weights.shape[1], columns),
        cases=((_WORDS, 4), (_WORDS_6, 6), (_WORDS_6, 8)),
        mistakes=(
            (
                lambda weights, columns: (weights @ _places(weights.shape[1], columns))[:, ::-1],
                "row first, then column",
            ),
            (
                lambda weights, columns: _places(weights.shape[1], columns)[weights.argmax(axis=1)],
                "that is the place of the largest weight; the average is asked for",
            ),
            (
                lambda weights, columns: weights @ (_places(weights.shape[1], columns) + 1),
                "rows and columns are counted from 0",
            ),
        ),
    ),
}
