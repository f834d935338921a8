"""How well a model predicts a text."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attncore.nn import Decoder


def loss(model: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next token, in nats; windows `(B, T + 1)`."""
    logits = model(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def bits_per_character(model: Decoder, text: str) -> float:
    """Score the model on a text, cut into windows that know nothing of each other."""
    held_out = model.encode(text)[0]
    length = model.context + 1
    if len(held_out) < length:
        raise ValueError(
            f"a text to score by must have at least {length} tokens, a window and the token after "
            f"it, got {len(held_out)}"
        )
    with torch.no_grad():
        windows = held_out[: len(held_out) // length * length].view(-1, length)
        losses = [loss(model, part) * len(part) for part in windows.split(32)]
    nats = float(sum(losses)) / len(windows)
    return nats * len(held_out) / len(text) / math.log(2)
