"""attention() equals the loop over the whole grid of options, on every route."""

import itertools
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch
from routes import Recorder, check_all
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attncore as ac
from attncore.core.fused import _shares_heads
from attncore.core.reference import level

# Distinct primes, so that no two axes can be mistaken for each other.
B, D, E = 2, 7, 11
HEADS = {"one per head": (3, 3), "grouped": (6, 3), "one for all": (5, 1)}
LENGTHS = {"Tq < Tk": (3, 5), "Tq = Tk": (5, 5), "Tq > Tk": (5, 3), "decode": (1, 5)}
FLASH = "_scaled_dot_product_flash_attention_for_cpu"


def arrays(*shapes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def qkv(heads=(3, 3), lengths=(5, 5), lead=(B,), width=D, value_width=D, seed=0):
    (H, G), (Tq, Tk) = heads, lengths
    shapes = ((*lead, H, Tq, width), (*lead, G, Tk, width), (*lead, G, Tk, value_width))
    return arrays(*shapes, seed=seed)


def tensors(*values, grad=False):
    return [torch.from_numpy(value.copy()).requires_grad_(grad) for value in values]


GRID = [
    pytest.param(heads, lengths, causal, window, masked, biased, id="-".join(map(str, names)))
    for (names, (heads, lengths, causal, window, masked, biased)) in (
        ((h, t, c, w, m, b), (HEADS[h], LENGTHS[t], c, w, m, b))
        for h, t, c, w, m, b in itertools.product(
            HEADS, LENGTHS, (False, True), (None, 1, 3), (False, True), (False, True)
        )
    )
]


@pytest.mark.parametrize(("heads", "lengths", "causal", "window", "masked", "biased"), GRID)
def test_every_route_equals_the_loop(heads, lengths, causal, window, masked, biased):
    q, k, v = qkv(heads, lengths)
    rng = np.random.default_rng(1)
    shape = (B, heads[0], *lengths)
    mask = rng.random(shape) < 0.6 if masked else None
    bias = rng.normal(size=shape[1:]) if biased else None
    options = {"causal": causal, "window": window}
    expected = oracle.attention(q, k, v, mask=mask, bias=bias, **options)

    check_all(q, k, v, expected, mask=mask, bias=bias, **options)
    A = ac.attention_weights(q, k, mask, bias=bias, **options)
    assert np.allclose(A, oracle.weights(q, k, mask=mask, bias=bias, **options), 0, 1e-13)


@pytest.mark.parametrize("lead", [None, (), (2,), (2, 3), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("value_width", [D, E])
def test_any_rank(lead, value_width):
    q, k, v = qkv((6, 3), (3, 5), lead or (), value_width=value_width)
    if lead is None:
        q, k, v = q[0], k[0], v[0]
    expected = oracle.attention(q, k, v, causal=True)
    mask = np.random.default_rng(2).random((3, 5)) < 0.7

    assert np.allclose(ac.attention(q, k, v, causal=True), expected)
    out = ac.attention(*tensors(q, k, v), causal=True)
    assert np.allclose(out.numpy(), expected)
    masked = ac.attention(*tensors(q, k, v), torch.from_numpy(mask), causal=True)
    assert np.allclose(masked.numpy(), oracle.attention(q, k, v, mask=mask, causal=True))


@pytest.mark.parametrize(
    "shape", [(5,), (3, 5), (1, 5), (3, 1), (6, 1, 5), (2, 1, 1, 5), (1, 6, 3, 5)]
)
def test_masks_and_biases_broadcast_on_every_route(shape):
    q, k, v = qkv((6, 3), (3, 5))
    mask = np.random.default_rng(3).random(shape) < 0.6
    bias = np.random.default_rng(4).normal(size=shape)
    expected = oracle.attention(q, k, v, mask=mask, bias=bias)

    assert np.allclose(ac.attention(q, k, v, mask, bias=bias), expected)
    for backend in ("auto", "reference"):
        m, b = torch.from_numpy(mask), torch.from_numpy(bias)
        out = ac.attention(*tensors(q, k, v), m, bias=b, backend=backend)
        assert np.allclose(out.numpy(), expected)


def test_a_mask_with_leading_axes_works_at_rank_five():
    q, k, v = qkv((6, 3), (3, 5), (2, 3))
    mask = np.random.default_rng(5).random((2, 3, 1, 1, 5)) < 0.6
    part = np.random.default_rng(6).random((3, 1, 3, 5)) < 0.6

    for m in (mask, part):
        out = ac.attention(*tensors(q, k, v), torch.from_numpy(m))
        assert np.allclose(out.numpy(), oracle.attention(q, k, v, mask=m))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("by", ["mask", "bias", "causal"])
def test_a_row_with_nothing_to_attend_to_is_zero_with_zero_gradient(backend, by):
    q, k, v = tensors(*qkv(lengths=(5, 3)), grad=True)
    options = {
        "mask": {"mask": torch.arange(5)[:, None].expand(5, 3) >= 2},
        "bias": {"bias": torch.where(torch.arange(5) >= 2, 0.0, -math.inf)[:, None].double()},
        "causal": {"causal": True},  # the first two of five queries come before all keys
    }[by]
    out = ac.attention(q, k, v, backend=backend, **options)
    out.sum().backward()

    assert (out[..., :2, :] == 0).all()
    assert (out[..., 2:, :] != 0).all()
    assert (q.grad[..., :2, :] == 0).all()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))


def test_gradients_are_right_to_the_second_order():
    q, k, v = tensors(*qkv((2, 1), (3, 3), (), width=3, value_width=3), grad=True)
    mask = torch.tensor([[True, False, True], [False] * 3, [True] * 3])

    def run(backend):
        return lambda q, k, v: ac.attention(q, k, v, mask, backend=backend)

    assert torch.autograd.gradcheck(run("auto"), (q, k, v))
    assert torch.autograd.gradcheck(run("reference"), (q, k, v))
    assert torch.autograd.gradgradcheck(run("reference"), (q, k, v))


def test_a_bias_gets_its_gradient():
    q, k, v = tensors(*qkv())
    bias = torch.zeros(3, 5, 5, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda b: ac.attention(q, k, v, bias=b), bias)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_precision_is_within_twice_that_of_plain_torch(dtype, causal, backend):
    exact = [torch.from_numpy(x) for x in qkv(lengths=(61, 61), width=32, value_width=32)]
    low = [x.to(dtype) for x in exact]
    best = ac.attention(*[x.double() for x in low], causal=causal, backend="reference")
    scores = low[0] @ low[1].mT / math.sqrt(32)
    if causal:
        scores = scores.masked_fill(~ac.masks.causal(61, like=scores), -math.inf)
    plain = torch.softmax(scores, dim=-1) @ low[2]
    ours = ac.attention(*low, causal=causal, backend=backend)

    assert ours.dtype == dtype
    error, allowed = ((x.double() - best).abs().max() for x in (ours, plain))
    assert error <= 2 * allowed + 1e-6


def test_numpy_float16_is_summed_in_float32():
    q, k, v = (x.astype(np.float16) for x in qkv(lengths=(5, 61)))
    best = ac.attention(*(x.astype(np.float64) for x in (q, k, v)))
    out = ac.attention(q, k, v)

    assert out.dtype == np.float16
    assert abs(out - best).max() < 1e-3
    assert np.isfinite(ac.attention(300 * q, 300 * k, v)).all()


def random_tensors(dtype, *shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def steps(n):
    return torch.linspace(0, 2, n, dtype=torch.float64)


# What has no digits left once it is rounded, or is no number in 16 bits. None is so large that
# float64 would lose the scores it is added to.
BIASES = {
    "beyond float16": lambda n: torch.where(torch.arange(n) == 1, 1e5, 0.0),
    "far below, by steps": lambda n: -1000 + steps(n),
    "far above, by steps": lambda n: 3000 + steps(n),
    "all hidden, a bit beyond float16": lambda n: torch.full((n,), -7e4),
    "all hidden": lambda n: torch.full((n,), -1e9),
    "some hidden": lambda n: torch.where(torch.arange(n) % 3 == 1, steps(n), -1e9),
    "some forbidden": lambda n: torch.where(torch.arange(n) % 3 == 1, steps(n), -math.inf),
    "one per query": lambda n: 3e4 * steps(n)[:, None],
    "integers": lambda n: -(10**8) + torch.arange(n) % 5,
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", [None, torch.float32, torch.float64])
@pytest.mark.parametrize("name", BIASES)
def test_a_bias_is_added_to_more_digits_than_the_result_has(name, kind, dtype):
    n = 9
    q, k, v = random_tensors(dtype, (1, 2, n, 4), (1, 2, n, 4), (1, 2, n, 4))
    bias = BIASES[name](n)
    kind = kind or (torch.float32 if "beyond" in name else dtype)
    bias = bias if bias.dtype == torch.int64 else bias.to(kind)
    mask = torch.arange(n) != 4
    wide = [x.double().numpy() for x in (q, k, v)]
    for options in ({}, {"causal": True}, {"mask": mask}, {"window": 3, "mask": mask}):
        plain = {key: x.numpy() if key == "mask" else x for key, x in options.items()}
        expected = torch.from_numpy(oracle.attention(*wide, bias=bias.double().numpy(), **plain))
        close = {"rtol": 0, "atol": 8 * torch.finfo(dtype).eps}
        for backend in ("auto", "reference", "fused"):
            found = ac.attention(q, k, v, bias=bias, backend=backend, **options)
            assert found.dtype == dtype
            torch.testing.assert_close(found.double(), expected, **close)
        weights = ac.attention_weights(q, k, bias=bias, **options)
        torch.testing.assert_close(weights.double() @ v.double(), expected, **close)
        if dtype != torch.bfloat16 and bias.dtype != torch.bfloat16:
            inputs = (x.numpy() for x in (q, k, v))
            found = ac.attention(*inputs, bias=bias.numpy(), **plain)
            torch.testing.assert_close(torch.from_numpy(found).double(), expected, **close)


def test_the_digits_of_a_bias_are_kept_in_every_block():
    q, k, v = random_tensors(torch.bfloat16, *[(1, 1, 700, 8)] * 3)
    bias = random_tensors(torch.float32, (700, 700))[0] - 5000
    for options in ({}, {"causal": True}, {"window": 300}):
        exact = ac.attention(*(x.double() for x in (q, k, v)), bias=bias, **options)
        found = ac.attention(q, k, v, bias=bias, **options)

        torch.testing.assert_close(found.double(), exact, rtol=0, atol=2**-7)


def test_a_bias_has_its_digits_where_zero_queries_show_them():
    q = k = torch.zeros(1, 1, 512, 2, dtype=torch.bfloat16)
    v = torch.linspace(0, 1, 512).bfloat16()[None, None, :, None]
    bias = -1000 + torch.linspace(0, 2, 512)

    found = ac.attention(q[:, :, :1], k, v, bias=bias)
    assert found.item() == pytest.approx(0.656, abs=2e-3)
    found = ac.attention(*(x[:, :, :2].half() for x in (q, k, v)), bias=torch.tensor([[1e5, 0.0]]))
    assert (found == v[0, 0, 0]).all()


@pytest.mark.parametrize(("kind", "wanted"), [("float32", "float32"), ("bfloat16", "bfloat16")])
def test_other_devices_widen_the_queries_where_the_bias_is_wider(monkeypatch, kind, wanted):
    # On a GPU a mask must have the dtype of the queries. Stands for one: a device without numbers.
    calls = []

    def spy(q, k, v, attn_mask, **options):
        calls.append((q.dtype, k.dtype, v.dtype, attn_mask.dtype))
        return q

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    q, k, v = torch.empty(3, 1, 2, 5, 4, dtype=torch.bfloat16, device="meta")
    bias = torch.empty(5, 5, dtype=getattr(torch, kind), device="meta")
    found = ac.attention(q, k, v, bias=bias)

    assert found.dtype == torch.bfloat16
    assert calls == [(getattr(torch, wanted),) * 4]


def test_a_bias_that_stays_in_16_bits_is_rounded_only_where_it_is_large():
    bias = torch.tensor([[5.01, -3.2, 0], [-1e9, -1e9, -math.inf], [-1e9, 4, 3]]).bfloat16()
    found = level(torch, bias, None, torch.bfloat16)

    assert torch.equal(found[[0, 2]], bias[[0, 2]])
    assert found[1].tolist() == [0, 0, -math.inf]
    hidden = level(torch, bias, torch.tensor([[True], [False], [True]]), torch.bfloat16)
    assert (hidden[1] == -math.inf).all()


def test_a_bias_of_no_keys_or_no_axes_is_harmless():
    q, k, v = tensors(*qkv(lengths=(3, 0)))
    assert (ac.attention(q, k, v, bias=torch.zeros(3, 0)) == 0).all()
    q, k, v = qkv()
    for inputs, bias in (((q, k, v), np.array(2)), (tensors(q, k, v), torch.tensor(2))):
        found = ac.attention(*inputs, bias=bias)
        assert np.allclose(found, oracle.attention(q, k, v))


@pytest.mark.parametrize("biased", [True, False])
def test_a_parameter_as_bias_is_slow_only_where_it_learns(biased):
    inputs = tensors(*qkv())
    bias = torch.nn.Parameter(torch.zeros(5, 5, dtype=torch.float64))
    options = {"bias": bias} if biased else {}

    assert (FLASH in kernels_run(*inputs, **options)) is not biased
    for quiet in (torch.no_grad(), torch.inference_mode()):
        with quiet:
            for backend in ("auto", "fused"):
                names = kernels_run(*inputs, **options, backend=backend)
                assert any("scaled_dot_product" in name for name in names)


# The kernel multiplies minus infinity by the scale, which in 32 bits is 0 below 1e-45.
@pytest.mark.parametrize("scale", [-1.0, -0.3, 0.0, 1e-50, -1e-50, 3, np.float32(0.5)])
@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 3}], ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=str)
def test_any_scale_will_do(scale, options, lengths):
    q, k, v = qkv((6, 3), lengths)
    expected = oracle.attention(q, k, v, scale=float(scale), **options)

    check_all(q, k, v, expected, mask=None, bias=None, scale=scale, **options)
    check_all(
        q, k, v, expected, mask=None, bias=None, scale=scale, lengths=[lengths[1]] * B, **options
    )
    for dtype in (torch.float32, torch.bfloat16):
        found = ac.attention(*(x.to(dtype) for x in tensors(q, k, v)), scale=scale, **options)
        assert np.allclose(found.double(), expected, rtol=0, atol=32 * torch.finfo(dtype).eps)
    if lengths[0] == lengths[1]:
        found = ac.streaming_attention(q, k, v, scale=scale, block=2, **options)
        assert np.allclose(found, expected)


