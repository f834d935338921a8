"""A cache whose memory, shapes and steps never change, so that a step can be recorded."""

from __future__ import annotations

import math
from typing import Any

from attncore.base.arrays import Array, dtype_name, is_tensor, namespace
from attncore.base.integers import check_length, check_window
from attncore.cache.growing import KVCache
from attncore.cache.memory import scalar


class StaticKVCache(KVCache):
    r"""A :class:`KVCache` for torch whose decoding step can be compiled or recorded once.

    .. math:: \text{bytes} = B \, G \, C \, (D + E) \times \text{bytes per number}

    A step of :class:`KVCache` returns more keys each time, which a CUDA graph, or
    ``torch.compile(mode="reduce-overhead")``, would have to record anew. Here all C slots are
    returned, with a mask for those in use, and the length is a tensor: no shape, address or
    Python number changes, and nothing waits for the GPU. In exchange each step reads all C
    slots, so that without compiling it is slower.

    Parameters
    ----------
    batch, kv_heads, capacity, head_dim
        B, G, C and D: sequences, key/value heads, tokens to make room for, key width.
    value_dim
        E, the width of a value; D unless given. 0 for keys alone.
    like
        A tensor whose dtype and device the cache takes.

    Raises
    ------
    ValueError
        If a size is below 1 or `value_dim` below 0; by :meth:`append`, if a shape or the device
        does not fit, or more than C tokens come at once; by :meth:`crop`, if the tokens are not
        there; by :meth:`select`, if there is no such sequence.
    TypeError
        If a size is not an integer, `like` is not a floating-point tensor, or what is appended
        is of another library or dtype.

    References
    ----------
    Pope et al. (2023), on inference (the cache).

    Examples
    --------
    >>> import torch
    >>> import attncore as ac
    >>> cache = StaticKVCache(batch=1, kv_heads=2, capacity=6, head_dim=4, like=torch.zeros(1))
    >>> k, v = cache.append(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> k.shape, cache.length
    (torch.Size([1, 2, 6, 4]), tensor(3))
    >>> print(cache.mask(2).int())
    tensor([[1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0]], dtype=torch.int32)
    >>> ac.attention(torch.ones(1, 2, 2, 4), k, v, cache.mask(2)).shape
    torch.Size([1, 2, 2, 4])
    """

    def __init__(
        self,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        like: Array,
    ) -> None:
        if not is_tensor(like):
            raise TypeError(f"like must be a torch tensor, got {type(like).__name__}")
        if not like.is_floating_point():
            raise TypeError(f"like must be floating point, got {dtype_name(like)}")
        super().__init__(batch, kv_heads, capacity, head_dim, value_dim=value_dim, like=like)
        torch: Any = namespace(like=like)
        self._length = torch.zeros((), dtype=torch.int64, device=like.device)
        self._order = torch.arange(self.slots, device=like.device)
        for memory in (self._k, self._v):
            memory.zero_()  # what is masked must be finite: 0 * NaN is NaN
        self._fix_addresses()

    def _fix_addresses(self) -> None:
        """Tell torch.compile that these stay; else it copies them for each CUDA graph."""
        if self._k.device.type == "cuda":
            for fixed in (self._k, self._v, self._length):
                self._xp._dynamo.mark_static_address(fixed)

    @property
    def length(self) -> Array:
        """Tokens appended so far, a tensor of its own: later calls do not change what was read.

        To turn it into a number on a GPU waits for the GPU.
        """
        return self._length.clone()

    @property
    def held(self) -> int:
        """Tokens whose keys and values are there. Reading it on a GPU waits for the GPU."""
        return min(int(self._length), self.slots)

    def append(self, k: Array, v: Array | None = None) -> tuple[Array, Array]:
        """Add tokens and return all slots, for attention with :meth:`mask`.

        Parameters
        ----------
        k, v
            `(B, G, n, D)` and `(B, G, n, E)`: the n new tokens. Where E is 0, k alone will do.

        Returns
        -------
        (Array, Array)
            `(B, G, C, D)` and `(B, G, C, E)`, the same memory each time.

        Asking whether there is room would wait for the GPU. Instead, what is appended to a full
        cache is stored as NaN, and so are all results from then on, until :meth:`reset`.
        """
        if v is None:
            v = self._no_values(k)
        self._check(k, v, *self._k.shape[:2])
        n = k.shape[2]
        if n == 0:
            return self._k, self._v
        if n > self.slots:
            raise ValueError(f"cache full: it has {self.slots} slots, cannot append {n}")
        slots = self._length + self._order[:n]
        full = slots[-1] >= self.slots
        slots = slots.clamp(max=self.slots - 1)
        for memory, new in ((self._k, k), (self._v, v)):
            memory.index_copy_(2, slots, new.masked_fill(full, math.nan))
        self._length.add_(n)
        return self._k, self._v

    def mask(self, n: int, *, window: int | None = None) -> Array:
        """Return which slots the last `n` tokens see, boolean `(n, C)`: causal.

        Parameters
        ----------
        n
            How many queries, the newest last.
        window
            See only the last `window` keys, the token's own included.
        """
        n = check_length("n", n)
        if n > self.slots:
            raise ValueError(f"n ({n}) must be at most the capacity ({self.slots})")
        places = self._length - n + self._order[:n]
        if window is None:
            return self._order <= places[:, None]
        # After an overflow the last slot, where NaN is, must stay in the window.
        age = places.clamp(max=self.slots - 1)[:, None] - self._order
        return (age >= 0) & (age < min(check_window(window), self.slots))

    def crop(self, length: int | Array) -> None:
        """Forget all tokens from position `length` on. On a GPU this waits for it.

        Parameters
        ----------
        length
            An integer, or an array or tensor of a single one, without an axis, such as
            ``cache.length - 2``.

        Raises
        ------
        ValueError
            If there are not so many tokens, or the cache has overflowed.
        TypeError
            If `length` is not an integer.
        """
        length, found = scalar("length", length), int(self._length)
        if found > self.slots:
            raise ValueError(f"{found} tokens were appended to {self.slots} slots: use reset()")
        if not 0 <= length <= found:
            raise ValueError(f"cannot crop to {length}: the cache has {found} tokens")
        self._cut(length)

    def reset(self) -> None:
        """Forget everything; the memory is kept, and filled with zeros."""
        for memory in (self._k, self._v, self._length):
            memory.zero_()

    def select(self, rows: Array) -> None:
        """Keep these sequences, in this order, as :meth:`KVCache.select` does.

        With as many rows as before every address stays, and so does a recorded step. With more
        or fewer, a step must be recorded anew.
        """
        super().select(rows)
        self._fix_addresses()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._fix_addresses()

    @property
    def _written(self) -> int:
        return self.slots  # how many are in use only the GPU knows

    def _mark(self) -> Array:
        return self.length

    def _undo_to(self, mark: Array) -> None:
        self._cut(mark)

    def _cut(self, length: int | Array) -> None:
        """Forget from `length` on, and leave nothing there: the slots must stay finite."""
        unused = (self._order >= length)[:, None]
        for memory in (self._k, self._v):
            memory.masked_fill_(unused, 0.0)
        self._length.fill_(length)
