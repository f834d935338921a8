"""Ranks start, talk, and end; attention shared over them equals attention on one process."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import linear

import attncore as ac
from attncore.nn import Block, MultiHeadAttention
from attncore.parallel import bytes_sent, exchange, launch, run, shift, spread, total

SOURCE = Path(ac.__file__).resolve().parent.parent
F64 = torch.float64
ME = os.getpid()


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def learn(*tensors):
    """Return copies that gradients flow to."""
    return [x.detach().clone().requires_grad_() for x in tensors]


def gap(found, wanted):
    """Return the largest difference, NaN counting as infinite."""
    assert found.shape == wanted.shape
    return (found - wanted).abs().nan_to_num(torch.inf).max().item()


# What is left behind.


def processes():
    """Return each living process's parent and command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(folder.name)] = int(parent), words
    return found


def below(pid):
    """Return the processes that a process has started, and that these have, and so on."""
    found, more = set(), {pid}
    known = processes()
    while more:
        more = {child for child, (parent, _) in known.items() if parent in more}
        found |= more
    return found


def ranks_alive():
    """Return the children of our fork server, and the programs that ranks have started."""
    known = processes()
    ours = {n for n, (parent, words) in known.items() if parent == ME and "forkserver" in words}
    return [n for n, (parent, words) in known.items() if parent in ours or f"sleep\0{ME}" in words]


def folders():
    return [*Path(tempfile.gettempdir()).glob(f"attncore-{ME}-*")]


def surrounding():
    """Return the environment variables, but for those that pytest and torch's imports set."""
    others = ("PYTEST_", "TORCHINDUCTOR_")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


@pytest.fixture(autouse=True)
def nothing_is_left():
    environment, main = surrounding(), sys.modules["__main__"]
    yield
    assert ranks_alive() == []
    assert folders() == []
    assert surrounding() == environment
    assert sys.modules["__main__"] is main


# Starting and ending.


def in_turn():
    rank = dist.get_rank()
    time.sleep((2 - rank) / 20)
    print("rank", rank, "of", dist.get_world_size(), end="\n" if rank < 2 else "")
    warnings.warn(f"a warning of {rank}", stacklevel=1)
    os.system("echo what a program prints is not shown")  # noqa: S605
    return rank * 10


def test_results_and_prints_come_in_the_order_of_ranks(capfd):
    assert run(in_turn, ranks=3) == [0, 10, 20]

    printed = capfd.readouterr()
    assert printed.out == "rank 0 of 3\nrank 1 of 3\nrank 2 of 3"
    found = [line.rpartition(" ")[2] for line in printed.err.splitlines() if ": a warning" in line]
    assert "UserWarning: a warning of 0" in printed.err
    assert found == ["0", "1", "2"]
    assert "echo" not in printed.err


def surroundings(name):
    return (
        torch.get_num_threads(),
        os.environ.get(name),
        sys.modules["__main__"].__dict__.get("run"),
    )


def test_a_rank_has_one_thread_and_the_environment_of_the_moment(monkeypatch):
    for value in ("1", "2"):
        monkeypatch.setenv("ATTNCORE_TEST", value)

        assert run(surroundings, "ATTNCORE_TEST", ranks=2) == [(1, value, None)] * 2


@pytest.mark.parametrize("way", [partial, lambda f, *a: lambda: f(*a)], ids=["partial", "closure"])
def test_what_is_no_plain_function_can_be_called(way):
    x = torch.arange(3.0)

    assert [y.tolist() for y in run(way(torch.add, x, 1), ranks=2)] == [[1.0, 2.0, 3.0]] * 2


def test_arguments_are_copies():
    x = torch.zeros(2)

    assert [y.tolist() for y in run(torch.Tensor.add_, x, 1, ranks=2)] == [[1.0, 1.0]] * 2
    assert x.tolist() == [0.0, 0.0]


def fails(how, which):
    print("rank", dist.get_rank(), "is here")
    dist.barrier()
    if dist.get_rank() == which:
        how()
    total(torch.ones(1))


