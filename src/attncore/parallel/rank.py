"""One rank: a process that calls the function, reports what came of it, and waits to be ended."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import linecache
import os
import pickle
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from attncore.parallel.sending import packed

LONGEST = timedelta(days=1)  # the caller has a limit of its own, and knows which rank is late


@dataclass(frozen=True)
class Start:
    """What a rank is told before it starts."""

    call: bytes  # (function, args), packed
    ranks: int
    device: str
    folder: str
    environment: dict[str, str]
    cells: dict[str, Any]  # the source of a notebook's cells, which tracebacks quote


def work(pipe: Any, rank: int, start: Start) -> None:
    """Be rank `rank`: send ("returned", bytes) or ("raised", what, traceback), then wait."""
    if not Path(start.folder).exists():  # the caller has given up meanwhile
        return
    if hasattr(os, "setsid"):
        os.setsid()  # so what this rank starts can be ended with it, and Ctrl-C is the caller's
    _write_to_files(Path(start.folder), rank)
    os.environ.clear()
    os.environ.update(start.environment)
    linecache.cache.update(start.cells)
    lock = threading.Lock()
    threading.Thread(target=_serve, args=(pipe, lock, start.folder), daemon=True).start()
    report: tuple[str, ...] | tuple[str, bytes]
    try:
        _join(rank, start)
        function, args = _read(start.call)
        report = "returned", packed("what the function returned", function(*args))
    except BaseException as error:  # SystemExit, too
        error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        what = "".join(traceback.format_exception_only(error)).strip()
        report = "raised", what, "".join(traceback.format_exception(error))
    with lock:
        pipe.send(report)
    # Had this rank left now, others that still wait for it would raise, and hide the cause.
    threading.Event().wait()


def _write_to_files(folder: Path, rank: int) -> None:
    """Keep apart what is printed, what is warned of, and what libraries in C write."""
    log = (folder / f"log{rank}").open("wb", buffering=0)
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    faulthandler.enable(log, all_threads=False)
    for name in ("stdout", "stderr"):
        file = (folder / f"{name}{rank}").open("wb", buffering=0)  # kept if the rank is killed
        stream = io.TextIOWrapper(file, "utf-8", "backslashreplace", write_through=True)
        setattr(sys, name, stream)


def _join(rank: int, start: Start) -> None:
    """Meet the other ranks: through a file, so no port of the machine is taken."""
    if start.device == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)  # the ranks share the machine's cores
        if sys.platform != "win32":
            os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    dist.set_debug_level_from_env()  # type: ignore[attr-defined] # of the caller, as it is now
    dist.init_process_group(
        "nccl" if start.device == "cuda" else "gloo",
        store=dist.FileStore(str(Path(start.folder) / "store"), start.ranks),  # type: ignore[attr-defined]
        rank=rank,
        world_size=start.ranks,
        timeout=LONGEST,
    )


def _read(call: bytes) -> tuple[Any, ...]:
    """Return the function and its arguments."""
    try:
        return pickle.loads(call)  # noqa: S301 (the caller wrote it)
    except ModuleNotFoundError as error:
        error.add_note(
            "Add the folder of that module to sys.path, or have its functions sent by value: "
            "cloudpickle.register_pickle_by_value(module)"
        )
        raise


def _serve(pipe: Any, lock: threading.Lock, folder: str) -> None:
    """Tell the caller where this rank is, when asked; end this rank if the caller is gone."""
    with contextlib.suppress(EOFError, OSError):
        while pipe.recv() == "where":
            with lock:
                pipe.send(("waits", _where()))
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(0, signal.SIGKILL) if hasattr(os, "killpg") else os._exit(1)


def _where() -> str:
    """Return the line at which the function is, and not the one inside torch that it called."""
    frames = traceback.extract_stack(sys._current_frames()[threading.main_thread().ident or 0])
    own = max(i for i, frame in enumerate(frames) if frame.filename == __file__) + 1
    inner = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    called = [frame for frame in frames[own:] if not frame.filename.startswith(inner)]
    frame = (called or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"
