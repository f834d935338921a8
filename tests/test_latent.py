"""Latent attention: two forms that agree, whatever is kept between calls."""

import copy
import math

import numpy as np
import oracle
import pytest
import torch
from torch import nn

import attncore as ac
from attncore import models
from attncore.models import functional
from attncore.nn import LatentAttention

B, T, WIDTH, H, RANK, R = 2, 13, 24, 4, 30, 6
DOUBLE = {"dtype": torch.float64}
SIZES = {
    "plain": {},
    "values of another width": {"head_dim": 8, "value_dim": 5},
    "queries compressed": {"q_rank": 7, "bias": True},
    "half, speeds": {"rope": "half", "rope_speeds": [0.9, 0.3, 0.01], "rope_gain": 1.3},
    "scale, base": {"scale": 0.3, "rope_base": 50.0, "norm_eps": 0.1, "head_dim": 3},
}
each = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def rand(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def made(**sizes):
    """Return a layer with parameters that show if they are lost."""
    layer = LatentAttention(WIDTH, H, RANK, R, **sizes, **DOUBLE)
    with torch.no_grad():
        for i, parameter in enumerate(layer.parameters()):
            parameter.copy_(rand(*parameter.shape, seed=i) / 3)
    return layer


def numpys(layer, **sizes):
    twin = models.LatentAttention(WIDTH, H, RANK, R, **sizes, rng=0)
    twin.load_state_dict(layer.state_dict())
    return twin


def kept(kind=ac.KVCache, capacity=T, batch=B, **options):
    return kind(batch, 1, capacity, RANK + R, value_dim=0, like=rand(1), **options)


def by_hand(layer, x, window=None):
    """Compute a causal layer token by token and head by head, in Python's numbers."""
    D, E = layer.head_dim, layer.value_dim
    state = {name: a.numpy() for name, a in layer.state_dict().items()}
    out = np.zeros((*x.shape[:2], WIDTH))

    def mapped(name, row):
        found = state[f"{name}.weight"] @ row
        return found + state.get(f"{name}.bias", 0.0)

    def normed(name, row):
        return row / math.sqrt((row * row).mean() + layer.norm_eps) * state[f"{name}.weight"]

    def turned(row, t):
        rope = {"base": layer.rope_base, "pairing": layer.rope, "gain": layer.rope_gain}
        return ac.positions.rope(row[None], [t], speeds=layer.rope_speeds, **rope)[0]

    for b in range(len(x)):
        q, k, v = (np.zeros((H, x.shape[1], width)) for width in (D + R, D + R, E))
        for t, row in enumerate(x[b].numpy()):
            if layer.q_rank is None:
                queries = mapped("q_proj", row)
            else:
                queries = mapped("q_b_proj", normed("q_a_layernorm", mapped("q_a_proj", row)))
            narrow = mapped("kv_a_proj_with_mqa", row)
            wide = mapped("kv_b_proj", normed("kv_a_layernorm", narrow[:RANK]))
            for h in range(H):
                own = queries[h * (D + R) : (h + 1) * (D + R)]
                q[h, t] = np.concatenate([own[:D], turned(own[D:], t)])
                own = wide[h * (D + E) : (h + 1) * (D + E)]
                k[h, t] = np.concatenate([own[:D], turned(narrow[RANK:], t)])
                v[h, t] = own[D:]
        scaled = q * layer.scale * math.sqrt(D + R)
        heads = oracle.attention(scaled[None], k[None], v[None], causal=True, window=window)[0]
        for t in range(x.shape[1]):
            out[b, t] = mapped("o_proj", heads[:, t].reshape(-1))
    return out


@each
@pytest.mark.parametrize("absorb", [False, True, None])
def test_both_forms_are_what_is_computed_by_hand(sizes, absorb):
    layer, x = made(**sizes), rand(B, T, WIDTH)
    expected = by_hand(layer, x)

    found = layer(x, causal=True, absorb=absorb)
    assert np.allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12)
    twin = numpys(layer, **sizes)
    assert np.allclose(twin(x.numpy(), causal=True, absorb=absorb), expected, rtol=0, atol=1e-12)


