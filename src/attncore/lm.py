"""A small decoder-only language model. Not loaded by ``import attncore``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attncore import sampling
from attncore._arrays import wide
from attncore._cache import KVCache, UndoOnError
from attncore._integers import check_sizes
from attncore._static import StaticKVCache
from attncore._tokenizers import Characters, Tokenizer
from attncore.layers import Block


class Decoder(nn.Module):
    r"""A decoder-only language model with learned positions.

    .. math:: x_t = E_{c_t} + P_t, \qquad x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits}_t = \operatorname{norm}(x_t) E^\top

    Parameters
    ----------
    tokenizer
        A string of N different characters: token n is its n-th character, and the string is
        kept as the attribute `characters`. Or an object with `encode`, `decode` and
        `get_vocab_size`, such as one of Hugging Face's `tokenizers`.
    d_model, layers, heads, kv_heads
        The sizes of the blocks.
    context
        The largest number of tokens it can read: it has so many learned positions.

    Raises
    ------
    ValueError
        If a character is repeated or a size does not fit; on a call, if there are more
        tokens than positions or the caches do not belong together; by :meth:`encode`, if a
        character is unknown.
    TypeError
        If a size is not an integer.

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
        self,
        tokenizer: str | Tokenizer,
        *,
        d_model: int,
        layers: int,
        heads: int,
        kv_heads: int,
        context: int,
    ) -> None:
        super().__init__()
        check_sizes(layers=layers, context=context)
        if isinstance(tokenizer, str):
            self.characters = tokenizer
            tokenizer = Characters(tokenizer)
        self.tokenizer, self.context = tokenizer, context
        self.embedding = nn.Embedding(self.tokenizer.get_vocab_size(), d_model)
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
        """Score every token as the next one, after each token.

        Parameters
        ----------
        tokens
            `(B, T)`, integers.
        caches
            One per layer, from :meth:`new_caches`: `tokens` then follow those cached.
        causal
            False lets every token see the future. It takes no caches; chapter 6 shows why.

        Returns
        -------
        Tensor
            `(B, T, N)`, the logits: softmax makes them probabilities.
        """
        if tokens.ndim != 2 or tokens.dtype.is_floating_point:
            raise ValueError(
                f"tokens must be integers (B, T), got {tokens.dtype} {tuple(tokens.shape)}"
            )
        start = self._length(caches, causal)
        x = self.embedding(tokens) + self._positions(start, tokens.shape[-1])  # (B, T, d_model)
        with UndoOnError(*(caches or ())):  # the first layers may have appended
            for n, block in enumerate(self.blocks):
                x = block(x, causal=causal, cache=caches[n] if caches else None)
        return self.norm(x) @ self.embedding.weight.mT

    def _positions(self, start: int | Tensor, T: int) -> Tensor:
        """Return the learned vectors `(T, d_model)` of the positions from `start` on."""
        if not isinstance(start, Tensor):
            if start + T > self.context:
                raise ValueError(f"{start + T} tokens, but the model has {self.context} positions")
            return self.position.weight[start : start + T]
        places = start + torch.arange(T, device=start.device)
        return self.position(places.clamp(max=self.context - 1))  # a full cache gives NaN later

    def _length(self, caches: Sequence[KVCache] | None, causal: bool) -> int | Tensor:
        """Return how many tokens the caches hold, after checking that they belong together."""
        if caches is None:
            return 0
        if len(caches) != len(self.blocks):
            raise ValueError(f"{len(self.blocks)} layers need as many caches, got {len(caches)}")
        if not causal:
            raise ValueError("causal=False cannot use caches: old keys change with each token")
        static = [isinstance(cache, StaticKVCache) for cache in caches]
        if any(static):
            return self._static_length(caches, all(static))
        lengths = [cache.length for cache in caches]
        if len({id(cache) for cache in caches}) < len(caches) or len(set(lengths)) > 1:
            raise ValueError(f"each layer needs its own cache, all of one length: got {lengths}")
        return lengths[0]

    def _static_length(self, caches: Sequence[KVCache], alike: bool) -> Tensor:
        """Return the length of the first; whether all are equal only the GPU knows."""
        # Comparing ids would make torch.compile compile anew for each set of caches.
        if not alike or any(a is b for a, b in combinations(caches, 2)):
            raise ValueError("each layer needs its own cache, all static or none")
        slots = max(cache.slots for cache in caches)
        if slots > self.context:
            raise ValueError(f"caches of {slots} slots, but the model has {self.context} positions")
        length: Tensor = caches[0].length
        return length

    def new_caches(
        self, batch: int = 1, capacity: int | None = None, *, static: bool = False
    ) -> list[KVCache]:
        """Return one empty cache per layer, for `capacity` tokens (all positions unless given).

        With `static` they are :class:`attncore.StaticKVCache`, for ``torch.compile(model)``.
        """
        layer: Any = self.blocks[0].attention
        kind = StaticKVCache if static else KVCache
        capacity = self.context if capacity is None else capacity
        return [
            kind(batch, layer.kv_heads, capacity, layer.head_dim, like=self.embedding.weight)
            for _ in self.blocks
        ]

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        steps: int,
        *,
        cached: bool = True,
        compiled: bool = False,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Append a next token, `steps` times: the likeliest, or one drawn at random.

        Parameters
        ----------
        tokens
            `(B, T)`, the prompt.
        steps
            How many tokens to add; T + steps - 1 positions are needed.
        cached
            Whether to keep keys and values; without it each step reads everything again.
            The logits agree to rounding, and so, but for near-ties, do the tokens. In 16 bits
            near-ties are common, and many sampled texts differ.
        compiled
            Whether to compile the step with ``torch.compile``, with static caches. Meant for a
            GPU, where it becomes a CUDA graph; a CPU gains little and needs a C++ compiler:
            without one a RuntimeError says so. The first call takes up to a minute longer, and so
            does the first with another batch or, in steps of 256, another length. Needs `cached`.
        temperature, top_k, top_p
            As in :func:`attncore.sampling.probabilities`. At temperature 0 the likeliest token
            is taken.
        generator
            Where chance comes from, if the temperature is above 0. Each step takes one number
            for each row of the batch, so the same seed writes other texts in a batch of another
            size, and in another dtype.

        Returns
        -------
        Tensor
            `(B, T + steps)`.
        """
        if tokens.ndim != 2 or tokens.shape[1] < 1:
            raise ValueError(
                f"a prompt must be (B, T) with T at least 1, got {tuple(tokens.shape)}"
            )
        if steps < 0:
            raise ValueError(f"steps must be at least 0, got {steps}")
        if (needed := tokens.shape[1] + steps - 1) > self.context:
            raise ValueError(f"{needed} tokens to read, but the model has {self.context} positions")
        sampling.check_settings(temperature, top_k, top_p)
        if (generator is None) != (temperature == 0):
            raise ValueError(
                "a temperature above 0 and a generator, such as torch.Generator().manual_seed(0), "
                "need each other: at temperature 0 nothing is drawn"
            )
        if compiled and not cached:
            raise ValueError("compiled=True needs cached=True: only a step on caches is compiled")
        room = min(-(-max(needed, 1) // 256) * 256, self.context) if compiled else None
        with torch.inference_mode():
            caches = self.new_caches(len(tokens), room, static=compiled) if cached else None
            step = self._compiled() if compiled else self
            read: Callable[..., Tensor] = self  # prefill, then decode
            unread = tokens
            for _ in range(steps):
                logits = read(unread if cached else tokens, caches)[:, -1]
                read = step
                if generator is None:
                    unread = logits.argmax(dim=-1, keepdim=True)
                else:
                    p = sampling.probabilities(
                        wide(torch, logits), temperature=temperature, top_k=top_k, top_p=top_p
                    )
                    u = torch.rand(
                        len(p), generator=generator, device=generator.device, dtype=p.dtype
                    )
                    unread = sampling.draw(p, u.to(p.device))[:, None]
                tokens = torch.cat([tokens, unread], dim=1)
        return tokens.clone()  # what inference mode makes could not be trained on

    def _compiled(self) -> Callable[..., Tensor]:
        """Return the model compiled; torch keeps what it has compiled."""
        mode = "reduce-overhead" if self.embedding.weight.is_cuda else "default"
        compiled: Callable[..., Tensor] = torch.compile(self, fullgraph=True, mode=mode)

        def step(*inputs: Any) -> Tensor:
            try:
                return compiled(*inputs)
            except RuntimeError as error:
                if "C++ compiler" in str(error) or "C compiler" in str(error):  # torch's, Triton's
                    raise RuntimeError(
                        "compiled=True needs a C++ compiler, and this machine has none: install "
                        "one, such as g++, or leave compiled out"
                    ) from error
                raise

        return step

    def encode(self, text: str) -> Tensor:
        """Return the tokens of a text, `(1, T)`, on the model's device."""
        encoded = self.tokenizer.encode(text)
        ids = getattr(encoded, "ids", encoded)
        return torch.tensor([ids], dtype=torch.long, device=self.embedding.weight.device)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of one row of tokens, `(T,)`."""
        return self.tokenizer.decode(tokens.tolist())


def load(path: Any, dtype: torch.dtype = torch.float32) -> Decoder:
    """Return a model that ``tools/train_lm.py`` has written.

    Parameters
    ----------
    path
        Of the file.
    dtype
        Of the parameters.

    Returns
    -------
    Decoder
        In evaluation mode, on the CPU.

    Raises
    ------
    ModuleNotFoundError
        If the model reads pieces of words and `tokenizers` is not installed.
    """
    with Path(path).open("rb") as file, np.load(file) as stored:
        sizes = json.loads(str(stored["sizes"]))
        state = {name: torch.from_numpy(stored[name]) for name in stored.files if name != "sizes"}
    if "tokenizer" in sizes:
        from tokenizers import Tokenizer as Pieces

        tokenizer: str | Tokenizer = Pieces.from_str(sizes.pop("tokenizer"))
    else:
        tokenizer = sizes.pop("characters")
    model = Decoder(tokenizer, **sizes).to(dtype)
    model.load_state_dict(state)
    return model.eval()


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
    with as_file(files("attncore") / "data" / "whale.npz") as path:
        return load(path, dtype)