LEARN = {
    "auto": lambda q, k, v, s: ac.attention(q, k, v, scale=s, causal=True),
    "reference": lambda q, k, v, s: ac.attention(q, k, v, scale=s, backend="reference"),
    "biased": lambda q, k, v, s: ac.attention(q, k, v, scale=s, bias=q @ k.mT),
    "lengths": lambda q, k, v, s: ac.attention(q, k, v, scale=s, lengths=[2, 5]),
    "weights": lambda q, k, v, s: ac.attention_weights(q, k, scale=s, window=2),
    "streaming": lambda q, k, v, s: ac.streaming_attention(q, k, v, scale=s, block=2),
    "sparse": lambda q, k, v, s: ac.sparse_attention(q, k, v, scale=s, window=3),
}


@pytest.mark.parametrize("name", LEARN)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)], ids=str)
def test_a_scale_can_learn(name, shape):
    q, k, v = tensors(*qkv())
    scale = torch.full(shape, 0.5, dtype=torch.float64, requires_grad=True)

    torch.testing.assert_close(LEARN[name](q, k, v, scale), LEARN[name](q, k, v, 0.5))
    assert torch.autograd.gradcheck(lambda s: LEARN[name](q, k, v, s), scale)


def test_a_scale_learns_to_attend_sharply_in_any_dtype():
    q = k = torch.eye(4, dtype=torch.bfloat16)[None, None]
    scale = torch.nn.Parameter(torch.tensor(0.5))
    optimizer = torch.optim.SGD([scale], lr=50)
    for _ in range(20):
        optimizer.zero_grad()
        found = ac.attention(q, k, q, scale=scale)
        (found - q).square().mean().backward()
        optimizer.step()

    assert found.dtype == torch.bfloat16
    assert scale > 3


