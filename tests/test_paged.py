"""Blocks of one pool hold, for each sequence, what a plain list of rows would; none is lost."""

import copy
import itertools
import math
import pickle
import re
from collections import Counter

import numpy as np
import oracle
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import attncore as ac
from attncore.cache import paged
from attncore.cache.growing import undo_on_error

H, G, D, E = 4, 2, 2, 3
COPIES = [
    lambda cache: cache.copy(),
    copy.copy,
    copy.deepcopy,
    lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
]
LIKES = {"numpy": np.zeros(1), "torch": torch.zeros(1, dtype=torch.float64)}
READ = {  # how blocks that lie apart are read
    "as measured": {},
    "in many pieces": {"WORTH_A_VIEW": 5, "COPIED_AT_ONCE": 5 * G * D},
    "each in place": {"WORTH_A_VIEW": 1},
    "as a whole": {"SCORES_AT_ONCE": 0},
}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def append_and_fail(cache, *given):
    with undo_on_error([cache]):
        cache.append(*given)
        raise ZeroDivisionError


class Life(RuleBasedStateMachine):
    """A pool beside the rows `(G, T, D)` and `(G, T, E)` that each sequence was given, in NumPy."""

    def __init__(self, like, size=3, blocks=12):
        super().__init__()
        self.like, self.size, self.blocks = like, size, blocks
        self.cache = ac.PagedKVCache(blocks, G, D, size=size, value_dim=E, like=like)
        self.cache._k[...] = self.cache._v[...] = np.nan  # what nobody may read
        self.rows = {}

    def given(self, array):
        return torch.from_numpy(array) if torch.is_tensor(self.like) else array

    def named(self, picks):
        there = list(self.rows)
        return list(dict.fromkeys(there[pick % len(there)] for pick in picks))

    def users(self):
        return Counter(block for s in self.rows for block in self.cache.table(s))

    def needed(self, grown):
        """Return how many blocks it takes, one sequence after another."""
        users, count = self.users(), 0
        for s, n in grown.items():
            table, length = self.cache.table(s), self.cache.lengths[s]
            if n and length % self.size and users[table[-1]] > 1:
                users[table[-1]] -= 1
                count += 1
            count += math.ceil((length + n) / self.size) - len(table)
        return count

    @initialize(scattered=st.booleans())
    def begin(self, scattered):
        """Let the blocks that are free lie apart: every second one is taken."""
        for _ in range(self.blocks if scattered else 0):
            self.add()
            self.append([len(self.rows) - 1], [1, 0, 0], 0, False)
        for s in list(self.rows)[::2]:
            self.cache.drop(s)
            del self.rows[s]

    @rule()
    def add(self):
        s = self.cache.add()
        assert s not in self.rows
        self.rows[s] = np.zeros((G, 0, D)), np.zeros((G, 0, E))

    @precondition(lambda self: self.rows)
    @rule(pick=st.integers(0, 9), cut=st.integers(0, 9))
    def fork(self, pick, cut):
        (s,) = self.named([pick])
        free, length = self.cache.free, max(0, self.cache.lengths[s] - cut)
        new = self.cache.fork(s, length) if cut else self.cache.fork(s)
        assert new not in self.rows
        assert self.cache.free == free
        self.rows[new] = tuple(rows[:, :length] for rows in self.rows[s])

    @precondition(lambda self: self.rows)
    @rule(
        picks=st.lists(st.integers(0, 9), min_size=1, max_size=3),
        counts=st.lists(st.integers(0, 7), min_size=3, max_size=3),
        seed=st.integers(0, 99),
        fail=st.booleans(),
    )
    def append(self, picks, counts, seed, fail):
        named = self.named(picks)
        counts = counts[: len(named)]
        n = max(counts) + seed % 2
        k, v = (random(len(named), G, n, width, seed=seed) for width in (D, E))
        for b, count in enumerate(counts):
            k[b, :, count:] = v[b, :, count:] = np.nan
        given = named, self.given(k), self.given(v), counts
        needed, free = self.needed(dict(zip(named, counts, strict=True))), self.cache.free
        if needed > free:
            told = f"out of blocks: {needed} are needed, {free} of {self.blocks} are free; drop"
            with pytest.raises(ValueError, match=re.escape(told)):
                self.cache.append(*given)
            return
        if fail:
            with pytest.raises(ZeroDivisionError):
                append_and_fail(self.cache, *given)
            return
        self.cache.append(*given)
        assert self.cache.free == free - needed
        for b, (s, count) in enumerate(zip(named, counts, strict=True)):
            self.rows[s] = tuple(
                np.concatenate([rows, new[b, :, :count]], axis=1)
                for rows, new in zip(self.rows[s], (k, v), strict=True)
            )

    @precondition(lambda self: self.rows)
    @rule(pick=st.integers(0, 9), back=st.integers(0, 9))
    def crop(self, pick, back):
        (s,) = self.named([pick])
        length = max(0, self.cache.lengths[s] - back)
        self.cache.crop(s, length)
        self.rows[s] = tuple(rows[:, :length] for rows in self.rows[s])

    @precondition(lambda self: self.rows)
    @rule(pick=st.integers(0, 9))
    def drop(self, pick):
        (s,) = self.named([pick])
        self.cache.drop(s)
        del self.rows[s]
        with pytest.raises(ValueError, match=f"there is no sequence {s}: there are "):
            self.cache.crop(s, 0)

    @rule(how=st.sampled_from(COPIES))
    def go_on_with_a_copy(self, how):
        old, self.cache = self.cache, how(self.cache)
        old._k[...] = old._v[...] = np.nan
        for s in self.rows:
            old.drop(s)

    @precondition(lambda self: self.rows)
    @rule(
        picks=st.lists(st.integers(0, 9), min_size=1, max_size=3),
        back=st.integers(0, 4),
        window=st.sampled_from([None, 1, 2, 4, 50]),
    )
    def attend(self, picks, back, window):
        """Each sequence alone, by the definition, is what all together must give."""
        named = self.named(picks)
        counts = [max(0, min(3, self.cache.lengths[s]) - back) for s in named]
        q = random(len(named), H, 3, D, seed=back)
        out = self.cache.attend(self.given(q), named, counts, window=window)
        for b, (s, n) in enumerate(zip(named, counts, strict=True)):
            k, v = self.rows[s]
            expected = oracle.attention(q[b, :, :n], k, v, causal=True, window=window)
            np.testing.assert_allclose(np.asarray(out[b, :, :n]), expected, 0, 1e-12)
            assert not np.asarray(out[b, :, n:]).any()

    @invariant()
    def holds_what_lists_would(self):
        assert self.cache.lengths == {s: k.shape[1] for s, (k, _) in self.rows.items()}
        for s, rows in self.rows.items():
            for found, wanted in zip(self.cache.gather(s), rows, strict=True):
                assert np.array_equal(np.asarray(found), wanted)

    @invariant()
    def counts_the_users_of_each_block(self):
        users = self.users()
        assert self.cache._users.tolist() == [users[block] for block in range(self.blocks)]
        assert self.cache.free == self.blocks - len(users)

    def teardown(self):
        for s in self.rows:
            self.cache.drop(s)
        assert self.cache.free == self.blocks
        assert not self.cache._users.any()
        assert self.cache.lengths == {}


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("like", LIKES)
def test_whatever_happens_each_sequence_is_a_list_and_no_block_is_lost(like, read, monkeypatch):
    for name, value in READ[read].items():
        monkeypatch.setattr(paged, name, value)
    run_state_machine_as_test(
        lambda: Life(LIKES[like]),
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True),
    )


