"""The benchmarks compare like with like, and README.md shows what they found."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import attention as attention_cases
import decoding
import layers
import live
import pytest
import report
import run
import serving
import timing
import torch
from playwright.sync_api import Error
from tqdm import tqdm

import attncore as ac
from attncore.nn import Decoder

CPU = torch.device("cpu")
# torch's own compiler uses it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")


@pytest.mark.parametrize(
    "case",
    [
        lambda: attention_cases.square(CPU, torch.float32, False, 37),
        lambda: attention_cases.square(CPU, torch.float32, True, 37),
        lambda: attention_cases.chunk(CPU, torch.float32, 5, 11),
        lambda: attention_cases.window(CPU, torch.float32, 40, 8),
        lambda: attention_cases.padded(CPU, torch.float32, 3, 8),
        lambda: attention_cases.grouped(CPU, torch.float32),
        lambda: attention_cases.softcap(CPU, torch.float32, 40),
        lambda: attention_cases.sinks(CPU, torch.float32, 40),
        lambda: attention_cases.log_sum_exp(CPU, torch.float32, 40),
        lambda: attention_cases.packed(CPU, torch.float32, 64),
        lambda: layers.latent(CPU, 1, 9),
        lambda: layers.latent(CPU, 7, 0),
    ],
    ids=[
        "square", "causal", "chunk", "window", "padded", "grouped", "softcap", "sinks", "halves",
        "packed", "latent decode", "latent prompt",
    ],
)  # fmt: skip
def test_peers_of_attention_compute_the_same(case, monkeypatch):
    if not shutil.which(os.environ.get("CXX", "g++")):  # torch's interpreter does the same sums
        compile_with = torch.compile
        monkeypatch.setattr(torch, "compile", lambda f: compile_with(f, backend="aot_eager"))
    _, runs = case()
    left_out = timing.first_calls(runs)  # FlexAttention has no log-sum-exp on a CPU
    assert set(left_out) <= {"FlexAttention"}
    ours = runs.pop("ours")()
    same = [name for name in runs if not name.endswith(("no window", "no mask", "no extra"))]

    assert same
    for name in same:
        found = runs[name]()
        if isinstance(found, list):  # of blocks
            found = torch.cat(found, dim=2)
        torch.testing.assert_close(found, ours, rtol=1e-4, atol=1e-5, msg=name)


def test_peers_of_dropout_drop_as_many():
    _, runs = attention_cases.dropout(CPU, torch.float32, 64)
    means = {name: torch.stack([call() for _ in range(200)]).mean(0) for name, call in runs.items()}

    for name, mean in means.items():
        torch.testing.assert_close(mean, means["ours"], rtol=0, atol=0.3, msg=name)
    assert len(means) == 3


def test_cases_in_16_bits_have_another_name():
    names = [attention_cases.grouped(CPU, t)[0] for t in (torch.float32, torch.bfloat16)]

    assert names == [
        "decode, 8 heads on 2, 4096 keys",
        "decode, 8 heads on 2, 4096 keys, bfloat16",
    ]


def test_each_of_torchs_kernels_is_a_peer_where_it_can_be_used(monkeypatch):
    q, k, v = torch.randn(3, 1, 2, 5, 16)
    assert attention_cases.each_of_torchs(q, k, v, causal=True) == {}  # they are for a GPU

    monkeypatch.setattr(attention_cases.cuda, "can_use_flash_attention", lambda inputs: True)
    calls = attention_cases.each_of_torchs(q, k, v, causal=True)

    assert list(calls) == ["torch's flash_attention"]
    torch.testing.assert_close(
        calls["torch's flash_attention"](), attention_cases.sdpa(q, k, v, is_causal=True)
    )


def test_peers_of_the_layer_compute_the_same():
    peers = layers.make(CPU)

    assert len(peers) == 5
    x = torch.randn(1, 7, layers.WIDTH)
    for name, layer in peers.items():
        torch.testing.assert_close(layer(x), peers["ours"](x), rtol=1e-4, atol=1e-4, msg=name)


def test_peers_of_decoding_generate_the_same():
    ours, theirs = decoding.models(CPU)
    prompt = torch.randint(65, (1, 9))
    tokens = ours.generate(prompt, 5)

    assert torch.equal(ours.generate(prompt, 5, cached=False), tokens)
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [serving.busy, serving.scattered])
def test_peers_of_serving_compute_the_same(make):
    name, runs = serving.case(make, 16, CPU, 128)
    ours = runs.pop("ours")()

    assert name == f"8 sequences, {make.__name__}, blocks of 16"
    assert len(runs) == 3
    for peer, call in runs.items():
        torch.testing.assert_close(call(), ours, rtol=1e-4, atol=1e-5, msg=peer)


def test_a_busy_pool_is_nearly_full_and_its_sequences_lie_in_rows():
    busy, scattered = (make(16, CPU, 256) for make in (serving.busy, serving.scattered))
    in_a_row = [
        sum(b == a + 1 for s in named for a, b in itertools.pairwise(pool.table(s)))
        / sum(len(pool.table(s)) - 1 for s in named)
        for pool, named in ((busy, list(busy.lengths)), (scattered, list(scattered.lengths)[-8:]))
    ]

    assert busy.free < 24 * 256 // 16 // 2
    assert len(busy.lengths) >= serving.SEQUENCES
    assert in_a_row[0] > 0.8
    assert in_a_row[1] < 0.6


def test_the_peak_of_memory_is_seen():
    peak = timing.peak_megabytes(lambda: torch.ones(30_000_000).sum(), CPU)

    assert peak is None or 110 < peak < 200  # 120 MB; None where the system does not tell


def test_medians_are_of_every_run():
    calls = []
    runs = {name: (lambda name=name: calls.append(name)) for name in "abcde"}
    assert timing.first_calls(runs) == {}
    found = timing.medians(runs, CPU, 0.0)

    assert list(found) == list("abcde")
    warm_up, *rounds = ["".join(calls[n : n + 5]) for n in range(0, len(calls), 5)]
    assert warm_up == "abcde"
    assert len(rounds) == 9
    assert len(set(rounds)) > 1  # in another order each time
    assert all(sorted(turn) == list("abcde") for turn in rounds)


def test_the_readme_shows_the_figures_that_were_kept():
    text = report.README.read_text("utf-8")

    assert text == report.written(text)
    assert "| decoding:" in text


class Clock:
    """A clock that only moves when work is done."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "clock", clock)
    return clock


