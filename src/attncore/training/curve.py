"""What a training is like on the way: the book draws it."""

from __future__ import annotations

from typing import Any

import torch

from attncore.nn import Decoder
from attncore.training.scores import bits_per_character
from attncore.training.texts import Texts

SAMPLES = (0, 100, 1000)  # the steps after which the model writes, and after the last


class Curve:
    """Scores on text seen and unseen, by step, and what the model writes."""

    def __init__(self, every: int, texts: Texts) -> None:
        self.every, self.texts = every, texts
        self.found: dict[str, list[Any]] = {
            name: [] for name in ("step", "rate", "seen", "unseen", "samples")
        }

    def look(self, model: Decoder, step: int, rate: float, last: bool) -> None:
        """Add a point after `step` steps, and a sample now and then."""
        unseen, opening = self.texts.judge, self.texts.opening
        if step % self.every == 0 or last:
            both = self.texts.learn[0][: len(unseen)], unseen
            scores = [bits_per_character(model, text) for text in both]
            self.found["step"].append(step)
            for name, x in zip(("rate", "seen", "unseen"), (rate, *scores), strict=True):
                self.found[name].append(round(x, 5))
        if step in SAMPLES or last:
            chance = torch.Generator().manual_seed(0)
            start = model.encode(opening)
            wrote = model.generate(start, 150, temperature=0.8, generator=chance)[0]
            self.found["samples"].append([step, model.decode(wrote)])

    def state_dict(self) -> dict[str, list[Any]]:
        """Return what was found so far."""
        return self.found

    def load_state_dict(self, found: dict[str, list[Any]]) -> None:
        """Go on from what was found."""
        self.found = found
