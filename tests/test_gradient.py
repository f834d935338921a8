"""The gradient of attention by hand is torch's, and so is Adam."""

import numpy as np
import pytest
import torch

from attncore import models, nn
from attncore.models import Adam, with_gradient

B, T, TK = 2, 7, 5
D64 = torch.float64


def twins(*sizes, **options):
    """Return torch's layer in float64, and NumPy's with the same parameters, no bias of them 0."""
    torch.manual_seed(0)
    theirs = nn.MultiHeadAttention(*sizes, **options).double()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, dtype=D64))
    ours = models.MultiHeadAttention(*sizes, **options)
    ours.load_state_dict({name: p.detach() for name, p in theirs.named_parameters()})
    return theirs, ours


def rand(*shape, seed=1):
    return torch.randn(*shape, dtype=D64, generator=torch.Generator().manual_seed(seed))


def check(theirs, ours, x, context=None, mask=None, **limits):
    """Compare all gradients of a loss that weighs every number of the result differently."""
    x = x.clone().requires_grad_()
    context = None if context is None else context.clone().requires_grad_()
    y = theirs(x, context, mask, **limits)
    d_y = rand(*y.shape, seed=2)
    theirs.zero_grad()
    (y * d_y).sum().backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()} | {"x": x.grad}
    if context is not None:
        expected["context"] = context.grad

    plain = [None if a is None else a.detach().numpy() for a in (x, context, mask)]
    before = [None if a is None else a.copy() for a in plain]
    found_y, backward = with_gradient(ours, *plain, **limits)
    found = backward(d_y.numpy())

    assert np.abs(found_y - y.detach().numpy()).max() < 1e-10
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert found[name].shape == gradient.shape, name
        assert found[name].dtype == np.float64
        assert np.abs(found[name] - gradient.numpy()).max() < 1e-10, name
    for array, copy in zip(plain, before, strict=True):
        assert np.array_equal(array, copy)
    return found


@pytest.mark.parametrize("kv_heads", [None, 2, 1])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "call",
    [{}, {"causal": True}, {"window": 3}, {"lengths": [7, 3]}, {"causal": True, "lengths": [4, 7]}],
)
def test_self_attention(kv_heads, bias, call):
    check(*twins(24, 4, kv_heads, bias=bias, head_dim=10), rand(B, T, 24), **call)


@pytest.mark.parametrize("rope", ["half", "interleaved"])
def test_turned_queries_and_keys(rope):
    check(*twins(24, 4, 2, rope=rope, rope_base=100.0), rand(B, T, 24), causal=True)
    part = {"rope_dim": 4, "rope_speeds": [0.9, 0.3], "rope_gain": 1.3}
    check(*twins(24, 4, 2, rope=rope, **part), rand(B, T, 24), causal=True)


@pytest.mark.parametrize(
    "option",
    [{"qk_norm": True}, {"scale": 0.5}, {"scale": "learned"}, {"softcap": 1.0}, {"sinks": True}],
    ids=str,
)
def test_what_has_no_gradient_here_is_refused(option):
    layer = models.MultiHeadAttention(8, 2, **option, rng=0)
    message = "a layer with qk_norm, a scale, a softcap or sinks has no gradient written out here"
    with pytest.raises(ValueError, match=message):
        with_gradient(layer, np.zeros((3, 8)))


def test_a_context_that_is_kept_passes_no_gradient_on():
    layer = models.MultiHeadAttention(8, 2, rng=0)
    cache = layer.cross_cache(np.zeros((1, 4, 8)))
    with pytest.raises(ValueError, match=r"a CrossKVCache passes no gradient on: give the context"):
        with_gradient(layer, np.zeros((1, 3, 8)), cache)


@pytest.mark.parametrize("context_dim", [None, 13])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention(context_dim, kv_heads, bias):
    layers = twins(24, 4, kv_heads, context_dim=context_dim, bias=bias)
    mask = rand(B, 1, T, TK) > 0
    mask[0, 0, 3] = False  # a query that may attend to nothing

    check(*layers, rand(B, T, 24), rand(B, TK, context_dim or 24), mask)
    check(*layers, rand(B, T, 24), rand(B, TK, context_dim or 24), causal=True)


@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)])
def test_any_leading_axes(lead):
    check(*twins(24, 4, 2), rand(*lead, T, 24))


def test_what_is_hidden_has_no_gradient():
    found = check(*twins(24, 4), rand(B, T, 24), rand(B, TK, 24), lengths=[2, 5])

    assert (found["context"][0, 2:] == 0).all()
    assert (abs(found["context"][0, :2]) > 1e-6).all()


