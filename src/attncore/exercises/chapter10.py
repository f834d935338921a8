"""Exercises of chapter 10: long sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attncore.exercises.exercise import Exercise
from attncore.long.linear import features

_rng = np.random.default_rng(8)


def _half(largest: float) -> tuple[float, float, np.ndarray]:
    """Return what one processor gives: the largest score, the two sums."""
    weights = np.exp(_rng.normal(size=5))
    return largest, weights.sum(), weights @ _rng.normal(size=(5, 3))


_HALVES = tuple((*_half(first), *_half(second)) for first, second in ((0.3, 1.7), (2.0, -1.0)))
# These overflow unless the larger one is taken off both, whichever half it is in.
_FAR = tuple((*_half(a), *_half(b)) for a, b in ((1000.0, 1001.0), (1000.0, 0.0), (0.0, 1000.0)))


def _merge(
    m1: float, total1: float, out1: np.ndarray, m2: float, total2: float, out2: np.ndarray
) -> np.ndarray:
    a, b = np.exp(m1 - max(m1, m2)), np.exp(m2 - max(m1, m2))
    return (a * out1 + b * out2) / (a * total1 + b * total2)


def _apart(out1: np.ndarray, total1: float, out2: np.ndarray, total2: float) -> np.ndarray:
    return (out1 / total1 + out2 / total2) / 2


def _longformer(T: int, half: int, tokens: list[int]) -> np.ndarray:
    i = np.arange(T)
    wide = np.isin(i, tokens)
    return (abs(i[:, None] - i) <= half) | wide[:, None] | wide


def _with(
    change: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[int, int, list[int]], np.ndarray]:
    """Return a mask that joins the window, and who is global, in another way."""

    def wrong(T: int, half: int, tokens: list[int]) -> np.ndarray:
        i = np.arange(T)
        return change(abs(i[:, None] - i) <= half, np.isin(i, tokens))

    return wrong


_D, _E = 4, 3
_PAST = features(np, _rng.normal(size=(6, _D)))
_STEP = (
    _PAST.T @ _rng.normal(size=(6, _E)),
    _PAST.sum(axis=0),
    *(_rng.normal(size=width) for width in (_D, _D, _E)),
)
_FIRST = (np.zeros((_D, _E)), np.zeros(_D), *(_rng.normal(size=width) for width in (_D, _D, _E)))


def _step(S: np.ndarray, z: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    q, k = features(np, q), features(np, k)
    return q @ (S + np.outer(k, v)) / (q @ (z + k))


def _dscores(
    S: np.ndarray, lse: np.ndarray, out: np.ndarray, dO: np.ndarray, V: np.ndarray
) -> np.ndarray:
    A, dA = np.exp(S - lse[:, None]), dO @ V.T
    return A * (dA - (dO * out).sum(axis=1, keepdims=True))


def _of_a_tile(n: int, T: int, part: slice) -> tuple[np.ndarray, ...]:
    """Return what the gradient of a tile's scores is made from: n queries, some of T keys."""
    S, V, dO = (_rng.normal(size=shape) for shape in ((n, T), (T, _E), (n, _E)))
    lse = np.log(np.exp(S).sum(axis=1))
    return S[:, part], lse, np.exp(S - lse[:, None]) @ V, dO, V[part]


class _Rows:
    """Rows of keys or values. A copy, which is what a reader gets, gives a block at a time."""

    def __init__(self, name: str, array: np.ndarray, size: int, *, strict: bool = False) -> None:
        self.name, self.array, self.size, self.strict = name, array, size, strict
        self.shape, self.ndim = array.shape, array.ndim

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, part: Any) -> np.ndarray:
        found = self.array[part]
        if self.strict and not (isinstance(part, slice) and len(found) <= self.size):
            raise ValueError(
                f"{self.name} gives at most {self.size} rows at a time, by a slice such as "
                f"{self.name}[0:{self.size}]"
            )
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Rows:
        return _Rows(self.name, self.array, self.size, strict=True)

    def __repr__(self) -> str:
        return self.name


