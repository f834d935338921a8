"""The encoder-decoder: what it reads, what it must not see, and that it learns."""

import copy

import pytest
import torch

from attncore import KVCache
from attncore.nn import Block
from attncore.nn.seq2seq import Translator, fit, shifted

PAIRS = [("ab", "BA"), ("abc", "CBA"), ("c", "C"), ("bca", "ACB"), ("cb", "BC")]


def made(**options):
    torch.manual_seed(0)
    return Translator(PAIRS, d_model=12, heads=3, **options).double()


def test_padding_changes_nothing():
    model = made()
    targets = model.tokens(["CBA"], 1)[0]
    alone = model(["ab"], targets)
    beside = model(["ab", "bca"], targets.expand(2, -1))

    assert torch.allclose(alone[0], beside[0], atol=1e-12)


@pytest.mark.parametrize("summary", [False, True])
def test_the_decoder_sees_the_source_and_no_later_target(summary):
    model = made(summary=summary)
    rows = shifted(model.tokens(["CBA"], 1)[0])
    other = rows.clone()
    other[:, -1] = 1
    before, after = model(["abc"], rows), model(["abc"], other)

    assert rows[0, 0] == 0
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before, model(["abb"], rows))


def test_a_summary_is_one_row_and_the_average():
    rows, mask = made().encode(["ab", "bca"])
    one, one_mask = made(summary=True).encode(["ab", "bca"])

    assert (rows.shape, one.shape) == ((2, 3, 12), (2, 1, 12))
    assert torch.allclose(one[0, 0], rows[0, :2].mean(dim=0))
    assert torch.allclose(one[1, 0], rows[1].mean(dim=0))
    assert mask[:, 0, 0].tolist() == [[True, True, False], [True, True, True]]
    assert one_mask.shape == (2, 1, 1, 1)
    count = [sum(p.numel() for p in made(summary=s).parameters()) for s in (False, True)]
    assert count[0] == count[1]


def test_the_alignment_is_what_the_forward_pass_uses():
    model = made()
    weights = model.alignment("abc", "CB")
    context, mask = model.encode(["abc"])
    seen = []
    hook = model.decoder.cross.register_forward_hook(lambda layer, inputs, out: seen.append(inputs))
    rows = shifted(model.tokens(["CB"], 1)[0])
    model(["abc"], rows)
    hook.remove()
    x, used, _ = seen[0]

    assert weights.shape == (3, 3, 3)
    assert torch.allclose(used, context)
    assert torch.allclose(weights, model.decoder.cross.weights(x, context, mask)[0])
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 3, dtype=torch.float64))


def test_training_teaches_and_is_repeatable(capsys):
    torch.manual_seed(0)
    model = Translator(PAIRS, d_model=24)
    losses = fit(model, PAIRS, steps=120, batch=5)
    torch.manual_seed(0)
    again = fit(Translator(PAIRS, d_model=24), PAIRS, steps=3, batch=5)

    assert model.translate([source for source, _ in PAIRS]) == [target for _, target in PAIRS]
    assert losses[-1] < 0.1 < losses[0]
    assert losses[0] == again[0]
    captured = capsys.readouterr()
    assert "120/120" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("summary", [False, True])
def test_all_is_made_where_the_parameters_are(summary):
    """Whatever forgot to say where would be made on a device that holds no numbers."""

    def work():
        model = copy.deepcopy(untrained)
        losses = fit(model, PAIRS, steps=2, batch=3)
        rows = shifted(model.tokens(["CBA"], 1)[0])
        return [losses, model.translate(["ab"]), model(["ab"], rows), model.alignment("ab", "BA")]

    untrained = made(summary=summary)
    expected = work()
    with torch.device("meta"):
        found = work()

    assert found[:2] == expected[:2]
    assert all(torch.equal(a, b) for a, b in zip(found[2:], expected[2:], strict=True))


