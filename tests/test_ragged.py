"""Sequences of unequal length in one cache are what each would be in a cache of its own."""

import copy
import pickle

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attncore as ac
from attncore.cache.growing import undo_on_error

B, H, G, D, E, C = 3, 4, 2, 2, 3, 9
COPIES = [
    lambda cache: cache.copy(),
    copy.copy,
    copy.deepcopy,
    lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
]
LIKES = {"numpy": np.zeros(1), "torch": torch.zeros(1, dtype=torch.float64)}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def append_and_fail(cache, *given):
    with undo_on_error([cache]):
        cache.append(*given)
        raise ZeroDivisionError


class Rows:
    """A cache beside the tokens `(G, T, D)` and `(G, T, E)` of each sequence, in NumPy."""

    def __init__(self, like, batch):
        self.like = like
        self.cache = ac.RaggedKVCache(batch, G, C, D, value_dim=E, like=like)
        self.rows = [(np.zeros((G, 0, D)), np.zeros((G, 0, E))) for _ in range(batch)]

    def given(self, array):
        return torch.from_numpy(array) if torch.is_tensor(self.like) else array

    def twin(self, how):
        other = copy.copy(self)
        other.cache, other.rows = how(self.cache), list(self.rows)
        return other

    def append(self, counts, more, seed, window, fail):
        """Append, attend, and compare with each sequence alone. Nobody may read the padding."""
        batch = len(self.rows)
        counts = counts[:batch]
        n = max(counts) + more
        q, k, v = (
            random(batch, heads, n, width, seed=seed) for heads, width in ((H, D), (G, D), (G, E))
        )
        for b, count in enumerate(counts):
            k[b, :, count:] = v[b, :, count:] = np.nan
        given = self.given(k), self.given(v), counts
        lengths = self.cache.lengths
        if any(length + count > C for length, count in zip(lengths, counts, strict=True)):
            with pytest.raises(ValueError, match=r"cache full: sequence \d has \d of 9 tokens, c"):
                self.cache.append(*given)
            return
        if fail:
            with pytest.raises(ZeroDivisionError):
                append_and_fail(self.cache, *given)
            return
        places = np.asarray(self.cache.positions(n))
        assert places.tolist() == [list(range(length, length + n)) for length in lengths]
        seen = self.cache.append(*given)
        self.rows = [
            tuple(
                np.concatenate([rows, new[b, :, : counts[b]]], axis=1)
                for rows, new in zip(self.rows[b], (k, v), strict=True)
            )
            for b in range(batch)
        ]
        mask = self.cache.mask(n, counts, window=window)
        assert mask.shape == (batch, 1, n, max(self.cache.lengths))
        out = np.asarray(ac.attention(self.given(q), *seen, mask))
        for b, count in enumerate(counts):
            expected = oracle.attention(q[b, :, :count], *self.rows[b], causal=True, window=window)
            np.testing.assert_allclose(out[b, :, :count], expected, 0, 1e-12)
            assert not out[b, :, count:].any()

    def crop(self, back, kind):
        lengths = [max(0, n - cut) for n, cut in zip(self.cache.lengths, back, strict=False)]
        self.cache.crop(kind(lengths))
        self.cut(lengths)

    def crop_all(self, back, kind):
        length = max(0, min(self.cache.lengths) - back)
        self.cache.crop(kind(length))
        self.cut([length] * len(self.rows))

    def cut(self, lengths):
        self.rows = [
            tuple(rows[:, :n] for rows in pair) for pair, n in zip(self.rows, lengths, strict=True)
        ]

    def select(self, picks, kind):
        chosen = [pick % len(self.rows) for pick in picks]
        self.cache.select(kind(chosen))
        self.rows = [self.rows[i] for i in chosen]

    def reset(self):
        self.cache.reset()
        self.cut([0] * len(self.rows))

    def draft(self):
        """Append NaN and take it back."""
        lengths = self.cache.lengths
        if max(lengths) < C:
            batch = len(lengths)
            new = [self.given(np.full((batch, G, 1, width), np.nan)) for width in (D, E)]
            self.cache.append(*new)
            self.cache.crop(lengths)

    def check(self):
        assert self.cache.lengths == [k.shape[1] for k, _ in self.rows]
        for b, pair in enumerate(self.rows):
            for memory, rows in zip((self.cache._k, self.cache._v), pair, strict=True):
                assert np.array_equal(np.asarray(memory)[b, :, : rows.shape[1]], rows)
                assert not np.asarray(memory)[b, :, rows.shape[1] :].any()