def test_a_scale_that_learns_compiles_whole():
    torch.compiler.reset()
    inputs, scale = tensors(*qkv()), torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    compiled = torch.compile(ac.attention, fullgraph=True, backend="eager")
    for number in (scale, 0.5, 0.7, -0.3):
        found = compiled(*inputs, scale=number, causal=True)
        torch.testing.assert_close(found, ac.attention(*inputs, scale=number, causal=True))


def kernels_run(*inputs, **options):
    with Recorder() as recorder:
        ac.attention(*inputs, **options)
    return recorder.seen


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ({}, {}),
        ({}, {"causal": True}),
        ({"lengths": (3, 5)}, {"causal": True}),
        ({"lengths": (1, 5)}, {"causal": True}),
        ({"lengths": (5, 5)}, {"window": 2}),
        ({"heads": (6, 3)}, {}),
        ({"heads": (5, 1)}, {"causal": True}),
        ({"lead": ()}, {}),
        ({"lead": (2, 3)}, {"causal": True}),
        ({}, {"mask": torch.ones(5, 5, dtype=torch.bool)}),
        ({"heads": (6, 3)}, {"mask": torch.ones(2, 1, 1, 5, dtype=torch.bool)}),
        ({}, {"bias": torch.zeros(5, 5, dtype=torch.float64)}),
    ],
)
def test_the_fused_kernel_runs(case, options):
    inputs = tensors(*qkv(**case))

    assert FLASH in kernels_run(*inputs, **options)
    assert FLASH in kernels_run(*inputs, **options, backend="fused")
    assert FLASH not in kernels_run(*inputs, **options, backend="reference")


