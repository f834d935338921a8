"""The layer equals torch.nn.MultiheadAttention, and itself with a cache."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import attncore as ac
from attncore import models
from attncore.models import functional
from attncore.nn import Block, Decoder, MultiHeadAttention

B, TQ, TK, WIDTH, HEADS = 2, 5, 7, 12, 3
DOUBLE = {"dtype": torch.float64}


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


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


@pytest.mark.parametrize("context_dim", [None, 8])
def test_weights_travel_between_numpy_and_torchs_own_layer(context_dim):
    _, theirs = twins(context_dim=context_dim)
    plain = models.MultiHeadAttention(WIDTH, HEADS, context_dim=context_dim, rng=1)
    x, context = rand(B, TQ, WIDTH), rand(B, TK, context_dim or WIDTH)
    drawn = {name: torch.from_numpy(array.copy()) for name, array in plain.state_dict().items()}
    hidden = torch.rand(B, TK, generator=torch.Generator().manual_seed(0)) < 0.4
    hidden[:, 0] = False
    for state in (shake(theirs).state_dict(), drawn):
        plain.load_state_dict(state)
        theirs.load_state_dict({n: torch.from_numpy(a) for n, a in plain.state_dict().items()})
        expected = theirs(x, context, context, key_padding_mask=hidden)[0].detach().numpy()
        found = plain(x.numpy(), context.numpy(), mask=~hidden[:, None, None].numpy())

        assert np.allclose(found, expected, atol=1e-12)
    assert "True hides a key, and here it is ``mask=~m``" in " ".join(
        MultiHeadAttention.__doc__.split()
    )


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


@pytest.mark.parametrize("window", [None, 3])
def test_it_compiles_whole_with_and_without_a_cache(window):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = ac.KVCache(B, HEADS, TK, layer.head_dim, window=window, like=x)
    with torch.no_grad():
        whole = layer(x, causal=True)
        compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=False)

        assert torch.allclose(compiled(x, causal=True), whole)
        assert torch.allclose(compiled(x[:, :3], cache=cache), whole[:, :3])


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rope_turns_queries_and_keys_and_nothing_else(pairing):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, rope=pairing, rope_base=50.0, **DOUBLE))
    plain = MultiHeadAttention(WIDTH, HEADS, **DOUBLE)
    plain.load_state_dict(layer.state_dict())  # the same names
    x = rand(B, TK, WIDTH)
    q, k, v = functional.heads(plain, x, None)
    q, k = (ac.positions.rope(a, range(TK), base=50.0, pairing=pairing) for a in (q, k))
    expected = plain.out_proj(ac.attention(q, k, v, causal=True).transpose(1, 2).flatten(2))

    assert torch.allclose(layer(x, causal=True), expected)
    assert torch.allclose(layer.weights(x), ac.attention_weights(q, k))
    assert not torch.allclose(layer(x, causal=True), plain(x, causal=True))
    assert list(layer.state_dict()) == list(plain.state_dict())
    assert f"rope='{pairing}'" in repr(layer)
    assert "rope" not in repr(plain)


@pytest.mark.parametrize("splits", [(13,), (3, 1, 2, 1, 1, 5), (1,) * 13, (1, 12)], ids=str)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rope_goes_on_from_the_cache(pairing, window, splits):
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, head_dim=4, rope=pairing, **DOUBLE))
    x = rand(B, 13, WIDTH)
    cache = ac.KVCache(B, 2, 13, 4, window=window, like=x)
    with torch.no_grad():
        whole = layer(x, causal=True, window=window)
        parts = [layer(part, cache=cache) for part in x.split(splits, dim=1)]

    assert torch.allclose(torch.cat(parts, dim=1), whole)
    assert cache.length == 13


def test_rope_sees_order_and_not_where_the_text_stands():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, rope="half", **DOUBLE))
    x, order = rand(B, TK, WIDTH), torch.tensor([2, 0, 1, 5, 3, 4, 6])
    late = torch.arange(2 * TK) >= TK
    twice = layer(torch.cat([x, x], dim=1), mask=late, causal=True)

    assert torch.allclose(twice[:, TK:], layer(x, causal=True))
    assert not torch.allclose(layer(x[:, order])[:, -1], layer(x)[:, -1])


# -- positions, norms, scale, weights ---------------------------------------------------------

PLACES = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [0, 0, 3, 4, 90, 91, 2000]])  # (B, TK)


def expected_of(layer, x, places, **options):
    """Compute a layer from the parts: its maps, rope, attention."""
    plain = MultiHeadAttention(WIDTH, 6, 2, head_dim=8, **DOUBLE)
    plain.load_state_dict({n: p for n, p in layer.state_dict().items() if "_proj" in n})
    q, k, v = functional.heads(plain, x, None)
    q, k = (ac.positions.rope(a, places, **options) for a in (q, k))
    mixed = ac.attention(q, k, v, causal=True, scale=layer.scale)
    return plain.out_proj(mixed.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.float32])
def test_rows_stand_where_their_positions_say(dtype):
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope="half", **DOUBLE))
    x, places = rand(B, TK, WIDTH), PLACES.to(dtype)
    found = layer(x, causal=True, positions=places)

    assert torch.allclose(found, expected_of(layer, x, PLACES[:, None]))
    for b in range(B):
        alone = layer(x[b : b + 1], causal=True, positions=places[b])
        assert torch.allclose(alone[0], found[b])
        assert torch.allclose(layer(x[b], causal=True, positions=places[b]), found[b])
    assert torch.allclose(layer(x, positions=places[:1]), layer(x, positions=places[0]))
    assert torch.allclose(layer(x, positions=range(TK)), layer(x))
    assert torch.allclose(layer.weights(x, positions=range(3, 3 + TK)), layer.weights(x))
    assert not torch.allclose(layer.weights(x, positions=places), layer.weights(x))


@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_positions_go_on_with_a_cache(kind):
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope="half", **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = kind(B, 2, TK + 2, 8, like=x)
    with torch.no_grad():
        whole = layer(x, causal=True, positions=PLACES)
        parts = [
            layer(part, cache=cache, positions=at)
            for part, at in zip(x.split([3, 1, 3], 1), PLACES.split([3, 1, 3], 1), strict=True)
        ]

    assert torch.allclose(torch.cat(parts, dim=1), whole)


def test_padding_before_a_sequence_changes_nothing_for_it():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, rope="half", **DOUBLE))
    lengths, x = torch.tensor([TK, 3]), rand(B, TK, WIDTH)
    places = (torch.arange(TK) - (TK - lengths)[:, None]).clamp(min=0)
    mask = ac.masks.padding(lengths, TK, left=True)
    found = layer(x, mask=mask, causal=True, positions=places)

    assert torch.allclose(found[0], layer(x[0], causal=True))
    assert torch.allclose(found[1, -3:], layer(x[1, -3:], causal=True))
    assert mask[:, 0, 0].tolist() == [[True] * TK, [False] * 4 + [True] * 3]


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_a_layer_turns_part_of_the_features_at_given_speeds(pairing):
    speeds, gain = ac.positions.rope_speeds(4, kind="yarn", factor=4.0, length=100)
    options = {"rope_dim": 4, "rope_speeds": speeds, "rope_gain": gain}
    layer = MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope=pairing, **options, **DOUBLE)
    x = rand(B, TK, WIDTH)
    own = {"rope_dim": 4, "speeds": torch.from_numpy(speeds), "gain": gain, "pairing": pairing}
    expected = expected_of(shake(layer), x, range(TK), **own)

    assert torch.allclose(layer(x, causal=True), expected)
    assert "rope_dim=4" in repr(layer)
    low = copy.deepcopy(layer).half().double()  # the speeds are no parameter, and stay as they are
    far = torch.arange(TK) + 100_000
    assert torch.allclose(low(x, causal=True, positions=far), expected_of(low, x, far, **own))
    for given_as in (torch.from_numpy(speeds), speeds.tolist()):
        options["rope_speeds"] = given_as
        again = MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope=pairing, **options, **DOUBLE)
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again(x, causal=True), layer(x, causal=True))


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("rope", [None, "half"])
def test_queries_and_keys_are_normed_before_they_turn(gain, rope):
    options = {"qk_norm": True, "qk_gain": gain, "norm_eps": 0.3, "rope": rope}
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **options, **DOUBLE))
    plain = MultiHeadAttention(WIDTH, HEADS, **DOUBLE)
    state = layer.state_dict()
    plain.load_state_dict({n: p for n, p in state.items() if "norm" not in n})
    x = rand(B, TK, WIDTH)
    q, k, v = functional.heads(plain, x, None)
    q, k = (a / (a.pow(2).mean(-1, keepdim=True) + 0.3).sqrt() for a in (q, k))
    if gain:
        q, k = q * state["q_norm.weight"], k * state["k_norm.weight"]
    if rope:
        q, k = (ac.positions.rope(a, range(TK)) for a in (q, k))
    expected = plain.out_proj(ac.attention(q, k, v).transpose(1, 2).flatten(2))

    assert torch.allclose(layer(x), expected)
    assert ("q_norm.weight" in state) == gain
    layer.reset_parameters()
    assert all((p == 1).all() for n, p in layer.named_parameters() if "norm" in n)
    cross = shake(MultiHeadAttention(WIDTH, HEADS, qk_norm=True, context_dim=8, **DOUBLE))
    assert cross(x, rand(B, TQ, 8)).shape == x.shape


def test_a_scale_may_be_given_or_learned():
    x = rand(B, TK, WIDTH)
    layer = shake(MultiHeadAttention(WIDTH, HEADS, scale="learned", **DOUBLE))
    layer.reset_parameters()
    assert layer.scale.item() == (WIDTH // HEADS) ** -0.5
    plain = MultiHeadAttention(WIDTH, HEADS, **DOUBLE)
    plain.load_state_dict({n: p for n, p in layer.state_dict().items() if n != "scale"})
    assert torch.allclose(layer(x), plain(x))
    layer(x).pow(2).sum().backward()
    assert layer.scale.grad.abs() > 1e-6

    twice = MultiHeadAttention(WIDTH, HEADS, scale=2 * (WIDTH // HEADS) ** -0.5, **DOUBLE)
    twice.load_state_dict(plain.state_dict())
    q, k, v = functional.heads(plain, x, None)
    expected = ac.attention_weights(2 * q, k)
    assert torch.allclose(twice.weights(x), expected)
    assert torch.allclose(twice(x, need_weights=True)[1], expected)
    mixed = (expected @ v).transpose(1, 2).flatten(2)
    assert torch.allclose(twice(x), plain.out_proj(mixed))


@pytest.mark.parametrize("bias", [True, False])
def test_the_weights_come_with_the_output_as_torchs_do(bias):
    ours, theirs = twins(bias)
    x, keep = rand(B, TQ, WIDTH), ac.masks.causal(TQ, like=rand(1))
    expected = theirs(x, x, x, attn_mask=~keep, average_attn_weights=False)
    found = ours(x, mask=keep, need_weights=True)

    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    assert torch.allclose(found[0], ours(x, mask=keep))
    assert torch.equal(found[1], ours.weights(x, mask=keep))
    # The weights are those that made the output: they have a gradient, and what looks at them
    # may change them.
    assert found[1].requires_grad
    y, weights = ours(x, need_weights=True, look=lambda n, a: 0 * a if n == "weights" else None)
    assert (weights == 0).all()
    assert torch.allclose(y, ours.out_proj(torch.zeros_like(x)))
    shared = shake(MultiHeadAttention(WIDTH, 6, 2, **DOUBLE))
    y, weights = shared(x, need_weights=True, causal=True, lengths=[3, 5])
    assert torch.allclose(y, shared(x, causal=True, lengths=[3, 5]))
    assert weights.shape == (B, 6, TQ, TQ)


@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_the_weights_come_with_a_cache_too(kind):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = kind(B, HEADS, TK, layer.head_dim, like=x)
    with torch.no_grad():
        y, weights = layer(x, causal=True, need_weights=True)
        layer(x[:, :4], cache=cache)
        last, seen = layer(x[:, 4:], cache=cache, need_weights=True)

    assert torch.allclose(last, y[:, 4:])
    assert torch.allclose(seen, weights[:, :, 4:])


@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_all_options_at_once_under_autocast(kind):
    speeds, gain = ac.positions.rope_speeds(4, kind="yarn", factor=2.0, length=64)
    options = {"rope": "half", "rope_dim": 4, "rope_speeds": speeds, "rope_gain": gain}
    layer = MultiHeadAttention(16, 2, qk_norm=True, scale="learned", **options)
    x = rand(B, TK, 16).float()
    cache = kind(B, 2, TK, 8, like=x.bfloat16())
    whole = layer(x, causal=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        parts = [layer(part, cache=cache) for part in x.split([4, 1, 2], dim=1)]

    assert parts[0].dtype == torch.bfloat16
    assert (torch.cat(parts, dim=1) - whole).abs().max() < whole.abs().max() / 30


def test_a_window_over_a_cache_that_keeps_everything():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = ac.KVCache(B, HEADS, TK, layer.head_dim, like=x)
    with torch.no_grad():
        whole = layer(x, window=2)
        parts = [layer(part, window=2, cache=cache) for part in x.split([3, 1, 2, 1], dim=1)]

    assert torch.allclose(torch.cat(parts, dim=1), whole)


def test_a_mask_over_a_cache_that_keeps_everything():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x, lengths = rand(B, TK, WIDTH), torch.tensor([TK, 2])
    cache = ac.KVCache(B, HEADS, TK, layer.head_dim, like=x)
    with torch.no_grad():
        whole = layer(x, mask=ac.masks.padding(lengths, TK), causal=True)
        layer(x[:, :4], cache=cache)
        rest = [
            layer(
                x[:, i : i + 1], mask=ac.masks.padding(lengths.clamp(max=i + 1), i + 1), cache=cache
            )
            for i in range(4, TK)
        ]

    assert torch.allclose(torch.cat(rest, dim=1), whole[:, 4:])


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        ({"window": 2}, ValueError,
         r"window \(2\) must be that of the cache \(3\): leave it out, or make the cache with "
         r"window=2"),
        ({"window": 9}, ValueError, r"window \(9\) must be that of the cache \(3\)"),
        ({"window": 2.5}, TypeError, r"window must be an integer, got float"),
        ({"mask": torch.ones(1, 3, dtype=torch.bool)}, ValueError,
         r"mask cannot be used with a cache that has a window \(3\), which keeps no order; "
         r"make the cache without window= and pass window= here"),
    ],
)  # fmt: skip
def test_what_a_ring_cannot_serve_is_refused(refused, kind, message, n):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = ac.KVCache(B, HEADS, TK, layer.head_dim, window=3, like=x)
    with torch.no_grad():
        whole = layer(x, window=3)
        layer(x[:, :4], cache=cache)
        with pytest.raises(kind, match=message):
            layer(x[:, 4 : 4 + n], cache=cache, **refused)

        assert cache.length == 4
        after = layer(x[:, 4 : 4 + n], window=3, cache=cache)
    assert torch.allclose(after, whole[:, 4 : 4 + n])


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        ({"mask": torch.ones(1, 99, dtype=torch.bool)}, ValueError,
         r"mask \(1, 99\) does not broadcast to the scores \(2, 3, 1, 4\)"),
        ({"mask": torch.ones(1, 4)}, TypeError, r"mask must be boolean"),
        ({"window": 0}, ValueError, r"window must be at least 1"),
    ],
)  # fmt: skip
def test_a_failed_call_appends_nothing(refused, kind, message):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    cache = ac.KVCache(B, HEADS, TK, layer.head_dim, like=x)
    with torch.no_grad():
        layer(x[:, :3], cache=cache)
        with pytest.raises(kind, match=message):
            layer(x[:, 3:4], cache=cache, **refused)

        assert cache.length == 3
        after = layer(x[:, 3:], cache=cache)
    assert torch.allclose(after, layer(x, causal=True)[:, 3:])


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_under_autocast_any_cache_will_do(rows, kept, kind):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE)).float()
    x = rand(B, TK, WIDTH).to(rows)
    cache = kind(B, HEADS, TK, layer.head_dim, like=x.to(kept))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole = layer(x, causal=True)
        parts = [layer(part, cache=cache) for part in x.split([4, 1, 2], dim=1)]

    assert whole.dtype == parts[0].dtype == torch.bfloat16
    assert (torch.cat(parts, dim=1) - whole).abs().max() < whole.abs().max() / 50
    with torch.no_grad(), pytest.raises(TypeError, match=r"k is float32, the cache float64"):
        layer(x.float(), cache=ac.KVCache(B, HEADS, TK, layer.head_dim, like=rand(1)))


@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_all_is_made_where_the_parameters_are(kind):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, rope="half", **DOUBLE))
    x = rand(B, TK, WIDTH)
    with torch.no_grad():
        expected = layer(x, window=3)
        with torch.device("meta"):  # whatever forgot to say where would be made there
            cache = kind(B, HEADS, TK, layer.head_dim, like=x)
            parts = [layer(part, window=3, cache=cache) for part in x.split([4, 1, 2], dim=1)]
            weights = layer.weights(x, lengths=[TK, 2])

    assert torch.allclose(torch.cat(parts, dim=1), expected)
    assert weights.device.type == "cpu"


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


@pytest.mark.parametrize("context_dim", [None, 8])
def test_the_same_seed_gives_torchs_start_when_new_and_when_reset(context_dim):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=context_dim, vdim=context_dim, **DOUBLE)
    torch.manual_seed(0)
    new = MultiHeadAttention(WIDTH, HEADS, context_dim=context_dim, **DOUBLE)
    reset = shake(copy.deepcopy(new))
    torch.manual_seed(0)
    reset.reset_parameters()

    for name, parameter in theirs.named_parameters():
        assert torch.equal(new.get_parameter(name), parameter)
        assert torch.equal(reset.get_parameter(name), parameter)


# -- softcap, sinks, dropout ------------------------------------------------------------------

OPTIONS = {"softcap": 0.7, "sinks": True}


@pytest.mark.parametrize("rope", [None, "half"])
def test_softcap_and_sinks_are_those_of_attention(rope):
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope=rope, **OPTIONS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    q, k, v = functional.heads(layer, x, None)
    given = {"causal": True, "softcap": 0.7, "sinks": layer.sinks}
    mixed = ac.attention(q, k, v, **given)
    expected = layer.out_proj(mixed.transpose(1, 2).flatten(2))
    weights = ac.attention_weights(q, k, **given)

    assert torch.allclose(layer(x, causal=True), expected, atol=1e-12)
    assert torch.allclose(layer.weights(x, causal=True), weights)
    for found, wanted in zip(
        layer(x, causal=True, need_weights=True), (expected, weights), strict=True
    ):
        assert torch.allclose(found, wanted, atol=1e-12)
    layer(x, causal=True).pow(2).sum().backward()
    assert (layer.sinks.grad != 0).all()
    assert "softcap=0.7" in repr(layer)
    layer.reset_parameters()
    assert (layer.sinks == 0).all()
    twin = models.MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope=rope, **OPTIONS, rng=0)
    assert (twin.sinks == 0).all()
    twin.load_state_dict(shake(layer).state_dict())
    expected = layer(x, causal=True).detach().numpy()
    assert np.allclose(twin(x.numpy(), causal=True), expected, atol=1e-12)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_softcap_and_sinks_hold_with_a_cache(kind, window):
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, head_dim=8, rope="half", **OPTIONS, **DOUBLE))
    x = rand(B, TK, WIDTH)
    ring = {"window": window} if kind is ac.KVCache else {}
    cache = kind(B, 2, TK, 8, like=x, **ring)
    with torch.no_grad():
        whole = layer(x, causal=True, window=window)
        parts = [layer(part, cache=cache, window=window) for part in x.split([3, 1, 2, 1], dim=1)]

    assert torch.allclose(torch.cat(parts, dim=1), whole)


def test_dropout_is_for_training_and_follows_the_seed():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, dropout=0.5, **DOUBLE))
    plain = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE))
    x = rand(B, 50, WIDTH)
    torch.manual_seed(3)
    one, two = layer(x), layer(x)
    torch.manual_seed(3)
    generator = torch.Generator()
    generator.set_state(torch.get_rng_state())
    q, k, v = functional.heads(layer, x, None)
    mixed = ac.attention(q, k, v, dropout=0.5, generator=generator)

    assert torch.allclose(one, layer.out_proj(mixed.transpose(1, 2).flatten(2)))
    torch.manual_seed(3)
    assert torch.equal(layer(x), one)
    assert not torch.allclose(one, two)
    mean = torch.stack([layer(x) for _ in range(300)]).mean(0)
    assert (mean - plain(x)).abs().max() < (one - plain(x)).abs().max() / 5
    assert torch.equal(layer.eval()(x), plain(x))
    assert "dropout=0.5" in repr(layer)
    assert "dropout" not in repr(plain)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it
def test_dropout_compiles_around_its_generator():
    torch.compiler.reset()
    layer = shake(MultiHeadAttention(WIDTH, HEADS, dropout=0.5, **DOUBLE))
    compiled, x = torch.compile(layer, backend="eager"), rand(B, TQ, WIDTH)
    found = []
    for call in (layer, compiled, compiled):
        torch.manual_seed(5)
        found.append(call(x))

    assert torch.allclose(found[0], found[1])
    assert torch.allclose(found[0], found[2])
    with pytest.raises(Exception, match=r"dropout cannot be recorded: the program would drop"):
        torch.export.export(layer, (x,), strict=False)
    assert torch.allclose(torch.export.export(layer.eval(), (x,)).module()(x), layer(x))


def test_the_weights_that_are_seen_are_those_that_dropout_left():
    layer = shake(MultiHeadAttention(WIDTH, HEADS, dropout=0.4, **DOUBLE))
    x, kept = rand(B, TQ, WIDTH), {}
    _, _, v = functional.heads(layer, x, None)
    y, weights = layer(x, need_weights=True)
    other = layer(x, look=functional.into(kept))
    for out, seen in ((y, weights), (other, kept["weights"])):
        assert 0.1 < (seen == 0).double().mean() < 0.8
        assert torch.allclose(out, layer.out_proj((seen @ v).transpose(1, 2).flatten(2)))


def test_a_block_and_a_decoder_pass_the_options_on():
    block = Block(WIDTH, HEADS, cross=True, dropout=0.3, **OPTIONS)
    for layer in (block.attention, block.cross):
        assert (layer.softcap, layer.dropout, len(layer.sinks)) == (0.7, 0.3, HEADS)
    with pytest.raises(TypeError, match=r"dropout is no option: those of attention are rope"):
        models.Block(WIDTH, HEADS, dropout=0.3)
    sizes = {"d_model": 12, "layers": 2, "heads": 6, "kv_heads": 2, "context": 30}
    ours = Decoder("abcd", **sizes, rope="half", head_dim=4, **OPTIONS, dropout=0.2).double()
    shake(ours).eval()
    prompt = torch.tensor([[0, 1, 2, 3], [3, 1, 1, 0]])
    text = ours.generate(prompt, 20)
    assert torch.equal(text, ours.generate(prompt, 20, cached=False))
    twin = models.Decoder("abcd", **sizes, rope="half", head_dim=4, **OPTIONS, rng=0)
    twin.load_state_dict(ours.state_dict())
    assert twin.generate(prompt.numpy(), 20).tolist() == text.tolist()
    assert np.allclose(twin(text.numpy()), ours(text).detach().numpy(), atol=1e-10)


# -- a context that is read once --------------------------------------------------------------


@pytest.mark.parametrize("context_dim", [None, 8])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_cross_cache_stands_for_its_context(context_dim, qk_norm):
    options = {"context_dim": context_dim, "qk_norm": qk_norm, "head_dim": 4, "sinks": True}
    layer = shake(MultiHeadAttention(WIDTH, 6, 2, **options, **DOUBLE))
    twin = models.MultiHeadAttention(WIDTH, 6, 2, **options, rng=0)
    twin.load_state_dict(layer.state_dict())
    x, context = rand(B, TQ, WIDTH), rand(B, TK, context_dim or WIDTH, seed=1)
    mask = torch.rand(TQ, TK, generator=torch.Generator().manual_seed(0)) < 0.7
    for lengths in (None, [TK, 2]):
        with torch.no_grad():
            cache = layer.cross_cache(context, lengths=lengths)
            expected = layer(x, context, mask, lengths=lengths)
            found = layer(x, cache, mask)
        assert torch.allclose(found, expected)
        assert torch.equal(
            layer.weights(x, cache, mask), layer.weights(x, context, mask, lengths=lengths)
        )
        own = twin.cross_cache(context.numpy(), lengths=lengths)
        assert type(own.k) is np.ndarray
        assert np.allclose(twin(x.numpy(), own, mask.numpy()), expected.numpy(), atol=1e-12)
        cache.select([1, 1, 0])  # as beam search does
        assert torch.allclose(layer(x[[1, 1, 0]], cache, mask), expected[[1, 1, 0]])


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
def test_a_cross_cache_serves_under_autocast(rows):
    layer = shake(MultiHeadAttention(WIDTH, HEADS, **DOUBLE)).float()
    x, context = rand(B, TQ, WIDTH).to(rows), rand(B, TK, WIDTH, seed=1).float()
    with torch.no_grad():
        kept = layer.cross_cache(context)
        with torch.autocast("cpu", torch.bfloat16):
            whole = layer(x, context)
            for cache in (kept, layer.cross_cache(context)):
                found = layer(x, cache)
                assert found.dtype == torch.bfloat16
                assert (found - whole).abs().max() < whole.abs().max() / 50


def test_a_block_reads_a_cross_cache():
    block = shake(Block(WIDTH, HEADS, 1, cross=True)).double()
    x, context = rand(B, TQ, WIDTH), rand(B, TK, WIDTH, seed=1)
    own = ac.KVCache(B, 1, TQ, WIDTH // HEADS, like=x)
    with torch.no_grad():
        expected = block(x, context, causal=True)
        cross = block.cross.cross_cache(context)
        parts = [block(part, cross, cache=own) for part in x.split([2, 1, 2], dim=1)]

    assert torch.allclose(torch.cat(parts, dim=1), expected)


Z = torch.zeros
TURNS = MultiHeadAttention(12, 3, rope="half")
CROSS = ac.CrossKVCache(Z(1, 3, 7, 4), Z(1, 3, 7, 4))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: MultiHeadAttention(10, 3), ValueError,
         r"heads \(3\) must divide d_model \(10\), or give"),
        (lambda: MultiHeadAttention(12, 6, 4), ValueError,
         r"heads \(6\) must be a multiple of kv_heads \(4\)"),
        (lambda: MultiHeadAttention(0, 2), ValueError, r"d_model must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 0), ValueError, r"heads must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 2, 0), ValueError, r"kv_heads must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 2, head_dim=0), ValueError,
         r"head_dim must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 2, head_dim=-4), ValueError,
         r"head_dim must be at least 1, got -4"),
        (lambda: MultiHeadAttention(8, 2, context_dim=0), ValueError,
         r"context_dim must be at least 1, got 0"),
        (lambda: MultiHeadAttention(8, 2.0), TypeError, r"heads must be an integer, got float"),
        (lambda: MultiHeadAttention(12, 3, rope="llama"), ValueError,
         r"pairing must be one of half, interleaved, got 'llama'"),
        (lambda: MultiHeadAttention(12, 4, rope="half"), ValueError,
         r"D must be even and positive, got 3"),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_base=-1), ValueError,
         r"base must be positive and finite, got -1"),
        (lambda: MultiHeadAttention(12, 3, rope="half")(Z(1, 5, 12), Z(1, 5, 12)), ValueError,
         r"rope is for self-attention: a context has positions of its own"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 8)), ValueError,
         r"x must be \(..., T, d_model = 12\), got \(1, 5, 8\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12).long()), TypeError,
         r"x must be floating point, got int64"),
        (lambda: MultiHeadAttention(12, 3)(np.zeros((1, 5, 12))), TypeError,
         r"x must be a torch tensor, got ndarray: use torch.from_numpy\(x\)"),
        (lambda: MultiHeadAttention(12, 3).weights([[1.0] * 12]), TypeError,
         r"x must be a torch tensor, got list"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12).double()), TypeError,
         r"x is float64, the parameters are float32: use x.to\(torch.float32\), or make the "
         r"model in float64"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12, device="meta")), ValueError,
         r"on one device: x on meta, parameters on cpu; move them with"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12).to_sparse()), TypeError,
         r"x must be dense and not nested: pad it, or use x.to_dense\(\)"),
        (lambda: MultiHeadAttention(12, 3)(torch.nested.nested_tensor(
            [Z(5, 12)], layout=torch.jagged)), TypeError,
         r"x must be dense and not nested: pad it"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), np.zeros((1, 5, 12))), TypeError,
         r"context must be a torch tensor, got ndarray: use torch.from_numpy\(context\); pass"),
        (lambda: MultiHeadAttention(12, 3, context_dim=8)(Z(1, 5, 12), Z(1, 5, 8).half()),
         TypeError, r"context is float16, the parameters are float32"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), mask=np.ones((5, 5), bool)), TypeError,
         r"do not mix: mask NumPy"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), cache=[]), TypeError,
         r"cache must be a KVCache, got list"),
        (lambda: Block(12.0, 3), TypeError, r"d_model must be an integer, got float"),
        (lambda: Block(12, 3)(np.zeros((1, 5, 12))), TypeError,
         r"x must be a torch tensor, got ndarray"),
        (lambda: Block(12, 3)(Z(1, 5, 12).double()), TypeError,
         r"x is float64, the parameters are float32"),
        (lambda: Block(12, 3)(Z(1, 5, 8)), ValueError, r"x must be \(..., T, d_model = 12\), got"),
        (lambda: Block(12, 3)(Z(1, 5, 12).long()), TypeError, r"x must be floating point, got int"),
        (lambda: Block(12, 3)(Z(1, 5, 12, device="meta")), ValueError,
         r"on one device: x on meta, parameters on cpu"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), Z(1, 5, 8)), ValueError,
         r"context must be \(..., T, context_dim = 12\), got \(1, 5, 8\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(5, 12), Z(12)), ValueError,
         r"context must be \(..., T, context_dim = 12\), got \(12,\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), Z(5, 5).bool()), TypeError,
         r"context must be floating point, got bool; pass a mask as mask="),
        (lambda: MultiHeadAttention(12, 3, context_dim=8)(Z(1, 5, 12)), ValueError,
         r"a context of width 8 is needed"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), Z(1, 5, 12), cache=ac.KVCache(1, 3, 9, 4)),
         ValueError, r"a cache is for self-attention"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), lengths=[5], cache=ac.KVCache(1, 3, 9, 4)),
         ValueError, r"lengths cannot be used with a cache, whose rows are all one length"),
        (lambda: MultiHeadAttention(12, 3)(Z(5, 12), cache=ac.KVCache(1, 3, 9, 4)), ValueError,
         r"with a cache x must be \(B, T, d_model\), got \(5, 12\)"),
        (lambda: MultiHeadAttention(12, 3, rope_dim=2), ValueError,
         r"rope_dim, rope_speeds and rope_gain need rope=, such as 'half'"),
        (lambda: MultiHeadAttention(12, 3, rope_speeds=[1.0]), ValueError, r"need rope="),
        (lambda: MultiHeadAttention(12, 3, rope_gain=2.0), ValueError, r"need rope="),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_dim=3), ValueError,
         r"rope_dim must be even, from 2 to the width, 4, got 3"),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_dim=6), ValueError,
         r"rope_dim must be even, from 2 to the width, 4, got 6"),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_speeds=[1.0]), ValueError,
         r"speeds must be one for each pair that turns, \(2,\), got \(1,\): give rope_dim="),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_speeds=Z(2).half()), TypeError,
         r"speeds must be floats of 32 bits at least, got float16, in which angles"),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_speeds=Z(2, device="meta")),
         ValueError, r"rope_speeds is on meta"),
        (lambda: MultiHeadAttention(12, 3, rope="half", rope_gain=0), ValueError,
         r"rope_gain must be positive and finite, got 0"),
        (lambda: MultiHeadAttention(12, 3, qk_norm=1), TypeError, r"qk_norm must be True or False"),
        (lambda: MultiHeadAttention(12, 3, qk_gain=None), TypeError, r"qk_gain must be True or Fa"),
        (lambda: MultiHeadAttention(12, 3, norm_eps=0), ValueError, r"norm_eps must be positive"),
        (lambda: MultiHeadAttention(12, 3, scale="auto"), ValueError,
         r"scale must be one of learned, got 'auto'"),
        (lambda: MultiHeadAttention(12, 3, scale=np.inf), ValueError, r"scale must be finite, got"),
        (lambda: MultiHeadAttention(12, 3, scale=[1.0]), TypeError, r"scale must be a number, got"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), positions=range(5)), ValueError,
         r"positions are for rope: make the layer with rope='half'"),
        (lambda: TURNS(Z(1, 5, 12), positions=range(4)), ValueError,
         r"positions must be \(T,\) = \(5,\), or have an axis for each of \(..., T\) = \(1, 5\)"),
        (lambda: TURNS(Z(2, 5, 12), positions=Z(3, 5)), ValueError, r"got \(3, 5\)"),
        (lambda: TURNS(Z(2, 5, 12), positions=Z(2, 3, 5)), ValueError, r"got \(2, 3, 5\)"),
        (lambda: TURNS(Z(2, 5, 12), positions=Z(5).bfloat16()), TypeError,
         r"positions must be integers or floats of 32 bits at least, got bfloat16"),
        (lambda: TURNS(Z(2, 5, 12), positions=Z(5).bool()), TypeError,
         r"positions must hold real numbers, got bool"),
        (lambda: TURNS(Z(2, 5, 12), positions=np.arange(5)), TypeError, r"do not mix: positions"),
        (lambda: TURNS(Z(2, 5, 12), positions=Z(5, device="meta")), ValueError,
         r"on one device: positions on meta, x on cpu"),
        (lambda: TURNS.weights(Z(2, 5, 12), positions=range(4)), ValueError, r"positions must be"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), need_weights=1), TypeError,
         r"need_weights must be True or False, got int"),
        (lambda: MultiHeadAttention(12, 3, softcap=0), ValueError,
         r"softcap must be positive and finite, got 0"),
        (lambda: MultiHeadAttention(12, 3, softcap="1"), TypeError, r"softcap must be a number"),
        (lambda: MultiHeadAttention(12, 3, sinks=np.zeros(3)), TypeError,
         r"sinks must be True or False, got ndarray"),
        (lambda: MultiHeadAttention(12, 3, dropout=1.0), ValueError,
         r"dropout must be at least 0 and below 1, got 1.0"),
        (lambda: MultiHeadAttention(12, 3, dropout=None), TypeError, r"dropout must be a number"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), cache=CROSS), TypeError,
         r"cache must be a KVCache: give a CrossKVCache in place of the context"),
        (lambda: MultiHeadAttention(12, 3, 1)(Z(1, 5, 12), CROSS), ValueError,
         r"context must be a CrossKVCache of 1 key/value heads of width 4, as "
         r"layer.cross_cache\(context\) makes it, got k \(1, 3, 7, 4\), v \(1, 3, 7, 4\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(2, 5, 12), CROSS), ValueError,
         r"with a CrossKVCache of 1 contexts x must be \(1, T, d_model\), got \(2, 5, 12\): use "
         r"cache.select\(rows\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(5, 12), CROSS), ValueError,
         r"x must be \(1, T, d_model\), got \(5, 12\)"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), CROSS, lengths=[3]), ValueError,
         r"lengths are kept by the CrossKVCache: give them to layer.cross_cache\(context\)"),
        (lambda: TURNS(Z(1, 5, 12), CROSS), ValueError, r"rope is for self-attention"),
        (lambda: TURNS.cross_cache(Z(1, 5, 12)), ValueError, r"rope is for self-attention"),
        (lambda: MultiHeadAttention(12, 3).double()(Z(1, 5, 12).double(), CROSS), TypeError,
         r"arrays must share one dtype: q float64, k float32"),
        (lambda: models.MultiHeadAttention(12, 3)(np.zeros((1, 5, 12)), CROSS), TypeError,
         r"do not mix: q NumPy, k, v torch"),
        (lambda: MultiHeadAttention(12, 3)(Z(1, 5, 12), CROSS, cache=ac.KVCache(1, 3, 9, 4)),
         ValueError, r"a cache is for self-attention: a context never grows"),
        (lambda: MultiHeadAttention(12, 3).cross_cache(Z(5, 12)), ValueError,
         r"context must be \(B, Tk, context_dim\), got \(5, 12\): use context\[None\] for one"),
        (lambda: MultiHeadAttention(12, 3).cross_cache(Z(1, 5, 8)), ValueError,
         r"context must be \(..., T, context_dim = 12\), got \(1, 5, 8\)"),
        (lambda: MultiHeadAttention(12, 3).cross_cache(Z(1, 5, 12)), ValueError,
         r"k needs a gradient, which a cache cannot pass on: decode under torch.no_grad\(\)"),
        (lambda: MultiHeadAttention(12, 3).requires_grad_(False).cross_cache(
            Z(1, 5, 12), lengths=[6]), ValueError, r"lengths must lie in 0 to Tk = 5, got \[6\]"),
        (lambda: Block(12, 3, norm="batch"), ValueError, r"norm must be one of layer, rms"),
        (lambda: Block(12, 3, network="relu"), ValueError, r"network must be one of gelu, swiglu"),
        (lambda: Block(12, 3, d_ff=0), ValueError, r"d_ff must be at least 1, got 0"),
        (lambda: Block(12, 3, norm_eps=-1), ValueError, r"norm_eps must be positive and finite"),
        (lambda: Block(12, 3, block_dropout=0.1), TypeError,
         r"block_dropout is no option: those of attention are rope, rope_base, rope_dim, rope_s"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
