"""Hugging Face's and torch's attention equal ours, in value and in gradient."""

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from transformers import (
    AttentionInterface,
    DynamicCache,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    MistralConfig,
)
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
)
from transformers.models.mistral.modeling_mistral import MistralAttention

import attncore as ac
from attncore.nn import MultiHeadAttention

B, T, WIDTH, H, G, D, WINDOW = 5, 11, 30, 6, 2, 4, 3
TQ = 7  # fewer queries than the T keys
GPT2_WIDTH, GPT2_HEADS, VOCABULARY = 21, 3, 59  # more words than the B * T places

DOUBLE = {"rtol": 1e-12, "atol": 1e-12}  # float64, summed in another order
# "eager" Llama and Mistral take the softmax in float32 whatever the inputs: a few roundings.
CLOSE = {"sdpa": DOUBLE, "eager": {"rtol": 2e-6, "atol": 2e-6}}

implementations = pytest.mark.parametrize("implementation", ["eager", "sdpa"])
backends = pytest.mark.parametrize("backend", ["reference", "fused"])
windows = pytest.mark.parametrize("window", [None, WINDOW], ids=["Llama", "Mistral"])


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def leaf(*shape, seed=0):
    return rand(*shape, seed=seed).requires_grad_()


def shake(module):
    """Give every parameter, the zero biases too, a value that shows if it is lost."""
    module.double().eval()  # without dropout
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            # A quarter keeps the scores near 1: no weight is almost 0 or 1.
            parameter.copy_(rand(*parameter.shape, seed=100 + i) / 4)
    return module


def gradients(output, *inputs):
    # The mean, not the sum, so that they are below 1 and the tolerances mean something.
    return torch.autograd.grad(output.pow(2).mean(), inputs)


def grouped(implementation="sdpa", window=None):
    """Hugging Face's Llama attention, or with a window Mistral's: H query heads, G others."""
    sizes = {"hidden_size": WIDTH, "num_attention_heads": H, "num_key_value_heads": G}
    options = {**sizes, "head_dim": D, "attn_implementation": implementation}
    if window is None:
        return shake(LlamaAttention(LlamaConfig(**options), layer_idx=0))
    config = MistralConfig(sliding_window=window, **options)
    return shake(MistralAttention(config, layer_idx=0))


def their_mask(config, x, cache=None):
    window = getattr(config, "sliding_window", None)
    make = create_causal_mask if window is None else create_sliding_window_causal_mask
    return make(config, x, attention_mask=None, past_key_values=cache)


def rotation(theirs, x, start=0):
    positions = torch.arange(start, start + x.shape[1])[None]
    return LlamaRotaryEmbedding(theirs.config)(x, positions)