def filled(lengths, like=LIKES["numpy"], **options):
    """Return a pool, and sequences of these lengths, which grow in turns."""
    sizes = {"blocks": 40, "kv_heads": G, "head_dim": D, "size": 2, "value_dim": E}
    cache = ac.PagedKVCache(**(sizes | options), like=like)
    sequences = [cache.add() for _ in lengths]
    for t in range(max(lengths)):
        named = [s for s, n in zip(sequences, lengths, strict=True) if t < n]
        k, v = (random(len(named), G, 1, w, seed=t) for w in (cache._k.shape[3], E))
        new = [torch.from_numpy(x).to(like.dtype) if torch.is_tensor(like) else x for x in (k, v)]
        cache.append(named, new[0], new[1][..., : cache._v.shape[3]])
    return cache, sequences


def in_holes(like):
    """Return a pool whose free blocks are 7 in a row and then single ones, and a sequence."""
    cache, short = filled([1] * 40, like)
    short.sort(key=cache.table)
    for s in short[::2] + short[1:6:2]:
        cache.drop(s)
    return cache, cache.add()


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("window", [None, 1, 2, 4, 7])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_blocks_that_lie_apart_are_read_in_order(n, window, like, read, monkeypatch):
    for name, value in READ[read].items():
        monkeypatch.setattr(paged, name, value)
    cache, s = in_holes(LIKES[like])
    q, k, v = (random(1, heads, 31, w) for heads, w in ((H, D), (G, D), (G, E)))
    new = [torch.from_numpy(x) if like == "torch" else x for x in (q, k, v)]
    cache.append([s], *new[1:])
    found = cache.attend(new[0][:, :, -n:], [s], window=window)

    assert sum(b != a + 1 for a, b in itertools.pairwise(cache.table(s))) >= 8
    expected = oracle.attention(q, k, v, causal=True, window=window)[:, :, -n:]
    np.testing.assert_allclose(np.asarray(found), expected, 0, 1e-12)


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("window", [None, 3])
def test_it_decodes_as_plain_caches_do_one_for_each_sequence(like, window):
    like = LIKES[like]
    cache, named = filled([7, 2, 5], like)
    plain = []
    for s in named:
        k, v = (x[None] for x in cache.gather(s))
        plain.append(ac.KVCache(1, G, 12, D, value_dim=E, window=window, like=like))
        plain[-1].append(k, v)
    for step in range(4):
        q, k, v = (random(3, n, 1, w, seed=step) for n, w in ((H, D), (G, D), (G, E)))
        q, k, v = (torch.from_numpy(x) if torch.is_tensor(like) else x for x in (q, k, v))
        cache.append(named, k, v)
        found = cache.attend(q, named, window=window)
        for b, one in enumerate(plain):
            seen = one.append(k[b : b + 1], v[b : b + 1])
            expected = ac.attention(q[b : b + 1], *seen, causal=True, window=window)
            np.testing.assert_allclose(np.asarray(found[b]), np.asarray(expected[0]), 0, 1e-12)


