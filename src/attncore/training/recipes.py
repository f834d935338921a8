"""What to train, and how: the book's small model, and a larger one for CUDA cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """What to train, and how."""

    source: str  # of the texts, a name in texts.SOURCES
    sizes: dict[str, Any]
    pieces: int | None  # tokens of a byte-level BPE; None: characters
    steps: int
    batch: int  # windows in each step, of all processes together
    rate: float
    warm_up: int
    score_every: int  # steps; the best model is kept (0: the last), and ten in vain are the end
    draw_every: int  # steps between the points of the curve (0: none)
    cpu: bool  # one thread: the same bits each time on one machine


RECIPES = {
    "book": Recipe(
        source="novel",
        sizes={"d_model": 96, "layers": 4, "heads": 4, "kv_heads": 2, "context": 256},
        pieces=None,
        steps=9000,
        batch=32,
        rate=3e-3,
        warm_up=100,
        score_every=0,
        draw_every=150,
        cpu=True,
    ),
    # 10,000 steps of 64 windows of 512 read 328 million tokens. The code installed with attncore
    # has about 32 million, so each is read some ten times; the novel's would be a thousand times.
    # 6 operations for each parameter and token: 6 x 24e6 x 328e6 = 5e16, a quarter of an hour at
    # 5e13 a second.
    "gpu": Recipe(
        source="code",
        sizes={"d_model": 512, "layers": 8, "heads": 8, "kv_heads": 2, "context": 512},
        pieces=4096,
        steps=10_000,
        batch=64,
        rate=6e-4,
        warm_up=200,
        score_every=100,
        draw_every=0,
        cpu=False,
    ),
}
