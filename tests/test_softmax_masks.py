"""Softmax and masks: against the loop, at the limits, on both libraries."""

import itertools
import math

import numpy as np
import oracle
import pytest
import torch

import attncore as ac


def test_softmax_equals_the_loop_with_any_mask():
    rng = np.random.default_rng(0)
    scores, mask = rng.normal(size=(7, 5)), rng.random((7, 5)) < 0.5
    mask[3] = False
    expected = [oracle.softmax(row, keep) for row, keep in zip(scores, mask, strict=True)]

    assert np.allclose(ac.softmax(scores, mask), expected)
    assert np.allclose(ac.softmax(torch.from_numpy(scores), torch.from_numpy(mask)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_softmax_along_any_axis(axis):
    scores = np.random.default_rng(1).normal(size=(2, 3, 5))

    assert np.allclose(ac.softmax(scores, axis=axis).sum(axis=axis), 1)
    moved = ac.softmax(np.moveaxis(scores, axis, -1))
    assert np.allclose(np.moveaxis(moved, -1, axis), ac.softmax(scores, axis=axis))
    same = torch.softmax(torch.from_numpy(scores), dim=axis)
    assert np.allclose(ac.softmax(torch.from_numpy(scores), axis=axis), same)


def test_temperature_sharpens_and_flattens():
    scores = np.array([1.0, 2.0, 4.0])

    assert np.allclose(ac.softmax(scores, temperature=1e-3), [0, 0, 1])
    assert np.allclose(ac.softmax(scores, temperature=1e6), 1 / 3)
    assert np.allclose(ac.softmax(scores, temperature=2.0), ac.softmax(scores / 2))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("temperature", [5e-324, 1e-310, 1e-46, 1e-39, 1e-10])
def test_a_tiny_temperature_lets_the_largest_take_all(dtype, temperature):
    top = float(np.finfo(dtype).max)
    scores = np.array([[1, 2, 2, 0], [top, 0, 1, -top], [-top, -1, -top, -2]], dtype=dtype)
    expected = [[0, 0.5, 0.5, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
    tensor = torch.tensor(scores, requires_grad=True)
    weights = ac.softmax(tensor, temperature=temperature)

    assert np.array_equal(ac.softmax(scores, temperature=temperature), expected)
    assert np.array_equal(weights.detach(), expected)
    weights[1:, 0].sum().backward()
    assert (tensor.grad[1:] == 0).all()


def test_a_hidden_score_however_large_does_not_blur_the_others():
    scores, mask = np.array([1e300, 1.0, 2.0]), np.array([False, True, True])

    for xp in (np.asarray, torch.from_numpy):
        weights = ac.softmax(xp(scores), xp(mask), temperature=0.5)
        assert np.allclose(weights, [0, *oracle.softmax(scores[1:] / 0.5)])


def test_the_gradient_at_a_temperature_is_that_of_the_divided_scores():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 5, generator=generator) < 0.6
    mask[1] = False

    assert torch.autograd.gradcheck(lambda s: ac.softmax(s, mask, temperature=0.3), scores)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_large_scores_do_not_overflow_and_the_dtype_stays(dtype):
    scores = np.array([1000.0, 999.0, -1000.0], dtype=dtype)
    tensor = torch.from_numpy(scores)

    for p in (ac.softmax(scores), ac.softmax(tensor)):
        assert np.allclose(p, [0.7311, 0.2689, 0], atol=1e-3)
        assert p.dtype in (scores.dtype, tensor.dtype)
    low = ac.softmax(tensor.to(torch.bfloat16))
    assert low.dtype == torch.bfloat16


def test_minus_infinity_is_a_mask_and_nan_is_not_hidden():
    assert (ac.softmax(np.array([-math.inf, 0.0, 0.0])) == [0, 0.5, 0.5]).all()
    assert (ac.softmax(np.full(3, -math.inf)) == 0).all()
    assert (ac.softmax(torch.full((3,), -math.inf)) == 0).all()
    assert np.isnan(ac.softmax(np.array([np.nan, 0.0]))).all()
    assert (ac.softmax(np.array([np.nan, 0.0]), np.array([False, True])) == [0, 1]).all()


def test_softmax_of_nothing_is_nothing():
    assert ac.softmax(np.zeros((3, 0))).shape == (3, 0)
    assert ac.softmax(torch.zeros(3, 0)).shape == (3, 0)


def test_softmax_leaves_its_inputs_alone():
    scores, mask = np.array([1.0, 2.0]), np.array([True, False])
    ac.softmax(scores, mask, temperature=3.0)

    assert (scores == [1, 2]).all()
    assert (mask == [True, False]).all()


@pytest.mark.parametrize(("Tq", "Tk"), list(itertools.product(range(5), range(5))))
@pytest.mark.parametrize("window", [None, 1, 2, 9])
def test_causal_and_window_follow_the_rule(Tq, Tk, window):
    expected = [[oracle.sees(i, j, Tq, Tk, True, window) for j in range(Tk)] for i in range(Tq)]
    expected = np.array(expected, dtype=bool).reshape(Tq, Tk)

    assert (ac.masks.causal(Tq, Tk, window=window) == expected).all()
    like = ac.masks.causal(Tq, Tk, window=window, like=torch.zeros(1))
    assert (like.numpy() == expected).all()
    if window is not None:
        assert (ac.masks.window(Tq, Tk, size=window) == expected).all()


def test_causal_of_one_length_is_square():
    assert (ac.masks.causal(4) == np.tril(np.ones((4, 4), dtype=bool))).all()


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor])
def test_padding_masks_by_length(convert):
    mask = ac.masks.padding(convert([0, 2, 3]), 3)
    expected = [[False] * 3, [True, True, False], [True] * 3]

    assert tuple(mask.shape) == (3, 1, 1, 3)
    assert (np.asarray(mask)[:, 0, 0] == expected).all()
    assert isinstance(mask, torch.Tensor) == (convert is torch.tensor)


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def test_padding_before_the_keys():
    for lengths in ([0, 2, 3], np.array([0, 2, 3]), torch.tensor([0, 2, 3])):
        mask = ac.masks.padding(lengths, 3, left=True)
        assert np.asarray(mask)[:, 0, 0].tolist() == [[0, 0, 0], [0, 1, 1], [1, 1, 1]]
        assert mask.shape == (3, 1, 1, 3)
    assert (ac.masks.padding([2, 4], 4, left=True)[..., ::-1] == ac.masks.padding([2, 4], 4)).all()
    with pytest.raises(ValueError, match=r"lengths must lie in 0 to Tk = 3, got \[4\]"):
        ac.masks.padding([4], 3, left=True)
    with pytest.raises(TypeError, match="left must be True or False, got int"):
        ac.masks.padding([2], 3, left=1)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("Tk", [100, 300, 70_000])
def test_padding_takes_any_integer_and_any_number_of_keys(dtype, Tk):
    lengths = np.array([3, 100, 0], dtype=dtype)
    expected = np.arange(Tk) < np.array([[3], [100], [0]])

    for given in (lengths, torch.from_numpy(lengths)):
        assert (np.asarray(ac.masks.padding(given, Tk))[:, 0, 0] == expected).all()


def test_no_sequences_need_no_mask_rows():
    assert ac.masks.padding(np.zeros(0, dtype=int), 3).shape == (0, 1, 1, 3)


@pytest.mark.parametrize("window", [5, 2**63, 10**30])
@pytest.mark.parametrize("like", [None, torch.zeros(1)])
def test_a_window_may_be_larger_than_any_integer_of_the_library(window, like):
    masks = [ac.masks.causal(2, 5, window=w, like=like) for w in (window, None)]

    assert (masks[0] == masks[1]).all()


def test_combine_is_and_and_skips_none():
    causal, padding = ac.masks.causal(3), ac.masks.padding([2, 3], 3)

    assert ac.masks.combine() is None
    assert ac.masks.combine(None, None) is None
    assert ac.masks.combine(None, causal) is causal
    assert (ac.masks.combine(causal, padding) == (causal & padding)).all()
