"""Start ranks, collect what they return, and leave nothing behind."""

from __future__ import annotations

import contextlib
import linecache
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

from attncore.base.integers import check_least
from attncore.base.settings import check_choice, check_positive
from attncore.parallel.rank import LONGEST, Start, work
from attncore.parallel.sending import packed

MOST = 64
"""More ranks than this on one machine are taken for a mistake."""

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
AHEAD = [
    "attncore.nn",
    "attncore.parallel.rank",
    "torch._dynamo",  # an optimizer imports it
    "torch.fx.experimental.symbolic_shapes",  # a backward pass imports it, and with it sympy
]
"""What the process that ranks are forked from imports, once; without it each rank would."""

GRACE = 0.5
"""Seconds in which a rank that is asked should answer."""

CHATTER = ("[Gloo]", "Extension modules:")
"""How lines begin that libraries and Python write, and that explain nothing."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Set while processes start: forking one that has several threads is not safe."""

_starting = threading.Lock()


def run(
    function: Callable[..., Any],
    *args: Any,
    ranks: int,
    device: str = "cpu",
    timeout: float = 60.0,
) -> list[Any]:
    r"""Call a function in several processes that can talk, and return what each of them returns.

    .. math:: \mathrm{run}(f, a) = [f_0(a), f_1(a), \dots, f_{N-1}(a)]

    All ranks call the same function with copies of the same arguments; what they do differently
    they decide by ``torch.distributed.get_rank()``. What they print, and what they warn of, is
    shown when all have ended, that of rank 0 first.

    It works in a notebook, in a script, which needs no ``if __name__ == "__main__":``, and in
    a test. Functions and classes that were made in a cell or a script travel with the variables
    that they name. Each rank computes with one thread on a CPU, and sees the environment
    variables of the moment. All start with the same random state: seed with the rank for
    different numbers. Tensors come back without the graph behind them.

    Ranks that ask each other for different things wait for ever, or add up what does not belong
    together. With ``os.environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"`` torch compares what they
    ask, and says so; it sends a few bytes more.

    On Linux the first call starts a process that imports torch once, 2 to 4 seconds, and stays
    as long as this one; ranks are forked from it, some tenths of a second. Elsewhere each rank
    imports torch by itself.

    Parameters
    ----------
    function
        What each rank calls.
    args
        What it is called with, in each rank a copy.
    ranks
        How many processes, 64 at most.
    device
        "cpu", where ranks talk by Gloo over the machine's loopback, or "cuda", where rank n has GPU
        n as its current device and they talk by NCCL. The second has not been tried by the
        tests of this package.
    timeout
        After how many seconds, counted from the start of the last rank, all ranks are ended.

    Returns
    -------
    list
        What the ranks returned, in their order.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong or cannot be sent, or there are fewer GPUs than ranks.
    RuntimeError
        If a rank raises an error, which is quoted, or its process ends; the first one is named.
        If this process is a rank itself.
    TimeoutError
        If ranks do not return in time; they are named, with the line at which each of them is.
        Whatever is raised, Ctrl-C included, no rank and no file is left.

    References
    ----------
    The torch documentation, "Distributed communication package" and "torchrun". Python's
    documentation of multiprocessing, "Contexts and start methods".

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> from attncore.parallel import run, total
    >>> def largest_share(x):
    ...     part = x.chunk(dist.get_world_size())[dist.get_rank()]
    ...     print("rank", dist.get_rank(), "has", part.tolist())
    ...     return round((part.sum() / total(part.sum())).item(), 2)
    >>> run(largest_share, torch.tensor([1.0, 2.0, 3.0, 4.0]), ranks=2)
    rank 0 has [1.0, 2.0]
    rank 1 has [3.0, 4.0]
    [0.3, 0.7]
    """
    if not callable(function):
        raise TypeError(f"function must be callable, got {type(function).__name__}")
    ranks = check_least("ranks", ranks, 1)
    if ranks > MOST:
        raise ValueError(f"ranks must be at most {MOST}, all on this machine, got {ranks}")
    check_choice("device", device, ("cpu", "cuda"))
    if device == "cuda" and (gpus := torch.cuda.device_count()) < ranks:
        raise ValueError(f"each rank needs a GPU: ranks = {ranks}, torch sees {gpus}; use 'cpu'")
    timeout = check_positive("timeout", timeout)
    if timeout > LONGEST.total_seconds():
        raise ValueError(f"timeout must be at most {LONGEST.total_seconds():.0f} s, got {timeout}")
    if dist.is_initialized():
        raise RuntimeError("this process is a rank itself: call the function, without run")
    call = packed("the function or an argument", (function, args))
    with tempfile.TemporaryDirectory(prefix=f"attncore-{os.getpid()}-") as folder:
        start = Start(call, ranks, device, folder, dict(os.environ), _cells())
        processes: list[BaseProcess] = []
        pipes: list[Any] = []
        try:
            with _starting, _as_if_alone():
                for rank in range(ranks):
                    _start(rank, start, processes, pipes)
            results = _collect(processes, pipes, folder, timeout)
        finally:
            _end(processes, pipes)
            _show(folder, ranks)
    return [pickle.loads(result) for result in results]  # noqa: S301 (our ranks wrote it)


