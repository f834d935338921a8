"""`lengths` equals the padding mask on every route."""

import itertools
import math

import numpy as np
import oracle
import pytest
import torch
from routes import check_all

import attncore as ac
from attncore.nn import MultiHeadAttention

B, D, E = 5, 7, 11
LENGTHS = [5, 3, 3, 0, 4]
ROUTES = {"slices": 0.0, "mask": math.inf}


def qkv(heads, Tq, Tk=5):
    rng = np.random.default_rng(0)
    H, G = heads
    shapes = ((B, H, Tq, D), (B, G, Tk, D), (B, G, Tk, E))
    return [rng.normal(size=shape) for shape in shapes]


@pytest.fixture(params=ROUTES)
def route(request, monkeypatch):
    monkeypatch.setattr("attncore.core.padding.WORTH_A_CALL", ROUTES[request.param])
    return request.param


@pytest.mark.parametrize("heads", [(3, 3), (6, 3)], ids=str)
@pytest.mark.parametrize("Tq", [1, 3, 5, 7])
@pytest.mark.parametrize(
    ("causal", "window", "masked", "biased"),
    list(itertools.product((False, True), (None, 2), (False, True), (False, True))),
)
def test_every_route_equals_the_loop(route, heads, Tq, causal, window, masked, biased):
    q, k, v = qkv(heads, Tq)
    rng = np.random.default_rng(1)
    mask = rng.random((B, 1, Tq, 5)) < 0.7 if masked else None
    bias = rng.normal(size=(heads[0], Tq, 5)) if biased else None
    real = ac.masks.padding(LENGTHS, 5)
    options = {"causal": causal, "window": window}
    both = real if mask is None else real & mask
    expected = oracle.attention(q, k, v, mask=both, bias=bias, **options)
    options["lengths"] = LENGTHS

    _, *gradients = check_all(q, k, v, expected, mask=mask, bias=bias, **options)
    for grad in gradients:
        assert all((row[:, n:] == 0).all() for row, n in zip(grad, LENGTHS, strict=True))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_weights_too(library):
    q, k, _ = qkv((6, 3), 5)
    convert = (lambda x: x) if library == "numpy" else torch.from_numpy
    A = ac.attention_weights(convert(q), convert(k), causal=True, lengths=LENGTHS)

    real = ac.masks.padding(LENGTHS, 5)
    assert np.allclose(np.asarray(A), oracle.weights(q, k, mask=real, causal=True), 0, 1e-13)


@pytest.mark.parametrize("given", [list, tuple, np.array, torch.tensor], ids=lambda f: f.__name__)
def test_any_integers_will_do(given):
    q, k, v = qkv((3, 3), 5)
    expected = ac.attention(q, k, v, ac.masks.padding(LENGTHS, 5))
    out = ac.attention(*map(torch.from_numpy, (q, k, v)), lengths=given(LENGTHS))

    assert np.allclose(out.numpy(), expected)


def calls(monkeypatch, inputs, **options):
    """Return the shape of the queries, and of the mask or None, of each call of the kernel."""
    kernel, seen = torch.nn.functional.scaled_dot_product_attention, []

    def spy(q, *rest, attn_mask=None, **others):
        seen.append((tuple(q.shape), None if attn_mask is None else tuple(attn_mask.shape)))
        return kernel(q, *rest, attn_mask=attn_mask, **others)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    ac.attention(*inputs, **options)
    return seen


def test_short_sequences_share_one_call_and_long_ones_need_no_mask(monkeypatch):
    short = [torch.zeros(3, 2, 8, 4)] * 3
    assert calls(monkeypatch, short, lengths=[3, 3, 5]) == [((3, 2, 8, 4), (3, 1, 1, 8))]
    assert calls(monkeypatch, short, lengths=[3, 3, 3]) == [((3, 2, 8, 4), None)]
    assert calls(monkeypatch, short, lengths=[8, 8, 8], causal=True) == [((3, 2, 8, 4), None)]
    long = [torch.zeros(3, 2, 1024, 64)] * 3
    assert calls(monkeypatch, long, lengths=[700, 700, 1000], causal=True) == [
        ((2, 2, 700, 64), None),
        ((2, 2, 324, 64), None),
        ((1, 2, 1000, 64), None),
        ((1, 2, 24, 64), None),
    ]


def test_slices_do_not_read_the_padding(monkeypatch):
    monkeypatch.setattr("attncore.core.padding.WORTH_A_CALL", 0)
    q, k, v = (torch.from_numpy(x) for x in qkv((6, 3), 5))
    expected = ac.attention(q, k, v, causal=True, lengths=LENGTHS)
    for b, n in enumerate(LENGTHS):
        k[b, :, n:] = v[b, :, n:] = torch.nan

    assert torch.equal(ac.attention(q, k, v, causal=True, lengths=LENGTHS), expected)


def test_the_layer_takes_lengths_of_its_context():
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model=8, heads=2, context_dim=6).double()
    x, context = torch.randn(B, 4, 8).double(), torch.randn(B, 5, 6).double()
    keep = ac.masks.padding(torch.tensor(LENGTHS), 5)

    for call in (layer, layer.weights):
        torch.testing.assert_close(call(x, context, lengths=LENGTHS), call(x, context, keep))


@pytest.mark.parametrize("length", [3, 8])
def test_it_compiles_whole(length):
    inputs = [torch.randn(2, 2, 8, 4)] * 3
    compiled = torch.compile(ac.attention, fullgraph=True, backend="eager")
    lengths = [length, length]

    torch.testing.assert_close(
        compiled(*inputs, lengths=lengths), ac.attention(*inputs, lengths=lengths)
    )
