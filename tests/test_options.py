"""softcap, sinks, dropout and return_lse equal the loop, on every route of attention."""

import itertools
import math
import tracemalloc

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routes import Recorder
from test_attention import FLASH, GRID, B, qkv, tensors

import attncore as ac
from attncore.core import fused
from attncore.core.call import checked
from attncore.core.dropout import kept, places
from attncore.core.reference import why_not_blocked

SINKS = np.array([0.3, -0.7, 2.0, 0.0, -math.inf, 1.1])
NEW = [
    {"softcap": cap, "sinks": sunk, "dropout": share}
    for cap, sunk, share in itertools.product((None, 0.8), (False, True), (None, 0.4))
]
CLOSE = {"rtol": 0, "atol": 1e-13}


@pytest.fixture
def short_blocks(monkeypatch):
    """Two queries at a time, however few there are."""
    monkeypatch.setattr("attncore.core.reference.LEAST_ROWS", 2)
    monkeypatch.setattr("attncore.core.reference.SCORES_AT_ONCE", 1)


def chance(library, seed=3):
    """Return a generator that drops the same each time."""
    if library == "numpy":
        return np.random.default_rng(seed)
    return torch.Generator().manual_seed(seed)


def dropping(library, dropout, seed=3):
    return {"dropout": dropout, "generator": chance(library, seed)} if dropout else {}


def kept_places(q, k, dropout, library="numpy", seed=3):
    """Return what dropout keeps, `(..., H, Tq, Tk)`: it does not depend on the numbers."""
    if not dropout:
        return None
    inputs = (0 * x for x in (q, k)) if library == "numpy" else tensors(0 * q, 0 * k)
    A = ac.attention_weights(*inputs, **dropping(library, dropout, seed))
    return np.asarray(A) != 0


