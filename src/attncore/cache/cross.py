"""A cache for cross-attention: written once, read at every step."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from attncore.base.arrays import (
    Array,
    check_device,
    check_real,
    dtype_name,
    is_tensor,
    namespace,
    shape_of,
)
from attncore.base.checks import check_values
from attncore.cache.memory import Memory, check_no_gradient, chosen_rows, integers


class CrossKVCache(Memory):
    r"""Keys and values of a context, which never grows: what a decoder attends to beside its own.

    .. math:: \text{bytes} = B \, G \, T_k \, (D + E) \times \text{bytes per number}

    They are projected from the context once, not at every step. The arrays are kept as they
    are, not copied. :meth:`copy`, ``copy.copy``, ``copy.deepcopy`` and ``pickle`` give a cache
    that shares no memory with this one.

    Parameters
    ----------
    k, v
        `(B, G, Tk, D)` and `(B, G, Tk, E)`.
    lengths
        Integers `(B,)`: how many keys of each sequence are real. All, unless given.

    Raises
    ------
    ValueError
        If shapes, devices or lengths do not fit, an axis is empty, or a gradient is wanted; by
        :meth:`append`, always; by :meth:`select`, if there is no such sequence.
    TypeError
        If `k` and `v` are not arrays of one library and dtype, or lengths are not integers.

    References
    ----------
    Vaswani et al. (2017), section 3.2.3 (the attention); Shazeer (2019) (what is
    computed once).

    Examples
    --------
    >>> import numpy as np
    >>> import attncore as ac
    >>> cache = CrossKVCache(np.ones((2, 1, 5, 4)), np.ones((2, 1, 5, 4)), lengths=[5, 2])
    >>> q = np.ones((2, 1, 1, 4))
    >>> ac.attention(q, cache.k, cache.v, lengths=cache.lengths).shape
    (2, 1, 1, 4)
    """

    def __init__(self, k: Array, v: Array, *, lengths: Array | None = None) -> None:
        for name, array in (("k", k), ("v", v)):
            if not (is_tensor(array) or isinstance(array, np.ndarray)):
                raise TypeError(f"{name} must be an array, got {type(array).__name__}")
            check_real(name, array)
            check_no_gradient(name, array)
        self._xp = namespace(k=k, v=v)
        check_device(k=k, v=v)
        if dtype_name(k) != dtype_name(v):
            raise TypeError(
                f"k and v must share one dtype: k {dtype_name(k)}, v {dtype_name(v)}; convert one"
            )
        if k.ndim != 4 or 0 in k.shape:
            raise ValueError(f"k must be (B, G, Tk, D), none of them 0, got {shape_of(k)}")
        check_values(k, v)
        self._k, self._v = k, v
        self._lengths = None if lengths is None else self._check_lengths(lengths)

    @property
    def k(self) -> Array:
        """The keys `(B, G, Tk, D)`."""
        return self._k

    @property
    def v(self) -> Array:
        """The values `(B, G, Tk, E)`."""
        return self._v

    @property
    def lengths(self) -> list[int] | None:
        """How many keys of each sequence are real, as ``attention(lengths=)`` takes; None: all."""
        return None if self._lengths is None else list(self._lengths)

    def append(self, k: Array, v: Array | None = None) -> NoReturn:
        """Refuse: a context never grows.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(
            "a CrossKVCache is written once, when it is made: keep tokens that are still to "
            "come in a KVCache, and make a new CrossKVCache for another context"
        )

    def select(self, rows: Array) -> None:
        """Keep these sequences, in this order, as :meth:`KVCache.select` does, in new memory.

        Raises
        ------
        ValueError
            If there is no such sequence, or none is named.
        TypeError
            If `rows` are not integers.
        """
        chosen = chosen_rows(rows, len(self._k))
        self._k, self._v = self._k[chosen], self._v[chosen]
        if self._lengths is not None:
            self._lengths = [self._lengths[row] for row in chosen]

    def _check_lengths(self, lengths: Array) -> list[int]:
        B, Tk = len(self._k), self._k.shape[2]
        found = integers("lengths", lengths, "(B,)", "a length")
        if len(found) != B:
            raise ValueError(f"lengths must hold one number per sequence, {B}, got {len(found)}")
        if not all(0 <= length <= Tk for length in found):
            raise ValueError(f"lengths must lie in 0 to Tk = {Tk}, got {found}")
        return found

    def _told(self) -> dict[str, Any]:
        B, G, Tk, D = self._k.shape
        sizes = {"batch": B, "kv_heads": G, "Tk": Tk, "head_dim": D}
        return {**sizes, "value_dim": self._v.shape[3], "lengths": self._lengths}
