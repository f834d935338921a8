"""How the benchmarks measure: interleaved medians, peak memory, and the machine's own limits.

All of it is bounded in time: what a slow machine cannot do often is done less often, and what it
cannot do at all is left out, with the reason.
"""

from __future__ import annotations

import platform
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter as clock

import torch

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LONGEST = 60.0  # seconds that the rounds of one case may take
SLOWEST = 16  # times as long as float32: a dtype that takes more has no units of its own


def first_calls(runs: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Call each once, to warm up; take out of `runs` what cannot run here, and return why.

    The first of them is what the others are compared with: it must run.
    """
    left_out = {}
    for n, (name, call) in enumerate(list(runs.items())):
        try:
            call()
        except RuntimeError as error:  # torch's own kinds are kinds of this one
            if n == 0:
                raise
            left_out[name] = reason(error)
            del runs[name]
    return left_out


def reason(error: RuntimeError) -> str:
    """Return one line for an error of torch's, which may have a hundred."""
    text = str(error).strip() or type(error).__name__
    if "C++ compiler" in text or "C compiler" in text:  # of torch's compiler, or of Triton's
        return "it is compiled, and this machine has no C++ compiler"
    return text.splitlines()[0]


def medians(
    runs: dict[str, Callable[[], object]], device: torch.device, seconds: float
) -> dict[str, float]:
    """Return the median milliseconds of each; see :func:`rounds`."""
    times = rounds(runs, device, seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def rounds(
    runs: dict[str, Callable[[], object]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """Return the milliseconds of each, run in turns, so that a busy moment hits all.

    They are warm: :func:`first_calls` has called them. At least 9 rounds, and at most 200, until
    `seconds` are spent; but no round begins that would end after `LONGEST`, so on a slow machine
    there may be only one. Each round has another order: what comes after a call that fills the
    caches is slower.
    """
    order, chance = list(runs.items()), random.Random(0)  # noqa: S311 (no secret)
    times: dict[str, list[float]] = {name: [] for name in runs}
    begin = clock()
    for turn in range(200):
        spent = clock() - begin
        if turn and (spent + spent / turn > LONGEST or (turn >= 9 and spent > seconds)):
            break
        chance.shuffle(order)
        for name, call in order:
            wait(device)
            start = clock()
            call()
            wait(device)
            times[name].append(1e3 * (clock() - start))
    return times


def peak_megabytes(call: Callable[[], object], device: torch.device) -> float | None:
    """Return how much more memory there was in use at the highest point of a call.

    On the CPU only Linux tells: from the size of the process, so small arrays do not show.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if not REFS.exists():
        return None
    REFS.write_text("5")  # the peak starts anew
    before = _kilobytes("VmRSS")
    call()
    return max(0, _kilobytes("VmHWM") - before) / 1e3


def _kilobytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def wait(device: torch.device) -> None:
    """Wait for the GPU, if one is used: it works on its own after a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> str:
    """Return the name of the processor or the card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def product(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """Return a call that multiplies two square matrices."""
    a = torch.randn(size, size, device=device).to(dtype)
    return lambda: a @ a


def without_units(device: torch.device) -> dict[str, str]:
    """Return the dtypes that this machine cannot multiply, or not at a useful speed, and why.

    Found with small matrices, for without such units a large product takes 20 seconds or more.
    The fastest call of one core counts: other work on the machine only ever makes one slower, and
    cores that wait for each other hide what they can do.
    """
    runs = {name: product(256, dtype, device) for name, dtype in DTYPES.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = first_calls(runs)
        fastest = {name: min(times) for name, times in rounds(runs, device, 0.5).items()}
    finally:
        torch.set_num_threads(threads)
    for name, time_ms in fastest.items():
        if (slower := time_ms / fastest["float32"]) > SLOWEST:
            found[name] = f"this machine has no units for it: {slower:.0f} times float32's time"
    return found


def limits(device: torch.device, dtypes: dict[str, torch.dtype]) -> dict[str, float]:
    """Return what the machine can do at best: matrix products, and reading memory.

    Matrix products in GFLOP/s, of each dtype; reading in GB/s, of 42 MB (a small model's
    weights) and, from main memory, of 1 GB. Matrices grow as long as the machine is fast enough.
    """
    found = {}
    for name, dtype in dtypes.items():
        for size in (256, 512, 1024, 2048):
            time_ms = alone(product(size, dtype, device), device)
            found[f"{name} GFLOP/s"] = 2 * size**3 / time_ms / 1e6
            if 8 * time_ms > 1e3:  # the next would take more than a second
                break
    for megabytes in (42, 1000):
        numbers = torch.ones(megabytes * 250_000, device=device)
        found[f"read {megabytes} MB, GB/s"] = megabytes / alone(numbers.sum, device)
    return found


def alone(call: Callable[[], object], device: torch.device) -> float:
    """Return the median milliseconds of one call, in a second of them."""
    runs = {"": call}
    first_calls(runs)
    return medians(runs, device, 1.0)[""]