def _tiled(
    q: np.ndarray, k: Any, v: Any, window: int, size: int, *, mistake: str = ""
) -> np.ndarray:
    """Return attention in tiles, as a reader may write it with a mistake."""
    T, outs = len(q), []
    scale = 1.0 if mistake == "scale" else q.shape[1] ** -0.5
    seen = window + 1 if mistake == "one more" else T if mistake == "window" else window
    last = T - T % size if mistake == "last" else T
    for i in range(0, T, size):
        rows = np.arange(i, min(i + size, T))
        m = np.full((len(rows), 1), -np.inf)
        total, out = np.zeros((len(rows), 1)), np.zeros((len(rows), v.shape[1]))
        for j in range(0, last, size):
            back = rows[:, None] - np.arange(j, min(j + size, T))
            allowed = (back < seen) & ((back >= 0) | (mistake == "future"))
            s = np.where(allowed, scale * q[rows] @ k[j : j + size].T, -np.inf)
            new = np.maximum(m, s.max(axis=1, keepdims=True))
            if mistake == "largest":
                new = np.zeros_like(new)
            base = np.where(np.isneginf(new) & (mistake != "empty"), 0.0, new)
            fade, weight = np.exp(m - base), np.exp(s - base)
            if mistake in ("fade", "largest"):
                fade = np.ones_like(fade)
            m, share = new, weight.sum(axis=1, keepdims=True)
            if mistake == "divide":
                weight = weight / np.where(share == 0, 1, share)
            total, out = fade * total + share, fade * out + weight @ v[j : j + size]
        outs.append(out if mistake == "divide" else out / total)
    return np.concatenate(outs)


def _flash(mistake: str = "") -> Callable[..., np.ndarray]:
    @np.errstate(all="ignore")  # some mistakes give NaN
    def flash(q: np.ndarray, k: Any, v: Any, window: int, size: int) -> np.ndarray:
        return _tiled(q, k, v, window, size, mistake=mistake)

    return flash


def _text(T: int, window: int, size: int, longer: float = 1.0) -> tuple[Any, ...]:
    """Return queries, keys and values of T tokens, and how they are to be read."""
    q, k, v = (_rng.normal(size=(T, width)) for width in (_D, _D, _E))
    return longer * q, _Rows("k", k, size), _Rows("v", v, size), window, size


