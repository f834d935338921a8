"""Patterns for long sequences, attention that follows them, and linear attention."""

import itertools
import math
import tracemalloc

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attncore as ac
from attncore.masks.patterns import draw

B, D, E = 2, 7, 11
masks = ac.masks


def qkv(heads, T, seed=0):
    H, G = heads
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s) for s in ((B, H, T, D), (B, G, T, D), (B, G, T, E))]


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def pattern(T, window, global_tokens=(), random_keys=0, seed=0, causal=False):
    """The same limits as a mask, by a loop."""
    drawn = masks.random_keys(T, count=random_keys, seed=seed)
    mask = np.zeros((T, T), dtype=bool)
    for i, j in np.ndindex(T, T):
        near = i - window < j <= i if causal else abs(i - j) <= (window - 1) / 2
        wide = i in global_tokens or j in global_tokens
        mask[i, j] = (near or wide or drawn[i, j]) and (j <= i or not causal)
    return mask


# Masks.


@pytest.mark.parametrize(("Tq", "Tk"), list(itertools.product((0, 1, 2, 5), repeat=2)))
@pytest.mark.parametrize("like", [None, torch.zeros(1)])
def test_the_patterns_follow_their_rules(Tq, Tk, like):
    for size in (1, 3, 9, 10**30 + 1):
        near = masks.symmetric_window(Tq, Tk, size=size, like=like)
        rule = [[abs(Tk - Tq + i - j) <= size // 2 for j in range(Tk)] for i in range(Tq)]
        assert (np.asarray(near) == np.array(rule, dtype=bool).reshape(Tq, Tk)).all()
    for tokens in ([], [0], [3, 1, 3]):
        if max(tokens, default=-1) < Tk:
            wide = masks.global_tokens(Tq, Tk, tokens=tokens, like=like)
            rule = [[j in tokens or Tk - Tq + i in tokens for j in range(Tk)] for i in range(Tq)]
            assert (np.asarray(wide) == np.array(rule, dtype=bool).reshape(Tq, Tk)).all()
    for count in range(Tk + 1):
        drawn = masks.random_keys(Tq, Tk, count=count, like=like)
        assert tuple(drawn.shape) == (Tq, Tk)
        assert (np.asarray(drawn).sum(axis=1) == count).all()
        assert isinstance(drawn, torch.Tensor) == (like is not None)


def test_one_seed_draws_the_same_keys_for_both_libraries():
    one, two = (masks.random_keys(11, 13, count=3, seed=s) for s in (1, 2))

    assert (one == masks.random_keys(11, 13, count=3, seed=1, like=torch.ones(1)).numpy()).all()
    assert (one != two).any()


def test_every_set_of_keys_is_equally_likely():
    drawn = np.sort(draw(20_000, 5, 2, seed=0), axis=1)
    counts = [(drawn == pair).all(axis=1).sum() for pair in itertools.combinations(range(5), 2)]

    assert sum(counts) == 20_000
    assert max(abs(np.array(counts) - 2000)) < 5 * math.sqrt(2000 * 0.9)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: masks.symmetric_window(5, size=4), ValueError, "must be odd.*got 4: take 3 or 5"),
        (lambda: masks.symmetric_window(5, size=-1), ValueError, "window must be at least 1"),
        (lambda: masks.symmetric_window(5, size=3.0), TypeError, "window must be an integer"),
        (lambda: masks.symmetric_window(-1, size=3), ValueError, "Tq must not be negative"),
        (lambda: masks.global_tokens(5, tokens=[5]), ValueError, "must lie in 0 to 4, got 5"),
        (lambda: masks.global_tokens(5, tokens=[-1]), ValueError, "must lie in 0 to 4, got -1"),
        (lambda: masks.global_tokens(0, tokens=[0]), ValueError, "there are no keys"),
        (lambda: masks.global_tokens(5, tokens=0), TypeError, r"got int: write \[0\] for the"),
        (lambda: masks.global_tokens(5, tokens=[True]), TypeError, "global token must be an int"),
        (lambda: masks.random_keys(5, 3, count=4), ValueError, "number of keys, 3, got 4"),
        (lambda: masks.random_keys(5, count=-1), ValueError, "count must not be negative"),
        (lambda: masks.random_keys(5, count=1, seed=-1), ValueError, "seed must not be negative"),
        (lambda: masks.random_keys(5, count=1.0), TypeError, "count must be an integer"),
    ],
)
def test_bad_patterns_are_told(call, error, match):
    with pytest.raises(error, match=match):
        call()


