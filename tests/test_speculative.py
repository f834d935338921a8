"""Speculative decoding: the text has the target's distribution, whatever the draft proposes.

Shown exactly, by enumeration: chances are fractions, and nothing is drawn at random.
"""

import itertools
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

import attncore as ac
from attncore import models
from attncore.nn import Decoder
from attncore.sampling import accept, probabilities

N = 3
TEXTS = list(itertools.product(range(N), repeat=3))
PASTS = [past for n in range(3) for past in itertools.product(range(N), repeat=n)]
SIZES = {"d_model": 12, "layers": 2, "heads": 6, "kv_heads": 2, "context": 40}


def table(kind, seed):
    """Return N chances after each text of up to two tokens, as fractions."""
    rng, rows = np.random.default_rng(seed), {}
    for past in PASTS:
        if kind == "any":
            parts = np.bincount(rng.integers(N, size=4), minlength=N)
        else:
            parts = rng.permutation({"quarters": (2, 1, 1), "halves": (2, 2, 0)}[kind])
        rows[past] = [Fraction(int(n), 4) for n in parts]
    return rows


def chance_of(text, p):
    """Return the chance of a text of the target itself."""
    return p[()][text[0]] * p[text[:1]][text[1]] * p[text[:2]][text[2]]


def middles(count):
    """Return the middles of equal parts of the line from 0 to 1.

    Where all that is decided changes at multiples of 1 / count, each stands for its part.
    """
    return (np.arange(count) + 0.5) / count


# -- the rule ---------------------------------------------------------------------------------


def outcomes(p, q, past, ahead, library):
    """Yield the tokens that one round writes after a text, and their chance, by `accept`."""
    uniform = np.array(list(itertools.product(middles(12), repeat=ahead + 1)))
    each = len(uniform)
    for guess in itertools.product(range(N), repeat=ahead):
        pasts = [past + guess[:n] for n in range(ahead + 1)]
        chance = Fraction(1)
        for text, x in zip(pasts, guess, strict=False):
            chance *= q[text][x]
        if chance == 0:
            continue
        target = np.array([p[text] for text in pasts], float)
        draft = np.array([q[text] for text in pasts[:-1]], float).reshape(ahead, N)
        given = [np.array([a] * each) for a in (target, draft, np.array(guess, int))] + [uniform]
        if library is torch:
            given = [torch.from_numpy(a) for a in given]
        kept, token = accept(*given)
        for (k, x), count in Counter(zip(kept.tolist(), token.tolist(), strict=True)).items():
            yield (*guess[:k], x), chance * Fraction(count, each)


def chances(p, q, ahead, library):
    """Return the chance of each text that is written in rounds."""
    found, unfinished = Counter(), Counter({(): Fraction(1)})
    while unfinished:
        past, chance = unfinished.popitem()
        for new, share in outcomes(p, q, past, min(ahead, 2 - len(past)), library):
            text = past + new
            (found if len(text) == 3 else unfinished)[text] += chance * share
    return found


@pytest.mark.parametrize("library", [np, torch])
@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_27_texts_have_the_chance_that_the_target_gives_them(seed, ahead, library):
    p, q = table("any", seed), table("any", seed + 100)
    expected = {text: chance_of(text, p) for text in TEXTS}

    assert sum(expected.values()) == 1
    assert sum(chance > 0 for chance in expected.values()) > 5
    assert {text: chances(p, q, ahead, library)[text] for text in TEXTS} == expected


