"""The operations of a model that NumPy and torch spell differently."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from attncore.base.arrays import Array, cast, wide


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Return x W^T + b, `(..., out)` from x `(..., in)` and W `(out, in)`."""
    if type(x) is not np.ndarray:
        return _torch().nn.functional.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])  # one product of matrices, not one for each sequence
    y = (rows @ weight.T).reshape(*x.shape[:-1], len(weight))
    return y if bias is None else y + bias


def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Bring each row to mean 0 and variance 1, then stretch and shift its features."""
    if type(x) is not np.ndarray:
        return _torch().nn.functional.layer_norm(x, weight.shape, weight, bias, eps)
    d, add = x.shape[-1], np.add.reduce  # np.mean takes longer than the sum of a short row
    x = x - add(x, -1, keepdims=True) / d
    variance = add(x * x, -1, keepdims=True) / d
    return x / np.sqrt(variance + eps) * weight + bias


def rms_norm(x: Array, weight: Array | None, eps: float = 1e-5) -> Array:
    """Bring the mean square of each row to 1, then stretch its features, if there is a weight."""
    if type(x) is not np.ndarray:
        return _torch().nn.functional.rms_norm(x, x.shape[-1:], weight, eps)
    rows = wide(np, x)  # squares of 16 bits overflow
    square: Any = np.add.reduce(rows * rows, -1, keepdims=True) / x.shape[-1]
    rows = cast(np, rows / np.sqrt(square + eps), x.dtype)
    return rows if weight is None else rows * weight


def silu(x: Array) -> Array:
    """Return x times the logistic function of x."""
    if type(x) is not np.ndarray:
        return _torch().nn.functional.silu(x)
    return x * (0.5 + 0.5 * np.tanh(0.5 * x))  # unlike exp, tanh overflows nowhere


def gelu(x: Array) -> Array:
    """Return x times the probability that a standard normal number is below x."""
    if type(x) is not np.ndarray:
        return _torch().nn.functional.gelu(x)
    return x * (0.5 + 0.5 * erf(x * math.sqrt(0.5)))


def embed(tokens: Array, table: Array) -> Array:
    """Return row n of the table `(N, d)` for each token n: `(..., d)`."""
    if type(tokens) is not np.ndarray:
        return _torch().nn.functional.embedding(tokens, table)  # its gradient is quick
    if tokens.size and tokens.min() < 0:  # NumPy would count from the end
        raise IndexError("a token is negative")
    return table[tokens]


def split(x: Array, sizes: Sequence[int], axis: int) -> Sequence[Array]:
    """Cut an axis, counted from the end, into parts of these sizes."""
    if type(x) is not np.ndarray:
        return x.split_with_sizes(sizes, dim=axis)
    whole: Any = x
    rest, stops = (slice(None),) * (-1 - axis), list(accumulate(sizes))
    return [
        whole[(..., slice(stop - n, stop), *rest)] for n, stop in zip(sizes, stops, strict=True)
    ]


# erf(x) = x P(x^2) / Q(x^2) up to x = 3.9, where it is 1 - 3e-8: the quotient whose largest error
# is smallest among those with P and Q of degree 5. Constants last.
P = (2.0503880e-06, 2.8745763e-04, 3.8368848e-03, 5.2966945e-02, 1.9194118e-01, 1.1283790)
Q = (3.8230769e-05, 1.1817369e-03, 1.5109221e-02, 1.1475828e-01, 5.0343524e-01, 1.0)


def erf(x: np.ndarray) -> np.ndarray:
    """Return the error function, which NumPy lacks.

    In float32 by a quotient of polynomials, whose error is below 5e-7. In float64 by Python's own
    ``math.erf``, number by number, which is exact and slow.
    """
    if x.dtype == np.float64:
        return np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)
    near: np.ndarray = np.clip(x.astype(np.float32), -3.9, 3.9)
    z = near * near
    p: Any = 0
    q: Any = 0
    for a, b in zip(P, Q, strict=True):
        p, q = p * z + np.float32(a), q * z + np.float32(b)
    return (near * p / q).astype(x.dtype)


def _torch() -> Any:
    """Return torch, which is there where there is a tensor."""
    return sys.modules["torch"]
