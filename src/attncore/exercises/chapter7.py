"""Exercises of chapter 7: the block, and a decoder opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from attncore.core.attention import attention
from attncore.core.softmax import softmax
from attncore.exercises.exercise import Exercise
from attncore.models.ops import gelu

_ROW = np.array([1.0, 3.0, 3.0, 9.0])
_rng = np.random.default_rng(7)
_NORMS = (
    tuple(_rng.normal(size=size) for size in ((3, 6), (6,), (6,))),
    tuple(_rng.normal(size=size) for size in ((2, 4, 5), (5,), (5,))),
    (np.array([[2e-3, 5e-3, 2e-3], [1e-3, 0.0, 2e-3]]), np.ones(3), np.zeros(3)),
)
_LENSES = tuple(
    tuple(_rng.normal(size=size) for size in ((T, d), (d,), (d,), (N, d)))
    for T, d, N in ((3, 4, 6), (5, 5, 5))
)
_NETWORKS = tuple(
    tuple(_rng.normal(size=size) for size in ((d, d_ff), (d_ff,), (d_ff, d), (d,)))
    for d, d_ff in ((3, 5), (4, 16))
)


def _block_case(T: int, d: int, d_ff: int, heads: int) -> tuple[Any, ...]:
    sizes = ((T, d), (d, d), (d, d), (d, d), (d, d), (d, d_ff), (d_ff, d))
    return (*(_rng.normal(size=size) for size in sizes), heads)


_BLOCKS = (_block_case(5, 6, 12, 2), _block_case(4, 8, 16, 4))


def _norm(
    x: np.ndarray,
    weight: np.ndarray | float = 1.0,
    bias: np.ndarray | float = 0.0,
    *,
    axis: int | None = -1,
    eps: float = 1e-5,
    power: float = 0.5,
    ddof: int = 0,
) -> np.ndarray:
    z = x - x.mean(axis, keepdims=True)
    return z / (x.var(axis, keepdims=True, ddof=ddof) + eps) ** power * weight + bias


def _lens(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, E: np.ndarray, axis: int = -1
) -> np.ndarray:
    return softmax(_norm(x, weight, bias) @ E.T, axis=axis)


def _plain(x: np.ndarray) -> np.ndarray:
    return x


def _block(
    x: np.ndarray,
    W_Q: np.ndarray,
    W_K: np.ndarray,
    W_V: np.ndarray,
    W_O: np.ndarray,
    W_1: np.ndarray,
    W_2: np.ndarray,
    heads: int,
    *,
    add: bool = True,
    causal: bool = True,
    scale: float | None = None,
    norm1: Callable[[np.ndarray], np.ndarray] = _norm,
    norm2: Callable[[np.ndarray], np.ndarray] = _norm,
    act: Callable[[np.ndarray], np.ndarray] = gelu,
    after: Callable[[np.ndarray], np.ndarray] = _plain,
    parallel: bool = False,
) -> np.ndarray:
    """Return what a block returns; the options are the mistakes that can be made."""

    def split(rows: np.ndarray) -> np.ndarray:
        return rows.reshape(len(rows), heads, -1).swapaxes(0, 1)

    n = norm1(x)
    q, k, v = (split(n @ W) for W in (W_Q, W_K, W_V))
    mixed = attention(q, k, v, causal=causal, scale=scale).swapaxes(0, 1).reshape(x.shape) @ W_O
    stream = after(x + mixed if add else mixed)
    inner = act(norm2(x if parallel else stream) @ W_1) @ W_2
    return after(stream + inner if add else inner)


def _with(**options: Any) -> Callable[..., np.ndarray]:
    return lambda *case: _block(*case, **options)


def _one_head(*case: Any) -> np.ndarray:
    return _block(*case[:-1], 1)  # type: ignore[call-arg, arg-type]


def _relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _tanh_gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


EXERCISES = {
    "7.1": Exercise(
        solve=lambda: (_ROW - 4) / 3,
        mistakes=(
            (lambda: (_ROW - 4) / 9, "9 is the variance: divide by its square root"),
            (lambda: _ROW - 4, "the mean is right; now divide by the standard deviation"),
            (lambda: _ROW / 3, "first take off the mean, 4"),
            (lambda: (_ROW - 4) / np.sqrt(12), "divide the sum of the squares by 4, not by 3"),
        ),
    ),
    "7.2": Exercise(
        solve=lambda: 228,
        mistakes=(
            (lambda: 212, "the two norms have a weight and a bias for each feature"),
            (lambda: 208, "the network has biases: 16 inside and 4 at its end"),
            (lambda: 164, "attention has four maps of 4 by 4"),
            (lambda: 244, "these maps of attention have no biases"),
            (lambda: 80, "the network is missing: two maps and their biases"),
            (lambda: 220, "there are two norms, of 8 numbers each"),
        ),
    ),
    "7.3": Exercise(
        solve=_norm,
        cases=_NORMS,
        mistakes=(
            (
                lambda x, w, b: _norm(x, w, b, axis=-2),
                "each row is normalised by itself, along its features: axis -1, not the tokens",
            ),
            (
                lambda x, w, b: _norm(x, w, b, axis=None),
                "each row has its own mean and variance, not the array as a whole",
            ),
            (lambda x, w, b: _norm(x, w, b, power=1), "divide by the root of the variance"),
            (lambda x, w, b: _norm(x), "stretch by the weight and shift by the bias at the end"),
            (
                lambda x, w, b: _norm(x, w, b, ddof=1),
                "the mean of the squares has d in it, not d - 1",
            ),
            (
                lambda x, w, b: _norm(x, w, b, eps=0),
                "add 1e-5 to the variance, inside of the root",
            ),
            (
                lambda x, w, b: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w + b,
                "take the mean off first: this is RMS norm",
            ),
        ),
    ),
    "7.4": Exercise(
        solve=_lens,
        cases=_LENSES,
        mistakes=(
            (
                lambda x, w, b, E: softmax(x @ E.T),
                "the last norm stands between the stream and the table",
            ),
            (
                lambda x, w, b, E: softmax(_norm(x) @ E.T),
                "the norm has a weight and a bias: use them",
            ),
            (lambda x, w, b, E: _norm(x, w, b) @ E.T, "these are logits: softmax is missing"),
            (
                lambda x, w, b, E: _lens(x, w, b, E, axis=0),
                "softmax goes along the tokens that may come next, the last axis",
            ),
        ),
    ),
    "7.5": Exercise(
        solve=lambda W_1, b_1, W_2, b_2: b_1 @ W_2 + b_2,
        cases=_NETWORKS,
        mistakes=(
            (lambda W_1, b_1, W_2, b_2: b_2, "the first bias passes through the second map"),
            (lambda W_1, b_1, W_2, b_2: b_1 @ W_2, "the second bias is added at the end"),
            (
                lambda W_1, b_1, W_2, b_2: gelu(b_1) @ W_2 + b_2,
                "GELU is left out here: without it the rest is one map",
            ),
        ),
    ),
    "7.6": Exercise(
        solve=_block,
        cases=_BLOCKS,
        mistakes=(
            (_with(add=False), "each result is added to the stream; yours replaces it"),
            (
                _with(norm1=_plain, norm2=_plain, after=_norm),
                "normalise what each part reads, not the sum: that is post-norm",
            ),
            (_with(causal=False), "a token must not see the future: attention is causal"),
            (_with(norm1=_plain), "attention reads norm(x), not x"),
            (_with(norm2=_plain), "the network reads the stream normalised once more"),
            (
                _with(parallel=True),
                "the network reads the stream after attention has been added to it",
            ),
            (_with(act=_relu), "inside the network is GELU, and yours is max(0, x)"),
            (
                _with(act=_tanh_gelu),
                "this is the formula with tanh, which is only near GELU: use erf",
            ),
            (_with(act=_plain), "without GELU the two maps of the network are one map"),
            (
                lambda *case: _block(*case, scale=case[0].shape[1] ** -0.5),
                "scores are divided by the root of a head's width, D = d / heads, not of d",
            ),
            (
                _one_head,
                "attend with each head by itself: cut the features of q, k and v into heads",
            ),
        ),
    ),
}