@pytest.mark.parametrize(
    ("takes", "rounds"),
    [(0.001, 200), (0.02, 99), (1.0, 9), (7.0, 8), (25.0, 2), (1e4, 1)],
)
def test_a_slow_call_is_repeated_less_often(clock, takes, rounds):
    calls = []
    runs = {"ours": lambda: (calls.append(1), clock.work(takes))}
    found = timing.medians(runs, CPU, 1.97)

    assert len(calls) == rounds
    assert found["ours"] == pytest.approx(1e3 * takes)
    assert clock.now <= max(timing.LONGEST, takes)


@pytest.fixture
def multiply_slowly(clock, monkeypatch):
    """Let products take time on the clock: at so many GFLOP/s for each dtype."""
    speeds, right = {}, torch.Tensor.__matmul__

    def product(a, b):
        clock.work(2e-9 * len(a) ** 3 / speeds[a.dtype])
        return right(a[:1], b[:, :1])

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    return speeds


def test_a_dtype_without_units_is_left_out_with_its_reason(clock, multiply_slowly):
    multiply_slowly |= {torch.float32: 180.0, torch.bfloat16: 0.86}  # 20 s for 2048 x 2048
    threads = torch.get_num_threads()
    found = timing.without_units(CPU)

    assert torch.get_num_threads() == threads
    assert found == {
        "bfloat16": "this machine has no units for it: 209 times float32's time",
    }
    assert clock.now < 2


@pytest.mark.parametrize("speed", [12.0, 180.0, 900.0])
def test_a_dtype_that_is_only_slower_is_measured(clock, multiply_slowly, speed):
    multiply_slowly |= {torch.float32: 180.0, torch.bfloat16: speed}

    assert timing.without_units(CPU) == {}


def test_a_dtype_that_cannot_be_multiplied_is_left_out(monkeypatch):
    right = torch.Tensor.__matmul__

    def product(a, b):
        if a.dtype == torch.bfloat16:
            raise RuntimeError('"addmm" not implemented for this card\nmore')
        return right(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)

    assert timing.without_units(CPU) == {"bfloat16": '"addmm" not implemented for this card'}


def test_products_grow_only_while_the_machine_is_fast_enough(clock, multiply_slowly, monkeypatch):
    multiply_slowly |= {torch.float32: 0.5, torch.bfloat16: 100.0}
    monkeypatch.setattr(torch.Tensor, "sum", lambda numbers: clock.work(0.1))
    found = timing.limits(CPU, {"float32": torch.float32})

    assert found == pytest.approx(
        {"float32 GFLOP/s": 0.5, "read 42 MB, GB/s": 0.42, "read 1000 MB, GB/s": 10.0}
    )
    assert clock.now < 15  # a single product of 2048 x 2048 would take 34