LISTS = st.sampled_from([list, tuple, np.array, torch.tensor, lambda n: np.array(n, ">i2")])
NUMBERS = st.sampled_from([int, np.int32, np.array, torch.tensor])
COUNTS = st.lists(st.integers(0, 4), min_size=4, max_size=4)
STEPS = st.one_of(
    st.tuples(
        st.just("append"),
        COUNTS,
        st.integers(0, 1),
        st.integers(0, 99),
        st.sampled_from([None, 1, 3, 2**40]),
        st.booleans(),
    ),
    st.tuples(st.just("crop"), COUNTS, LISTS),
    st.tuples(st.just("crop_all"), st.integers(0, 4), NUMBERS),
    st.tuples(st.just("select"), st.lists(st.integers(0, 5), min_size=1, max_size=4), LISTS),
    st.tuples(st.just("copy"), st.sampled_from(COPIES)),
    st.tuples(st.sampled_from(["reset", "draft"])),
)


@pytest.mark.parametrize("like", LIKES)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    life=st.lists(st.tuples(st.integers(0, 9), STEPS), min_size=1, max_size=20),
)
def test_a_ragged_cache_and_its_copies_hold_what_lists_would(like, batch, life):
    every = [Rows(LIKES[like], batch)]
    for which, (step, *arguments) in life:
        one = every[which % len(every)]
        if step == "copy":
            every.append(one.twin(*arguments))
        else:
            getattr(one, step)(*arguments)
        for rows in every:  # a copy is never changed by what its original goes through
            rows.check()


@pytest.mark.parametrize("like", LIKES)
@pytest.mark.parametrize("window", [None, 3])
def test_it_decodes_as_plain_caches_do_one_for_each_sequence(like, window):
    """With RoPE, by the positions it tells; a sequence that waits is not moved on."""
    like = LIKES[like]
    cache = ac.RaggedKVCache(B, G, C, D, value_dim=E, like=like)
    plain = [ac.KVCache(1, G, C, D, value_dim=E, window=window, like=like) for _ in range(B)]
    for step, counts in enumerate(([4, 1, 2], [1, 1, 1], [1, 0, 1], [2, 3, 0])):
        n = max(counts)
        q, k, v = (random(B, *s, seed=step) for s in ((H, n, D), (G, n, D), (G, n, E)))
        q, k, v = (torch.from_numpy(x) if torch.is_tensor(like) else x for x in (q, k, v))
        places = cache.positions(n)
        turned = [
            np.stack([np.asarray(ac.positions.rope(x[b], places[b])) for b in range(B)])
            for x in (q, k)
        ]
        q, k = (torch.from_numpy(x) if torch.is_tensor(like) else x for x in turned)
        seen = cache.append(k, v, counts)
        found = ac.attention(q, *seen, cache.mask(n, counts, window=window))
        for b, count in enumerate(counts):
            own = plain[b].append(k[b : b + 1, :, :count], v[b : b + 1, :, :count])
            expected = ac.attention(q[b : b + 1, :, :count], *own, causal=True, window=window)
            np.testing.assert_allclose(
                np.asarray(found[b, :, :count]), np.asarray(expected[0]), 0, 1e-12
            )
        assert cache.lengths == [one.length for one in plain]


def filled(like=LIKES["numpy"], **options):
    """Return a cache of lengths 3, 1 and 2."""
    cache = ac.RaggedKVCache(B, G, C, D, **{"value_dim": E} | options, like=like)
    new = [random(B, G, 3, w) for w in (D, cache._v.shape[3])]
    cache.append(*(torch.from_numpy(x) if torch.is_tensor(like) else x for x in new), [3, 1, 2])
    return cache


def test_appending_gives_views_of_the_same_memory():
    cache = filled()
    before = cache.nbytes
    seen = cache.append(random(B, G, 1, D), random(B, G, 1, E))

    assert all(np.shares_memory(a, b) for a, b in zip(seen, (cache._k, cache._v), strict=True))
    assert cache.nbytes == before == B * G * C * (D + E) * 8


