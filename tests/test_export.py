"""Exported, compiled and traced programs are run at other sizes than they were made at."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

import attncore as ac
from attncore import masks, positions, sampling
from attncore.nn import Block, Decoder, MultiHeadAttention, Translator, VisionTransformer

FIRST = (3, 7)  # batch and length that a program is made at
# Fewer, more, and across the borders of the blocks: 64 rows, 128 and 256 queries.
OTHERS = ((2, 4), (5, 12), (2, 150), (2, 513))


class Of(nn.Module):
    """A function of `called`, as the module that torch.export wants."""

    def __init__(self, function, called=None):
        super().__init__()
        self.function, self.called = function, called

    def forward(self, *inputs):
        return self.function(*inputs) if self.called is None else self.function(self.called, inputs)


class Case(NamedTuple):
    module: nn.Module
    shapes: tuple  # of each input, "B" and "T" (or "T+3") left open
    make: tuple = ()  # how inputs are made, where not by randn


def function(f, *shapes, make=()):
    return Case(Of(f), shapes, make)


def layer(module, call, *shapes, make=()):
    return Case(Of(call, module.eval()), shapes, make)


def lengths(generator, B, T):
    return torch.randint(0, T + 1, (B,), generator=generator)


def ends_of_two(generator, B, T):
    """Where two documents of T tokens in all begin and end."""
    return torch.cat([torch.zeros(1, dtype=int), lengths(generator, 1, T), torch.tensor([T])])


def some(generator, *shape):
    return torch.rand(shape, generator=generator) < 0.7


def shares(generator, *shape):
    return torch.rand(shape, generator=generator)


def letters(generator, *shape):
    return torch.randint(0, 4, shape, generator=generator)


ROWS = ("B", 4, "T", 8)
SELF = (ROWS, ROWS, ROWS)
LONGER = (ROWS, ("B", 4, "T+3", 8), ("B", 4, "T+3", 8))
SHORTER = (("B", 4, "T+3", 8), ROWS, ROWS)
GROUPED = (ROWS, ("B", 2, "T", 8), ("B", 2, "T", 6))
BATCH = (ROWS, ROWS, ROWS, ("B", "T"))
X = ("B", "T", 32)
IMAGES = ("B", 8, 8, 1)


def options(shapes, **chosen):
    return function(lambda q, k, v: ac.attention(q, k, v, **chosen), *shapes)


def with_sinks(f, shapes, **chosen):
    return function(lambda q, k, v, sinks: f(q, k, v, sinks=sinks, **chosen), *shapes, (4,))


def weights(q, k, v, **chosen):
    return ac.attention_weights(q, k, softcap=2.0, **chosen)


def of_lengths(f):
    return function(f, *BATCH, make=(None, None, None, lengths))


def size(f):
    return function(lambda q: f(q.shape[-2], q), ROWS)


def cases():
    torch.manual_seed(0)
    for name, shapes in (("self", SELF), ("longer", LONGER), ("shorter", SHORTER)):
        for chosen in (
            {},
            {"causal": True},
            {"window": 5},
            {"window": 300},
            {"window": 5, "backend": "reference"},
        ):
            words = " ".join(f"{key}={value}" for key, value in chosen.items())
            yield f"attention {name} {words}", options(shapes, **chosen)
    yield "attention grouped causal", options(GROUPED, causal=True)
    yield "attention grouped window", options(GROUPED, window=5, scale=0.3)
    for chosen in ({}, {"causal": True}, {"window": 5}):
        yield f"attention softcap {chosen}", options(LONGER, softcap=2.0, **chosen)
        yield f"attention return_lse {chosen}", options(LONGER, return_lse=True, **chosen)
        yield f"attention sinks {chosen}", with_sinks(ac.attention, LONGER, **chosen)
        yield f"streaming sinks {chosen}", with_sinks(ac.streaming_attention, LONGER, **chosen)
        yield f"attention_weights sinks {chosen}", with_sinks(weights, LONGER, **chosen)
        yield (
            f"packed {chosen}",
            function(
                lambda q, k, v, ends, o=chosen: ac.packed_attention(q, k, v, ends, **o),
                *SELF,
                ("B", "T"),
                make=(None, None, None, ends_of_two),
            ),
        )
    yield (
        "merge",
        function(lambda out, lse: ac.merge([out, out + 1], [lse, 2 * lse]), ROWS, ("B", 4, "T")),
    )
    yield (
        "attention mask and causal",
        function(
            lambda q, k, v, mask: ac.attention(q, k, v, mask, causal=True),
            *SELF,
            ("B", 1, 1, "T"),
            make=(None, None, None, some),
        ),
    )
    yield (
        "attention alibi",
        function(
            lambda q, k, v: ac.attention(
                q, k, v, window=5, bias=positions.alibi(4, q.shape[2], k.shape[2], like=q)
            ),
            *LONGER,
        ),
    )
    yield (
        "attention patterns",
        function(
            lambda q, k, v: ac.attention(
                q,
                k,
                v,
                masks.symmetric_window(q.shape[2], size=5, like=q)
                | masks.global_tokens(q.shape[2], tokens=[0, 2], like=q),
            ),
            *SELF,
        ),
    )
    for chosen in ({}, {"causal": True}, {"window": 5}):
        yield (
            f"attention lengths {chosen}",
            of_lengths(lambda q, k, v, n, o=chosen: ac.attention(q, k, v, lengths=n, **o)),
        )
        yield (
            f"attention_weights {chosen}",
            function(lambda q, k, o=chosen: ac.attention_weights(q, k, **o), *LONGER[:2]),
        )
        yield (
            f"streaming {chosen}",
            function(lambda q, k, v, o=chosen: ac.streaming_attention(q, k, v, **o), *LONGER),
        )
    yield (
        "attention_weights lengths",
        of_lengths(lambda q, k, v, n: ac.attention_weights(q, k, lengths=n)),
    )
    for causal in (False, True):
        yield (
            f"linear causal={causal}",
            function(lambda q, k, v, c=causal: ac.linear_attention(q, k, v, causal=c), *GROUPED),
        )
        yield (
            f"sparse causal={causal}",
            function(
                lambda q, k, v, c=causal: ac.sparse_attention(
                    q, k, v, window=5, global_tokens=[0], causal=c
                ),
                *GROUPED,
            ),
        )
    yield "masks.causal", size(lambda T, q: masks.causal(T, T + 2, window=2, like=q))
    yield "masks.window", size(lambda T, q: masks.window(T, size=2**70, like=q))
    yield (
        "masks.combine",
        of_lengths(
            lambda q, k, v, n: masks.combine(
                masks.padding(n, k.shape[2]), masks.causal(q.shape[2], like=q)
            )
        ),
    )
    yield "distances", size(lambda T, q: positions.distances(T, T + 2, like=q))
    yield "t5_bucket", size(lambda T, q: positions.t5_bucket(positions.distances(T, like=q)))
    yield "sinusoidal", size(lambda T, q: positions.sinusoidal(torch.arange(T), 8))
    for pairing in positions.PAIRINGS:
        yield (
            f"rope {pairing}",
            size(lambda T, q, p=pairing: positions.rope(q, torch.arange(T), pairing=p)),
        )
    speeds = positions.rope_speeds(6, kind="llama3", factor=4.0, length=16)[0].tolist()
    part = {"rope_dim": 6, "gain": 1.5}
    yield (
        "rope at given speeds",
        size(lambda T, q: positions.rope(q, torch.arange(T), speeds=speeds, **part)),
    )
    yield (
        "rope_speeds",
        size(
            lambda T, q: positions.rope(
                q,
                torch.arange(T),
                speeds=positions.rope_speeds(8, kind="yarn", factor=4.0, length=99, like=q)[0],
            )
        ),
    )
    yield "masks.padding", of_lengths(lambda q, k, v, n: masks.padding(n, k.shape[2], left=True))
    yield (
        "xl_bias",
        function(
            lambda q, k: positions.xl_bias(
                q,
                k,
                positions.sinusoidal(torch.arange(k.shape[2] - 1, -q.shape[2], -1), 8).float(),
                torch.ones(8),
                torch.ones(4, 8),
            ),
            *LONGER[:2],
        ),
    )
    yield (
        "softmax",
        function(
            lambda scores, mask: ac.softmax(scores, mask, temperature=0.5, axis=-2),
            ROWS,
            ROWS,
            make=(None, some),
        ),
    )
    for chosen in ({"temperature": 0}, {"temperature": 0.5, "top_k": 3, "top_p": 0.7}):
        yield (
            f"probabilities {chosen}",
            function(lambda z, o=chosen: sampling.probabilities(z, **o), ("B", "T")),
        )
    yield "draw", function(sampling.draw, ("B", "T"), ("B",), make=(shares, shares))
    whole, cross = MultiHeadAttention(32, 4, 2, rope="half"), MultiHeadAttention(32, 4)
    yield "layer", layer(whole, lambda m, x: m(*x, causal=True), X)
    yield "layer window", layer(whole, lambda m, x: m(*x, window=5), X)
    yield (
        "layer lengths",
        layer(whole, lambda m, x: m(x[0], lengths=x[1]), X, ("B", "T"), make=(None, lengths)),
    )
    yield "layer weights", layer(whole, lambda m, x: m.weights(*x, causal=True), X)
    turned = MultiHeadAttention(
        32, 4, 2, rope="half", rope_dim=6, rope_speeds=speeds, qk_norm=True, scale="learned"
    )
    yield (
        "layer positions",
        layer(
            turned,
            lambda m, x: m(x[0], causal=True, positions=x[1]),
            X,
            ("B", "T"),
            make=(None, letters),
        ),
    )
    yield "layer with weights", layer(turned, lambda m, x: m(*x, causal=True, need_weights=True), X)
    yield "layer cross", layer(cross, lambda m, x: m(*x), X, ("B", "T+3", 32))
    yield "Block", layer(Block(32, 4), lambda m, x: m(*x, causal=True), X)
    yield (
        "Block cross",
        layer(Block(32, 4, cross=True), lambda m, x: m(*x, causal=True), X, ("B", "T+3", 32)),
    )
    model = Decoder("abcd", d_model=16, layers=2, heads=4, kv_heads=2, context=600)
    yield "Decoder", layer(model, lambda m, x: m(*x), ("B", "T"), make=(letters,))
    own = {"rope": "half", "norm": "rms", "network": "swiglu", "tied": False}
    modern = Decoder("abcd", d_model=16, layers=2, heads=4, kv_heads=2, context=600, **own)
    yield "Decoder with rope", layer(modern, lambda m, x: m(*x), ("B", "T"), make=(letters,))
    yield (
        "Decoder padded before",
        layer(
            modern,
            lambda m, x: m(x[0], left_padding=x[1]),
            ("B", "T"),
            ("B",),
            make=(letters, letters),
        ),
    )
    images = VisionTransformer((8, 8, 1), 10, size=2, d_model=16, layers=2, heads=4)
    yield (
        "VisionTransformer",
        layer(images, lambda m, x: m(*x), IMAGES, ("B", 16), make=(None, some)),
    )
    yield "VisionTransformer weights", layer(images, lambda m, x: m.weights(*x), IMAGES)
    spells = Translator([("abcd", "abc" * 200)])  # its sources are texts, and so fixed
    yield (
        "Translator",
        layer(
            spells,
            lambda m, x: m(["ab", "abcd"], *x),
            (2, "T"),
            make=(letters,),
        ),
    )


CASES = dict(cases())
# The warnings are true in general: a trace settles what `if` asks of a size. Here `if` asks only
# what would be refused, as these tests show by running it at other sizes.
quiet = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning",
    "ignore:`torch.jit.trace.*` is deprecated",
)
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def inputs(case, B, T):
    generator = torch.Generator().manual_seed(B * T)
    sizes = {"B": B, "T": T, "T+3": T + 3}
    made = []
    for n, shape in enumerate(case.shapes):
        make = (case.make[n] if n < len(case.make) else None) or _normal
        made.append(make(generator, *(sizes.get(size, size) for size in shape)))
    return tuple(made)


def _normal(generator, *shape):
    return torch.randn(shape, generator=generator)


def dynamic(case):
    return tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in map(open_axes, case.shapes, case.make + (None,) * len(case.shapes))
    )


def open_axes(shape, make):
    if make is ends_of_two:
        return (3,)
    return ("B",) if make is lengths else shape


def check(case, program, sizes=OTHERS):
    for B, T in sizes:
        given = inputs(case, B, T)
        with torch.no_grad():
            torch.testing.assert_close(program(*given), case.module(*given))


@each
def test_an_exported_program_runs_at_other_sizes(case):
    shapes = (dynamic(case),)
    exported = torch.export.export(
        case.module, inputs(case, *FIRST), dynamic_shapes=shapes, strict=False
    )
    check(case, exported.module())


@quiet
@each
def test_a_traced_program_runs_at_other_sizes(case):
    with torch.no_grad():
        traced = torch.jit.trace(case.module, inputs(case, *FIRST), check_trace=False)
    check(case, traced)


@each
def test_it_compiles_whole_with_lengths_left_open(case):
    torch.compiler.reset()
    compiled = torch.compile(case.module, fullgraph=True, backend="eager", dynamic=True)
    check(case, compiled, (FIRST, OTHERS[-1]))


@pytest.mark.skipif(torch.__version__ < (2, 9), reason="torch 2.8 cannot ask what is known")
@pytest.mark.parametrize("name", ["attention self window=5", "streaming {'causal': True}"])
def test_more_blocks_do_not_compile_anew(name):
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(CASES[name].module, fullgraph=True, backend=counter, dynamic=True)
    check(CASES[name], compiled, [(2, T) for T in (150, 300, 600, 900)])
    assert counter.frame_count == 1


@quiet
@pytest.mark.parametrize("chosen", [{"causal": True}, {"window": 300}, {"window": 5}], ids=str)
def test_a_trace_of_equal_lengths_is_right_for_others(chosen):
    case = options(LONGER, **chosen)
    traced = torch.jit.trace(case.module, inputs(options(SELF), *FIRST), check_trace=False)
    check(case, traced)


PATIENT = {
    "lengths must lie in 0 to Tk": CASES["attention lengths {}"],
    "there is NaN or infinity": CASES["probabilities {'temperature': 0}"],
    "probabilities must be at least 0": CASES["draw"],
}


@pytest.mark.parametrize("message", PATIENT)
def test_what_tensors_hold_is_checked_when_the_program_runs(message):
    case = PATIENT[message]
    options = {"dynamic_shapes": (dynamic(case),), "strict": False}
    exported = torch.export.export(case.module, inputs(case, *FIRST), **options).module()
    torch.compiler.reset()
    compiled = torch.compile(case.module, fullgraph=True, backend="eager", dynamic=True)
    given = list(inputs(case, 2, 8))
    n = 3 if len(given) == 4 else 0
    for wrong in (9, -1) if n else (torch.nan,):
        given[n] = given[n].clone()
        given[n][0] = wrong
        for program in (exported, compiled):
            with pytest.raises(RuntimeError, match=message):
                program(*given)


@quiet
@pytest.mark.parametrize(
    "case",
    [
        size(lambda T, q: masks.random_keys(T, count=2, like=q)),
        function(lambda q, k, v: ac.sparse_attention(q, k, v, window=3, random_keys=1), *SELF),
    ],
    ids=["mask", "sparse"],
)
def test_random_keys_must_be_drawn_before(case):
    given = inputs(case, *FIRST)
    reason = "random keys are drawn by NumPy.*hand it in as an input"
    shapes = (dynamic(case),)
    with pytest.raises(ValueError, match=reason):
        torch.export.export(case.module, given, dynamic_shapes=shapes, strict=False)
    with pytest.raises(ValueError, match=reason):
        torch.jit.trace(case.module, given)
    torch.compiler.reset()
    # The compiler wraps it; old ones leave the sentence out.
    shown = reason if torch.__version__ >= (2, 9) else "Observed exception"
    with pytest.raises(Exception, match=shown):
        torch.compile(case.module, fullgraph=True, backend="eager")(*given)
