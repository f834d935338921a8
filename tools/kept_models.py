"""Keep trained models in the package, each at several training steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "src/attncore/data/trained"


def keep(
    name: str,
    kind: str | None,
    given: Sequence[Any],
    named: Mapping[str, Any],
    states: Mapping[int, Mapping[str, Any]],
) -> Path:
    """Write a model of class `kind`, made with `given` and `named`, at each step in `states`.

    `kind` is None for models that a page of the book defines; the name of each, and a dot, are
    then put before its parameters' names.

    The parameters are rounded to 16 bits: :func:`attncore.models.trained` reads them.
    """
    recipe = {"class": kind, "given": given, "named": named, "steps": sorted(states)}
    first = states[recipe["steps"][0]]
    stacked = {
        key: np.stack([np.asarray(states[step][key], np.float16) for step in recipe["steps"]])
        for key in first
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, recipe=np.array(json.dumps(recipe)), **stacked)
    return path