# Sparse attention.

PATTERNS = [
    {"window": 1},
    {"window": 5},
    {"window": 3, "global_tokens": [0]},
    {"window": 3, "global_tokens": [4, 1, 4], "random_keys": 3},
    {"window": 1, "random_keys": 5, "seed": 8},
    {"window": 10**30 + 1},
    {"window": 3, "global_tokens": range(13), "random_keys": 13},
]


@pytest.mark.parametrize("heads", [(3, 3), (6, 3), (5, 1)])
@pytest.mark.parametrize("options", PATTERNS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("T", [13, 149])  # one block; several, the last one short
def test_sparse_is_attention_under_the_mask(heads, options, causal, T):
    inputs = qkv(heads, T)
    mask = pattern(T, causal=causal, **options)
    wanted = ac.attention(*inputs, mask, scale=0.6)
    found = ac.sparse_attention(*inputs, **options, causal=causal, scale=0.6)
    same = ac.sparse_attention(*tensors(inputs), **options, causal=causal, scale=0.6)

    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(same.numpy(), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_sparse_is_the_loop(causal):
    options = {"window": 4 if causal else 5, "global_tokens": [2], "random_keys": 2, "seed": 1}
    inputs = qkv((4, 2), 13)
    wanted = oracle.attention(*inputs, mask=pattern(13, causal=causal, **options))
    found = ac.sparse_attention(*inputs, **options, causal=causal)

    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_the_masks_join_to_the_same_pattern():
    T, options = 29, {"window": 5, "global_tokens": [0, 7], "random_keys": 2, "seed": 3}
    joined = (
        masks.symmetric_window(T, size=5)
        | masks.global_tokens(T, tokens=[0, 7])
        | masks.random_keys(T, count=2, seed=3)
    )

    assert (joined == pattern(T, **options)).all()


@pytest.mark.parametrize("causal", [False, True])
def test_sparse_gradients(causal):
    inputs = [t.requires_grad_() for t in tensors(qkv((2, 1), 7))]
    options = {"window": 3, "global_tokens": [0, 3], "random_keys": 2}

    def run(*inputs):
        return ac.sparse_attention(*inputs, **options, causal=causal)

    torch.autograd.gradcheck(run, inputs)
    inputs = [t.requires_grad_() for t in tensors(qkv((2, 1), 149))]
    mask = torch.from_numpy(pattern(149, causal=causal, **options))
    found = torch.autograd.grad(run(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad(ac.attention(*inputs, mask).square().sum(), inputs)
    for slope, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(slope, other)


@pytest.mark.parametrize("function", ["sparse", "linear"])
def test_what_cannot_be_seen_does_not_matter(function):
    q, k, v = qkv((3, 3), 149)
    changed = [array.copy() for array in (q, k, v)]
    for array in changed:
        array[:, :, 100:] = 1e3

    def run(*arrays):
        if function == "linear":
            return ac.linear_attention(*arrays, causal=True)
        return ac.sparse_attention(*arrays, window=9, global_tokens=[2, 120], causal=True)

    before, after = run(q, k, v), run(*changed)
    np.testing.assert_array_equal(before[:, :, :64], after[:, :, :64])
    np.testing.assert_allclose(before[:, :, :100], after[:, :, :100], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", ["sparse", "linear"])
def test_sixteen_bits_are_summed_in_float32(dtype, function):
    def run(inputs):
        if function == "linear":
            return ac.linear_attention(*inputs, causal=True)
        return ac.sparse_attention(*inputs, window=33, global_tokens=[0], random_keys=3)

    exact = [t.to(dtype) for t in tensors(qkv((3, 3), 256))]
    found, wanted = run(exact), run([t.double() for t in exact])

    assert found.dtype == dtype
    # Half a unit in the last place of the result, and a little for the sums.
    assert (found.double() - wanted).abs().max() <= 2 * torch.finfo(dtype).eps * wanted.abs().max()


def test_memory_grows_with_the_length():
    def peak(run, T):
        q, k, v = np.ones((3, 1, T, 4))
        tracemalloc.start()
        run(q, k, v)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    def sparse(q, k, v):
        return ac.sparse_attention(q, k, v, window=65, global_tokens=[0], random_keys=3)

    def linear(q, k, v):
        return ac.linear_attention(q, k, v, causal=True)

    for run in (sparse, linear):
        assert peak(run, 8192) < 2.5 * peak(run, 4096)
        assert peak(run, 8192) < 6e6  # all weights would be 537 MB


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (1, 2, 3, 5, 4)])
def test_any_leading_axes(shape):
    q, k, v = np.random.default_rng(1).normal(size=(3, *shape))
    flat = [array.reshape(-1, 5, 4) for array in (q, k, v)]
    mask = pattern(5, window=3, global_tokens=[1], random_keys=1)
    found = ac.sparse_attention(q, k, v, window=3, global_tokens=[1], random_keys=1)

    np.testing.assert_allclose(found, ac.attention(*flat, mask).reshape(shape))
    for causal in (False, True):
        linear = ac.linear_attention(*flat, causal=causal).reshape(shape)
        np.testing.assert_allclose(ac.linear_attention(q, k, v, causal=causal), linear)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_no_tokens_give_no_rows(convert):
    q, k, v = (convert(array) for array in qkv((6, 3), 0))

    assert tuple(ac.sparse_attention(q, k, v, window=3).shape) == (B, 6, 0, E)
    assert tuple(ac.linear_attention(q, k, v, causal=True).shape) == (B, 6, 0, E)
    some = convert(qkv((6, 3), 4)[0])
    assert (ac.linear_attention(some, k, v) == 0).all()


def test_inputs_keep_their_bits():
    inputs = qkv((3, 3), 9)
    copies = [array.copy() for array in inputs]
    ac.sparse_attention(*inputs, window=3, global_tokens=[1], random_keys=2)
    ac.linear_attention(*inputs, causal=True)

    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"window": 4}, ValueError, "a symmetric window must be odd"),
        ({"window": 0, "causal": True}, ValueError, "window must be at least 1"),
        ({"window": 3.0}, TypeError, "window must be an integer"),
        ({"global_tokens": [9]}, ValueError, "a global token must lie in 0 to 8, got 9"),
        ({"global_tokens": 3}, TypeError, "global tokens must be a list of positions, got int"),
        ({"random_keys": 10}, ValueError, "random_keys must be at most the number of keys, 9"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
        ({"scale": np.nan}, ValueError, "scale must be finite"),
        ({"q": np.ones((2, 3, 5, 7))}, ValueError, "must be equally many: q .2, 3, 5, 7.*KVCache"),
        ({"v": np.ones((2, 3, 4, 11))}, ValueError, "k and v must have one row per key"),
        ({"q": torch.ones(2, 3, 9, 7)}, TypeError, "NumPy arrays and torch tensors do not mix"),
    ],
)
def test_bad_input_of_sparse_is_told(change, error, match):
    q, k, v = qkv((3, 3), 9)

    with pytest.raises(error, match=match):
        ac.sparse_attention(**{"q": q, "k": k, "v": v, "window": 3, **change})


