"""attention(backend="flex") equals the loop, visits every block it must, and compiles seldom."""

import itertools
import warnings

import numpy as np
import oracle
import pytest
import torch

import attncore as ac
from attncore import _flex

B, D, E = 2, 8, 16  # its widths are powers of two: torch 2.6 takes no others
HEADS = ((3, 3), (6, 3), (5, 1))
LENGTHS = ((3, 5), (5, 5), (5, 3), (1, 5))
GRID = list(
    itertools.product(HEADS, LENGTHS, (False, True), (None, 1, 3), (False, True), (False, True))
)
SIZES = list(itertools.product((1, 4, 7, 16, 17), (1, 4, 13, 16)))


@pytest.fixture
def as_it_is(monkeypatch):
    """FlexAttention not compiled: slow, in much memory, and the same mathematics."""
    monkeypatch.setattr(_flex, "compiled", lambda: _flex.run)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield


def inputs(heads, lengths, *, dtype=torch.float64, width=D, lead=(B,)):
    (H, G), (Tq, Tk) = heads, lengths
    generator = torch.Generator().manual_seed(0)
    shapes = ((*lead, H, Tq, width), (*lead, G, Tk, width), (*lead, G, Tk, E))
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize(("heads", "lengths", "causal", "window", "masked", "biased"), GRID)
def test_it_equals_the_loop(as_it_is, heads, lengths, causal, window, masked, biased):
    q, k, v = inputs(heads, lengths)
    rng = np.random.default_rng(1)
    shape = (B, heads[0], *lengths)
    mask = rng.random(shape) < 0.6 if masked else None
    bias = rng.normal(size=shape[1:]) if biased else None
    options = {"causal": causal, "window": window}
    expected = oracle.attention(q.numpy(), k.numpy(), v.numpy(), mask=mask, bias=bias, **options)
    options["mask"] = None if mask is None else torch.from_numpy(mask)
    options["bias"] = None if bias is None else torch.from_numpy(bias)

    found = ac.attention(q, k, v, **options, backend="flex")

    assert found.dtype == torch.float64
    assert np.allclose(found.numpy(), expected, 0, 1e-13)


@pytest.mark.parametrize("lead", [None, (), (2,), (2, 3), (2, 1, 3)], ids=str)
def test_any_leading_axes(as_it_is, lead):
    q, k, v = inputs((3, 3), (5, 7), lead=lead or ())
    if lead is None:
        q, k, v = q[0], k[0], v[0]
    mask = torch.rand(5, 1, generator=torch.manual_seed(0)) > 0.3
    expected = ac.attention(q, k, v, mask, window=3, backend="reference")

    torch.testing.assert_close(ac.attention(q, k, v, mask, window=3, backend="flex"), expected)


def test_lengths_are_a_mask(as_it_is):
    q, k, v = inputs((6, 3), (5, 7))
    expected = ac.attention(q, k, v, lengths=[0, 4], causal=True, backend="reference")

    found = ac.attention(q, k, v, lengths=[0, 4], causal=True, backend="flex")

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("window", [None, 1, 3, 5, 8, 40])
@pytest.mark.parametrize("lengths", SIZES, ids=str)
def test_the_blocks_of_the_band_are_visited_and_no_others(monkeypatch, lengths, window):
    monkeypatch.setattr(_flex, "BLOCK", 4)
    Tq, Tk = lengths
    q, k, _ = inputs((1, 1), lengths, lead=(1,))
    seen = ac.masks.causal(Tq, Tk, window=window)
    padded = np.zeros((-(-Tq // 4) * 4, -(-Tk // 4) * 4), dtype=bool)
    padded[:Tq, :Tk] = seen
    needed = padded.reshape(len(padded) // 4, 4, -1, 4).any(axis=(1, 3))

    offset, limit = torch.tensor(Tk - Tq), None if window is None else torch.tensor(window)
    found = _flex.blocks(q, k, offset, limit, lambda b, h, i, j: j >= 0).to_dense()[0, 0]

    assert np.array_equal(found.numpy().astype(bool), needed)


def test_without_a_band_all_blocks_are_visited(monkeypatch):
    monkeypatch.setattr(_flex, "BLOCK", 4)
    q, k, _ = inputs((1, 1), (7, 13), lead=(1,))

    assert _flex.blocks(q, k, None, None, lambda b, h, i, j: j >= 0).to_dense().bool().all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's compiler
def test_it_is_compiled_once_for_all_lengths_and_windows():
    torch.compiler.reset()
    _flex.compiled.cache_clear()
    torch._dynamo.utils.counters.clear()
    for lengths, window in (
        ((300, 500), 130),
        ((290, 600), 90),
        ((500, 300), 1),
        ((310, 310), 400),
    ):
        q, k, v = inputs((4, 2), lengths, dtype=torch.float32, width=16)
        expected = ac.attention(q, k, v, window=window, backend="reference")
        found = ac.attention(q, k, v, window=window, backend="flex")
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    # The second call tells that lengths vary; the other two compile nothing.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_it_is_part_of_what_the_caller_compiles():
    torch.compiler.reset()
    _flex.compiled.cache_clear()
    q, k, v = inputs((4, 2), (5, 7), width=E)
    compiled = torch.compile(ac.attention, fullgraph=True, backend="aot_eager")

    found = compiled(q, k, v, window=3, backend="flex")

    torch.testing.assert_close(found, ac.attention(q, k, v, window=3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention's gradient needs a GPU")
def test_its_gradients_are_those_of_the_formula():
    found = []
    for backend in ("flex", "reference"):
        q, k, v = (
            x.cuda().requires_grad_()
            for x in inputs((4, 2), (300, 500), dtype=torch.float32, width=16)
        )
        ac.attention(q, k, v, window=130, backend=backend).square().sum().backward()
        found.append([x.grad for x in (q, k, v)])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (q.requires_grad_(), k, v), "it has no gradient on the CPU"),
        (lambda q, k, v: (q.to("meta"), k.to("meta"), v.to("meta")), "it has no kernel for meta"),
        (lambda q, k, v: (q.numpy(), k.numpy(), v.numpy()), "the arrays are NumPy"),
        (lambda q, k, v: (q, k[..., :0, :], v[..., :0, :]), "an axis is empty"),
    ],
)
def test_what_it_cannot_do_is_told(change, message):
    q, k, v = change(*inputs((3, 3), (5, 5)))

    with pytest.raises(ValueError, match=f"backend 'flex' cannot be used: {message}"):
        ac.attention(q, k, v, backend="flex")