def test_what_is_kept_is_what_both_agree_on():
    """The chance to keep a token is the sum of min(p, q): one less half of their distance."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(5), size=2)
    u = np.array(list(itertools.product(middles(4000), [0.5])))
    shares = []
    for x in range(5):
        given = (np.array([[p, p]] * len(u)), np.array([[q]] * len(u)), np.full((len(u), 1), x), u)
        shares.append(q[x] * accept(*given)[0].mean())

    assert sum(shares) == pytest.approx(np.minimum(p, q).sum(), abs=1e-3)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_rows_are_decided_on_one_by_one_and_alike_in_both_libraries(shape):
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), size=(*shape, 4)), rng.dirichlet(np.ones(6), size=(*shape, 3))
    x, u = rng.integers(6, size=(*shape, 3)), rng.random((*shape, 4))
    before = [a.copy() for a in (p, q, x, u)]
    kept, token = accept(p, q, x, u)
    for index in np.ndindex(shape):
        one = accept(p[index], q[index], x[index], u[index])
        assert (one[0], one[1]) == (kept[index], token[index])
    assert all((a == b).all() for a, b in zip(before, (p, q, x, u), strict=True))
    tensors = accept(*map(torch.from_numpy, before))
    for ours, wanted in zip(tensors, (kept, token), strict=True):
        assert ours.dtype == torch.int64
        assert np.array_equal(ours.numpy(), wanted)
    scaled = accept(p * 7, q * 0.1, x, u)  # rows are divided by their sum
    assert all(np.array_equal(a, b) for a, b in zip(scaled, (kept, token), strict=True))
    assert {0, 3} & set(kept.ravel().tolist()) or shape == ()


def test_agreement_keeps_all_and_disagreement_none():
    p = probabilities(np.random.default_rng(0).normal(size=(4, 6)))
    x, most = np.array([5, 0, 3]), np.nextafter(1, 0)
    for u in (np.zeros(4), np.full(4, 0.3), np.full(4, most)):
        assert accept(p, p[:3], x, u)[0] == 3
    one = np.eye(6)
    kept, token = accept(one[[1, 2, 3, 4]], one[[1, 2, 5]], np.array([1, 2, 5]), np.zeros(4))
    assert (int(kept), int(token)) == (2, 3)
    assert accept(one[[1]], one[:0], np.zeros(0, int), np.array([most])) == (0, 1)


def test_a_row_that_rounding_leaves_empty_falls_back_on_the_target():
    """Where p is one unit in the last place below q, and nowhere above it, max(p - q, 0) is 0."""
    rng, rejected = np.random.default_rng(0), 0
    for share in rng.random(300):
        q = np.array([0.0, share, 1 - share])  # token 0 can't be
        p = np.array([0.0, np.nextafter(share, 0), 1 - share])
        u = np.array([np.nextafter(1, 0), 0.0])
        kept, token = accept(np.array([p, p]), q[None], np.array([1]), u)
        rejected += int(kept) == 0
        assert int(token) > 0

    assert rejected > 10


def test_16_bits_are_decided_on_in_the_bits_of_uniform():
    p = torch.tensor([[0.25, 0.75], [0.5, 0.5]], dtype=torch.bfloat16)
    kept, token = accept(p, p[:1].flip(-1), torch.tensor([0]), torch.tensor([0.3, 0.5]))

    assert (int(kept), int(token)) == (1, 1)
    with pytest.raises(TypeError, match=r"uniform is float16, with fewer bits than target, float3"):
        accept(p.float(), p[:1].float(), torch.tensor([0]), torch.zeros(2).half())


ROW = np.full((2, 3), 1 / 3)
X, U = np.array([1]), np.zeros(2)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ((ROW, ROW, X, U), ValueError,
         "draft must be (1, 3), for target (..., n + 1, N) = (2, 3), got (2, 3)"),
        ((ROW[0], ROW[:1], X, U), ValueError, "target must be (..., n + 1, N), got (3,)"),
        ((ROW, ROW[:1], np.array([1, 2]), U), ValueError, "drafted must be (1,), for target"),
        ((ROW, ROW[:1], X, np.zeros(1)), ValueError, "uniform must be (2,), for target"),
        ((ROW, ROW[:1], np.array([3]), U), ValueError, "drafted must lie in 0 to N - 1 = 2"),
        ((ROW, ROW[:1], np.array([-1]), U), ValueError, "drafted must lie in 0 to N - 1 = 2"),
        ((ROW, ROW[:1], np.array([1.0]), U), TypeError, "drafted must be integers, got float64"),
        ((ROW, np.array([[1.0, 0, 0]]), X, U), ValueError,
         "drafted holds a token of probability 0 in draft: it was not drawn there"),
        ((ROW, ROW[:1], X, U + 1), ValueError, "uniform must be at least 0 and below 1"),
        ((0 * ROW, ROW[:1], X, U), ValueError, "target must be at least 0 and finite, and not all"),
        ((ROW, -ROW[:1], X, U), ValueError, "draft must be at least 0 and finite, and not all 0"),
        ((ROW, torch.from_numpy(ROW[:1]), X, U), TypeError, "do not mix: uniform NumPy, draft"),
        ((torch.zeros(2, 3, device="meta"), torch.zeros(1, 3), torch.zeros(1).long(),
          torch.zeros(2)), ValueError, "tensors must be on one device"),
    ],
)  # fmt: skip
def test_the_error_of_the_rule_says_what_is_wrong(given, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        accept(*given)


# -- writing ----------------------------------------------------------------------------------


class Toy(models.Decoder):
    """A model whose chances are a table's. It knows its text by what its cache gives back."""

    def __init__(self, rows):
        super().__init__("abc", d_model=2, layers=1, heads=1, kv_heads=1, context=9, rng=0)
        self.rows = rows

    def forward(self, tokens, caches=None, **options):
        text = tokens
        if caches:
            k = tokens[:, None, :, None] * np.ones(2)
            text = caches[0].append(k, k)[0][:, 0, :, 0].astype(int)
        start = text.shape[1] - tokens.shape[1]
        with np.errstate(divide="ignore"):  # the logarithm of 0
            return np.log(
                [
                    [
                        np.array(self.rows[tuple(row[1 : i + 1])], float)
                        for i in range(start, len(row))
                    ]
                    for row in text.tolist()
                ]
            )


