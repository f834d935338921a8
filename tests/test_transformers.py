"""Attention of well-known models, as transformers has it, rebuilt from attncore's public parts.

Each family is a function: it makes a tiny module of transformers with random weights, and says how
to call it and how to compute the same here, from the module's own weights. Values are compared, and
the gradients of x and of each weight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import transformers as hf
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear
from torch.testing import assert_close
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.models.bart.modeling_bart import BartAttention
from transformers.models.bert.modeling_bert import BertSelfAttention
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.gemma2.modeling_gemma2 import Gemma2Attention
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3RotaryEmbedding
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding
from transformers.models.mistral.modeling_mistral import MistralAttention
from transformers.models.phi.modeling_phi import PhiAttention, PhiRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention
from transformers.models.t5.modeling_t5 import T5Attention

import attncore as ac
from attncore.nn import Decoder, LatentAttention, MultiHeadAttention

B, T, WIDTH, H, G, D = 2, 13, 30, 6, 2, 8
START = 40  # beyond the 32 tokens that the models are said to be trained on
LENGTHS = [T, 5]
ANGLES = {"rtol": 2e-5, "atol": 2e-5}  # theirs, and some of their norms, are in float32
EXACT = {"rtol": 1e-10, "atol": 1e-10}
SIZES = {
    "hidden_size": WIDTH,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": D,
    "attn_implementation": "sdpa",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


class Family(NamedTuple):
    module: nn.Module
    theirs: Callable[[torch.Tensor], torch.Tensor]
    ours: Callable[[torch.Tensor], torch.Tensor]
    tolerance: dict[str, float]


def rand(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def shake(module):
    """Give every parameter, the zero biases too, a value that shows if it is lost."""
    module.double().eval()  # without dropout
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(rand(*parameter.shape, seed=100 + i) / 4)
    return module


def layer(state, x, context=None, *, call=None, **options):
    """Run our layer on weights that are made of theirs, so that gradients reach theirs."""
    options = {"head_dim": D, "bias": False, **options}
    ours = MultiHeadAttention(WIDTH, H, dtype=torch.float64, **options)
    assert state.keys() == ours.state_dict().keys()
    return functional_call(ours, state, (x, context), call or {"causal": True})


def joined(q, k, v, out):
    """Return our parameters, made of the maps of theirs."""
    maps = {"in_proj_weight": torch.cat([q.weight, k.weight, v.weight])}
    if q.bias is not None:
        maps["in_proj_bias"] = torch.cat([q.bias, k.bias, v.bias])
    return {**maps, **{f"out_proj.{name}": value for name, value in out.named_parameters()}}


def decoder_only(module, rotation, norms=None, name="o_proj", **options):
    """A family of grouped heads that turn, behind a causal mask."""
    config, places = module.config, torch.arange(START, START + T)
    window, call = getattr(module, "sliding_window", None), {"causal": True}
    make = create_sliding_window_causal_mask if window else create_causal_mask
    call["window"] = options.pop("window", window)

    def theirs(x):
        mask = make(config, x, attention_mask=None, past_key_values=None)
        return module(x, rotation(x, places[None]), mask)[0]

    def ours(x):
        state = joined(module.q_proj, module.k_proj, module.v_proj, getattr(module, name))
        if getattr(module, "sinks", None) is not None:
            state["sinks"] = module.sinks
        if norms is not None:
            state |= {f"{n}_norm.weight": norms(getattr(module, f"{n}_norm").weight) for n in "qk"}
        return layer(state, x, call={**call, "positions": places}, kv_heads=G, **options)

    return Family(module, theirs, ours, ANGLES)


def llama3(**change):
    config = hf.LlamaConfig(**SIZES, rope_parameters=LLAMA3)
    settings = {"kind": "llama3", "factor": 4.0, "length": 32, "low": 1, "high": 4}
    speeds, _ = ac.positions.rope_speeds(D, base=500.0, **settings)
    options = {"rope": "half", "rope_speeds": speeds, **change}
    module = shake(LlamaAttention(config, layer_idx=0))
    return decoder_only(module, LlamaRotaryEmbedding(config), **options)


def llama_yarn(**change):
    rope = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}
    rope["original_max_position_embeddings"] = 32
    config = hf.LlamaConfig(**SIZES, rope_parameters=rope, max_position_embeddings=128)
    made = ac.positions.rope_speeds(D, base=500.0, kind="yarn", factor=4.0, length=32)
    options = {"rope": "half", **dict(zip(("rope_speeds", "rope_gain"), made, strict=True))}
    module = shake(LlamaAttention(config, layer_idx=0))
    return decoder_only(module, LlamaRotaryEmbedding(config), **{**options, **change})


def qwen3(**change):
    config = hf.Qwen3Config(**SIZES, rms_norm_eps=0.1)
    module = shake(Qwen3Attention(config, layer_idx=0))
    options = {"rope": "half", "qk_norm": True, "norm_eps": 0.1, **change}
    return decoder_only(module, LlamaRotaryEmbedding(config), lambda gain: gain, **options)


def gemma3(kind="sliding_attention", **change):
    config = hf.Gemma3TextConfig(
        **SIZES, num_hidden_layers=1, layer_types=[kind], sliding_window=4, query_pre_attn_scalar=5
    )
    module = shake(Gemma3Attention(config, layer_idx=0))
    turning = Gemma3RotaryEmbedding(config)
    base = config.rope_parameters[kind]["rope_theta"]
    options = {"rope": "half", "rope_base": base, "qk_norm": True, "norm_eps": 1e-6}
    options |= {"scale": 5**-0.5, **change}
    return decoder_only(
        module, lambda x, places: turning(x, places, kind), lambda gain: 1 + gain, **options
    )


def gemma2(**change):
    config = hf.Gemma2Config(
        **SIZES | {"attn_implementation": "eager"}, num_hidden_layers=1, sliding_window=4,
        layer_types=["sliding_attention"], query_pre_attn_scalar=5, attn_logit_softcapping=0.5,
    )  # fmt: skip
    module = shake(Gemma2Attention(config, layer_idx=0))
    options = {"rope": "half", "scale": 5**-0.5, "softcap": 0.5, **change}
    return decoder_only(module, LlamaRotaryEmbedding(config), **options)


def gpt_oss(kind="sliding_attention", **change):
    rope = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "truncate": False}
    rope["original_max_position_embeddings"] = 32
    config = hf.GptOssConfig(
        **SIZES | {"attn_implementation": "eager"}, num_hidden_layers=1, layer_types=[kind],
        sliding_window=4, rope_parameters=rope, max_position_embeddings=128,
    )  # fmt: skip
    made = ac.positions.rope_speeds(
        D, base=500.0, kind="yarn", factor=4.0, length=32, truncate=False
    )
    module = shake(GptOssAttention(config, layer_idx=0))
    options = dict(zip(("rope_speeds", "rope_gain"), made, strict=True))
    options |= {"rope": "half", "bias": True, "sinks": True, "softcap": None, **change}
    return decoder_only(module, GptOssRotaryEmbedding(config), **options)


def deepseek_v3(absorb, q_rank=7, **change):
    config = hf.DeepseekV3Config(
        hidden_size=WIDTH, num_attention_heads=H, num_key_value_heads=H, kv_lora_rank=10,
        q_lora_rank=q_rank, qk_nope_head_dim=D, qk_rope_head_dim=4, v_head_dim=6,
        attention_bias=True, attn_implementation="sdpa",
    )  # fmt: skip
    module, places = shake(DeepseekV3Attention(config, layer_idx=0)), torch.arange(START, START + T)
    turning = DeepseekV3RotaryEmbedding(config)
    options = {"head_dim": D, "value_dim": 6, "q_rank": q_rank, "bias": True, **change}
    layer = LatentAttention(WIDTH, H, 10, 4, dtype=torch.float64, **options)

    def theirs(x):
        mask = create_causal_mask(config, x, attention_mask=None, past_key_values=None)
        return module(x, turning(x, places[None]), mask)[0]

    def ours(x):
        state = dict(module.named_parameters())
        assert state.keys() == layer.state_dict().keys()
        call = {"causal": True, "positions": places, "absorb": absorb}
        return functional_call(layer, state, (x,), call)

    return Family(module, theirs, ours, ANGLES)


def mistral(**change):
    config = hf.MistralConfig(**SIZES, sliding_window=4)
    module = shake(MistralAttention(config, layer_idx=0))
    module.sliding_window = 4
    return decoder_only(module, LlamaRotaryEmbedding(config), **{"rope": "half", **change})


def phi(**change):
    sizes = {**SIZES, "hidden_size": H * D}  # it has no head_dim
    del sizes["head_dim"]
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = hf.PhiConfig(**sizes, rope_parameters=rope)
    module = shake(PhiAttention(config, layer_idx=0))
    places = torch.arange(START, START + T)

    def theirs(x):
        mask = create_causal_mask(config, x, attention_mask=None, past_key_values=None)
        return module(x, PhiRotaryEmbedding(config)(x, places[None]), mask)[0]

    options = {"rope": "half", "rope_dim": D // 2, **change}
    wide = MultiHeadAttention(H * D, H, G, dtype=torch.float64, **options)

    def ours(x):
        state = joined(module.q_proj, module.k_proj, module.v_proj, module.dense)
        return functional_call(wide, state, (x,), {"causal": True, "positions": places})

    return Family(module, theirs, ours, ANGLES)


def gpt2(causal=True):
    config = hf.GPT2Config(n_embd=WIDTH, n_head=H, attn_implementation="sdpa")
    module = shake(GPT2Attention(config, layer_idx=0))

    def theirs(x):
        mask = create_causal_mask(config, x, attention_mask=None, past_key_values=None)
        return module(x, attention_mask=mask)[0]

    def ours(x):
        state = {  # they keep weights as (inputs, outputs)
            "in_proj_weight": module.c_attn.weight.mT,
            "in_proj_bias": module.c_attn.bias,
            "out_proj.weight": module.c_proj.weight.mT,
            "out_proj.bias": module.c_proj.bias,
        }
        return layer(state, x, head_dim=None, bias=True, call={"causal": causal})

    return Family(module, theirs, ours, EXACT)


def bert(lengths=LENGTHS):
    config = hf.BertConfig(
        hidden_size=WIDTH, num_attention_heads=H, attn_implementation="sdpa", is_decoder=False
    )
    module = shake(BertSelfAttention(config))
    nothing = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)  # its output map is another module
    with torch.no_grad():
        nothing.weight.copy_(torch.eye(WIDTH))
        nothing.bias.zero_()

    def ours(x):
        state = joined(module.query, module.key, module.value, nothing)
        return layer(state, x, head_dim=None, bias=True, call={"lengths": lengths})

    keep = ac.masks.padding(torch.tensor(LENGTHS), T)
    return Family(module, lambda x: module(x, keep)[0], ours, EXACT)


def bart(lengths=LENGTHS):
    config = hf.BartConfig(attn_implementation="sdpa")
    module = shake(BartAttention(WIDTH, H, config=config))
    context = rand(B, T, WIDTH, seed=9)
    keep = ac.masks.padding(torch.tensor(LENGTHS), T)

    def theirs(x):
        return module(x[:, :4], context, attention_mask=keep)[0]

    def ours(x):
        state = joined(module.q_proj, module.k_proj, module.v_proj, module.out_proj)
        call = {"lengths": lengths}
        return layer(state, x[:, :4], context, head_dim=None, bias=True, call=call)

    return Family(module, theirs, ours, EXACT)


def t5(scale=1.0):
    config = hf.T5Config(
        d_model=WIDTH, d_kv=D, num_heads=H, relative_attention_num_buckets=8,
        relative_attention_max_distance=9, is_decoder=True, attn_implementation="eager",
    )  # fmt: skip
    module = shake(T5Attention(config, has_relative_attention_bias=True, layer_idx=0))
    keep = ac.masks.causal(T, like=torch.empty(0))
    hidden = torch.where(keep, 0.0, -1e30)[None, None].double()

    def ours(x):
        q, k, v = (
            linear(x, m.weight).unflatten(-1, (H, D)).transpose(1, 2)
            for m in (module.q, module.k, module.v)
        )
        away = ac.positions.distances(T, like=x)
        bucket = ac.positions.t5_bucket(away, buckets=8, max_distance=9, causal=True)
        table = module.relative_attention_bias.weight.mT  # (H, buckets)
        mixed = ac.attention(q, k, v, causal=True, bias=table[:, bucket], scale=scale)
        return linear(mixed.transpose(1, 2).flatten(2), module.o.weight)

    return Family(module, lambda x: module(x, mask=hidden)[0], ours, EXACT)


FAMILIES: dict[str, tuple[Callable[..., Family], dict[str, Any]]] = {
    "Llama 3": (llama3, {"rope_speeds": None, "rope_base": 500.0}),
    "Llama with YaRN": (llama_yarn, {"rope_gain": 1.0}),
    "Qwen3": (qwen3, {"norm_eps": 1e-6}),
    "Gemma3, a window": (gemma3, {"window": None}),
    "Gemma3, no window": (lambda **change: gemma3("full_attention", **change), {"scale": None}),
    "Gemma2": (gemma2, {"softcap": None}),
    "GPT-OSS, a window": (gpt_oss, {"window": None}),
    "GPT-OSS, no window": (lambda **change: gpt_oss("full_attention", **change), {"softcap": 0.5}),
    "DeepSeek-V3": (lambda **change: deepseek_v3(False, **change), {"scale": 0.5}),
    "DeepSeek-V3, absorbed": (lambda **change: deepseek_v3(True, **change), {"rope": "half"}),
    "DeepSeek-V3, queries not compressed": (
        lambda **change: deepseek_v3(None, None, **change),
        {"norm_eps": 0.1},
    ),
    "Mistral": (mistral, {"window": 5}),
    "Phi": (phi, {"rope_dim": None}),
    "GPT-2": (gpt2, {"causal": False}),
    "BERT": (bert, {"lengths": None}),
    "BART": (bart, {"lengths": None}),
    "T5": (t5, {"scale": None}),
}
"""Each with a change of what is ours, that must show."""

each = pytest.mark.parametrize("name", FAMILIES)


def gradients(output, *inputs):
    # The mean, not the sum, so that they are below 1 and the tolerances mean something.
    return torch.autograd.grad(output.pow(2).mean(), inputs)


@each
def test_values_and_gradients_are_the_same(name):
    family = FAMILIES[name][0]()
    x = rand(B, T, H * D if name == "Phi" else WIDTH).requires_grad_()
    expected, found = family.theirs(x), family.ours(x)
    inputs = (x, *family.module.parameters())

    assert len(inputs) > 4
    assert_close(found, expected, **family.tolerance)
    assert_close(gradients(found, *inputs), gradients(expected, *inputs), **family.tolerance)


def test_without_its_sinks_gpt_oss_would_be_another():
    family = gpt_oss()
    x = rand(B, T, WIDTH)
    found = family.ours(x)
    with torch.no_grad():
        family.module.sinks.fill_(-torch.inf)

    assert (family.ours(x) - found).abs().max() > 1e-3


@each
def test_a_change_would_show(name):
    family, change = FAMILIES[name]
    x = rand(B, T, H * D if name == "Phi" else WIDTH)
    expected, found = family().theirs(x), family(**change).ours(x)

    assert (found - expected).abs().max() > 1e-3


# -- whole models ----------------------------------------------------------------------------

LETTERS = "abcdefghijk"
WHOLE = {
    **SIZES,
    "num_hidden_layers": 2,
    "intermediate_size": 25,
    "vocab_size": len(LETTERS),
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "rms_norm_eps": 1e-4,
}


def whole_llama3():
    config = hf.LlamaConfig(**WHOLE, rope_parameters=LLAMA3, tie_word_embeddings=False)
    speeds, _ = ac.positions.rope_speeds(D, base=500.0, kind="llama3", factor=4.0, length=32)
    return hf.LlamaForCausalLM(config), {"tied": False, "rope_speeds": speeds}


def whole_qwen3():
    config = hf.Qwen3Config(**WHOLE, tie_word_embeddings=True)
    return hf.Qwen3ForCausalLM(config), {"qk_norm": True, "rope_base": 10000.0}


def as_ours(theirs, tied):
    """Return the state of our Decoder, made of theirs."""
    state = {"embedding.weight": theirs.model.embed_tokens.weight}
    for n, block in enumerate(theirs.model.layers):
        own = block.self_attn
        attention = joined(own.q_proj, own.k_proj, own.v_proj, own.o_proj)
        attention |= {name: p for name, p in own.named_parameters() if "_norm" in name}
        parts = {
            **{f"attention.{name}": value for name, value in attention.items()},
            "norm1.weight": block.input_layernorm.weight,
            "norm2.weight": block.post_attention_layernorm.weight,
            "gate.weight": block.mlp.gate_proj.weight,
            "up.weight": block.mlp.up_proj.weight,
            "down.weight": block.mlp.down_proj.weight,
        }
        state |= {f"blocks.{n}.{name}": value for name, value in parts.items()}
    state["norm.weight"] = theirs.model.norm.weight
    return state if tied else {**state, "output.weight": theirs.lm_head.weight}


@pytest.mark.parametrize("make", [whole_llama3, whole_qwen3], ids=["Llama 3", "Qwen3"])
def test_whole_models_are_the_same_and_write_the_same(make):
    theirs, options = make()
    shake(theirs)
    ours = Decoder(
        LETTERS, d_model=WIDTH, layers=2, heads=H, kv_heads=G, context=64, head_dim=D, rope="half",
        norm="rms", norm_eps=1e-4, network="swiglu", d_ff=25, **options,
    ).double()  # fmt: skip
    state = as_ours(theirs, options.get("tied", True))
    assert state.keys() == ours.state_dict().keys()
    tokens = torch.randint(len(LETTERS), (3, 40), generator=torch.Generator().manual_seed(1))
    expected, found = theirs(tokens).logits, functional_call(ours, state, (tokens,))
    weights = tuple(theirs.parameters())

    def of_loss(logits):
        loss = cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        return torch.autograd.grad(loss, weights)

    assert_close(found, expected, **ANGLES)
    assert_close(of_loss(found), of_loss(expected), **ANGLES)

    ours.load_state_dict(state)
    tokens, left = ours.encode_batch(["abcabdk", "kj", "hgfedc"])
    real = (torch.arange(tokens.shape[1]) >= left[:, None]).long()
    greedy = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0}
    text = theirs.generate(tokens, attention_mask=real, **greedy)
    assert ours.generate(tokens, 30, left_padding=left).tolist() == text.tolist()
    assert len(set(text[:, 7:].flatten().tolist())) > 2