@pytest.mark.parametrize("summary", [False, True])
def test_a_model_that_was_moved_reads_there(summary):
    model = made(summary=summary).to("meta")
    rows, lengths = model.tokens(["CBA", "B"], 1)
    found = [rows, lengths, model(["ab", "c"], shifted(rows)), model.alignment("ab", "BA")]

    assert {a.device.type for a in found} == {"meta"}
    assert found[2].shape == (2, 4, 4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["abcd"], r"a text has 4 characters, the longest known 3"),
        (["ax!"], r"the model does not know '!x'"),
        (["ab", ""], r"a text is empty"),
        ([], r"texts must be a list of one text or more"),
        ("abc", r"texts must be a list of one text or more"),
    ],
)
def test_the_error_says_what_is_wrong(texts, message):
    with pytest.raises(ValueError, match=message):
        made().translate(texts)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: m.translate([3]), TypeError, r"a text must be a str, got int"),
        (lambda m: m.translate(3), ValueError, r"texts must be a list of one text or more"),
        (lambda m: m.alignment(["ab"], "BA"), TypeError, r"a text must be a str, got list"),
        (lambda m: m.tokens(["ab"], 2), ValueError,
         r"side must be 0 \(sources\) or 1 \(targets\), got 2"),
        (lambda m: m(["ab"], ["BA"]), TypeError,
         r"targets must be a torch tensor, got list; shifted\(model.tokens\(texts, 1"),
        (lambda m: m(["ab"], torch.zeros(1, 2)), ValueError,
         r"targets must be integers \(B, Tt\) = \(1, at most 4\), got float32 \(1, 2\)"),
        (lambda m: m(["ab"], LONG[0]), ValueError, r"= \(1, at most 4\), got int64 \(9,\)"),
        (lambda m: m(["ab"], LONG), ValueError, r"= \(1, at most 4\), got int64 \(1, 9\)"),
        (lambda m: m(["ab", "c"], LONG[:, :3]), ValueError, r"= \(2, at most 4\), got int64"),
        (lambda m: m(["ab"], LONG[:, :3] + 9), ValueError,
         r"targets must lie in 0 to N - 1 = 3, got 9"),
        (lambda m: m(["ab"], LONG[:, :3].to("meta")), ValueError,
         r"on one device: targets on meta, parameters on cpu; move them"),
        (lambda m: fit(m, PAIRS, steps=2.0), TypeError, r"steps must be an integer, got float"),
        (lambda m: fit(m, PAIRS, steps=0), ValueError, r"steps must be at least 1, got 0"),
        (lambda m: fit(m, PAIRS, steps=1, batch=0), ValueError, r"batch must be at least 1, got 0"),
        (lambda m: fit(m, PAIRS, steps=1, rate=-1), ValueError, r"rate must be positive and fini"),
        (lambda m: fit(m, [], steps=1), ValueError, r"pairs must be .* and at least one"),
        (lambda m: Translator([("a", 3)]), ValueError, r"none of them empty, got \('a', 3\)"),
        (lambda m: Translator(["ab"]), ValueError, r"none of them empty, got 'ab'"),
        (lambda m: Translator(PAIRS, d_model=4.0), TypeError, r"d_model must be an integer, got f"),
    ],
)  # fmt: skip
def test_the_error_says_so_of_everything_else(call, kind, message):
    with pytest.raises(kind, match=message):
        call(made())


LONG = torch.zeros(1, 9, dtype=torch.long)


def test_a_block_is_what_its_formula_says():
    torch.manual_seed(0)
    block = Block(12, 3, cross=True).double()
    x, context = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    mask = torch.rand(2, 1, 1, 7) < 0.7
    a = x + block.attention(block.norm1(x), causal=True)
    b = a + block.cross(block.norm_cross(a), context, mask)
    c = b + block.down(torch.nn.functional.gelu(block.up(block.norm2(b))))

    assert torch.equal(block(x, context, mask, causal=True), c)


def test_a_block_without_context_masks_itself():
    block = Block(12, 3).double()
    x = torch.randn(1, 5, 12).double()
    mask = torch.tensor([True, True, True, False, False])
    other = x.clone()
    other[:, 3:] = 7.0

    assert torch.equal(block(x, mask=mask)[:, :3], block(other, mask=mask)[:, :3])


@pytest.mark.parametrize(
    ("cross", "context", "message"),
    [
        (True, None, "this block has a cross-attention: give it a context"),
        (False, torch.zeros(1, 3, 12), "a context needs a block with cross=True; pass a mask"),
    ],
)
def test_a_block_refuses_the_wrong_context(cross, context, message):
    with pytest.raises(ValueError, match=message):
        Block(12, 3, cross=cross)(torch.zeros(1, 5, 12), context)


def test_a_refused_call_leaves_the_cache_as_it_was():
    block = Block(12, 3, cross=True)
    cache = KVCache(1, 3, 9, 4, like=block.up.weight)
    x, context = torch.zeros(1, 5, 12), torch.zeros(1, 7, 12)
    with torch.no_grad():
        for wrong in ((context[..., 1:], None), (context, torch.ones(4, 9, dtype=torch.bool))):
            with pytest.raises(ValueError, match=r"context must be|mask"):
                block(x, *wrong, cache=cache)
            assert cache.length == 0
        block(x, context, cache=cache)

    assert cache.length == 5


@pytest.mark.parametrize("pairs", [[], [("", "")], [("a", "")]])
def test_pairs_must_hold_text(pairs):
    with pytest.raises(ValueError, match="pairs must be \\(source, target\\) texts"):
        Translator(pairs)


@pytest.mark.parametrize("steps", [1, 2, 10, 11])
def test_any_number_of_steps_will_do(steps):
    assert len(fit(made().float(), PAIRS, steps=steps, batch=2)) == steps
