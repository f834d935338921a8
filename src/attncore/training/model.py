"""A new model for some texts, and the file of a trained one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from attncore.models.lm import tokenizer_of
from attncore.nn import Decoder
from attncore.training.recipes import Recipe
from attncore.training.texts import Texts

try:
    from tokenizers import ByteLevelBPETokenizer
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "attncore.training needs tokenizers, which is not installed: pip install tokenizers",
        name="tokenizers",
    ) from None

EVERY = 8  # one text of so many teaches the tokenizer, which is enough


def vocabulary_of(recipe: Recipe, texts: Texts) -> dict[str, str]:
    """Return the tokenizer for what is in the texts, as a model's file has it."""
    if recipe.pieces is None:
        return {"characters": "".join(sorted(set().union(*texts.learn, texts.judge)))}
    tokenizer = ByteLevelBPETokenizer()
    few = texts.learn[::EVERY]
    tokenizer.train_from_iterator(few, vocab_size=recipe.pieces, show_progress=False)
    return {"tokenizer": tokenizer.to_str()}


def new_model(recipe: Recipe, vocabulary: dict[str, str]) -> Decoder:
    """Return an untrained model."""
    return Decoder(tokenizer_of(dict(vocabulary)), **recipe.sizes)


def write(model: Decoder, recipe: Recipe, path: Path) -> None:
    """Store the parameters in 16 bits, with the sizes and the tokenizer."""
    state = {name: p.half().numpy() for name, p in model.state_dict().items()}
    own = (
        {"characters": model.characters}
        if recipe.pieces is None
        else {"tokenizer": model.tokenizer.to_str()}  # type: ignore[union-attr]
    )
    np.savez_compressed(path, sizes=np.array(json.dumps({**own, **recipe.sizes})), **state)
