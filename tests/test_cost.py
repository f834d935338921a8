"""Costs are what torch allocates and computes, and what the authors of models published."""

from dataclasses import asdict, replace

import decoding
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import gelu, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

import attncore as ac
from attncore import cost
from attncore.nn import Decoder, whale

ODD = cost.Sizes(
    d_model=42, layers=3, heads=6, kv_heads=2, head_dim=7, d_ff=168, vocabulary=11, positions=29,
    tied=True, network_bias=True, norm_bias=True,
)  # fmt: skip
PUBLISHED = {
    "GPT-2 small": 124_439_808,
    "Gemma 2B": 2_506_172_416,
    "Llama 2 7B": 6_738_415_616,
    "Mistral 7B": 7_241_732_096,
    "Qwen2 7B": 7_615_616_512,
    "Llama 3 8B": 8_030_261_248,
}
sizes_drawn = st.builds(
    lambda groups, **more: cost.Sizes(heads=groups * more["kv_heads"], **more),
    groups=st.integers(1, 5),
    **dict.fromkeys(
        ["d_model", "layers", "kv_heads", "head_dim", "d_ff", "vocabulary"], st.integers(1, 13)
    ),
    positions=st.integers(0, 7),
    norms=st.sampled_from([1, 2, 4]),
    **dict.fromkeys(
        ["gated", "tied", "qkv_bias", "out_bias", "network_bias", "logits_bias", "norm_bias"],
        st.booleans(),
    ),
    qk_norm=st.booleans(),
)


def decoder(sizes):
    """Return our model of these sizes."""
    return Decoder(
        "abcdefghijk"[: sizes.vocabulary],
        d_model=sizes.d_model,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        context=sizes.positions,
    )


def shapes(sizes):
    """Yield the shape of every parameter, one by one."""
    d, inner, shared = sizes.d_model, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    yield from [(sizes.vocabulary, d), (sizes.positions, d)]
    for _ in range(sizes.layers):
        for width in (inner, shared, shared):
            yield d, width
            if sizes.qkv_bias:
                yield (width,)
        yield inner, d
        if sizes.out_bias:
            yield (d,)
        for _ in range(2 if sizes.gated else 1):
            yield d, sizes.d_ff
            if sizes.network_bias:
                yield (sizes.d_ff,)
        yield sizes.d_ff, d
        if sizes.network_bias:
            yield (d,)
    widths = [d] * sizes.norms + [sizes.head_dim] * 2 * sizes.qk_norm
    for width in [*widths * sizes.layers, d]:
        yield (width,)
        if sizes.norm_bias:
            yield (width,)
    if not sizes.tied:
        yield d, sizes.vocabulary
    if sizes.logits_bias:
        yield (sizes.vocabulary,)


@given(sizes=sizes_drawn)
def test_parameters_are_those_of_all_shapes(sizes):
    assert cost.params(sizes) == sum(torch.Size(shape).numel() for shape in shapes(sizes))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_published(name):
    assert cost.params(cost.MODELS[name]) == PUBLISHED[name]


def test_gemma_outside_its_embedding_is_as_its_report_says():
    parts = cost.params_by_part(cost.MODELS["Gemma 2B"])

    assert sum(parts.values()) - parts["embedding"] == 1_981_884_416


