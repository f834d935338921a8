"""The cache changes memory and time, never a result."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

import attncore as ac

B, H, G, D, E, T = 2, 6, 3, 5, 7, 11


def tokens(seed=0, length=T):
    rng = np.random.default_rng(seed)
    shapes = ((B, H, length, D), (B, G, length, D), (B, G, length, E))
    return [rng.normal(size=shape) for shape in shapes]


def fill_with_nan(cache):
    for buffer in (cache._k, cache._v):
        buffer[...] = np.nan
    return cache


def decode(q, k, v, splits, window, convert):
    """Attend chunk by chunk through a cache whose unused slots hold NaN."""
    like = convert(k)
    cache = ac.KVCache(B, G, q.shape[2], D, value_dim=E, window=window, like=like)
    fill_with_nan(cache)
    outputs, edges = [], [0, *splits, q.shape[2]]
    for start, stop in itertools.pairwise(edges):
        seen = cache.append(convert(k[:, :, start:stop]), convert(v[:, :, start:stop]))
        new = convert(np.ascontiguousarray(q[:, :, start:stop]))
        outputs.append(np.asarray(ac.attention(new, *seen, causal=True, window=window)))
    return np.concatenate(outputs, axis=2), cache


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("window", [None, 1, 3, 4, T])
@pytest.mark.parametrize(
    "splits", [(), (5,), (1, 2), (3, 4, 9), tuple(range(1, T)), (4, 5, 6, 7, 10)], ids=str
)
def test_any_split_equals_one_pass(convert, window, splits):
    q, k, v = tokens()
    whole = ac.attention(q, k, v, causal=True, window=window)
    parts, cache = decode(q, k, v, splits, window, convert)

    assert np.allclose(parts, whole, 0, 1e-12)
    assert cache.length == T
    assert cache.held == (T if window is None else min(window, T))


@pytest.mark.parametrize("window", [None, 4])
def test_what_is_held_is_what_was_appended(window):
    _, k, v = tokens()
    _, cache = decode(*tokens(), (3, 4, 5, 9), window, np.asarray)
    order = cache._in_order()

    assert (cache._k[:, :, order] == k[:, :, T - cache.held :]).all()
    assert (cache._v[:, :, order] == v[:, :, T - cache.held :]).all()


def test_appending_without_a_window_copies_nothing():
    _, k, v = tokens(length=1)
    cache = ac.KVCache(B, G, 4, D, value_dim=E)
    before = cache.nbytes
    for _ in range(4):
        seen = cache.append(k, v)
        assert np.shares_memory(seen[0], cache._k)
        assert np.shares_memory(seen[1], cache._v)

    assert cache.nbytes == before == B * G * 4 * (D + E) * 8


def test_the_window_bounds_the_memory():
    _, k, v = tokens(length=1)
    cache = ac.KVCache(B, G, 100, D, value_dim=E, window=3)
    for _ in range(50):
        cache.append(k, v)

    assert cache.length == 50
    assert cache.nbytes == B * G * 3 * (D + E) * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtype_and_device_follow_like(dtype):
    like = torch.zeros(1, dtype=dtype)
    cache = ac.KVCache(1, 1, 2, 4, like=like)
    k, _ = cache.append(torch.ones(1, 1, 1, 4, dtype=dtype), torch.ones(1, 1, 1, 4, dtype=dtype))

    assert k.dtype == dtype
    assert k.device == like.device
    assert cache.nbytes == 2 * 2 * 4 * like.element_size()


def test_crop_and_reset_forget():
    q, k, v = tokens()
    _, cache = decode(q, k, v, (), None, np.asarray)
    cache.crop(5)
    seen = cache.append(k[:, :, 5:6], v[:, :, 5:6])
    assert (seen[0] == k[:, :, :6]).all()
    cache.reset()
    assert cache.length == cache.held == 0
    assert cache.append(k[:, :, :2], v[:, :, :2])[0].shape == (B, G, 2, D)


def test_a_window_can_be_cropped_until_it_wraps():
    _, k, v = tokens()
    cache = ac.KVCache(B, G, T, D, value_dim=E, window=4)
    cache.append(k[:, :, :4], v[:, :, :4])
    cache.crop(2)
    seen = cache.append(k[:, :, 2:3], v[:, :, 2:3])

    assert (seen[0] == k[:, :, :3]).all()
    cache.append(k[:, :, 3:5], v[:, :, 3:5])
    with pytest.raises(ValueError, match=r"cannot crop to 3: the window has overwritten"):
        cache.crop(3)
    cache.crop(5)


def test_nothing_is_lost_without_notice():
    k = torch.zeros(1, 1, 1, 4, requires_grad=True)
    cache = ac.KVCache(1, 1, 2, 4, like=k)

    with pytest.raises(ValueError, match=r"k needs a gradient, which a cache cannot pass on"):
        cache.append(k, k)
    with torch.no_grad():
        cache.append(k, k)
    assert cache.length == 1


def empty(**options):
    return ac.KVCache(**({"batch": 1, "kv_heads": 2, "capacity": 3, "head_dim": 4} | options))


Z = np.zeros


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: empty(batch=0), ValueError, r"batch must be at least 1, got 0"),
        (lambda: empty(value_dim=-1), ValueError, r"value_dim must be at least 0, got -1"),
        (lambda: empty().append(Z((1, 2, 1, 4))), TypeError,
         r"v is missing: this cache keeps values of width 4; for keys alone make it with value_d"),
        (lambda: empty(value_dim=0).append([1.0]), TypeError, r"k must be an array, got list"),
        (lambda: empty(value_dim=0).append(Z(())), ValueError,
         r"k must be \(B, G, n, D\) = \(1, 2, n, 4\), got \(\)"),
        (lambda: empty(value_dim=0).append(Z((1, 2, 1, 4)), Z((1, 2, 1, 4))), ValueError,
         r"v must be \(B, G, n, E\) = \(1, 2, n, 0\), got \(1, 2, 1, 4\)"),
        (lambda: empty(capacity=2.0), TypeError, r"capacity must be an integer, got float"),
        (lambda: empty(window=0), ValueError, r"window must be at least 1"),
        (lambda: empty(window=9), ValueError, r"capacity \(3\) must hold the window \(9\)"),
        (lambda: empty().append(Z((1, 2, 4, 4)), Z((1, 2, 4, 4))), ValueError,
         r"cache full: 0 of 3, cannot append 4"),
        (lambda: empty().append(Z((1, 3, 1, 4)), Z((1, 2, 1, 4))), ValueError,
         r"k must be \(B, G, n, D\) = \(1, 2, n, 4\), got \(1, 3, 1, 4\)"),
        (lambda: empty(value_dim=5).append(Z((1, 2, 1, 4)), Z((1, 2, 1, 4))), ValueError,
         r"v must be \(B, G, n, E\) = \(1, 2, n, 5\), got \(1, 2, 1, 4\)"),
        (lambda: empty().append(Z((1, 2, 1, 4)), Z((1, 2, 2, 4))), ValueError,
         r"k and v must have one row per key: k \(1, 2, 1, 4\), v \(1, 2, 2, 4\)"),
        (lambda: empty().append(Z((1, 2, 1, 4), "f4"), Z((1, 2, 1, 4))), TypeError,
         r"k is float32, the cache float64: make the cache with like=k"),
        (lambda: empty().append(torch.zeros(1, 2, 1, 4), Z((1, 2, 1, 4))), TypeError,
         r"do not mix: cache, v NumPy, k torch"),
        (lambda: empty().append([1.0], [1.0]), TypeError, r"k must be an array, got list"),
        (lambda: empty(like=[1.0]), TypeError, r"like must be an array, got list"),
        (lambda: empty(like=torch.zeros(1)).append(
            torch.zeros(1, 2, 1, 4, device="meta"), torch.zeros(1, 2, 1, 4)), ValueError,
         r"must be on one device: cache on cpu, k on meta, v on cpu; move them with \.to"),
        (lambda: empty().crop(1), ValueError, r"cannot crop to 1: the cache has 0 tokens"),
        (lambda: empty().crop(0.0), TypeError, r"length must be an integer, got float"),
        (lambda: empty().crop(False), TypeError, r"length must be an integer, got bool"),
        (lambda: empty().crop(np.array(0.0)), TypeError, r"length must be an integer, got float"),
        (lambda: empty().crop(torch.tensor(True)), TypeError, r"length must be an integer, got bo"),
        (lambda: empty().crop(np.array([0])), TypeError, r"length must be an integer, got ndarray"),
        (lambda: empty().append(np.ma.zeros((1, 2, 1, 4)), Z((1, 2, 1, 4))), TypeError,
         r"k is a masked array, whose mask would be lost; pass mask= instead"),
        (lambda: empty(like=torch.zeros(1)).append(*[torch.zeros(1, 2, 1, 4).to_sparse()] * 2),
         TypeError, r"k must be dense, got torch.sparse_coo; use k.to_dense\(\)"),
        (lambda: empty(batch=2).select([0, 2]), ValueError,
         r"rows must lie in 0 to B - 1 = 1, got \[0, 2\]"),
        (lambda: empty(batch=2).select([-1]), ValueError, r"rows must lie in 0 to B - 1 = 1"),
        (lambda: empty().select([]), ValueError,
         r"rows must name one sequence or more; reset\(\) forgets all tokens"),
        (lambda: empty().select(np.array([[0]])), ValueError,
         r"rows must be \(B',\), got \(1, 1\)"),
        (lambda: empty().select(0), TypeError,
         r"rows must be a list or an array of integers, got int"),
        (lambda: empty().select([0.0]), TypeError, r"a row must be an integer, got float"),
        (lambda: empty().select(np.array([True])), TypeError,
         r"rows must be integers, got bool: name those to keep, np.flatnonzero\(rows\)"),
        (lambda: empty().select(torch.tensor([True])), TypeError,
         r"rows must be integers, got bool: name those to keep, rows.nonzero\(\)\[:, 0\]"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_a_refused_append_changes_nothing():
    cache = empty()
    cache.append(Z((1, 2, 2, 4)), Z((1, 2, 2, 4)))
    with pytest.raises(ValueError, match="cache full"):
        cache.append(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2, 4)))

    assert cache.length == 2
    assert (cache._k[:, :, :2] == 0).all()


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("n", [1, 2])
def test_an_append_that_fails_changes_nothing(window, n):
    with torch.inference_mode():
        cache = empty(window=window, like=torch.zeros(1))
        cache.append(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    new = torch.ones(1, 2, n, 4)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        cache.append(new, new)
    assert cache.length == 1

    with pytest.raises(ValueError, match="must be on one device"):
        cache.append(new.to("meta"), new.to("meta"))
    assert cache.length == 1
    assert (cache._k[:, :, :1] == 0).all()


COPIES = [
    lambda cache: cache.copy(),
    copy.copy,
    copy.deepcopy,
    lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
]


@pytest.mark.parametrize("how", COPIES, ids=["copy()", "copy.copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("like", [None, torch.zeros(1, dtype=torch.float64)], ids=["np", "torch"])
@pytest.mark.parametrize("window", [None, 4])
def test_a_copy_is_a_cache_of_its_own(how, like, window):
    """A prefix is read once and continued in two ways."""
    q, k, v = tokens()
    if like is not None:
        q, k, v = map(torch.from_numpy, (q, k, v))
    cache = ac.KVCache(B, G, T, D, value_dim=E, window=window, like=like)
    cache.append(k[:, :, :6], v[:, :, :6])
    other = how(cache)
    cache.append(-k[:, :, 6:], -v[:, :, 6:])
    assert other.length == 6
    seen = other.append(k[:, :, 6:], v[:, :, 6:])
    options = {"causal": True, "window": window}
    found = np.asarray(ac.attention(q[:, :, 6:], *seen, **options))

    assert np.allclose(found, np.asarray(ac.attention(q, k, v, **options))[:, :, 6:], 0, 1e-12)
    assert type(other) is ac.KVCache
    assert (other.nbytes, other.dtype) == (cache.nbytes, k.dtype)


def test_beams_are_reordered_in_the_same_memory_and_requests_dropped():
    _, k, v = tokens()
    cache = ac.KVCache(B, G, T, D, value_dim=E)
    before = cache.append(k[:, :, :5], v[:, :, :5])[0]
    cache.select([1, 1])

    assert np.shares_memory(before, cache._k)
    assert np.array_equal(cache._k[:, :, :5], k[[1, 1], :, :5])
    cache.select(np.array([0]))
    assert cache.nbytes == 1 * G * T * (D + E) * 8
    seen = cache.append(k[:1, :, 5:], v[:1, :, 5:])
    assert np.array_equal(seen[1][:, :, :5], v[1:, :, :5])


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_no_tokens_at_all_can_be_appended(convert, window):
    k, v = convert(Z((B, G, 0, D))), convert(Z((B, G, 0, E)))
    cache = ac.KVCache(B, G, 9, D, value_dim=E, window=window, like=k)
    for _ in range(2):
        length = cache.length
        seen = cache.append(k, v)
        q = convert(Z((B, H, 0, D)))
        assert ac.attention(q, *seen, causal=True, window=window).shape == (B, H, 0, E)
        assert cache.length == length
        cache.append(*(convert(np.ones((B, G, 4, n))) for n in (D, E)))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_keys_alone_are_kept_where_values_have_no_width(window, convert):
    """One row for each token, and both are read from it, as MLA does."""
    q, k, _ = tokens()
    v = k[..., :3]
    cache = ac.KVCache(B, G, T, D, value_dim=0, window=window, like=convert(k))
    assert cache.nbytes == B * G * cache.slots * D * 8
    outs = []
    for start, stop in itertools.pairwise([0, 4, 5, 6, 9, T]):
        seen, none = cache.append(convert(k[:, :, start:stop]))
        assert none.shape == (*seen.shape[:3], 0)
        new = convert(np.ascontiguousarray(q[:, :, start:stop]))
        outs.append(np.asarray(ac.attention(new, seen, seen[..., :3], causal=True, window=window)))
    whole = ac.attention(q, k, v, causal=True, window=window)

    assert np.allclose(np.concatenate(outs, axis=2), whole, 0, 1e-12)
    twin = pickle.loads(pickle.dumps(cache.copy()))  # noqa: S301
    twin.select([1])
    assert twin.nbytes == cache.nbytes // B


def test_it_tells_what_it_is():
    cache = empty(window=2)
    cache.append(Z((1, 2, 1, 4)), Z((1, 2, 1, 4)))

    assert repr(cache) == (
        "KVCache(batch=1, kv_heads=2, slots=2, head_dim=4, value_dim=4, length=1, dtype=float64)"
    )


def test_a_window_takes_the_place_of_the_capacity():
    cache = empty(capacity=np.int64(3), window=2)

    assert cache.nbytes == 1 * 2 * 2 * (4 + 4) * 8
    assert cache._k.shape[2] == 2
