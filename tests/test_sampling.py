"""Sampling: against a loop, transformers' own filters, and the share of many draws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import attncore as ac
from attncore.nn import Decoder
from attncore.sampling import draw, probabilities

settings = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 1.0, 2.5]),
        "top_k": st.sampled_from([None, 1, 3, 7, 50]),
        "top_p": st.sampled_from([None, 0.05, 0.5, 0.9, 1.0]),
    }
)
# Halves tie often, and are exact.
rows = st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=1, max_size=11)


def by_loop(logits, temperature, top_k, top_p):
    """One row: the likeliest first, each with those that tie, until enough are kept."""
    powers = [math.exp((z - max(logits)) / temperature) for z in logits]
    p = [x / sum(powers) for x in powers]
    kept = set(range(len(p)))
    if top_k is not None:
        kept = {n for n in kept if sum(z > logits[n] for z in logits) < top_k}
    total = sum(p[n] for n in kept)
    p = [p[n] / total if n in kept else 0.0 for n in range(len(p))]
    if top_p is not None and top_p < 1:
        kept = {n for n in kept if sum(x for x in p if x > p[n] * (1 + 1e-12)) < top_p - 1e-12}
    total = sum(p[n] for n in kept)
    return [p[n] / total if n in kept else 0.0 for n in range(len(p))]


@given(rows, settings)
def test_equals_a_loop(logits, options):
    found = probabilities(np.array(logits), **options)

    assert np.allclose(found, by_loop(logits, **options), rtol=0, atol=1e-12)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.9])
@pytest.mark.parametrize("top_k", [None, 5, 400])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.9])
def test_equals_transformers(dtype, temperature, top_k, top_p):
    generator = torch.Generator().manual_seed(0)
    # Sixteenths, shuffled: no ties, and exact in 16 bits.
    logits = torch.stack([torch.randperm(127, generator=generator) / 16 for _ in range(3)])
    logits = logits.to(dtype)
    theirs = TemperatureLogitsWarper(temperature)(None, logits.double())
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    if top_p:
        theirs = TopPLogitsWarper(top_p)(None, theirs)
    found = probabilities(logits, temperature=temperature, top_k=top_k, top_p=top_p)

    assert found.dtype == dtype
    assert torch.equal(found > 0, theirs.softmax(-1).to(dtype) > 0)
    tolerance = {torch.bfloat16: 4e-3, torch.float16: 5e-4}.get(dtype, 1e-6)
    assert torch.allclose(found.double(), theirs.softmax(-1), rtol=0, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8}, {"temperature": 0}])
def test_numpy_and_torch_agree_and_nothing_given_is_changed(options):
    logits = np.random.default_rng(0).normal(size=(2, 3, 7))
    before = logits.copy()
    ours, theirs = (probabilities(a, **options) for a in (logits, torch.from_numpy(logits)))
    u = np.random.default_rng(1).random((2, 3))

    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, torch.Tensor)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-15)
    assert (draw(ours, u) == draw(theirs, torch.from_numpy(u)).numpy()).all()
    assert (logits == before).all()


def test_the_token_that_crosses_p_is_kept():
    logits = np.log([0.5, 0.25, 0.15, 0.1])

    assert [(probabilities(logits, top_p=p) > 0).sum() for p in (0.01, 0.5, 0.51, 0.76, 0.91)] == [
        1,
        1,
        2,
        3,
        4,
    ]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 7.0])
def test_a_sum_that_meets_p_is_enough(dtype, convert, shift):
    p = np.array([0.3, 0.1, 0.1, 0.5])
    logits = convert((np.log(p) + shift).astype(dtype))
    for top_p, kept in (
        (0.5, [0, 0, 0, 1]),
        (0.8, [0.375, 0, 0, 0.625]),
        (0.80001, [0.3, 0.1, 0.1, 0.5]),  # the last two tie
        (0.9, [0.3, 0.1, 0.1, 0.5]),
    ):
        found = probabilities(logits, top_p=top_p)
        assert np.allclose(found, kept, rtol=0, atol=2e-6), top_p


@given(st.permutations(range(1, 9)), st.integers(1, 7))
def test_the_fewest_that_meet_p_are_kept_in_every_dtype(order, few):
    p = np.array(order) / 36
    top_p = np.sort(p)[::-1][:few].sum()
    for dtype in (np.float64, np.float32):
        kept = probabilities(np.log(p).astype(dtype), top_p=top_p) > 0
        assert (kept == (np.array(order) > 8 - few)).all()


def test_ties_are_kept_together_whatever_their_numbers():
    logits = np.array([1.0, 2.0, 1.0, 0.0, 1.0])

    assert (probabilities(logits, top_k=2) > 0).tolist() == [True, True, True, False, True]
    assert (probabilities(logits, top_p=0.5) > 0).tolist() == [True, True, True, False, True]
    assert probabilities(np.array([0.0, 3.0, 3.0]), temperature=0).tolist() == [0, 1, 0]


def test_logits_of_sixteen_bits_tie():
    logits = torch.tensor([3.0, 2.001, 2.002, 1.0])

    assert (probabilities(logits, top_k=2) > 0).tolist() == [True, False, True, False]
    assert (probabilities(logits.bfloat16(), top_k=2) > 0).tolist() == [True, True, True, False]


def test_top_p_counts_what_top_k_has_left():
    logits = np.log([0.4, 0.3, 0.2, 0.1])

    assert (probabilities(logits, top_p=0.75) > 0).sum() == 3
    assert (probabilities(logits, top_k=3, top_p=0.75) > 0).sum() == 2  # 0.7 of 0.9 is enough


@given(rows, st.sampled_from([1e-6, 1e-3, 0.5, 3.0, 1e6]))
def test_no_temperature_changes_which_token_is_likeliest(logits, temperature):
    logits = np.array(logits)
    p = probabilities(logits, temperature=temperature)

    assert p[logits.argmax()] == p.max()
    assert probabilities(logits, temperature=0).argmax() == logits.argmax()
    assert np.isfinite(p).all()


def test_a_token_ruled_out_stays_out():
    logits = np.array([-np.inf, 0.0, -np.inf, 1.0])
    for options in ({}, {"temperature": 1e6}, {"top_k": 3}, {"top_p": 0.999}, {"temperature": 0}):
        p = probabilities(logits, **options)
        assert (p[[0, 2]] == 0).all()
        assert draw(p, 0.0) in (1, 3)
        assert draw(p, 1 - 2**-53) == 3


@given(st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.25, 3.0]), min_size=1, max_size=9), st.data())
def test_a_draw_is_the_stretch_the_number_falls_into(p, data):
    if sum(p) == 0:
        p[0] = 1.0
    u = data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1 - 2**-53]))
    n = int(draw(np.array(p), u))

    assert p[n] > 0
    assert sum(p[:n]) <= u * sum(p) * (1 + 1e-12)
    assert sum(p[: n + 1]) >= u * sum(p) * (1 - 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_draws_come_as_often_as_they_should(dtype):
    p = np.array([0.5, 0.0, 0.3, 0.15, 0.05], dtype=dtype)
    u = ((np.arange(10_000) + 0.5) / 10_000).astype(np.float32).astype(dtype)
    u = np.minimum(u, np.nextafter(dtype(1), dtype(0)))
    shares = np.bincount(draw(np.tile(p, (10_000, 1)), u), minlength=5) / 10_000

    assert np.allclose(shares, p, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wider", [torch.float32, torch.float64])
def test_every_token_of_sixteen_bits_can_be_drawn(dtype, wider):
    N = 1024
    p = torch.full((N,), 1 / N, dtype=dtype).expand(N, N)
    u = (torch.arange(N, dtype=wider) + 0.5) / N

    assert draw(p, u).tolist() == list(range(N))
    batches = torch.rand(40, 512, generator=torch.Generator().manual_seed(0), dtype=wider)
    assert all((draw(p[:512, :7], u) < 7).all() for u in batches)


def test_wider_numbers_draw_what_wider_probabilities_do():
    rng = np.random.default_rng(0)
    p, u = rng.random((100, 7)).astype(np.float32), rng.random(100)

    assert (draw(p, u) == draw(p.astype(np.float64), u)).all()
    with pytest.raises(TypeError, match=r"uniform is float32, with fewer bits .* in float64"):
        draw(p.astype(np.float64), u.astype(np.float32))
    with pytest.raises(ValueError, match="draw it in 32 or 64 bits, as 16 round up to 1"):
        draw(p.astype(np.float16), np.float16(np.full(100, 0.9999)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: probabilities(z, temperature=-1), ValueError, r"must be 0 .* got -1"),
        (lambda z: probabilities(z, temperature=1e-9), ValueError, "from 1e-6 to 1e6, got 1e-09"),
        (lambda z: probabilities(z, temperature=math.nan), ValueError, "got nan"),
        (lambda z: probabilities(z, top_k=0), ValueError, "top_k must be at least 1, got 0"),
        (lambda z: probabilities(z, top_k=2.0), TypeError, "top_k must be an integer, got float"),
        (lambda z: probabilities(z, top_p=0), ValueError, "top_p must be above 0 and at most 1"),
        (lambda z: probabilities(z, top_p=90), ValueError, "at most 1, got 90"),
        (lambda z: probabilities(z * math.nan), ValueError, "NaN or infinity in them"),
        (lambda z: probabilities(z + math.inf), ValueError, "NaN or infinity in them"),
        (lambda z: probabilities(z - math.inf), ValueError, "no token is left to choose"),
        (lambda z: probabilities(z[:0]), ValueError, r"logits must be \(..., N\), got \(0,\)"),
        (lambda z: probabilities(z > 0), TypeError, "logits must hold real numbers, got bool"),
        (lambda z: draw(z[:0], 0.5), ValueError, r"must be \(..., N\), got \(0,\)"),
        (lambda z: draw(z, z), ValueError, r"for each row: probabilities \(3,\), uniform \(3,\)"),
        (lambda z: draw(z, 1.0), ValueError, "uniform must be at least 0 and below 1"),
        (lambda z: draw(z, math.nan), ValueError, "uniform must be at least 0 and below 1"),
        (lambda z: draw(-z, 0.5), ValueError, "at least 0 and finite, and not all 0"),
        (lambda z: draw(0 * z, 0.5), ValueError, "at least 0 and finite, and not all 0"),
        (lambda z: draw(z * math.inf, 0.5), ValueError, "at least 0 and finite, and not all 0"),
    ],
)
def test_the_error_says_what_is_wrong(call, error, message):
    with np.errstate(invalid="ignore"), pytest.raises(error, match=message):
        call(np.array([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"d_model": 12, "layers": 2, "heads": 6, "kv_heads": 2, "context": 37}
    return Decoder("abcdefg", **sizes).double()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.9}])
def test_the_same_seed_writes_the_same_with_and_without_a_cache(model, options):
    prompt = model.encode("ab").expand(5, -1)
    options = {"temperature": 1.3, **options}
    one, two, other = (
        model.generate(prompt, 31, cached=cached, generator=seeded(seed), **options)
        for cached, seed in ((True, 0), (False, 0), (True, 1))
    )

    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert len({tuple(row) for row in one.tolist()}) == 5


def test_a_seed_writes_another_text_in_another_batch_or_dtype(model):
    prompt = model.encode("ab")
    three, one = (
        model.generate(prompt.expand(rows, -1), 31, temperature=1.3, generator=seeded())
        for rows in (3, 1)
    )
    narrow = Decoder("abcdefg", d_model=12, layers=2, heads=6, kv_heads=2, context=37)
    narrow.load_state_dict(model.state_dict())
    other = narrow.generate(prompt.expand(3, -1), 31, temperature=1.3, generator=seeded())

    assert not torch.equal(three[:1], one)
    assert not torch.equal(three, other)


def test_generation_is_these_steps(model):
    chance, tokens = seeded(), model.encode("ab").expand(3, -1)
    written = model.generate(tokens, 7, temperature=0.8, top_k=4, generator=seeded())
    for _ in range(7):
        p = probabilities(model(tokens)[:, -1], temperature=0.8, top_k=4)
        new = draw(p, torch.rand(3, generator=chance, dtype=torch.float64))
        tokens = torch.cat([tokens, new[:, None]], dim=1)

    assert torch.equal(written, tokens)


def test_a_low_temperature_and_one_token_are_greedy(model):
    prompt = model.encode("ab")
    greedy = model.generate(prompt, 31)

    for options in ({"temperature": 1e-6}, {"temperature": 1.0, "top_k": 1}):
        assert torch.equal(model.generate(prompt, 31, generator=seeded(), **options), greedy)


def test_sixteen_bits_are_drawn_from_in_thirty_two(model):
    half = Decoder("abcdefg", d_model=12, layers=1, heads=6, kv_heads=2, context=37).bfloat16()
    written = half.generate(half.encode("ab"), 5, temperature=1.0, generator=seeded())

    assert written.shape == (1, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 1.0}, "a temperature above 0 and a generator"),
        ({"generator": seeded()}, "at temperature 0 nothing is drawn"),
        ({"temperature": -1.0, "generator": seeded()}, "temperature must be 0"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 2.0}, "top_p must be above 0"),
    ],
)
def test_generation_refuses_what_it_cannot_do(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(model.encode("ab"), 3, **options)


def test_it_is_part_of_the_package():
    assert ac.sampling.draw is draw