EXERCISES = {
    "10.1": Exercise(
        solve=lambda: 24,
        mistakes=(
            (lambda: 16, "that is the window alone"),
            (lambda: 20, "a global token sees all, and is seen by all: a row and a column"),
            (lambda: 27, "pairs that the window keeps already are counted twice"),
            (lambda: 28, "pairs that the window keeps already count once"),
            (lambda: 3, "that is what both keep; a pair counts if either keeps it"),
            (lambda: 36, "that is every pair"),
        ),
    ),
    "10.2": Exercise(
        solve=lambda: 15,
        mistakes=(
            (lambda: 13, "a window of 8 counts the token itself: it goes back 7"),
            (lambda: 12.5, "a window of 8 counts the token itself, and layers come whole"),
            (lambda: 14, "14 layers go back 98 tokens"),
            (lambda: 100 / 7, "layers come whole"),
            (lambda: 25, "that is for 4 on each side; a causal window looks back only"),
        ),
    ),
    "10.3": Exercise(
        solve=lambda: 1280,
        mistakes=(
            (lambda: 640, "that is in numbers: 16 bits are 2 bytes"),
            (lambda: 1280 * 1024, "that is in bytes: a KiB is 1,024 of them"),
            (lambda: 512, "keys and values move again for each block of queries"),
            (
                lambda: 4352,
                "keys and values move once for each block of queries: there are 1024 / 256",
            ),
            (lambda: 8704, "that is the plain way: in tiles, scores and weights never move"),
            (lambda: 1664, "a block of queries stays until its row of tiles is done"),
            (lambda: 768, "both keys and values move again for each block of queries"),
            (lambda: 1152, "outputs are written: they move too"),
        ),
    ),
    "10.4": Exercise(
        solve=_merge,
        cases=(*_HALVES, *_FAR),
        mistakes=(
            (
                lambda m1, total1, out1, m2, total2, out2: (out1 + out2) / (total1 + total2),
                "the halves have taken off different largest scores: make them the same first",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: _apart(out1, total1, out2, total2),
                "the halves do not weigh the same: add the sums, then divide",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: _merge(
                    -m1, total1, out1, -m2, total2, out2
                ),
                "the half with the smaller scores is the one that fades",
            ),
            (
                lambda m1, total1, out1, m2, total2, out2: (
                    np.exp(m1 - max(m1, m2)) * out1 + np.exp(m2 - max(m1, m2)) * out2
                ),
                "divide by the sum of the weights, faded in the same way",
            ),
        ),
    ),
    "10.5": Exercise(
        solve=_longformer,
        cases=((7, 1, [2]), (9, 2, []), (8, 0, [0, 5])),
        mistakes=(
            (_with(lambda near, wide: near), "the global tokens are missing"),
            (_with(lambda near, wide: near | wide), "global tokens see all, too: their rows"),
            (
                _with(lambda near, wide: near | wide[:, None]),
                "all see them, too: the columns",
            ),
            (
                _with(lambda near, wide: near & (wide | wide[:, None])),
                "join with or: a pair is kept if either the window or a global token keeps it",
            ),
            (_with(lambda near, wide: wide | wide[:, None]), "the window is missing"),
            (
                _with(lambda near, wide: ~(near | wide | wide[:, None])),
                "true means may attend: yours is the other way round",
            ),
            (
                _with(lambda near, wide: np.tril(near | wide | wide[:, None])),
                "nothing said the mask is causal",
            ),
        ),
    ),
    "10.6": Exercise(
        solve=_step,
        cases=(_STEP, _FIRST),
        mistakes=(
            (
                lambda S, z, q, k, v: features(np, q) @ (S + np.outer(features(np, k), v)),
                "divide by phi(q) times the sum of the features",
            ),
            (
                lambda S, z, q, k, v: (
                    q @ (S + np.outer(features(np, k), v)) / (q @ (z + features(np, k)))
                ),
                "the query goes through phi too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ (S + np.outer(k, v)) / (features(np, q) @ (z + k))
                ),
                "the key goes through phi too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ (S + np.outer(features(np, k), v)) / (features(np, q) @ z)
                    if z.any()
                    else v * np.inf
                ),
                "the new key belongs in z too",
            ),
            (
                lambda S, z, q, k, v: (
                    features(np, q) @ S / (features(np, q) @ z) if z.any() else v * np.nan
                ),
                "the token sees itself too: first add it to both sums, then ask",
            ),
        ),
    ),
    "10.7": Exercise(
        solve=_dscores,
        cases=(
            _of_a_tile(3, 7, np.s_[2:5]),
            _of_a_tile(2, 4, np.s_[:4]),
            _of_a_tile(4, 9, np.s_[8:]),
        ),
        mistakes=(
            (
                lambda S, lse, out, dO, V: np.exp(S - lse[:, None]) * (dO @ V.T),
                "each key counts as far as it is better than the average: subtract that",
            ),
            (
                lambda S, lse, out, dO, V: _dscores(S, lse, np.exp(S - lse[:, None]) @ V, dO, V),
                "this tile has only some of the keys: take the average from dO and O",
            ),
            (
                lambda S, lse, out, dO, V: _dscores(S, np.log(np.exp(S).sum(1)), out, dO, V),
                "the weights of a tile do not sum to 1: they are exp(S - lse)",
            ),
            (
                lambda S, lse, out, dO, V: dO @ V.T - (dO * out).sum(axis=1, keepdims=True),
                "multiply by the weights",
            ),
            (lambda S, lse, out, dO, V: -_dscores(S, lse, out, dO, V), "the sign is reversed"),
            (
                lambda S, lse, out, dO, V: (
                    np.exp(S - lse[:, None]) * (dO @ V.T - (dO * out).sum(axis=0).mean())
                ),
                "the average belongs to each query: sum dO * O along its row",
            ),
        ),
    ),
    "10.8": Exercise(
        solve=_flash(),
        cases=(_text(7, 3, 2), _text(8, 2, 4, longer=2000.0), _text(5, 4, 8), _text(9, 1, 3)),
        mistakes=(
            (
                _flash("empty"),
                "a tile may have no key that a query sees: while the maximum is minus infinity, "
                "take off 0",
            ),
            (_flash("fade"), "when the maximum grows, what was added before must fade"),
            (_flash("largest"), "scores may be in the thousands: take the largest so far off"),
            (_flash("divide"), "divide once, at the end: parts of a row do not weigh the same"),
            (_flash("future"), "the window is causal: hide the keys after the query"),
            (_flash("window"), "the window is missing: a query sees its last keys only"),
            (_flash("one more"), "a window counts the query's own token: one key fewer"),
            (_flash("last"), "the last block may be shorter: its keys are missing"),
            (_flash("scale"), "divide the scores by the root of D"),
        ),
    ),
}