def raises():
    raise ValueError("shapes do not fit")


def leaves_a_program(seconds):
    subprocess.Popen(["sleep", str(seconds)])
    raises()


def crashes():
    os.kill(os.getpid(), signal.SIGSEGV)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def aborts():
    os.write(2, b"the last words\n")
    os.abort()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            raises,
            'raised ValueError: shapes do not fit\n(.|\n)*raise ValueError("shapes do not fit',
        ),
        (partial(leaves_a_program, ME), "raised ValueError: shapes do not fit"),
        (partial(sys.exit, 3), "raised SystemExit: 3"),
        (partial(os._exit, 7), "ended with exit code 7 before it returned"),
        (crashes, "was killed by SIGSEGV before it returned"),
        (is_killed, "was killed by SIGKILL, as the system does when memory runs out"),
        (aborts, "was killed by SIGABRT before it returned\nthe last words"),
    ],
    ids=["raises", "leaves a program", "exits", "ends", "crashes", "is killed", "aborts"],
)
def test_a_rank_that_fails_is_named_at_once(how, message, capsys):
    before = time.monotonic()
    message = message.replace("(", r"\(").replace(r"\(.|", "(.|")
    with pytest.raises(RuntimeError, match=rf"^rank 1 {message}"):
        run(fails, how, 1, ranks=3)

    assert time.monotonic() - before < 20  # and not the 60 seconds after which all are ended
    assert capsys.readouterr().out == "".join(f"rank {rank} is here\n" for rank in range(3))


def waits_for_nothing():
    if dist.get_rank() == 1:
        dist.recv(torch.empty(1), 0)


def spins():
    while True:
        pass


@pytest.mark.parametrize(
    ("function", "named", "lines"),
    [
        (waits_for_nothing, "rank 1", ["in waits_for_nothing: dist.recv(torch.empty(1), 0)"]),
        (partial(fails, spins, 1), "ranks 0, 1", ["in fails: total(", "in spins: "]),
        (partial(time.sleep, 60), "ranks 0, 1", ["rank 0: ", "rank 1: "]),
    ],
    ids=["waits", "works", "sleeps"],
)
def test_ranks_that_do_not_return_are_named_with_the_line_where_they_are(function, named, lines):
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=f"^{named} had not returned after 2 s; ") as caught:
        run(function, ranks=2, timeout=2)

    assert time.monotonic() - before < 20
    for words, line in zip(lines, str(caught.value).splitlines()[1:], strict=True):
        assert words in line


def asks_for_another_thing():
    return total(torch.ones(2 + 2 * dist.get_rank()))


def test_torch_compares_what_ranks_ask_for_if_told_to(monkeypatch):
    monkeypatch.setenv("TORCH_DISTRIBUTED_DEBUG", "DETAIL")

    with pytest.raises(RuntimeError, match=r"mismatch between collectives on ranks\. Rank"):
        run(asks_for_another_thing, ranks=2, timeout=20)


def returns_a_lock():
    return threading.Lock()


def runs_in_a_rank():
    return run(dist.get_rank, ranks=2)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((3,), {}, TypeError, "function must be callable, got int"),
        ((raises,), {"ranks": 0}, ValueError, "ranks must be at least 1, got 0"),
        ((raises,), {"ranks": 65}, ValueError, "ranks must be at most 64, all on this machine, "),
        ((raises,), {"ranks": 2.0}, TypeError, "ranks must be an integer, got float"),
        ((raises,), {"timeout": 0}, ValueError, "timeout must be positive and finite, got 0"),
        ((raises,), {"timeout": 1e9}, ValueError, "timeout must be at most 86400 s, got 10"),
        ((raises,), {"device": "tpu"}, ValueError, "device must be one of cpu, cuda, got 'tpu'"),
        (
            (print, threading.Lock()),
            {},
            TypeError,
            "the function or an argument cannot be sent to another process: .*lock.*; open files, ",
        ),
        (
            (returns_a_lock,),
            {},
            RuntimeError,
            r"rank 0 raised TypeError: what the function returned cannot be sent to another proc",
        ),
        ((runs_in_a_rank,), {}, RuntimeError, "rank 0 raised RuntimeError: this process is a rank"),
        (
            (shift, torch.tensor(True)),
            {},
            RuntimeError,
            "rank 0 raised TypeError: x must hold real",
        ),
    ],
)
def test_wrong_calls_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        run(*arguments, **{"ranks": 1} | options)