def test_cases_are_of_the_dtypes_they_are_given(monkeypatch):
    monkeypatch.setattr(torch, "randn", torch.empty)  # no call is made
    both = [name for name, _ in attention_cases.cases(CPU, [torch.float32, torch.bfloat16])]
    one = [name for name, _ in attention_cases.cases(CPU, [torch.float32])]

    assert one == [name for name in both if "bfloat16" not in name]
    assert len(both) == len(one) + 10


def fails(text):
    raise NotImplementedError(text)


def test_a_peer_that_cannot_run_here_is_left_out_with_its_reason(capsys):
    runs = {
        "ours": lambda: 1,
        "compiled": lambda: fails("InvalidCxxCompiler: No working C++ compiler found in: g++\n x"),
        "on Triton": lambda: fails("Failed to find C compiler. Please specify via CC"),
        "flash": lambda: fails("not for this card\n\nmore\n"),
        "mute": lambda: fails(""),
        "peer": lambda: 1,
    }
    with tqdm(file=sys.stderr) as progress:
        rows, left_out = run.measure({"g": iter([("case", runs)])}, CPU, 0.0, progress)

    compiled = "it is compiled, and this machine has no C++ compiler"
    assert left_out == {
        "g: case, compiled": compiled,
        "g: case, on Triton": compiled,
        "g: case, flash": "not for this card",
        "g: case, mute": "NotImplementedError",
    }
    assert [list(row["ms"]) for row in rows] == [["ours", "peer"]]
    assert list(rows[0]["peak_mb"]) == ["ours", "peer"]
    assert f"left out: g: case, compiled: {compiled}" in capsys.readouterr().err


def test_ours_must_run():
    with pytest.raises(NotImplementedError, match="broken"):
        timing.first_calls({"ours": lambda: fails("broken"), "peer": lambda: 1})


def test_a_peer_that_writes_other_tokens_is_an_error():
    with pytest.raises(AssertionError, match="peer generates other tokens"):
        timing.first_calls(
            {
                "ours": lambda: 1,
                "peer": lambda: decoding.check("peer", lambda: torch.ones(2), torch.zeros(2)),
            }
        )


ALONE = """
import torch, attention, timing
import attncore.nn
cpu = torch.device("cpu")
torch.manual_seed(0)
name, runs = attention.window(cpu, torch.float32, 40, 8)
print(timing.first_calls(runs), "FlexAttention" in runs)
model = attncore.nn.Decoder("abc", d_model=8, layers=1, heads=2, kv_heads=1, context=9)
prompt = torch.zeros(1, 2, dtype=torch.long)
try:
    model.generate(prompt, 3, compiled=True)
except RuntimeError as error:
    print(error)
print(model.generate(prompt, 3).shape)
"""


