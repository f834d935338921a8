"""Train chapter 4's attention on two tasks, attncore's trained("previous") and trained("marked").

    python tools/train_tasks.py

One layer of one head and width 4, 80 numbers, reads rows without any places: it should return the
row before each row, or the one row with a mark. Each takes 300 steps of 64 sequences, a few seconds
on one CPU core. On sequences that it was not trained on, its squared error over that of the mean is
0.88 for the row before, as attention does not see places, and below 0.001 for the row with a mark
(the script prints it at each step that is kept). The files are this script's result on one machine;
elsewhere the last bits may differ.
"""

from __future__ import annotations

import numpy as np
import torch
from kept_models import keep

from attncore.models import trained
from attncore.nn import MultiHeadAttention

KEPT = [0, 10, 20, 50, 100, 300]
SIZES = {"d_model": 4, "heads": 1}


def batch(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 64 sequences of 8 rows, and what should become of them: both `(64, 8, 4)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(64, 8, 4))
    place = rng.integers(8, size=64)
    x[..., 0] = 2.0 * (np.arange(8) == place[:, None])  # the mark
    marked = np.repeat(x[np.arange(64), place][:, None], 8, axis=1)
    return x, np.roll(x, 1, axis=1) if task == "previous" else marked


def error(task: str, step: int) -> float:
    """Return the squared error of a kept model on unseen sequences, over that of the mean."""
    x, y = batch(task, seed=1000)
    wrong, spread = trained(task, step)(x) - y, y - y.mean(axis=(0, 1))
    return float((wrong**2).sum() / (spread**2).sum())


def main() -> None:
    """Train on both tasks, keep the layers, and score what was kept."""
    torch.set_num_threads(1)
    for task in ("previous", "marked"):
        torch.manual_seed(0)
        layer = MultiHeadAttention(**SIZES).double()
        optimizer = torch.optim.Adam(layer.parameters(), 0.03)
        states = {}
        for step in range(max(KEPT) + 1):
            if step in KEPT:
                states[step] = {name: p.clone() for name, p in layer.state_dict().items()}
            x, y = map(torch.from_numpy, batch(task, seed=step))
            optimizer.zero_grad()
            (layer(x) - y).pow(2).mean().backward()
            optimizer.step()
        path = keep(task, "MultiHeadAttention", [], SIZES, states)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        print({step: round(error(task, step), 3) for step in KEPT})


if __name__ == "__main__":
    main()
