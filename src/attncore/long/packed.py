"""Attention inside each of many documents that stand in one row, one after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from attncore.base.arrays import Array, is_tensor
from attncore.base.checks import check_cu_seqlens, check_documents
from attncore.core.attention import routed
from attncore.core.blocks import joined
from attncore.core.call import Call, checked
from attncore.masks.documents import same_document


def packed_attention(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens: Array,
    cu_seqlens_k: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | Array | None = None,
    softcap: float | None = None,
    sinks: Array | None = None,
    dropout: float | None = None,
    generator: Any = None,
    return_lse: bool = False,
) -> Any:
    r"""Attention where sequences of any lengths are packed into one, and each sees itself only.

    .. math:: o_i = \sum_{j : n_j = n_i} \frac{e^{s_{ij}}}{\sum_{l : n_l = n_i} e^{s_{il}}} v_j,
        \qquad n_i = \text{the document of token } i

    Nothing is padded, and work and memory grow as the documents do: no `(Tq, Tk)` is built. Equal,
    up to rounding, to :func:`attention` with the mask ``masks.documents(cu_seqlens, cu_seqlens_k,
    causal=causal, window=window)``.

    Parameters
    ----------
    q
        Queries `(..., H, Tq, D)`, of all documents, one document after the other.
    k, v
        Keys `(..., G, Tk, D)` and values `(..., G, Tk, E)`; heads are shared as in
        :func:`attention`. (flash-attn has the tokens before the heads: `(Tq, H, D)`.)
    cu_seqlens
        Integers `(N + 1,)` for N documents: where each begins and, last, where the last one
        ends, so ``[0, 3, 5]`` for documents of 3 and 2 tokens. The name is flash-attn's and
        stands for cumulative sequence lengths. On a GPU they are fetched, which waits for it;
        give a list there. Where torch exports, compiles or traces with a tensor of them, they
        become a mask.
    cu_seqlens_k
        The same of the keys, if a document has other keys than queries.
    causal, window
        As in :func:`attention`, inside each document: its last query is level with its last key.
    scale, softcap, sinks, dropout, generator, return_lse
        As in :func:`attention`.

    Returns
    -------
    Array
        `(..., H, Tq, E)` of the library, dtype and device of `q`; with `return_lse` a pair: that,
        and the log-sum-exp `(..., H, Tq)`.

    Raises
    ------
    ValueError
        As :func:`attention`, and if `cu_seqlens` do not begin with 0, fall, do not end with the
        number of queries (or `cu_seqlens_k` of keys), or the two tell of different numbers of
        documents.
    TypeError
        As :func:`attention`, and if `cu_seqlens` are not integers.

    References
    ----------
    Krell et al. (2021), section 3.2; the layout is that of Dao et al. (2022) in flash-attn.

    Examples
    --------
    >>> import numpy as np
    >>> import attncore as ac
    >>> q, k, v = np.random.default_rng(0).normal(size=(3, 5, 4))
    >>> out = packed_attention(q, k, v, [0, 3, 5], causal=True)
    >>> np.allclose(out[3:], ac.attention(q[3:], k[3:], v[3:], causal=True))
    True
    """
    call = checked(
        q, k, v, causal=causal, window=window, scale=scale,
        softcap=softcap, sinks=sinks, dropout=dropout, generator=generator, return_lse=return_lse,
    )  # fmt: skip
    Tq, Tk = call.q.shape[-2], call.k.shape[-2]
    queries = check_cu_seqlens("cu_seqlens", cu_seqlens, "queries", Tq)
    if cu_seqlens_k is None and Tq != Tk:
        raise ValueError(
            f"cu_seqlens_k must be given where there are not as many keys ({Tk}) as queries ({Tq})"
        )
    keys = queries
    if cu_seqlens_k is not None:
        keys = check_cu_seqlens("cu_seqlens_k", cu_seqlens_k, "keys", Tk)
    check_documents(queries, keys)
    if is_tensor(queries) or is_tensor(keys):  # torch is recording
        options = {"causal": call.causal, "window": call.window, "like": call.q}
        mask = same_document(queries, keys, Tq, Tk, **options)
        out, lse = routed(call.but(mask=mask, causal=False, window=None))
    else:
        out, lse = _by_document(call.drawn(), queries, keys)
    return (out, lse) if call.wants_lse else out


def _by_document(call: Call, queries: list[int], keys: list[int]) -> tuple[Array, Array | None]:
    """Return attention of one document after the other."""
    xp = call.xp
    # Cut at once, unlike by slices, arrays have a gradient that is put together once.
    parts = zip(
        _cut(xp, call.q, queries), _cut(xp, call.k, keys), _cut(xp, call.v, keys), strict=True
    )
    found = []
    for n, (q, k, v) in enumerate(parts):
        if q.shape[-2] == 0:
            continue
        noise = call.noise
        if noise is not None:
            rows, columns = noise
            noise = (
                rows[..., queries[n] : queries[n + 1], :],
                columns[keys[n] : keys[n + 1]],
            )
        part = call.but(q=q, k=k, v=v, noise=noise)
        found.append(routed(part) if k.shape[-2] else part.unseen())
    return joined(xp, found) if found else call.unseen()


def _cut(xp: Any, array: Array, ends: list[int]) -> list[Array]:
    """Return the rows of each document."""
    if xp is np:
        return np.split(array, ends[1:-1], axis=-2)
    return array.split([b - a for a, b in pairwise(ends)], dim=-2)
