"""The static cache computes what the other does, in steps that can be recorded once."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from routes import Recorder

import attncore as ac
from attncore.cache.growing import undo_on_error
from attncore.nn import Decoder, MultiHeadAttention

B, H, G, D, E, T, C = 2, 6, 3, 5, 7, 11, 13
DEVICE = ac.pick_device()
DTYPE = torch.float32 if DEVICE.type == "mps" else torch.float64


def rand(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=DTYPE).to(DEVICE)


def static(**options):
    sizes = {"batch": B, "kv_heads": G, "capacity": C, "head_dim": D, "value_dim": E}
    return ac.StaticKVCache(**(sizes | options), like=rand(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"d_model": 12, "layers": 2, "heads": 6, "kv_heads": 3, "context": 16}
    return Decoder("abcde", **sizes).to(DEVICE, DTYPE).eval()


@pytest.mark.parametrize("window", [None, 1, 4, 20])
@pytest.mark.parametrize("splits", [(), (5,), (1, 2), (3, 4, 9), tuple(range(1, T))], ids=str)
def test_any_split_equals_one_pass(window, splits):
    q, k, v = rand(B, H, T, D), rand(B, G, T, D), rand(B, G, T, E)
    cache, outputs = static(), []
    for start, stop in itertools.pairwise([0, *splits, T]):
        seen = cache.append(k[:, :, start:stop], v[:, :, start:stop])
        mask = cache.mask(stop - start, window=window)
        outputs.append(ac.attention(q[:, :, start:stop], *seen, mask))

    whole = ac.attention(q, k, v, causal=True, window=window)
    torch.testing.assert_close(torch.cat(outputs, dim=2), whole)
    assert cache.held == cache.length == T


@pytest.mark.parametrize("rope", [None, "half"])
@pytest.mark.parametrize("window", [None, 3])
def test_the_layer_decodes_as_with_the_other_cache(rope, window):
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 3, rope=rope).to(DEVICE, DTYPE)
    x = rand(B, T, 12)
    with torch.no_grad():
        expected = layer(x, causal=True, window=window)
        cache = ac.StaticKVCache(B, 3, C, 4, like=x)
        parts = [layer(part, window=window, cache=cache) for part in x.split([4, 1, 1, 5], dim=1)]

    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


def test_the_model_too(model):
    tokens = torch.arange(22, device=DEVICE).reshape(2, 11) % 5
    caches = model.new_caches(2, capacity=12, static=True)
    with torch.no_grad():
        parts = [model(part, caches) for part in tokens.split([4, 1, 1, 5], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens))

    assert [cache.held for cache in caches] == [11, 11]


# Operations that ask for a number, for which a GPU would have to be waited for.
ASKING = {"_local_scalar_dense", "nonzero", "is_nonzero", "item"}


def test_a_step_asks_for_no_number_and_moves_nothing(model):
    caches = model.new_caches(static=True)
    token = torch.zeros(1, 1, dtype=torch.long, device=DEVICE)
    addresses = [c.data_ptr() for cache in caches for c in (cache._k, cache._v, cache._length)]
    with Recorder() as recorder, torch.no_grad():
        for _ in range(4):
            token = model(token, caches)[:, -1].argmax(-1, keepdim=True)

    assert ASKING.isdisjoint(recorder.seen)
    assert addresses == [
        c.data_ptr() for cache in caches for c in (cache._k, cache._v, cache._length)
    ]


def test_a_step_is_compiled_whole_and_once(model):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    caches = model.new_caches(static=True)
    ours, token = [], torch.zeros(1, 1, dtype=torch.long, device=DEVICE)
    with torch.no_grad():
        for _ in range(9):
            logits = compiled(token, caches)
            token = logits[:, -1].argmax(-1, keepdim=True)
            ours.append(logits)
        tokens = torch.cat([logits.argmax(-1) for logits in ours[:-1]], dim=1)
        tokens = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
        torch.testing.assert_close(torch.cat(ours, dim=1), model(tokens))

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.skipif(DEVICE.type != "cuda", reason="a CUDA graph needs an NVIDIA GPU")
def test_a_step_is_replayed_from_a_cuda_graph(model):
    prompt = torch.arange(4, device=DEVICE)[None] % 5
    caches = model.new_caches(static=True)
    token = torch.zeros(1, 1, dtype=torch.long, device=DEVICE)
    with torch.no_grad():
        expected = model.generate(prompt, 10)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            model(token, caches)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = model(token, caches)
        for cache in caches:
            cache.reset()
        token.copy_(model(prompt, caches)[:, -1].argmax(-1, keepdim=True))
        found = [prompt, token.clone()]
        for _ in range(9):
            graph.replay()
            token.copy_(logits[:, -1].argmax(-1, keepdim=True))
            found.append(token.clone())

    assert torch.equal(torch.cat(found, dim=1), expected)


def test_a_full_cache_tells_by_nan_until_it_is_reset(model):
    caches = model.new_caches(capacity=3, static=True)
    step = torch.zeros(1, 2, dtype=torch.long, device=DEVICE)
    with torch.no_grad():
        expected = model(step, caches)
        for _ in range(2):
            assert model(step, caches).isnan().all()
        with pytest.raises(ValueError, match=r"6 tokens were appended to 3 slots: use reset\(\)"):
            caches[0].crop(1)
        for cache in caches:
            cache.reset()
        assert torch.equal(model(step, caches), expected)


def test_crop_forgets():
    cache, k, v = static(), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k, v)
    cache.crop(4)
    cache.append(k[:, :, -1:], v[:, :, -1:])

    assert cache.held == cache.length == 5
    assert torch.equal(cache._k[:, :, 4], k[:, :, -1])
    assert torch.equal(cache._k[:, :, :4], k[:, :, :4])


def test_a_rejected_draft_leaves_nothing_behind():
    """What is masked is multiplied by 0, and 0 * NaN is NaN."""
    q, k, v = rand(B, H, T, D), rand(B, G, T, D), rand(B, G, T, E)
    cache = static()
    cache.append(k[:, :, :4], v[:, :, :4])
    cache.append(k[:, :, :3] * torch.nan, v[:, :, :3] * torch.nan)
    cache.crop(cache.length - 3)
    seen = cache.append(k[:, :, 4:5], v[:, :, 4:5])
    found = ac.attention(q[:, :, 4:5], *seen, cache.mask(1))

    torch.testing.assert_close(found, ac.attention(q, k, v, causal=True)[:, :, 4:5])


def append_nan_and_fail(caches):
    with undo_on_error(caches):
        for cache in caches:
            cache.append(*(m[:, :, :2] * torch.nan for m in (cache._k, cache._v)))
        raise ZeroDivisionError


def test_nor_does_a_failed_call(model):
    caches = model.new_caches(static=True)
    token = torch.zeros(1, 1, dtype=torch.long, device=DEVICE)
    with torch.no_grad():
        expected = model(token, caches)
        for cache in caches:
            cache.reset()
        with pytest.raises(ZeroDivisionError):
            append_nan_and_fail(caches)
        assert torch.equal(model(token, caches), expected)


def test_a_length_that_was_read_stays():
    cache, k, v = static(), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k[:, :, :2], v[:, :, :2])
    start = cache.length
    for n in range(2, 4):
        cache.append(k[:, :, n : n + 1], v[:, :, n : n + 1])
    start += 0  # nor does the cache change with it

    assert (int(start), int(cache.length)) == (2, 4)
    start.zero_()
    assert cache.held == 4


@pytest.mark.parametrize("number", [int, np.int16, np.array, torch.tensor, lambda n: n])
def test_any_single_integer_is_a_length(number):
    cache, k, v = static(), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k, v)
    cache.crop(number(5))
    cache.crop(cache.length - 2)

    assert cache.held == 3


def test_no_tokens_and_windows_without_bound():
    cache, q, k, v = static(), rand(B, H, T, D), rand(B, G, T, D), rand(B, G, T, E)
    seen = cache.append(k[:, :, :0], v[:, :, :0])
    assert ac.attention(q[:, :, :0], *seen, cache.mask(0)).shape == (B, H, 0, E)
    seen = cache.append(k, v)
    whole = ac.attention(q, k, v, causal=True)

    torch.testing.assert_close(ac.attention(q, *seen, cache.mask(T, window=2**64)), whole)
    assert cache.append(k[:, :, :0], v[:, :, :0])[0] is seen[0]
    assert cache.held == T


def test_a_full_cache_tells_so_through_a_window_too():
    cache, q, k, v = static(), rand(B, H, 1, D), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k, v)
    for n in range(T + 1, T + 9):
        seen = cache.append(k[:, :, :1], v[:, :, :1])
        found = ac.attention(q, *seen, cache.mask(1, window=2))
        assert bool(found.isnan().all()) == (n > C)


@pytest.mark.parametrize(
    "how",
    [
        lambda cache: cache.copy(),
        copy.copy,
        copy.deepcopy,
        lambda cache: pickle.loads(pickle.dumps(cache)),  # noqa: S301
    ],
    ids=["copy()", "copy.copy", "deepcopy", "pickle"],
)
def test_a_copy_is_a_cache_of_its_own(how):
    cache, k, v = static(), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k[:, :, :3], v[:, :, :3])
    other = how(cache)
    cache.append(-k[:, :, 3:], -v[:, :, 3:])

    assert other.held == 3
    assert torch.equal(other.append(k[:, :, 3:], v[:, :, 3:])[0][:, :, :T], k)
    assert type(other) is ac.StaticKVCache
    assert torch.equal(cache._k[:, :, 3:T], -k[:, :, 3:])


def test_beams_are_reordered_without_moving_and_requests_dropped():
    cache, k, v = static(), rand(B, G, T, D), rand(B, G, T, E)
    cache.append(k, v)
    addresses = [m.data_ptr() for m in (cache._k, cache._v, cache._length)]
    cache.select(torch.tensor([1, 0], device=DEVICE))

    assert addresses == [m.data_ptr() for m in (cache._k, cache._v, cache._length)]
    assert torch.equal(cache._v[:, :, :T], v[[1, 0]])
    cache.select([0])
    assert torch.equal(cache.append(k[:1, :, :1], v[:1, :, :1])[0][:, :, :T], k[1:])
    assert (cache.held, cache.nbytes) == (T + 1, static().nbytes // B)


def test_beams_go_on_in_a_compiled_step(model):
    """Reordered in place, the caches need no new step, and the step sees the new order."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    prompt = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]], device=DEVICE)
    caches = model.new_caches(2, static=True)
    with torch.no_grad():
        model(prompt, caches)
        for cache in caches:
            cache.select([1, 0])
        for n, read in enumerate(([[1], [2]], [[4], [0]])):
            read = torch.tensor(read, device=DEVICE)
            prompt = torch.cat([prompt if n else prompt.flip(0), read], dim=1)
            torch.testing.assert_close(compiled(read, caches)[:, -1], model(prompt)[:, -1])
            if n == 0:
                for cache in caches:
                    cache.select([0, 0])
                prompt = prompt[[0, 0]]

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_failed_call_leaves_all_caches_as_they_were(model):
    caches = model.new_caches(static=True)
    caches[1] = ac.StaticKVCache(1, 2, 16, 2, like=rand(1))
    with torch.no_grad(), pytest.raises(ValueError, match=r"k must be \(B, G, n, D\)"):
        model(torch.zeros(1, 2, dtype=torch.long, device=DEVICE), caches)

    assert [int(cache.length) for cache in caches] == [0, 0]


