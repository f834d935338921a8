"""Exercises of chapter 14: many devices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.core.attention import attention
from attncore.core.merge import merge
from attncore.exercises.exercise import Exercise

_rng = np.random.default_rng(14)


def _merged(outs: np.ndarray, lses: np.ndarray) -> np.ndarray:
    return merge(list(outs), list(lses))[0]


def _shared(outs: np.ndarray, lses: np.ndarray, axis: int) -> np.ndarray:
    shares = np.exp(lses - lses.max(axis, keepdims=True))
    return (shares[..., None] / shares.sum(axis, keepdims=True)[..., None] * outs).sum(0)


def _overflowing(outs: np.ndarray, lses: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        shares = np.exp(lses)[..., None]
        return (shares * outs).sum(0) / shares.sum(0)


def _without_exponentials(outs: np.ndarray, lses: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return (lses[..., None] * outs).sum(0) / lses.sum(0)[..., None]


def _kept(P: float, Z: int, stage: int) -> float:
    return P * sum(part / (Z if stage >= first else 1) for part, first in ((12, 1), (2, 2), (2, 3)))


class _Device:
    """Attention with a log-sum-exp. A copy, as a reader gets it, has memory for few keys."""

    def __init__(self, memory: int, *, strict: bool = False) -> None:
        self.memory, self.strict = memory, strict

    def __call__(self, q: Any, k: Any, v: Any, mask: Any) -> Any:
        if self.strict and len(k) > self.memory:
            raise ValueError(
                f"a rank has memory for {self.memory} keys, and these are {len(k)}: attend to the "
                "block that is there, and merge"
            )
        return attention(q, k, v, mask, return_lse=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Device:
        return _Device(self.memory, strict=True)

    def __repr__(self) -> str:
        return "attend"


def _ring(
    q: Any,
    k: Any,
    v: Any,
    at: Any,
    attend: _Device,
    *,
    moved: tuple[bool, bool, bool] = (True, True, True),
    causal: bool = True,
    first: int = 0,
    last: int = 0,
    mean: bool = False,
) -> np.ndarray:
    """Send blocks round a ring; each option is a mistake."""
    Z = len(at)
    outs = []
    for rank in range(Z):
        parts = []
        for step in range(first, Z - last):
            source = (rank - step) % Z
            keys, values, tokens = (
                block[source if moves else rank]
                for block, moves in zip((k, v, at), moved, strict=True)
            )
            mask = (tokens <= at[rank][:, None]) | (not causal)
            parts.append(attend(q[rank], keys, values, mask))
        each, lses = zip(*parts, strict=True)
        outs.append(np.mean(each, axis=0) if mean else merge(each, lses)[0])
    return np.array(outs)


def _with(**mistake: Any) -> Any:
    return lambda q, k, v, at, attend: _ring(q, k, v, at, attend, **mistake)


def _dealt(Z: int, D: int, E: int, at: list[np.ndarray]) -> tuple[Any, ...]:
    """Return a case: what each rank holds, the numbers of its tokens, and a device."""
    held = [list(_rng.normal(size=(Z, len(at[0]), width))) for width in (D, D, E)]
    return *held, at, _Device(len(at[0]))


_STRETCHES = np.split(np.arange(12), 3)
_ZIGZAG = [np.array([0, 1, 6, 7]), np.array([2, 3, 4, 5])]
_STRIPES = [np.arange(16)[rank::4] for rank in range(4)]

EXERCISES = {
    "14.1": Exercise(
        solve=lambda: 2 / (math.e + math.e**2 + 2),
        mistakes=(
            (lambda: 0.5, "device 1 has half of the tokens, but not half of the weight"),
            (lambda: 0.0, "a score of 0 is not a weight of 0: its exponential is 1"),
            (
                lambda: math.log(2) / (math.log(2) + math.log(math.e + math.e**2)),
                "shares are of the sums of exponentials, not of their logarithms",
            ),
            (
                lambda: 2 / (math.e**2 + math.e**4 + 2),
                "these scores are scaled already: 1, 2, 0 and 0",
            ),
            (
                lambda: 1 / (math.e + math.e**2 + 2),
                "that is one token's weight: two tokens lie on device 1",
            ),
            (
                lambda: (math.e + math.e**2) / (math.e + math.e**2 + 2),
                "that is the share of device 0",
            ),
        ),
    ),
    "14.2": Exercise(
        solve=lambda: 48.375,
        mistakes=(
            (lambda: 48, "the log-sum-exp travels too, one number more for each head"),
            (lambda: 64.5, "a rank does not send to itself"),
            (lambda: 16.125, "it goes to each of the three other ranks"),
            (
                lambda: 6.046875,
                "outputs belong to query heads, of which there are H: keys and values stay",
            ),
            (lambda: 96.75, "16 bits are 2 bytes, and there is one output for each head"),
            (lambda: 24.1875, "each number has 2 bytes"),
            (lambda: 49536, "that is in bytes; a KiB is 1,024 of them"),
        ),
    ),
    "14.3": Exercise(
        solve=lambda: 2576,
        mistakes=(
            (lambda: 3072, "among its own tokens the mask hides nearly half"),
            (lambda: 1552, "that is the average of the three ranks"),
            (lambda: 528, "it also attends to the tokens of the two ranks before"),
            (lambda: 2544, "a token attends to itself, too"),
            (lambda: 2048, "its own tokens attend to each other, too"),
        ),
    ),
    "14.4": Exercise(
        solve=lambda: 1520,
        mistakes=(
            (lambda: 1584, "that is rank 2: the first token of rank 0 is token 0"),
            (lambda: 1552, "that is the average, and the work of rank 1"),
            (lambda: 1488, "a token attends to itself, too: token t has t + 1 keys"),
            (lambda: 528, "its tokens attend to those of the other ranks, too"),
            (lambda: 4656, "that is all three ranks together"),
        ),
    ),
    "14.5": Exercise(
        solve=lambda: 112,
        mistakes=(
            (lambda: 448, "nobody sends the whole array to everyone: cut it into pieces"),
            (lambda: 56, "that is one half, the sums: the finished pieces must go round as well"),
            (lambda: 128, "a rank keeps one piece of its own: the factor is (Z - 1) / Z"),
            (lambda: 64, "that is the array; the formula has 2 (Z - 1) / Z in front of it"),
            (lambda: 224, "16 bits are 2 bytes, not 4"),
            (lambda: 112 * 2**20, "that is in bytes; a MiB is 2 to the 20 of them"),
        ),
    ),
    "14.6": Exercise(
        solve=_merged,
        cases=(
            (_rng.normal(size=(2, 3, 4)), _rng.normal(size=(2, 3))),
            (_rng.normal(size=(3, 3, 2)), 2000 + 2 * _rng.normal(size=(3, 3))),
            (
                _rng.normal(size=(2, 2, 2)) * [[[1], [0]], [[1], [1]]],
                np.array([[0.5, -np.inf], [1.5, -1.0]]),
            ),
        ),
        mistakes=(
            (
                lambda outs, lses: outs.mean(0),
                "the ranks do not hold equal shares: weigh each output by its share",
            ),
            (
                _overflowing,
                "exp of a large number overflows: subtract the largest log-sum-exp first",
            ),
            (
                lambda outs, lses: _shared(outs, lses, 1),
                "the shares of a query sum to 1 over the ranks, which are axis 0",
            ),
            (
                lambda outs, lses: (np.exp(lses - lses.max(0))[..., None] * outs).sum(0),
                "divide by the sum of the exponentials, so that the shares sum to 1",
            ),
            (
                _without_exponentials,
                "shares are exponentials of the log-sum-exps, divided by their sum",
            ),
        ),
    ),
    "14.7": Exercise(
        solve=_kept,
        cases=tuple((1000.0, ranks, stage) for ranks in (4, 8) for stage in range(4)),
        mistakes=(
            (
                lambda P, Z, stage: 16 * P / (Z if stage else 1),
                "only stage 3 cuts everything: stage 1 cuts what Adam keeps, stage 2 the "
                "gradients too",
            ),
            (
                lambda P, Z, stage: _kept(P, Z, stage) - (12 * P if stage == 0 else 12 * P / Z),
                "what Adam keeps is missing: 12 bytes for each parameter",
            ),
            (
                lambda P, Z, stage: _kept(P, Z, min(stage + 1, 3)),
                "stage 0 cuts nothing: a rank keeps 16 bytes for each parameter",
            ),
            (
                lambda P, Z, stage: _kept(P, Z, min(stage, 2)),
                "stage 3 cuts the weights, too",
            ),
            (
                lambda P, Z, stage: 16 * P / (stage + 1),
                "a part is cut into as many pieces as there are ranks, whatever the stage",
            ),
        ),
    ),
    "14.8": Exercise(
        solve=_with(),
        cases=(
            _dealt(3, 4, 2, _STRETCHES),
            _dealt(2, 4, 4, _ZIGZAG),
            _dealt(4, 3, 3, _STRIPES),
        ),
        mistakes=(
            (
                _with(mean=True),
                "the blocks do not hold equal shares of the weight: merge by log-sum-exp",
            ),
            (
                _with(moved=(True, False, True)),
                "the values stayed behind: keys and values travel together",
            ),
            (
                _with(moved=(True, True, False)),
                "each block was masked like a rank's own: the keys' numbers travel with the keys",
            ),
            (
                _with(moved=(False, False, False)),
                "nothing moved: after each step a block goes on to the next rank",
            ),
            (_with(last=1), "the ring stopped one step early: there are Z steps, with Z - 1 moves"),
            (_with(first=1), "a rank's own block is missing: attend first, then move"),
            (_with(causal=False), "a query may not see later tokens: mask by their numbers"),
        ),
    ),
}