@pytest.mark.parametrize(
    ("sizes", "published", "config"),
    [
        pytest.param(
            cost.Sizes(
                d_model=1024, layers=28, heads=16, kv_heads=8, head_dim=128, d_ff=3072,
                vocabulary=151936, gated=True, tied=True, qk_norm=True,
            ), 596_049_920,
            Qwen3Config(
                hidden_size=1024, num_hidden_layers=28, num_attention_heads=16,
                num_key_value_heads=8, head_dim=128, intermediate_size=3072, vocab_size=151936,
                tie_word_embeddings=True,
            ), id="Qwen3-0.6B",
        ),
        pytest.param(
            cost.Sizes(
                d_model=2304, layers=26, heads=8, kv_heads=4, head_dim=256, d_ff=9216,
                vocabulary=256000, gated=True, tied=True, norms=4,
            ), 2_614_341_888,
            Gemma2Config(
                hidden_size=2304, num_hidden_layers=26, num_attention_heads=8,
                num_key_value_heads=4, head_dim=256, intermediate_size=9216, vocab_size=256000,
            ), id="Gemma 2 2B",
        ),
        pytest.param(
            cost.Sizes(
                d_model=2560, layers=32, heads=32, kv_heads=32, head_dim=80, d_ff=10240,
                vocabulary=51200, qkv_bias=True, out_bias=True, network_bias=True,
                logits_bias=True, norm_bias=True, norms=1,
            ), 2_779_683_840,
            PhiConfig(
                hidden_size=2560, num_hidden_layers=32, num_attention_heads=32,
                intermediate_size=10240, vocab_size=51200,
            ), id="Phi-2",
        ),
    ],
)  # fmt: skip
def test_other_norms_and_biases_are_counted(sizes, published, config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parts = cost.params_by_part(sizes)
    norms = [p.numel() for n, p in model.named_parameters() if "norm" in n]

    assert cost.params(sizes) == published
    assert sum(p.numel() for p in model.parameters()) == published
    assert parts["norms"] == sum(norms)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("GPT-2 small", GPT2Config()),  # the defaults of the first three are these models
        ("Llama 2 7B", LlamaConfig()),
        ("Mistral 7B", MistralConfig()),
        ("Gemma 2B", GemmaConfig(
            hidden_size=2048, num_hidden_layers=18, num_attention_heads=8, num_key_value_heads=1,
            intermediate_size=16384,
        )),
        ("Qwen2 7B", Qwen2Config(
            hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
            intermediate_size=18944, vocab_size=152064, tie_word_embeddings=False,
        )),
        ("Llama 3 8B", LlamaConfig(
            num_key_value_heads=8, intermediate_size=14336, vocab_size=128256
        )),
    ],
)  # fmt: skip
def test_parameters_are_those_of_transformers(name, config):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)

    assert sum(p.numel() for p in model.parameters()) == cost.params(cost.MODELS[name])


def test_our_models_have_as_many_parameters():
    for sizes, model in ((ODD, decoder(ODD)), (cost.MODELS["whale"], whale())):
        parts = cost.params_by_part(sizes)
        attention = [p for n, p in model.named_parameters() if "attention" in n]

        assert sum(p.numel() for p in model.parameters()) == cost.params(sizes)
        assert sum(p.numel() for p in attention) == parts["attention"]
        assert parts["embedding"] == model.embedding.weight.numel() + model.position.weight.numel()
        assert parts["logits"] == 0


@pytest.mark.parametrize(("T", "past", "batch"), [(1, 0, 1), (1, 23, 5), (13, 0, 2), (7, 5, 3)])
def test_flops_are_those_torch_counts(T, past, batch):
    model = decoder(ODD).to("meta")
    tokens = torch.zeros(batch, past + T, dtype=torch.long, device="meta")
    with torch.no_grad():
        caches = model.new_caches(batch)
        if past:
            model(tokens[:, :past], caches)
        with FlopCounterMode(display=False) as counter:
            model(tokens[:, past:], caches)
    found = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    parts = cost.flops_by_part(ODD, T, past=past, batch=batch)

    assert found["aten.bmm"] == parts["scores"]
    assert counter.get_total_flops() == sum(parts.values())
    assert cost.flops(ODD, T, past=past, batch=batch) == sum(parts.values())


def test_the_backward_pass_takes_twice_as_many():
    model = decoder(ODD).to("meta")
    tokens = torch.zeros(2, 13, dtype=torch.long, device="meta")
    loss = model(tokens).sum()
    with FlopCounterMode(display=False) as counter:
        loss.backward()

    assert counter.get_total_flops() == 2 * cost.flops(ODD, 13, batch=2)