class Given(np.random.Generator):
    """A generator of given numbers, which says when there are no more."""

    def __init__(self, numbers):
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def random(self, size):
        if not self.numbers:
            raise LookupError
        return np.array([self.numbers.pop(0)] * size)


def written(target, count, **options):
    """Return the chance of each text that `generate` can write, by trying all numbers."""
    found, open_ends = Counter(), [()]
    prompt = np.array([[0]])
    while open_ends:
        path = open_ends.pop()
        chance = Given(path)
        try:
            text = target.generate(prompt, 3, temperature=1.0, generator=chance, **options)
        except LookupError:
            open_ends += [(*path, number) for number in middles(count)]
            continue
        found[tuple(text[0, 1:].tolist())] += Fraction(1, count ** len(path))
    return found


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("kind", "count", "ahead"), [("halves", 2, 2), ("halves", 2, 9), ("quarters", 4, 1)]
)
def test_what_generate_writes_has_the_chances_of_the_target(kind, count, ahead, cached):
    p, q = table(kind, 5), table("halves", 6)
    target, draft = Toy(p), Toy(q)
    expected = {text: chance_of(text, p) for text in TEXTS if chance_of(text, p)}

    assert written(target, count, draft=draft, ahead=ahead, cached=cached) == expected
    assert written(target, count) == expected
    assert {text for text in TEXTS if chance_of(text, q)} != set(expected)


def random_models(library):
    torch.manual_seed(0)
    both = [Decoder("abcd ", **SIZES | change).double() for change in ({}, {"layers": 1})]
    with torch.no_grad():
        for model in both:
            for parameter in model.parameters():
                parameter.mul_(3)  # else one token is the likeliest everywhere
    if library is torch:
        return both
    twins = [models.Decoder("abcd ", **SIZES | c, rng=0) for c in ({}, {"layers": 1})]
    for twin, model in zip(twins, both, strict=True):
        twin.load_state_dict(model.state_dict())
    return twins


def again(tokens):
    """Return logits of the next token: the last one comes again, or the one after it."""
    order = np.arange(5)
    order = order if isinstance(tokens, np.ndarray) else torch.from_numpy(order)
    return -1.0 * ((order - tokens[:, -1:]) % 5)


@pytest.mark.parametrize("library", [np, torch])
@pytest.mark.parametrize("ahead", [1, 3, 50])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("who", ["another", "itself", "a function"])
def test_the_likeliest_tokens_are_the_same_as_without(library, ahead, cached, who):
    model, other = random_models(library)
    draft = {"another": other, "itself": model, "a function": again}[who]
    tokens, left = model.encode_batch(["abcabd", "dd", "c ba"])
    for given in ({}, {"left_padding": left}):
        expected = model.generate(tokens, 20, **given)
        found = model.generate(tokens, 20, draft=draft, ahead=ahead, cached=cached, **given)
        assert type(found) is type(expected)
        assert found.dtype == expected.dtype
        assert found.tolist() == expected.tolist()
    assert len(set(expected[:, 6:].ravel().tolist())) > 2
    for steps in (0, 1, 2):
        expected = model.generate(tokens, steps)
        assert model.generate(tokens, steps, draft=draft).tolist() == expected.tolist()


def test_a_draft_saves_calls_of_the_model(monkeypatch):
    model, other = random_models(np)
    calls, forward = [], models.Decoder.forward

    def spy(self, tokens, *given, **options):
        if self is model:
            calls.append(tokens.shape[1])
        return forward(self, tokens, *given, **options)

    monkeypatch.setattr(models.Decoder, "forward", spy)
    prompt = model.encode("abca")
    twin = models.Decoder("abcd ", **SIZES, rng=0)
    twin.load_state_dict(model.state_dict())
    model.generate(prompt, 20, draft=twin, ahead=4)  # always right: five tokens a call
    assert calls == [4 + 4, 5, 5, 5]
    calls.clear()
    model.generate(prompt, 20, draft=other, ahead=4)
    assert 4 <= len(calls) <= 20


