"""A cache whose memory, shapes and steps never change, so that a step can be recorded."""

from __future__ import annotations

import math
from typing import Any

from attncore._arrays import Array, is_tensor, namespace
from attncore._cache import KVCache
from attncore._integers import check_integer, check_length, check_window


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
        E, the width of a value; D unless given.
    like
        A tensor whose dtype and device the cache takes.

    Raises
    ------
    ValueError
        If a size is below 1; by :meth:`append`, if a shape or the device does not fit, or more
        than C tokens come at once; by :meth:`crop`, if the tokens are not there.
    TypeError
        If a size is not an integer, `like` is not a tensor, or what is appended is of another
        library or dtype.

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
        super().__init__(batch, kv_heads, capacity, head_dim, value_dim=value_dim, like=like)
        torch: Any = namespace(like=like)
        self.length = torch.zeros((), dtype=torch.int64, device=like.device)
        """Tokens appended so far, a tensor: reading it on a GPU waits for the GPU."""
        self._order = torch.arange(self.slots, device=like.device)
        for memory in (self._k, self._v):
            memory.zero_()  # what is masked must be finite: 0 * NaN is NaN
        if like.device.type == "cuda":  # else torch.compile would copy them into each recording
            for fixed in (self._k, self._v, self.length):
                torch._dynamo.mark_static_address(fixed)

    @property
    def held(self) -> int:
        """Tokens whose keys and values are there. Reading it on a GPU waits for the GPU."""
        return min(int(self.length), self.slots)

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Add tokens and return all slots, for attention with :meth:`mask`.

        Parameters
        ----------
        k, v
            `(B, G, n, D)` and `(B, G, n, E)`: the n new tokens.

        Returns
        -------
        (Array, Array)
            `(B, G, C, D)` and `(B, G, C, E)`, the same memory each time.

        Asking whether there is room would wait for the GPU. Instead, what is appended to a full
        cache is stored as NaN, and so are all results from then on, until :meth:`reset`.
        """
        self._check(k, v)
        n = k.shape[2]
        if n > self.slots:
            raise ValueError(f"cache full: it has {self.slots} slots, cannot append {n}")
        slots = self.length + self._order[:n]
        full = slots[-1] >= self.slots
        slots = slots.clamp(max=self.slots - 1)
        for memory, new in ((self._k, k), (self._v, v)):
            memory.index_copy_(2, slots, new.masked_fill(full, math.nan))
        self.length.add_(n)
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
        age = (self.length - n + self._order[:n])[:, None] - self._order
        return age >= 0 if window is None else (age >= 0) & (age < check_window(window))

    def crop(self, length: int) -> None:
        """Forget all tokens from position `length` on. On a GPU this waits for it.

        Raises
        ------
        ValueError
            If there are not so many tokens, or the cache has overflowed.
        TypeError
            If `length` is not an integer.
        """
        length, found = check_integer("length", length), int(self.length)
        if found > self.slots:
            raise ValueError(f"{found} tokens were appended to {self.slots} slots: use reset()")
        if not 0 <= length <= found:
            raise ValueError(f"cannot crop to {length}: the cache has {found} tokens")
        self.length.fill_(length)

    def reset(self) -> None:
        """Forget everything; the memory is kept, and filled with zeros."""
        for memory in (self._k, self._v, self.length):
            memory.zero_()

    def _mark(self) -> Array:
        return self.length.clone()

    def _undo_to(self, mark: Array) -> None:
        self.length.copy_(mark)
