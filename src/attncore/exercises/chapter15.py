"""Exercises of chapter 15: vision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
_LAYERS = softmax(2 * _rng.normal(size=(3, 2, 5, 5)))  # (layers, H, 1 + T, 1 + T)
_LAYERS_2 = softmax(2 * _rng.normal(size=(2, 4, 7, 7)))
_TABLE, _TABLE_3 = _rng.normal(size=(16, 5)), _rng.normal(size=(9, 2))
_HALVES, _THIRDS = np.arange(7) / 2, np.arange(7) / 3


def _cls_map(weights: np.ndarray, columns: int) -> np.ndarray:
    seen = weights[:, 0, 1:].mean(axis=0)
    return (seen / seen.sum()).reshape(-1, columns)


def _mean_of_shares(weights: np.ndarray) -> np.ndarray:
    """Divide in each head: CLS's weight for itself then counts too."""
    seen = weights[:, 0, 1:]
    return (seen / seen.sum(axis=1, keepdims=True)).mean(axis=0)


def _places(Tk: int, columns: int) -> np.ndarray:
    return np.array([divmod(j, columns) for j in range(Tk)])


def _rollout(weights: np.ndarray, *, reverse: bool = False, skip: float = 0.5) -> np.ndarray:
    """Return the product of the layers, each with a share `skip` of staying: `(1 + T, 1 + T)`."""
    flow = np.eye(weights.shape[-1])
    for layer in weights.mean(axis=1):
        half = (1 - skip) * layer + skip * np.eye(len(layer))
        flow = flow @ half if reverse else half @ flow
    return flow


def _read_between(at: np.ndarray, side: int, *, swap: bool = False) -> np.ndarray:
    """Return the matrix that reads `side` values at places between them."""
    below = np.minimum(np.floor(at).astype(int), side - 2)
    M = np.zeros((len(at), side))
    part = 1 - (at - below) if swap else at - below
    M[np.arange(len(at)), below], M[np.arange(len(at)), below + 1] = 1 - part, part
    return M


def _finer(table: np.ndarray, side: int, at: np.ndarray, M: np.ndarray | None = None) -> np.ndarray:
    M = _read_between(at, side) if M is None else M
    return np.kron(M, M) @ table


def _front(
    images: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    cls: np.ndarray,
    positions: np.ndarray,
    size: int,
    *,
    cut: Callable[[np.ndarray, int], np.ndarray] = patches,
) -> np.ndarray:
    rows = cut(images, size) @ weight + bias
    front = np.broadcast_to(cls, (len(images), *cls.shape))
    return np.concatenate([front, rows], axis=1) + positions


def _strips(images: np.ndarray, size: int) -> np.ndarray:
    return images.reshape(len(images), -1, size * size * images.shape[3])


def _downwards(images: np.ndarray, size: int) -> np.ndarray:
    """Cut squares that are right, and read them down before across."""
    _, rows, columns, _ = images.shape
    cut = patches(images, size).reshape(len(images), rows // size, columns // size, -1)
    return cut.swapaxes(1, 2).reshape(len(images), -1, cut.shape[-1])


def _parts_of_front(*shape: int, size: int, d: int) -> tuple[Any, ...]:
    """Return images of this shape, and random parameters for them."""
    T, numbers = patches(np.zeros(shape[1:]), size).shape
    sizes = shape, (numbers, d), (d,), (1, d), (1 + T, d)
    return (*(_rng.normal(size=s) for s in sizes), size)


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
    "15.6": Exercise(
        solve=lambda weights: _rollout(weights)[0, 1:],
        cases=((_LAYERS,), (_LAYERS_2,)),
        mistakes=(
            (
                lambda weights: _rollout(weights, reverse=True)[0, 1:],
                "the last layer stands on the left: multiply each next layer from the left",
            ),
            (
                lambda weights: _rollout(weights, skip=0.0)[0, 1:],
                "half of each row stays as it is: add half the identity to half the weights",
            ),
            (
                lambda weights: _rollout(weights)[1:, 0],
                "column 0 is how much CLS gives to the patches; row 0 is what it got from them",
            ),
            (
                lambda weights: _rollout(weights[:, :1])[0, 1:],
                "that is the first head alone: take the mean over heads in each layer",
            ),
            (
                lambda weights: (0.5 * weights[-1].mean(axis=0))[0, 1:],
                "that is the last layer alone: multiply all layers",
            ),
            (
                lambda weights: 2 ** len(weights) * _rollout(weights)[0, 1:],
                "each row must still sum to 1: halve the weights and the identity",
            ),
        ),
    ),
    "15.7": Exercise(
        solve=_finer,
        cases=((_TABLE, 4, _HALVES), (_TABLE_3, 3, _THIRDS)),
        mistakes=(
            (
                lambda table, side, at: _finer(
                    table, side, at, np.eye(side)[np.floor(at).astype(int)]
                ),
                "that takes the row before each place; mix it with the row after",
            ),
            (
                lambda table, side, at: _finer(
                    table, side, at, np.eye(side)[np.round(at).astype(int)]
                ),
                "that takes the nearest old row; mix the rows around each place",
            ),
            (
                lambda table, side, at: _finer(table, side, at, _read_between(at, side, swap=True)),
                "the two shares are swapped: the nearer old row gets the larger share",
            ),
            (
                lambda table, side, at: (
                    _finer(table, side, at)
                    .reshape(len(at), len(at), -1)
                    .swapaxes(0, 1)
                    .reshape(len(at) ** 2, -1)
                ),
                "down and across are swapped: the places go across first, then down",
            ),
        ),
    ),
    "15.8": Exercise(
        solve=_front,
        cases=(
            _parts_of_front(2, 4, 6, 1, size=2, d=3),
            _parts_of_front(3, 6, 3, 3, size=3, d=4),
            _parts_of_front(1, 8, 4, 2, size=2, d=5),
        ),
        mistakes=(
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls, positions, size, cut=_strips
                ),
                "reshape alone cuts strips of pixels, not squares",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls, positions, size, cut=_downwards
                ),
                "the squares go down first; they should go across first",
            ),
            (
                lambda images, weight, bias, cls, positions, size: (
                    np.roll(_front(images, weight, bias, cls, 0 * positions, size), -1, axis=1)
                    + positions
                ),
                "CLS comes first, before the patches",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls - positions[0], positions, size
                ),
                "CLS gets its row of the table too: row 0",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls, np.roll(positions, -1, axis=0), size
                ),
                "row 0 of the table is for CLS; the patches get the rows from 1 on",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls + bias, positions, size
                ),
                "the bias belongs to the map of the patches; CLS does not go through it",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, 0 * bias, cls, positions, size
                ),
                "the bias of the map is missing",
            ),
            (
                lambda images, weight, bias, cls, positions, size: _front(
                    images, weight, bias, cls, 0 * positions, size
                ),
                "the positions are missing",
            ),
        ),
    ),
}
