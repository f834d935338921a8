"""The language model: causal in every layer, the same with a cache, and what its file says."""

import copy
import hashlib
import importlib.resources
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer

import attncore as ac
from attncore.nn import Decoder, load, whale
from attncore.training import model as files
from attncore.training.recipes import RECIPES
from attncore.training.scores import bits_per_character
from attncore.training.texts import parts

DATA = importlib.resources.files("attncore") / "data"
SIZES = {"d_model": 12, "layers": 3, "heads": 6, "kv_heads": 2, "context": 17}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Decoder("abcd ", **SIZES).double()


@pytest.fixture(scope="module")
def trained():
    return whale(torch.float64)


def test_the_past_is_bit_identical_whatever_the_future(model):
    tokens = torch.randint(5, (3, 11))
    other = tokens.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 5
    before, after = model(tokens), model(other)

    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_without_the_causal_mask_the_past_changes(model):
    tokens = torch.randint(5, (1, 11))
    whole, shorter = model(tokens, causal=False), model(tokens[:, :-1], causal=False)

    assert (whole[:, :-1] - shorter).abs().max() > 1e-6


@pytest.mark.parametrize("cuts", [[11], [4, 1, 1, 5], [1] * 11, [1, 10]], ids=str)
def test_any_split_equals_one_pass_with_nan_in_unused_slots(model, cuts):
    tokens = torch.randint(5, (2, 11))
    caches = model.new_caches(batch=2, capacity=13)
    for cache in caches:
        cache._k.fill_(torch.nan)
        cache._v.fill_(torch.nan)
    with torch.no_grad():
        parts = [model(part, caches) for part in tokens.split(cuts, dim=1)]

        assert torch.allclose(torch.cat(parts, dim=1), model(tokens), atol=1e-12)
    assert {cache.length for cache in caches} == {11}


def test_what_was_generated_can_be_trained_on(model):
    prompt = torch.tensor([[0, 1, 2, 3]])
    tokens = model.generate(prompt, 3)
    model(tokens).sum().backward()

    assert model.embedding.weight.grad.abs().sum() > 0
    assert model.generate(prompt, 0).data_ptr() != prompt.data_ptr()


def test_compiled_steps_write_the_same(model, monkeypatch):
    compile_with, options = torch.compile, []

    def spy(model, **given):
        options.append(given)
        return compile_with(model, fullgraph=given["fullgraph"], backend="eager")

    monkeypatch.setattr(torch, "compile", spy)
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    prompt = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]])
    for steps in (13, 5):  # the second time nothing is compiled anew
        assert torch.equal(
            model.generate(prompt, steps, compiled=True), model.generate(prompt, steps)
        )

    assert model.generate(prompt[:, :1], 0, compiled=True).tolist() == [[0], [3]]
    assert options[0] == {"fullgraph": True, "mode": "default"}
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_the_same_text_with_and_without_a_cache(model):
    prompt = torch.randint(5, (2, 4))
    cached = model.generate(prompt, 13)

    assert torch.equal(cached, model.generate(prompt, 13, cached=False))
    assert cached.shape == (2, 17)
    assert torch.equal(cached[:, :4], prompt)


KINDS = {
    "learned positions": {},
    "rope": {"rope": "half"},
    "as Qwen3": {
        "rope": "half", "norm": "rms", "network": "swiglu", "d_ff": 20, "tied": False,
        "qk_norm": True, "head_dim": 4,
    },
}  # fmt: skip
TEXTS = ["abcdab", "d", "ca d"]


@pytest.fixture(params=KINDS)
def any_model(request):
    torch.manual_seed(0)
    model = Decoder("abcd ", **SIZES, **KINDS[request.param]).double()
    for parameter in model.parameters():  # small ones would always write the same letter
        parameter.data = 3 * parameter.data if parameter.ndim > 1 else parameter.data
    return model


