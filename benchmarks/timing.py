"""How the benchmarks measure: interleaved medians, peak memory, and the machine's own limits."""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from attncore._arrays import dtype_name

STATUS, REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def medians(
    runs: dict[str, Callable[[], object]], device: torch.device, seconds: float
) -> dict[str, float]:
    """Return the median milliseconds of each, run in turns, so that a busy moment hits all.

    One warm-up each; then at least 9 rounds, and at most 200, until `seconds` are spent. Each
    round has another order: what comes after a call that fills the caches is slower.
    """
    order, chance = list(runs.items()), random.Random(0)  # noqa: S311 (no secret)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for call in runs.values():
        call()
    end = time.perf_counter() + seconds
    for turn in range(200):
        if turn >= 9 and time.perf_counter() > end:
            break
        chance.shuffle(order)
        for name, call in order:
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


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


def limits(device: torch.device) -> dict[str, float]:
    """Return what the machine can do at best: matrix products, and reading memory.

    Matrix products in GFLOP/s, float32 and bfloat16; reading in GB/s, of 42 MB (a small
    model's weights) and, from main memory, of 1 GB.
    """
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(2048, 2048, device=device, dtype=dtype)
        time_ms = medians({"": lambda: a @ a}, device, 1.0)[""]  # noqa: B023 (used at once)
        found[f"{dtype_name(a)} GFLOP/s"] = 2 * 2048**3 / time_ms / 1e6
    for megabytes in (42, 1000):
        numbers = torch.ones(megabytes * 250_000, device=device)
        time_ms = medians({"": lambda: numbers.sum()}, device, 1.0)[""]  # noqa: B023
        found[f"read {megabytes} MB, GB/s"] = megabytes / time_ms
    return found