def test_it_is_the_slope():
    """Without torch: the loss along any direction, by central differences."""
    rng = np.random.default_rng(0)
    layer = models.MultiHeadAttention(12, 4, 2, rng=rng)
    arrays = layer.state_dict() | {"x": rng.normal(size=(B, T, 12))}
    y, backward = with_gradient(layer, arrays["x"], causal=True)
    found = backward(2 * y)  # of the loss (y**2).sum()
    for name, array in arrays.items():
        way, slopes = rng.normal(size=array.shape), []
        for step in (1e-5, -1e-5):
            array += step * way
            slopes.append((layer(arrays["x"], causal=True) ** 2).sum() / (2 * step))
            array -= step * way

        assert sum(slopes) == pytest.approx((found[name] * way).sum(), rel=1e-6), name


def test_each_way_back_has_its_own_numbers():
    layer = models.MultiHeadAttention(12, 4, rng=0)
    xs = np.random.default_rng(0).normal(size=(2, T, 12))
    (_, first), (_, second) = (with_gradient(layer, x) for x in xs)
    alone = with_gradient(layer, xs[0])[1](xs[1])
    later, again = second(xs[1]), first(xs[1])

    assert all(np.array_equal(again[name], alone[name]) for name in alone)
    assert not np.allclose(later["in_proj_weight"], again["in_proj_weight"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gradients_have_the_dtype_of_the_parameters(dtype):
    layer = models.MultiHeadAttention(16, 4, 2, rope="half", dtype=dtype, rng=0)
    x = np.random.default_rng(0).normal(size=(T, 16)).astype(dtype)
    y, backward = with_gradient(layer, x, causal=True)

    assert y.dtype == dtype
    assert {d.dtype for d in backward(y).values()} == {np.dtype(dtype)}


def test_a_wrong_layer_or_gradient_is_refused():
    layer, x = models.MultiHeadAttention(12, 4, rng=0), np.zeros((T, 12))
    backward = with_gradient(layer, x)[1]

    with pytest.raises(TypeError, match=r"^layer must be .* got Mu.*call backward\(\) of the loss"):
        with_gradient(nn.MultiHeadAttention(12, 4), torch.zeros(T, 12))
    with pytest.raises(ValueError, match=r"^x must be \(\.\.\., T, d_model = 12\), got \(7, 11\)"):
        with_gradient(layer, x[:, 1:])
    with pytest.raises(ValueError, match=r"^d_y must be \(7, 12\), as y is, got \(1, 12\)$"):
        backward(x[:1])
    with pytest.raises(TypeError, match=r"^d_y is float32, the parameters are float64"):
        backward(x.astype("f4"))
    with pytest.raises(TypeError, match=r"^d_y must be a NumPy array, got Tensor.*numpy\(\)"):
        backward(torch.zeros(T, 12))


def test_adam_is_torchs():
    start, rng = rand(3, 4).numpy(), np.random.default_rng(0)
    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, ours = torch.optim.Adam([theirs], 0.03), {"w": start.copy()}
    adam = Adam(ours, 0.03)
    for _ in range(20):
        gradient = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-9, 9, (3, 4))
        theirs.grad = torch.from_numpy(gradient)
        optimizer.step()
        adam.step({"w": gradient, "x": gradient})

        assert np.abs(ours["w"] - theirs.detach().numpy()).max() < 1e-12
    assert np.abs(ours["w"] - start).min() > 0.001


def test_adam_asks_for_every_gradient_in_its_shape():
    w = {"a": np.ones(2), "b": np.ones(2)}
    with pytest.raises(ValueError, match=r"^gradients lack b: give one for each parameter$"):
        Adam(w, 0.1).step({"a": np.ones(2)})
    with pytest.raises(
        ValueError, match=r"^the gradient of b must be \(2,\), as b is, got \(1,\)$"
    ):
        Adam(w, 0.1).step({"a": np.ones(2), "b": np.ones(1)})
    assert (w["a"] == 1).all()


@pytest.mark.parametrize("wrong", [np.ones(2, int), torch.ones(2), [1.0, 2.0]])
def test_adam_wants_arrays_of_floats_and_a_rate(wrong):
    with pytest.raises(TypeError, match=r"^a must be a NumPy array of floats, got .*state_dict"):
        Adam({"a": wrong}, 0.1)
    with pytest.raises(ValueError, match=r"^rate must be .*positive"):
        Adam({"a": np.ones(2)}, -0.1)


def test_a_layer_learns():
    """To copy the row that has a mark, which one head can."""
    rng = np.random.default_rng(0)
    layer = models.MultiHeadAttention(4, 1, rng=rng)
    adam, losses = Adam(layer.state_dict(), 0.03), []
    for _ in range(150):
        x, place = rng.normal(size=(32, 6, 4)), rng.integers(6, size=32)
        x[..., 0] = 2.0 * (np.arange(6) == place[:, None])
        wrong = x[np.arange(32), place][:, None]
        y, backward = with_gradient(layer, x)
        losses.append(((y - wrong) ** 2).mean())
        adam.step(backward(2 * (y - wrong) / y.size))

    assert losses[-1] < 0.05 * losses[0]
