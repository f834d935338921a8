"""Every error: the right kind, and a message that names the axis, the shapes and the fix."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import attncore as ac
from attncore import draw, plot
from attncore.exercises import check

SOURCE = Path(ac.__file__).parent
Z = np.zeros
TRUE = np.ones((3, 5), dtype=bool)
BATCH = Z((2, 1, 3, 4))
VIT = {"layers": 2, "d_model": 8, "heads": 2, "classes": 3}


def case(call, kind, message):
    return pytest.param(call, kind, message, id=message[:60])


ARRAYS = [
    case(lambda: ac.attention(Z((3, 2)), torch.zeros(5, 2), Z((5, 2))), TypeError,
         "NumPy arrays and torch tensors do not mix: q, v NumPy, k torch"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2), "f4"), Z((5, 2))), TypeError,
         "arrays must share one dtype: q float64, k float32, v float64; convert with a.astype"),
    case(lambda: ac.scores.dot(torch.zeros(3, 2), torch.zeros(5, 2).double()), TypeError,
         "q float32, k float64; convert with t.to(dtype)"),
    case(lambda: ac.softmax(np.array([True])), TypeError, "must hold real numbers, got bool"),
    case(lambda: ac.softmax(np.array([1j])), TypeError, "must hold real numbers, got complex128"),
    case(lambda: ac.softmax(["a"]), TypeError, "scores must hold real numbers, got"),
    case(lambda: ac.softmax([[1], [2, 3]]), TypeError, "scores cannot be read as an array"),
    case(lambda: ac.softmax(np.ma.masked_array([1.0], [True])), TypeError,
         "scores is a masked array, whose mask would be lost; pass mask= instead"),
    case(lambda: ac.softmax(torch.zeros(2, 2).to(torch.float8_e4m3fn)), TypeError,
         "scores is float8_e4m3fn, with which nothing is computed; use scores.float()"),
    case(lambda: ac.softmax(torch.nested.as_nested_tensor(
            [torch.zeros(2), torch.zeros(3)], layout=torch.jagged)), TypeError,
         "scores must be dense, got a nested tensor; use scores.to_padded_tensor(value)"),
    case(lambda: ac.softmax(torch.zeros(2, 2), torch.eye(2).bool().to_sparse()), TypeError,
         "mask must be dense, got torch.sparse_coo; use mask.to_dense()"),
    case(lambda: ac.images.patches(np.ma.masked_array(Z((2, 2, 1))), 2), TypeError,
         "images is a masked array, whose mask would be lost"),
    case(lambda: ac.sampling.probabilities(torch.zeros(3, device="meta")), ValueError,
         "logits is on meta, a device that holds shapes but no numbers"),
    case(lambda: ac.sampling.accept(Z((3, 5)) + 1, Z((3, 5)) + 1, Z(2, int), Z(3)), ValueError,
         "draft must be (2, 5), for target (..., n + 1, N) = (3, 5), got (3, 5)"),
    case(lambda: ac.sampling.accept(Z((2, 5)) + 1, Z((1, 5)) + 1, Z(1), Z(2)), TypeError,
         "drafted must be integers, got float64"),
    case(lambda: ac.softmax(torch.zeros(2, 2).to_sparse()), TypeError,
         "scores must be dense, got torch.sparse_coo; use scores.to_dense()"),
    case(lambda: ac.attention(torch.zeros(3, 2), torch.zeros(5, 2, device="meta"),
                              torch.zeros(5, 2)), ValueError,
         "tensors must be on one device: q on cpu, k on meta, v on cpu; move them with .to"),
]  # fmt: skip

ATTENTION = [
    case(lambda: ac.attention(Z((1, 3, 8)), Z((1, 5, 8)), Z((1, 6, 8))), ValueError,
         "k and v must have one row per key: k (1, 5, 8), v (1, 6, 8)"),
    case(lambda: ac.attention(Z((6, 3, 8)), Z((4, 5, 8)), Z((4, 5, 8))), ValueError,
         "query heads (6) must be a multiple of key/value heads (4): q (6, 3, 8), k (4, 5, 8)"),
    case(lambda: ac.attention(Z((3, 3, 8)), Z((0, 5, 8)), Z((0, 5, 8))), ValueError,
         "must be a multiple of key/value heads (0)"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 4)), Z((5, 4))), ValueError,
         "queries and keys must be equally wide (last axis D): q (3, 2), k (5, 4)"),
    case(lambda: ac.attention(Z((3, 0)), Z((5, 0)), Z((5, 4))), ValueError,
         "need at least one feature (last axis D): q (3, 0), k (5, 0)"),
    case(lambda: ac.attention(Z(3), Z((5, 3)), Z((5, 3))), ValueError,
         "must both be (..., T, D) with the same number of axes: q (3,), k (5, 3); add one"),
    case(lambda: ac.attention(Z((2, 1, 3, 8)), Z((3, 1, 5, 8)), Z((3, 1, 5, 8))), ValueError,
         "axes before the heads must be equal: q (2, 1, 3, 8), k (3, 1, 5, 8); repeat the smaller"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((1, 5, 2))), ValueError,
         "k and v must have the same number of axes: k (5, 2), v (1, 5, 2)"),
    case(lambda: ac.attention(Z((4, 3, 2)), Z((4, 5, 2)), Z((2, 5, 2))), ValueError,
         "k and v must have the same heads and leading axes: k (4, 5, 2), v (2, 5, 2)"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), backend="fast"), ValueError,
         "backend must be one of auto, reference, fused, got 'fast'"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), backend="fused"), ValueError,
         "backend 'fused' cannot be used: the arrays are NumPy; use backend='auto'"),
    case(lambda: ac.attention(torch.zeros(3, 2), torch.zeros(0, 2), torch.zeros(0, 2),
                              backend="fused"), ValueError,
         "an axis is empty: q (3, 2), k (0, 2)"),
    case(lambda: ac.attention(*torch.zeros(3, 5, 2), bias=torch.zeros(5, 5, requires_grad=True),
                              backend="fused"), ValueError, "it has no gradient for the bias"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=np.inf), ValueError,
         "scale must be finite, got inf"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=[0.1]), TypeError,
         "scale must be a number, got list"),
    case(lambda: ac.attention_weights(Z((3, 2)), Z((5, 2)), scale="a"), TypeError,
         "scale must be a number, got str"),
    case(lambda: ac.streaming_attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=True), TypeError,
         "scale must be a number, got bool"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=np.array(1j)), TypeError,
         "scale must hold real numbers, got complex128"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=Z((6, 1, 1))), ValueError,
         "scale must be one number, got (6, 1, 1); for one per head or feature multiply q by it"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), scale=torch.tensor(0.5)), TypeError,
         "NumPy arrays and torch tensors do not mix: q NumPy, scale torch"),
    case(lambda: ac.attention(*torch.zeros(3, 5, 2), scale=torch.tensor(0.5, device="meta")),
         ValueError, "tensors must be on one device: scale on meta, q on cpu"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), window=0), ValueError,
         "window must be at least 1 (a query sees itself), got 0"),
    case(lambda: ac.attention_weights(Z((3, 2)), Z((5, 2)), window=1.5), TypeError,
         "window must be an integer, got float"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), TRUE.astype(float)), TypeError,
         "mask must be boolean (True = attend), got float64; turn 0/1 numbers into mask != 0"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), [[True] * 5] * 3), TypeError,
         "mask must be a boolean array (True = attend), got list"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), TRUE[:, :4]), ValueError,
         "mask (3, 4) does not broadcast to the scores (3, 5), which are (..., H, Tq, Tk)"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), TRUE[None]), ValueError,
         "mask (1, 3, 5) does not broadcast to the scores (3, 5)"),
    case(lambda: ac.attention(Z((2, 1, 3, 8)), Z((2, 1, 5, 8)), Z((2, 1, 5, 8)), TRUE[:2]),
         ValueError, "a padding mask is (B, 1, 1, Tk): use masks.padding(lengths, Tk)"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), torch.ones(3, 5).bool()), TypeError,
         "NumPy arrays and torch tensors do not mix: scores NumPy, mask torch"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), bias=TRUE), TypeError,
         "bias must be numbers to add, got bool; pass a boolean array as mask="),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), bias=1.0), TypeError,
         "bias must be an array, got float"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), bias=Z((3, 5), complex)), TypeError,
         "bias must hold real numbers, got complex128"),
    case(lambda: ac.attention_weights(Z((3, 2)), Z((5, 2)), bias=Z((3, 5), "U3")), TypeError,
         "bias must hold real numbers, got <U3"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), bias=Z((3, 5), "M8[s]")), TypeError,
         "bias must hold real numbers, got datetime64[s]"),
    case(lambda: ac.attention(*torch.zeros(3, 5, 2), bias=torch.zeros(5, 5, dtype=torch.cfloat)),
         TypeError, "bias must hold real numbers, got complex64"),
    case(lambda: ac.attention(*torch.zeros(3, 5, 2), bias=torch.zeros(5, 5).to_sparse()), TypeError,
         "bias must be dense, got torch.sparse_coo; use bias.to_dense()"),
    case(lambda: ac.attention(*torch.zeros(3, 5, 2), torch.ones(5, 5).bool().to_sparse()),
         TypeError, "mask must be dense, got torch.sparse_coo; use mask.to_dense()"),
    case(lambda: ac.attention(Z((3, 2)), Z((5, 2)), Z((5, 2)), bias=Z((4, 5))), ValueError,
         "bias (4, 5) does not broadcast to the scores (3, 5)"),
]  # fmt: skip

SOFTMAX_AND_MASKS = [
    case(lambda: ac.softmax([1.0], temperature=0), ValueError,
         "temperature must be positive and finite, got 0"),
    case(lambda: ac.softmax([1.0], temperature="a"), TypeError,
         "temperature must be a number, got str"),
    case(lambda: ac.softmax([1.0], temperature=torch.ones(())), TypeError,
         "temperature must be a number, got Tensor"),
    case(lambda: ac.softmax([1.0], temperature=True), TypeError,
         "temperature must be a number, got bool"),
    case(lambda: ac.softmax([1.0], temperature=10**400), ValueError,
         "temperature must be positive and finite, got 1000"),
    case(lambda: ac.softmax(Z((2, 3)), axis=None), TypeError,
         "axis must be an integer, got NoneType"),
    case(lambda: ac.softmax(Z((2, 3)), axis=2), ValueError,
         "axis 2 does not exist in scores of shape (2, 3)"),
    case(lambda: ac.softmax(1.0), ValueError, "axis -1 does not exist in scores of shape ()"),
    case(lambda: ac.masks.causal(-1), ValueError, "Tq must not be negative, got -1"),
    case(lambda: ac.masks.causal(2, 2.5), TypeError, "Tk must be an integer, got float"),
    case(lambda: ac.masks.causal(True), TypeError, "Tq must be an integer, got bool"),
    case(lambda: ac.masks.window(2, size=0), ValueError, "window must be at least 1"),
    case(lambda: ac.attention(BATCH, BATCH, BATCH, lengths=[1, 4]), ValueError,
         "lengths must lie in 0 to Tk = 3, got [1, 4]"),
    case(lambda: ac.attention(BATCH, BATCH, BATCH, lengths=np.array([-1, 3])), ValueError,
         "lengths must lie in 0 to Tk = 3, got [-1, 3]"),
    case(lambda: ac.attention(BATCH, BATCH, BATCH, lengths=[1, 2.0]), TypeError,
         "a length must be an integer, got float"),
    case(lambda: ac.attention(BATCH, BATCH, BATCH, lengths=[3]), ValueError,
         "lengths must hold one number per sequence, 2, got 1"),
    case(lambda: ac.attention_weights(BATCH[0], BATCH[0], lengths=[3]), ValueError,
         "lengths needs a batch, q (B, H, Tq, D), got q (1, 3, 4); use mask= otherwise"),
    case(lambda: ac.masks.padding([1.0], 3), TypeError, "lengths must be integers, got float64"),
    case(lambda: ac.masks.padding([], 3), TypeError,
         "lengths is empty and so has no dtype: give one integer per sequence, or np.zeros(0, "),
    case(lambda: ac.masks.padding(torch.tensor([1, 200], dtype=torch.uint8), 100), ValueError,
         "lengths must lie in 0 to Tk = 100, got [1, 200]"),
    case(lambda: ac.masks.padding(np.array([2**64 - 1], dtype=np.uint64), 3), ValueError,
         "lengths must lie in 0 to Tk = 3, got [18446744073709551615]"),
    case(lambda: ac.masks.padding([[1]], 3), ValueError, "lengths must be (B,), got (1, 1)"),
    case(lambda: ac.masks.padding([1, 4], 3), ValueError,
         "lengths must lie in 0 to Tk = 3, got [1, 4]"),
    case(lambda: ac.masks.combine(TRUE, Z(5)), TypeError,
         "mask 1 must be boolean (True = attend), got float64"),
    case(lambda: ac.masks.combine(True), TypeError,
         "mask 0 must be a boolean array (True = attend), got bool"),
    case(lambda: ac.masks.combine(TRUE, TRUE[:2]), ValueError,
         "masks do not broadcast together: (3, 5), (2, 5)"),
    case(lambda: ac.masks.combine(TRUE, torch.ones(3, 5).bool()), TypeError, "do not mix"),
]  # fmt: skip

SCORES_AND_REGRESSION = [
    case(lambda: ac.scores.dot(Z(3), Z((2, 3))), ValueError, "q and k must be (..., T, D): q (3,)"),
    case(lambda: ac.scores.cosine(Z((2, 3)), Z((2, 4))), ValueError,
         "must be equally wide, at least 1 (last axis D): q (2, 3), k (2, 4)"),
    case(lambda: ac.scores.dot(Z((2, 2, 3)), Z((3, 2, 3))), ValueError,
         "the leading axes of q and k do not broadcast: q (2, 2, 3), k (3, 2, 3)"),
    case(lambda: ac.scores.bilinear(Z((2, 3)), Z((2, 4)), Z((4, 3))), ValueError,
         "W must be (Dq, Dk) = (3, 4), got (4, 3): q (2, 3), k (2, 4)"),
    case(lambda: ac.scores.additive(Z((2, 3)), Z((2, 4)), Z((3, 5)), Z((4, 6)), Z(5)), ValueError,
         "Wq, Wk and w must be (3, N), (4, N) and (N,): Wq (3, 5), Wk (4, 6), w (5,)"),
    case(lambda: ac.scores.neg_sq_distance(Z((2, 3)), Z((2, 3)), bandwidth=-1), ValueError,
         "bandwidth must be positive and finite, got -1"),
    case(lambda: ac.kernel_weights([0.0], [0.0], bandwidth=np.nan), ValueError,
         "bandwidth must be positive and finite, got nan"),
    case(lambda: ac.kernel_weights([0.0], [0.0], kernel="cosine", bandwidth=1), ValueError,
         "kernel must be one of gaussian, boxcar, epanechnikov, triangular, inverse_distance, got"),
    case(lambda: ac.kernel_weights(Z(3), Z((3, 1)), bandwidth=1), ValueError,
         "x and x_train must both be (n,) or both (n, D): x (3,), x_train (3, 1)"),
    case(lambda: ac.kernel_weights(Z((3, 2)), Z((3, 1)), bandwidth=1), ValueError,
         "equally many features (axis 1): x (3, 2), x_train (3, 1)"),
    case(lambda: ac.kernel_weights(Z(3), Z(0), bandwidth=1), ValueError,
         "there must be at least one known point: x (3,), x_train (0,)"),
    case(lambda: ac.nadaraya_watson(Z(3), Z(4), Z(5), bandwidth=1), ValueError,
         "y_train must have one row per known point: x_train has 4, y_train is (5,)"),
    case(lambda: ac.leave_one_out(Z(4), Z(5), bandwidth=1), ValueError, "one row per known point"),
    case(lambda: ac.choose_bandwidth(Z(4), Z(4), []), ValueError, "bandwidths is empty"),
    case(lambda: ac.choose_bandwidth(Z(4), Z(4), 1.0), ValueError,
         "bandwidths must be a row of numbers, got ()"),
    case(lambda: ac.kernel_weights([0.0], [0.0], kernel=["boxcar"], bandwidth=1), ValueError,
         "kernel must be one of gaussian, boxcar"),
    case(lambda: ac.choose_bandwidth([0.0, 9.0], [1.0, 2.0], [1, 2], kernel="boxcar"), ValueError,
         "every bandwidth up to 2.0 leaves a point without neighbours under the boxcar kernel"),
    case(lambda: ac.attention_pooling(Z((3, 2)), Z((5, 2)), Z((5, 2)), lambda q, k: k), ValueError,
         "score must return (..., Tq, Tk) = (..., 3, 5), got (5, 2)"),
    case(lambda: ac.attention_pooling(Z((3, 2)), Z((5, 2)), Z((4, 2))), ValueError,
         "k and v must have one row per key: k (5, 2), v (4, 2)"),
]  # fmt: skip

POSITIONS = [
    case(lambda: ac.positions.sinusoidal(3, 5), ValueError, "D must be even and positive, got 5"),
    case(lambda: ac.positions.sinusoidal(3, 0), ValueError, "D must be even and positive, got 0"),
    case(lambda: ac.positions.sinusoidal(3, 4.0), TypeError, "D must be an integer, got float"),
    case(lambda: ac.positions.sinusoidal(-1, 4), ValueError, "T must not be negative, got -1"),
    case(lambda: ac.positions.sinusoidal(3.0, 4), TypeError, "T must be an integer, got float"),
    case(lambda: ac.positions.sinusoidal(np.float64(3), 4), TypeError,
         "T must be an integer, got float64"),
    case(lambda: ac.positions.sinusoidal(True, 4), TypeError, "T must be an integer, got bool"),
    case(lambda: ac.positions.sinusoidal(TRUE, 4), TypeError,
         "positions must hold real numbers, got bool"),
    case(lambda: ac.positions.sinusoidal(3, 4, base=0), ValueError,
         "base must be positive and finite, got 0"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), base=np.inf), ValueError,
         "base must be positive and finite, got inf"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), pairing="neox"), ValueError,
         "pairing must be one of half, interleaved, got 'neox'"),
    case(lambda: ac.positions.rope(Z((3, 5)), range(3)), ValueError,
         "D must be even and positive, got 5"),
    case(lambda: ac.positions.rope(Z(4), [0]), ValueError,
         "x must be (..., T, D), got (4,); add an axis with a[None]"),
    case(lambda: ac.positions.rope(Z((3, 4)), torch.arange(3)), TypeError,
         "NumPy arrays and torch tensors do not mix: x NumPy, positions torch"),
    case(lambda: ac.positions.rope(Z((3, 4)), [True] * 3), TypeError,
         "positions must hold real numbers, got bool"),
    case(lambda: ac.positions.rope(torch.zeros(3, 4), torch.arange(3, device="meta")), ValueError,
         "tensors must be on one device: positions on meta, x on cpu"),
    case(lambda: ac.positions.rope(Z((3, 4)), [7]), ValueError,
         "positions must be (T,) = (3,), or have an axis for each of (..., T) = (3,), such as "
         "(B, 1, T): got (1,)"),
    case(lambda: ac.positions.rope(Z((3, 4)), 7), ValueError, "(B, 1, T): got ()"),
    case(lambda: ac.positions.rope(Z((2, 2, 3, 4)), Z((2, 3))), ValueError,  # (B, T), B = H
         "an axis for each of (..., T) = (2, 2, 3), such as (B, 1, T): got (2, 3)"),
    case(lambda: ac.positions.rope(Z((2, 3, 4)), Z((5, 3))), ValueError, "got (5, 3)"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), rope_dim=3), ValueError,
         "rope_dim must be even, from 2 to the width, 4, got 3"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), rope_dim=0), ValueError,
         "rope_dim must be even, from 2 to the width, 4, got 0"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), rope_dim=2.0), TypeError,
         "rope_dim must be an integer, got float"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), speeds=[1.0]), ValueError,
         "speeds must be one for each pair that turns, (2,), got (1,): give rope_dim=, if only"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), speeds=torch.ones(2)), TypeError,
         "NumPy arrays and torch tensors do not mix: x NumPy, speeds torch"),
    case(lambda: ac.positions.rope(torch.ones(3, 4), range(3), speeds=torch.ones(2).half()),
         TypeError, "speeds must be floats of 32 bits at least, got float16, in which angles"),
    case(lambda: ac.positions.rope(torch.ones(3, 4), range(3),
                                   speeds=torch.ones(2, device="meta")), ValueError,
         "tensors must be on one device: speeds on meta, x on cpu"),
    case(lambda: ac.positions.rope(Z((3, 4)), range(3), gain=0), ValueError,
         "gain must be positive and finite, got 0"),
    case(lambda: ac.positions.rope_speeds(5), ValueError, "D must be even and positive, got 5"),
    case(lambda: ac.positions.rope_speeds(8, kind="pi"), ValueError,
         "kind must be one of plain, linear, ntk, dynamic, yarn, llama3, longrope, proportional"),
    case(lambda: ac.positions.rope_speeds(8, kind="linear"), ValueError,
         "kind='linear' needs factor="),
    case(lambda: ac.positions.rope_speeds(8, kind="yarn", factor=2.0), ValueError,
         "kind='yarn' needs length="),
    case(lambda: ac.positions.rope_speeds(8, factor=2.0), ValueError,
         "factor is not for kind='plain', which takes no setting"),
    case(lambda: ac.positions.rope_speeds(8, kind="ntk", factor=2.0, length=9), ValueError,
         "length is not for kind='ntk', which takes factor"),
    case(lambda: ac.positions.rope_speeds(8, kind="llama3", factor=2.0, length=9, gain=1.0),
         ValueError, "gain is not for kind='llama3', which takes factor, length, low, high"),
    case(lambda: ac.positions.rope_speeds(8, kind="linear", factor=0), ValueError,
         "factor must be positive and finite, got 0"),
    case(lambda: ac.positions.rope_speeds(8, kind="yarn", factor=2.0, length=1), ValueError,
         "length must be at least 2, got 1"),
    case(lambda: ac.positions.rope_speeds(8, kind="yarn", factor=2.0, length=2**63), ValueError,
         "length must be below 2**63, as positions are, got"),
    case(lambda: ac.positions.rope_speeds(8, kind="yarn", factor=2.0, length=9, low=9, high=3),
         ValueError, "low (9.0) must be below high (3.0): both are turns"),
    case(lambda: ac.positions.rope_speeds(8, base=1.0, kind="yarn", factor=2.0, length=9),
         ValueError, "base must be above 1 for kind='yarn', got 1.0"),
    case(lambda: ac.positions.rope_speeds(2, kind="ntk", factor=2.0), ValueError,
         "D must be at least 4 for kind='ntk', got 2: a pair is to stay fast"),
    case(lambda: ac.positions.rope_speeds(4, kind="ntk", factor=1e300), ValueError,
         "factor is too large: with it the base 10000.0 grows to infinity"),
    case(lambda: ac.positions.rope_speeds(8, kind="proportional", rope_dim=10), ValueError,
         "rope_dim must be even, from 2 to the width, 8, got 10"),
    case(lambda: ac.positions.rope_speeds(4, kind="longrope", length=9, tokens=9, short=[1, 2],
                                          long=[1, 2]), ValueError,
         "kind='longrope' needs factor= or gain="),
    case(lambda: ac.positions.rope_speeds(4, kind="longrope", length=9, tokens=9, short=[1],
                                          long=[1, 2], gain=1.0), ValueError,
         "short must be (D / 2,) = (2,), got (1,)"),
    case(lambda: ac.positions.rope_speeds(4, kind="longrope", length=9, tokens=9, short=[1, 2],
                                          long=[1, 0], gain=1.0), ValueError,
         "a number of long must be positive and finite, got 0"),
    case(lambda: ac.positions.distances(-1), ValueError, "Tq must not be negative, got -1"),
    case(lambda: ac.positions.distances(1, 2.0), TypeError, "Tk must be an integer, got float"),
    case(lambda: ac.positions.alibi(0, 3), ValueError, "H must be at least 1, got 0"),
    case(lambda: ac.positions.alibi(2.0, 3), TypeError, "H must be an integer, got float"),
    case(lambda: ac.positions.t5_bucket([1.0]), TypeError,
         "distances must be integers below 2**63, got float64"),
    case(lambda: ac.positions.t5_bucket(np.uint64([1])), TypeError, "2**63, got uint64"),
    case(lambda: ac.positions.t5_bucket([True]), TypeError, "2**63, got bool"),
    case(lambda: ac.positions.t5_bucket([1], buckets=2), ValueError,
         "buckets must be at least 4, got 2"),
    case(lambda: ac.positions.t5_bucket([1], buckets=1, causal=True), ValueError,
         "buckets must be at least 2, got 1"),
    case(lambda: ac.positions.t5_bucket([1], buckets=7), ValueError,
         "buckets must be even, half for each direction, got 7"),
    case(lambda: ac.positions.t5_bucket([1], max_distance=8), ValueError,
         "max_distance must be at least 9, got 8"),
    case(lambda: ac.positions.skew(Z((3, 2))), ValueError,
         "by_distance must be (..., Tq, Tq + Tk - 1), with a query and a key at least, got (3, 2)"),
    case(lambda: ac.positions.skew(Z((0, 2))), ValueError, "got (0, 2)"),
    case(lambda: ac.positions.skew(Z(2)), ValueError, "got (2,)"),
    case(lambda: ac.positions.xl_bias(Z((6, 3, 4)), Z((2, 5, 4)), Z((7, 4)), Z(4), Z(4)),
         ValueError, "q and k must be (..., H, T, D), alike but for T, none of it 0: "
         "q (6, 3, 4), k (2, 5, 4); repeat keys that heads share"),
    case(lambda: ac.positions.xl_bias(Z((3, 4)), Z((5, 4)), Z((8, 4)), Z(4), Z(4)), ValueError,
         "r must have a row for each distance from Tk - 1 to 1 - Tq, (H, 7, 4) or without H, "
         "got (8, 4)"),
    case(lambda: ac.positions.xl_bias(Z((2, 3, 4)), Z((2, 5, 4)), Z((7, 4)), Z((3, 4)), Z(4)),
         ValueError, "content_bias must be (D,) = (4,) or (H, D), got (3, 4)"),
    case(lambda: ac.positions.xl_bias(Z((3, 4)), Z((5, 4)), Z((7, 4)), Z(4), Z((1, 4))),
         ValueError, "position_bias must be (D,) = (4,) or (H, D), got (1, 4)"),
]  # fmt: skip

SMALL = [[0, 1], [0, 2]], [6, 7]
PICTURES = [
    case(lambda: draw.tiles(7), ValueError,
         "blocks must be 2 to 6 to be read as a picture, got 7"),
    case(lambda: draw.tiles(4.0), TypeError, "blocks must be an integer, got float"),
    case(lambda: draw.tiles(3, causal=True, step=6), ValueError,
         "step must be one of the 6 tiles, counted from 0, got 6"),
    case(lambda: draw.rotations([1, 0, 0], [1, 0], [(1, 0)]), ValueError,
         "q must be one pair of features, (2,), got (3,)"),
    case(lambda: draw.rotations([1, 0], [0, 0], [(1, 0)]), ValueError,
         "k must be an arrow of some length, got [0.0, 0.0]"),
    case(lambda: draw.rotations([1, 0], [1, 0], Z((7, 2))), ValueError,
         "positions must be (pairs, 2), 1 to 6 of query and key, got (7, 2)"),
    case(lambda: draw.rotations([1, 0], [1, 0], [(1e7, 0)]), ValueError,
         "positions must be finite, and no larger than 1,000,000 to be drawn"),
    case(lambda: draw.rotations([1, 0], [1, 0], [(1, 0)], speed=1e4), ValueError,
         "speed must be finite, at most 1000 radians a position, got 10000"),
    case(lambda: draw.ring(1), ValueError,
         "devices must be 2 to 6 to be read as a picture, got 1"),
    case(lambda: draw.ring(4, step=4), ValueError,
         "step must be one of the 4 steps, counted from 0, got 4"),
    case(lambda: draw.ring(4, zigzag=1), TypeError, "zigzag must be True or False, got int"),
    case(lambda: draw.vision(Z((2, 2, 1)), 1, **VIT), ValueError,
         "image must be (rows, columns), got (2, 2, 1)"),
    case(lambda: draw.vision(Z((32, 8)), 8, **VIT), ValueError,
         "image must have at most 16 x 16 pixels to be read as a picture, got 32 x 8: draw a "
         "part of it, as image[:16, :16]"),
    case(lambda: draw.vision(Z((2, 2)) - 1, 1, **VIT), ValueError,
         "image must hold numbers from 0 (black) to 1 (white); divide by the largest"),
    case(lambda: draw.vision(Z((4, 6)), 4, **VIT), ValueError,
         "size must divide the rows and columns of the image, 4 x 6, got 4"),
    case(lambda: draw.vision(Z((4, 6)), 2, **VIT), ValueError,
         "size must leave at most 4 patches to be drawn, got 2, which makes 6"),
    case(lambda: draw.vision(Z((4, 4)), 2, **{**VIT, "layers": 5}), ValueError,
         "layers must be at most 4 to be drawn, got 5"),
    case(lambda: draw.vision(Z((4, 4)), 2, **VIT, step=7), ValueError,
         "step must be one of the 7 steps, counted from 0, got 7"),
    case(lambda: draw.patches(Z((2, 2, 2)), 1), ValueError,
         "image must be (rows, columns), or end with 1 or 3 channels, got (2, 2, 2)"),
    case(lambda: draw.patches(Z((32, 8)), 8), ValueError,
         "image must have at most 16 x 16 pixels to be read as a picture, got 32 x 8: draw a "
         "part of it, as image[:16, :16]"),
    case(lambda: draw.patches(Z((2, 2)) + 16, 1), ValueError,
         "image must hold numbers from 0 (black) to 1 (white); divide by the largest"),
    case(lambda: draw.patches(Z((4, 6)), 4), ValueError,
         "size must divide the rows and columns of the image, 4 x 6, got 4"),
    case(lambda: draw.patches(Z((8, 8)), 1), ValueError,
         "size must leave at most 16 patches to be read as a picture, got 1, which makes 64"),
    case(lambda: draw.patches(Z((4, 4)), 2, step=4), ValueError,
         "step must be one of the 4 patches, counted from 0, got 4"),
    case(lambda: draw.timetable(), ValueError, "tables must be 1 to 4 of them, got 0"),
    case(lambda: draw.timetable(Z(3)), ValueError, "tables must be (rows, steps) each, got (3,)"),
    case(lambda: draw.timetable(Z((17, 9))), ValueError,
         "tables must have at most 16 rows and 600 steps to be read as a picture, got 17 and 9: "
         "draw a part, as table[:, :600]"),
    case(lambda: draw.timetable([[0, -2]]), ValueError,
         "tables must hold requests, 0 to 999, or -1 for an idle row, got -2"),
    case(lambda: draw.timetable([[0.5]]), ValueError,
         "tables must hold requests, 0 to 999, or -1 for an idle row, got 0.5"),
    case(lambda: draw.pages([], []), ValueError, "tables must be of 1 to 6 sequences, got 0"),
    case(lambda: draw.pages({0: [1]}, [1]), TypeError,
         "tables must be a list of block tables, got dict"),
    case(lambda: draw.pages([3], [1]), TypeError,
         "tables[0] must be a list of integers, got int"),
    case(lambda: draw.pages([[0, -1]], [5]), ValueError,
         "tables[0][1] must not be negative, got -1"),
    case(lambda: draw.pages(*SMALL, block_size=9), ValueError,
         "block_size must be 1 to 8 to be drawn, got 9"),
    case(lambda: draw.pages(SMALL[0], [6]), ValueError,
         "lengths must have one number for each of the 2 tables, got 1"),
    case(lambda: draw.pages(*SMALL, blocks=2), ValueError,
         "blocks must be 3 or more, for the tables name block 2, and at most 24 to be read as a "
         "picture, got 2"),
    case(lambda: draw.pages(SMALL[0], [6, 9]), ValueError,
         "tables[1] must have 3 blocks of 4 for lengths[1] = 9 tokens, got 2"),
    case(lambda: draw.pages([[*range(7)]], [28]), ValueError,
         "tables[0] must have at most 6 blocks to be drawn, got 7"),
    case(lambda: draw.pages([[1, 1]], [8]), ValueError,
         "tables[0] must not name block 1 twice"),
    case(lambda: draw.pages([[0, 1], [1, 2]], [8, 8]), ValueError,
         "tables[1] must share block 1 as part of a common prefix: its tokens depend on all "
         "tokens before them"),
    case(lambda: draw.pages([[0, 1], [2, 1]], [8, 8]), ValueError,
         "tables[1] must share block 1 as part of a common prefix"),
    case(lambda: draw.pages([[0, 1], [0, 1]], [6, 7]), ValueError,
         "lengths[1] leaves 3 tokens in block 1, which is shared and holds 2: the sequence that "
         "writes must copy the block first"),
    case(lambda: draw.pages(*SMALL, step=2), ValueError,
         "step must be one of the 2 sequences, from 0, got 2"),
    case(lambda: draw.matrix(Z((9, 2))), ValueError,
         "array must have at most 8 rows and columns to be read as a picture, got (9, 2): draw "
         "a part of it, as array[:8, :8]"),
    case(lambda: draw.matrix(Z((2, 2)), name=1), TypeError, "name must be a string, got int"),
    case(lambda: draw.matrix(Z((2, 2)), digits=7), ValueError,
         "digits must lie in 0 to 6, got 7"),
    case(lambda: draw.matrix(Z((2, 3)), columns="ab"), ValueError,
         "columns must name all 3 of them, got 2 labels"),
    case(lambda: draw.equation("="), ValueError, "parts must have 1 to 6 matrices, got 0"),
    case(lambda: draw.equation(Z((2, 2))), TypeError,
         "parts[0] must be a pair (name, matrix) or a sign such as '=', got ndarray"),
    case(lambda: draw.equation(("W_Q", Z(2))), ValueError,
         "W_Q must be (rows, columns) to be drawn, got (2,)"),
    case(lambda: draw.table([]), ValueError, "rows must be 1 to 60 to be read as a table, got 0"),
    case(lambda: draw.table("rows"), TypeError, "rows must be a list or an array, got str"),
    case(lambda: draw.table([[1], [1, 2]], columns=["a"]), ValueError,
         "rows[1] must have a cell for each of the 1 columns, got 2"),
    case(lambda: draw.table([{"a": 1}, {"b": 1}]), ValueError,
         "rows[1] must have the keys of the first row, ['a']"),
    case(lambda: draw.table([[1]]), ValueError,
         "columns must name the columns: rows that are lists have no names"),
    case(lambda: draw.table([[1]], columns=[1]), TypeError,
         "columns[0] must be a string, got int"),
    case(lambda: draw.table([[1, 2]], columns=["a", "a"]), ValueError,
         "columns must have different names, got a, a"),
    case(lambda: draw.table(Z((1, 13)), columns=[*"abcdefghijklm"]), ValueError,
         "columns must be 1 to 12, got 13"),
    case(lambda: draw.table([[1j]], columns=["a"]), TypeError,
         "rows[0] has complex under 'a': cells are numbers, strings, bools or None"),
    case(lambda: draw.table([[10**30]], columns=["a"]), ValueError,
         "rows[0] has a number of more than 30 digits under 'a'"),
    case(lambda: draw.table([[1]], columns=["a"], digits={"b": 1}), ValueError,
         "digits has no column 'b' to format: a"),
    case(lambda: draw.table([[1]], columns=["a"], digits={"a": "x"}), ValueError,
         "digits['a'] must be decimals or a format such as '.1e', got 'x'"),
    case(lambda: draw.table([[1]], columns=["a"], digits=13), ValueError,
         "digits must lie in 0 to 12, got 13"),
    case(lambda: draw.table([[1]], columns=["a"], caption=1), TypeError,
         "caption must be a string, got int"),
]  # fmt: skip

THE_REST = [
    case(lambda: ac.pick_device("warp"), ValueError,
         "prefer=warp is no torch device: use cpu, cuda, mps"),
    case(lambda: ac.pick_device("meta"), ValueError, "prefer=meta is not supported here"),
    case(lambda: ac.pick_device("cuda:99"), ValueError, "prefer=cuda:99 is not at hand"),
    case(lambda: plot.heatmap(Z((2, 3, 4))), ValueError,
         "weights must be (Tq, Tk), got (2, 3, 4): pick one head"),
    case(lambda: plot.heatmap([[1.0]], digits=18), ValueError,
         "digits must lie in 0 to 17, got 18; None prints nothing"),
    case(lambda: plot.heatmap([[1.0]], ax="left"), TypeError,
         "ax must be matplotlib's Axes, got str"),
    case(lambda: plot.heatmap([[1.0]], keys={"a"}), TypeError,
         "keys must be a list of labels, got set"),
    case(lambda: plot.alt_text("figure"), TypeError,
         "drawn must be a figure or axes, got str"),
    case(lambda: ac.data.speeds(2), TypeError, "name must be that of a machine, got int"),
    case(lambda: ac.data.kept(2), TypeError, "name must be that of a file, got int"),
    case(lambda: ac.data.attention_maps(2), TypeError, "sentence must be a name, got int"),
    case(lambda: ac.cost.params({"d_model": 8}), TypeError,
         "sizes must be cost.Sizes(...), or of a model in cost.MODELS, got dict"),
    case(lambda: ac.cost.activation_bytes(ac.cost.MODELS["whale"], 1, fused=1), TypeError,
         "fused must be True or False, got int"),
    case(lambda: draw.regression(1, [], [], bandwidth=1), ValueError,
         "keys must be a row (n,) of numbers, got (0,)"),
    case(lambda: draw.regression(1, [1, 2], [1], bandwidth=1), ValueError,
         "there must be one value for each key: keys 2, values 1"),
    case(lambda: draw.regression(1, Z(9), Z(9), bandwidth=1), ValueError,
         "keys must be at most 8 to be read as a picture, got 9: draw a part of them"),
    case(lambda: draw.mask(), ValueError, "allowed is missing: give at least one boolean mask"),
    case(lambda: draw.mask(Z((2, 3))), TypeError, "allowed must be boolean"),
    case(lambda: draw.mask(Z((2, 1, 3, 3)) > 0), ValueError,
         "allowed must be (Tq, Tk), got (2, 1, 3, 3): pick one sequence and head, as allowed[0"),
    case(lambda: draw.mask(Z((13, 3)) > 0), ValueError,
         "allowed must have at most 12 rows and columns to be read as a picture, got (13, 3)"),
    case(lambda: draw.mask(Z((2, 3)) > 0, Z((3, 3)) > 0), ValueError,
         "all allowed must have one shape to be drawn side by side, got (2, 3) and (3, 3)"),
    case(lambda: draw.product(Z((2, 3)), Z((2, 3))), ValueError,
         "left must have as many columns as right has rows: left (2, 3), right (2, 3)"),
    case(lambda: draw.product(Z((2, 3)), Z((3, 2)), step=2), ValueError,
         "step must be one of the 2 rows, counted from 0, got 2"),
    case(lambda: draw.product(Z((2, 3)), Z((3, 2)), roles=["red"] * 3), ValueError,
         "roles must be one of query, key, value, weights, ink, soft, got 'red'"),
    case(lambda: draw.product(Z((2, 3)), Z((3, 2)), names=["Q"]), ValueError,
         "names must name all 3 of them, got 1 labels"),
    case(lambda: draw.heads(*[Z((3, 4)), *[Z((4, 4))] * 4], heads=3), ValueError,
         "heads = 3 must divide the width of w_q (4, 4)"),
    case(lambda: draw.heads(*[Z((3, 4)), *[Z((3, 4))] * 4], heads=2), ValueError,
         "w_q must have one row for each feature of a token: x (3, 4), w_q (3, 4)"),
    case(lambda: draw.heads(Z((3, 4)), Z((4, 2)), *[Z((4, 4))] * 3, heads=2), ValueError,
         "w_q and w_k must have one shape: (4, 2), (4, 4)"),
    case(lambda: draw.heads(*[Z((3, 4))], *[Z((4, 4))] * 3, Z((3, 4)), heads=2), ValueError,
         "w_o must have one row for each column of w_v: w_v (4, 4), w_o (3, 4)"),
    case(lambda: draw.head_sharing(9), ValueError,
         "heads must be at most 8 to be read as a picture, got 9"),
    case(lambda: draw.head_sharing(8, kv_heads=[3]), ValueError,
         "kv_heads must divide heads: heads = 8, kv_heads = 3"),
    case(lambda: draw.head_sharing(8, kv_heads=[]), ValueError,
         "kv_heads is empty: give the number of key-value heads of a panel"),
    case(lambda: draw.head_sharing(8, latent=5), ValueError,
         "head_dim and latent belong together: give both, or neither"),
    case(lambda: draw.head_sharing(2, kv_heads=[2], head_dim=4, latent=17), ValueError,
         "latent must be at most 2 * heads * head_dim = 16"),
    case(lambda: draw.head_sharing(8, kv_heads=8), TypeError,
         "kv_heads must be a list of integers, got int"),
    case(lambda: draw.block(3, 4, heads=2, d_ff=8, norm="mid"), ValueError,
         "norm must be one of pre, post, got 'mid'"),
    case(lambda: draw.kv_cache(Z((3, 4)), Z((4, 2)), Z((4, 3)), Z((4, 2))), ValueError,
         "w_q and w_k must have one shape: (4, 2), (4, 3)"),
    case(lambda: draw.kv_cache(Z((3, 4)), *[Z((4, 2))] * 3, step=3), ValueError,
         "step must be one of the 3 tokens, counted from 0, got 3"),
    case(lambda: draw.kv_cache(Z((3, 4)), Z((4, 2)), Z((4, 2)), Z((3, 2))), ValueError,
         "w_v must have one row for each feature of a token: x (3, 4), w_v (3, 2)"),
    case(lambda: plot.heatmap([[2.0]]), ValueError, "weights must lie between 0 and 1"),
    case(lambda: plot.heatmap([[1.0]], keys=["a", "b"]), ValueError,
         "keys must name all 1 of them, got 2 labels"),
    case(lambda: plot.strip(Z(3), Z(2), Z(3)), ValueError,
         "must be (Tk,) and values (Tk, E): scores (3,), weights (2,), values (3,)"),
    case(lambda: check("9.9", 0), ValueError, "there is no exercise '9.9': choose from 0.1, 1.1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    ARRAYS
    + ATTENTION
    + SOFTMAX_AND_MASKS
    + SCORES_AND_REGRESSION
    + POSITIONS
    + PICTURES
    + THE_REST,
)
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


def masked(array):
    return np.ma.masked_array(array, mask=np.zeros_like(array, dtype=bool))


M = masked(Z((3, 4)))
MASKED = {
    "q": lambda: ac.attention(M, Z((3, 4)), Z((3, 4))),
    "v": lambda: ac.attention(Z((3, 4)), Z((3, 4)), M),
    "mask": lambda: ac.attention(*Z((3, 3, 3)), masked(TRUE[:, :3])),
    "bias": lambda: ac.attention_weights(*Z((2, 3, 3)), bias=masked(Z((3, 3)))),
    "scale": lambda: ac.attention(*Z((3, 3, 3)), scale=np.ma.masked),
    "lengths": lambda: ac.attention(BATCH, BATCH, BATCH, lengths=masked(np.array([1, 2]))),
    "mask 1": lambda: ac.masks.combine(TRUE, masked(TRUE)),
    "k": lambda: ac.KVCache(2, 1, 9, 4).append(masked(BATCH), BATCH),
    "positions": lambda: ac.positions.rope(Z((3, 4)), masked(np.arange(3))),
    "distance": lambda: ac.positions.t5_bucket(masked(np.arange(3))),
    "by_distance": lambda: ac.positions.skew(M),
    "weights": lambda: plot.heatmap(masked(np.eye(3))),
    "drafted": lambda: ac.sampling.accept(Z((2, 3)), Z((1, 3)), masked(np.array([1])), Z(2)),
}


@pytest.mark.parametrize("name", MASKED)
def test_a_masked_array_is_refused_wherever_it_comes_in(name):
    message = f"{name} is a masked array, whose mask would be lost; pass mask= instead: a.filled("
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        MASKED[name]()


LIKE = {
    "causal": lambda like: ac.masks.causal(4, like=like),
    "window": lambda like: ac.masks.window(4, size=2, like=like),
    "symmetric_window": lambda like: ac.masks.symmetric_window(4, size=3, like=like),
    "global_tokens": lambda like: ac.masks.global_tokens(4, tokens=[0], like=like),
    "documents": lambda like: ac.masks.documents([0, 4], like=like),
    "random_keys": lambda like: ac.masks.random_keys(4, count=1, like=like),
    "distances": lambda like: ac.positions.distances(4, like=like),
    "alibi": lambda like: ac.positions.alibi(2, 4, like=like),
    "rope_speeds": lambda like: ac.positions.rope_speeds(4, like=like),
    "KVCache": lambda like: ac.KVCache(1, 1, 4, 4, like=like),
    "RaggedKVCache": lambda like: ac.RaggedKVCache(1, 1, 4, 4, like=like),
    "PagedKVCache": lambda like: ac.PagedKVCache(1, 4, 4, like=like),
}


@pytest.mark.parametrize("name", LIKE)
@pytest.mark.parametrize("like", ["cuda", torch.device("cpu"), [1.0], 1.0, torch.float32], ids=str)
def test_like_must_be_an_array(name, like):
    message = f"^like must be an array.*, got {type(like).__name__}"
    with pytest.raises(TypeError, match=message):
        LIKE[name](like)


def test_every_function_with_like_is_among_these():
    found = {
        name
        for module in (ac, ac.masks, ac.positions)
        for name in module.__all__
        if callable(getattr(module, name))
        and "like" in inspect.signature(getattr(module, name)).parameters
    }

    assert found == {*LIKE, "StaticKVCache"}  # which takes a tensor only


def test_a_figure_of_somebody_else_has_no_description():
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match=r"nothing on this figure was drawn by attncore\.plot"):
        plot.alt_text(figure)
    plt.close(figure)


def test_no_error_rests_on_assert():
    found = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assert)
    ]

    assert not found
