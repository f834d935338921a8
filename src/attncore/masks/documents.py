"""The mask of packed sequences: which keys are of the same document as a query."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import Array, is_tensor, library_of
from attncore.base.checks import check_cu_seqlens, check_documents
from attncore.base.integers import check_product, check_window
from attncore.base.settings import check_flag
from attncore.masks.patterns import FARTHEST


def documents(
    cu_seqlens: Array,
    cu_seqlens_k: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    like: Array | None = None,
) -> Array:
    r"""Let the tokens of a document see only its own, where several are packed in a row.

    .. math:: M_{ij} = [\, n_i = n_j \,], \qquad n_i = |\{n : c_n \le i\}|

    Parameters
    ----------
    cu_seqlens
        c, integers `(N + 1,)` for N documents: where each begins and, last, where the last one
        ends. The name is flash-attn's and stands for cumulative sequence lengths.
    cu_seqlens_k
        The same of the keys, if theirs are others.
    causal
        Hide the future. In each document the last query is level with the last key.
    window
        See only the last `window` keys, the query's own included. Implies `causal`.
    like
        An array of the wanted library and device; that of `cu_seqlens` without it.

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`, all queries by all keys.

    Raises
    ------
    ValueError
        If `cu_seqlens` do not begin with 0 or fall, or tell of another number of documents than
        `cu_seqlens_k`.
    TypeError
        If they are not integers.

    References
    ----------
    Krell et al. (2021), section 3.2; the layout is that of Dao et al. (2022) in flash-attn.

    Examples
    --------
    >>> print(documents([0, 1, 3]).astype(int))
    [[1 0 0]
     [0 1 1]
     [0 1 1]]
    >>> print(documents([0, 1, 3], [0, 2, 4], causal=True).astype(int))
    [[1 1 0 0]
     [0 0 1 0]
     [0 0 1 1]]
    """
    causal = check_flag("causal", causal)
    window = None if window is None else check_window(window)
    if like is None and (is_tensor(cu_seqlens) or isinstance(cu_seqlens, np.ndarray)):
        like = cu_seqlens
    library_of(like)
    queries = check_cu_seqlens("cu_seqlens", cu_seqlens)
    keys = queries if cu_seqlens_k is None else check_cu_seqlens("cu_seqlens_k", cu_seqlens_k)
    check_documents(queries, keys)
    Tq, Tk = int(queries[-1]), int(keys[-1])
    check_product(Tq=Tq, Tk=Tk)
    return same_document(queries, keys, Tq, Tk, causal=causal, window=window, like=like)


def same_document(
    queries: Any,
    keys: Any,
    Tq: int,
    Tk: int,
    *,
    causal: bool,
    window: int | None,
    like: Array | None,
) -> Array:
    """Return the mask `(Tq, Tk)` of checked ends of documents, which may be in a recording."""
    of_query, query_place = _places(queries, Tq, like)
    of_key, key_place = _places(keys, Tk, like)
    mask = of_query[:, None] == of_key[None, :]
    if causal or window is not None:
        age = query_place[:, None] - key_place[None, :]
        mask = mask & (age >= 0)
        if window is not None:
            mask = mask & (age < min(window, FARTHEST))
    return mask


def _places(ends: Any, T: int, like: Array | None) -> tuple[Array, Array]:
    """Return the document of each token, `(T,)`, and where it stands before that one's end."""
    xp, where = library_of(like)
    ends = xp.asarray(ends, dtype=xp.int64, **where)[1:]
    tokens = xp.arange(T, **where)
    right = {"side": "right"} if xp is np else {"right": True}
    number = xp.searchsorted(ends, tokens, **right)
    return number, tokens - ends[number]