@pytest.mark.parametrize("cached", [True, False])
def test_prompts_of_different_lengths_go_on_as_they_do_alone(any_model, cached):
    tokens, left = any_model.encode_batch(TEXTS)
    found = any_model.generate(tokens, 11, left_padding=left, cached=cached)

    assert left.tolist() == [0, 5, 2]
    assert found.shape == (3, 17)
    for row, n, text in zip(found, left, TEXTS, strict=True):
        alone = any_model.generate(any_model.encode(text), 11)
        assert torch.equal(row[n:], alone[0])
        assert any_model.decode(row[n:]).startswith(text)
    assert len(set(found[:, 6:].flatten().tolist())) > 1
    assert torch.equal(any_model.generate(tokens, 11, left_padding=left.tolist()), found)
    assert not torch.equal(any_model.generate(tokens, 11), found)  # the padding would be read
    wrong = any_model.generate(tokens, 11, left_padding=left - (left > 0).long())
    assert not torch.equal(wrong[1:], found[1:])


@pytest.mark.parametrize("cached", [True, False])
def test_drawn_texts_of_different_lengths_are_those_drawn_alone(any_model, cached):
    tokens, left = any_model.encode_batch(TEXTS)
    seeded = [torch.Generator().manual_seed(n) for n in range(3)]
    settings = {"temperature": 1.3, "top_p": 0.95, "cached": cached}
    found = any_model.generate(tokens, 11, left_padding=left, generator=seeded, **settings)

    for n, text in enumerate(TEXTS):
        chance = torch.Generator().manual_seed(n)
        prompt = any_model.encode(text)
        alone = any_model.generate(prompt, 11, generator=chance, **settings)
        assert torch.equal(found[n, left[n] :], alone[0])


def test_padding_before_prompts_is_not_read(any_model):
    tokens, left = any_model.encode_batch(TEXTS)
    other = torch.where(torch.arange(6) < left[:, None], 3, tokens)
    found, again = (any_model(t, left_padding=left) for t in (tokens, other))
    caches = any_model.new_caches(3)
    with torch.no_grad():
        parts = [any_model(part, caches, left_padding=left) for part in other.split(2, 1)]
    parts = torch.cat(parts, dim=1)  # in the first ones some rows are padding only

    for row, n in enumerate(left):
        assert torch.equal(found[row, n:], again[row, n:])
        assert torch.allclose(found[row, n:], parts[row, n:])
    assert found.isfinite().all()