def test_without_a_compiler_one_sentence_says_so(tmp_path):
    here = Path(__file__).resolve().parent.parent
    gone = {"CXX", "CC", "PATH", "TORCHINDUCTOR_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        env={name: value for name, value in os.environ.items() if name not in gone}
        | {
            "PATH": str(tmp_path),
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([str(here / "src"), str(here / "benchmarks")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.stdout.splitlines() == [
        "{'FlexAttention': 'it is compiled, and this machine has no C++ compiler'} False",
        "compiled=True needs a C++ compiler, and this machine has none: install one, such as "
        "g++, or leave compiled out",
        "torch.Size([1, 5])",
    ], done.stderr


def test_other_errors_of_a_compiled_step_stay_what_they_are(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **given: lambda *inputs: fails("a shape"))
    model = Decoder("abc", d_model=8, layers=1, heads=2, kv_heads=1, context=9)

    with pytest.raises(NotImplementedError, match=r"^a shape$"):
        model.generate(torch.zeros(1, 2, dtype=torch.long), 3, compiled=True)


def test_progress_shows_before_anything_is_loaded(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit(3)")
    done = subprocess.run(
        [sys.executable, run.__file__],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stderr) == (3, "loading torch and the peers\n")


def test_a_card_that_is_not_there_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run.py", "--device", "cuda"])
    with pytest.raises(SystemExit, match="2"):
        run.main()

    assert "torch finds no CUDA card on this machine" in capsys.readouterr().err


def test_all_that_is_kept_of_a_machine_without_bfloat16(monkeypatch, tmp_path, capsys):
    why = "this machine has no units for it: 209 times float32's time"
    no_compiler = "it is compiled, and this machine has no C++ compiler"
    asked = []
    steps = {"ours": lambda: 1, "ours, compiled": lambda: fails("No working C++ compiler found")}
    named = f"{decoding.STEPS} tokens after {decoding.PROMPT}, batch 1"

    def attention(device, dtypes):
        asked.extend(dtypes)
        return iter([("float32, causal, T = 512", {"ours": lambda: 1, "torch's kernel": int})])

    monkeypatch.setattr(run, "SPEEDS", tmp_path)
    monkeypatch.setattr(run, "without_units", lambda device: {"bfloat16": why})
    monkeypatch.setattr(run, "limits", lambda device, dtypes: {f"{d} GFLOP/s": 9.0 for d in dtypes})
    monkeypatch.setattr(run.attention, "cases", attention)
    monkeypatch.setattr(run.layers, "cases", lambda device: iter([]))
    monkeypatch.setattr(
        run.decoding, "cases", lambda device: iter([(named, steps | {"reading the weights": int})])
    )
    monkeypatch.setattr(sys, "argv", ["run.py", "--seconds", "0", "--name", "abacus"])
    run.main()
    kept = json.loads((tmp_path / "abacus.json").read_text())
    said = capsys.readouterr()

    assert asked == [torch.float32]
    assert kept["limits"] == {"float32 GFLOP/s": 9.0}
    assert kept["left_out"] == {
        "bfloat16": why,
        f"decoding: {named}, ours, compiled": no_compiler,
    }
    assert f"left out: bfloat16: {why}" in said.out
    assert f"left out: bfloat16: {why}" in said.err
    assert "ours: a step of" in said.out
    assert "compiled: a step" not in said.out
    assert kept.keys() == ac.data.speeds("cpu-2-cores").keys()
    table = report.table(kept)
    assert table.count("\n| attention:") == 1
    assert "bfloat16, causal" not in table
    assert f"Left out there: bfloat16 ({why}); decoding: " in table


def test_the_table_is_of_the_machine_that_it_names(monkeypatch):
    kept = ac.data.speeds("cpu-2-cores")
    rows = [row for row in kept["rows"] if "bfloat16" not in row["case"]]
    for row in rows:
        row["ms"].pop("written out", None)
    other = kept | {"machine": "Abacus", "rows": rows}
    monkeypatch.setattr(report, "speeds", {"cpu-2-cores": kept, "abacus": other}.__getitem__)
    text = report.README.read_text("utf-8").replace("speeds: cpu-2-cores", "speeds: abacus")
    shown = report.written(text).split("<!-- speeds")[1].split("<!-- end")[0]

    assert "on Abacus, 2 threads" in shown
    assert kept["machine"] not in shown
    assert shown.count("\n| ") == len(report.SHOWN) + 1 - 2  # a head; bfloat16, written out
    assert "Left out" not in shown


class Page:
    """A page, and its cells, on a machine so loaded that one thing never comes."""

    def __init__(self, never):
        self.never, self.page, self.context, self.closed = never, self, self, 0

    def wait(self, name, answer=None):
        if name == self.never:
            raise Error(f"{name}: Timeout 30000ms exceeded.\nCall log: ...")
        return answer

    def wait_for_load_state(self, state, timeout):
        assert 0 < timeout <= 60_000
        self.wait("rest")

    def on(self, event, call):
        call(self)

    def close(self):
        self.closed += 1

    def run(self, number):
        return self.wait("output", [json.dumps({"whale: a token": 2.5}), 0])

    def edit(self, number, code):
        assert "from attncore.models import whale" in code

    def evaluate(self, script, inputs):
        assert "setTimeout(() => failed(" in script
        assert 0 < inputs[2] <= 60
        return self.wait("figure", 700.0)

    url = "https://elsewhere.org/file"
    wait_for_selector = wait_for_function = lambda self, what: None
    reload = number_with_knob = element_handle = lambda self: self
    cell = lambda self, number: self  # noqa: E731


@pytest.mark.parametrize("never", ["", "rest", "figure", "output"])
def test_live_cells_are_timed_on_a_loaded_machine(never, monkeypatch, capsys):
    page = Page(never)
    monkeypatch.setattr(live, "serving", lambda folder: nullcontext("http://site"))
    monkeypatch.setattr(live, "chromium", lambda: nullcontext(lambda address: page))
    monkeypatch.setattr(live, "megabytes", lambda addresses, site: 1.5)
    live.main()
    said = capsys.readouterr()

    assert page.closed == live.RUNS
    assert "requests to other hosts    1" in said.out
    assert ("left out: 5 of 5 runs" in said.out) == (never in ("figure", "output"))
    assert ("slider to new figure        0.70 s  (of 15, " in said.out) == (never in ("", "rest"))
    assert ("a knob to painted frame      700 ms (of 20, " in said.out) == (never != "figure")
    assert ("a page with NumPy only       1.5 MB" in said.out) == (never != "output")
    assert ("a page with the model        1.5 MB" in said.out) == (never != "output")
    assert ("whale: a token               2.5 ms" in said.out) == (never != "output")
    assert ("still loads after 30 seconds" in said.err) == (never == "rest")
    assert (f"left out: {never}: Timeout" in said.err) == (never in ("figure", "output"))
