"""NumPy's models and torch's are the same: one forward pass, one set of names."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import attncore as ac
from attncore import models, nn
from attncore.models import functional, ops
from attncore.nn.snapshot import snapshot

B, T, TK = 2, 7, 5
D64 = torch.float64
PAIRS = [("abc", "xyz"), ("cab", "zxy"), ("b", "y")]
LM = {"d_model": 20, "layers": 2, "heads": 5, "kv_heads": 1, "context": 23}
VIT = {"size": 2, "d_model": 12, "layers": 2, "heads": 3}


def twins(name, *sizes, **options):
    """Return torch's model in float64, and NumPy's with the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(nn, name)(*sizes, **options).double().eval()
    ours = getattr(models, name)(*sizes, **options, rng=0)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def equal(theirs, ours, tolerance=1e-12):
    assert type(ours) is np.ndarray
    assert theirs.shape == ours.shape
    assert np.abs(theirs.detach().numpy() - ours).max(initial=0) < tolerance


def rand(*shape):
    return torch.rand(*shape, dtype=D64, generator=torch.Generator().manual_seed(1)) - 0.5


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("rope", [None, "half", "interleaved"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "call",
    [{}, {"causal": True}, {"window": 3}, {"lengths": [7, 3]}, {"causal": True, "lengths": [4, 7]}],
)
def test_self_attention_is_the_same(kv_heads, rope, bias, call):
    theirs, ours = twins("MultiHeadAttention", 24, 4, kv_heads, rope=rope, bias=bias, head_dim=10)
    x = rand(B, T, 24)

    equal(theirs(x, **call), ours(x.numpy(), **call))
    equal(theirs.weights(x, **call), ours.weights(x.numpy(), **call))


SPEEDS = ac.positions.rope_speeds(6, kind="llama3", factor=4.0, length=16)[0]
TURNED = {"rope": "half", "rope_dim": 6, "rope_speeds": SPEEDS, "rope_gain": 1.3}
NORMED = {"qk_norm": True, "norm_eps": 0.1}
OPTIONS = {
    "positions": {"rope": "interleaved"},
    "speeds": TURNED,
    "norms": NORMED,
    "norms without gain": {"qk_norm": True, "qk_gain": False},
    "scale": {"scale": 0.7},
    "learned scale": {"scale": "learned"},
    "softcap": {"softcap": 0.5},
    "sinks": {"sinks": True},
    "all": {**TURNED, **NORMED, "scale": "learned", "softcap": 0.5, "sinks": True},
}


def drawn(model):
    """Give every parameter, ones and zeros too, a value that shows if it is lost."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, dtype=D64, generator=generator)
    return model


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_the_same(name):
    theirs, ours = twins("MultiHeadAttention", 24, 4, 2, head_dim=10, **OPTIONS[name])
    ours.load_state_dict(drawn(theirs).state_dict())
    x, call = rand(B, T, 24), {"causal": True}
    places = torch.tensor([range(T), range(9, 9 + T)])

    equal(theirs(x, **call), ours(x.numpy(), **call))
    equal(theirs.weights(x, **call), ours.weights(x.numpy(), **call))
    pair = ours(x.numpy(), **call, need_weights=True)
    for one, other in zip(theirs(x, **call, need_weights=True), pair, strict=True):
        equal(one, other)
    if theirs.rope:
        given = {"positions": places}, {"positions": places.numpy()}
        equal(theirs(x, **call, **given[0]), ours(x.numpy(), **call, **given[1]))
    caches = [ac.KVCache(B, 2, T, 10, like=like) for like in (rand(1), np.zeros(1))]
    with torch.no_grad():
        for part in x.split([3, 1, 3], dim=1):
            equal(theirs(part, cache=caches[0]), ours(part.numpy(), cache=caches[1]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_options_keep_the_dtype(dtype):
    layer = models.MultiHeadAttention(24, 4, **OPTIONS["all"], dtype=dtype, rng=0)

    assert {array.dtype for array in layer.state_dict().values()} == {np.dtype(dtype)}
    assert layer(rand(B, T, 24).numpy().astype(dtype)).dtype == dtype


@pytest.mark.parametrize("context_dim", [None, 13])
@pytest.mark.parametrize("masked", [False, True])
def test_cross_attention_is_the_same(context_dim, masked):
    theirs, ours = twins("MultiHeadAttention", 24, 4, 2, context_dim=context_dim)
    x, context = rand(B, T, 24), rand(B, TK, context_dim or 24)
    mask = rand(B, 1, T, TK) > -0.2 if masked else None

    plain = None if mask is None else mask.numpy()
    equal(theirs(x, context, mask), ours(x.numpy(), context.numpy(), plain))


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("rope", [None, "half"])
def test_decoding_with_a_cache_is_the_same(window, rope):
    theirs, ours = twins("MultiHeadAttention", 24, 4, 2, rope=rope)
    caches = [ac.KVCache(B, 2, T, 6, window=window, like=like) for like in (rand(1), np.zeros(1))]
    x = rand(B, T, 24)
    for start, stop in ((0, 3), (3, 4), (4, 4), (4, 7)):
        part = x[:, start:stop]
        with torch.no_grad():
            equal(theirs(part, cache=caches[0]), ours(part.numpy(), cache=caches[1]))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "rms", "norm_eps": 0.1, "network": "swiglu", "d_ff": 31, **OPTIONS["all"]}],
    ids=["plain", "options"],
)
def test_blocks_are_the_same(cross, options):
    if options:
        options = {**options, "head_dim": 10, "bias": True}
    theirs, ours = twins("Block", 24, 4, 2, cross=cross, **options)
    ours.load_state_dict(drawn(theirs).state_dict())
    x, context = rand(B, T, 24), (rand(B, TK, 24),) if cross else ()
    plain = [a.numpy() for a in context]

    equal(theirs(x, *context, causal=True), ours(x.numpy(), *plain, causal=True))


def test_decoders_are_the_same_and_write_the_same():
    theirs, ours = twins("Decoder", "abcdefg", **LM)
    tokens = ours.encode("abcabd")
    equal(theirs(torch.from_numpy(tokens)), ours(tokens))
    equal(theirs(torch.from_numpy(tokens), causal=False), ours(tokens, causal=False))
    caches = ours.new_caches()
    equal(theirs(torch.from_numpy(tokens)), np.concatenate(
        [ours(tokens[:, :2], caches), ours(tokens[:, 2:3], caches), ours(tokens[:, 3:], caches)],
        1,
    ))  # fmt: skip

    written = ours.generate(tokens, 12)
    assert np.array_equal(written, ours.generate(tokens, 12, cached=False))
    assert np.array_equal(written, theirs.generate(torch.from_numpy(tokens), 12).numpy())
    assert ours.decode(written[0]) == theirs.decode(written[0])


def test_a_draw_by_the_same_numbers_writes_the_same(monkeypatch):
    theirs, ours = twins("Decoder", "abcdefg", **LM)
    tokens, settings = ours.encode("ab"), {"temperature": 1.5, "top_k": 5, "top_p": 0.9}
    drawn = np.random.default_rng(3).random((9, 1))
    numbers = iter(drawn)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.from_numpy(next(numbers)))
    chance = torch.Generator()
    text = theirs.generate(torch.from_numpy(tokens), 9, generator=chance, **settings)
    again = ours.generate(tokens, 9, generator=np.random.default_rng(3), **settings)

    assert np.array_equal(text.numpy(), again)
    assert len(set(again[0, 2:])) > 2


def test_translators_are_the_same():
    for summary in (False, True):
        theirs, ours = twins("Translator", PAIRS, summary=summary, d_model=12, heads=3)
        sources = ["abc", "b"]
        targets = ours.tokens(["xy", "z"], 1)[0]
        equal(theirs(sources, torch.from_numpy(targets)), ours(sources, targets))
        equal(theirs.alignment("abc", "zy"), ours.alignment("abc", "zy"))
        assert theirs.translate(sources) == ours.translate(sources)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_scores_have_the_dtype_of_the_parameters(dtype):
    images = rand(B, 4, 6, 3).numpy().astype(dtype)
    for summary in (False, True):
        model = models.Translator(PAIRS, summary=summary, dtype=dtype, rng=0)
        assert model(["abc", "b"], np.array([[0], [0]])).dtype == dtype
        assert model.encode(["abc", "b"])[0].dtype == dtype
        assert model.translate(["abc"]) == model.translate(["abc", "b"])[:1]
    assert models.Decoder("abc", **LM, dtype=dtype, rng=0)(np.array([[0]])).dtype == dtype
    vision = models.VisionTransformer((4, 6, 3), 5, **VIT, dtype=dtype, rng=0)
    assert vision(images).dtype == dtype


@pytest.mark.parametrize("positions", [True, False])
def test_vision_transformers_are_the_same(positions):
    theirs, ours = twins("VisionTransformer", (4, 6, 3), 5, positions=positions, **VIT)
    images, keep = rand(B, 4, 6, 3), rand(B, 6) > -0.2
    equal(theirs(images), ours(images.numpy()))
    equal(theirs(images, keep), ours(images.numpy(), keep.numpy()))
    equal(theirs.weights(images, keep), ours.weights(images.numpy(), keep.numpy()))


@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("MultiHeadAttention", (24, 4, 2), {}),
        ("MultiHeadAttention", (24, 4, 2), {"context_dim": 7, "bias": False}),
        ("MultiHeadAttention", (24, 4, 2), {"qk_norm": True, "scale": "learned"}),
        ("MultiHeadAttention", (24, 4, 2), {"qk_norm": True, "qk_gain": False, "rope": "half"}),
        ("Block", (24, 4), {"network": "swiglu", "norm": "rms"}),
        ("Decoder", ("abc",), {**LM, "rope": "half", "norm": "rms", "tied": False}),
        ("Block", (24, 4), {"cross": True}),
        ("Decoder", ("abc",), LM),
        ("Translator", (PAIRS,), {}),
        ("VisionTransformer", ((4, 6, 3), 5), VIT),
        ("VisionTransformer", ((4, 6, 3), 5), {**VIT, "positions": False}),
    ],
)
def test_state_dicts_go_both_ways(name, sizes, options):
    theirs = getattr(nn, name)(*sizes, **options)
    ours = getattr(models, name)(*sizes, **options, dtype=np.float32, rng=0)
    assert set(theirs.state_dict()) == set(ours.state_dict())
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})

    for parameter, array in ours.state_dict().items():
        assert np.array_equal(theirs.state_dict()[parameter].numpy(), array)
        assert array.dtype == np.float32


def test_a_foreign_state_dict_changes_nothing():
    ours = models.Block(8, 2, rng=0)
    before = {name: array.copy() for name, array in ours.state_dict().items()}
    state = models.Block(8, 2, rng=1).state_dict()
    with pytest.raises(ValueError, match=r"of another model: it differs in \['down.bias', 'x'\]"):
        ours.load_state_dict({**{n: a for n, a in state.items() if n != "down.bias"}, "x": 0})
    with pytest.raises(ValueError, match=r"up.bias must be \(32,\), got \(3,\)"):
        ours.load_state_dict({**state, "up.bias": np.zeros(3)})

    assert all(np.array_equal(before[name], array) for name, array in ours.state_dict().items())


def test_whale_is_the_same_model_and_needs_no_torch():
    code = """
import sys
from attncore.models import whale
model = whale()
print(model.decode(model.generate(model.encode("The whale "), 40)[0]))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    theirs = nn.whale()
    text = theirs.decode(theirs.generate(theirs.encode("The whale "), 40)[0])

    assert done.stdout == text + "\n", done.stderr
    tokens = theirs.encode("Call me Ishmael. ")
    wide = models.whale(np.float64)
    equal(nn.whale(D64)(tokens), wide(tokens.numpy()), 1e-11)
    equal(theirs(tokens), models.whale()(tokens.numpy()), 2e-4)


def test_looking_shows_each_step_and_changes_nothing():
    for model, tokens in zip(
        twins("Decoder", "abcdefg", **LM),
        (torch.tensor([[0, 1, 2, 0]]), np.array([[0, 1, 2, 0]])),
        strict=True,
    ):
        seen = model.look(tokens)
        logits = model(tokens)
        assert (seen["logits"] == logits).all()
        assert list(seen)[:6] == ["blocks.0.x", *(f"blocks.0.attention.{n}" for n in (
            "q", "k", "v", "weights", "heads"))]  # fmt: skip
        q, k, v = (seen[f"blocks.1.attention.{name}"] for name in "qkv")
        assert q.shape == (1, 5, 4, 4)
        assert k.shape == v.shape == (1, 1, 4, 4)
        weights = ac.attention_weights(q, k, causal=True)
        assert abs(weights - seen["blocks.1.attention.weights"]).max() < 1e-15
        heads = seen["blocks.1.attention.heads"]
        assert abs(ac.attention(q, k, v, causal=True) - heads).max() < 1e-15


@pytest.mark.parametrize("name", ["heads", "weights", "v", "x"])
def test_what_looking_returns_goes_on_instead(name):
    theirs, ours = twins("Decoder", "abcdefg", **LM)
    tokens = np.array([[0, 1, 2, 0]])

    def switch(where, value):
        return 0 * value if where.startswith("blocks.0.") and where.endswith(name) else None

    changed = ours(tokens, look=switch)
    equal(theirs(torch.from_numpy(tokens), look=switch), changed)
    assert np.abs(changed - ours(tokens)).max() > 1e-6
    if name != "x":  # nothing of the first attention is added any more
        rest = ours.state_dict()
        rest["blocks.0.attention.out_proj.weight"][...] = 0
        assert np.abs(changed - ours(tokens)).max() < 1e-12


class Adapter(torch.nn.Module):
    """What an adapter puts in place of a map: it, and room for more."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def wrapped(model, path):
    parent, _, name = path.rpartition(".")
    adapter = Adapter(model.get_submodule(path))
    setattr(model.get_submodule(parent), name, adapter)
    return adapter


@pytest.mark.parametrize(
    "path",
    ["blocks.1.up", "blocks.0.down", "blocks.0.attention.out_proj", "blocks.1.norm1", "norm",
     "blocks.1.attention", "embedding"],
)  # fmt: skip
def test_an_adapter_is_never_passed_over(path):
    plain, _ = twins("Decoder", "abcdefg", **LM)
    model, _ = twins("Decoder", "abcdefg", **LM)
    calls = []

    def more(module, given, out):
        calls.append(path)
        return out * 1.5

    if path.endswith(("attention", "embedding")):  # whose parameters are looked at too
        model.get_submodule(path).register_forward_hook(more)
    else:
        wrapped(model, path).register_forward_hook(more)
    tokens = torch.tensor([[0, 1, 2, 0]])

    assert (model(tokens) - plain(tokens)).abs().max() > 1e-6
    calls.clear()
    model.generate(tokens, 5)
    assert calls == [path] * 5
    assert snapshot(model, nn.Decoder, models.Decoder) is model
    assert snapshot(plain, nn.Decoder, models.Decoder) is not plain


def test_a_parametrised_map_is_never_passed_over():
    model, _ = twins("Decoder", "abcdefg", **LM)
    tokens = torch.tensor([[0, 1, 2, 0]])
    before = model(tokens)

    class Halved(torch.nn.Module):
        def forward(self, weight):
            return weight / 2

    attention = model.blocks[0].attention
    torch.nn.utils.parametrize.register_parametrization(model.blocks[0].up, "weight", Halved())
    torch.nn.utils.parametrize.register_parametrization(attention, "in_proj_weight", Halved())

    assert (model(tokens) - before).abs().max() > 1e-4
    assert snapshot(model, nn.Decoder, models.Decoder) is model
    assert torch.equal(model.generate(tokens, 6), model.generate(tokens, 6, cached=False))


def test_a_subclass_is_written_with_as_it_is():
    class Louder(nn.Decoder):
        def forward(self, *given, **named):
            return -super().forward(*given, **named)

    torch.manual_seed(0)
    model = Louder("abcdefg", **LM)
    tokens = torch.tensor([[0, 1, 2, 0]])

    assert snapshot(model, nn.Decoder, models.Decoder) is model
    assert model.generate(tokens, 1)[0, -1] == model(tokens)[0, -1].argmax()


def test_a_global_hook_is_never_passed_over():
    model, _ = twins("Decoder", "abcdefg", **LM)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert snapshot(model, nn.Decoder, models.Decoder) is model
    finally:
        handle.remove()
    assert snapshot(model, nn.Decoder, models.Decoder) is not model


def test_a_snapshot_shares_the_parameters_and_scores_the_same():
    model, _ = twins("Decoder", "abcdefg", **LM)
    twin = snapshot(model, nn.Decoder, models.Decoder)
    tokens = torch.tensor([[0, 1, 2, 0]])

    assert type(twin) is models.Decoder
    assert twin.blocks[1].up.weight is model.blocks[1].up.weight
    assert torch.equal(twin(tokens), model(tokens))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_operations_equal_torchs(dtype):
    x = np.linspace(-6, 6, 600).reshape(4, 5, 30).astype(dtype)
    w, b = rand(7, 30).numpy().astype(dtype), rand(7).numpy().astype(dtype)
    gain, shift = rand(30).numpy().astype(dtype), rand(30).numpy().astype(dtype)
    exact = [torch.from_numpy(a).double() for a in (x, w, b, gain, shift)]
    eps = float(np.finfo(dtype).eps)
    for ours, theirs, bound in (
        (ops.linear(x, w, b), torch.nn.functional.linear(*exact[:3]), 400 * eps),
        (ops.layer_norm(x, gain, shift), torch.nn.functional.layer_norm(
            exact[0], (30,), *exact[3:]), 40 * eps),
        (ops.gelu(x), torch.nn.functional.gelu(exact[0]), 20 * eps),
    ):  # fmt: skip
        assert ours.dtype == dtype
        assert np.abs(ours.astype(float) - theirs.numpy()).max() < bound
    assert [a.tolist() for a in ops.split(x[..., :5], (2, 3), -1)] == [
        a.tolist() for a in torch.from_numpy(x[..., :5]).split([2, 3], dim=-1)
    ]


def test_the_error_function_is_near_enough():
    x = np.concatenate([np.linspace(-7, 7, 200_001), [0.0, np.inf, -np.inf]]).astype(np.float32)
    exact = torch.erf(torch.from_numpy(x).double()).numpy()

    assert np.abs(ops.erf(x) - exact).max() < 5e-7
    assert np.isnan(ops.erf(np.float32([np.nan]))).all()
    assert np.abs(ops.erf(x.astype(float)) - exact).max() < 1e-15


def test_a_position_comes_after_what_is_cached():
    places = [functional.positions_from(3, 2, like) for like in (np.zeros(1), torch.zeros(1))]
    assert [list(map(int, p)) for p in places] == [[3, 4], [3, 4]]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: models.MultiHeadAttention(8, 2)(torch.zeros(2, 8)), TypeError,
         r"x must be a NumPy array, got Tensor: use x.numpy\(\), or a model of attncore.nn"),
        (lambda: models.MultiHeadAttention(8, 2)([[1.0] * 8]), TypeError, r"array, got list"),
        (lambda: models.MultiHeadAttention(8, 2)(np.ma.zeros((2, 8))), TypeError,
         r"x must be a NumPy array, got MaskedArray"),
        (lambda: models.MultiHeadAttention(8, 2)(np.zeros((2, 8), np.float32)), TypeError,
         r"x is float32, the parameters are float64: use x.astype\('float64'\), or make"),
        (lambda: models.MultiHeadAttention(8, 3), ValueError, r"heads \(3\) must divide d_model"),
        (lambda: models.Block(8, 2)(np.zeros((2, 7))), ValueError, r"d_model = 8\), got \(2, 7\)"),
        (lambda: models.Block(8, 2)(np.zeros((2, 8), int)), TypeError, r"floating point, got int"),
        (lambda: models.Decoder("abc", **LM)(torch.tensor([[0]])), TypeError,
         r"tokens must be a NumPy array \(B, T\), got Tensor: use model.encode\(text\) or numpy.a"),
        (lambda: models.Decoder("abc", **LM)(np.array([[3]])), ValueError, r"N - 1 = 2, got 3"),
        (lambda: models.Decoder("abc", **LM)(np.array([[-1]])), ValueError, r"N - 1 = 2, got -1"),
        (lambda: models.Translator(PAIRS)(["a"], np.array([[-1]])), ValueError, r"lie in 0 to N"),
        (lambda: models.Decoder("abc", **LM)(np.array([0])), ValueError, r"tokens\[None\] for one"),
        (lambda: models.Decoder("abc", **LM).generate(np.array([[0]]), 3, temperature=1.0),
         ValueError, r"such as numpy.random.default_rng\(0\), need each other"),
        (lambda: models.Decoder("abc", **LM).generate(np.array([[0]]), 3, generator=3),
         TypeError, r"generator must be a numpy.random._generator.Generator, got int: use numpy"),
        (lambda: models.VisionTransformer((4, 4, 1), 3, **VIT)(torch.zeros(1, 4, 4, 1)), TypeError,
         r"images must be a NumPy array, got Tensor"),
        (lambda: models.Translator(PAIRS)(["a"], [[0]]), TypeError, r"targets must be a NumPy arr"),
        (lambda: models.whale("floaty"), TypeError, r"one such as numpy.float32, got 'floaty'"),
        (lambda: models.whale(int), TypeError, r"one such as numpy.float32, got int64"),
        (lambda: models.load(__file__), ValueError, r"holds no model that attncore.training has w"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_models_that_a_page_defines_are_read_by_name():
    first, last = models.steps("positions")[:: len(models.steps("positions")) - 1]
    early, late = models.trained("positions", first), models.trained("positions")

    assert list(late) == ["none", "learned", "sinusoidal", "ALiBi", "T5", "Transformer-XL", "RoPE"]
    assert set(late["T5"]) == {"word", "mark", "maps", "out", "table"}
    assert late["RoPE"]["maps"].dtype == np.float64
    assert models.trained("positions", dtype=np.float32)["RoPE"]["maps"].dtype == np.float32
    assert not np.array_equal(early["RoPE"]["maps"], late["RoPE"]["maps"])
    with pytest.raises(ValueError, match=rf"kept at the steps {first}, .*, {last}, got 7"):
        models.trained("positions", 7)
    with pytest.raises(ValueError, match=r"name must be one of .*positions.*, got 'whale'"):
        models.trained("whale")