def test_padding_is_left_out_with_static_caches_too(any_model, monkeypatch):
    compile_with = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda m, **given: compile_with(m, fullgraph=True, backend="eager")
    )
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    tokens, left = any_model.encode_batch(TEXTS)
    expected = any_model.generate(tokens, 11, left_padding=left)

    assert torch.equal(any_model.generate(tokens, 11, left_padding=left, compiled=True), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_batch_of_texts_is_padded_before(model):
    tokens, left = model.encode_batch(("ab", "d"))
    assert tokens.tolist() == [[0, 1], [0, 3]]
    assert left.tolist() == [0, 1]
    assert tokens.dtype == left.dtype == torch.long
    for texts, kind, message in (
        ("ab", TypeError, r"texts must be a list of str, one at least: encode\(text\) takes one"),
        ([], TypeError, r"texts must be a list of str"),
        (["a", ""], ValueError, r"texts must have a token each, and one of them is empty"),
        (["a", 3], TypeError, r"text must be a str, got int"),
    ):
        with pytest.raises(kind, match=message):
            model.encode_batch(texts)


def test_a_model_with_rope_has_no_learned_positions():
    model = Decoder("abcd ", **SIZES, rope="half", rope_base=50.0).double()
    plain = Decoder("abcd ", **SIZES)
    tokens = torch.arange(2 * 11).view(2, 11) % 5
    caches = model.new_caches(2)

    assert plain.state_dict().keys() - model.state_dict().keys() == {"position.weight"}
    with torch.no_grad():
        parts = torch.cat([model(part, caches) for part in tokens.split([3, 1, 7], dim=1)], dim=1)
    assert torch.allclose(parts, model(tokens))
    with pytest.raises(ValueError, match="18 tokens, but the model has 17 positions"):
        model(torch.zeros(1, 18, dtype=torch.long))


def test_the_last_new_token_needs_no_position(model):
    prompt = torch.randint(5, (1, 4))

    assert model.generate(prompt, 14).shape == (1, 18)
    with pytest.raises(ValueError, match="18 tokens to read, but the model has 17 positions"):
        model.generate(prompt, 15)
    with pytest.raises(ValueError, match="18 tokens, but the model has 17 positions"):
        model(torch.zeros(1, 18, dtype=torch.long))


def test_text_and_tokens_are_two_ways_to_say_the_same(model):
    tokens = model.encode("bad cab")

    assert tokens.shape == (1, 7)
    assert model.decode(tokens[0]) == "bad cab"
    with pytest.raises(ValueError, match="the model does not know '!Z'"):
        model.encode("Za!")


@pytest.fixture(scope="module")
def pieces():
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(["call me Ishmael, " * 9], vocab_size=263, show_progress=False)
    return tokenizer


def test_tokens_may_be_pieces_of_words(pieces):
    torch.manual_seed(0)
    model = Decoder(pieces, **SIZES).double()
    tokens = model.encode("call me — Ishmael")

    assert model.embedding.weight.shape == (263, 12)
    assert tokens.shape[1] < len("call me — Ishmael".encode())
    assert model.decode(tokens[0]) == "call me — Ishmael"
    assert model(tokens).shape == (1, tokens.shape[1], 263)
    assert model.generate(tokens[:, :3], 2).shape == (1, 5)


@pytest.mark.parametrize("cut", [None, 7])
def test_what_was_written_is_read_back(tmp_path, pieces, cut):
    torch.manual_seed(0)
    recipe = replace(RECIPES["book"], sizes=SIZES, pieces=cut)
    model = Decoder(pieces if cut else "abcd ", **SIZES)
    files.write(model, recipe, tmp_path / "model.npz")
    loaded = load(tmp_path / "model.npz", torch.float64)

    assert loaded.embedding.weight.dtype == torch.float64
    assert torch.equal(loaded.encode("abc d"), model.encode("abc d"))
    tokens = model.encode("abc d")
    assert torch.allclose(loaded(tokens).float(), model(tokens), atol=1e-3)
    assert not loaded.training


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_decodes_as_it_reads(trained, dtype, static):
    """Caches are of its dtype, and those made outside of it will do."""
    model = copy.deepcopy(trained).float()
    tokens = model.encode("Call me Ishmael")
    outside = model.new_caches(static=static)
    with torch.autocast("cpu", dtype), torch.no_grad():
        whole = model(tokens)
        inside = model.new_caches(static=static)
        for caches in (inside, outside):
            parts = [model(part, caches) for part in tokens.split([4, 1, 1, 9], dim=1)]
            assert (torch.cat(parts, dim=1) - whole).abs().max() < whole.abs().max() / 25
        text = model.generate(tokens, 9)
        assert torch.equal(text, model.generate(tokens, 9, cached=False))
        assert model.double().new_caches()[0].dtype == torch.float64  # which autocast leaves

    assert whole.dtype == inside[0].dtype == dtype
    assert outside[0].dtype == torch.float32


def test_generating_under_autocast_costs_no_gradient(model):
    model = model.float()
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.generate(torch.tensor([[0, 1, 2, 3]]), 3)
        model(tokens).float().sum().backward()

    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_loading_draws_nothing_and_lands_on_the_cpu(device, trained):
    before = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device(device):
            model = whale()
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(torch.get_rng_state(), before)
    for name, parameter in model.named_parameters():
        assert (parameter.device.type, parameter.dtype) == ("cpu", torch.float32)
        assert parameter.requires_grad
        assert torch.equal(parameter.double(), trained.get_parameter(name))


@pytest.mark.parametrize("static", [False, True])
def test_all_is_made_where_the_parameters_are(model, monkeypatch, static):
    """Whatever forgot to say where would be made on a device that holds no numbers."""
    if static:
        monkeypatch.setattr(Decoder, "_compiled", lambda model: model)
    prompt, seed = torch.tensor([[0, 1, 2, 3]]), torch.Generator().manual_seed
    options = {"compiled": static, "temperature": 0.9, "top_p": 0.9}
    expected = model.generate(prompt, 9, generator=seed(0), **options)
    with torch.device("meta"):
        found = model.generate(prompt, 9, generator=seed(0), **options)
        assert model.encode("abc").tolist() == [[0, 1, 2]]
        assert model.decode(np.array([0, 1])) == "ab"

    assert torch.equal(found, expected)
    assert model.to("meta").generate(prompt.to("meta"), 9).shape == (1, 13)


def test_a_file_of_something_else_is_named(tmp_path):
    for name, write in (
        ("text.npz", lambda path: path.write_text("no model")),
        ("empty.npz", lambda path: path.write_bytes(b"")),
        ("array.npy", lambda path: np.save(path, np.zeros(3))),
        ("arrays.npz", lambda path: np.savez(path, a=np.zeros(3))),
    ):
        write(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} holds no model that attncore.training has"):
            load(tmp_path / name)


def test_every_layer_needs_a_cache(model):
    with pytest.raises(ValueError, match="3 layers need as many caches, got 2"):
        model(torch.zeros(1, 4, dtype=torch.long), model.new_caches()[:2])


def test_caches_must_belong_together(model):
    tokens = torch.zeros(1, 4, dtype=torch.long)
    caches = model.new_caches()
    with torch.no_grad():
        model(tokens, caches)
        with pytest.raises(ValueError, match=r"its own cache, all of one length: got \[4, 4, 4\]"):
            model(tokens, [caches[0]] * 3)
        with pytest.raises(ValueError, match="causal=False cannot use caches"):
            model(tokens, caches, causal=False)
        caches[1].reset()
        with pytest.raises(ValueError, match=r"all of one length: got \[4, 0, 4\]"):
            model(tokens, caches)


def test_a_failed_call_leaves_all_caches_as_they_were(model):
    caches = model.new_caches(capacity=9)
    caches[2] = model.new_caches(capacity=5)[2]
    with torch.no_grad():
        model(torch.zeros(1, 4, dtype=torch.long), caches)
        with pytest.raises(ValueError, match="cache full: 4 of 5, cannot append 2"):
            model(torch.zeros(1, 2, dtype=torch.long), caches)

    assert [cache.length for cache in caches] == [4, 4, 4]


def test_a_failed_call_tells_its_own_error_though_a_full_ring_cannot_go_back(model):
    caches = model.new_caches(capacity=7)
    layer, like = model.blocks[0].attention, model.embedding.weight
    for n, window in enumerate((5, 9)):
        caches[n] = ac.KVCache(1, layer.kv_heads, 9, layer.head_dim, window=window, like=like)
    with torch.no_grad():
        model(torch.zeros(1, 4, dtype=torch.long), caches)
        with pytest.raises(ValueError, match="cache full: 4 of 7, cannot append 4"):
            model(torch.zeros(1, 4, dtype=torch.long), caches)

    assert [cache.length for cache in caches] == [8, 4, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(4, dtype=torch.long)), r"tokens must be integers \(B, T\), got"),
        (lambda m: m(torch.zeros(1, 4)), r"tokens must be integers \(B, T\), got float32"),
        (lambda m: m.generate(m.encode(""), 3), r"with T at least 1, got \(1, 0\)"),
        (lambda m: m.generate(m.encode("a"), -1), "steps must be at least 0, got -1"),
        (
            lambda m: m.generate(m.encode("a"), 1, cached=False, compiled=True),
            "compiled=True needs cached=True: only a step on caches is compiled",
        ),
    ],
)
def test_the_error_says_what_is_wrong(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def rings(model):
    sizes = (1, SIZES["kv_heads"], 9, SIZES["d_model"] // SIZES["heads"])
    return [ac.KVCache(*sizes, window=4, like=model.norm.weight) for _ in model.blocks]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: m([[1]]), TypeError,
         r"tokens must be a torch tensor \(B, T\), got list: use model.encode\(text\) or"),
        (lambda m: m(np.zeros((1, 2), int)), TypeError, r"a torch tensor \(B, T\), got ndarray"),
        (lambda m: m(torch.ones(1, 2).bool()), ValueError, r"tokens must be integers .*bool"),
        (lambda m: m(torch.ones(1, 2).byte()), ValueError, r"uint8 \(1, 2\): use tokens.long"),
        (lambda m: m(torch.tensor([[0, 5]])), ValueError,
         r"tokens must lie in 0 to N - 1 = 4, got 5"),
        (lambda m: m(torch.tensor([[0, -1]])), ValueError,
         r"tokens must lie in 0 to N - 1 = 4, got -1"),
        (lambda m: m(torch.zeros(1, 2, dtype=torch.long, device="meta")), ValueError,
         r"on one device: tokens on meta, parameters on cpu; move them with"),
        (lambda m: m(m.encode("a"), m.new_caches()[0]), TypeError,
         r"caches must be a list of KVCache: use model.new_caches\(\)"),
        (lambda m: m(m.encode("a"), [1, 2, 3]), TypeError, r"caches must be a list of KVCache"),
        (lambda m: m(m.encode("a"), m.new_caches(batch=2)), ValueError,
         r"k must be \(B, G, n, D\) = \(2, 2, n, 2\), got \(1, 2, 1, 2\)"),
        (lambda m: m.new_caches(batch=1.0), TypeError, r"batch must be an integer, got float"),
        (lambda m: m.generate(m.encode("a"), 2.0), TypeError, r"steps must be an integer, got fl"),
        (lambda m: m.generate("a", 2), TypeError, r"got str: use model.encode\(text\)"),
        (lambda m: m.generate(m.encode("a")[0], 2), ValueError,
         r"\(B, T\), got int64 \(1,\): use .* tokens\[None\] for one row"),
        (lambda m: m.generate(torch.tensor([[7]]), 0), ValueError, r"0 to N - 1 = 4, got 7"),
        (lambda m: m.generate(m.encode("a"), 2, temperature=1.0, generator=3), TypeError,
         r"generator must be a torch.Generator, got int: use torch.Generator\(\).manual_seed\(0\)"),
        (lambda m: m.generate(m.encode("a"), 2, temperature="1"), TypeError,
         r"temperature must be a number, got str"),
        (lambda m: m(m.encode("ab"), left_padding=[2]), ValueError,
         r"left_padding must leave each row a token of 2, got \[2\]"),
        (lambda m: m(m.encode("ab"), left_padding=[-1]), ValueError, r"left_padding must leave"),
        (lambda m: m(m.encode("ab"), left_padding=[1, 0]), ValueError,
         r"left_padding must be \(B,\) = \(1,\), one number for each row of tokens, got \(2,\)"),
        (lambda m: m(m.encode("ab"), left_padding=1), ValueError, r"left_padding must be \(B,\)"),
        (lambda m: m(m.encode("ab"), left_padding=[0.0]), TypeError,
         r"left_padding must be integers, got float32"),
        (lambda m: m(m.encode("ab"), left_padding=[True]), TypeError, r"integers, got bool"),
        (lambda m: m(m.encode("ab"), left_padding=np.zeros(1, int)), TypeError,
         r"do not mix: left_padding NumPy, tokens torch"),
        (lambda m: m(m.encode("ab"), left_padding="a"), TypeError,
         r"left_padding cannot be read as an array of numbers"),
        (lambda m: m(m.encode("ab"), left_padding=torch.zeros(1, device="meta").long()), ValueError,
         r"on one device: tokens on cpu, left_padding on meta"),
        (lambda m: m.generate(m.encode("ab"), 1, left_padding=[2]), ValueError,
         r"left_padding must leave each row a token of 2"),
        (lambda m: m(m.encode("ab"), rings(m), left_padding=[1]), ValueError,
         r"left_padding cannot be used with caches that have a window \(4\), which keep no order"),
        (lambda m: m.generate(m.encode("a"), 2, temperature=1.0, generator=[1]), TypeError,
         r"generator must be a torch.Generator, got int"),
        (lambda m: m.generate(m.encode("a"), 2, temperature=1.0,
                              generator=[torch.Generator()] * 2), ValueError,
         r"generator must be one, or a list of one for each of the 1 rows of tokens, got 2"),
        (lambda m: Decoder("ab", **SIZES, rope="llama"), ValueError, r"pairing must be one of"),
        (lambda m: Decoder("ab", **SIZES, tied=0), TypeError, r"tied must be True or False"),
        (lambda m: Decoder("ab", **SIZES, norm="batch"), ValueError, r"norm must be one of layer"),
        (lambda m: Decoder("ab", **SIZES, width=3), TypeError, r"width is no option: those of att"),
        (lambda m: m.encode(["a"]), TypeError, r"text must be a str, got list: encode one at a"),
        (lambda m: m.decode(m.encode("ab")), ValueError,
         r"tokens must be one row of integers \(T,\), got int64 \(1, 2\): decode row by row"),
        (lambda m: m.decode([0, 1]), TypeError, r"must be integers \(T,\), an array, got list"),
        (lambda m: m.decode(torch.tensor([0, -1])), ValueError, r"0 to N - 1 = 4, got -1"),
        (lambda m: Decoder(7, **SIZES), TypeError,
         r"tokenizer must be a string of characters, or have encode, decode and get_vocab_size"),
        (lambda m: Decoder("ab", **SIZES | {"d_model": 2.5}), TypeError,
         r"d_model must be an integer, got float"),
        (lambda m: whale("float16"), TypeError,
         r"dtype must be one such as torch.float32, got 'float16'"),
        (lambda m: whale(torch.int64), TypeError, r"dtype must be one such as torch.float32"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_our_own_words(model, call, kind, message):
    with torch.no_grad(), pytest.raises(kind, match=message):
        call(model)


def test_a_piece_outside_the_vocabulary_is_not_dropped(pieces):
    model = Decoder(pieces, **SIZES)
    with pytest.raises(ValueError, match=r"0 to N - 1 = 262, got 263"):
        model.decode(torch.tensor([3, 263]))


@pytest.mark.parametrize("change", [{"layers": 0}, {"context": 0}])
def test_sizes_are_at_least_one(change):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        Decoder("abc", **{**SIZES, **change})


@pytest.mark.parametrize("characters", ["aba", ""])
def test_characters_must_differ(characters):
    with pytest.raises(ValueError, match="characters must all differ"):
        Decoder(characters, **SIZES)


def test_gradients_reach_every_parameter(model):
    model(torch.randint(5, (2, 17))).pow(2).mean().backward()

    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_the_stored_model_is_the_one_described(trained):
    stored = (DATA / "whale.npz").read_bytes()
    described = (DATA / "README.md").read_text("utf-8")
    numbers = sum(p.numel() for p in trained.parameters())

    assert len(stored) < 1_000_000
    assert hashlib.sha256(stored).hexdigest() in described
    assert f"{numbers:,} parameters" in described
    assert "".join(sorted(set(ac.data.moby_dick()))) == trained.characters
    assert not trained.training


def test_the_stored_model_predicts_unseen_text_as_well_as_described():
    score = bits_per_character(whale(), parts()[1])

    assert f"{score:.2f} bits per character" in (DATA / "README.md").read_text("utf-8")


def test_every_key_of_the_stored_model_stays_when_a_letter_comes(trained):
    tokens = trained.encode("Call me Ishmael")
    short, long = trained.new_caches(), trained.new_caches()
    with torch.no_grad():
        trained(tokens[:, :-1], short)
        trained(tokens, long)
    for one, two in zip(short, long, strict=True):
        assert torch.allclose(one._k[:, :, :14], two._k[:, :, :14], rtol=0, atol=1e-12)