def test_both_libraries_draw_the_same_from_the_same_numbers(monkeypatch):
    settings = {"temperature": 0.8, "top_k": 4, "ahead": 3}
    ours, draft = random_models(np)
    tokens = np.array([[0, 3, 1], [2, 2, 4]])
    expected = ours.generate(
        tokens, 20, draft=draft, generator=np.random.default_rng(5), **settings
    )
    chance = np.random.default_rng(5)
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.from_numpy(chance.random(n)))
    theirs, draft = random_models(torch)
    generator = torch.Generator()
    found = theirs.generate(
        torch.from_numpy(tokens), 20, draft=draft, generator=generator, **settings
    )
    assert np.array_equal(found.numpy(), expected)


def test_a_draft_of_another_dtype_will_do():
    model, draft = random_models(torch)
    prompt = model.encode("abca")
    expected = model.generate(prompt, 20)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(model.generate(prompt, 20, draft=draft.to(dtype)), expected)
        settings = {"temperature": 1.0, "generator": torch.Generator().manual_seed(0)}
        assert model.generate(prompt, 20, draft=draft, **settings).shape == (1, 24)
    low = model.bfloat16()
    assert low.generate(prompt, 20, draft=draft.double()).shape == (1, 24)


def test_what_was_generated_can_be_trained_on():
    model, draft = random_models(torch)
    model(model.generate(model.encode("ab"), 5, draft=draft)).sum().backward()

    assert model.embedding.weight.grad.abs().sum() > 0


def test_a_compiled_step_is_refused_beside_a_draft():
    model, draft = random_models(torch)
    with pytest.raises(ValueError, match=r"compiled=True cannot be used with draft, of which a st"):
        model.generate(model.encode("a"), 3, draft=draft, compiled=True)


@pytest.mark.parametrize("library", [np, torch])
@pytest.mark.parametrize(
    ("draft", "ahead", "kind", "message"),
    [
        ("small", 4, TypeError, r"draft must be a Decoder, or a function of tokens \(B, T\) that "
         r"returns the logits \(B, N\) of the next, got str"),
        (again, 0, ValueError, r"ahead must be at least 1, got 0"),
        (again, 2.0, TypeError, r"ahead must be an integer, got float"),
        (lambda t: [0.0] * 5, 4, TypeError, r"draft must return logits \(B, N\), got list"),
        (lambda t: again(t)[:, :4], 4, ValueError,
         r"draft must return logits \(B, N\) = \(1, 5\), got \(1, 4\)"),
        (lambda t: again(t)[0], 4, ValueError, r"got \(5,\)"),
        (lambda t: again(t) * np.nan, 4, ValueError, r"logits must be numbers below infinity"),
        (lambda t: Decoder("abcd", **SIZES), 4, TypeError, r"got Decoder"),
    ],
)  # fmt: skip
def test_a_draft_that_cannot_be_is_refused(library, draft, ahead, kind, message):
    model, _ = random_models(library)
    with pytest.raises(kind, match=message):
        model.generate(model.encode("ab"), 5, draft=draft, ahead=ahead)


def test_a_model_that_is_no_draft_for_another_is_refused():
    (model, _), (twin, _) = random_models(torch), random_models(np)
    prompt, steps = model.encode("ab"), 10
    other = Decoder("abcdef", **SIZES)
    with pytest.raises(ValueError, match=r"draft must know the same tokens: it has 6, the model 5"):
        model.generate(prompt, steps, draft=other)
    short = Decoder("abcd ", **SIZES | {"context": 9}).double()
    with pytest.raises(ValueError, match=r"10 tokens to read, but draft has 9 positions: take few"):
        model.generate(prompt, steps, draft=short)
    assert torch.equal(model.generate(prompt, 9, draft=short), model.generate(prompt, 9))
    with pytest.raises(TypeError, match=r"do not mix: draft NumPy, model torch"):
        model.generate(prompt, steps, draft=twin)
    with pytest.raises(TypeError, match=r"do not mix: model NumPy, draft torch"):
        twin.generate(twin.encode("ab"), steps, draft=model)
    with pytest.raises(ValueError, match=r"on one device: model on cpu, draft on meta"):
        model.generate(prompt, steps, draft=Decoder("abcd ", **SIZES).to("meta"))
    with pytest.raises(TypeError, match=r"NumPy arrays and torch tensors do not mix"):
        model.generate(prompt, steps, draft=lambda tokens: np.zeros((1, 5)))


def test_the_draft_of_the_book_writes_what_the_whale_writes():
    """Counts of which character follows which are a draft."""
    model = models.whale(np.float64)
    tokens = model.encode(ac.data.moby_dick()[:100_000])[0]
    counts = np.ones((81, 81))
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    prompt = model.encode("Call me Ishmael. Some years ago")
    text = model.generate(prompt, 40, draft=lambda t: np.log(counts[t[:, -1]]))

    assert np.array_equal(text, model.generate(prompt, 40))
