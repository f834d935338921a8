"""Attention with a window, global tokens and random keys; the (T, T) scores are never built."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from attncore import masks
from attncore.base.arrays import Array, cast, shape_of, wide
from attncore.base.integers import check_length, check_window
from attncore.base.tracing import is_traced
from attncore.core.call import Call, checked
from attncore.core.fused import fused
from attncore.core.reference import fold, mix, reference
from attncore.core.softmax import weigh
from attncore.masks.patterns import check_tokens, draw, half_of

LEAST_ROWS = 64  # a block of fewer queries costs more in calls than it saves in scores


def sparse_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    window: int,
    global_tokens: Iterable[int] = (),
    random_keys: int = 0,
    seed: int = 0,
    causal: bool = False,
    scale: float | Array | None = None,
) -> Array:
    r"""Attention among T tokens where each sees near, global and random keys only.

    .. math:: o_i = \sum_{j \in N_i} \frac{e^{s_{ij}}}{\sum_{l \in N_i} e^{s_{il}}} v_j,
        \qquad N_i = \text{window}_i \cup g \cup R_i

    and :math:`N_i` is everything where i itself is a global token. Equal, up to rounding, to
    :func:`attention` with the mask ``masks.symmetric_window(T, size=window) |
    masks.global_tokens(T, tokens=global_tokens) | masks.random_keys(T, count=random_keys,
    seed=seed)``. The scores built in all are about T (window + max(window, 64) +
    2 global + random), those of the window in blocks. Exported, compiled or traced by torch it
    is one call with that mask, without random keys.

    Parameters
    ----------
    q
        Queries `(..., H, T, D)`.
    k, v
        Keys `(..., G, T, D)` and values `(..., G, T, E)`; heads are shared as in
        :func:`attention`.
    window
        W, the keys of the window, the query's own included: an odd number, in the middle of
        which the query stands; with `causal` any number, and the last W keys.
    global_tokens
        Positions that see all and are seen by all.
    random_keys, seed
        How many keys are drawn for each query, and from which seed.
    causal
        Hide the future: of the window, of the global tokens and of the random keys.
    scale
        What scores are multiplied by; 1 / sqrt(D) unless given.

    Returns
    -------
    Array
        `(..., H, T, E)` of the library, dtype and device of `q`.

    Raises
    ------
    ValueError
        If shapes or options do not fit, queries and keys are not equally many, or random keys
        are wanted where torch exports, compiles or traces.
    TypeError
        If libraries or dtypes are mixed, or an option is not an integer.

    References
    ----------
    Beltagy et al. (2020), section 3.1 (window and global tokens); Zaheer et al. (2020),
    section 2 (random keys too).

    Examples
    --------
    >>> import numpy as np
    >>> import attncore as ac
    >>> q, k, v = np.random.default_rng(0).normal(size=(3, 9, 4))
    >>> mask = ac.masks.symmetric_window(9, size=3) | ac.masks.global_tokens(9, tokens=[0])
    >>> near = ac.sparse_attention(q, k, v, window=3, global_tokens=[0])
    >>> np.allclose(near, ac.attention(q, k, v, mask))
    True
    """
    call = checked(q, k, v, causal=causal, scale=scale)
    xp, causal, q, k, v = call.xp, call.causal, call.q, call.k, call.v
    T = k.shape[-2]
    if q.shape[-2] != T:
        raise ValueError(
            "sparse_attention relates the tokens of one sequence, so queries and keys must be "
            f"equally many: q {shape_of(q)}, k {shape_of(k)}; to decode use a KVCache"
        )
    before = min(check_window(window) - 1 if causal else half_of(window), T)
    after = 0 if causal else before
    tokens = check_tokens(global_tokens, T)
    random_keys = check_length("random_keys", random_keys)
    if is_traced():  # NumPy, which cuts the blocks, cannot be recorded
        if causal:
            mask = masks.window(T, size=window, like=q)
        else:
            mask = masks.symmetric_window(T, size=window, like=q)
        mask = mask | masks.global_tokens(T, tokens=tokens, like=q)
        if random_keys:
            mask = mask | masks.random_keys(T, count=random_keys, seed=seed, like=q)
        return fused(call.but(mask=mask))[0]
    everywhere = np.array(tokens, dtype=np.int64)
    drawn = draw(T, T, random_keys, seed, "random_keys")
    if T == 0:
        return call.nothing()
    lifted = q.ndim == 2
    if lifted:
        q, k, v = q[None], k[None], v[None]
    dtype, (q, k, v) = q.dtype, (wide(xp, array) for array in (q, k, v))
    q = q * call.scale

    outs = []
    size = max(before + after + 1, LEAST_ROWS)
    for start in range(0, T, size):
        rows = np.arange(start, min(start + size, T))
        near = np.arange(max(start - before, 0), min(start + size + after, T))
        shared = np.concatenate([near, everywhere])
        far = drawn[rows]
        # Each key once: the globals take what is global, the window what else is near.
        close = _within(rows, near, before, after) & ~np.isin(near, everywhere)
        known = _within(rows, everywhere, T, 0 if causal else T)
        fresh = _within(rows, far, T, 0 if causal else T) & ~_within(rows, far, before, after)
        allowed = np.concatenate([close, known, fresh & ~np.isin(far, everywhere)], axis=-1)
        outs.append(
            _joint(
                xp,
                q[..., start : start + size, :],
                (_at(xp, k, shared), _at(xp, v, shared)),
                (_at(xp, k, far), _at(xp, v, far)),
                _like(xp, allowed, q),
            )
        )
    out = xp.concatenate(outs, axis=-2)
    if len(everywhere):
        past = _like(xp, _within(everywhere, np.arange(T), T, 0), q) if causal else None
        whole, _ = reference(Call(_at(xp, q, everywhere), k, v, past))
        out = _replace(xp, out, everywhere, whole)
    return cast(xp, out[0] if lifted else out, dtype)


def _within(rows: np.ndarray, keys: np.ndarray, before: int, after: int) -> np.ndarray:
    """Tell which keys, `(n,)` or `(Tq, n)`, stand at most that far before or after each row."""
    age = rows[:, None] - keys
    return (age <= before) & (age >= -after)


def _joint(
    xp: Any, q: Array, shared: tuple[Array, Array], own: tuple[Array, Array], allowed: Array
) -> Array:
    """Return attention of n queries, with one softmax over two sets of keys and values.

    S of them are `shared`, `(..., G, S, D)`; each query has r of its `own`,
    `(..., G, n, r, D)`; `allowed` is `(n, S + r)`.
    """
    (k, v), (own_k, own_v) = shared, own
    *lead, heads, n, width = q.shape
    S, r = k.shape[-2], own_k.shape[-2]
    groups = (*lead, k.shape[-3], heads // k.shape[-3], n, 1)
    apart = q.reshape(*groups, width) @ own_k[..., None, :, :, :].mT
    together = fold(q, k) @ k.mT
    scores = [together.reshape(*lead, heads, n, S), apart.reshape(*lead, heads, n, r)]
    joined = xp.concatenate(scores, axis=-1)
    weights = weigh(xp, joined, allowed, joined.dtype)
    apart = weights[..., S:].reshape(*groups, r) @ own_v[..., None, :, :, :]
    return mix(weights[..., :S], v) + apart.reshape(*lead, heads, n, v.shape[-1])


def _at(xp: Any, array: Array, index: np.ndarray) -> Array:
    """Return the rows of `(..., T, D)` at `index`, whose axes take the place of T."""
    return array[..., _like(xp, index, array), :]


def _like(xp: Any, index: np.ndarray, array: Array) -> Array:
    """Return a NumPy array as one of the library and device of `array`."""
    return index if xp is np else xp.from_numpy(index).to(array.device)


def _replace(xp: Any, out: Array, index: np.ndarray, rows: Array) -> Array:
    """Put `rows` at `index` into an array of our own."""
    if xp is np:
        out[..., index, :] = rows
        return out
    return out.index_copy(-2, _like(xp, index, out), rows)
