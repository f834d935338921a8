"""A cache of sequences that are each of a length of their own, as a server has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import Array, library_of
from attncore.base.integers import (
    check_least,
    check_length,
    check_product,
    check_sizes,
    check_window,
)
from attncore.cache.memory import (
    Memory,
    chosen_rows,
    counts_of,
    integers,
    real_rows,
    scalar,
)


class RaggedKVCache(Memory):
    r"""Keys and values of sequences of unequal length, one row of memory for each.

    .. math:: \text{bytes} = B \, G \, C \, (D + E) \times \text{bytes per number}

    What is appended is padded on the right to one length n, and `counts` tells how many rows
    of each sequence are real: 0 lets a sequence wait. The lengths are kept as numbers, not on
    the GPU, so nothing waits for it. A slot that is not in use holds zeros, never what was
    there before. :meth:`copy`, ``copy.copy``, ``copy.deepcopy`` and ``pickle`` give a cache
    that shares no memory with this one. To record a step once, take :class:`StaticKVCache`.

    Parameters
    ----------
    batch, kv_heads, capacity, head_dim
        B, G, C and D: sequences, key/value heads, tokens of the longest one, key width.
    value_dim
        E, the width of a value; D unless given. 0 for keys alone.
    like
        An array whose library, dtype and device the cache takes; NumPy float64 without it.

    Raises
    ------
    ValueError
        If a size is below 1 or `value_dim` below 0; by the methods, if shapes, devices, counts
        or lengths do not fit, a sequence is full, or there is no such sequence.
    TypeError
        If a size, a count or a length is not an integer, `like` is not an array, or what is
        appended is of another library or dtype.

    References
    ----------
    Pope et al. (2023), on inference (the cache); Yu et al. (2022), section 3 (a batch whose
    sequences come and go).

    Examples
    --------
    Prompts of 3 tokens and of 1, padded to 3, and then one token more for each:

    >>> import numpy as np
    >>> import attncore as ac
    >>> cache = RaggedKVCache(batch=2, kv_heads=1, capacity=8, head_dim=4)
    >>> k, v = cache.append(np.ones((2, 1, 3, 4)), np.ones((2, 1, 3, 4)), counts=[3, 1])
    >>> cache.lengths, cache.positions(1).tolist()
    ([3, 1], [[3], [1]])
    >>> k, v = cache.append(np.ones((2, 1, 1, 4)), np.ones((2, 1, 1, 4)))
    >>> print(cache.mask(1)[:, 0, 0].astype(int))
    [[1 1 1 1]
     [1 1 0 0]]
    >>> ac.attention(np.ones((2, 1, 1, 4)), k, v, cache.mask(1)).shape
    (2, 1, 1, 4)

    The second is finished, and its row is free for another prompt:

    >>> cache.crop([4, 0])
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        like: Array | None = None,
    ) -> None:
        value_dim = head_dim if value_dim is None else check_least("value_dim", value_dim, 0)
        batch, kv_heads, capacity, head_dim = check_sizes(
            batch=batch, kv_heads=kv_heads, capacity=capacity, head_dim=head_dim
        )
        width = head_dim + value_dim
        check_product(batch=batch, kv_heads=kv_heads, capacity=capacity, width=width)
        self.slots = capacity
        """Tokens that each sequence has room for, C."""
        self._allocate((batch, kv_heads, capacity), head_dim, value_dim, like)
        self._k[...] = self._v[...] = 0  # what is masked must be finite: 0 * NaN is NaN
        self._lengths: Array = np.zeros(batch, np.int64)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, `(B,)`: a list of its own, as ``attention(lengths=)`` takes."""
        return self._lengths.tolist()

    def positions(self, n: int) -> Array:
        """Return the positions of the next n tokens of each sequence, integers `(B, n)`.

        For RoPE, whose keys are turned before they are appended: ``positions(n)[:, None]`` fits
        `(B, G, n, D)`.
        """
        self._refuse_recording()
        n = self._places(n)
        return self._here(self._lengths[:, None] + np.arange(n))[0]

    def append(
        self, k: Array, v: Array | None = None, counts: Array | None = None
    ) -> tuple[Array, Array]:
        """Add tokens and return the keys and values to attend to with :meth:`mask`.

        Parameters
        ----------
        k, v
            `(B, G, n, D)` and `(B, G, n, E)`: new tokens, the real ones first. Where E is 0, k
            alone will do.
        counts
            Integers `(B,)` from 0 to n: how many of the rows are real. All, unless given. The
            others are not read.

        Returns
        -------
        (Array, Array)
            `(B, G, Tk, D)` and `(B, G, Tk, E)`, views that stay valid until the next call. Tk
            is the length of the longest sequence.

        A refused call leaves the cache as it was.
        """
        self._refuse_recording()
        if v is None:
            v = self._no_values(k)
        B, G, slots, _ = self._k.shape
        self._check(k, v, B, G)
        counts = counts_of(counts, k.shape[2], B)
        lengths = self._lengths + counts
        if lengths.max() > slots:
            b = int(lengths.argmax())
            raise ValueError(
                f"cache full: sequence {b} has {self._lengths[b]} of {slots} tokens, "
                f"cannot append {counts[b]}"
            )
        rows, places = real_rows(counts)
        rows, places, into = self._here(rows, places, places + self._lengths[rows])
        for memory, new in ((self._k, k), (self._v, v)):
            memory[rows, :, into] = new[rows, :, places]
        self._lengths = lengths  # last: were a write to fail, the new tokens would not count
        longest = int(lengths.max())
        return self._k[:, :, :longest], self._v[:, :, :longest]

    def mask(self, n: int, counts: Array | None = None, *, window: int | None = None) -> Array:
        """Return which keys the tokens appended last see, boolean `(B, 1, n, Tk)`: causal.

        Parameters
        ----------
        n, counts
            As they were appended: n rows, the first `counts` of which are real. The others see
            nothing, so that attention gives zeros for them.
        window
            See only the last `window` keys, the token's own included.
        """
        self._refuse_recording()
        n = self._places(n)
        window = self.slots if window is None else min(check_window(window), self.slots)
        counts = counts_of(counts, n, len(self._k))
        starts = self._lengths - counts
        if starts.min() < 0:
            b = int(starts.argmin())
            raise ValueError(
                f"sequence {b} has {self._lengths[b]} tokens, so its last {counts[b]} cannot be "
                "queries: append first, then ask for the mask"
            )
        order = np.arange(n)
        # Position -1 is before the first key: what is padding sees none.
        places = np.where(order < counts[:, None], starts[:, None] + order, -1)
        at = self._here(places)[0][:, None, :, None]
        xp, where = library_of(self._k)
        keys = xp.arange(int(self._lengths.max()), **where)
        return (keys <= at) & (keys > at - window)

    def crop(self, lengths: int | Array) -> None:
        """Forget the tokens of each sequence from its length on, as when drafts are rejected.

        Parameters
        ----------
        lengths
            Integers `(B,)`, or one for all. 0 makes room for another sequence. ``cache.lengths``
            is a list to begin with.

        Raises
        ------
        ValueError
            If a sequence has not so many tokens.
        TypeError
            If a length is not an integer.
        """
        B = len(self._k)
        if isinstance(lengths, (int, np.integer)) or getattr(lengths, "ndim", 1) == 0:
            left = [scalar("lengths", lengths)] * B
        else:
            left = integers("lengths", lengths, "(B,)", "a length")
        if len(left) != B:
            raise ValueError(f"lengths must hold one number per sequence, {B}, got {len(left)}")
        found = self.lengths
        for b in range(B):
            if not 0 <= left[b] <= found[b]:
                raise ValueError(
                    f"cannot crop sequence {b} to a length of {left[b]}: it has {found[b]} tokens"
                )
        for b in range(B):
            if left[b] < found[b]:
                self._k[b, :, left[b] : found[b]] = 0
                self._v[b, :, left[b] : found[b]] = 0
        self._lengths = np.array(left, np.int64)

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self.crop(0)

    def select(self, rows: Array) -> None:
        """Keep these sequences, in this order, as :meth:`KVCache.select` does.

        Raises
        ------
        ValueError
            If there is no such sequence, or none is named.
        TypeError
            If `rows` are not integers.
        """
        chosen = chosen_rows(rows, len(self._k))
        self._reorder(chosen, int(self._lengths.max()))
        self._lengths = self._lengths[chosen]

    def _told(self) -> dict[str, Any]:
        B, G, slots, D = self._k.shape
        sizes = {"batch": B, "kv_heads": G, "slots": slots, "head_dim": D}
        return {**sizes, "value_dim": self._v.shape[3], "lengths": self.lengths}

    def _places(self, n: int) -> int:
        """Return n if a sequence has room for so many tokens."""
        n = check_length("n", n)
        if n > self.slots:
            raise ValueError(f"n ({n}) must be at most the capacity ({self.slots})")
        return n

    def _mark(self) -> list[int]:
        return self.lengths

    def _undo_to(self, mark: list[int]) -> None:
        self.crop(mark)
