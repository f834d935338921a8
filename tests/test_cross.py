"""The cache of a context: written once, read at every step, refused to grow."""

import copy
import pickle

import numpy as np
import pytest
import torch

import attncore as ac

B, H, G, D, E, T = 2, 6, 3, 5, 7, 4
Z = np.zeros


def tokens():
    rng = np.random.default_rng(0)
    return [rng.normal(size=s) for s in ((B, H, 1, D), (B, G, T, D), (B, G, T, E))]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("lengths", [None, [4, 2], np.array([1, 3]), torch.tensor([0, 4])])
def test_every_step_reads_what_was_written(convert, lengths):
    q, k, v = map(convert, tokens())
    cache = ac.CrossKVCache(k, v, lengths=lengths)
    expected = ac.attention(q, k, v, lengths=lengths)

    for _ in range(2):
        found = ac.attention(q, cache.k, cache.v, lengths=cache.lengths)
        assert np.array_equal(np.asarray(found), np.asarray(expected))
    assert cache.k is k  # not a copy
    assert (cache.dtype, cache.nbytes) == (k.dtype, k.nbytes + v.nbytes)


@pytest.mark.parametrize(
    "how",
    [
        lambda cache: cache.copy(),
        copy.copy,
        copy.deepcopy,
        lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
    ],
    ids=["copy()", "copy.copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_beams_are_reordered_and_what_was_given_stays(how, convert):
    _, k, v = map(convert, tokens())
    cache = ac.CrossKVCache(k, v, lengths=[4, 2])
    other = how(cache)
    before = np.asarray(k).copy()
    cache.select([1, 1, 0])
    cache.k[...] = 0

    assert cache.lengths == [2, 2, 4]
    assert cache.v.shape == (3, G, T, E)
    assert np.array_equal(np.asarray(cache.v[0]), np.asarray(v[1]))
    assert np.array_equal(np.asarray(k), before)
    other.k[...] = 1
    assert np.array_equal(np.asarray(k), before)
    assert type(other) is ac.CrossKVCache
    assert other.lengths == [4, 2]


def test_lengths_that_were_read_are_the_readers_own():
    cache = ac.CrossKVCache(Z((2, 1, 4, 2)), Z((2, 1, 4, 2)), lengths=[4, 2])
    cache.lengths.clear()

    assert cache.lengths == [4, 2]


def test_it_tells_what_it_is():
    assert repr(ac.CrossKVCache(*tokens()[1:], lengths=[4, 2])) == (
        "CrossKVCache(batch=2, kv_heads=3, Tk=4, head_dim=5, value_dim=7, lengths=[4, 2], "
        "dtype=float64)"
    )


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c: c.append(Z((2, 1, 1, 2)), Z((2, 1, 1, 2))), ValueError,
         r"a CrossKVCache is written once, when it is made: keep tokens that are still to come in"),
        (lambda c: ac.CrossKVCache([1.0], Z(1)), TypeError, r"k must be an array, got list"),
        (lambda c: ac.CrossKVCache(c.k[0], c.v[0]), ValueError,
         r"k must be \(B, G, Tk, D\), none of them 0, got \(1, 4, 2\)"),
        (lambda c: ac.CrossKVCache(c.k[:, :, :0], c.v), ValueError,
         r"k must be \(B, G, Tk, D\), none of them 0, got \(2, 1, 0, 2\)"),
        (lambda c: ac.CrossKVCache(c.k, c.v[:, :, :3]), ValueError,
         r"k and v must have one row per key: k \(2, 1, 4, 2\), v \(2, 1, 3, 2\)"),
        (lambda c: ac.CrossKVCache(c.k, c.v.astype("f4")), TypeError,
         r"k and v must share one dtype: k float64, v float32; convert one"),
        (lambda c: ac.CrossKVCache(c.k, torch.zeros(2, 1, 4, 2)), TypeError, r"do not mix: k Num"),
        (lambda c: ac.CrossKVCache(torch.zeros(2, 1, 4, 2), torch.zeros(2, 1, 4, 2).to("meta")),
         ValueError, r"must be on one device: k on cpu, v on meta; move them with \.to\(device\)"),
        (lambda c: ac.CrossKVCache(*[torch.zeros(2, 1, 4, 2, requires_grad=True)] * 2),
         ValueError, r"k needs a gradient, which a cache cannot pass on: decode under torch.no_"),
        (lambda c: ac.CrossKVCache(c.k, c.v, lengths=[1, 5]), ValueError,
         r"lengths must lie in 0 to Tk = 4, got \[1, 5\]"),
        (lambda c: ac.CrossKVCache(c.k, c.v, lengths=[1]), ValueError,
         r"lengths must hold one number per sequence, 2, got 1"),
        (lambda c: ac.CrossKVCache(c.k, c.v, lengths=[1, 2.0]), TypeError,
         r"a length must be an integer, got float"),
        (lambda c: c.select([2]), ValueError, r"rows must lie in 0 to B - 1 = 1, got \[2\]"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong_and_nothing_is_changed(call, kind, message):
    cache = ac.CrossKVCache(Z((2, 1, 4, 2)), Z((2, 1, 4, 2)), lengths=[4, 2])
    before = pickle.dumps(cache)
    with pytest.raises(kind, match=message):
        call(cache)

    assert pickle.dumps(cache) == before