# Linear attention.


def phi(x):
    return x + 1 if x > 0 else math.exp(x)


def linear_loop(q, k, v, causal):
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    each = q.shape[1] // k.shape[1]
    for b, h, i in np.ndindex(*q.shape[:3]):
        total, g = 0.0, h // each
        for j in range(i + 1 if causal else k.shape[2]):
            pairs = zip(q[b, h, i], k[b, g, j], strict=True)
            weight = sum(phi(x) * phi(y) for x, y in pairs)
            total += weight
            out[b, h, i] += weight * v[b, g, j]
        out[b, h, i] /= total
    return out


@pytest.mark.parametrize("heads", [(3, 3), (6, 3), (5, 1)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("block", [1, 3, 64])
def test_linear_is_the_quadratic_loop(heads, causal, block):
    inputs = qkv(heads, 13)
    wanted = linear_loop(*inputs, causal)
    found = ac.linear_attention(*inputs, causal=causal, block=block)
    same = ac.linear_attention(*tensors(inputs), causal=causal, block=block)

    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)
    np.testing.assert_allclose(same.numpy(), wanted, rtol=0, atol=1e-13)


@given(scale=st.floats(0.1, 300), seed=st.integers(0, 99))
def test_linear_stays_within_the_values(scale, seed):
    q, k, v = qkv((3, 3), 5, seed)
    out = ac.linear_attention(scale * q, scale * k, v, causal=True)

    assert (out <= np.maximum.accumulate(v, axis=2) + 1e-9).all()
    assert (out >= np.minimum.accumulate(v, axis=2) - 1e-9).all()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "low"), [(np.float32, 110), (np.float64, 800)])