def test_each_rank_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)

    with pytest.raises(ValueError, match="each rank needs a GPU: ranks = 2, torch sees 1; use 'c"):
        run(raises, ranks=2, device="cuda")


def test_a_module_that_ranks_cannot_import_is_named_with_what_to_do(monkeypatch):
    module = types.ModuleType("made_up")
    exec("def f(): return 1", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "made_up", module)

    with pytest.raises(RuntimeError, match=r"'made_up'\n *Add the folder of that module to sys.p"):
        run(module.f, ranks=1)


def test_many_launches_leave_nothing():
    """The fixture looks for processes and files."""
    run(dist.get_rank, ranks=1)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(12):
        assert run(dist.get_rank, ranks=4) == [0, 1, 2, 3]

    assert len(os.listdir("/proc/self/fd")) == before
    assert multiprocessing.active_children() == []


def test_where_there_is_no_fork_server_ranks_start_too(monkeypatch):
    monkeypatch.setattr(launch, "METHOD", "spawn")

    assert run(dist.get_rank, ranks=2, timeout=120) == [0, 1]


# In a script, and in a notebook.

MADE_BY_HAND = """
import dataclasses, os, time
import torch, torch.distributed as dist
from attncore.parallel import run, total

class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient

class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.map = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.map(x)

@dataclasses.dataclass
class Found:
    rank: int
    numbers: list

offset = 3

def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)

def counted(n):
    def down(i):
        return 0 if i == 0 else 1 + down(i - 1)
    return down

def job(layer, down, y=2, *, z=4):
    x = torch.ones(2, requires_grad=True)
    total(Twice.apply(x)).sum().backward()
    layer(x).sum().backward()
    numbers = [factorial(5), down(3), offset + y + z, (lambda a: a + offset)(1)]
    return Found(dist.get_rank(), numbers + layer.map.bias.grad.tolist())

found = run(job, Layer(), counted(3), ranks=2)
assert found == [Found(rank, [120, 3, 9, 4, 1.0, 1.0]) for rank in range(2)], found
print("the script runs once", flush=True)
"""


HANGS = """
import subprocess

def hangs(number):
    subprocess.Popen(["sleep", "987"])
    open(f"started {number} {dist.get_rank()}", "w").close()
    dist.recv(torch.empty(1), 1 - dist.get_rank())

for number in (1, 2):
    try:
        run(hangs, number, ranks=2)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def soon(wanted):
    until = time.monotonic() + 60
    while not wanted() and time.monotonic() < until:
        time.sleep(0.05)
    assert wanted()


def test_a_script_needs_no_guard_and_its_ranks_end_with_it(monkeypatch):
    with tempfile.TemporaryDirectory() as name:  # tmp_path is too long a name for a socket
        folder = Path(name)
        (folder / "script.py").write_text(MADE_BY_HAND + HANGS)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), *sys.path]))
        monkeypatch.setenv("TMPDIR", name)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # Tests that a shell runs in its background ignore Ctrl-C, and would hand that on.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=name,
            start_new_session=True,
            preexec_fn=heed,
            **pipes,
        )
        for number, end in (1, signal.SIGINT), (2, signal.SIGKILL):
            soon(lambda number=number: len([*folder.glob(f"started {number} *")]) == 2)
            started = below(process.pid)
            programs = [
                n for n, (_, words) in processes().items() if n in started and "987" in words
            ]
            os.killpg(process.pid, end)  # as a terminal does, and Jupyter
            soon(lambda programs=programs: not processes().keys() & set(programs))
            assert len(programs) == 2
        out, err = process.communicate(timeout=60)

        assert (out, err) == ("the script runs once\ninterrupted\n", "")
        assert len(started) >= 6  # the fork server, what watches it, two ranks, two programs
        soon(lambda: not processes().keys() & started)
        soon(lambda: [*folder.glob("attncore-*")] == [])


CELLS = [
    MADE_BY_HAND,
    """