def test_a_fork_takes_no_block_and_a_write_copies_one():
    cache, (first,) = filled([5])
    free = cache.free
    others = [cache.fork(first) for _ in range(3)]
    assert cache.free == free
    new = random(4, G, 1, D), random(4, G, 1, E)
    cache.append([first, *others], *new)

    assert cache.free == free - 3  # one of the four goes on in the block that all had
    tables = [cache.table(s) for s in (first, *others)]
    assert all(table[:2] == tables[0][:2] for table in tables)
    assert len({table[2] for table in tables}) == 4


def test_a_fork_that_ends_with_a_block_copies_nothing():
    cache, (first,) = filled([5])
    free, second = cache.free, cache.fork(first, 4)
    cache.append([second], random(1, G, 1, D), random(1, G, 1, E))

    assert cache.free == free - 1
    assert cache.table(second)[:2] == cache.table(first)[:2]


def test_sequences_that_grow_in_turns_lie_in_a_row():
    cache, named = filled([40] * 8, blocks=200)
    for s in named:
        table = cache.table(s)
        assert sum(b != a + 1 for a, b in itertools.pairwise(table)) <= 2  # of 20 blocks


def test_what_lies_in_a_row_is_read_without_a_copy():
    for like in LIKES.values():
        cache, (s,) = filled([7], like)
        (piece,) = cache._pieces(cache.table(s), 0, 7, apart=False)
        rows = cache._read(cache._k, piece)

        assert np.shares_memory(np.asarray(rows), np.asarray(cache._k))
        assert np.array_equal(np.asarray(rows), np.asarray(cache.gather(s)[0]))


