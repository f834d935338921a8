"""Time attncore.attention against its peers: medians of interleaved runs, as ratios.

    python benchmarks/attention.py [--repeats 15]

Peers: torch's scaled_dot_product_attention called directly, and the formula written out in
torch. A ratio below 1 means that attncore is faster. Peers take turns within one run, so
that a busy moment hits them alike.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

import attncore as ac

HEADS, WIDTH = 8, 64


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Return attention by the formula, as most tutorials write it."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        scores = scores.masked_fill(~ac.masks.causal(q.shape[-2], like=q), -math.inf)
    return torch.softmax(scores, dim=-1) @ v


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each, run in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, call in runs.items():
            synchronise()
            start = time.perf_counter()
            call()
            synchronise()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def synchronise() -> None:
    """Wait for the GPU, if one is used."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each")
    repeats = parser.parse_args().repeats
    device = ac.pick_device()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{card}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"batch 1, {HEADS} heads of {WIDTH}; ratios of medians of {repeats} runs")
    print(f"{'dtype':9}{'causal':8}{'T':>6}{'ms':>10}{'/ torch fused':>16}{'/ written out':>16}")
    for dtype in (torch.float32, torch.bfloat16):
        for causal in (False, True):
            for length in (16, 512, 2048):
                shape = (1, HEADS, length, WIDTH)
                q, k, v = torch.randn(3, *shape, device=device, dtype=dtype).unbind()
                with torch.inference_mode():
                    found = medians(
                        {
                            "ours": lambda: ac.attention(q, k, v, causal=causal),  # noqa: B023
                            "fused": lambda: sdpa(q, k, v, is_causal=causal),  # noqa: B023
                            "written": lambda: written_out(q, k, v, causal),  # noqa: B023
                        },
                        repeats,
                    )
                ours = found["ours"]
                print(
                    f"{str(dtype).removeprefix('torch.'):9}{causal!s:8}{length:6}{1e3 * ours:10.3f}"
                    f"{ours / found['fused']:16.2f}{ours / found['written']:16.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