def test_the_fused_kernel_runs_without_a_head_axis():
    q, k, v = (x[0, 0] for x in tensors(*qkv()))

    assert FLASH in kernels_run(q, k, v)


@pytest.mark.parametrize(
    ("lengths", "options", "built"),
    [
        ((5, 5), {"causal": True}, set()),
        ((1, 5), {"causal": True}, set()),
        ((1, 5), {"window": 9}, set()),
        ((1, 5), {"window": 2}, set()),
        ((3, 5), {"causal": True}, {"triu"}),  # only the corner where something is hidden
        ((3, 5), {"window": 2}, {"arange"}),
    ],
)
def test_what_is_hidden_is_built_only_where_it_must_be(lengths, options, built):
    found = kernels_run(*tensors(*qkv(lengths=lengths)), **options)

    assert {"triu", "arange"} & set(found) == built


def test_grouped_heads_are_read_once():
    assert "repeat_interleave" not in kernels_run(*tensors(*qkv((6, 3))), causal=True)
    for lengths, options in (((1, 5), {"causal": True}), ((4, 5), {})):
        inputs = tensors(*qkv((6, 3), lengths))
        with Recorder(shapes=True) as recorder:
            ac.attention(*inputs, **options)

        assert (FLASH, (B, 3, 2 * lengths[0], D), (B, 3, 5, D)) in recorder.seen


