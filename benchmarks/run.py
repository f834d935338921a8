"""Measure attncore against its peers, print a table, and keep the figures as data.

    python benchmarks/run.py [--device cuda] [--seconds 2] [--name my-machine]

Every case is run in turns with its peers, so that a busy moment hits all alike; what counts
are the ratios. What this machine has no hardware or no compiler for is left out, and said. The
figures go to src/attncore/data/speeds/NAME.json, where `attncore.data.speeds(NAME)` finds them.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports, which take seconds
    print("loading torch and the peers", file=sys.stderr, flush=True)

import argparse
import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import attention
import decoding
import layers
import serving
import torch
from timing import DTYPES, first_calls, limits, machine, medians, peak_megabytes, without_units
from tqdm import tqdm

import attncore as ac

SPEEDS = Path(__file__).resolve().parent.parent / "src/attncore/data/speeds"
Row = dict[str, object]


def measure(
    groups: dict[str, Iterator[attention.Case]],
    device: torch.device,
    seconds: float,
    progress: tqdm,
) -> tuple[list[Row], dict[str, str]]:
    """Return one row for each case, and which peers could not run, and why."""
    rows, left_out = [], {}
    with torch.no_grad():
        for group, cases in groups.items():
            progress.set_description(group)  # the first case takes time to make
            for case, runs in cases:
                progress.set_description(f"{group}: {case}")
                for peer, why in first_calls(runs).items():
                    left_out[f"{group}: {case}, {peer}"] = why
                    progress.write(f"left out: {group}: {case}, {peer}: {why}", sys.stderr)
                times = medians(runs, device, seconds)
                peaks = {name: peak_megabytes(call, device) for name, call in runs.items()}
                rows.append({"group": group, "case": case, "ms": times, "peak_mb": peaks})
                progress.update()
    return rows, left_out


def measured(device: torch.device, seconds: float) -> dict[str, object]:
    """Return all that is kept of one machine."""
    with tqdm(unit="case", file=sys.stderr) as progress:
        progress.set_description("what the machine can do at best")
        slow = without_units(device)
        for name, why in slow.items():
            progress.write(f"left out: {name}: {why}", sys.stderr)
        dtypes = {name: dtype for name, dtype in DTYPES.items() if name not in slow}
        best = limits(device, dtypes)
        groups = {
            "attention": attention.cases(device, list(dtypes.values())),
            "layer": layers.cases(device),
            "decoding": decoding.cases(device),
            "serving": serving.cases(device),
        }
        rows, missing = measure(groups, device, seconds, progress)
    return {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attncore": ac.__version__,
        "date": datetime.date.today().isoformat(),
        "limits": best,
        "left_out": slow | missing,
        "rows": rows,
        "weights_mb": decoding.weight_bytes(decoding.models(device)[0]) / 1e6,
    }


def summary(found: dict[str, object]) -> str:
    """Return the figures as text: our times, and how many times that of a peer each is."""
    lines = [
        f"{found['machine']}, {found['threads']} threads, torch {found['torch']}",
        ", ".join(f"{name} {value:.3g}" for name, value in found["limits"].items()),
        *(f"left out: {name}: {why}" for name, why in found["left_out"].items()),
        "| | case | ours, ms | ours / peer |",
        "|---|---|---|---|",
    ]
    for row in found["rows"]:
        ours = row["ms"]["ours"]
        ratios = ", ".join(f"{ours / t:.2f} {n}" for n, t in row["ms"].items() if n != "ours")
        lines.append(f"| {row['group']} | {row['case']} | {ours:.3g} | {ratios} |")
    times = next((row["ms"] for row in found["rows"] if "batch 1" in row["case"]), {})
    for name in (name for name in ("ours", "ours, compiled") if name in times):
        step, share = times[name] / decoding.STEPS, times["reading the weights"] / times[name]
        lines.append(f"{name}: a step of {step:.3g} ms, {share:.0%} of what reading weights allows")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each case")
    parser.add_argument("--threads", type=int, help="of torch; all cores unless given")
    parser.add_argument("--name", help="of the file; made from the machine's unless given")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no CUDA card on this machine: measure the CPU with `make bench`")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found = measured(device, options.seconds)
    print(summary(found))
    name = options.name or "-".join(found["machine"].lower().replace("(r)", "").split())
    SPEEDS.mkdir(exist_ok=True)
    path = SPEEDS / f"{name.replace('/', '-').replace('@', '')}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
