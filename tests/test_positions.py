"""Positions: every formula against its loop, against other libraries, and what it promises."""

import math

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from transformers import LlamaConfig, XLNetConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gptj.modeling_gptj import (
    apply_rotary_pos_emb as turn_interleaved,
)
from transformers.models.gptj.modeling_gptj import create_sinusoidal_positions
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

import attncore as ac
from attncore import positions

B, H, TQ, TK, D = 2, 3, 5, 7, 22
PAIRINGS = pytest.mark.parametrize("pairing", ["half", "interleaved"])
LENGTHS = pytest.mark.parametrize(("Tq", "Tk"), [(TQ, TK), (TK, TQ), (TK, TK), (1, TK), (TQ, 1)])
RNG = np.random.default_rng(7)


def both(array):
    """The same numbers for either library."""
    return array, torch.from_numpy(array)


# -- sinusoidal --------------------------------------------------------------------------


@pytest.mark.parametrize("base", [10000.0, 3.0])
def test_sinusoidal_equals_the_loop(base):
    expected = oracle.sinusoidal(range(TK), D, base)
    places = np.arange(TK)

    assert np.allclose(positions.sinusoidal(TK, D, base=base), expected, rtol=0, atol=1e-14)
    for given_as in (places, places.astype(float), list(places), torch.arange(TK).double()):
        found = positions.sinusoidal(given_as, D, base=base)
        assert np.allclose(found, expected, rtol=0, atol=1e-14)


def test_sinusoidal_of_any_places_and_shapes():
    places = np.array([[3.0, -2.0, 100.5], [7.0, 0.0, 1e5]])
    found = positions.sinusoidal(places, 6)

    assert found.shape == (2, 3, 6)
    assert np.allclose(found[1], oracle.sinusoidal(places[1], 6), atol=1e-10)
    assert positions.sinusoidal(0, 4).shape == (0, 4)
    assert positions.sinusoidal(np.array(3), 4).shape == (4,)


def test_sinusoidal_takes_library_and_dtype_from_the_places():
    assert positions.sinusoidal(3, 4).dtype == np.float64
    assert positions.sinusoidal(np.arange(3, dtype="f4"), 4).dtype == np.float32
    assert positions.sinusoidal(torch.arange(3), 4).dtype == torch.get_default_dtype()
    assert positions.sinusoidal(torch.arange(3.0), 4).dtype == torch.float32
    assert positions.sinusoidal(torch.arange(3, device="meta"), 4).device.type == "meta"


@given(st.integers(-50, 50), st.integers(0, 30))
def test_a_step_is_one_turn_wherever_it_is_taken(step, start):
    P = positions.sinusoidal(np.arange(start, start + TK), D)
    later = positions.sinusoidal(np.arange(start, start + TK) + step, D)
    turned = positions.rope(P, np.full(TK, -step), pairing="interleaved")

    assert np.allclose(turned, later, atol=1e-12)


# -- rope ----------------------------------------------------------------------------------


@PAIRINGS
@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rope_equals_the_loop(pairing, base):
    x, places = RNG.normal(size=(B, H, TK, D)), np.arange(3, 3 + TK)
    expected = np.zeros_like(x)
    for b, h, t in np.ndindex(B, H, TK):
        expected[b, h, t] = oracle.rope(x[b, h, t], places[t], base, pairing)

    for given_as in (x, torch.from_numpy(x)):
        like = places if given_as is x else torch.from_numpy(places)
        for at in (like, list(places), range(3, 3 + TK)):
            found = positions.rope(given_as, at, base=base, pairing=pairing)
            assert np.allclose(found, expected, rtol=0, atol=1e-13)
    assert type(found) is torch.Tensor


@PAIRINGS
@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(-10000, 10000))
def test_scores_depend_on_the_difference_of_positions(pairing, i, j, shift):
    q, k = np.random.default_rng(abs(i)).normal(size=(2, 1, D))

    def score(i, j):
        turned = (positions.rope(x, [t], pairing=pairing) for x, t in ((q, i), (k, j)))
        return ac.scores.dot(*turned)

    assert np.allclose(score(i, j), score(i + shift, j + shift), atol=1e-9)


