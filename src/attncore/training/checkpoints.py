"""Stopping and going on: all that the rest of a run depends on, in one file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor


@dataclass
class Progress:
    """How far a run has come, and its best model so far."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    kept: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return all of it."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned."""
        vars(self).update(state)


class Chance:
    """The random numbers to come. They say which windows are next: a run's place in its texts."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of torch's generators."""
        state = {"cpu": torch.get_rng_state()}
        return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned."""
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"])


def save(path: Path, run: dict[str, Any], parts: dict[str, Any]) -> None:
    """Store the state of each part, and what run it is.

    Whoever ends the program in the middle of this finds the old file whole, or the new one.
    """
    state = {"run": run} | {name: part.state_dict() for name, part in parts.items()}
    beside = path.with_name(f"{path.name}.part")
    with beside.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load(path: Path | None) -> dict[str, Any]:
    """Return what was stored, or nothing if there is no such file."""
    if path is None or not path.exists():
        return {}
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError):
        state = None
    if not (isinstance(state, dict) and "run" in state):
        raise ValueError(
            f"{path} holds no checkpoint of a training: name another file, or remove it"
        )
    return state


def restore(saved: dict[str, Any], run: dict[str, Any], parts: dict[str, Any]) -> None:
    """Put the stored states back, if they are of this very run."""
    for name, value in run.items():
        if saved["run"][name] != value:
            raise ValueError(
                f"the checkpoint is of another run: its {name} was {saved['run'][name]}, "
                f"now it is {value}; give this run another file, or repeat that run's options"
            )
    for name, part in parts.items():
        part.load_state_dict(saved[name])