@pytest.mark.parametrize("options", [{"causal": True}, {"window": 2}], ids=str)
def test_keys_are_repeated_where_the_kernel_cannot_share_them(monkeypatch, options):
    inputs = tensors(*qkv((6, 3)))
    expected = ac.attention(*inputs, **options)
    monkeypatch.setattr("attncore.core.fused._shares_heads", lambda *_: False)
    with Recorder(shapes=True) as recorder:
        found = ac.attention(*inputs, **options, backend="fused")

    torch.testing.assert_close(found, expected)
    assert (FLASH, (B, 6, 5, D), (B, 6, 5, D)) in recorder.seen


@pytest.mark.parametrize(
    ("device", "version", "dtype", "masked", "shared"),
    [
        ("cpu", "2.9.0+cpu", torch.float32, True, True),
        ("cpu", "2.8.1", torch.float32, False, False),
        ("cuda", "2.6.0", torch.bfloat16, False, True),
        ("cuda", "2.10.0", torch.bfloat16, True, False),
        ("cuda", "2.10.0", torch.float32, False, False),
    ],
)
def test_where_the_kernel_shares_keys(device, version, dtype, masked, shared):
    class Query:  # stands for a tensor on a GPU
        def __init__(self):
            self.device = torch.device(device)
            self.shape = (1, 6, 5, 64)

        def element_size(self):
            return dtype.itemsize

    library = SimpleNamespace(__version__=torch.torch_version.TorchVersion(version))
    mask = torch.ones(5, 5, dtype=torch.bool) if masked else None
    assert _shares_heads(library, Query(), mask) is shared


def test_this_torchs_kernel_shares_keys_as_is_assumed():
    q, k, v = tensors(*qkv((6, 3), value_width=D))
    mask = torch.ones(5, 5, dtype=torch.bool)
    with Recorder() as recorder:
        sdpa(q, k, v, attn_mask=mask, enable_gqa=True)

    assert (FLASH in recorder.seen) is _shares_heads(torch, q, mask)