def test_only_the_blocks_of_the_window_are_read():
    cache, (s,) = filled([20])
    q = random(1, H, 2, D)
    expected = cache.attend(q, [s], window=3)
    for block in cache.table(s)[:8]:
        cache._k[:, block] = cache._v[:, block] = np.nan

    assert np.array_equal(cache.attend(q, [s], window=3), expected)


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [1, 3])
def test_dtype_and_device_follow_like(dtype, n, read, monkeypatch):
    for name, value in READ[read].items():
        monkeypatch.setattr(paged, name, value)
    cache, s = in_holes(torch.zeros(1, dtype=dtype))
    k, v = (torch.from_numpy(random(1, G, 29, w)).to(dtype) for w in (D, E))
    cache.append([s], k, v)
    named = [s, cache.fork(s, 14)]
    q = torch.from_numpy(random(2, H, n, D)).to(dtype)
    found = cache.attend(q, named)

    assert (found.dtype, found.device) == (dtype, q.device)
    assert cache.dtype == dtype
    for b, s in enumerate(named):
        k, v = cache.gather(s)
        expected = ac.attention(q[b].double(), k.double(), v.double(), causal=True)
        near = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 2e-2}
        torch.testing.assert_close(found[b].double(), expected, **near)


@pytest.mark.parametrize("read", READ)
def test_queries_and_the_scale_get_their_gradients(read, monkeypatch):
    for name, value in READ[read].items():
        monkeypatch.setattr(paged, name, value)
    cache, s = in_holes(LIKES["torch"])
    cache.append([s], *(torch.from_numpy(random(1, G, 29, w)) for w in (D, E)))
    named = [s, cache.fork(s, 14)]
    q = torch.from_numpy(random(2, H, 2, D)).requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    weight = torch.from_numpy(random(2, H, 2, E))
    (cache.attend(q, named, scale=scale) * weight).sum().backward()
    found = q.grad, scale.grad
    q.grad = scale.grad = None
    outs = [
        ac.attention(q[b], *cache.gather(s), causal=True, scale=scale) for b, s in enumerate(named)
    ]
    (torch.stack(outs) * weight).sum().backward()

    torch.testing.assert_close(found, (q.grad, scale.grad))


def test_keys_alone_are_kept_where_values_have_no_width():
    cache, (s,) = filled([5], value_dim=0)
    cache.append([s], random(1, G, 1, D, seed=7))
    k, v = cache.gather(s)

    assert (k.shape, v.shape) == ((G, 6, D), (G, 6, 0))
    assert np.array_equal(k[:, 5], random(1, G, 1, D, seed=7)[0, :, 0])
    assert cache.nbytes == 40 * 2 * G * D * 8
    with pytest.raises(ValueError, match=r"keeps no values \(value_dim=0\): attend to what gather"):
        cache.attend(random(1, H, 1, D), [s])


def test_positions_are_those_of_the_next_tokens():
    for like in LIKES.values():
        cache, named = filled([3, 1], like)
        places = cache.positions(named[::-1], 2)

        assert type(places) is type(like)
        assert places.tolist() == [[1, 2], [3, 4]]


def test_it_tells_what_it_is():
    cache, _ = filled([3])

    assert cache.nbytes == 40 * 2 * G * (D + E) * 8
    assert repr(cache) == (
        "PagedKVCache(blocks=40, kv_heads=2, head_dim=2, size=2, value_dim=3, free=38, "
        "lengths={0: 3}, dtype=float64)"
    )


def test_a_write_that_fails_takes_no_block():
    with torch.inference_mode():
        cache, (first,) = filled([3], LIKES["torch"])
    second = cache.fork(first)
    before = cache.free, cache.lengths, cache.table(second), cache._users.tolist()
    new = torch.zeros(1, G, 4, D, dtype=torch.float64), torch.zeros(1, G, 4, E).double()
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        cache.append([second], *new)

    assert (cache.free, cache.lengths, cache.table(second), cache._users.tolist()) == before


def test_a_step_with_it_cannot_be_recorded():
    cache, (s,) = filled([3], LIKES["torch"])
    told = "PagedKVCache counts its tokens outside of torch, which therefore cannot record"

    class Step(torch.nn.Module):
        def forward(self, q):
            return cache.attend(q, [s])

    q = torch.from_numpy(random(1, H, 1, D))
    with pytest.raises(Exception, match=told):
        torch.export.export(Step(), (q,), strict=False)
    torch.compiler.reset()
    compiled = torch.compile(Step(), backend="eager")  # it steps out of the recording
    torch.testing.assert_close(compiled(q), cache.attend(q, [s]))