def _cells() -> dict[str, Any]:
    """Return the sources that no file holds, which are those of a notebook's cells."""
    return {n: entry for n, entry in linecache.cache.items() if len(entry) > 1 and entry[1] is None}


@contextlib.contextmanager
def _as_if_alone() -> Iterator[None]:
    """Let processes start with one thread each, and without running the main script again."""
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in ONE_THREAD}
    sys.modules["__main__"] = ModuleType("__main__")  # one of no file
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(rank: int, start: Start, processes: list[BaseProcess], pipes: list[Any]) -> None:
    """Start a rank, and note the process and our end of its pipe."""
    context: Any = multiprocessing.get_context(METHOD)
    if METHOD == "forkserver":
        context.set_forkserver_preload(AHEAD)
    ours, theirs = context.Pipe()
    pipes.append(ours)
    with theirs:
        process = context.Process(target=work, args=(theirs, rank, start), daemon=True)
        process.start()
        processes.append(process)


def _collect(
    processes: list[BaseProcess], pipes: list[Any], folder: str, timeout: float
) -> list[bytes]:
    """Return what the ranks returned, or raise an error that names one that did not."""
    deadline = time.monotonic() + timeout
    waiting: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(pipes)}
    results, raised = {}, ""
    while waiting:
        ready = wait(list(waiting), max(deadline - time.monotonic(), 0))
        if not ready and not raised:
            raise TimeoutError(_late(waiting, timeout))
        if not ready:
            break
        for rank, pipe in sorted((waiting.pop(pipe), pipe) for pipe in ready):
            kind, *rest = _receive(pipe)
            if kind == "ended":
                raise RuntimeError(_ended(rank, processes[rank], folder))
            if kind == "returned":
                results[rank] = rest[0]
            elif not raised:
                raised = f"rank {rank} raised {rest[0]}\n\n{rest[1]}"
                # The end of another rank may be the cause, and be heard of only now.
                deadline = time.monotonic() + GRACE
    if raised:
        raise RuntimeError(raised)
    return [results[rank] for rank in range(len(pipes))]


def _receive(pipe: Any) -> tuple[Any, ...]:
    """Return what a rank reports: first of all whether it returned, raised, waits, or ended."""
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return ("ended",)


def _late(waiting: dict[Any, int], timeout: float) -> str:
    """Say which ranks have not returned, and where they are."""
    for pipe in waiting:
        with contextlib.suppress(OSError):
            pipe.send("where")
    places, asked = {}, dict(waiting)
    until = time.monotonic() + GRACE
    while asked and (ready := wait(list(asked), max(until - time.monotonic(), 0))):
        for rank, pipe in [(asked.pop(pipe), pipe) for pipe in ready]:
            kind, *rest = _receive(pipe)
            places[rank] = rest[0] if kind == "waits" else f"it {kind} just now"
    ranks = sorted(waiting.values())
    lines = [f"  rank {rank}: {places.get(rank, 'busy in a library')}" for rank in ranks]
    return (
        f"{_named(ranks)} had not returned after {timeout:g} s; if it is no question of time, one "
        "waits for what no other sends. Give more with timeout=, or look where they were:\n"
    ) + "\n".join(lines)


def _named(ranks: list[int]) -> str:
    """Return "rank 2", or "ranks 0, 1, 2"."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _ended(rank: int, process: BaseProcess, folder: str) -> str:
    """Say how a rank ended that did not return, with the last that its libraries wrote."""
    process.join(5)
    code = process.exitcode
    how = f"ended with exit code {code}"
    if code is not None and code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as the system does when memory runs out"
    lines = Path(folder, f"log{rank}").read_text("utf-8", "replace").splitlines()
    words = [line for line in lines if not line.startswith(CHATTER)][-20:]
    return "\n".join([f"rank {rank} {how} before it returned", *words])


def _end(processes: list[BaseProcess], pipes: list[Any]) -> None:
    """End all ranks and what they have started; what they had to say has been heard."""
    for process in processes:
        process.kill()
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid or 0, signal.SIGKILL)
    for process in processes:
        process.join()
        process.close()
    for pipe in pipes:
        pipe.close()


def _show(folder: str, ranks: int) -> None:
    """Print what the ranks printed, in their order."""
    for name in ("stdout", "stderr"):
        for rank in range(ranks):
            file = Path(folder, f"{name}{rank}")
            if file.exists():
                getattr(sys, name).write(file.read_text("utf-8"))
