"""Patterns for long sequences: which pairs are kept. Join them with `|`; True = may attend."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from attncore.base.arrays import Array, library_of, positions
from attncore.base.integers import check_integer, check_length, check_window
from attncore.base.tracing import is_traced

# No distance reaches this, and a window beyond int64 would not fit torch's comparison.
FARTHEST = 2**63 - 1


def symmetric_window(
    Tq: int, Tk: int | None = None, *, size: int, like: Array | None = None
) -> Array:
    r"""Let each query see its own key and equally many on either side.

    .. math:: M_{ij} = \left[\,|p_i - j| \le \tfrac{W - 1}{2}\,\right], \qquad p_i = T_k - T_q + i

    Parameters
    ----------
    Tq, Tk, like
        As in :func:`causal`.
    size
        W, the number of keys, the query's own included: an odd number. (Longformer's paper
        counts w = W - 1 neighbours, w / 2 on each side.)

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`.

    Raises
    ------
    ValueError
        If a length is negative, or `size` is even or below 1.
    TypeError
        If a length or `size` is not an integer, or `like` is not an array.

    References
    ----------
    Beltagy et al. (2020), section 3.1 (sliding window).

    Examples
    --------
    >>> import attncore as ac
    >>> print(ac.masks.symmetric_window(4, size=3).astype(int))
    [[1 1 0 0]
     [1 1 1 0]
     [0 1 1 1]
     [0 0 1 1]]
    """
    half = half_of(size)
    queries, keys = positions(Tq, Tk, like)
    return abs(queries - keys) <= min(half, FARTHEST)


def global_tokens(
    Tq: int, Tk: int | None = None, *, tokens: Iterable[int], like: Array | None = None
) -> Array:
    r"""Let the chosen positions see every key, and every query see them.

    .. math:: M_{ij} = [\,j \in g \text{ or } p_i \in g\,], \qquad p_i = T_k - T_q + i

    Parameters
    ----------
    Tq, Tk, like
        As in :func:`causal`.
    tokens
        g, the positions, counted from 0 among the keys.

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`. The rest sees only the global tokens: join it with a window, by `|`.

    Raises
    ------
    ValueError
        If a length is negative, or a position is not among the keys.
    TypeError
        If a length or a position is not an integer, or `like` is not an array.

    References
    ----------
    Beltagy et al. (2020), section 3.1 (global attention); Zaheer et al. (2020), section 2.

    Examples
    --------
    >>> import attncore as ac
    >>> print(ac.masks.global_tokens(4, tokens=[1]).astype(int))
    [[0 1 0 0]
     [1 1 1 1]
     [0 1 0 0]
     [0 1 0 0]]
    """
    queries, keys = positions(Tq, Tk, like)
    mask = queries != queries  # (Tq, 1), all False
    chosen = keys != keys
    for token in check_tokens(tokens, keys.shape[-1]):
        mask = mask | (queries == token)
        chosen = chosen | (keys == token)
    return mask | chosen


def random_keys(
    Tq: int, Tk: int | None = None, *, count: int, seed: int = 0, like: Array | None = None
) -> Array:
    r"""Let each query see some keys drawn at random, all sets equally likely.

    .. math:: M_{ij} = [\,j \in R_i\,], \qquad |R_i| = r

    Parameters
    ----------
    Tq, Tk, like
        As in :func:`causal`.
    count
        r, how many different keys each query gets.
    seed
        The same seed draws the same keys.

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`.

    Raises
    ------
    ValueError
        If a length, `count` or `seed` is negative, or there are fewer than `count` keys; if it
        is called within what torch exports, compiles or traces: make the mask before.
    TypeError
        If one of them is not an integer, or `like` is not an array.

    References
    ----------
    Zaheer et al. (2020), section 2. Their code draws blocks of keys; this draws single keys.

    Examples
    --------
    >>> import attncore as ac
    >>> print(ac.masks.random_keys(4, 6, count=2).astype(int))
    [[0 1 0 0 1 0]
     [1 0 0 1 0 0]
     [1 0 1 0 0 0]
     [1 1 0 0 0 0]]
    """
    queries, keys = positions(Tq, Tk, like)
    mask = (queries != queries) | (keys != keys)
    drawn = draw(mask.shape[0], mask.shape[1], count, seed)
    if isinstance(mask, np.ndarray):
        np.put_along_axis(mask, drawn, True, axis=-1)
        return mask
    xp, where = library_of(like)
    return mask.scatter(-1, xp.as_tensor(drawn, **where), True)


def half_of(size: int) -> int:
    """Return how many keys a symmetric window has on each side."""
    size = check_window(size)
    if size % 2 == 0:
        raise ValueError(
            f"a symmetric window must be odd, with equally many keys on each side, got {size}: "
            f"take {size - 1} or {size + 1}"
        )
    return size // 2


def check_tokens(tokens: Iterable[int], Tk: int) -> list[int]:
    """Return the positions of global tokens, each once and in order."""
    if not isinstance(tokens, Iterable) or getattr(tokens, "ndim", 1) == 0:
        raise TypeError(
            f"global tokens must be a list of positions, got {type(tokens).__name__}: "
            "write [0] for the first"
        )
    found = sorted({check_integer("a global token", token) for token in tokens})
    for token in found:
        if Tk == 0:
            raise ValueError(f"there are no keys, so none can be a global token: got {token}")
        if not 0 <= token < Tk:
            raise ValueError(f"a global token must lie in 0 to {Tk - 1}, got {token}")
    return found


def draw(Tq: int, Tk: int, count: int, seed: int, name: str = "count") -> np.ndarray:
    """Return `(Tq, count)` keys, different within a row.

    Floyd's algorithm, for all rows at once: every set is equally likely, and nothing of size
    `(Tq, Tk)` is built.
    """
    count, seed = check_length(name, count), check_length("seed", seed)
    if is_traced():
        raise ValueError(
            "random keys are drawn by NumPy, which torch cannot export, compile or trace: make "
            "masks.random_keys(...) before, and hand it in as an input, for attention's mask="
        )
    if count > Tk:
        raise ValueError(f"{name} must be at most the number of keys, {Tk}, got {count}")
    rng = np.random.default_rng(seed)
    drawn = np.empty((Tq, count), dtype=np.int64)
    for n in range(count):
        last = Tk - count + n
        key = rng.integers(0, last + 1, size=Tq)
        taken = (drawn[:, :n] == key[:, None]).any(axis=-1)
        drawn[:, n] = np.where(taken, last, key)
    return drawn
