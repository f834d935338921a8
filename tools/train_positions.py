"""Train the chapter on positions' small models, keep seven of them, and measure seventy.

    python tools/train_positions.py           about five minutes on one CPU core

There is one model for each way to tell attention where tokens stand, and one for none. The model
and its task are those on the chapter's page, whose cells are run here. Each is trained from ten
random starts, on texts of 32 words.

`trained/positions.npz` has the models of the first start at six steps of their 300, with 4
significant bits for each number, which makes the file a third smaller; the shares of right answers
differ by less than 0.01.

`kept/positions.json` has what all of them answer right, on texts of 32 to 128 words, on 128 with a
window of 32 and on 128 "crowded" onto 32 positions; and, of the RoPE models on texts of 128 words,
with the speeds of each kind, untouched, on texts of 32 with the same speeds, and after 30 more
steps of training on texts of 128.

The files are this script's result on one machine. Elsewhere rounding differs, and with it every
bit; the shares should come out about the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kept_models
import kept_runs
import numpy as np
import torch
from myst_nb.core.read import read_myst_markdown_notebook

from attncore.positions import rope_speeds

PAGE = Path(__file__).resolve().parent.parent / "book/ch09_positions.md"
KINDS = ("none", "learned", "sinusoidal", "ALiBi", "T5", "Transformer-XL", "RoPE")
STEPS = (50, 100, 150, 200, 250, 300)
BITS = 4
STARTS, LENGTHS = 10, (32, 48, 64, 96, 128)
SHORT, LONG = 32, 128
FACTOR = {"factor": LONG / SHORT}
SPEEDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "linear": FACTOR,
    "ntk": FACTOR,
    "yarn": {**FACTOR, "length": SHORT, "low": 1, "high": 4, "gain": 1.0},
}
Parameters = dict[str, np.ndarray]


def page() -> dict[str, Any]:
    """Return the names that the page's cells define up to the shares of right answers."""
    names: dict[str, Any] = {}
    notebook = read_myst_markdown_notebook(PAGE.read_text("utf-8"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)  # noqa: S102 (our own page)
            if "right" in names:
                return names
    raise ValueError(f"{PAGE.name} has no cell that defines right")


def start(names: dict[str, Any], seed: int) -> Parameters:
    """Return the parameters before training."""
    d, words, H, D = (names[name] for name in ("d", "vocabulary", "H", "D"))
    sizes = {
        "word": (words, d),
        "mark": (2, d),
        "row": (SHORT, d),
        "maps": (d, 3 * H * D),
        "out": (H * D, 2 * words),
        "table": (H, 16),
        "r_map": (d, H * D),
        "u": (H, D),
        "w": (H, D),
    }
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=size) for name, size in sizes.items()}
    rows = ("word", "mark", "row")
    return {name: a if name in rows else 0.12 * a for name, a in drawn.items()}


def train(
    names: dict[str, Any],
    kind: str,
    first: Parameters,
    seeds: range,
    T: int = SHORT,
    rate: float = 0.01,
    **turning: Any,
) -> Iterator[Parameters]:
    """Yield the parameters after each step, one for each seed of a batch."""
    p = {name: torch.tensor(a).float().requires_grad_() for name, a in first.items()}
    optimizer = torch.optim.Adam(p.values(), rate)
    loss = torch.nn.functional.cross_entropy
    for seed in seeds:
        words, marks, y = map(torch.from_numpy, names["batch"](T, seed))
        found = names["answers"](kind, p, words, marks, torch.arange(T), **turning)
        loss(found[:, 3:].flatten(0, 2), y[:, 3:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield {name: a.detach().numpy().copy() for name, a in p.items()}


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers with :data:`BITS` significant bits."""
    fraction, exponent = np.frexp(numbers)
    return np.ldexp(np.round(fraction * 2**BITS) / 2**BITS, exponent)


def measured(names: dict[str, Any], kind: str, p: Parameters) -> dict[str, list[Any]]:
    """Return the shares of right answers to both questions, by length, windowed and crowded."""

    def right(t: np.ndarray, **options: Any) -> list[float]:
        return [round(float(share), 4) for share in names["right"](kind, p, t, **options)]

    t = np.arange(LONG)
    lengths = LENGTHS[:1] if kind == "learned" else LENGTHS
    found: dict[str, list[Any]] = {"shares": [right(t[:T]) for T in lengths]}
    if kind != "learned":
        found["window"] = right(t, W=SHORT)
    return found | {"crowded": right((t - (LONG - SHORT)).clip(0))}


def stretched(names: dict[str, Any], p: Parameters, seeds: range) -> dict[str, list[list[float]]]:
    """Return for each kind of speeds the shares of a RoPE model: untouched, short, and trained."""
    found = {}
    for kind, settings in SPEEDS.items():
        speeds, gain = rope_speeds(names["D"], kind=kind, **settings)
        turning = {"speeds": speeds, "gain": gain}
        tensors = {"speeds": torch.from_numpy(speeds), "gain": gain}
        *_, more = train(names, "RoPE", p, seeds, LONG, rate=0.003, **tensors)
        more = {name: array.astype(np.float64) for name, array in more.items()}
        cases = ((p, LONG), (p, SHORT), (more, LONG))
        found[kind] = [
            [round(float(a), 4) for a in names["right"]("RoPE", q, np.arange(T), **turning)]
            for q, T in cases
        ]
    return found


def main() -> None:
    """Train, keep and measure."""
    torch.set_num_threads(1)
    names = page()
    states: dict[int, Parameters] = {step: {} for step in STEPS}
    runs: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    speeds: list[Any] = []
    for seed in range(STARTS):
        untrained = start(names, seed)
        for kind in KINDS:
            p: Parameters = {}
            for step, p in enumerate(
                train(names, kind, untrained, range(1000 * seed, 1000 * seed + STEPS[-1])), 1
            ):
                if seed == 0 and step in states:
                    used = [n for n, array in p.items() if not np.allclose(array, untrained[n])]
                    states[step] |= {f"{kind}.{n}": rounded(p[n]) for n in used}
            p = {name: array.astype(np.float64) for name, array in p.items()}
            runs[kind].append(measured(names, kind, p))
            print(seed, kind, runs[kind][-1], flush=True)
            if kind == "RoPE":
                speeds.append(
                    stretched(names, p, range(10**5 * (seed + 1), 10**5 * (seed + 1) + 30))
                )
                print(seed, speeds[-1], flush=True)
    path = kept_models.keep("positions", None, [], {}, states)
    print(f"{path.name}: {path.stat().st_size:,} bytes, SHA-256")
    print(hashlib.sha256(path.read_bytes()).hexdigest())
    found = {
        "lengths": LENGTHS,
        "runs": runs,
        "speeds": {k: [s[k] for s in speeds] for k in SPEEDS},
    }
    path = kept_runs.keep("positions", found)
    print(hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