Z = np.zeros
NEW = Z((1, G, 1, D)), Z((1, G, 1, E))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c, s: ac.PagedKVCache(0, 1, 1), ValueError, r"blocks must be at least 1, got 0"),
        (lambda c, s: ac.PagedKVCache(1, 1, 1, size=0), ValueError, r"size must be at least 1"),
        (lambda c, s: ac.PagedKVCache(1, 1, 1, value_dim=-1), ValueError,
         r"value_dim must be at least 0, got -1"),
        (lambda c, s: ac.PagedKVCache(1, 1, 1, like=Z(1, int)), TypeError,
         r"like must be floating point, got int64"),
        (lambda c, s: c.append([s, s], *NEW), ValueError,
         r"sequences must be named once each, got \[0, 0\]"),
        (lambda c, s: c.append([], *NEW), ValueError, r"sequences must name one sequence or more"),
        (lambda c, s: c.append([9], *NEW), ValueError, r"there is no sequence 9: there are 0"),
        (lambda c, s: ac.PagedKVCache(1, 1, 1).drop(0), ValueError,
         r"there is no sequence 0: there are none; begin one with add\(\)"),
        (lambda c, s: c.append(s, *NEW), TypeError,
         r"sequences must be a list or an array of integers, got int"),
        (lambda c, s: c.append([s], Z((2, G, 1, D)), Z((2, G, 1, E))), ValueError,
         r"k must be \(B, G, n, D\) = \(1, 2, n, 2\), got \(2, 2, 1, 2\)"),
        (lambda c, s: c.append([s], NEW[0]), TypeError,
         r"v is missing: this cache keeps values of width 3; for keys alone make it with value_d"),
        (lambda c, s: c.append([s], *NEW, counts=[2]), ValueError,
         r"counts must lie in 0 to n = 1, the rows given, got \[2\]"),
        (lambda c, s: c.append([s], *NEW, counts=[1, 1]), ValueError,
         r"counts must hold one number per sequence, 1, got 2"),
        (lambda c, s: c.append([s], Z((1, G, 99, D)), Z((1, G, 99, E))), ValueError,
         r"out of blocks: 49 are needed, 38 of 40 are free; drop or crop sequences, or make the"),
        (lambda c, s: c.append([s], *NEW[:1], torch.zeros(1)), TypeError, r"do not mix: cache, k"),
        (lambda c, s: c.fork(s, 4), ValueError,
         r"cannot fork sequence 0 at a length of 4: it has 3 tokens"),
        (lambda c, s: c.fork(s, 1.0), TypeError, r"length must be an integer, got float"),
        (lambda c, s: c.crop(s, 4), ValueError,
         r"cannot crop sequence 0 to a length of 4: it has 3 tokens"),
        (lambda c, s: c.crop("a", 1), TypeError, r"sequence must be an integer, got str"),
        (lambda c, s: c.attend(Z((1, H, 4, D)), [s]), ValueError,
         r"sequence 0 has 3 tokens, so its last 4 cannot be queries: append them first"),
        (lambda c, s: c.attend(Z((1, 3, 1, D)), [s]), ValueError,
         r"query heads \(3\) must be a multiple of key/value heads \(2\): q \(1, 3, 1, 2\)"),
        (lambda c, s: c.attend(Z((1, H, 1, 5)), [s]), ValueError,
         r"q must be \(B, H, n, D\) = \(1, H, n, 2\), got \(1, 4, 1, 5\)"),
        (lambda c, s: c.attend(Z((1, H, 1, D), "f4"), [s]), TypeError,
         r"q is float32, the cache float64: convert q"),
        (lambda c, s: c.attend(Z((1, H, 1, D)), [s], window=0), ValueError,
         r"window must be at least 1"),
        (lambda c, s: c.attend(Z((1, H, 1, D)), [s], scale=math.inf), ValueError,
         r"scale must be finite, got inf"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong_and_nothing_is_changed(call, kind, message):
    cache, (s,) = filled([3])
    before = pickle.dumps(cache)
    with pytest.raises(kind, match=message):
        call(cache, s)

    assert pickle.dumps(cache) == before
