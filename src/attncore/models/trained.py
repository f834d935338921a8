"""Small models that scripts of this project have trained, each kept at several training steps."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from attncore.data.files import arrays
from attncore.models.layers import Block, MultiHeadAttention
from attncore.models.lm import Decoder
from attncore.models.seq2seq import Translator
from attncore.models.vision import VisionTransformer

TRAINED: tuple[str, ...] = (
    "marked",
    "positions",
    "previous",
    "summary",
    "translator",
    "vision",
    "vision_no_positions",
    "vision_second",
)
"""The names of the models that there are."""
KINDS = {kind.__name__: kind for kind in (
    Block, Decoder, MultiHeadAttention, Translator, VisionTransformer)}  # fmt: skip


def trained(name: str, step: int | None = None, dtype: Any = np.float64) -> Any:
    """Return a model that was trained beforehand, as it was after some training steps.

    Which there are, how they were trained and what they reach stands in ``data/README.md``; the
    scripts are in ``tools/``. The parameters are kept in 16 bits.

    Parameters
    ----------
    name
        Such as "translator".
    step
        One of the steps that were kept, :func:`steps`; the last unless given.
    dtype
        Of the parameters.

    Returns
    -------
    Module
        A model of :mod:`attncore.models`; ``load_state_dict`` of the same class in
        :mod:`attncore.nn` takes its ``state_dict`` over. If a page of the book defines the
        models of an experiment: for each of them a dictionary of its parameters, by name.

    Raises
    ------
    ValueError
        If there is no such model, or it was not kept at this step.

    References
    ----------
    The book's chapters name the experiments they stand for.
    """
    kept, recipe = _kept(name)
    at = recipe["steps"][-1] if step is None else step
    if at not in recipe["steps"]:
        known = ", ".join(map(str, recipe["steps"]))
        raise ValueError(f"{name} was kept at the steps {known}, got {step}")
    n = recipe["steps"].index(at)
    parameters = {key: array[n].astype(dtype) for key, array in kept.items()}
    if recipe["class"] is None:
        models: dict[str, dict[str, np.ndarray]] = {}
        for key, array in parameters.items():
            name, parameter = key.split(".", 1)
            models.setdefault(name, {})[parameter] = array
        return models
    model = KINDS[recipe["class"]](*recipe["given"], **recipe["named"], dtype=dtype, rng=0)
    model.load_state_dict(parameters)
    return model


def steps(name: str) -> list[int]:
    """Return the training steps at which a model was kept."""
    return list(_kept(name)[1]["steps"])


def _kept(name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what a file holds: parameters, the steps along their first axis, and the recipe."""
    if name not in TRAINED:
        raise ValueError(f"name must be one of {', '.join(TRAINED)}, got {name!r}")
    kept = arrays(f"trained/{name}.npz")
    return kept, json.loads(str(kept.pop("recipe")))
