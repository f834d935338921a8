"""Train the chapter on positions' seven small models, and keep them in the package.

    python tools/train_positions.py           a minute on one CPU core

There is one model for each way to tell attention where words stand, and one for none. The model
and its training are those on the chapter's page, whose cells are run here. Each is kept at six
steps of its 300, with 4 significant bits for each number, which makes the file a third smaller; the
shares of right answers differ by less than 0.01.

On texts of the 32 words that it was trained on, every method but ALiBi is right in more than 85 %
to both questions at the end; the page asserts what each does on longer ones.

The file is this script's result on one machine. Elsewhere rounding differs, and with it every bit;
the shares should come out about the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept_models import keep
from myst_nb.core.read import read_myst_markdown_notebook

PAGE = Path(__file__).resolve().parent.parent / "book/ch09_positions.md"
KINDS = ("none", "learned", "sinusoidal", "ALiBi", "T5", "Transformer-XL", "RoPE")
STEPS = (50, 100, 150, 200, 250, 300)
BITS = 4


def page() -> dict[str, Any]:
    """Return the names that the page's cells define up to the training."""
    names: dict[str, Any] = {}
    notebook = read_myst_markdown_notebook(PAGE.read_text("utf-8"))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)  # noqa: S102 (our own page)
            if "train" in names:
                return names
    raise ValueError(f"{PAGE.name} has no cell that defines train")


def rounded(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers with :data:`BITS` significant bits."""
    fraction, exponent = np.frexp(numbers)
    return np.ldexp(np.round(fraction * 2**BITS) / 2**BITS, exponent)


def states() -> dict[int, dict[str, np.ndarray]]:
    """Return at each step the parameters that each method has trained, as "RoPE.maps"."""
    names = page()
    untrained = names["start"]()
    kept: dict[int, dict[str, np.ndarray]] = {step: {} for step in STEPS}
    for kind in KINDS:
        for step, p in enumerate(names["train"](kind), 1):
            if step in kept:
                used = [n for n, array in p.items() if not np.allclose(array, untrained[n])]
                kept[step] |= {f"{kind}.{n}": rounded(p[n]) for n in used}
    return kept


def main() -> None:
    """Train and keep."""
    torch.set_num_threads(1)
    path = keep("positions", None, [], {}, states())
    print(f"{path.name}: {path.stat().st_size:,} bytes, SHA-256")
    print(hashlib.sha256(path.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