@PAIRINGS
def test_rope_keeps_lengths_and_leaves_position_0_alone(pairing):
    x = RNG.normal(size=(TK, D))
    turned = positions.rope(x, np.arange(TK), pairing=pairing)

    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1))
    assert (turned[0] == x[0]).all()
    assert not np.isclose(turned[1:], x[1:]).any()


def test_one_pairing_is_the_other_with_the_features_in_another_order():
    x, places = RNG.normal(size=(TK, D)), np.arange(TK)
    order = [*range(0, D, 2), *range(1, D, 2)]
    interleaved = positions.rope(x, places, pairing="interleaved")

    assert np.allclose(positions.rope(x[:, order], places), interleaved[:, order])
    assert not np.allclose(positions.rope(x, places), interleaved)


def test_each_sequence_may_have_positions_of_its_own():
    x = RNG.normal(size=(B, H, TK, D))
    places = RNG.integers(0, 99, size=(B, 1, TK))
    found = positions.rope(x, places)

    for b in range(B):
        assert np.allclose(found[b], positions.rope(x[b], places[b, 0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_far_positions_are_exact_in_every_precision(dtype):
    x, places = torch.ones(3, D, dtype=dtype), torch.tensor([2049, 100_003, 2**24 + 1])
    expected = np.array([oracle.rope(np.ones(D), int(t)) for t in places])
    found = positions.rope(x, places)

    assert found.dtype == dtype
    # No error but that of the last rounding; numbers up to sqrt 2.
    assert_close(found.double(), torch.from_numpy(expected), rtol=0, atol=torch.finfo(dtype).eps)


LARGE = {"int8": 127, "uint8": 255, "int16": 32_767, "uint16": 65_535, "int32": 2**31 - 1}


@pytest.mark.parametrize(("dtype", "largest"), LARGE.items())
@pytest.mark.parametrize("kind", ["rope", "rope in 16 bits", "sinusoidal"])
def test_small_integers_are_exact_up_to_their_largest(kind, dtype, largest):
    places = np.array([largest - 1, largest, 3])
    x = np.ones((3, D), "float16" if kind == "rope in 16 bits" else "float64")

    def run(x, places):
        return (
            positions.sinusoidal(places, D) if kind == "sinusoidal" else positions.rope(x, places)
        )

    expected = run(x, places.astype(float))
    found = run(x, places.astype(dtype))
    theirs = run(torch.from_numpy(x), torch.from_numpy(places).to(getattr(torch, dtype)))
    # In torch integers become float32 waves.
    tolerance = {"rope": 1e-12, "rope in 16 bits": 1e-3, "sinusoidal": 1e-6}[kind]

    assert (found == expected).all()
    assert abs(theirs.numpy() - expected).max() < tolerance


def test_a_list_of_numbers_of_16_bits_is_refused_too():
    rounded = [np.float16(2049), np.float16(2048)]
    for x in (np.ones((2, 4)), torch.ones(2, 4)):
        with pytest.raises(TypeError, match="32 bits at least, got float16, in which large ones"):
            positions.rope(x, rounded)
        with pytest.raises(TypeError, match="speeds must be floats of 32 bits at least, got float"):
            positions.rope(x, [0, 1], speeds=rounded)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("call", ["rope", "sinusoidal"])
def test_positions_that_were_rounded_are_refused(call, dtype):
    x, places = torch.ones(2, 4, dtype=dtype), torch.tensor([256, 257])
    run = {
        "rope": lambda t: positions.rope(x, t),
        "sinusoidal": lambda t: positions.sinusoidal(t, 4),
    }
    message = (
        f"positions must be integers or floats of 32 bits at least, got {places.to(dtype).dtype}"
    )

    assert len(run[call](places).unique(dim=0)) == 2  # in bfloat16 there is no 257
    with pytest.raises(TypeError, match=message.replace("torch.", "")):
        run[call](places.to(dtype))


def test_numpy_positions_of_16_bits_are_refused_too():
    with pytest.raises(TypeError, match="32 bits at least, got float16, in which large ones were"):
        positions.rope(np.ones((3, 4)), np.arange(3, dtype=np.float16))


def test_whole_positions_do_not_depend_on_torchs_default_dtype():
    expected = positions.sinusoidal(torch.arange(300), 4)
    torch.set_default_dtype(torch.bfloat16)
    try:
        found = positions.sinusoidal(torch.arange(300), 4)
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(found, expected.bfloat16())


def test_rope_has_a_gradient_and_changes_no_input():
    x = torch.from_numpy(RNG.normal(size=(H, TQ, 4))).requires_grad_()
    before = x.detach().clone()

    assert torch.autograd.gradcheck(lambda x: positions.rope(x, torch.arange(TQ)), x)
    turn = {"pairing": "interleaved"}
    assert torch.autograd.gradcheck(lambda x: positions.rope(x, range(TQ), **turn), x)
    assert torch.equal(x, before)
    places = np.arange(TQ)
    positions.rope(np.ones((TQ, 4)), places)
    assert (places == np.arange(TQ)).all()


def test_rope_interleaved_equals_gptj():
    x = torch.from_numpy(RNG.normal(size=(B, TK, H, D)))
    sin, cos = create_sinusoidal_positions(TK, D).double().chunk(2, dim=-1)
    expected = turn_interleaved(x, sin[None].expand(B, -1, -1), cos[None].expand(B, -1, -1))
    found = positions.rope(x.transpose(1, 2), torch.arange(TK), pairing="interleaved")

    # Their table is in float32.
    assert_close(found.transpose(1, 2), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("window", [None, 4])
def test_turned_keys_can_be_kept(window):
    q, k, v = RNG.normal(size=(3, 1, 1, 13, 6))
    places = np.arange(13)
    whole = ac.attention(
        positions.rope(q, places), positions.rope(k, places), v, causal=True, window=window
    )
    cache = ac.KVCache(1, 1, 13, 6, window=window)
    for start, stop in ((0, 3), (3, 4), (4, 9), (9, 10), (10, 11), (11, 13)):
        new, at = np.s_[:, :, start:stop], places[start:stop]
        keys, values = cache.append(positions.rope(k[new], at), v[new])
        found = ac.attention(positions.rope(q[new], at), keys, values, causal=True, window=window)
        assert np.allclose(found, whole[new])


@PAIRINGS
def test_part_of_the_features_turns_as_if_it_were_all(pairing):
    x, places = RNG.normal(size=(B, H, TK, D)), np.arange(3, 3 + TK)
    options = {"pairing": pairing, "base": 50.0}
    for given_as, at in zip(both(x), both(places), strict=True):
        found = positions.rope(given_as, at, rope_dim=6, **options)

        assert np.allclose(found[..., :6], positions.rope(given_as[..., :6], at, **options))
        assert (found[..., 6:] == given_as[..., 6:]).all()
        assert (positions.rope(given_as, at, rope_dim=D) == positions.rope(given_as, at)).all()
    odd = positions.rope(x[..., :7], places, rope_dim=6, **options)  # the whole may be odd
    assert np.allclose(odd[..., :6], found[..., :6])


@PAIRINGS
def test_speeds_take_the_place_of_the_base(pairing):
    x, places = RNG.normal(size=(B, H, TK, D)), RNG.integers(0, 99, size=(B, 1, TK))
    speeds = RNG.random(D // 2)
    turns = positions.rope(x, places, speeds=speeds, pairing=pairing, gain=1.5)
    pairs = {
        "half": (slice(D // 2), slice(D // 2, None)),
        "interleaved": (np.s_[0::2], np.s_[1::2]),
    }
    a, b = (x[..., part] for part in pairs[pairing])
    one = (a + 1j * b) * 1.5 * np.exp(1j * places[..., None] * speeds)

    for part, expected in zip(pairs[pairing], (one.real, one.imag), strict=True):
        assert np.allclose(turns[..., part], expected)
    plain = positions.rope_speeds(D, base=500.0)[0]
    tensors = map(torch.from_numpy, (x, places, speeds))
    found = positions.rope(next(tensors), next(tensors), speeds=next(tensors), pairing=pairing)
    assert np.allclose(1.5 * found, turns)
    for given_as in (plain, list(plain), tuple(plain)):
        found = positions.rope(x, places, speeds=given_as, pairing=pairing)
        assert (found == positions.rope(x, places, base=500.0, pairing=pairing)).all()


def test_speeds_may_learn():
    x = torch.from_numpy(RNG.normal(size=(H, TQ, 6)))
    speeds = torch.from_numpy(RNG.random(2)).requires_grad_()

    assert torch.autograd.gradcheck(
        lambda x, s: positions.rope(x, range(TQ), speeds=s, rope_dim=4, gain=1.2),
        (x.requires_grad_(), speeds),
    )


# -- speeds --------------------------------------------------------------------------------


def random_config(kind, rng):
    """Return settings of ours, the width, and the same as transformers asks for it."""
    D, length = 2 * int(rng.integers(2, 40)), int(rng.integers(8, 5000))
    base = float(10 ** rng.uniform(2, 6))
    factor, tokens = float(rng.uniform(1, 32)), int(rng.integers(1, 4 * length))
    theirs = {"rope_type": kind, "rope_theta": base, "factor": factor}
    ours = {"base": base, "kind": kind}
    if kind != "longrope":
        ours["factor"] = factor
    if kind in ("yarn", "llama3", "longrope"):
        theirs["original_max_position_embeddings"] = length
    if kind in ("dynamic", "yarn", "llama3", "longrope"):
        ours["length"] = length
    if kind in ("dynamic", "longrope"):
        ours["tokens"] = tokens
    low, high = np.sort(rng.uniform(0.5, 40, size=2))
    if kind == "yarn":
        names = {"beta_slow": low, "beta_fast": high, "truncate": bool(rng.integers(2))}
        m, n = rng.uniform(0.5, 2, size=2)
        gain = (0.1 * m * math.log(factor) + 1) / (0.1 * n * math.log(factor) + 1)
        case = rng.integers(4)
        if case == 1:
            theirs |= names
            ours |= {"low": low, "high": high, "truncate": names["truncate"]}
        if case == 2:
            theirs |= {"mscale": m, "mscale_all_dim": n}
            ours["gain"] = gain
        if case == 3:
            theirs["attention_factor"] = ours["gain"] = float(m)
    if kind == "llama3":
        theirs |= {"low_freq_factor": low, "high_freq_factor": high}
        ours |= {"low": low, "high": high}
    if kind == "longrope":
        lists = {"short": rng.uniform(1, 4, D // 2), "long": rng.uniform(1, 60, D // 2)}
        theirs |= {f"{name}_factor": values.tolist() for name, values in lists.items()}
        ours |= lists
        if rng.integers(2):
            ours["factor"] = factor
        else:
            theirs["attention_factor"] = ours["gain"] = 1.25
    if kind == "proportional":
        theirs["partial_rotary_factor"] = 0.5
        ours["rope_dim"] = max(D // 4 * 2, 2)
        D = max(D // 4 * 4, 4)
        ours["rope_dim"] = D // 2
    config = LlamaConfig(
        hidden_size=D,
        num_attention_heads=1,
        head_dim=D,
        max_position_embeddings=length if kind == "dynamic" else int(length * factor),
        rope_parameters=theirs,
    )
    return D, ours, config, tokens


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("kind", ROPE_INIT_FUNCTIONS)
def test_speeds_equal_transformers(kind, seed):
    D, ours, config, tokens = random_config(kind, np.random.default_rng(seed))
    expected, their_gain = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=tokens)

    speeds, gain = positions.rope_speeds(D, **ours)
    assert np.allclose(speeds, expected, rtol=2e-5, atol=1e-12)  # theirs are in float32
    assert math.isclose(gain, their_gain, rel_tol=1e-12)
    tensor, again = positions.rope_speeds(D, **ours, like=torch.zeros(1, dtype=torch.bfloat16))
    assert tensor.dtype == torch.float64
    assert np.allclose(tensor, speeds, rtol=1e-12)
    assert again == gain


def test_every_kind_but_ntk_is_one_of_transformers():
    assert {*positions.speeds.KINDS} == {*ROPE_INIT_FUNCTIONS, "plain", "ntk"}


def test_ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not():
    plain, _ = positions.rope_speeds(16)
    found, gain = positions.rope_speeds(16, kind="ntk", factor=8.0)

    assert gain == 1
    assert math.isclose(found[0], plain[0])
    assert math.isclose(found[-1], plain[-1] / 8)
    grown = {"factor": 3.0, "length": 100, "tokens": 200}  # 3 * 2 - 2 = 4
    dynamic, _ = positions.rope_speeds(16, kind="dynamic", **grown)
    assert np.allclose(dynamic, positions.rope_speeds(16, kind="ntk", factor=4.0)[0])


def test_yarn_of_very_short_texts_slows_all_but_the_first_pair():
    """Where transformers' own line would run backwards, and slow none."""
    plain, _ = positions.rope_speeds(8)
    found, _ = positions.rope_speeds(8, kind="yarn", factor=4.0, length=5)

    assert np.allclose(found / plain, [1, 0.25, 0.25, 0.25])


# -- distances and alibi -----------------------------------------------------------------


@LENGTHS
def test_distances_equal_the_loop(Tq, Tk):
    expected = [[Tk - Tq + i - j for j in range(Tk)] for i in range(Tq)]

    assert (positions.distances(Tq, Tk) == expected).all()
    assert (positions.distances(Tq, Tk, like=torch.zeros(1)).numpy() == expected).all()
    assert (positions.distances(Tq, Tk) >= 0).tolist() == ac.masks.causal(Tq, Tk).tolist()
    assert (positions.distances(Tk) == positions.distances(Tk, Tk)).all()


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 8, 12, 16, 23])
def test_alibi_equals_the_loop_and_bloom(heads):
    expected = np.zeros((heads, TQ, TK))
    for h, i, j in np.ndindex(heads, TQ, TK):
        expected[h, i, j] = -oracle.alibi_slopes(heads)[h] * abs(TK - TQ + i - j)
    theirs = build_alibi_tensor(torch.ones(1, TK, dtype=torch.long), heads, torch.float64)
    found = positions.alibi(heads, TQ, TK)

    assert np.allclose(found, expected, rtol=1e-14, atol=0)
    assert np.allclose(positions.alibi(heads, TQ, TK, like=torch.zeros(1).double()), expected)
    # Bloom leaves out what is the same for a whole row, which softmax does not see.
    last = theirs[:, 0].numpy() + (found[:, -1, -1] - theirs[:, 0, -1].numpy())[:, None]
    assert np.allclose(found[:, -1], last, atol=1e-6)


def test_alibi_keeps_32_bits_at_least():
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
    ):
        bias = positions.alibi(2, 1, 1001, like=torch.zeros(1, dtype=dtype))
        assert bias.dtype == expected
        assert bias[0, 0, 0] == -1000 / 16
    assert positions.alibi(2, 3, like=np.zeros(1, "f2")).dtype == np.float32
    assert positions.alibi(2, 3, like=np.zeros(1, "i4")).dtype == np.float64
    assert positions.alibi(2, 3, like=torch.zeros(1, device="meta")).device.type == "meta"


# -- T5 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("buckets", "most"), [(32, 128), (32, 17), (16, 1000), (4, 3), (6, 40), (64, 129)]
)
def test_buckets_equal_the_loop(buckets, most, causal):
    if causal and most <= buckets // 2:
        most = buckets // 2 + 1
    d = np.arange(-300, 301)
    options = {"buckets": buckets, "max_distance": most, "causal": causal}
    expected = [oracle.t5_bucket(int(x), buckets, most, causal) for x in d]

    for given_as in (*both(d), list(d), d.astype(np.int16)):
        found = positions.t5_bucket(given_as, **options)
        assert np.asarray(found).tolist() == expected
    one_way = positions.t5_bucket(np.arange(most + 1), **options)
    assert (np.diff(one_way) >= 0).all()
    assert one_way[-1] == (buckets if causal else buckets // 2) - 1


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_equal_t5s_own(causal):
    d = torch.arange(-2000, 2001)
    theirs = T5Attention._relative_position_bucket(-d, bidirectional=not causal)

    assert torch.equal(positions.t5_bucket(d, causal=causal), theirs)


def test_any_distance_has_a_bucket():
    far = np.array([2**63 - 1, -(2**63), 0])

    assert positions.t5_bucket(far).tolist() == [15, 31, 0]
    assert positions.t5_bucket(far, causal=True).tolist() == [31, 0, 0]
    assert positions.t5_bucket(np.uint8([200, 3])).tolist() == [15, 3]
    assert positions.t5_bucket(5, causal=True) == 5
    assert positions.t5_bucket([]).shape == (0,)
    assert positions.t5_bucket([[], []]).shape == (2, 0)
    far = oracle.t5_bucket(10**9, 32, 10**12, True)
    assert positions.t5_bucket([10**9], max_distance=10**12, causal=True) == [far]


def test_a_table_of_buckets_is_a_bias_and_learns():
    table = torch.zeros(H, 32, requires_grad=True)
    q, k, v = (torch.from_numpy(RNG.normal(size=(B, H, n, 4))).float() for n in (TQ, TK, TK))
    bucket = positions.t5_bucket(positions.distances(TQ, TK, like=q), causal=True)
    ac.attention(q, k, v, causal=True, bias=table[:, bucket]).pow(2).sum().backward()
    met = positions.distances(TQ, TK)
    used = np.isin(np.arange(32), met[met >= 0])

    assert (table.grad != 0).any(dim=0).tolist() == used.tolist()


# -- Transformer-XL --------------------------------------------------------------------------


@LENGTHS
def test_skew_equals_the_loop(Tq, Tk):
    Z = RNG.normal(size=(B, Tq, Tq + Tk - 1))
    expected = np.zeros((B, Tq, Tk))
    for b, i, j in np.ndindex(B, Tq, Tk):
        expected[b, i, j] = Z[b, i, Tk - 1 - (Tk - Tq + i - j)]

    for given_as in both(Z):
        assert (np.asarray(positions.skew(given_as)) == expected).all()
    columns = np.tile(np.arange(Tk - 1, -Tq, -1), (Tq, 1))
    assert (positions.skew(columns) == positions.distances(Tq, Tk)).all()


@LENGTHS
@pytest.mark.parametrize("per_head", [True, False])
def test_xl_equals_the_loop(Tq, Tk, per_head):
    q, k = RNG.normal(size=(B, H, Tq, D)), RNG.normal(size=(B, H, Tk, D))
    lead = (H,) if per_head else ()
    r = RNG.normal(size=(*lead, Tq + Tk - 1, D))
    u, v = RNG.normal(size=(2, *lead, D))
    expected = np.zeros((B, H, Tq, Tk))
    for b, h in np.ndindex(B, H):
        own = np.s_[h] if per_head else np.s_[:]
        rows = {Tk - 1 - n: r[own][n] for n in range(Tq + Tk - 1)}
        expected[b, h] = oracle.xl_scores(q[b, h], k[b, h], rows, u[own], v[own])

    found = ac.scores.scaled_dot(q, k) + positions.xl_bias(q, k, r, u, v)
    assert np.allclose(found, expected, atol=1e-12)
    tensors = map(torch.from_numpy, (q, k, r, u, v))
    assert np.allclose(positions.xl_bias(*tensors), positions.xl_bias(q, k, r, u, v))
    if not per_head:
        alone = positions.xl_bias(q[1, 2], k[1, 2], r, u, v)
        assert np.allclose(alone, positions.xl_bias(q, k, r, u, v)[1, 2])


def test_xl_equals_xlnet():
    theirs = XLNetRelativeAttention(XLNetConfig(d_model=6 * H, n_head=H, d_inner=5)).double()
    q, k, v = (torch.from_numpy(RNG.normal(size=(B, H, n, 6))) for n in (TQ, TK, TK))
    R = torch.from_numpy(RNG.normal(size=(TQ + TK, H, 6)))  # from distance Tk, one too many
    with torch.no_grad():
        for bias in (theirs.r_w_bias, theirs.r_r_bias):
            bias.copy_(torch.from_numpy(RNG.normal(size=(H, 6))))
        outside = [t.permute(2, 0, 1, 3) for t in (q, k, v)]  # (T, B, H, D)
        expected = theirs.eval().rel_attn_core(*outside, R[:, None].expand(-1, B, -1, -1))
        r = R[1:].transpose(0, 1)
        bias = positions.xl_bias(q, k, r, theirs.r_w_bias, theirs.r_r_bias)
        found = ac.attention(q, k, v, bias=bias)

    assert_close(found.permute(2, 0, 1, 3), expected)


def test_the_rows_xl_wants_are_xlnets():
    model = XLNetModel(XLNetConfig(vocab_size=3, d_model=D, n_head=1, n_layer=1, d_inner=5))
    theirs = model.relative_positional_encoding(TQ, TK)[1:, 0]
    ours = positions.sinusoidal(torch.arange(TK - 1, -TQ, -1), D)

    # Theirs has all sines first.
    assert_close(torch.cat([ours[:, 0::2], ours[:, 1::2]], dim=1), theirs, rtol=0, atol=1e-5)


def test_xl_has_a_gradient_and_keeps_32_bits():
    shapes = (H, TQ, 4), (H, TK, 4), (TQ + TK - 1, 4), (4,), (H, 4)
    leaves = [torch.from_numpy(RNG.normal(size=s)).requires_grad_() for s in shapes]

    assert torch.autograd.gradcheck(positions.xl_bias, leaves)
    low = [x.detach().to(torch.bfloat16) for x in leaves]
    expected = positions.xl_bias(*(x.float() for x in low))
    assert torch.equal(positions.xl_bias(*low), expected)


# -- what relative means ---------------------------------------------------------------------


def attended(kind, x, first=0):
    """Attention of rows `(H, T, D)` that stand at `first` in a text, with each kind's positions."""
    T = x.shape[1]
    q = k = x
    bias, at = None, np.arange(first, first + T)
    if kind == "sinusoidal":
        q = k = x + positions.sinusoidal(at, x.shape[2])
    if kind == "rope":
        q = k = positions.rope(x, at)
    if kind == "alibi":
        bias = positions.alibi(H, T)
    if kind == "t5":
        table = np.random.default_rng(0).normal(size=(H, 32))
        bias = table[:, positions.t5_bucket(positions.distances(T))]
    if kind == "xl":
        r = positions.sinusoidal(np.arange(T - 1, -T, -1), x.shape[2])
        bias = positions.xl_bias(x, x, r, np.ones(x.shape[2]), np.ones((H, x.shape[2])))
    return ac.attention(q, k, x, causal=True, bias=bias)


@pytest.mark.parametrize("kind", ["none", "sinusoidal", "rope", "alibi", "t5", "xl"])
def test_only_absolute_positions_notice_where_a_text_stands(kind):
    x = RNG.normal(size=(H, TK, 8))
    same = np.allclose(attended(kind, x), attended(kind, x, first=20))

    assert same == (kind != "sinusoidal")


@pytest.mark.parametrize("kind", ["none", "sinusoidal", "rope", "alibi", "t5", "xl"])
def test_every_kind_but_none_sees_order(kind):
    x = RNG.normal(size=(H, TK, 8))
    order = [3, 0, 1, 5, 2, 4, 6]  # the last stays
    last = [attended(kind, rows)[:, -1] for rows in (x, x[:, order])]

    assert np.allclose(*last) == (kind == "none")


def test_speeds_fall_from_one_radian_towards_one_over_the_base():
    turned = positions.rope(np.tile([1.0, 0.0], (1, 50)), [1], pairing="interleaved")
    angles = np.arctan2(turned[0, 1::2], turned[0, 0::2])

    assert np.allclose(angles, [10000 ** (-2 * i / 100) for i in range(50)])
    assert math.isclose(angles[0], 1)
