"""Hugging Face's and torch's attention equal ours, in value and in gradient."""

import pytest
import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close
from transformers import (
    AttentionInterface,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    GPT2Model,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
)
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.gemma2 import modeling_gemma2 as gemma2
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.gpt_oss import modeling_gpt_oss as gpt_oss
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


def attend_with_options(module, q, k, v, mask, *, scaling, softcap=None, s_aux=None, **options):
    """Stand in for Hugging Face's attention, softcap, sinks and window included."""
    window = options["sliding_window"]
    found = ac.attention(
        q, k, v, causal=True, window=window, scale=scaling, softcap=softcap, sinks=s_aux
    )
    return found.transpose(1, 2), None


AttentionInterface.register("attncore options", attend_with_options)
# Gemma2 takes its softmax in float32, and so both do their angles.
FLOAT32 = {"rtol": 2e-6, "atol": 2e-6}
SIZES = {"hidden_size": WIDTH, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": D}


def capped(window, implementation):
    """Hugging Face's Gemma2 attention; the softcap is so low that it shows."""
    config = Gemma2Config(
        **SIZES,
        query_pre_attn_scalar=3,
        attn_logit_softcapping=0.2,
        sliding_window=WINDOW,
        layer_types=["sliding_attention" if window else "full_attention"],
        num_hidden_layers=1,
        attn_implementation=implementation,
    )
    return shake(gemma2.Gemma2Attention(config, layer_idx=0)), gemma2.Gemma2RotaryEmbedding(config)


def sunk(window, implementation):
    """Hugging Face's GPT-OSS attention, with a sink in each head."""
    config = GptOssConfig(
        **SIZES,
        sliding_window=WINDOW,
        layer_types=["sliding_attention" if window else "full_attention"],
        num_hidden_layers=1,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        attn_implementation=implementation,
    )
    return shake(gpt_oss.GptOssAttention(config, layer_idx=0)), gpt_oss.GptOssRotaryEmbedding(
        config
    )


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("make", [capped, sunk])
def test_softcap_and_sinks_equal_gemma2_and_gpt_oss(make, window):
    x = leaf(B, T, WIDTH)
    (theirs, rope), (ours, _) = make(window, "eager"), make(window, "attncore options")
    turn = rope(x, torch.arange(T)[None])
    hidden = ~ac.masks.causal(T, window=window, like=x)
    mask = torch.zeros(1, 1, T, T, dtype=x.dtype).masked_fill(hidden, -torch.inf)
    expected, _ = theirs(x, turn, mask)
    found, _ = ours(x, turn, None)

    assert_close(found, expected, **FLOAT32)
    assert_close(
        gradients(found, x, *ours.parameters()),
        gradients(expected, x, *theirs.parameters()),
        **FLOAT32,
    )
    with torch.no_grad():  # the sinks by the fused kernel
        assert_close(ours(x, turn, None)[0], expected, **FLOAT32)


class Theirs(torch.nn.Module):
    """What their functions read of a layer."""

    def __init__(self, sinks):
        super().__init__()
        self.num_key_value_groups, self.head_dim, self.sinks = H // G, D, sinks
        self.eval()


@pytest.mark.parametrize("name", ["softcap", "sinks"])
def test_their_functions_equal_ours(name):
    q, k, v = (5 * rand(B, n, T, D, seed=n) for n in (H, G, G + H))
    v = v[:, :G]
    leaves = [a.requires_grad_() for a in (q, k, v.clone(), torch.linspace(-2, 2, H).double())]
    q, k, v, sinks = leaves
    module = Theirs(torch.nn.Parameter(sinks.detach()))
    mask = torch.zeros(1, 1, T, T).double().masked_fill(~ac.masks.causal(T, like=q), -torch.inf)
    if name == "softcap":
        expected, A = gemma2.eager_attention_forward(module, q, k, v, mask, softcap=3.0)
        options, wanted = {"softcap": 3.0}, (q, k, v)
        theirs = wanted
    else:
        expected, A = gpt_oss.eager_attention_forward(module, q, k, v, mask, scaling=D**-0.5)
        options, wanted, theirs = {"sinks": sinks}, leaves, (q, k, v, module.sinks)
    found = ac.attention(q, k, v, causal=True, **options).transpose(1, 2)

    assert_close(found, expected, **FLOAT32)
    assert_close(ac.attention_weights(q, k, causal=True, **options), A, **FLOAT32)
    assert_close(gradients(found, *wanted), gradients(expected, *theirs), rtol=2e-5, atol=2e-5)
    assert (ac.attention(q, k, v, causal=True).transpose(1, 2) - found).abs().max() > 0.01


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