def queries_keys_values(theirs, x, cos, sin):
    """Their maps and their rotation; the G key and value heads are not repeated."""
    maps = (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    q, k, v = (linear(x).unflatten(-1, (-1, D)).transpose(1, 2) for linear in maps)
    return *apply_rotary_pos_emb(q, k, cos, sin), v


def out(theirs, mixed):
    return theirs.o_proj(mixed.transpose(1, 2).flatten(2))


@backends
@implementations
@windows
def test_grouped_heads_equal_llama_and_mistral(window, implementation, backend):
    theirs, x = grouped(implementation, window), leaf(B, T, WIDTH)
    turn = rotation(theirs, x)
    expected, _ = theirs(x, turn, their_mask(theirs.config, x))
    heads = queries_keys_values(theirs, x, *turn)
    found = out(theirs, ac.attention(*heads, causal=True, window=window, backend=backend))
    inputs = (x, *theirs.parameters())

    assert len(inputs) == 5
    assert_close(found, expected, **CLOSE[implementation])
    assert_close(gradients(found, *inputs), gradients(expected, *inputs), **CLOSE[implementation])


@implementations
def test_the_layer_equals_llama_without_rotation(implementation):
    theirs, x = grouped(implementation), leaf(B, T, WIDTH)
    ours = MultiHeadAttention(WIDTH, H, G, head_dim=D, bias=False, dtype=torch.float64)
    maps = [theirs.q_proj.weight, theirs.k_proj.weight, theirs.v_proj.weight]
    ours.load_state_dict(
        {"in_proj_weight": torch.cat(maps), "out_proj.weight": theirs.o_proj.weight}
    )
    still = (torch.ones(1, T, D, dtype=x.dtype), torch.zeros(1, T, D, dtype=x.dtype))
    expected, _ = theirs(x, still, their_mask(theirs.config, x))
    found = ours(x, causal=True)
    their_x, *their_maps, their_out = gradients(expected, x, *maps, theirs.o_proj.weight)

    assert_close(found, expected, **CLOSE[implementation])
    assert_close(
        gradients(found, x, ours.in_proj_weight, ours.out_proj.weight),
        (their_x, torch.cat(their_maps), their_out),
        **CLOSE[implementation],
    )


@implementations
@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_the_layer_with_rope_equals_llama(implementation, base):
    sizes = {"hidden_size": WIDTH, "num_attention_heads": H, "num_key_value_heads": G}
    config = LlamaConfig(
        **sizes,
        head_dim=D,
        attn_implementation=implementation,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    theirs, x = shake(LlamaAttention(config, layer_idx=0)), rand(B, T, WIDTH)
    ours = MultiHeadAttention(
        WIDTH, H, G, head_dim=D, bias=False, rope="half", rope_base=base, dtype=torch.float64
    )
    maps = [theirs.q_proj.weight, theirs.k_proj.weight, theirs.v_proj.weight]
    ours.load_state_dict(
        {"in_proj_weight": torch.cat(maps), "out_proj.weight": theirs.o_proj.weight}
    )
    cache = ac.KVCache(B, G, T, D, like=x)
    with torch.no_grad():
        expected, _ = theirs(x, rotation(theirs, x), their_mask(config, x))
        parts = [ours(part, cache=cache) for part in x.split((4, 1, 6), dim=1)]
        ours.rope = "interleaved"
        mixed = ours(x, causal=True)

    # Their angles are in float32.
    assert_close(torch.cat(parts, dim=1), expected, rtol=2e-6, atol=2e-6)
    assert (mixed - expected).abs().max() > 0.01


def gpt2_config(implementation):
    return GPT2Config(
        n_embd=GPT2_WIDTH,
        n_head=GPT2_HEADS,
        n_layer=2,
        n_positions=T,
        vocab_size=VOCABULARY,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation=implementation,
    )


def turned(parameter):
    """GPT-2 keeps weights as (inputs, outputs), torch's Linear as (outputs, inputs)."""
    return parameter.mT if parameter.ndim == 2 else parameter


@implementations
def test_the_layer_equals_gpt2(implementation):
    config = gpt2_config(implementation)
    theirs, x = shake(GPT2Attention(config, layer_idx=0)), leaf(B, T, GPT2_WIDTH)
    ours = MultiHeadAttention(GPT2_WIDTH, GPT2_HEADS, dtype=torch.float64)
    weights = (theirs.c_attn.weight, theirs.c_attn.bias, theirs.c_proj.weight, theirs.c_proj.bias)
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    ours.load_state_dict(dict(zip(names, map(turned, weights), strict=True)))
    expected, _ = theirs(x, attention_mask=their_mask(config, x))
    found = ours(x, causal=True)
    their_x, *their_weights = gradients(expected, x, *weights)

    assert_close(found, expected, **DOUBLE)
    assert_close(
        gradients(found, x, *map(ours.get_parameter, names)),
        (their_x, *map(turned, their_weights)),
        **DOUBLE,
    )


@pytest.mark.parametrize("splits", [(T,), (4, 1, 1, 2, 3), (1, 2, 8), (1,) * T], ids=str)
@backends
@windows
def test_decoding_equals_llama_and_mistral(window, backend, splits):
    theirs, x = grouped(window=window), rand(B, T, WIDTH)
    their_cache = DynamicCache(config=theirs.config)
    our_cache = ac.KVCache(B, G, T, D, window=window, like=x)
    expected, found = [], []
    with torch.no_grad():
        whole, _ = theirs(x, rotation(theirs, x), their_mask(theirs.config, x))
        for new in x.split(splits, dim=1):
            turn = rotation(theirs, new, start=our_cache.length)
            mask = their_mask(theirs.config, new, their_cache)
            expected.append(theirs(new, turn, mask, past_key_values=their_cache)[0])
            q, k, v = queries_keys_values(theirs, new, *turn)
            k, v = our_cache.append(k, v)
            mixed = ac.attention(q, k, v, causal=True, window=window, backend=backend)
            found.append(out(theirs, mixed))

    assert_close(torch.cat(found, dim=1), torch.cat(expected, dim=1), **DOUBLE)
    assert_close(torch.cat(found, dim=1), whole, **DOUBLE)


def test_a_window_counts_the_querys_own_key_as_mistral_does():
    config = grouped(window=WINDOW).config
    mask = their_mask(config, rand(B, T, WIDTH))

    assert (mask == ac.masks.window(T, size=WINDOW, like=mask)).all()


def attend(module, q, k, v, no_mask, *, keep, **options):
    """Stand in for Hugging Face's attention, which makes no mask for one it does not know."""
    return ac.attention(q, k, v, keep, causal=True).transpose(1, 2), None


AttentionInterface.register("attncore", attend)


@implementations
def test_left_padding_equals_gpt2(implementation):
    theirs, ours = (shake(GPT2Model(gpt2_config(name))) for name in (implementation, "attncore"))
    lengths = torch.tensor([T, 7, 4, 1, 2])
    keep = ac.masks.padding(lengths, T).flip(-1)
    real = torch.arange(T) >= T - lengths[:, None]  # (B, T)
    words = torch.arange(B * T).view(B, T)  # all different: each has a gradient of its own
    expected = theirs(words, attention_mask=real.long()).last_hidden_state[real]
    found = ours(words, keep=keep).last_hidden_state[real]

    assert_close(found, expected, **DOUBLE)
    assert_close(
        gradients(found, *ours.parameters()), gradients(expected, *theirs.parameters()), **DOUBLE
    )


@pytest.mark.parametrize(
    "mask",
    [causal_lower_right(TQ, T), ac.masks.causal(TQ, T, like=torch.empty(0))],
    ids=["causal_lower_right", "our mask"],
)
@pytest.mark.parametrize("repeat", [False, True], ids=["enable_gqa", "repeated"])
@backends
def test_fewer_queries_than_keys_equal_torch(mask, repeat, backend):
    q, k, v = leaf(B, H, TQ, D), leaf(B, G, T, D, seed=1), leaf(B, G, T, D, seed=2)
    found = ac.attention(q, k, v, causal=True, backend=backend)
    wide = [a.repeat_interleave(H // G, dim=1) if repeat else a for a in (k, v)]
    expected = scaled_dot_product_attention(q, *wide, mask, enable_gqa=not repeat)

    assert_close(found, expected, **DOUBLE)
    assert_close(gradients(found, q, k, v), gradients(expected, q, k, v), **DOUBLE)


@backends
def test_torchs_is_causal_leaves_the_last_keys_out(backend):
    q, k, v = leaf(B, H, TQ, D), leaf(B, H, T, D, seed=1), leaf(B, H, T, D, seed=2)
    expected = scaled_dot_product_attention(q, k, v, is_causal=True)
    found = ac.attention(q, k[:, :, :TQ], v[:, :, :TQ], causal=True, backend=backend)

    assert_close(found, expected, **DOUBLE)
    assert_close(gradients(found, q, k, v), gradients(expected, q, k, v), **DOUBLE)