def test_values_of_another_width_are_fused_too():
    for width in (E, D + 4):
        assert FLASH in kernels_run(*tensors(*qkv(value_width=width)))


@pytest.mark.parametrize("heads", [(3, 3), (6, 3)])
@pytest.mark.parametrize("options", [{"causal": True}, {"window": 37}, {"window": 1}], ids=str)
@pytest.mark.parametrize("Tq", [17, 301, 331])
def test_long_input_goes_block_by_block(options, heads, Tq):
    Tk = 307
    inputs = tensors(*qkv(heads, (Tq, Tk), lead=(1,)), grad=True)
    mask = torch.rand(1, 1, 1, Tk, generator=torch.manual_seed(0)) > 0.3
    bias = torch.randn(heads[0], Tq, 1, dtype=torch.float64)
    for extra in ({}, {"mask": mask}, {"mask": mask, "bias": bias}):
        found = [
            ac.attention(*inputs, **options, **extra, backend=b) for b in ("reference", "auto")
        ]
        slopes = [torch.autograd.grad(out.square().sum(), inputs) for out in found]
        for out, slope in zip(found[1:], slopes[1:], strict=True):
            torch.testing.assert_close(out, found[0])
            torch.testing.assert_close(slope, slopes[0])
        with Recorder(shapes=True) as recorder, torch.no_grad():
            ac.attention(*inputs, **options, **extra)
        whole = [
            shape for _, *shapes in recorder.seen for shape in shapes if shape[-2:] == (Tq, Tk)
        ]

        assert not [shape for shape in whole if Tq > 256]


def test_numpy_goes_block_by_block(monkeypatch):
    monkeypatch.setattr("attncore.core.reference.SCORES_AT_ONCE", 500)
    rng = np.random.default_rng(0)
    for Tq, Tk in ((59, 61), (61, 59), (61, 61)):
        q, k, v = qkv((6, 3), (Tq, Tk))
        mask, bias = rng.random((B, 1, 1, Tk)) > 0.3, rng.normal(size=(6, Tq, 1))
        for options in ({}, {"causal": True}, {"window": 7}, {"mask": mask, "bias": bias}):
            found = ac.attention(q, k, v, **options)
            wanted = ac.attention(q, k, v, **options, backend="reference")
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_numpys_memory_grows_as_the_length():
    def peak(T):
        q, k, v = np.ones((3, 1, T, 4))
        tracemalloc.start()
        ac.attention(q, k, v, causal=True)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(16_000) < 100e6  # all weights would be 2 GB


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 3}], ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("Tq", [1, 5, 150])
def test_it_compiles_whole(options, heads, Tq):
    torch.compiler.reset()
    compiled = torch.compile(ac.attention, fullgraph=True, backend="eager")
    for longer in (0, 1, 20):  # torch makes the sizes variables once they change
        inputs = tensors(*qkv(heads, (Tq + longer, 150 + longer)))

        torch.testing.assert_close(compiled(*inputs, **options), ac.attention(*inputs, **options))


def test_a_bias_of_any_length_is_exported():
    class Biased(torch.nn.Module):
        def forward(self, q, k, v, bias):
            return ac.attention(q, k, v, bias=bias)

    def inputs(T):
        return (*tensors(*qkv(lengths=(T, T))), torch.linspace(0, 9, T * T).reshape(T, T).double())

    T = torch.export.Dim("T", min=2, max=4096)
    sizes = {"q": {2: T}, "k": {2: T}, "v": {2: T}, "bias": {0: T, 1: T}}
    exported = torch.export.export(Biased(), inputs(10), dynamic_shapes=sizes)

    torch.testing.assert_close(exported.module()(*inputs(300)), Biased()(*inputs(300)))


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"window": 3}], ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("Tq", [1, 5, 150])
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch loops
def test_it_maps_over_a_batch(options, heads, Tq):
    inputs = [array[:, None] for array in tensors(*qkv(heads, (Tq, 150)))]
    mapped = torch.vmap(lambda q, k, v: ac.attention(q, k, v, **options))(*inputs)

    torch.testing.assert_close(mapped, ac.attention(*inputs, **options))