def check_lse(found, wanted):
    """Compare where there are numbers, and where there are none."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert ((found == -math.inf) == (wanted == -math.inf)).all()
    some = wanted != -math.inf
    np.testing.assert_allclose(found[some], wanted[some], **CLOSE)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize(("heads", "lengths", "causal", "window", "masked", "biased"), GRID)
def test_every_route_equals_the_loop(heads, lengths, causal, window, masked, biased):
    q, k, v = qkv(heads, lengths)
    rng = np.random.default_rng(1)
    shape = (B, heads[0], *lengths)
    mask = rng.random(shape) < 0.6 if masked else None
    bias = 3 * rng.normal(size=shape[1:]) if biased else None
    options = {"causal": causal, "window": window}
    for new in NEW:
        cap, share = new["softcap"], new["dropout"]
        sinks = SINKS[: heads[0]] if new["sinks"] else None
        same = {"softcap": cap, "dropout": share or 0.0, "sinks": sinks, **options}
        wanted = oracle.attention_and_lse(
            q, k, v, mask=mask, bias=bias, kept=kept_places(q, k, share), **same
        )
        runs = {
            "numpy": lambda **o: ac.attention(q, k, v, mask, bias=bias, **o),
            "numpy reference": lambda **o: ac.attention(
                q, k, v, mask, bias=bias, backend="reference", **o
            ),
        }
        if mask is bias is None:
            runs["streaming"] = lambda **o: ac.streaming_attention(q, k, v, block=2, **o)
        for run in runs.values():
            given_ = {**options, "softcap": cap, "sinks": sinks}
            out, lse = run(**given_, **dropping("numpy", share), return_lse=True)
            np.testing.assert_allclose(out, wanted[0], **CLOSE)
            check_lse(lse, wanted[1])
            np.testing.assert_array_equal(run(**given_, **dropping("numpy", share)), out)
        A = ac.attention_weights(q, k, mask, bias=bias, **given_, **dropping("numpy", share))
        kept_ = kept_places(q, k, share)
        np.testing.assert_allclose(
            A, oracle.weights(q, k, mask=mask, bias=bias, kept=kept_, **same), **CLOSE
        )
        check_torch((q, k, v), mask, bias, sinks, cap, share, options, wanted)


def check_torch(inputs, mask, bias, sinks, cap, share, options, wanted):
    """Check the fused kernel, blocks and the formula, without gradients and with them."""
    q, k, v = inputs
    if share:
        same = {"softcap": cap, "dropout": share, "sinks": sinks, **options}
        there = kept_places(q, k, share, "torch")
        wanted = oracle.attention_and_lse(q, k, v, mask=mask, bias=bias, kept=there, **same)
    mask, bias, sinks = (None if x is None else torch.from_numpy(x) for x in (mask, bias, sinks))
    gradients = []
    for backend, grad in (("auto", False), ("auto", True), ("reference", True)):
        leaves = tensors(q, k, v, grad=grad)
        if sinks is not None:
            sinks = sinks.clone().requires_grad_(grad)
            leaves.append(sinks)
        named = {**options, "bias": bias, "softcap": cap, "sinks": sinks, "backend": backend}
        out, lse = ac.attention(
            *leaves[:3], mask, **named, **dropping("torch", share), return_lse=True
        )
        np.testing.assert_allclose(out.detach(), wanted[0], **CLOSE)
        check_lse(lse.detach(), wanted[1])
        plain = ac.attention(*leaves[:3], mask, **named, **dropping("torch", share))
        np.testing.assert_allclose(plain.detach(), wanted[0], **CLOSE)
        if grad:
            some = torch.where(lse.detach() == -math.inf, 0.0, lse).sin()
            total = (out * torch.arange(out.numel()).reshape(out.shape)).sum() + some.sum()
            gradients.append(torch.autograd.grad(total, leaves, allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lead", [None, (), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_any_rank(lead, library):
    heads = (1, 1) if lead is None else (6, 3)
    q, k, v = qkv(heads, (3, 5), lead or ())
    if lead is None:
        q, k, v = q[0], k[0], v[0]
    sinks = SINKS[: heads[0]]
    wanted = oracle.attention_and_lse(q, k, v, causal=True, softcap=0.8, sinks=sinks)
    inputs = [q, k, v, sinks] if library == "numpy" else tensors(q, k, v, sinks)
    options = {"causal": True, "softcap": 0.8, "sinks": inputs[3], "return_lse": True}
    for function in (ac.attention, ac.streaming_attention):
        out, lse = function(*inputs[:3], **options)
        assert tuple(lse.shape) == q.shape[:-1]
        np.testing.assert_allclose(np.asarray(out), wanted[0], **CLOSE)
        check_lse(lse, wanted[1])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("Tq", "Tk"), [(0, 5), (3, 0), (0, 0)])
def test_empty_axes(library, Tq, Tk):
    q, k, v = qkv((3, 3), (Tq, Tk))
    inputs = [q, k, v, SINKS[:3]] if library == "numpy" else tensors(q, k, v, SINKS[:3])
    for function in (ac.attention, ac.streaming_attention):
        for sinks in (None, inputs[3]):
            out, lse = function(
                *inputs[:3], sinks=sinks, softcap=2.0, return_lse=True, **dropping(library, 0.3)
            )
            assert tuple(out.shape) == (*q.shape[:-1], v.shape[-1])
            assert (out == 0).all()
            assert tuple(lse.shape) == q.shape[:-1]
            assert (lse == (-math.inf if sinks is None else sinks[:, None])).all()


@pytest.mark.parametrize("worth", [0, math.inf], ids=["slices", "mask"])
@pytest.mark.parametrize("causal", [False, True])
def test_sequences_of_unequal_length(monkeypatch, worth, causal):
    monkeypatch.setattr("attncore.core.padding.WORTH_A_CALL", worth)
    q, k, v = qkv((6, 3), (3, 5))
    lengths, sinks = [2, 0], SINKS[:6]
    real = ac.masks.padding(lengths, 5)
    for new in ({}, {"sinks": sinks}, {"softcap": 0.8}, {"softcap": 0.8, "sinks": sinks}):
        wanted = oracle.attention_and_lse(q, k, v, mask=real, causal=causal, **new)
        given_ = {name: torch.from_numpy(x) if name == "sinks" else x for name, x in new.items()}
        for inputs, named in (((q, k, v), new), (tensors(q, k, v), given_)):
            out, lse = ac.attention(
                *inputs, lengths=lengths, causal=causal, return_lse=True, **named
            )
            np.testing.assert_allclose(np.asarray(out), wanted[0], **CLOSE)
            check_lse(lse, wanted[1])


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("chosen", [{"causal": True}, {"window": 2}], ids=str)
def test_gradients_are_right(backend, chosen):
    q, k, v = tensors(*qkv((2, 1), (4, 3), (), width=3, value_width=3), grad=True)
    sinks = torch.tensor([0.3, -0.5], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2, 1, 3, dtype=torch.float64, requires_grad=True)

    def run(q, k, v, sinks, bias):
        out, lse = ac.attention(
            q, k, v, bias=bias, sinks=sinks, softcap=0.8, backend=backend, return_lse=True,
            **dropping("torch", 0.3), **chosen,
        )  # fmt: skip
        return out, lse

    assert torch.autograd.gradcheck(run, (q, k, v, sinks, bias))
    assert torch.autograd.gradgradcheck(run, (q, k, v, sinks, bias))
    run = lambda q, k, v, sinks: ac.streaming_attention(  # noqa: E731
        q, k, v, sinks=sinks, softcap=0.8, block=2, return_lse=True, **dropping("torch", 0.3),
        **chosen,
    )[0]  # fmt: skip
    assert torch.autograd.gradcheck(run, (q, k, v, sinks))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_log_sum_exp_has_its_gradient(backend):
    q, k, v = tensors(*qkv((2, 1), (3, 4), (), width=3, value_width=3), grad=True)
    mask = torch.tensor([[True, False, True, True], [False] * 4, [True] * 4])

    def seen(q, k):
        lse = ac.attention(q, k, v, mask, backend=backend, return_lse=True)[1]
        return torch.where(lse == -math.inf, 0.0, lse)

    assert torch.autograd.gradcheck(seen, (q, k))
    slope = torch.autograd.grad(seen(q, k).sum(), q)[0]
    assert (slope[:, 1] == 0).all()
    assert (slope[:, [0, 2]] != 0).any()


def test_a_sink_is_the_output_times_a_sigmoid():
    q, k, v = qkv((6, 3), (5, 9))
    sinks = np.array([-3.0, -1, 0, 1, 5, 80])
    out, lse = ac.attention(q, k, v, return_lse=True)
    wanted = out / (1 + np.exp(sinks[:, None] - lse))[..., None]

    assert abs(ac.attention(q, k, v, sinks=sinks) - wanted).max() < 1e-15
    found = ac.attention(*tensors(q, k, v), sinks=torch.from_numpy(sinks))
    assert abs(found.numpy() - wanted).max() < 1e-15


def test_a_sink_is_a_key_without_a_value():
    q, k, v = qkv((6, 3), (5, 9))
    longer = [np.concatenate([x[..., :1, :] * 0, x], axis=-2) for x in (k, v)]
    bias = np.zeros((6, 1, 10))
    bias[:, 0, 0] = SINKS
    found, lse = ac.attention(q, k, v, sinks=SINKS, return_lse=True)
    wanted, both = ac.attention(q, *longer, bias=bias, return_lse=True)

    np.testing.assert_allclose(found, wanted, **CLOSE)
    np.testing.assert_allclose(lse, both, **CLOSE)
    A = ac.attention_weights(q, k, sinks=SINKS)
    whole = ac.attention_weights(q, longer[0], bias=bias)
    np.testing.assert_allclose(A.sum(-1), 1 - whole[..., 0], **CLOSE)


@given(st.lists(st.floats(-25, 40), min_size=2, max_size=2), st.floats(0.1, 5))
def test_rows_with_a_sink_sum_to_less_than_one(sinks, size):
    q, k, _ = qkv((2, 1), (3, 5))
    A = ac.attention_weights(size * q, k, sinks=np.array(sinks))
    lse = ac.attention(size * q, k, k, return_lse=True)[1]

    sums = A.sum(-1)
    assert (sums < 1).all()
    np.testing.assert_allclose(sums, 1 / (1 + np.exp(np.array(sinks)[:, None] - lse)), atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("softcap", [1e6, 1e30, 1e300])
def test_a_large_softcap_changes_nothing(softcap, dtype):
    inputs = [x.to(dtype) for x in tensors(*qkv((3, 3), (5, 9)))]
    wanted = ac.attention(*inputs)

    torch.testing.assert_close(ac.attention(*inputs, softcap=softcap), wanted)
    found = ac.attention(*(x.numpy() for x in inputs), softcap=softcap)
    torch.testing.assert_close(torch.from_numpy(found), wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_tiny_softcap_leaves_the_mean(dtype):
    q, k, v = [x.to(dtype).requires_grad_() for x in tensors(*qkv((3, 3), (5, 9)))]
    found = ac.attention(q, k, v, softcap=1e-300)
    found.sum().backward()

    torch.testing.assert_close(found, v.mean(-2, keepdim=True).expand_as(found))
    assert all(x.grad.isfinite().all() for x in (q, k, v))
    with np.errstate(all="raise", under="ignore"):
        arrays = (x.detach().numpy() for x in (q, k, v))
        found = ac.attention(*arrays, softcap=1e-300)
    assert np.isfinite(found).all()


@given(st.floats(0.01, 100), st.floats(0.1, 1e4))
def test_no_score_gets_beyond_the_softcap(softcap, size):
    q, k, v = qkv((2, 1), (3, 5))
    lse = ac.attention(size * q, k, v, softcap=softcap, return_lse=True)[1]

    assert (abs(lse - math.log(5)) <= softcap * (1 + 1e-12)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["softcap", "sinks", "both"])
@pytest.mark.parametrize("backend", ["auto", "reference", "streaming"])
def test_precision_is_within_twice_that_of_plain_torch(dtype, name, backend):
    low = [x.to(dtype) for x in tensors(*qkv((3, 3), (61, 61), width=32, value_width=32))]
    sinks = torch.tensor([0.5, 3.0, -2.0], dtype=dtype) if name != "softcap" else None
    cap = 2.0 if name != "sinks" else None

    def plain(q, k, v, sinks):
        scores = q @ k.mT / math.sqrt(32)
        scores = scores if cap is None else torch.tanh(scores / cap) * cap
        if sinks is None:
            return torch.softmax(scores, -1) @ v
        column = sinks[:, None, None].expand(B, 3, 61, 1)
        return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1] @ v

    exact = plain(*(x.double() for x in low), None if sinks is None else sinks.double())
    options = {"softcap": cap, "sinks": sinks}
    if backend == "streaming":
        ours = ac.streaming_attention(*low, block=16, **options)
    else:
        ours = ac.attention(*low, backend=backend, **options)
    assert ours.dtype == dtype
    errors = [(x.double() - exact).abs().max() for x in (ours, plain(*low, sinks))]
    assert errors[0] <= 2 * errors[1] + 1e-6


@pytest.mark.parametrize("function", [ac.attention, ac.streaming_attention])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_log_sum_exp_has_32_bits(function, dtype):
    low = [x.to(dtype) for x in tensors(*qkv((3, 3), (5, 9)))]
    lse = function(*low, return_lse=True)[1]

    assert lse.dtype == torch.float32
    wanted = ac.attention(*(x.double() for x in low), return_lse=True)[1]
    torch.testing.assert_close(
        lse.double(), wanted, rtol=0, atol=1e-5 if dtype != torch.bfloat16 else 1e-2
    )


def kernels_run(*inputs, **options):
    with Recorder() as recorder:
        ac.attention(*inputs, **options)
    return recorder.seen


@pytest.mark.parametrize("chosen", [{}, {"causal": True}, {"window": 2}], ids=str)
@pytest.mark.parametrize("lengths", [(5, 5), (3, 5), (1, 5)])
def test_the_fused_kernel_runs_with_sinks_where_no_gradient_is_wanted(chosen, lengths):
    q, k, v, sinks = tensors(*qkv((6, 3), lengths), SINKS)
    for options in ({"sinks": sinks}, {"return_lse": True}):
        options |= chosen
        assert FLASH in kernels_run(q, k, v, **options)
        assert FLASH in kernels_run(q, k, v.requires_grad_(), **options)
        assert FLASH not in kernels_run(q.clone().requires_grad_(), k, v, **options)
        with torch.no_grad():
            assert FLASH in kernels_run(q.clone().requires_grad_(), k, v, **options)
    assert FLASH in kernels_run(q, k, v, sinks=sinks.requires_grad_())


def test_a_sink_alone_learns_by_the_fused_kernel():
    q, k, v, sinks = tensors(*qkv((6, 3), (5, 5)), np.linspace(-1, 1, 6))
    sinks.requires_grad_()

    assert torch.autograd.gradcheck(lambda s: ac.attention(q, k, v, sinks=s), sinks)


def test_the_fused_kernel_reads_what_is_not_in_a_row():
    q, k, v, sinks = tensors(*qkv((6, 3), (5, 9)), SINKS)
    turned = [x.mT.contiguous().mT for x in (q, k, v)]
    wanted = ac.attention(q, k, v, sinks=sinks, return_lse=True, backend="reference")

    assert turned[0].stride(-1) != 1
    torch.testing.assert_close(ac.attention(*turned, sinks=sinks, return_lse=True), wanted)


@pytest.mark.parametrize(
    ("options", "grad", "reason"),
    [
        ({"softcap": 2.0}, False, "it has no softcap"),
        ({"dropout": 0.1}, False, "it takes no generator for its dropout"),
        ({"sinks": True}, True, "it has no gradient for the log-sum-exp"),
        ({"return_lse": True}, True, "it has no gradient for the log-sum-exp"),
    ],
)
def test_the_routes_say_why_not(options, grad, reason):
    q, k, v, sinks = tensors(*qkv((6, 3), (5, 9)), SINKS, grad=grad)
    options = {name: sinks if name == "sinks" else value for name, value in options.items()}
    if "dropout" in options:
        options["generator"] = chance("torch")

    assert fused.why_not(checked(q, k, v, **options)).startswith(reason)
    with pytest.raises(ValueError, match=f"backend 'fused' cannot be used: {reason}"):
        ac.attention(q, k, v, **options, backend="fused")
    assert not why_not_blocked(checked(q, k, v, **options))


def test_only_the_cpus_kernel_tells_the_log_sum_exp():
    q, k, v = torch.empty(3, 1, 2, 5, 4, device="meta")

    assert fused.why_not(checked(q, k, v, return_lse=True)).startswith("only the CPU's kernel")


def test_a_bias_as_large_as_the_weights_learns_at_once():
    q, k, v = tensors(*qkv((3, 3), (5, 9)))
    bias = torch.zeros(5, 9, requires_grad=True)

    assert why_not_blocked(checked(q, k, v, bias=bias)).startswith("the bias has a gradient")
    assert not why_not_blocked(checked(q, k, v, bias=bias[:1]))


LONG = [
    {"softcap": 2.0},
    {"sinks": True},
    {"return_lse": True},
    {"dropout": 0.1},
    {"softcap": 2.0, "sinks": True, "dropout": 0.1, "return_lse": True},
]


@pytest.mark.parametrize("chosen", [{}, {"causal": True}, {"window": 37}], ids=str)
@pytest.mark.parametrize("new", LONG, ids=lambda new: " ".join(new))
@pytest.mark.parametrize("grad", [False, True])
def test_long_input_builds_no_weights(monkeypatch, new, chosen, grad):
    monkeypatch.setattr("attncore.core.reference.SCORES_AT_ONCE", 2**13)
    Tq, Tk = 301, 307
    q, k, v, sinks = tensors(*qkv((6, 3), (Tq, Tk), lead=(1,)), SINKS, grad=grad)
    new = {name: sinks if name == "sinks" else value for name, value in new.items()}

    def run(backend):
        drawn = {"generator": chance("torch")} if "dropout" in new else {}
        found = ac.attention(q, k, v, **new, **chosen, **drawn, backend=backend)
        return found if "return_lse" in new else (found,)

    kept_numbers = []
    with (
        Recorder(shapes=True) as recorder,
        torch.autograd.graph.saved_tensors_hooks(
            lambda x: kept_numbers.append(x.numel()) or x, lambda x: x
        ),
    ):
        found = run("auto")
        if grad:
            total = sum((x * torch.arange(x.numel()).reshape(x.shape)).sum() for x in found)
            slopes = torch.autograd.grad(total, (q, k, v))
    whole = [shape for _, *shapes in recorder.seen for shape in shapes if shape[-2:] == (Tq, Tk)]
    assert whole == []
    assert sum(kept_numbers) < 6 * Tq * Tk  # a few copies of the queries, keys and values
    wanted = run("reference")
    torch.testing.assert_close(found, wanted)
    if grad:
        total = sum((x * torch.arange(x.numel()).reshape(x.shape)).sum() for x in wanted)
        torch.testing.assert_close(slopes, torch.autograd.grad(total, (q, k, v)))


@pytest.mark.parametrize("new", LONG, ids=lambda new: " ".join(new))
def test_numpys_memory_grows_as_the_length(new):
    T = 8000
    new = {name: SINKS[:1] if name == "sinks" else value for name, value in new.items()}
    drawn = {"generator": chance("numpy")} if "dropout" in new else {}
    q, k, v = np.ones((3, 1, T, 4))
    tracemalloc.start()
    ac.attention(q, k, v, causal=True, **new, **drawn)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 120e6  # all weights would be 512 MB


def test_torch_func_and_vmap_take_long_input(monkeypatch):
    monkeypatch.setattr("attncore.core.reference.SCORES_AT_ONCE", 2**13)
    q, k, v = tensors(*qkv((2, 2), (70, 70)))

    def total(q):
        return ac.attention(q, k, v, softcap=2.0).square().sum()

    leaf = q.clone().requires_grad_()
    wanted = torch.autograd.grad(total(leaf), leaf)[0]
    torch.testing.assert_close(torch.func.grad(total)(q), wanted)
    mapped = torch.vmap(lambda q: ac.attention(q, k[0], v[0], softcap=2.0))(q)
    torch.testing.assert_close(
        mapped, ac.attention(q, k[:1].expand_as(k), v[:1].expand_as(v), softcap=2.0)
    )


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("T", [5, 70])
@pytest.mark.parametrize("new", [{"softcap": 2.0}, {"sinks": True}, {"return_lse": True}], ids=str)
def test_it_compiles_whole(monkeypatch, new, T, grad):
    monkeypatch.setattr("attncore.core.reference.SCORES_AT_ONCE", 2**13)
    torch.compiler.reset()
    q, k, v, sinks = tensors(*qkv((6, 3), (T, T)), SINKS, grad=grad)
    new = {name: sinks if name == "sinks" else value for name, value in new.items()}
    compiled = torch.compile(ac.attention, fullgraph=True, backend="eager")
    found, wanted = (f(q, k, v, causal=True, **new) for f in (compiled, ac.attention))

    torch.testing.assert_close(found, wanted)
    if grad:
        found, wanted = (x if isinstance(x, tuple) else (x,) for x in (found, wanted))
        slopes = [
            torch.autograd.grad(sum(x.square().sum() for x in out), (q, k))
            for out in (found, wanted)
        ]
        torch.testing.assert_close(*slopes)


def test_dropout_compiles_around_its_generator():
    torch.compiler.reset()
    q, k, v = tensors(*qkv((6, 3), (5, 5)))
    compiled = torch.compile(ac.attention, backend="eager")
    found, wanted = (f(q, k, v, **dropping("torch", 0.4)) for f in (compiled, ac.attention))

    torch.testing.assert_close(found, wanted)


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:`torch.jit.trace.*` is deprecated"
)
def test_dropout_is_not_recorded():
    class Dropping(torch.nn.Module):
        def forward(self, q, k, v):
            return ac.attention(q, k, v, **dropping("torch", 0.4))

    inputs = tuple(tensors(*qkv((3, 3), (5, 5))))
    with pytest.raises(ValueError, match=r"drop the same weights each time.*without dropout"):
        torch.export.export(Dropping(), inputs, strict=False)
    with pytest.raises(ValueError, match=r"drop the same weights each time.*without dropout"):
        torch.jit.trace(Dropping(), inputs)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_dropout_keeps_the_mean(library):
    q, k, v = qkv((3, 3), (1, 4), (1,))
    inputs = (q, k, v) if library == "numpy" else tensors(q, k, v)
    generator, n = chance(library), 4000
    total = sum(ac.attention(*inputs, dropout=0.3, generator=generator) for _ in range(n))
    spread = math.sqrt(0.3 / 0.7 / n) * abs(v).sum(-2).max()

    assert abs(np.asarray(total / n) - ac.attention(q, k, v)).max() < 4 * spread


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_each_call_drops_others_and_a_generator_repeats_itself(library):
    q, k, v = qkv((3, 3), (5, 9))
    inputs = (q, k, v) if library == "numpy" else tensors(q, k, v)
    generator, again = chance(library), chance(library)
    runs = [ac.attention(*inputs, dropout=0.3, generator=g) for g in (generator, generator, again)]

    assert (runs[0] != runs[1]).any()
    assert (runs[0] == runs[2]).all()
    none = ac.attention(*inputs, dropout=0.0, generator=generator)
    assert np.allclose(np.asarray(none), ac.attention(q, k, v))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_weights_dropped_are_those_of_the_output(library):
    q, k, v = qkv((3, 3), (5, 9))
    inputs = (q, k, v) if library == "numpy" else tensors(q, k, v)
    A = ac.attention_weights(*inputs[:2], **dropping(library, 0.3))
    whole = ac.attention_weights(*inputs[:2])

    assert np.allclose(
        np.asarray(A @ inputs[2]), np.asarray(ac.attention(*inputs, **dropping(library, 0.3)))
    )
    kept_ = A != 0
    assert np.allclose(np.asarray(A[kept_]), np.asarray(whole[kept_]) / 0.7)


def test_numpy_and_torch_drop_the_same():
    q, k = np.zeros((2, 3, 50, 1)), np.zeros((2, 3, 70, 1))
    for seed in (0, 1, 2**63 - 1):
        ours = kept(*places(np, q, k, np.array([seed])), 0.3)
        theirs = kept(*places(torch, *tensors(q, k), torch.tensor([seed])), 0.3)
        assert (theirs.numpy() == ours).all()


def test_what_is_dropped_looks_random():
    share, spread = 0.3, 0.3 * 0.7
    drops = []
    for seed in range(40):
        q = np.zeros((2, 300, 1))
        drops.append(kept(*places(np, q, q, np.array([seed])), share) - (1 - share))
    x = np.stack(drops)  # (seed, head, query, key), of mean 0
    pairs = {
        "mean": x,
        **{f"keys {d} apart": x[..., d:] * x[..., :-d] / spread**0.5 for d in (1, 2, 3, 7, 16)},
        **{f"queries {d} apart": x[..., d:, :] * x[..., :-d, :] / spread**0.5 for d in (1, 2, 5)},
        "heads": x[:, 0] * x[:, 1] / spread**0.5,
        "seeds": x[1:] * x[:-1] / spread**0.5,
        "squares": x[..., 1:, 1:]
        * x[..., 1:, :-1]
        * x[..., :-1, 1:]
        * x[..., :-1, :-1]
        / spread**1.5,
    }
    off = {name: p.sum() / math.sqrt(spread * p.size) for name, p in pairs.items()}

    assert all(abs(z) < 4 for z in off.values()), off
    for axis in (1, 2, 3):  # of every row, of every column: the largest of thousands
        sums = x.sum(axis) / math.sqrt(spread * x.shape[axis])
        assert 0.97 < sums.std() < 1.03
        assert abs(sums).max() < 6
    q, k = np.zeros((4, 500, 1)), np.zeros((4, 1024, 1))
    y = kept(*places(np, q, k, np.array([7])), share) - (1 - share)
    echo = np.fft.irfft(np.abs(np.fft.rfft(y)) ** 2)[..., 1:512] / (spread * math.sqrt(1024))
    assert abs(echo).max() < 6.5  # of a million; without either shift of the bits it is above 9


BAD = [
    ({"softcap": 0}, ValueError, "softcap must be positive and finite, got 0"),
    ({"softcap": math.inf}, ValueError, "softcap must be positive and finite, got inf"),
    ({"softcap": "2"}, TypeError, "softcap must be a number, got str"),
    ({"sinks": 0.5}, TypeError, "sinks must be an array, got float"),
    ({"sinks": np.zeros(2)}, ValueError, r"sinks must be one number per query head, \(6,\), got"),
    ({"sinks": np.zeros((6, 1))}, ValueError, r"got \(6, 1\); for the same in each repeat it"),
    ({"sinks": np.zeros(6, bool)}, TypeError, "sinks must hold real numbers, got bool"),
    ({"sinks": torch.zeros(6)}, TypeError, "NumPy arrays and torch tensors do not mix"),
    ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1, got 1.0"),
    ({"dropout": -0.1}, ValueError, "dropout must be at least 0 and below 1, got -0.1"),
    ({"dropout": math.nan}, ValueError, "dropout must be at least 0 and below 1, got nan"),
    ({"dropout": True}, TypeError, "dropout must be a number, got bool"),
    (
        {"dropout": 0.1},
        ValueError,
        r"dropout needs a generator to draw from, such as np.random.default_rng\(0\)",
    ),
    (
        {"dropout": 0.1, "generator": 3},
        TypeError,
        "generator must be a numpy.random.Generator, got int",
    ),
    (
        {"generator": torch.Generator()},
        TypeError,
        "generator must be a numpy.random.Generator, got Generator",
    ),
    ({"return_lse": 1}, TypeError, "return_lse must be True or False, got int"),
]


@pytest.mark.parametrize(("options", "error", "match"), BAD)
def test_bad_options_are_told(options, error, match):
    q, k, v = qkv((6, 3), (5, 5))
    calls = [
        lambda: ac.attention(q, k, v, **options),
        lambda: ac.streaming_attention(q, k, v, **options),
        lambda: ac.packed_attention(q, k, v, [0, 5], **options),
    ]
    if "return_lse" not in options:
        calls.append(lambda: ac.attention_weights(q, k, **options))
    for call in calls:
        with pytest.raises(error, match=match):
            call()


def test_bad_options_are_told_for_tensors():
    q, k, v = tensors(*qkv((6, 3), (5, 5)))
    with pytest.raises(ValueError, match=r"such as torch.Generator\(\).manual_seed\(0\)"):
        ac.attention(q, k, v, dropout=0.1)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got Generator"):
        ac.attention(q, k, v, dropout=0.1, generator=chance("numpy"))
    with pytest.raises(ValueError, match="tensors must be on one device: sinks on meta, q on cpu"):
        ac.attention(q, k, v, sinks=torch.zeros(6, device="meta"))


def test_what_is_refused_leaves_the_generator_as_it_was():
    q, k, v = qkv((6, 3), (5, 5))
    generator = chance("numpy")
    for function, wrong in (
        (ac.attention, {"return_lse": 1}),
        (ac.attention, {"sinks": np.zeros(2)}),
        (ac.streaming_attention, {"block": 0}),
        (ac.packed_attention, {"cu_seqlens": [0, 4]}),
    ):
        with pytest.raises((TypeError, ValueError)):
            function(q, k, v, dropout=0.1, generator=generator, **wrong)
    with pytest.raises(ValueError, match="backend"):
        ac.attention(q, k, v, dropout=0.1, generator=generator, backend="fast")

    assert generator.bit_generator.state == chance("numpy").bit_generator.state
    of_torch = chance("torch")
    with pytest.raises(ValueError, match="backend 'fused' cannot be used"):
        ac.attention(*tensors(q, k, v), dropout=0.1, generator=of_torch, backend="fused")
    assert (of_torch.get_state() == chance("torch").get_state()).all()