def test_linear_survives_what_is_negative_throughout(convert, causal, dtype, low):
    """exp(-low) is 0, but it cancels: -low on all of them gives the weights of 0 on all."""
    q, k, v = (np.round(array, 2) for array in qkv((2, 2), 5))
    q, k = -abs(q), -abs(k)
    wanted = linear_loop(
        q - q.max(axis=-1, keepdims=True), k - k.max(axis=(-2, -1), keepdims=True), v, causal
    )
    for queries, keys in ((q - low, k), (q, k - low), (q - low, k - low)):
        inputs = [convert(array.astype(dtype)) for array in (queries, keys, v)]
        found = ac.linear_attention(*inputs, causal=causal, block=2)
        np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_linear_weights_that_underflow_give_nan(convert):
    far = np.array([[-900.0, -900.0], [0.0, 0.0]])
    v = convert(np.ones((2, 3)))
    causal = ac.linear_attention(convert(far), convert(far), v, causal=True, block=1)
    apart = convert(np.array([[0.0, -900.0]])), convert(np.array([[-900.0, 0.0]]))
    lost = ac.linear_attention(*apart, v[:1])
    digits = ac.linear_attention(apart[0] * 0.8, apart[1] * 0.8, v[:1])  # 1e-313 twice

    assert np.isnan(np.asarray(causal[0])).all()  # its only key is 900 below the largest
    assert (np.asarray(causal[1]) == 1).all()
    assert np.isnan(np.asarray(lost)).all()
    assert np.isnan(np.asarray(digits)).all()


@pytest.mark.parametrize("causal", [False, True])
def test_linear_gradients(causal):
    inputs = [t.requires_grad_() for t in tensors(qkv((2, 1), 5))]

    def run(*inputs):
        return ac.linear_attention(*inputs, causal=causal, block=2)

    torch.autograd.gradcheck(run, inputs)
    low = [(t.detach() - 800).requires_grad_() for t in inputs[:2]]
    torch.autograd.gradcheck(run, [*low, inputs[2]])
    large = [1000 * t.detach() for t in inputs[:2]]
    slopes = [t.requires_grad_() for t in large]
    run(*slopes, inputs[2]).sum().backward()
    assert all(t.grad.isfinite().all() for t in slopes)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"block": 0}, ValueError, "block must be at least 1, got 0"),
        ({"block": 2.0}, TypeError, "block must be an integer"),
        ({"q": np.ones((2, 3, 5, 7))}, ValueError, "as many queries as keys: q .2, 3, 5, 7"),
        ({"v": np.ones((2, 3, 4, 11))}, ValueError, "k and v must have one row per key"),
        ({"q": np.ones((2, 3, 9, 6))}, ValueError, "queries and keys must be equally wide"),
        ({"q": torch.ones(2, 3, 9, 7)}, TypeError, "NumPy arrays and torch tensors do not mix"),
    ],
)
def test_bad_input_of_linear_is_told(change, error, match):
    q, k, v = qkv((3, 3), 9)

    with pytest.raises(error, match=match):
        ac.linear_attention(**{"q": q, "k": k, "v": v, "causal": True, **change})
