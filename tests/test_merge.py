"""merge() of parts of the keys is attention to all of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_attention import qkv, tensors

import attncore as ac

Tk = 12


def parts_of(inputs, ends, mask, **options):
    """Return the outputs, and the log-sum-exps, of attention to stretches of the keys."""
    q, k, v = inputs
    found = []
    for start, stop in zip([0, *ends], [*ends, Tk], strict=True):
        keys = slice(start, stop)
        found.append(
            ac.attention(
                q, k[..., keys, :], v[..., keys, :], mask[..., keys], return_lse=True, **options
            )
        )
    return [out for out, _ in found], [lse for _, lse in found]


@given(
    st.lists(st.integers(0, Tk), max_size=6).map(sorted),
    st.floats(0, 1),
    st.sampled_from(["numpy", "torch"]),
    st.sampled_from([None, 1.5]),
    st.booleans(),
)
def test_any_split_is_the_whole(ends, share, library, softcap, stacked):
    q, k, v = qkv((6, 3), (5, Tk))
    mask = np.random.default_rng(len(ends)).random((5, Tk)) < share
    inputs, xp = (q, k, v), np
    if library == "torch":
        inputs, mask, xp = tensors(q, k, v), torch.from_numpy(mask), torch
    outs, lses = parts_of(inputs, ends, mask, softcap=softcap)
    if stacked:
        outs, lses = xp.stack(outs), xp.stack(lses)
    out, lse = ac.merge(outs, lses)
    wanted, whole = ac.attention(*inputs, mask, softcap=softcap, return_lse=True)

    assert type(out) is type(inputs[0])
    np.testing.assert_allclose(np.asarray(out), np.asarray(wanted), rtol=0, atol=1e-13)
    np.testing.assert_allclose(np.asarray(lse), np.asarray(whole), rtol=0, atol=1e-13)


@given(st.permutations(range(4)), st.integers(1, 3))
def test_parts_may_be_merged_in_any_order_and_in_steps(order, first):
    q, k, v = qkv((3, 3), (5, Tk))
    outs, lses = parts_of((q, k, v), [2, 3, 9], np.ones((5, Tk), bool))
    outs, lses = [outs[n] for n in order], [lses[n] for n in order]
    out, lse = ac.merge(outs[:first], lses[:first])
    out, lse = ac.merge((out, *outs[first:]), (lse, *lses[first:]))

    np.testing.assert_allclose(out, ac.attention(q, k, v), rtol=0, atol=1e-13)


def test_a_sink_counts_once():
    q, k, v = qkv((3, 3), (5, Tk))
    sinks = np.array([0.5, 2.0, -1.0])
    first = ac.attention(q, k[..., :4, :], v[..., :4, :], sinks=sinks, return_lse=True)
    second = ac.attention(q, k[..., 4:, :], v[..., 4:, :], return_lse=True)
    out, lse = ac.merge(*zip(first, second, strict=True))
    wanted, whole = ac.attention(q, k, v, sinks=sinks, return_lse=True)

    np.testing.assert_allclose(out, wanted, rtol=0, atol=1e-14)
    np.testing.assert_allclose(lse, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_nothing_with_nothing_is_nothing(library):
    out, lse = np.zeros((2, 3, 4)), np.full((2, 3), -math.inf)
    if library == "torch":
        out, lse = tensors(out, lse, grad=True)
    merged, both = ac.merge([out, out], [lse, lse])

    assert (merged == 0).all()
    assert (both == -math.inf).all()
    if library == "torch":
        torch.where(both == -math.inf, 0.0, both).sum().backward(retain_graph=True)
        merged.sum().backward()
        assert (out.grad == 0).all()
        assert (lse.grad == 0).all()


def test_lses_far_apart_do_not_overflow():
    out, lse = ac.merge([np.ones((3, 1)), np.zeros((3, 1))], [[1e4, 0, -1e4], [0, 1e4, -1e4]])

    assert out[:, 0].tolist() == [1, 0, 0.5]
    assert np.allclose(lse, [1e4, 1e4, -1e4 + math.log(2)])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradients_are_right(count):
    generator = torch.Generator().manual_seed(0)
    outs, lses = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
        for shape in ((2, 3, 4), (2, 3))
    )
    lses[0][0, 1] = -math.inf
    leaves = [x.requires_grad_() for x in outs]

    def run(*outs):
        return ac.merge(outs[:count], outs[count:])

    assert torch.autograd.gradcheck(lambda *outs: ac.merge(outs, lses)[0], leaves)
    finite = [torch.where(x == -math.inf, 1.0, x).requires_grad_() for x in lses]
    assert torch.autograd.gradcheck(run, (*leaves, *finite))
    assert torch.autograd.gradgradcheck(run, (*leaves, *finite))
    for lse in lses:
        lse.requires_grad_()
    ac.merge(leaves, lses)[0].sum().backward()
    assert all(x.grad.isfinite().all() for x in (*leaves, *lses))


def test_gradients_of_a_merge_are_those_of_the_whole():
    inputs = tensors(*qkv((6, 3), (5, Tk)), grad=True)
    mask = torch.ones(5, Tk, dtype=torch.bool)
    mask[:, :3] = False  # the first part sees nothing
    found = ac.merge(*parts_of(inputs, [3, 7], mask))[0]
    wanted = ac.attention(*inputs, mask)

    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), inputs),
        torch.autograd.grad(wanted.square().sum(), inputs),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_summed_in_float32(dtype):
    low = [x.to(dtype) for x in tensors(*qkv((3, 3), (5, Tk)))]
    parts = parts_of(low, [5], torch.ones(5, Tk, dtype=torch.bool))
    out, lse = ac.merge(*parts)
    exact = ac.attention(*(x.double() for x in low))

    assert out.dtype == dtype
    assert lse.dtype == torch.float32
    error = (ac.attention(*low, backend="reference").double() - exact).abs().max()
    assert (out.double() - exact).abs().max() <= 2 * error
    assert (
        ac.merge(*parts_of([x.numpy() for x in low], [5], np.ones((5, Tk), bool)))[0].dtype
        == (np.float16)
        if dtype == torch.float16
        else True
    )


def test_what_is_given_keeps_its_bits():
    outs, lses = parts_of(qkv((3, 3), (5, Tk)), [5], np.ones((5, Tk), bool))
    before = [x.copy() for x in (*outs, *lses)]
    ac.merge(outs, lses)

    assert all((a == b).all() for a, b in zip(before, (*outs, *lses), strict=True))
    assert len(outs) == len(lses) == 2


OUT, LSE = np.zeros((2, 3, 4)), np.zeros((2, 3))


@pytest.mark.parametrize(
    ("outs", "lses", "error", "match"),
    [
        ([], [], ValueError, "outs is empty: give the result of one part at least"),
        ([OUT], [], ValueError, "lses is empty"),
        (
            OUT.sum(),
            [LSE],
            TypeError,
            "outs must be a list of arrays, one for each part of the keys",
        ),
        ({1.0}, [LSE], TypeError, "outs must be a list of arrays"),
        ([OUT, OUT], [LSE], ValueError, "outs and lses must be as many, .*: 2 outs, 1 lses"),
        (
            [OUT, OUT[:, :2]],
            [LSE, LSE],
            ValueError,
            r"outs must be of one shape .*: outs\[0\] \(2, 3, 4\), outs\[1\] \(2, 2, 4\)",
        ),
        (
            [OUT, OUT],
            [LSE, LSE[..., None]],
            ValueError,
            r"lses must be .*: outs\[1\] \(2, 3, 4\), lses\[1\] \(2, 3, 1\)",
        ),
        ([OUT], [torch.zeros(2, 3)], TypeError, "NumPy arrays and torch tensors do not mix"),
        (
            [OUT, OUT.astype(np.float32)],
            [LSE, LSE],
            TypeError,
            r"must share one dtype: outs\[0\] float64",
        ),
        (
            [OUT, OUT],
            [LSE, LSE.astype(np.float32)],
            TypeError,
            r"must share one dtype: lses\[0\] float64",
        ),
        ([OUT.astype(bool)], [LSE], TypeError, r"outs\[0\] must hold real numbers, got bool"),
        ([np.ma.array(OUT)], [LSE], TypeError, r"outs\[0\] is a masked array"),
        (
            torch.zeros(1, 2, 3, 4),
            torch.zeros(1, 2, 3, device="meta"),
            ValueError,
            "tensors must be on one device: outs on cpu, lses on meta",
        ),
    ],
)
def test_bad_parts_are_told(outs, lses, error, match):
    with pytest.raises(error, match=match):
        ac.merge(outs, lses)