def kept_bytes(call, parameters):
    """Return the bytes of what autograd keeps of a call, each memory counted once."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    found = {}

    def pack(tensor):
        memory = tensor.untyped_storage()
        if memory.data_ptr() not in own:
            found[memory.data_ptr()] = memory  # held, so that no address is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result.requires_grad
    return sum(memory.nbytes() for memory in found.values())


@pytest.mark.parametrize(("T", "batch", "kv_heads"), [(13, 1, 6), (23, 3, 2), (5, 2, 1)])
def test_activations_are_what_autograd_keeps(T, batch, kv_heads):
    if torch.__version__ < (2, 9) and kv_heads != ODD.heads:
        pytest.skip("before torch 2.9 keys are repeated for grouped heads")
    sizes = replace(ODD, kv_heads=kv_heads)
    model = decoder(sizes)
    tokens = torch.zeros(batch, T, dtype=torch.long)
    kept = kept_bytes(lambda: model(tokens), model.parameters())

    assert kept == cost.activation_bytes(sizes, T, batch=batch)


@pytest.mark.parametrize("fused", [True, False])
def test_activations_of_a_gated_network_and_of_unfused_attention(fused):
    T, d, H, D, wide, N = 13, 15, 3, 5, 31, 7
    sizes = cost.Sizes(
        d_model=d, layers=1, heads=H, kv_heads=H, head_dim=D, d_ff=wide, vocabulary=N, gated=True
    )
    torch.manual_seed(0)
    table, into, out = nn.Embedding(N, d), nn.Linear(d, 3 * H * D, False), nn.Linear(H * D, d)
    gate, up, down = nn.Linear(d, wide), nn.Linear(d, wide), nn.Linear(wide, d)
    logits = nn.Linear(d, N)
    norms = [nn.LayerNorm(d) for _ in range(3)]
    modules = nn.ModuleList([table, into, out, gate, up, down, logits, *norms])
    modules.requires_grad_()

    def call():
        x = table(torch.zeros(1, T, dtype=torch.long))
        heads = into(norms[0](x)).unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()
        if fused:
            mixed = scaled_dot_product_attention(q, k, v)
        else:
            # matmul copies inputs with strides: the sum is of what it would keep in place
            mixed = torch.softmax(q @ k.mT, dim=-1) @ v
        x = x + out(mixed.transpose(1, 2).flatten(2))
        rows = norms[1](x)
        x = x + down(silu(gate(rows)) * up(rows))
        return logits(norms[2](x))

    kept = kept_bytes(call, modules.parameters())

    assert kept == cost.activation_bytes(sizes, T, fused=fused)


@pytest.mark.parametrize("norms", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_activations_with_other_norms(norms, qk_norm):
    T, d, H, G, D, wide, N = 13, 15, 3, 3, 5, 31, 7
    sizes = cost.Sizes(
        d_model=d, layers=1, heads=H, kv_heads=G, head_dim=D, d_ff=wide, vocabulary=N,
        logits_bias=True, norms=norms, qk_norm=qk_norm,
    )  # fmt: skip
    torch.manual_seed(0)
    table, out, logits = nn.Embedding(N, d), nn.Linear(H * D, d), nn.Linear(d, N)
    to_q, to_k, to_v = nn.Linear(d, H * D), nn.Linear(d, G * D), nn.Linear(d, G * D)
    up, down = nn.Linear(d, wide), nn.Linear(wide, d)
    before, between, after, late, last = (nn.LayerNorm(d) for _ in range(5))
    of_q, of_k = (nn.LayerNorm(D) if qk_norm else nn.Identity() for _ in range(2))
    if norms < 4:
        after, late = nn.Identity(), nn.Identity()
    modules = nn.ModuleList([table, out, logits, to_q, to_k, to_v, up, down, before, between])
    modules.extend([after, late, last, of_q, of_k]).requires_grad_()

    def attend(rows):
        q, k, v = (to(rows).unflatten(-1, (-1, D)) for to in (to_q, to_k, to_v))
        q, k, v = (x.transpose(1, 2) for x in (of_q(q), of_k(k), v))
        mixed = scaled_dot_product_attention(q, k, v)
        return after(out(mixed.transpose(1, 2).flatten(2)))

    def call():
        x = table(torch.zeros(1, T, dtype=torch.long))
        if norms == 1:
            rows = before(x)
            x = x + attend(rows) + down(gelu(up(rows)))
        else:
            x = x + attend(before(x))
            x = x + late(down(gelu(up(between(x)))))
        return logits(last(x))

    assert kept_bytes(call, modules.parameters()) == cost.activation_bytes(sizes, T)


@pytest.mark.parametrize(
    ("number_bytes", "found"),
    [(0.5625, 36_864), (np.float32(0.5625), 36_864), (9 / 16, 36_864), (0.1, 6_554), (1, 65_536)],
)
def test_packed_numbers_have_parts_of_bytes(number_bytes, found):
    sizes = cost.MODELS["Llama 3 8B"]  # 65,536 numbers for each token
    of = {"number_bytes": number_bytes}

    assert cost.kv_bytes(sizes, 1, **of) == found
    assert type(cost.kv_bytes(sizes, 1, **of)) is int
    assert cost.kv_bytes(sizes, 10**9, number_bytes=0.5625) == 36_864 * 10**9
    assert cost.read_bytes(sizes, number_bytes=0.5625) * 32 == cost.read_bytes(sizes) * 9
    less = cost.activation_bytes(sizes, 8, number_bytes=0.5) - 64
    assert less * 8 == cost.activation_bytes(sizes, 8) - 64


def test_published_memory_of_training():
    """Rajbhandari et al. (2020), figure 1: 7.5 billion parameters on 64 ranks."""
    sizes = cost.Sizes(
        d_model=1, layers=1, heads=1, kv_heads=1, head_dim=1, d_ff=1, vocabulary=1,
        positions=7_500_000_000 - 10, tied=True,
    )  # fmt: skip
    each = [cost.training_bytes(sizes, ranks=64, stage=stage) / 1e9 for stage in range(4)]

    assert cost.params(sizes) == 7_500_000_000
    assert [round(gigabytes, 1) for gigabytes in each] == [120, 31.4, 16.6, 1.9]


@given(sizes=sizes_drawn, ranks=st.integers(1, 9), stage=st.integers(0, 3), master=st.booleans())
def test_training_memory_of_all_ranks(sizes, ranks, stage, master):
    """What is spread is there once, in all ranks together, and the rest on each of them."""
    more = {"number_bytes": 2, "gradient_bytes": 6, "master": master}
    one = cost.training_bytes_by_part(sizes, **more)
    parts = cost.training_bytes_by_part(sizes, **more, ranks=ranks, stage=stage)
    spread = ["optimizer", "gradients", "parameters"][:stage]

    assert list(one.values()) == [n * cost.params(sizes) for n in (2, 6, 12 if master else 8)]
    assert sum(parts.values()) == cost.training_bytes(sizes, **more, ranks=ranks, stage=stage)
    for part, n in parts.items():
        assert 0 <= n * (ranks if part in spread else 1) - one[part] < ranks


def test_training_in_32_bits_takes_what_torch_allocates():
    model = decoder(ODD)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 5, dtype=torch.long)).sum().backward()
    optimizer.step()
    of = {"number_bytes": 4, "gradient_bytes": 4, "master": False}
    averages = [
        state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")
    ]

    assert cost.training_bytes_by_part(ODD, **of) == {
        "parameters": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters()),
        "optimizer": sum(average.nbytes for average in averages),
    }


@pytest.mark.parametrize(("T", "batch"), [(13, 1), (5, 3)])
def test_blocks_that_are_computed_again_keep_their_inputs(T, batch):
    model = decoder(ODD)
    tokens = torch.zeros(batch, T, dtype=torch.long)

    def call():
        x = model.embedding(tokens) + model.position.weight[:T]
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=True, preserve_rng_state=False)
        return model.norm(x) @ model.embedding.weight.T

    kept = kept_bytes(call, model.parameters())

    assert kept == cost.activation_bytes(ODD, T, batch=batch, recompute=True)


@given(sizes=sizes_drawn, T=st.integers(1, 50), batch=st.integers(1, 5), past=st.integers(0, 50))
def test_what_is_in_proportion(sizes, T, batch, past):
    whole = cost.flops_by_part(sizes, T, past=past, batch=batch)
    one = cost.flops_by_part(sizes, T, past=past)
    steps = [cost.flops_by_part(sizes, 1, past=past + t) for t in range(T)]

    assert whole == {part: batch * n for part, n in one.items()}
    for part in ("projections", "network", "logits"):
        assert one[part] == sum(step[part] for step in steps)
    skipped = 4 * sizes.layers * sizes.heads * sizes.head_dim * T * (T - 1) // 2  # a causal half
    assert one["scores"] - skipped == sum(step["scores"] for step in steps)
    assert cost.activation_bytes(sizes, T, batch=batch) == batch * cost.activation_bytes(sizes, T)
    kept = [cost.kv_bytes(sizes, n, batch=batch, number_bytes=1) for n in (past, T, past + T)]
    assert kept[0] + kept[1] == kept[2]


@given(sizes=sizes_drawn)
def test_sharing_heads_leaves_scores_and_network_alone(sizes):
    shared = replace(sizes, kv_heads=1)
    before, after = cost.flops_by_part(sizes, 5), cost.flops_by_part(shared, 5)

    assert cost.kv_bytes(sizes, 5) == sizes.kv_heads * cost.kv_bytes(shared, 5)
    assert {part for part in before if before[part] != after[part]} <= {"projections"}
    lost = 4 * 5 * sizes.layers * sizes.d_model * (sizes.kv_heads - 1) * sizes.head_dim
    assert before["projections"] - after["projections"] == lost


def test_kv_bytes_are_those_of_the_cache():
    model = decoder(ODD)
    caches = model.new_caches(batch=3, capacity=17)

    assert sum(cache.nbytes for cache in caches) == cost.kv_bytes(ODD, 17, batch=3, number_bytes=4)


def test_what_a_step_reads_is_what_the_benchmark_says():
    sizes = cost.Sizes(
        d_model=decoding.WIDTH, layers=decoding.LAYERS, heads=decoding.HEADS,
        kv_heads=decoding.HEADS, head_dim=decoding.WIDTH // decoding.HEADS,
        d_ff=4 * decoding.WIDTH, vocabulary=len(decoding.CHARACTERS), positions=decoding.CONTEXT,
        tied=True, network_bias=True, norm_bias=True,
    )  # fmt: skip
    read = cost.read_bytes(sizes, number_bytes=4)

    assert read == decoding.weight_bytes(decoding.models(torch.device("cpu"))[0])
    assert read == ac.data.speeds("cpu-2-cores")["weights_mb"] * 1e6
    more = cost.read_bytes(sizes, past=19, batch=5, number_bytes=4)
    assert more - read == cost.kv_bytes(sizes, 19, batch=5, number_bytes=4)


def test_a_table_that_is_only_looked_up_is_not_read():
    tied, untied = ODD, replace(ODD, tied=False)

    assert cost.params(untied) - cost.params(tied) == 11 * 42
    assert cost.read_bytes(untied) == cost.read_bytes(tied)
    assert cost.read_bytes(tied) == 2 * (cost.params(tied) - 29 * 42)


def counts(sizes, T, batch, number_bytes):
    """Return everything that can be counted of these sizes."""
    memory = {"batch": batch, "number_bytes": number_bytes}
    return [
        cost.params(sizes),
        *cost.params_by_part(sizes).values(),
        cost.flops(sizes, T, past=T, batch=batch),
        *cost.flops_by_part(sizes, T, past=T, batch=batch).values(),
        cost.activation_bytes(sizes, T, **memory),
        cost.activation_bytes(sizes, T, **memory, fused=False),
        cost.kv_bytes(sizes, T, **memory),
        cost.read_bytes(sizes, past=T, **memory),
        cost.read_bytes(sizes, number_bytes=number_bytes),
        *cost.training_bytes_by_part(sizes, ranks=batch, stage=3).values(),
    ]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integers_of_numpy_do_not_overflow(kind):
    llama = cost.MODELS["Llama 3 8B"]
    numbers = {n: v if isinstance(v, bool) else kind(v) for n, v in asdict(llama).items()}
    sizes = cost.Sizes(**numbers)
    found = counts(sizes, kind(2**30), kind(2**20), kind(4))  # FLOPs are above 2**63

    assert sizes == llama
    assert {type(number) for number in asdict(sizes).values()} == {int, bool}
    assert {type(number) for number in found} == {int}
    assert found == counts(llama, 2**30, 2**20, 4)


def test_sizes_that_cannot_be_are_refused():
    good = asdict(ODD)
    with pytest.raises(ValueError, match=r"heads \(6\) must be a multiple of kv_heads \(4\)"):
        cost.Sizes(**good | {"kv_heads": 4})
    for name in ("d_model", "layers", "heads", "kv_heads", "head_dim", "d_ff", "vocabulary"):
        with pytest.raises(ValueError, match=rf"^{name} must be at least 1, got 0"):
            cost.Sizes(**good | {name: 0})
        with pytest.raises(TypeError, match=rf"^{name} must be an integer, got float"):
            cost.Sizes(**good | {name: 2.0})
    with pytest.raises(ValueError, match="positions must not be negative, got -1"):
        cost.Sizes(**good | {"positions": -1})
    with pytest.raises(ValueError, match=r"norms must be 2 in each block, .* got 3"):
        cost.Sizes(**good | {"norms": 3})
    with pytest.raises(TypeError, match="gated must be True or False, got 1"):
        cost.Sizes(**good | {"gated": 1})


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: cost.flops(ODD, 0), ValueError, "T must be at least 1, got 0"),
        (lambda: cost.flops(ODD, 2.5), TypeError, "T must be an integer, got float"),
        (lambda: cost.flops(ODD, 1, past=-1), ValueError, "past must not be negative, got -1"),
        (lambda: cost.flops(ODD, 1, batch=0), ValueError, "batch must be at least 1, got 0"),
        (lambda: cost.kv_bytes(ODD, -1), ValueError, "T must not be negative, got -1"),
        (lambda: cost.read_bytes(ODD, past=-1), ValueError, "past must not be negative, got -1"),
        (
            lambda: cost.training_bytes(ODD, stage=4),
            ValueError,
            "stage must be 0, 1, 2 or 3, got 4",
        ),
        (lambda: cost.training_bytes(ODD, ranks=0), ValueError, "ranks must be at least 1, got 0"),
        (
            lambda: cost.training_bytes(ODD, gradient_bytes=-1),
            ValueError,
            "gradient_bytes must be positive and finite, got -1",
        ),
        (
            lambda: cost.activation_bytes(ODD, 1, number_bytes=0),
            ValueError,
            "number_bytes must be positive and finite, got 0",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(call, error, told):
    with pytest.raises(error, match=told):
        call()


def test_speeds_name_their_machine():
    found = ac.data.speeds("cpu-2-cores")

    assert found["threads"] == 2
    assert min(found["limits"].values()) > 1
    assert {row["group"] for row in found["rows"]} == {"attention", "layer", "decoding"}
    assert all(min(row["ms"].values()) > 0 for row in found["rows"])


def test_unknown_speeds_are_named():
    with pytest.raises(ValueError, match=r"no speeds of 'abacus': there are .*cpu-2-cores"):
        ac.data.speeds("abacus")