def test_conventions_that_clash_with_other_libraries():
    q, k, v = tensors(*qkv(lengths=(3, 5)))
    upper_left = sdpa(q, k, v, is_causal=True)
    ours = ac.attention(q, k, v, causal=True)
    lower_right = torch.ones(3, 5, dtype=torch.bool).tril(5 - 3)
    assert not torch.allclose(ours, upper_left)
    assert torch.allclose(ours, sdpa(q, k, v, attn_mask=lower_right))

    square = tensors(*qkv())
    assert torch.allclose(ac.attention(*square, causal=True), sdpa(*square, is_causal=True))

    # flash-attn's window_size=(left, 0) keeps left + 1 keys.
    left, age = 2, torch.arange(2, 5)[:, None] - torch.arange(5)
    keep = (age >= 0) & (age <= left)
    assert torch.allclose(ac.attention(q, k, v, window=left + 1), sdpa(q, k, v, attn_mask=keep))

    # In nn.MultiheadAttention True means drop.
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.eye(8, dtype=torch.float64).repeat(3, 1))
        layer.out_proj.weight.copy_(torch.eye(8, dtype=torch.float64))
        keep = ac.masks.causal(5, like=x)
        theirs, _ = layer(x, x, x, attn_mask=~keep)
    assert torch.allclose(ac.attention(x[:, None], x[:, None], x[:, None], keep)[:, 0], theirs)


def test_heads_share_keys_in_order():
    q, k, v = qkv((6, 3), (3, 5))
    repeated = ac.attention(q, np.repeat(k, 2, axis=-3), np.repeat(v, 2, axis=-3))

    assert np.allclose(ac.attention(q, k, v), repeated)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("Tq", "Tk"), [(0, 5), (3, 0), (0, 0)])
def test_empty_axes(library, Tq, Tk):
    q, k, v = qkv(lengths=(Tq, Tk))
    inputs = (q, k, v) if library == "numpy" else tensors(q, k, v)
    out = ac.attention(*inputs, causal=True)

    assert tuple(out.shape) == (B, 3, Tq, D)
    assert (out == 0).all()


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_inputs_keep_their_bits_and_views_give_the_same(library):
    q, k, v = qkv()
    mask = np.random.default_rng(7).random((5, 5)) < 0.5
    bias = np.random.default_rng(8).normal(size=(5, 5))
    before = [x.copy() for x in (q, k, v, mask, bias)]
    convert = (lambda x: x) if library == "numpy" else torch.from_numpy
    out = ac.attention(*map(convert, (q, k, v)), convert(mask), bias=convert(bias), causal=True)
    views = [np.ascontiguousarray(np.swapaxes(x, -1, -2)) for x in (q, k, v)]
    turned = [convert(np.swapaxes(x, -1, -2)) for x in views]
    again = ac.attention(*turned, convert(mask), bias=convert(bias), causal=True)

    assert all((a == b).all() for a, b in zip(before, (q, k, v, mask, bias), strict=True))
    assert type(out) is type(turned[0])
    assert np.allclose(np.asarray(out), np.asarray(again))


def test_integers_become_floats():
    q, k, v = np.array([[1, 2]]), np.array([[1, 0], [0, 1]]), np.array([[1], [0]])
    out = ac.attention(torch.from_numpy(q), torch.from_numpy(k), torch.from_numpy(v))

    assert ac.attention(q, k, v).dtype == np.float64
    assert out.dtype == torch.get_default_dtype()
    assert np.allclose(ac.attention(q.tolist(), k.tolist(), v.tolist()), out.numpy())
    assert ac.attention(q, k.astype(np.float32), v).dtype == np.float32


@pytest.mark.parametrize("extra", [{}, {"mask": True}, {"bias": True}, {"window": 2}], ids=str)
def test_torch_is_never_given_a_mask_and_is_causal(monkeypatch, extra):
    # The CPU kernel lets both pass; the others raise.
    calls = []

    def spy(*inputs, **options):
        calls.append(options.get("is_causal", False) and options.get("attn_mask") is not None)
        return sdpa(*inputs, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    fill = {"mask": torch.ones(5, 5, dtype=torch.bool), "bias": torch.zeros(5, 5).double()}
    options = {name: fill.get(name, value) for name, value in extra.items()}
    ac.attention(*tensors(*qkv()), causal=True, **options)

    assert calls == [False]