def test_a_finished_sequence_makes_room_for_another():
    cache = filled()
    lengths = cache.lengths
    lengths[1] = 0  # a list of its own: the cache does not change with it
    assert cache.lengths == [3, 1, 2]
    cache.crop(lengths)
    k, v = random(B, G, 4, D, seed=5), random(B, G, 4, E, seed=5)
    cache.append(k, v, [0, 4, 0])

    assert cache.lengths == [3, 4, 2]
    assert np.array_equal(cache._k[1, :, :4], k[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_and_device_follow_like(dtype):
    like = torch.zeros(1, dtype=dtype)
    cache = ac.RaggedKVCache(1, 1, 2, 4, like=like)
    k, _ = cache.append(torch.ones(1, 1, 1, 4, dtype=dtype), torch.ones(1, 1, 1, 4, dtype=dtype))

    assert (k.dtype, k.device, cache.dtype) == (dtype, like.device, dtype)
    assert cache.mask(1).device == cache.positions(1).device == like.device
    assert cache.nbytes == 2 * 2 * 4 * like.element_size()


@pytest.mark.parametrize("like", LIKES)
def test_keys_alone_are_kept_where_values_have_no_width(like):
    cache = filled(LIKES[like], value_dim=0)
    k = random(B, G, 1, D, seed=7)
    seen = cache.append(torch.from_numpy(k) if like == "torch" else k)

    assert seen[0].shape == (B, G, 4, D)
    assert seen[1].shape == (B, G, 4, 0)
    assert np.array_equal(np.asarray(seen[0])[1, :, 1], k[1, :, 0])
    assert cache.nbytes == B * G * C * D * 8
    cache.select([1, 0])
    cache.crop(1)
    assert cache.lengths == [1, 1]


def test_it_tells_what_it_is():
    assert repr(filled()) == (
        "RaggedKVCache(batch=3, kv_heads=2, slots=9, head_dim=2, value_dim=3, "
        "lengths=[3, 1, 2], dtype=float64)"
    )


def test_a_write_that_fails_counts_nothing():
    with torch.inference_mode():
        cache = filled(LIKES["torch"])
    new = torch.ones(B, G, 1, D).double(), torch.ones(B, G, 1, E).double()
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        cache.append(*new)
    assert cache.lengths == [3, 1, 2]


def test_a_step_with_it_cannot_be_recorded():
    cache = filled(LIKES["torch"])

    class Step(torch.nn.Module):
        def forward(self, k, v):
            return cache.append(k, v)

    told = "RaggedKVCache counts its tokens outside of torch, which therefore cannot record"
    new = torch.ones(B, G, 1, D).double(), torch.ones(B, G, 1, E).double()
    with pytest.raises(Exception, match=told):
        torch.export.export(Step(), new, strict=False)
    assert cache.lengths == [3, 1, 2]
    torch.compiler.reset()
    compiled = torch.compile(Step(), backend="eager")  # it steps out of the recording
    for _ in range(3):
        compiled(*new)
    assert cache.lengths == [6, 4, 5]
    assert bool((cache._k[1, :, 1:4] == 1).all())


Z = np.zeros
NEW = Z((B, G, 2, D)), Z((B, G, 2, E))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c: ac.RaggedKVCache(0, 1, 1, 1), ValueError, r"batch must be at least 1, got 0"),
        (lambda c: ac.RaggedKVCache(1, 1, 1, 1, value_dim=-1), ValueError,
         r"value_dim must be at least 0, got -1"),
        (lambda c: c.append(Z((B, G, 8, D)), Z((B, G, 8, E)), [6, 7, 8]), ValueError,
         r"cache full: sequence 2 has 2 of 9 tokens, cannot append 8"),
        (lambda c: c.append(*NEW, [1, 3, 1]), ValueError,
         r"counts must lie in 0 to n = 2, the rows given, got \[1, 3, 1\]"),
        (lambda c: c.append(*NEW, [1, 1]), ValueError,
         r"counts must hold one number per sequence, 3, got 2"),
        (lambda c: c.append(*NEW, Z((B, 1), int)), ValueError,
         r"counts must be \(B,\), got \(3, 1\)"),
        (lambda c: c.append(*NEW, Z(B)), TypeError, r"a count must be an integer, got float"),
        (lambda c: c.append(*NEW, Z(B, bool)), TypeError, r"counts must be integers, got bool"),
        (lambda c: c.append(NEW[0]), TypeError,
         r"v is missing: this cache keeps values of width 3; for keys alone make it with value_d"),
        (lambda c: c.append(NEW[0], Z((B, G, 1, E))), ValueError,
         r"k and v must have one row per key: k \(3, 2, 2, 2\), v \(3, 2, 1, 3\)"),
        (lambda c: c.append(Z((B, G, 2, D), "f4"), NEW[1]), TypeError,
         r"k is float32, the cache float64: make the cache with like=k"),
        (lambda c: c.mask(2), ValueError,
         r"sequence 1 has 1 tokens, so its last 2 cannot be queries: append first, then ask"),
        (lambda c: c.mask(10), ValueError, r"n \(10\) must be at most the capacity \(9\)"),
        (lambda c: c.mask(1, window=0), ValueError, r"window must be at least 1"),
        (lambda c: c.positions(-1), ValueError, r"n must not be negative, got -1"),
        (lambda c: c.crop([3, 2, 2]), ValueError,
         r"cannot crop sequence 1 to a length of 2: it has 1 tokens"),
        (lambda c: c.crop(2), ValueError, r"cannot crop sequence 1 to a length of 2"),
        (lambda c: c.crop([1, 1]), ValueError, r"lengths must hold one number per sequence, 3, go"),
        (lambda c: c.crop(1.0), TypeError,
         r"lengths must be a list or an array of integers, got float"),
        (lambda c: c.crop(np.array(1.0)), TypeError, r"lengths must be an integer, got float"),
        (lambda c: c.select([3]), ValueError, r"rows must lie in 0 to B - 1 = 2, got \[3\]"),
        (lambda c: c.select(Z(B, bool)), TypeError,
         r"rows must be integers, got bool: name those to keep, np.flatnonzero\(rows\)"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong_and_nothing_is_changed(call, kind, message):
    cache = filled()
    before = pickle.dumps(cache)
    with pytest.raises(kind, match=message):
        call(cache)

    assert pickle.dumps(cache) == before
