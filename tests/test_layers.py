"""The layer equals torch.nn.MultiheadAttention, and itself with a cache."""

import copy

import pytest
import torch
from torch import nn

import attncore as ac
from attncore.layers import MultiHeadAttention

B, TQ, TK, WIDTH, HEADS = 2, 5, 7, 12, 3
DOUBLE = {"dtype": torch.float64}


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def shake(module):
    """Give every parameter, the zero biases too, a value that shows if it is lost."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(rand(*parameter.shape, seed=i))
    return module


def twins(bias=True, context_dim=None):
    theirs = nn.MultiheadAttention(
        WIDTH, HEADS, bias=bias, kdim=context_dim, vdim=context_dim, batch_first=True, **DOUBLE
    )
    ours = MultiHeadAttention(WIDTH, HEADS, bias=bias, context_dim=context_dim, **DOUBLE)
    ours.load_state_dict(shake(theirs).state_dict())
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "cross of another width"])
@pytest.mark.parametrize("causal", [False, True])
def test_it_equals_torch_in_value_and_gradient(bias, kind, causal):
    other = 8 if kind == "cross of another width" else None
    ours, theirs = twins(bias, other)
    x = rand(B, TQ, WIDTH)
    context = None if kind == "self" else rand(B, TK, other or WIDTH, seed=1)
    keep = ac.masks.causal(TQ, TQ if context is None else TK, like=x)
    seen = x if context is None else context
    expected, _ = theirs(x, seen, seen, attn_mask=~keep if causal else None)
    found = ours(x, context, causal=causal)
    expected.pow(2).sum().backward()
    found.pow(2).sum().backward()

    assert torch.allclose(found, expected, atol=1e-12)
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name].grad, rtol=1e-8, atol=1e-8)


def test_weights_travel_both_ways():
    ours, theirs = twins()
    shake(ours)
    theirs.load_state_dict(ours.state_dict())

    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_padding_is_kept_out():
    ours, theirs = twins()
    x, lengths = rand(B, TQ, WIDTH), torch.tensor([2, 5])
    keep = ac.masks.padding(lengths, TQ)
    expected, _ = theirs(x, x, x, key_padding_mask=~keep[:, 0, 0], need_weights=True)

    assert torch.allclose(ours(x, mask=keep), expected)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
def test_shared_heads_equal_repeated_heads(kv_heads):
    layer = shake(MultiHeadAttention(WIDTH, 6, kv_heads, **DOUBLE))
    full = MultiHeadAttention(WIDTH, 6, **DOUBLE)
    repeat = 6 // kv_heads
    state = copy.deepcopy(layer.state_dict())
    for name in ("in_proj_weight", "in_proj_bias"):
        parts = state[name].split(layer.widths)
        wide = [p.unflatten(0, (kv_heads, 2)).repeat_interleave(repeat, 0) for p in parts[1:]]
        state[name] = torch.cat([parts[0], *(w.flatten(0, 1) for w in wide)])
    full.load_state_dict(state)
    x = rand(B, TQ, WIDTH)

    assert torch.allclose(layer(x, causal=True), full(x, causal=True))
    assert layer.in_proj_weight.numel() == (6 + 2 * kv_heads) * 2 * WIDTH


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_decoding_with_a_cache_equals_one_pass(window, kv_heads):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, kv_heads, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = ac.KVCache(B, kv_heads, TK, layer.head_dim, window=window, like=x)
    with torch.no_grad():
        whole = layer(x, causal=True, window=window)
        parts = [layer(part, cache=cache) for part in x.split([3, 1, 2, 1], dim=1)]

    assert torch.allclose(torch.cat(parts, dim=1), whole)
    assert cache.length == TK


def test_no_batch_and_many_leading_axes():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(2, 3, TQ, WIDTH)

    assert torch.allclose(layer(x)[1, 2], layer(x[1, 2]))


def test_head_dim_can_be_chosen():
    layer = MultiHeadAttention(10, 3, head_dim=4)

    assert layer(torch.zeros(1, TQ, 10)).shape == (1, TQ, 10)
    assert "heads=3, kv_heads=3, head_dim=4" in repr(layer)


def test_a_new_layer_starts_as_torch_does():
    torch.manual_seed(0)
    ours = MultiHeadAttention(WIDTH, HEADS)
    bound = (6 / (WIDTH + 3 * WIDTH)) ** 0.5

    assert (ours.in_proj_bias == 0).all()
    assert (ours.out_proj.bias == 0).all()
    assert 0.8 * bound < ours.in_proj_weight.abs().max() <= bound


Z = torch.zeros


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MultiHeadAttention(10, 3), r"heads \(3\) must divide d_model \(10\), or give"),
        (lambda: MultiHeadAttention(12, 6, 4), r"heads \(6\) must be a multiple of kv_heads \(4\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 8)),
         r"x must be \(..., T, d_model = 12\), got \(1, 5, 8\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), Z(1, 5, 8)),
         r"context must be \(..., T, context_dim = 12\), got \(1, 5, 8\)"),
        (lambda: MultiHeadAttention(12, 3, context_dim=8)(Z(1, 5, 12)),
         r"a context of width 8 is needed"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), Z(1, 5, 12), cache=ac.KVCache(1, 3, 9, 4)),
         r"a cache is for self-attention"),
        (lambda: MultiHeadAttention(12, 3)(Z(5, 12), cache=ac.KVCache(1, 3, 9, 4)),
         r"with a cache x must be \(B, T, d_model\), got \(5, 12\)"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