def broken(x):
    if dist.get_rank() == 1:
        raise ValueError("shapes do not fit")
    dist.barrier()

try:
    run(broken, 1, ranks=3)
except RuntimeError as error:
    told = str(error)
assert told.startswith("rank 1 raised ValueError: shapes do not fit"), told
assert told.count('raise ValueError("shapes do not fit")') == 1, told  # the line of the cell
print(told.splitlines()[0])
""",
    """
def waits():
    dist.recv(torch.empty(1), 1 - dist.get_rank())

try:
    run(waits, ranks=2, timeout=2)
except TimeoutError as error:
    assert str(error).count("in waits: dist.recv(torch.empty(1)") == 2, error
""",
    "run(lambda: print('rank', dist.get_rank()), ranks=3)",
]


def test_a_notebook(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), *sys.path]))
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    book = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()

    printed = [["".join(o.get("text", "")) for o in cell.outputs] for cell in book.cells]
    assert printed[0] == ["the script runs once\n"]
    assert printed[1] == ["rank 1 raised ValueError: shapes do not fit\n"]
    assert printed[3][0] == "rank 0\nrank 1\nrank 2\n"


# What ranks send each other.


def there_and_back(operations, xs, weights):
    """Return what each gives this rank, and the gradient of a weighted sum of it."""
    found = []
    for operation, each in zip(operations, weights, strict=True):
        (x,) = learn(xs[dist.get_rank()])
        y = operation(x)
        (y * each[dist.get_rank()]).sum().backward()
        found.append((y.detach(), x.grad))
    return found


N = 3
EACH = draw(N, 2, 6, 9)  # a tensor for each rank


def shifted(by):
    return lambda xs: torch.stack([xs[(n - by) % N] for n in range(N)])


def exchanged(split, join):
    def all_of(xs):
        cut = [x.tensor_split(N, split) for x in xs]
        return torch.stack([torch.cat([pieces[n] for pieces in cut], join) for n in range(N)])

    return all_of


OPERATIONS = [
    (shift, shifted(1)),
    (partial(shift, by=-1), shifted(-1)),
    (partial(shift, by=2), shifted(2)),
    (partial(shift, by=N), shifted(0)),
    (partial(exchange, split=1, join=0), exchanged(1, 0)),
    (partial(exchange, split=-1, join=1), exchanged(2, 1)),
    (partial(exchange, split=2, join=2), exchanged(2, 2)),
    # Each rank goes on in its own way, so gradients are added up, too.
    (lambda x: spread(total(x)), lambda xs: xs.sum(0).expand(xs.shape)),
]


def test_what_arrives_and_its_gradient():
    wanted, weights = [], []
    for _, on_one in OPERATIONS:
        (x,) = learn(EACH)
        y = on_one(x)
        weights.append(draw(*y.shape, seed=1))
        (y * weights[-1]).sum().backward()
        wanted.append((y.detach(), x.grad))
    found = run(there_and_back, [operation for operation, _ in OPERATIONS], EACH, weights, ranks=N)

    for rank in range(N):
        for tensors, on_one in zip(found[rank], wanted, strict=True):
            assert max(gap(a, b[rank]) for a, b in zip(tensors, on_one, strict=True)) < 1e-14


def test_spread_hands_on_and_adds_up_gradients():
    axes, wanted, weights = (None, 1, -1), [], []
    for axis in axes:
        (x,) = learn(EACH[0])
        parts = [x] * N if axis is None else x.tensor_split(N, axis)
        weights.append(draw(N, *parts[0].shape, seed=1))
        (torch.stack(list(parts)) * weights[-1]).sum().backward()
        wanted.append((parts, x.grad))
    same = EACH[:1].expand(EACH.shape)
    found = run(there_and_back, [partial(spread, axis=a) for a in axes], same, weights, ranks=N)

    for rank in range(N):
        for (y, gradient), (parts, whole_gradient) in zip(found[rank], wanted, strict=True):
            assert gap(y, parts[rank]) == 0
            assert gap(gradient, whole_gradient) < 1e-14


def test_the_gradient_of_a_total_passes_as_it_is():
    weights = draw(1, 2, 6, 9, seed=1).expand(EACH.shape)  # the same loss on every rank

    for ((y, gradient),) in run(there_and_back, [total], EACH, [weights], ranks=N):
        assert gap(y, EACH.sum(0)) < 1e-14
        assert gap(gradient, weights[0]) == 0


def unusual():
    """Views, transposed, negated and empty tensors, and gradients that are expanded."""
    x = torch.arange(8.0).reshape(4, 2)
    y = x.T.clone().requires_grad_()
    shift(y.T).sum().backward()
    negated = (x + 0j).conj().imag - 0
    return (
        shift(x.T)[1].tolist(),
        total((x + 1j * x).conj().imag)[1].tolist(),
        exchange(x.T, 1, 0).shape,
        total(negated).shape,
        [f(x[:0]).shape for f in (shift, total, partial(spread, axis=0))],
        total(torch.arange(2, dtype=torch.uint8)).dtype,
        y.grad.unique().tolist(),
    )


def test_tensors_may_lie_in_memory_as_they_like():
    row, imaginary, cut, _, empty, kind, ones = run(unusual, ranks=2)[0]

    assert row == [1.0, 3.0, 5.0, 7.0]
    assert imaginary == [-4.0, -6.0]
    assert (cut, empty, kind, ones) == ((4, 2), [(0, 2)] * 3, torch.uint8, [1.0])


REFUSED = [
    (partial(shift, [1.0]), "x must be a torch tensor, got list; use torch.as_tensor(x)"),
    (partial(total, torch.ones(2) > 0), "x must hold real numbers, got bool"),
    (partial(total, torch.ones(2).short()), "which Gloo does not add up; use x.to(torch.int64)"),
    (partial(shift, torch.ones(2, device="meta")), "x is on meta, a device that holds shapes but"),
    (partial(shift, torch.ones(2), by=1.0), "by must be an integer, got float"),
    (
        partial(exchange, torch.ones(4, 5), split=1, join=0),
        "split = 1 of x (4, 5) must be a multiple of the number of ranks, 2, for equal parts",
    ),
    (partial(exchange, torch.ones(4, 5), 0, 2), "join = 2 is no axis of x (4, 5), which has 2"),
    (partial(spread, torch.ones(3), axis=0), "axis = 0 of x (3,) must be a multiple of"),
    (partial(spread, torch.ones(()), axis=0), "axis = 0 is no axis of x (), which has 0"),
]


def said(calls):
    found = []
    for call in calls:
        try:
            found.append(str(call()))
        except (TypeError, ValueError) as error:
            found.append(str(error))
    return found


def test_what_cannot_be_sent_is_refused_in_a_sentence():
    for found in run(said, [call for call, _ in REFUSED], ranks=2):
        for sentence, (_, message) in zip(found, REFUSED, strict=True):
            assert message in sentence


@pytest.mark.parametrize(
    "call",
    [
        partial(shift, torch.ones(2)),
        partial(exchange, torch.ones(2), 0, 0),
        partial(total, torch.ones(2)),
        partial(spread, torch.ones(2)),
        bytes_sent,
    ],
)
def test_outside_of_a_rank_it_is_said_where_to_call(call):
    with pytest.raises(RuntimeError, match=r"is for ranks: call it in a function that attncore\.p"):
        call()


COSTS = [
    (total, lambda n, size: 2 * (n - 1) * size // n),
    (shift, lambda n, size: size),
    (partial(exchange, split=0, join=0), lambda n, size: (n - 1) * size // n),
    (spread, lambda n, size: 0),
]


def counts(operations, x):
    found = []
    for operation in operations:
        operation(x)  # ranks get to know each other
        before = bytes_sent()
        operation(x)
        found.append(bytes_sent() - before)
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_bytes_counted_are_those_of_the_formula(ranks):
    x = draw(4000)
    for found in run(counts, [operation for operation, _ in COSTS], x, ranks=ranks):
        for count, (_, formula) in zip(found, COSTS, strict=True):
            more = count - formula(ranks, x.nbytes)

            assert 0 <= more < 0.1 * x.nbytes
            assert more % 48 == 0  # what Gloo puts before each message


def open_files():
    found = []
    for _ in range(3):
        bytes_sent()
        found.append(len(os.listdir("/proc/self/fd")))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_counting_leaves_no_file_open():
    (found,) = run(open_files, ranks=1)

    assert len(set(found)) == 1, found


def count_elsewhere():
    sys.platform = "darwin"
    return bytes_sent()


def test_where_nobody_counts_bytes_none_is_returned():
    assert run(count_elsewhere, ranks=1) == [None]


# Attention shared, against attention on one process.

B, H, G, T, D = 2, 8, 4, 16, 4
RANKS = 4


def qkv():
    return draw(B, H, T, D), draw(B, G, T, D, seed=1), draw(B, G, T, D, seed=2)


def whole(q, k, v, upstream):
    """Return causal attention on one process, and its gradients."""
    q, k, v = learn(q, k, v)
    out = ac.attention(q, k, v, causal=True)
    out.backward(upstream)
    return [out.detach(), q.grad, k.grad, v.grad]


def places(rank, zigzag):
    """Return which tokens a rank holds: one stretch, or one from the front and one from behind."""
    if not zigzag:
        return torch.arange(T).chunk(RANKS)[rank]
    parts = torch.arange(T).chunk(2 * RANKS)
    return torch.cat([parts[rank], parts[-1 - rank]])


def ring(q, k, v, upstream, zigzag):
    rank = dist.get_rank()
    mine = places(rank, zigzag)
    q, k, v = learn(*(x[..., mine, :] for x in (q, k, v)))
    pairs, out, lse, held = 0, None, None, torch.stack([k, v])
    for step in range(RANKS):
        mask = places((rank - step) % RANKS, zigzag) <= mine[:, None]
        pairs += int(mask.sum())
        more = ac.attention(q, *held, mask, return_lse=True)
        out, lse = more if out is None else ac.merge((out, more[0]), (lse, more[1]))
        if step < RANKS - 1:
            held = shift(held)
    out.backward(upstream[..., mine, :])
    return mine, pairs, [out.detach(), q.grad, k.grad, v.grad]


@pytest.mark.parametrize("zigzag", [False, True])
def test_a_ring_with_a_running_merge_is_attention(zigzag):
    upstream = draw(B, H, T, D, seed=3)
    wanted = whole(*qkv(), upstream)
    found = run(ring, *qkv(), upstream, zigzag, ranks=RANKS)

    for mine, _, tensors in found:
        for tensor, all_tokens in zip(tensors, wanted, strict=True):
            assert gap(tensor, all_tokens[..., mine, :]) < 1e-12
    pairs = [pairs for _, pairs, _ in found]
    assert sum(pairs) == T * (T + 1) // 2
    assert pairs == ([34] * 4 if zigzag else [10, 26, 42, 58])


def heads_for_tokens(q, k, v, upstream):
    """Ulysses: each rank holds some tokens of all heads, and attends with some heads of all."""
    q, k, v = learn(*(spread(x, axis=-2) for x in (q, k, v)))
    out = ac.attention(*(exchange(x, split=1, join=2) for x in (q, k, v)), causal=True)
    out = exchange(out, split=2, join=1)
    out.backward(spread(upstream, axis=-2))
    return [out.detach(), q.grad, k.grad, v.grad]


def test_heads_exchanged_for_tokens_are_attention():
    upstream = draw(B, H, T, D, seed=3)
    wanted = whole(*qkv(), upstream)
    found = run(heads_for_tokens, *qkv(), upstream, ranks=RANKS)

    for together, tensor in zip(
        map(torch.cat, zip(*found, strict=True), [-2] * 4), wanted, strict=True
    ):
        assert gap(together, tensor) < 1e-12


class Maps(torch.nn.Module):
    """Attention with a map each for queries, keys and values, as torch's own plans want it."""

    def __init__(self):
        super().__init__()
        for name in ("query", "key", "value", "out"):
            setattr(self, name, torch.nn.Linear(H * D, H * D, bias=False, dtype=F64))

    def forward(self, x):
        q, k, v = (
            each(x).unflatten(-1, (-1, D)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        return self.out(ac.attention(q, k, v, causal=True).transpose(1, 2).flatten(2))


def by_torch(layer, x):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plan = dict.fromkeys(["query", "key", "value"], ColwiseParallel()) | {"out": RowwiseParallel()}
    return parallelize_module(layer, mesh, plan)(x)


def test_what_torch_itself_shares_comes_back_when_it_has_arrived():
    """Else each rank's own part of the sum would be returned: nobody has waited for it."""
    torch.manual_seed(0)
    layer, x = Maps(), draw(B, T, H * D)

    for found in run(by_torch, layer, x, ranks=RANKS):
        assert type(found) is torch.Tensor
        assert gap(found.detach(), layer(x).detach()) < 1e-12


def some_heads(state, x, upstream):
    """Tensor parallel: each rank has the maps of some heads."""
    x, in_proj, out_proj = learn(x, *state)
    maps = [spread(part, 0) for part in in_proj.split([H * D, G * D, G * D])]
    same = spread(x)  # without it, outputs are right and the gradient of x is not
    q, k, v = (linear(same, each).unflatten(-1, (-1, D)).transpose(1, 2) for each in maps)
    heads = ac.attention(q, k, v, causal=True).transpose(1, 2).flatten(2)
    y = total(linear(heads, spread(out_proj, axis=1)))
    y.backward(upstream)
    return [y.detach(), x.grad, in_proj.grad, out_proj.grad]


def test_heads_on_different_ranks_are_the_layer():
    torch.manual_seed(0)
    layer = MultiHeadAttention(H * D, H, G, bias=False, dtype=F64)
    (x,) = learn(draw(B, T, H * D))
    y, upstream = layer(x, causal=True), draw(B, T, H * D, seed=1)
    y.backward(upstream)
    maps = [layer.in_proj_weight, layer.out_proj.weight]
    wanted = [y.detach(), x.grad, *(each.grad for each in maps)]

    state = [each.detach() for each in maps]
    for found in run(some_heads, state, x.detach(), upstream, ranks=RANKS):
        assert max(map(gap, found, wanted)) < 1e-12


def train(model, x, target, steps=3):
    """Train on this rank's share of each batch, or, without ranks, on all of it."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    x, target = (spread(a, axis=0) if ranks > 1 else a for a in (x, target))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        ((model(x, causal=True) - target) ** 2).mean().backward()
        for parameter in model.parameters() if ranks > 1 else ():
            parameter.grad = total(parameter.grad) / ranks
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def test_steps_on_shares_of_a_batch_are_steps_on_all_of_it():
    torch.manual_seed(0)
    model = Block(8, 2).double()
    x, target = draw(8, 5, 8), draw(8, 5, 8, seed=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    found = run(train, model, x, target, ranks=RANKS)  # each rank trains a copy
    wanted = train(model, x, target)

    assert max(map(gap, before, wanted)) > 0.01
    for parameters in found:
        assert max(map(gap, parameters, wanted)) < 1e-12


def split_keys(q, k, v):
    """Each rank holds some tokens of the cache; all ranks get the merged output."""
    out, lse = ac.attention(q, spread(k, axis=-2), spread(v, axis=-2), return_lse=True)
    share = (lse - spread(total(lse.exp())).log()).exp()
    return total(share[..., None] * out)


def test_a_cache_on_different_ranks_is_read_as_one():
    q, k, v = qkv()
    q = q[..., -1:, :]
    wanted = ac.attention(q, k, v)

    for found in run(split_keys, q, k, v, ranks=RANKS):
        assert gap(found, wanted) < 1e-12
