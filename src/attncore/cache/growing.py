"""A key/value cache: what decoding one token at a time keeps of the tokens before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from attncore.base.arrays import Array
from attncore.base.integers import check_least, check_product, check_sizes, check_window
from attncore.cache.memory import Memory, chosen_rows, scalar


class KVCache(Memory):
    r"""Keys and values of all tokens so far, in memory that is allocated once.

    .. math:: \text{bytes} = B \, G \, C \, (D + E) \times \text{bytes per number}

    With a window, W takes the place of C. :meth:`copy`, ``copy.copy``, ``copy.deepcopy`` and
    ``pickle`` give a cache that shares no memory with this one.

    Parameters
    ----------
    batch, kv_heads, capacity, head_dim
        B, G, C and D: sequences, key/value heads, tokens to make room for, key width.
    value_dim
        E, the width of a value; D unless given. 0 for keys alone, as where both are read from
        one compressed row (DeepSeek-AI, 2024, section 2.1.2).
    window
        W: only the last W tokens are kept, in a ring of W slots; C must be at least W. Any
        number of tokens can then be appended. Attend with ``window=W``, no other.
    like
        An array whose library, dtype and device the cache takes; NumPy float64 without it.

    Raises
    ------
    ValueError
        If a size or `window` is below 1, `value_dim` below 0, or `capacity` is less than
        `window`; by :meth:`append`, if the shape or the device does not fit or the cache is
        full; by :meth:`crop`, if the tokens are no longer there; by :meth:`select`, if there is
        no such sequence.
    TypeError
        If a size is not an integer, `like` is not an array, or what is appended is of
        another library or dtype.

    References
    ----------
    Pope et al. (2023), on inference (the cache); Jiang et al. (2023), section 2 (the ring).

    Examples
    --------
    Three tokens at once (prefill), then one more (decode):

    >>> import numpy as np
    >>> import attncore as ac
    >>> cache = KVCache(batch=1, kv_heads=2, capacity=8, head_dim=4)
    >>> k, v = cache.append(np.ones((1, 2, 3, 4)), np.ones((1, 2, 3, 4)))
    >>> k, v = cache.append(np.ones((1, 2, 1, 4)), np.ones((1, 2, 1, 4)))
    >>> k.shape, cache.length, cache.nbytes
    ((1, 2, 4, 4), 4, 1024)
    >>> ac.attention(np.ones((1, 2, 1, 4)), k, v, causal=True).shape
    (1, 2, 1, 4)

    Two continuations of what was read once, as in beam search:

    >>> beams = cache.copy()
    >>> beams.select([0, 0])
    >>> k, v = beams.append(np.ones((2, 2, 1, 4)), np.ones((2, 2, 1, 4)))
    >>> k.shape, cache.length
    ((2, 2, 5, 4), 4)
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        window: int | None = None,
        like: Array | None = None,
    ) -> None:
        value_dim = head_dim if value_dim is None else check_least("value_dim", value_dim, 0)
        batch, kv_heads, capacity, head_dim = check_sizes(
            batch=batch, kv_heads=kv_heads, capacity=capacity, head_dim=head_dim
        )
        check_product(batch=batch, kv_heads=kv_heads, capacity=capacity, width=head_dim + value_dim)
        self.window = None if window is None else check_window(window)
        if self.window is not None and capacity < self.window:
            raise ValueError(f"capacity ({capacity}) must hold the window ({self.window})")
        self.slots = capacity if self.window is None else self.window
        """Tokens that can be held: C, or with a window W."""
        self._allocate((batch, kv_heads, self.slots), head_dim, value_dim, like)
        self._length: Any = 0

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """B, G, D and E: sequences, key/value heads, and the widths of a key and of a value."""
        B, G, _, D = self._k.shape
        return B, G, D, self._v.shape[3]

    @property
    def length(self) -> Any:
        """Tokens appended so far; the position of the next one. What was read stays as it is."""
        return self._length

    @property
    def held(self) -> int:
        """Tokens whose keys and values are still there."""
        return min(self._length, self.slots)

    def append(self, k: Array, v: Array | None = None) -> tuple[Array, Array]:
        """Add tokens and return the keys and values to attend to, the new ones included.

        Parameters
        ----------
        k, v
            `(B, G, n, D)` and `(B, G, n, E)`: the n new tokens. Where E is 0, k alone will do.

        Returns
        -------
        (Array, Array)
            `(B, G, Tk, D)` and `(B, G, Tk, E)`, views that stay valid until the next call.
            Without a window Tk is `length`, oldest first. With one, several new tokens get
            a copy, oldest first, that reaches back far enough for the first of them; a
            single one gets the ring as it lies, out of order. All of the ring is its to
            see, so attend *without* a mask, a bias or a smaller window: those go by
            column, and would hit the wrong keys without an error.

        A refused call leaves the cache as it was.
        """
        if v is None:
            v = self._no_values(k)
        if not self._takes(k, v):
            self._check(k, v, *self._k.shape[:2])
            if self.window is None and self._length + k.shape[2] > self.slots:
                raise ValueError(
                    f"cache full: {self._length} of {self.slots}, cannot append {k.shape[2]}"
                )
        n = k.shape[-2]
        # `length` moves last: were a write to fail, the new tokens would not count.
        if self.window is None:
            stop = self._length + n
            self._k[:, :, self._length : stop] = k
            self._v[:, :, self._length : stop] = v
            self._length = stop
            return self._k[:, :, :stop], self._v[:, :, :stop]
        if n == 1:
            slot = self._length % self.slots
            self._k[:, :, slot : slot + 1] = k
            self._v[:, :, slot : slot + 1] = v
            self._length += 1
            return self._k[:, :, : self.held], self._v[:, :, : self.held]
        old = self._in_order()[max(0, self.held - self.slots + 1) :]
        seen = tuple(
            self._xp.concatenate([kept[:, :, old], new], axis=2)
            for kept, new in ((self._k, k), (self._v, v))
        )
        stored = min(n, self.slots)
        slots = [(self._length + i) % self.slots for i in range(n - stored, n)]
        self._k[:, :, slots] = k[:, :, n - stored :]
        self._v[:, :, slots] = v[:, :, n - stored :]
        self._length += n
        return seen[0], seen[1]

    def crop(self, length: int | Array) -> None:
        """Forget all tokens from position `length` on, as when a draft is rejected.

        Parameters
        ----------
        length
            An integer, or an array or tensor of a single one, without an axis.

        Raises
        ------
        ValueError
            If there are not so many tokens, or a window has dropped some already.
        TypeError
            If `length` is not an integer.
        """
        length = scalar("length", length)
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot crop to {length}: the cache has {self._length} tokens")
        if length < self._length and self._length > self.slots:
            raise ValueError(
                f"cannot crop to {length}: the window has overwritten tokens it would need"
            )
        self._length = length

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self._length = 0

    def select(self, rows: Array) -> None:
        """Keep these sequences, in this order: for beam search, or when requests are finished.

        Parameters
        ----------
        rows
            Integers from 0 to B - 1, a list or `(B',)`: row i is to hold what ``rows[i]`` held.
            One may come twice, or not at all. B' is the batch from then on; where it is B, the
            memory is the same. Integers on a GPU are fetched, which waits for it.

        Raises
        ------
        ValueError
            If there is no such sequence, or none is named.
        TypeError
            If `rows` are not integers.
        """
        self._reorder(chosen_rows(rows, len(self._k)), self._written)

    def _told(self) -> dict[str, Any]:
        B, G, slots, D = self._k.shape
        sizes = {"batch": B, "kv_heads": G, "slots": slots, "head_dim": D}
        return {**sizes, "value_dim": self._v.shape[3], "length": int(self._length)}

    @property
    def _written(self) -> int:
        """The number of slots, from the first on, that may hold something."""
        return self.held

    def _mark(self) -> Any:
        return self._length

    def _undo_to(self, mark: Any) -> None:
        if self.held == self._length:  # nothing overwritten
            self.crop(mark)

    def _in_order(self) -> list[int]:
        """Return the slots in use, oldest token first."""
        return [i % self.slots for i in range(self._length - self.held, self._length)]

    def _takes(self, k: Array, v: Array) -> bool:
        """Tell whether these fit, fast: decoding asks once per layer and token."""
        if not (type(k) is type(v) is type(self._k)):
            return False
        if self._xp is not np and (k.is_nested or v.is_nested):
            return False
        B, G, slots, D = self._k.shape
        n = k.shape[2] if k.ndim == 4 else 0
        return (
            n > 0
            and (self.window is not None or self._length + n <= slots)
            and tuple(k.shape) == (B, G, n, D)
            and tuple(v.shape) == (B, G, n, self._v.shape[3])
            and k.dtype == v.dtype == self._k.dtype
            and k.device == v.device == self._k.device
            and (
                self._xp is np
                or (
                    not (k.requires_grad or v.requires_grad)
                    and k.layout == v.layout == self._k.layout
                )
            )
        )


def undo_on_error(caches: Sequence[Memory]) -> AbstractContextManager[None]:
    """Take back what was appended to the caches in a ``with`` block, should the block fail.

    The error is raised as it is. A ring that has overwritten tokens cannot go back: it keeps
    the new ones.
    """
    return _UndoOnError(caches) if caches else nullcontext()


class _UndoOnError(AbstractContextManager[None]):
    """A class, and no generator, for ``torch.compile`` to trace the block whole."""

    def __init__(self, caches: Sequence[Memory]) -> None:
        self.caches = caches

    def __enter__(self) -> None:
        self.marks = [cache._mark() for cache in self.caches]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        for cache, mark in zip(self.caches, self.marks, strict=True):
            cache._undo_to(mark)