def test_keys_alone_are_kept_in_a_compiled_step():
    """One row for each token, and both are read from it, as MLA does."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    cache, q, k = static(value_dim=0), rand(B, H, T, D), rand(B, G, T, D)

    @torch.compile(fullgraph=True, backend="eager")
    def step(q, k):
        k, _ = cache.append(k)
        return ac.attention(q, k, k[..., :3], cache.mask(1))

    outs = [step(q[:, :, t : t + 1], k[:, :, t : t + 1]) for t in range(T)]
    whole = ac.attention(q, k, k[..., :3], causal=True)
    torch.testing.assert_close(torch.cat(outs, dim=2), whole)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert cache.nbytes == B * G * C * D * k.element_size()


def test_its_size_is_told():
    assert repr(static()).startswith("StaticKVCache(batch=2, kv_heads=3, slots=13, head_dim=5, val")
    assert static().nbytes == B * G * C * (D + E) * rand(1).element_size()
    assert static().slots == C


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: ac.StaticKVCache(1, 1, 3, 4, like=np.zeros(1)), TypeError,
         r"like must be a torch tensor, got ndarray"),
        (lambda m: ac.StaticKVCache(1, 1, 3, 4, like=torch.zeros(1).int()), TypeError,
         r"like must be floating point, got int32"),
        (lambda m: static().select([B]), ValueError, r"rows must lie in 0 to B - 1 = 1, got \[2\]"),
        (lambda m: static().crop(torch.tensor(1.0)), TypeError, r"length must be an integer, got"),
        (lambda m: static().append(rand(B, G, 1, D)), TypeError,
         r"v is missing: this cache keeps values of width 7; for keys alone make it with value_d"),
        (lambda m: static(capacity=0), ValueError, r"capacity must be at least 1, got 0"),
        (lambda m: static().append(rand(B, G, 1, D), rand(B, G, 1, D)), ValueError,
         rf"v must be \(B, G, n, E\) = \({B}, {G}, n, {E}\)"),
        (lambda m: static().append(rand(B, G, C + 1, D), rand(B, G, C + 1, E)), ValueError,
         r"cache full: it has 13 slots, cannot append 14"),
        (lambda m: static().append(rand(B, G, 1, D).requires_grad_(), rand(B, G, 1, E)),
         ValueError, r"k needs a gradient, which a cache cannot pass on"),
        (lambda m: static().mask(C + 1), ValueError, r"n \(14\) must be at most the capacity \(13"),
        (lambda m: static().mask(1, window=0), ValueError, r"window must be at least 1"),
        (lambda m: static().crop(1), ValueError, r"cannot crop to 1: the cache has 0 tokens"),
        (lambda m: static().crop(1.0), TypeError, r"length must be an integer, got float"),
        (lambda m: m(torch.zeros(1, 1, dtype=torch.long, device=DEVICE),
                     m.new_caches(capacity=17, static=True)), ValueError,
         r"caches of 17 slots, but the model has 16 positions"),
        (lambda m: m(torch.zeros(1, 1, dtype=torch.long, device=DEVICE),
                     [*m.new_caches()[:1], *m.new_caches(static=True)[1:]]), ValueError,
         r"each layer needs its own cache, all static or none"),
        (lambda m: m(torch.zeros(1, 1, dtype=torch.long, device=DEVICE),
                     m.new_caches(static=True)[:1] * 2), ValueError,
         r"each layer needs its own cache, all static or none"),
    ],
)  # fmt: skip
def test_the_error_says_what_is_wrong(model, call, kind, message):
    with pytest.raises(kind, match=message):
        call(model)