@each
def test_both_forms_have_the_same_gradients(sizes):
    layer, x = made(**sizes), rand(B, T, WIDTH).requires_grad_()
    plain, absorbed = (
        torch.autograd.grad(
            layer(x, causal=True, absorb=absorb).pow(2).mean(), [x, *layer.parameters()]
        )
        for absorb in (False, True)
    )
    for one, other in zip(plain, absorbed, strict=True):
        assert one.abs().max() > 1e-6
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("splits", [(13,), (9, 1, 1, 2), (1,) * 13], ids=str)
@pytest.mark.parametrize("absorb", [False, True, None])
@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
@each
def test_decoding_equals_one_pass(sizes, kind, absorb, splits):
    layer, x, cache = made(**sizes), rand(B, T, WIDTH), kept(kind)
    with torch.no_grad():
        whole = layer(x, causal=True)
        parts = [layer(part, cache=cache, absorb=absorb) for part in x.split(splits, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)
    assert int(cache.length) == T
    if kind is ac.KVCache:
        twin = numpys(layer, **sizes)
        own = ac.KVCache(B, 1, T, RANK + R, value_dim=0)
        parts = [twin(p.numpy(), cache=own, absorb=absorb) for p in x.split(splits, dim=1)]
        assert np.allclose(np.concatenate(parts, 1), whole.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("ring", [False, True])
def test_a_window_may_be_a_ring(ring, absorb):
    layer, x = made(), rand(B, T, WIDTH)
    cache = kept(window=4) if ring else kept()
    with torch.no_grad():
        parts = [
            layer(part, cache=cache, window=4, absorb=absorb)
            for part in x.split((6, 1, 1, 5), dim=1)
        ]
    assert np.allclose(torch.cat(parts, 1).numpy(), by_hand(layer, x, window=4), atol=1e-12)


def test_what_is_kept_is_one_narrow_row_for_each_token():
    """As in DeepSeek-V3, where 128 heads of 128 + 64 and 128 numbers would be 40,960."""
    cache, whole = kept(), ac.KVCache(B, H, T, WIDTH // H + R, value_dim=WIDTH // H)

    assert cache.nbytes == B * T * (RANK + R) * 8
    assert ac.KVCache(1, 1, 1, 512 + 64, value_dim=0, like=torch.empty(0).half()).nbytes == 1152
    assert cache.nbytes < whole.nbytes


def forms(layer, monkeypatch):
    """Return a list to which each call of the layer adds the form that it took."""
    taken = []
    for form in (functional.absorbed, functional.expanded):

        def spy(*given, form=form):
            taken.append(form.__name__)
            return form(*given)

        monkeypatch.setattr(functional, form.__name__, spy)
    return taken


def test_decoding_is_absorbed_and_a_prompt_is_not(monkeypatch):
    layer, x, cache = made(), rand(B, 300, WIDTH), kept(capacity=300)
    taken = forms(layer, monkeypatch)
    layer(x, causal=True)
    with torch.no_grad():
        for part in x.split([40, 1, 2, 250, 7], dim=1):
            layer(part, cache=cache)

    assert taken == ["expanded", "expanded", "absorbed", "absorbed", "expanded", "absorbed"]


def test_the_form_that_multiplies_less_is_taken():
    layer = made(head_dim=8, value_dim=5)

    def products(Tq, Tk, absorb):
        """Count the multiplications of one head, from the shapes."""
        q, k, v = ((Tq, RANK + R), (RANK + R, Tk), RANK) if absorb else ((Tq, 14), (14, Tk), 5)
        maps = (Tq if absorb else Tk) * RANK * (8 + 5)
        return maps + q[0] * q[1] * k[1] + Tq * Tk * v

    for Tq in (1, 2, 3, 10, 100):
        for Tk in (1, 2, 3, 7, 10, 50, 100, 1000):
            less = products(Tq, Tk, True) < products(Tq, Tk, False)
            assert functional.absorbing_is_less(layer, Tq, Tk) == less, (Tq, Tk)


class Adapter(nn.Module):
    """A map with something added, as low-rank adapters have it; its weight is not all there is."""

    def __init__(self, base):
        super().__init__()
        self.base, self.weight = base, base.weight

    def forward(self, x):
        return self.base(x) + x.sum(-1, keepdim=True)


def test_an_adapter_is_not_passed_over(monkeypatch):
    layer, x = made(), rand(B, T, WIDTH)
    layer.kv_b_proj = Adapter(layer.kv_b_proj)
    taken, cache = forms(layer, monkeypatch), kept()
    with torch.no_grad():
        whole = layer(x, causal=True)
        parts = [layer(part, cache=cache) for part in x.split([10, 1, 1, 1], dim=1)]

    assert torch.allclose(torch.cat(parts, 1), whole)
    assert set(taken) == {"expanded"}
    with pytest.raises(ValueError, match=r"absorb=True reads the weight of kv_b_proj, but Adapter"):
        layer(x, absorb=True)


@pytest.mark.parametrize("absorb", [False, True])
def test_masks_lengths_positions_and_weights(absorb):
    layer, x = made(), rand(B, T, WIDTH)
    lengths, call = torch.tensor([T, 4]), {"causal": True, "absorb": absorb}
    mask = ac.masks.padding(lengths, T)
    found = layer(x, lengths=lengths, absorb=absorb)

    assert torch.allclose(found, layer(x, mask, absorb=absorb))
    assert torch.allclose(found[1], layer(x[1], mask[1, 0], absorb=absorb))
    assert torch.allclose(layer(x, **call, positions=range(90, 90 + T)), layer(x, **call))
    assert not torch.allclose(layer(x, **call, positions=[0] * T), layer(x, **call))
    left = (torch.arange(T) - (T - lengths)[:, None]).clamp(min=0)
    shown = ac.masks.padding(lengths, T, left=True)
    padded = layer(x, shown, **call, positions=left)
    assert torch.allclose(padded[1, -4:], layer(x[1, -4:], **call))
    y, weights = layer(x, **call, need_weights=True)
    assert torch.allclose(y, layer(x, **call))
    assert torch.allclose(weights, layer(x, causal=True, absorb=not absorb, need_weights=True)[1])
    assert torch.allclose(weights.sum(-1), torch.ones(B, H, T, **DOUBLE))
    seen = {}
    layer(x, **call, look=functional.into(seen))
    assert list(seen) == ["q", "k", "v", "weights", "heads"]
    assert seen["heads"].shape == (B, H, T, layer.value_dim)
    none = layer(x, **call, look=lambda name, a: 0 * a if name == "weights" else None)
    assert torch.allclose(none, torch.zeros_like(none))


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("kept_as", [torch.float32, torch.bfloat16])
def test_under_autocast_any_cache_will_do(absorb, kept_as):
    layer, x = made(q_rank=7).float(), rand(B, T, WIDTH).float()
    cache = ac.KVCache(B, 1, T, RANK + R, value_dim=0, like=torch.empty(0, dtype=kept_as))
    with torch.no_grad():
        expected = layer(x, causal=True)
        with torch.autocast("cpu", torch.bfloat16):
            whole = layer(x, causal=True, absorb=absorb)
            parts = [layer(p, cache=cache, absorb=absorb) for p in x.split((9, 1, 3), dim=1)]
    for found in (whole, torch.cat(parts, 1)):
        assert found.dtype == torch.bfloat16
        assert (found - expected).abs().max() < expected.abs().max() / 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_dtypes(dtype):
    layer, x = made(), rand(B, T, WIDTH)
    expected, low = layer(x, causal=True), copy.deepcopy(layer).to(dtype)
    for absorb in (False, True):
        found = low(x.to(dtype), causal=True, absorb=absorb)
        assert found.dtype == dtype
        near = expected.abs().max() * torch.finfo(dtype).eps * 20
        assert (found - expected).abs().max() < near


@pytest.mark.parametrize("kind", [ac.KVCache, ac.StaticKVCache])
def test_it_compiles_whole(kind):
    torch.compiler.reset()
    layer, x, cache = made(), rand(B, T, WIDTH), kept(kind)
    compiled = torch.compile(layer, backend="eager", fullgraph=True, dynamic=False)
    with torch.no_grad():
        whole = layer(x, causal=True)
        assert torch.allclose(compiled(x, causal=True), whole)
        assert torch.allclose(compiled(x[:, :5], cache=cache), whole[:, :5])
        if kind is ac.StaticKVCache:
            for t in range(5, T):
                assert torch.allclose(compiled(x[:, t : t + 1], cache=cache), whole[:, t : t + 1])


def test_it_exports_with_its_length_left_open():
    layer, x = made(), rand(B, T, WIDTH)
    length = torch.export.Dim("T", min=2, max=1000)
    program = torch.export.export(
        layer, (x,), {"causal": True}, dynamic_shapes={"x": {1: length}, "causal": None}
    )
    for T_now in (2, 40):
        x = rand(B, T_now, WIDTH, seed=T_now)
        assert torch.allclose(program.module()(x, causal=True), layer(x, causal=True))


def test_a_failed_call_appends_nothing():
    layer, x, cache = made(), rand(B, T, WIDTH), kept()
    with torch.no_grad():
        layer(x[:, :3], cache=cache)
        with pytest.raises(ValueError, match=r"mask \(1, 99\) does not broadcast"):
            layer(x[:, 3:], torch.ones(1, 99, dtype=torch.bool), cache=cache)
        assert cache.length == 3
        after = layer(x[:, 3:], cache=cache)
    assert torch.allclose(after, layer(x, causal=True)[:, 3:])


def test_it_says_what_it_is_and_travels_to_numpy_and_back():
    layer = made(q_rank=7)
    twin = numpys(layer, q_rank=7)
    again = LatentAttention(WIDTH, H, RANK, R, q_rank=7, **DOUBLE)
    again.load_state_dict({n: torch.from_numpy(a) for n, a in twin.state_dict().items()})

    assert torch.equal(again(rand(1, T, WIDTH)), layer(rand(1, T, WIDTH)))
    assert "heads=4, rank=30, rope_dim=6, head_dim=6, value_dim=6, q_rank=7" in repr(layer)
    assert "q_rank" not in repr(made())
    small = models.LatentAttention(8, 2, 4, 2, dtype=np.float32, rng=0)
    assert small(np.zeros((3, 8), np.float32)).dtype == np.float32


Z = torch.zeros
LAYER = LatentAttention(12, 3, 5, 2).requires_grad_(False)
X = Z(2, 4, 12)
LIKE = Z(1)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: LatentAttention(10, 3, 5, 2), ValueError,
         r"heads \(3\) must divide d_model \(10\), or give head_dim"),
        (lambda: LatentAttention(12, 3, 0, 2), ValueError, r"rank must be at least 1, got 0"),
        (lambda: LatentAttention(12, 3, 5.0, 2), TypeError, r"rank must be an integer, got float"),
        (lambda: LatentAttention(12, 3, 5, 3), ValueError, r"rope_dim must be even"),
        (lambda: LatentAttention(12, 3, 5, 2, q_rank=0), ValueError, r"q_rank must be at least 1"),
        (lambda: LatentAttention(12, 3, 5, 2, value_dim=0), ValueError,
         r"value_dim must be at least 1"),
        (lambda: LatentAttention(12, 3, 5, 2, head_dim=-1), ValueError, r"head_dim must be at le"),
        (lambda: LatentAttention(12, 3, 5, 2, bias=1), TypeError, r"bias must be True or False"),
        (lambda: LatentAttention(12, 3, 5, 2, scale=np.nan), ValueError, r"scale must be finite"),
        (lambda: LatentAttention(12, 3, 5, 2, scale="learned"), TypeError, r"scale must be a numb"),
        (lambda: LatentAttention(12, 3, 5, 2, norm_eps=0), ValueError, r"norm_eps must be posit"),
        (lambda: LatentAttention(12, 3, 5, 2, rope="llama"), ValueError,
         r"rope must be one of half, interleaved, got 'llama'"),
        (lambda: LatentAttention(12, 3, 5, 2, rope=None), ValueError, r"rope must be one of half"),
        (lambda: LatentAttention(12, 3, 5, 2, rope_speeds=[1.0, 2.0]), ValueError,
         r"speeds must be one for each pair that turns, \(1,\), got \(2,\)"),
        (lambda: LAYER(Z(2, 4, 11)), ValueError, r"x must be \(..., T, d_model = 12\), got \(2, 4"),
        (lambda: LAYER(X.double()), TypeError, r"x is float64, the parameters are float32"),
        (lambda: LAYER(np.zeros((2, 4, 12))), TypeError, r"x must be a torch tensor, got ndarray"),
        (lambda: LAYER(X, Z(4, 4)), TypeError, r"mask must be boolean"),
        (lambda: LAYER(X, absorb=1), TypeError, r"absorb must be True or False, got int"),
        (lambda: LAYER(X, need_weights=None), TypeError, r"need_weights must be True or False"),
        (lambda: LAYER(X, positions=range(3)), ValueError, r"positions must be \(T,\) = \(4,\)"),
        (lambda: LAYER(X, lengths=[3]), ValueError, r"lengths"),
        (lambda: LAYER(X, cache=[]), TypeError, r"cache must be a KVCache, got list"),
        (lambda: LAYER(X, cache=ac.KVCache(2, 1, 9, 7, like=LIKE)), ValueError,
         r"the cache must be KVCache\(2, 1, capacity, rank \+ rope_dim = 7, value_dim=0, like=x\), "
         r"got one of 2 sequences, 1 heads, keys of width 7 and values of width 7"),
        (lambda: LAYER(X, cache=ac.KVCache(2, 3, 9, 7, value_dim=0, like=LIKE)), ValueError,
         r"got one of 2 sequences, 3 heads"),
        (lambda: LAYER(X, cache=ac.KVCache(1, 1, 9, 7, value_dim=0, like=LIKE)), ValueError,
         r"got one of 1 sequences"),
        (lambda: LAYER(X, cache=ac.KVCache(2, 1, 9, 7, value_dim=0)), TypeError,
         r"do not mix: cache NumPy, k, v torch"),
        (lambda: LAYER(X, lengths=[1, 2], cache=ac.KVCache(2, 1, 9, 7, value_dim=0, like=LIKE)),
         ValueError, r"lengths cannot be used with a cache"),
        (lambda: LAYER(X[0], cache=ac.KVCache(2, 1, 9, 7, value_dim=0, like=LIKE)), ValueError,
         r"with a cache x must be \(B, T, d_model\), got \(4, 12\)"),
        (lambda: LAYER(X, cache=ac.KVCache(2, 1, 3, 7, value_dim=0, like=LIKE)), ValueError,
         r"cache full: 0 of 3, cannot append 4"),
        (lambda: LatentAttention(12, 3, 5, 2)(
            X, cache=ac.KVCache(2, 1, 9, 7, value_dim=0, like=LIKE)), ValueError,
         r"k needs a gradient, which a cache cannot pass on: decode under torch.no_grad"),
        (lambda: models.LatentAttention(12, 3, 5, 2, rng=0)(X), TypeError,
         r"x must be a NumPy array, got Tensor"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
