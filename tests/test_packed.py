"""packed_attention() is attention of one document after the other, and of all with their mask."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routes import Recorder
from test_attention import FLASH, qkv, tensors

import attncore as ac

SINKS = np.array([0.3, -0.7, 2.0, 0.0, -1.0, 1.1])
LENGTHS = {
    "alike": ([3, 0, 5, 1], [3, 0, 5, 1]),
    "more keys": ([1, 2, 3, 0], [4, 2, 5, 3]),
    "fewer keys": ([4, 2, 5, 3], [1, 2, 3, 0]),
    "one": ([7], [9]),
    "none": ([], []),
    "empty": ([0, 0], [0, 0]),
}


def starts(lengths):
    return [0, *itertools.accumulate(lengths)]


def by_loop(inputs, queries, keys, **options):
    """Return the outputs and log-sum-exps of each document, one after the other."""
    q, k, v = inputs
    found = []
    for n in range(len(queries) - 1):
        rows, columns = slice(*queries[n : n + 2]), slice(*keys[n : n + 2])
        found.append(
            ac.attention(
                q[..., rows, :], k[..., columns, :], v[..., columns, :], return_lse=True,
                backend="reference", **options,
            )
        )  # fmt: skip
    if not found:
        return q, q[..., 0]
    outs, lses = zip(*found, strict=True)
    xp = np if isinstance(q, np.ndarray) else torch
    return xp.concatenate(outs, axis=-2), xp.concatenate(lses, axis=-1)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("heads", [(3, 3), (6, 3)])
@pytest.mark.parametrize("chosen", [{}, {"causal": True}, {"window": 2}], ids=str)
@pytest.mark.parametrize("new", [{}, {"softcap": 0.8}, {"sinks": True}, {"scale": 0.7}], ids=str)
def test_it_is_the_loop_over_documents_and_the_masked_whole(library, lengths, heads, chosen, new):
    queries, keys = (starts(n) for n in lengths)
    q, k, v = qkv(heads, (queries[-1], keys[-1]))
    inputs = (q, k, v) if library == "numpy" else tensors(q, k, v)
    if "sinks" in new:
        sinks = SINKS[: heads[0]]
        new = {"sinks": sinks if library == "numpy" else torch.from_numpy(sinks)}
    found = ac.packed_attention(*inputs, queries, keys, **chosen, **new, return_lse=True)
    mask = ac.masks.documents(queries, keys, **chosen, like=inputs[0])
    whole = ac.attention(*inputs, mask, **new, return_lse=True)
    loop = by_loop(inputs, queries, keys, **chosen, **new)

    assert mask.shape == (queries[-1], keys[-1])
    for one, other, third in zip(found, whole, loop, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=1e-13)
        np.testing.assert_allclose(np.asarray(one), np.asarray(third), rtol=0, atol=1e-13)
    if queries == keys:
        alone = ac.packed_attention(*inputs, queries, **chosen, **new)
        np.testing.assert_allclose(np.asarray(alone), np.asarray(found[0]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_dropout_drops_what_it_drops_of_the_whole(library):
    ends = [0, 3, 3, 8, 9]
    inputs = qkv((6, 3), (9, 9))
    inputs = inputs if library == "numpy" else tensors(*inputs)

    def drawn():
        make = np.random.default_rng if library == "numpy" else torch.Generator().manual_seed
        return {"dropout": 0.4, "generator": make(5)}

    found = ac.packed_attention(*inputs, ends, causal=True, **drawn())
    mask = ac.masks.documents(ends, causal=True, like=inputs[0])
    wanted = ac.attention(*inputs, mask, **drawn())

    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=0, atol=1e-13)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=5),
    st.booleans(),
    st.sampled_from([None, 1, 2, 9]),
)
def test_the_mask_is_what_each_document_sees(lengths, causal, window):
    queries, keys = (starts([pair[n] for pair in lengths]) for n in (0, 1))
    mask = ac.masks.documents(queries, keys, causal=causal, window=window)
    wanted = np.zeros((queries[-1], keys[-1]), dtype=bool)
    for n, (Tq, Tk) in enumerate(lengths):
        block = np.ones((Tq, Tk), dtype=bool)
        if causal or window is not None:
            block = ac.masks.causal(Tq, Tk, window=window)
        wanted[queries[n] : queries[n + 1], keys[n] : keys[n + 1]] = block

    assert (mask == wanted).all()
    there = ac.masks.documents(
        torch.tensor(queries), torch.tensor(keys), causal=causal, window=window
    )
    assert (there.numpy() == wanted).all()


@pytest.mark.parametrize("given_", [list, tuple, np.array, torch.tensor, np.uint8])
def test_any_integers_will_do(given_):
    inputs = tensors(*qkv((3, 3), (5, 5)))
    ends = given_([0, 2, 5])
    wanted = ac.packed_attention(*inputs, [0, 2, 5], causal=True)

    assert torch.equal(ac.packed_attention(*inputs, ends, causal=True), wanted)


@pytest.mark.parametrize("lead", [None, (2, 3)], ids=str)
def test_any_rank(lead):
    q, k, v = qkv((1, 1), (5, 5), lead or ())
    inputs = [x[0] for x in (q, k, v)] if lead is None else (q, k, v)
    found = ac.packed_attention(*inputs, [0, 2, 5], causal=True)
    wanted = ac.attention(*inputs, ac.masks.documents([0, 2, 5], causal=True))

    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_gradients():
    inputs = tensors(*qkv((2, 1), (5, 6), (), width=3), grad=True)
    ends = ([0, 2, 2, 5], [0, 3, 4, 6])

    def run(*inputs):
        return ac.packed_attention(*inputs, *ends, causal=True, return_lse=True)[0]

    assert torch.autograd.gradcheck(run, inputs)
    mask = ac.masks.documents(*ends, causal=True, like=inputs[0])
    found = torch.autograd.grad(run(*inputs).square().sum(), inputs)
    wanted = torch.autograd.grad(ac.attention(*inputs, mask).square().sum(), inputs)
    torch.testing.assert_close(found, wanted)


def test_the_fused_kernel_runs_for_each_document_without_a_mask():
    inputs = tensors(*qkv((3, 3), (9, 9)))
    with Recorder(shapes=True) as recorder:
        ac.packed_attention(*inputs, [0, 4, 4, 9], causal=True)

    shapes = [shapes[0] for name, *shapes in recorder.seen if name == FLASH]
    assert shapes == [(2, 3, 4, 7), (2, 3, 5, 7)]
    assert not [s for _, *all_ in recorder.seen for s in all_ if s[-2:] == (9, 9)]


def test_memory_does_not_grow_with_the_square():
    T = 16_000
    q, k, v = np.ones((3, 1, T, 4))
    ends = np.arange(0, T + 1, 500)
    tracemalloc.start()
    ac.packed_attention(q, k, v, ends, causal=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 30e6  # all weights would be 2 GB, and their mask 256 MB


def test_inputs_keep_their_bits():
    inputs = [*qkv((3, 3), (5, 5)), np.array([0, 2, 5])]
    copies = [x.copy() for x in inputs]
    ac.packed_attention(*inputs, causal=True)

    assert all((a == b).all() for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("chosen", [{"causal": True}, {"window": 2}], ids=str)
def test_it_compiles_whole(as_tensor, chosen):
    torch.compiler.reset()
    inputs = tensors(*qkv((4, 2), (9, 9)))
    compiled = torch.compile(ac.packed_attention, fullgraph=True, backend="eager")
    for ends in ([0, 4, 4, 9], [0, 1, 2, 9]):
        given_ = torch.tensor(ends) if as_tensor else ends
        found = compiled(*inputs, given_, **chosen)
        torch.testing.assert_close(found, ac.packed_attention(*inputs, ends, **chosen))


def test_in_a_recording_ends_are_checked_when_it_runs():
    torch.compiler.reset()
    inputs = tensors(*qkv((4, 2), (9, 9)))
    compiled = torch.compile(ac.packed_attention, fullgraph=True, backend="eager")
    compiled(*inputs, torch.tensor([0, 4, 9]))
    for wrong in ([1, 4, 9], [0, 4, 8], [0, 10, 9]):
        with pytest.raises(RuntimeError, match="cu_seqlens must begin with 0, never fall, and end"):
            compiled(*inputs, torch.tensor(wrong))


@pytest.mark.parametrize(
    ("ends", "error", "match"),
    [
        (([],), ValueError, r"cu_seqlens must begin with 0, the first token, got \[\]"),
        (([1, 5],), ValueError, r"cu_seqlens must begin with 0, the first token, got \[1\]"),
        (([0, 4, 3, 5],), ValueError, "cu_seqlens must not fall, got 3 after 4"),
        (([0, 4],), ValueError, "cu_seqlens must end with the number of queries, 5, got 4"),
        (([0, 5], [0, 4]), ValueError, "cu_seqlens_k must end with the number of keys, 5, got 4"),
        (
            ([0, 5], [0, 2, 5]),
            ValueError,
            "cu_seqlens tells of 1 documents, cu_seqlens_k of 2: a document without tokens",
        ),
        ((np.array([[0, 5]]),), ValueError, r"cu_seqlens must be \(N \+ 1,\) .*, got \(1, 2\)"),
        (([0, 5.0],), TypeError, "a number of cu_seqlens must be an integer, got float"),
        ((np.array([0, 5.0]),), TypeError, "cu_seqlens must be integers, got float64"),
        ((np.array([False, True]),), TypeError, "cu_seqlens must be integers, got bool"),
        ((5,), TypeError, "cu_seqlens must be a list or an array, got int"),
        (
            (torch.tensor([0, 5], device="meta"),),
            ValueError,
            "cu_seqlens is on meta, a device that holds shapes but no numbers",
        ),
    ],
)
def test_bad_ends_are_told(ends, error, match):
    q, k, v = qkv((3, 3), (5, 5))
    with pytest.raises(error, match=match):
        ac.packed_attention(q, k, v, *ends)
    if "the number of" not in match:
        with pytest.raises(error, match=match):
            ac.masks.documents(*ends)


def test_other_keys_need_their_own_ends():
    q, k, v = qkv((3, 3), (5, 6))
    with pytest.raises(ValueError, match=r"cu_seqlens_k must be given .* keys \(6\) as queries"):
        ac.packed_attention(q, k, v, [0, 5])
    with pytest.raises(TypeError, match="like must be an array"):
        ac.masks.documents([0, 5], like="torch")
    assert math.isfinite(ac.packed_attention(q, k, v, [0, 5], [0, 6]).sum())
