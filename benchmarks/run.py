"""Measure attncore against its peers, print a table, and keep the figures as data.

    python benchmarks/run.py [--device cuda] [--seconds 2] [--name my-machine]

Every case is run in turns with its peers, so that a busy moment hits all alike; what counts
are the ratios. The figures go to src/attncore/data/speeds/NAME.json, where
`attncore.data.speeds(NAME)` finds them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path

import attention
import decoding
import layers
import torch
from timing import limits, machine, medians, peak_megabytes
from tqdm import tqdm

import attncore as ac

SPEEDS = Path(__file__).resolve().parent.parent / "src/attncore/data/speeds"
GROUPS = {"attention": attention.cases, "layer": layers.cases, "decoding": decoding.cases}


def measure(device: torch.device, seconds: float) -> list[dict[str, object]]:
    """Return one row for each case."""
    rows = []
    with torch.no_grad(), tqdm(unit="case", file=sys.stderr) as progress:
        for group, cases in GROUPS.items():
            for case, runs in cases(device):
                progress.set_description(f"{group}: {case}")
                times = medians(runs, device, seconds)
                peaks = {name: peak_megabytes(call, device) for name, call in runs.items()}
                rows.append({"group": group, "case": case, "ms": times, "peak_mb": peaks})
                progress.update()
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Return the figures as Markdown: our time, and how many times that of a peer it is."""
    lines = ["| | case | ours, ms | ours / peer |", "|---|---|---|---|"]
    for row in rows:
        times = row["ms"]
        ours = times["ours"]
        ratios = ", ".join(f"{ours / t:.2f} {n}" for n, t in times.items() if n != "ours")
        lines.append(f"| {row['group']} | {row['case']} | {ours:.3g} | {ratios} |")
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
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    found = {
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "attncore": ac.__version__,
        "date": datetime.date.today().isoformat(),
        "limits": limits(device),
        "rows": measure(device, options.seconds),
        "weights_mb": decoding.weight_bytes(decoding.models(device)[0]) / 1e6,
    }
    print(f"{found['machine']}, {found['threads']} threads, torch {found['torch']}")
    print(", ".join(f"{name} {value:.3g}" for name, value in found["limits"].items()))
    print(table(found["rows"]))
    times = next(r for r in found["rows"] if "batch 1" in r["case"])["ms"]
    for name in ("ours", "ours, compiled"):
        step, share = times[name] / decoding.STEPS, times["reading the weights"] / times[name]
        print(f"{name}: a step of {step:.3g} ms, {share:.0%} of what reading weights allows")
    name = options.name or "-".join(found["machine"].lower().replace("(r)", "").split())
    SPEEDS.mkdir(exist_ok=True)
    path = SPEEDS / f"{name.replace('/', '-').replace('@', '')}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
