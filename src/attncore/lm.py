"""A small decoder-only language model. Not loaded by ``import attncore``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attncore._cache import KVCache
from attncore.layers import Block


class Decoder(nn.Module):
    r"""A decoder-only language model over characters, with learned positions.

    .. math:: x_t = E_{c_t} + P_t, \qquad x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits}_t = \operatorname{norm}(x_t) E^\top

    Parameters
    ----------
    characters
        The vocabulary, a string of N different characters; token n is ``characters[n]``.
    d_model, layers, heads, kv_heads
        The sizes of the blocks.
    context
        The largest number of tokens it can read: it has so many learned positions.

    Raises
    ------
    ValueError
        If a character is repeated or the widths do not fit; on a call, if there are more
        tokens than positions or not one cache per layer; by :meth:`encode`, if a character
        is unknown.

    References
    ----------
    Radford et al. (2019); Ainslie et al. (2023) for the shared key/value heads.

    Examples
    --------
    >>> model = Decoder("abc ", d_model=16, layers=2, heads=4, kv_heads=2, context=32)
    >>> tokens = model.encode("a cab")
    >>> tokens
    tensor([[0, 3, 2, 0, 1]])
    >>> model(tokens).shape                                      # (B, T, N)
    torch.Size([1, 5, 4])
    >>> model.decode(tokens[0])
    'a cab'
    """

    def __init__(
        self, characters: str, *, d_model: int, layers: int, heads: int, kv_heads: int, context: int
    ) -> None:
        super().__init__()
        if len(set(characters)) != len(characters):
            raise ValueError("characters must all differ: a token is the place of its character")
        self.characters, self.context = characters, context
        self.embedding = nn.Embedding(len(characters), d_model)
        self.position = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(Block(d_model, heads, kv_heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(
        self,
        tokens: Tensor,
        caches: Sequence[KVCache] | None = None,
        *,
        causal: bool = True,
    ) -> Tensor:
        """Score every character as the next one, after each token.

        Parameters
        ----------
        tokens
            `(B, T)`, integers.
        caches
            One per layer, from :meth:`new_caches`: `tokens` then follow those cached.
        causal
            False lets every token see the future. Such a model cannot be decoded from;
            chapter 6 uses it to show why.

        Returns
        -------
        Tensor
            `(B, T, N)`, the logits: softmax makes them probabilities.
        """
        if caches is not None and len(caches) != len(self.blocks):
            raise ValueError(f"{len(self.blocks)} layers need as many caches, got {len(caches)}")
        start = caches[0].length if caches else 0
        stop = start + tokens.shape[-1]
        if stop > self.context:
            raise ValueError(f"{stop} tokens, but the model has {self.context} positions")
        x = self.embedding(tokens) + self.position.weight[start:stop]  # (B, T, d_model)
        for n, block in enumerate(self.blocks):
            x = block(x, causal=causal, cache=caches[n] if caches else None)
        return self.norm(x) @ self.embedding.weight.mT

    def new_caches(self, batch: int = 1, capacity: int | None = None) -> list[KVCache]:
        """Return one empty cache per layer, for `capacity` tokens (all positions unless given)."""
        layer: Any = self.blocks[0].attention
        return [
            KVCache(
                batch,
                layer.kv_heads,
                self.context if capacity is None else capacity,
                layer.head_dim,
                like=self.embedding.weight,
            )
            for _ in self.blocks
        ]

    @torch.no_grad()
    def generate(self, tokens: Tensor, steps: int, *, cached: bool = True) -> Tensor:
        """Append the likeliest next token, `steps` times.

        Parameters
        ----------
        tokens
            `(B, T)`, the prompt.
        steps
            How many tokens to add; T + steps - 1 positions are needed.
        cached
            Whether to keep keys and values. The tokens are the same, up to a tie between
            two logits; without it each step reads everything again.

        Returns
        -------
        Tensor
            `(B, T + steps)`.
        """
        caches = self.new_caches(len(tokens)) if cached else None
        unread = tokens
        for _ in range(steps):
            logits = self(unread if cached else tokens, caches)  # prefill, then decode
            unread = logits[:, -1:].argmax(dim=-1)
            tokens = torch.cat([tokens, unread], dim=1)
        return tokens

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a text, `(1, T)`, on the model's device."""
        unknown = sorted(set(text) - set(self.characters))
        if unknown:
            raise ValueError(f"the model does not know {''.join(unknown)!r}")
        places = [self.characters.index(c) for c in text]
        return torch.tensor([places], device=self.embedding.weight.device)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of one row of tokens, `(T,)`."""
        return "".join(self.characters[n] for n in tokens.tolist())


def whale(dtype: torch.dtype = torch.float32) -> Decoder:
    """Return a model that the authors of this book trained on *Moby-Dick*.

    0.44 million parameters, stored in 16 bits; ``tools/train_lm.py`` is its recipe, and
    ``data/README.md`` has its hash and how well it predicts text it has not seen. It knows
    spelling and a little grammar, and means nothing by what it says.

    Parameters
    ----------
    dtype
        Of the parameters.

    Returns
    -------
    Decoder
        In evaluation mode, on the CPU.

    References
    ----------
    Melville (1851), in the public domain.

    Examples
    --------
    >>> model = whale()
    >>> len(model.characters), model.context, len(model.blocks)
    (81, 256, 4)
    """
    with (files("attncore") / "data" / "whale.npz").open("rb") as file, np.load(file) as stored:
        sizes = json.loads(str(stored["sizes"]))
        state = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "sizes"}
    model = Decoder(**sizes).to(dtype)
    model.load_state_dict(state)
    return model.eval()
