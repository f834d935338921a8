"""A cache in blocks: many sequences share one pool of memory, and common beginnings are kept once.

The pool is `(G, blocks, size, D)`, so that blocks that lie one behind the other are, seen
together, an array `(G, tokens, D)` without a copy.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from attncore import masks
from attncore.base.arrays import (
    Array,
    cast,
    check_dense,
    check_device,
    dtype_name,
    is_float,
    is_tensor,
    library_of,
    namespace,
    shape_of,
    wide,
)
from attncore.base.checks import check_scale
from attncore.base.integers import (
    check_least,
    check_length,
    check_product,
    check_sizes,
    check_window,
)
from attncore.cache.memory import Memory, counts_of, integers, real_rows, scalar
from attncore.core.attention import attention
from attncore.core.reference import SCORES_AT_ONCE, fold, mix

# Blocks that lie apart are copied together, so many numbers at a time: 2 MB of float32 stay in a
# processor's cache, and however long the sequence is, no more memory is taken.
COPIED_AT_ONCE = 2**19
# So many tokens in a row are worth products of their own. Measured with 8 heads of 64 on one
# core: reads of 256 took as long as copies of 2 MB, reads of 64 took 1.5 times as long.
WORTH_A_VIEW = 256

Piece = tuple[slice | Array, int, int]
"""Blocks, and of their tokens the first and how many: a slice is read in place, numbers copied."""


class PagedKVCache(Memory):
    r"""Keys and values of many sequences, in blocks of one pool that any of them may take.

    .. math:: \text{bytes} = \text{blocks} \cdot \text{size} \cdot G \, (D + E)
        \times \text{bytes per number}

    Token t of a sequence lies in slot t mod size of block ``table[t // size]``. Sequences come
    and go, and no memory waits for how long one may become. One that begins as another does
    shares its blocks, until either writes into a block that both have: it then gets a copy. A
    block is free again when no sequence has it. :meth:`copy`, ``copy.copy``, ``copy.deepcopy``
    and ``pickle`` give a cache that shares no memory with this one.

    A sequence takes the block behind its last while that is free, else one in the middle of
    the longest free stretch, so that most of it lies in a row and is read without a copy.

    Parameters
    ----------
    blocks, kv_heads, head_dim
        How many blocks; G and D: key/value heads, key width.
    size
        Tokens of a block. A small one leaves less unused at the ends of sequences; a large one
        is read faster where the blocks of a sequence lie apart.
    value_dim
        E, the width of a value; D unless given. 0 for keys alone.
    like
        An array whose library, dtype and device the cache takes; NumPy float64 without it.

    Raises
    ------
    ValueError
        If a size is below 1 or `value_dim` below 0; by the methods, if shapes, devices, counts
        or lengths do not fit, there is no such sequence, or there are too few free blocks.
    TypeError
        If a size, a sequence, a count or a length is not an integer, `like` is not a
        floating-point array, or what is given is of another library or dtype.

    References
    ----------
    Kwon et al. (2023), section 4 (blocks, tables, sharing, copy on write). Sequences are read
    one after another here; engines such as vLLM have one GPU kernel that reads all by table.

    Examples
    --------
    A prompt of 5 tokens is read once and continued twice. Only the block that is half full is
    copied, when one of the two writes into it:

    >>> import numpy as np
    >>> cache = PagedKVCache(blocks=8, kv_heads=1, head_dim=4, size=2)
    >>> first = cache.add()
    >>> cache.append([first], np.ones((1, 1, 5, 4)), np.ones((1, 1, 5, 4)))
    >>> second = cache.fork(first)
    >>> cache.free
    5
    >>> cache.append([first, second], np.ones((2, 1, 1, 4)), np.ones((2, 1, 1, 4)))
    >>> cache.free, cache.lengths
    (4, {0: 6, 1: 6})
    >>> cache.attend(np.ones((2, 3, 1, 4)), [first, second]).shape
    (2, 3, 1, 4)
    >>> cache.drop(first)
    >>> cache.drop(second)
    >>> cache.free
    8
    """

    def __init__(
        self,
        blocks: int,
        kv_heads: int,
        head_dim: int,
        *,
        size: int = 16,
        value_dim: int | None = None,
        like: Array | None = None,
    ) -> None:
        value_dim = head_dim if value_dim is None else check_least("value_dim", value_dim, 0)
        blocks, kv_heads, head_dim, size = check_sizes(
            blocks=blocks, kv_heads=kv_heads, head_dim=head_dim, size=size
        )
        check_product(blocks=blocks, kv_heads=kv_heads, size=size, width=head_dim + value_dim)
        if (is_tensor(like) or isinstance(like, np.ndarray)) and not is_float(like):
            raise TypeError(f"like must be floating point, got {dtype_name(like)}")
        self._allocate((kv_heads, blocks, size), head_dim, value_dim, like)
        self._users: Array = np.zeros(blocks, np.int64)  # how many sequences have each block
        self._tables: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._added = 0

    @property
    def lengths(self) -> dict[int, int]:
        """Tokens of each sequence there is, by its number."""
        return dict(self._lengths)

    @property
    def free(self) -> int:
        """Blocks that no sequence has."""
        return int((self._users == 0).sum())

    def table(self, sequence: int) -> list[int]:
        """Return the blocks of a sequence, in the order of its tokens."""
        return list(self._tables[self._one(sequence)])

    def positions(self, sequences: Array, n: int) -> Array:
        """Return the positions of the next n tokens of each sequence, integers `(B, n)`.

        For RoPE, whose keys are turned before they are appended: ``positions(...)[:, None]``
        fits `(B, G, n, D)`.
        """
        self._refuse_recording()
        n, named = check_length("n", n), self._named(sequences)
        check_product(B=len(named), n=n)
        starts = np.array([self._lengths[s] for s in named], np.int64)
        return self._here(starts[:, None] + np.arange(n))[0]

    def add(self) -> int:
        """Begin a sequence, which is empty, and return its number. No number is used again."""
        return self._begin([], 0)

    def fork(self, sequence: int, length: int | None = None) -> int:
        """Begin a sequence with the first `length` tokens of another; return its number.

        Nothing is copied, and no block is taken. All tokens, unless `length` is given.

        Raises
        ------
        ValueError
            If there is no such sequence, or it has not so many tokens.
        TypeError
            If an argument is not an integer.
        """
        sequence = self._one(sequence)
        found = self._lengths[sequence]
        length = found if length is None else scalar("length", length)
        if not 0 <= length <= found:
            raise ValueError(
                f"cannot fork sequence {sequence} at a length of {length}: it has {found} tokens"
            )
        return self._begin(self._tables[sequence][: self._blocks_of(length)], length)

    def append(
        self, sequences: Array, k: Array, v: Array | None = None, counts: Array | None = None
    ) -> None:
        """Add tokens to sequences, each of them named once.

        Parameters
        ----------
        sequences
            B numbers of sequences, a list or an array.
        k, v
            `(B, G, n, D)` and `(B, G, n, E)`: new tokens, the real ones first. Where E is 0, k
            alone will do.
        counts
            Integers `(B,)` from 0 to n: how many of the rows are real. All, unless given. The
            others are not read.

        A refused call leaves the cache as it was.
        """
        self._refuse_recording()
        named = self._named(sequences)
        if len(set(named)) < len(named):
            raise ValueError(f"sequences must be named once each, got {named}")
        if v is None:
            v = self._no_values(k)
        self._check(k, v, len(named), len(self._k))
        counts = counts_of(counts, k.shape[2], len(named))
        grown = {s: self._lengths[s] + int(n) for s, n in zip(named, counts, strict=True) if n}
        copies = self._to_copy(grown)
        missing = {s: self._blocks_of(n) - len(self._tables[s]) for s, n in grown.items()}
        needed, free = len(copies) + sum(missing.values()), self.free
        if needed > free:
            raise ValueError(
                f"out of blocks: {needed} are needed, {free} of {len(self._users)} are free; "
                "drop or crop sequences, or make the cache with more blocks"
            )
        tables = {s: list(self._tables[s]) for s in grown}
        taken: list[int] = []
        try:
            for s, table in tables.items():
                if s in copies:
                    taken += (new := self._take(1, None))
                    for memory in (self._k, self._v):
                        memory[:, new[0]] = memory[:, table[-1]]
                    table[-1] = new[0]
                taken += (new := self._take(missing[s], table[-1] if table else None))
                table += new
            self._write(named, tables, k, v, counts)
        except BaseException:
            self._users[taken] = 0
            raise
        for s in copies:
            self._users[self._tables[s][-1]] -= 1
        self._tables |= tables
        self._lengths |= grown

    def attend(
        self,
        q: Array,
        sequences: Array,
        counts: Array | None = None,
        *,
        window: int | None = None,
        scale: float | Array | None = None,
    ) -> Array:
        """Return attention of queries to the tokens of their sequences, causal, `(B, H, n, E)`.

        What lies in a row is read in place. On the CPU the rest is copied a piece at a time,
        for one query or a few; for many, and on a GPU, as a whole.

        Parameters
        ----------
        q
            Queries `(B, H, n, D)` of the last tokens of B sequences, which are appended already.
            H must be a multiple of G.
        sequences, counts
            As they were appended: of the n queries the first `counts` are real. For the others
            the result is zeros.
        window
            See only the last `window` keys, the query's own included.
        scale
            What the scores are multiplied by; 1 / sqrt(D) unless given.

        Raises
        ------
        ValueError
            If shapes, devices or counts do not fit, there is no such sequence, or the cache
            keeps no values.
        TypeError
            If `q` is of another library or dtype, or counts are not integers.
        """
        self._refuse_recording()
        named = self._named(sequences)
        self._check_queries(q, len(named))
        counts = counts_of(counts, q.shape[2], len(named))
        window = None if window is None else check_window(window)
        scale = None if scale is None else check_scale(scale, q)
        for s, n in zip(named, counts, strict=True):
            if n > self._lengths[s]:
                raise ValueError(
                    f"sequence {s} has {self._lengths[s]} tokens, so its last {n} cannot be "
                    "queries: append them first"
                )
        xp, where = library_of(q)
        out = xp.zeros((*q.shape[:3], self._v.shape[3]), dtype=q.dtype, **where)
        for b, (s, n) in enumerate(zip(named, counts.tolist(), strict=True)):
            if n:
                out[b, :, :n] = self._attend(q[b, :, :n], s, window, scale)
        return out

    def gather(self, sequence: int) -> tuple[Array, Array]:
        """Return a copy of a sequence's keys `(G, T, D)` and values `(G, T, E)`, in order.

        For what :meth:`attend` does not offer, such as a bias, or values that are part of the
        key.

        Raises
        ------
        ValueError
            If there is no such sequence.
        TypeError
            If `sequence` is not an integer.
        """
        sequence = self._one(sequence)
        blocks = self._here(np.array(self._tables[sequence], np.int64))[0]
        whole: Piece = (blocks, 0, self._lengths[sequence])
        return self._read(self._k, whole), self._read(self._v, whole)

    def crop(self, sequence: int, length: int | Array) -> None:
        """Forget a sequence's tokens from position `length` on, as when a draft is rejected.

        Raises
        ------
        ValueError
            If there is no such sequence, or it has not so many tokens.
        TypeError
            If an argument is not an integer.
        """
        sequence, length = self._one(sequence), scalar("length", length)
        if not 0 <= length <= self._lengths[sequence]:
            raise ValueError(
                f"cannot crop sequence {sequence} to a length of {length}: it has "
                f"{self._lengths[sequence]} tokens"
            )
        table, kept = self._tables[sequence], self._blocks_of(length)
        self._users[table[kept:]] -= 1
        del table[kept:]
        self._lengths[sequence] = length

    def drop(self, sequence: int) -> None:
        """Forget a sequence. Its blocks are free, but for those that another has too.

        Raises
        ------
        ValueError
            If there is no such sequence.
        TypeError
            If `sequence` is not an integer.
        """
        sequence = self._one(sequence)
        self.crop(sequence, 0)
        del self._tables[sequence], self._lengths[sequence]

    def _told(self) -> dict[str, Any]:
        G, blocks, size, D = self._k.shape
        sizes = {"blocks": blocks, "kv_heads": G, "head_dim": D, "size": size}
        now = {"free": self.free, "lengths": self._lengths}
        return {**sizes, "value_dim": self._v.shape[3], **now}

    def _mark(self) -> dict[int, int]:
        return self.lengths

    def _undo_to(self, mark: dict[int, int]) -> None:
        for sequence, length in mark.items():
            self.crop(sequence, length)

    def _one(self, sequence: Array) -> int:
        """Return the number of a sequence that there is."""
        sequence = scalar("sequence", sequence)
        if sequence not in self._lengths:
            raise ValueError(f"there is no sequence {sequence}: there are {self._there}")
        return sequence

    def _named(self, sequences: Array) -> list[int]:
        """Return the numbers of sequences that there are."""
        named = integers("sequences", sequences, "(B,)", "a sequence")
        if not named:
            raise ValueError("sequences must name one sequence or more")
        if unknown := [s for s in named if s not in self._lengths]:
            raise ValueError(f"there is no sequence {unknown[0]}: there are {self._there}")
        return named

    @property
    def _there(self) -> str:
        return ", ".join(map(str, self._lengths)) or "none; begin one with add()"

    def _begin(self, table: list[int], length: int) -> int:
        sequence = self._added
        self._added += 1
        self._users[table] += 1
        self._tables[sequence], self._lengths[sequence] = table, length
        return sequence

    def _blocks_of(self, length: int) -> int:
        """Return how many blocks so many tokens take."""
        return -(-length // self._k.shape[2])

    def _to_copy(self, grown: dict[int, int]) -> set[int]:
        """Return those of the sequences whose last block is half full and shared.

        Of all that have it, one may go on to write into it: when the others have copies.
        """
        left = Counter[int]()
        copies = set()
        for s in grown:
            if self._lengths[s] % self._k.shape[2]:
                last = self._tables[s][-1]
                left[last] += 1
                if self._users[last] - left[last] > 0:
                    copies.add(s)
        return copies

    def _take(self, count: int, last: int | None) -> list[int]:
        """Take free blocks: those behind `last`, then from the middle of the longest stretch.

        From the middle, for the sequence before it is to grow too.
        """
        found: list[int] = []
        blocks = len(self._users)
        while len(found) < count:
            behind = blocks if last is None else last + 1
            if behind < blocks and self._users[behind] == 0:
                new = range(behind, behind + 1)
            else:
                edges = np.flatnonzero(np.diff(self._users == 0, prepend=False, append=False))
                starts, stops = edges[::2], edges[1::2]
                longest = int((stops - starts).argmax())
                start, room = int(starts[longest]), int((stops - starts)[longest])
                size = min(room, count - len(found))
                start += (room - size) // 2
                new = range(start, start + size)
            found += new
            self._users[list(new)] = 1
            last = found[-1]
        return found

    def _write(
        self, named: list[int], tables: dict[int, list[int]], k: Array, v: Array, counts: Array
    ) -> None:
        """Write the real rows behind what the sequences have, by these tables."""
        size = self._k.shape[2]
        rows, places = real_rows(counts)
        starts = np.array([self._lengths[s] for s in named], np.int64)
        at = (places + starts[rows]).tolist()
        into = [tables[named[b]][t // size] for b, t in zip(rows.tolist(), at, strict=True)]
        slots = np.array(at, np.int64) % size
        rows, places, into, slots = self._here(rows, places, np.array(into, np.int64), slots)
        for memory, new in ((self._k, k), (self._v, v)):
            memory[:, into, slots] = new[rows, :, places].swapaxes(0, 1)

    def _check_queries(self, q: Array, B: int) -> None:
        """Raise unless q is `(B, H, n, D)` of this cache's library, dtype and device."""
        G, D, E = len(self._k), self._k.shape[3], self._v.shape[3]
        if E == 0:
            raise ValueError(
                "this cache keeps no values (value_dim=0): attend to what gather() returns"
            )
        namespace(cache=self._k, q=q)
        if not (is_tensor(q) or isinstance(q, np.ndarray)):
            raise TypeError(f"q must be an array, got {type(q).__name__}")
        check_dense("q", q)
        check_device(cache=self._k, q=q)
        if dtype_name(q) != dtype_name(self._k):
            raise TypeError(f"q is {dtype_name(q)}, the cache {dtype_name(self._k)}: convert q")
        if q.ndim != 4 or (q.shape[0], q.shape[3]) != (B, D):
            raise ValueError(f"q must be (B, H, n, D) = ({B}, H, n, {D}), got {shape_of(q)}")
        if q.shape[1] % G:
            raise ValueError(
                f"query heads ({q.shape[1]}) must be a multiple of key/value heads ({G}): "
                f"q {shape_of(q)}"
            )

    def _attend(self, q: Array, s: int, window: int | None, scale: float | Array | None) -> Array:
        """Return attention `(H, n, E)` of the last n tokens of a sequence."""
        H, n, _ = q.shape
        first, stop = 0, self._lengths[s]
        if window is not None:
            first = max(0, stop - n - window + 1)
            window = None if n == 1 else window  # what a single query sees is all that is read
        few = H * n * (stop - first) <= SCORES_AT_ONCE // 4
        apart = few and (self._xp is np or q.device.type == "cpu")
        pieces = self._pieces(self._tables[s], first, stop, apart)
        if len(pieces) != 1:
            return self._by_pieces(q, pieces, window, scale)
        k, v = (self._read(memory, pieces[0])[None] for memory in (self._k, self._v))
        return attention(q[None], k, v, causal=True, window=window, scale=scale)[0]

    def _pieces(self, table: list[int], first: int, stop: int, apart: bool) -> list[Piece]:
        """Cut tokens `first` to `stop` into pieces, of blocks in a row and of others.

        With no wish to read `apart`, there is one piece.
        """
        G, _, size, D = self._k.shape
        at_once, worth_a_view = math.inf, math.inf
        if apart:
            at_once, worth_a_view = max(1, COPIED_AT_ONCE // (G * size * D)), WORTH_A_VIEW
        begin = first // size
        runs: list[list[int]] = []
        for block in table[begin : self._blocks_of(stop)]:
            if runs and block == runs[-1][-1] + 1:
                runs[-1].append(block)
            else:
                runs.append([block])
        groups: list[list[int]] = []
        more = False  # whether the last group takes more runs
        for run in runs:
            short = len(run) * size < worth_a_view
            if more and short and len(groups[-1]) < at_once:
                groups[-1] += run
            else:
                groups.append(run)
            more = short
        pieces, skip = [], first - begin * size
        for n, group in enumerate(groups):
            tokens = len(group) * size if n < len(groups) - 1 else stop - (begin * size)
            begin += len(group)
            pieces.append((self._index(group), skip, tokens - skip))
            skip = 0
        return pieces

    def _index(self, blocks: list[int]) -> slice | Array:
        """Return a slice, which copies nothing, of blocks in a row, and else their numbers."""
        if blocks and blocks[-1] - blocks[0] == len(blocks) - 1 and blocks == sorted(blocks):
            return slice(blocks[0], blocks[-1] + 1)
        return self._here(np.array(blocks, np.int64))[0]

    def _read(self, memory: Array, piece: Piece) -> Array:
        """Return the tokens of a piece, `(G, tokens, width)`."""
        blocks, skip, tokens = piece
        if isinstance(blocks, slice):
            rows = memory[:, blocks]
        elif self._xp is np:
            rows = memory.take(blocks, axis=1)
        else:
            rows = memory.index_select(1, blocks)
        G, count, size, width = rows.shape
        return rows.reshape(G, count * size, width)[:, skip : skip + tokens]

    def _by_pieces(
        self, q: Array, pieces: list[Piece], window: int | None, scale: float | Array | None
    ) -> Array:
        """Return attention `(H, n, E)`: scores of each piece, one softmax, values of each."""
        xp, n = self._xp, q.shape[1]
        rows = wide(xp, q) * check_scale(scale, q)
        found = []
        for piece in pieces:
            k = wide(xp, self._read(self._k, piece))
            found.append((fold(rows, k) @ k.mT).reshape(*q.shape[:2], k.shape[1]))
        scores = xp.concatenate(found, axis=-1)
        if n > 1:
            band = masks.causal(n, scores.shape[-1], window=window, like=q)
            scores = xp.where(band, scores, -math.inf)
        powers = xp.exp(scores - xp.amax(scores, axis=-1, keepdims=True))
        out, start = 0.0, 0
        for piece in pieces:
            v = wide(xp, self._read(self._v, piece))
            out = out + mix(powers[..., start : start + v.shape[1]], v)
            start += v.shape[1]
        return cast(xp, out / powers.sum(axis=-1, keepdims=True), q.dtype)
