"""streaming_attention() is attention(), with less memory."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch

import attncore as ac

B, D, E = 2, 7, 11


def qkv(heads, lengths, seed=0):
    (H, G), (Tq, Tk) = heads, lengths
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s) for s in ((B, H, Tq, D), (B, G, Tk, D), (B, G, Tk, E))]


GRID = list(
    itertools.product(
        [(3, 3), (6, 3), (5, 1)],
        [(3, 13), (13, 13), (13, 3), (1, 13), (0, 5), (5, 0)],
        [{}, {"causal": True}, {"window": 1}, {"window": 4}, {"scale": 0.7, "causal": True}],
        [1, 3, 5, 64],
    )
)


@pytest.mark.parametrize(("heads", "lengths", "options", "block"), GRID)
def test_it_is_attention(heads, lengths, options, block):
    inputs = qkv(heads, lengths)
    tensors = [torch.from_numpy(array) for array in inputs]
    wanted = ac.attention(*inputs, **options, backend="reference")
    found = ac.streaming_attention(*inputs, **options, block=block)

    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)
    same = ac.streaming_attention(*tensors, **options, block=block)
    np.testing.assert_allclose(same.numpy(), wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 2}], ids=str)
@pytest.mark.parametrize("lengths", [(4, 6), (6, 4)])
def test_gradients(options, lengths):
    inputs = [torch.from_numpy(a).requires_grad_() for a in qkv((2, 1), lengths)]

    def run(*inputs):
        return ac.streaming_attention(*inputs, **options, block=3)

    torch.autograd.gradcheck(run, inputs)
    found = torch.autograd.grad(run(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad(ac.attention(*inputs, **options).square().sum(), inputs)
    for slope, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(slope, other)


def test_large_scores_do_not_overflow():
    q, k, v = qkv((3, 3), (5, 9))
    for sign in (1, -1):  # the largest score comes late, or early
        order = np.argsort(sign * (q[:1, :1, :1] @ k[:1, :1].swapaxes(-1, -2)).ravel())
        k, v = k[:, :, order], v[:, :, order]
        found = ac.streaming_attention(1000 * q, k, v, block=2)
        np.testing.assert_allclose(found, ac.attention(1000 * q, k, v), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sixteen_bits_are_summed_in_float32(dtype):
    exact = [torch.from_numpy(array).to(dtype) for array in qkv((3, 3), (64, 512))]
    wanted = ac.attention(*(array.double() for array in exact))
    error = (ac.streaming_attention(*exact).double() - wanted).abs().max()
    plain = (ac.attention(*exact, backend="reference").double() - wanted).abs().max()

    assert ac.streaming_attention(*exact).dtype == dtype
    assert error <= 2 * plain


def test_without_a_head_axis():
    q, k, v = (array[0, 0] for array in qkv((1, 1), (5, 9)))

    np.testing.assert_allclose(ac.streaming_attention(q, k, v, block=4), ac.attention(q, k, v))


def test_memory_does_not_grow_with_the_square():
    def peak(T):
        q, k, v = np.ones((3, 1, T, 4))
        tracemalloc.start()
        ac.streaming_attention(q, k, v)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(4096) < 3 * peak(2048)
    assert peak(4096) < 8e6  # all weights would be 134 MB


def test_inputs_keep_their_bits():
    inputs = qkv((3, 3), (5, 9))
    copies = [array.copy() for array in inputs]
    ac.streaming_attention(*inputs, causal=True, block=2)

    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"block": 0}, ValueError, "block must be at least 1, got 0"),
        ({"block": 2.0}, TypeError, "block must be an integer"),
        ({"window": 0}, ValueError, "window must be at least 1"),
        ({"scale": np.inf}, ValueError, "scale must be finite, got inf"),
        ({"v": np.ones((2, 3, 4, 11))}, ValueError, "k and v must have one row per key"),
        ({"q": np.ones((2, 3, 5, 6))}, ValueError, "queries and keys must be equally wide"),
        ({"q": torch.ones(2, 3, 5, 7)}, TypeError, "NumPy arrays and torch tensors do not mix"),
    ],
)
def test_bad_input_is_told(change, error, match):
    q, k, v = qkv((3, 3), (5, 9))

    with pytest.raises(error, match=match):
        ac.streaming_attention(**{"q": q, "k": k, "v": v, **change})
