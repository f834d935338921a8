"""A small decoder-only language model. Not loaded by ``import attncore``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from itertools import combinations
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from attncore import sampling
from attncore.base.arrays import check_device, wide
from attncore.base.integers import check_least, check_sizes
from attncore.cache.growing import KVCache, UndoOnError
from attncore.cache.static import StaticKVCache
from attncore.models.tokenizers import Characters, Tokenizer
from attncore.nn.layers import Block, autocasts


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
        If a character is repeated or a size does not fit; on a call, if tokens are no integers
        `(B, T)`, on another device or outside the vocabulary, if there are more of them than
        positions, or the caches do not belong together; by :meth:`encode`, if a character is
        unknown. On a GPU only :meth:`generate` and :meth:`decode` look for tokens outside the
        vocabulary: looking waits for the GPU.
    TypeError
        If a size is not an integer, or anything else is not of the kind that is asked for.

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
        check_sizes(d_model=d_model, layers=layers, context=context)
        if isinstance(tokenizer, str):
            self.characters = tokenizer
            tokenizer = Characters(tokenizer)
        if not all(hasattr(tokenizer, m) for m in ("encode", "decode", "get_vocab_size")):
            raise TypeError(
                "tokenizer must be a string of characters, or have encode, decode and "
                f"get_vocab_size, got {type(tokenizer).__name__}"
            )
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
        vectors = self.embedding.weight  # looked up once: that takes torch microseconds
        self._check(tokens, vectors)
        start = self._length(caches, causal)
        places = self._positions(start, tokens.shape[-1])
        try:
            x = self.embedding(tokens) + places  # (B, T, d_model)
        except IndexError:
            raise ValueError(self._outside(tokens)) from None
        with UndoOnError(*(caches or ())):  # the first layers may have appended
            for n, block in enumerate(self.blocks):
                x = block(x, causal=causal, cache=caches[n] if caches else None)
        return self.norm(x) @ vectors.mT

    @staticmethod
    def _check(tokens: Tensor, vectors: Tensor) -> None:
        if not isinstance(tokens, Tensor):
            raise TypeError(
                f"tokens must be a torch tensor (B, T), got {type(tokens).__name__}: use "
                "model.encode(text) or torch.as_tensor(tokens)"
            )
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"tokens must be integers (B, T), got {tokens.dtype} {tuple(tokens.shape)}: "
                "use tokens.long(), and tokens[None] for one row"
            )
        if tokens.device != vectors.device:
            check_device(tokens=tokens, parameters=vectors)

    def _outside(self, tokens: Tensor) -> str:
        """Return what to say of tokens that are not all in the vocabulary."""
        N = len(self.embedding.weight)
        wrong = tokens[(tokens < 0) | (tokens >= N)].tolist()
        return f"tokens must lie in 0 to N - 1 = {N - 1}, got {wrong[0]}"

    def _check_vocabulary(self, tokens: Tensor) -> None:
        """Raise unless all tokens are known. On a GPU this waits for it."""
        unknown = (tokens < 0) | (tokens >= len(self.embedding.weight))
        if not tokens.is_meta and bool(unknown.any()):
            raise ValueError(self._outside(tokens))

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
        if not isinstance(caches, (list, tuple)) or not all(
            isinstance(cache, KVCache) for cache in caches
        ):
            raise TypeError("caches must be a list of KVCache: use model.new_caches()")
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

        With `static` they are :class:`attncore.StaticKVCache`, for ``torch.compile(model)``. They
        are of the dtype of the keys: the parameters', or under ``torch.autocast`` its own.
        """
        layer: Any = self.blocks[0].attention
        kind = StaticKVCache if static else KVCache
        capacity = self.context if capacity is None else capacity
        weight = self.embedding.weight
        like = torch.empty(0, dtype=weight.dtype, device=weight.device)
        if autocasts(weight) and weight.dtype != torch.float64:  # which it leaves alone
            like = like.to(torch.get_autocast_dtype(weight.device.type))
        return [
            kind(batch, layer.kv_heads, capacity, layer.head_dim, like=like) for _ in self.blocks
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
        self._check(tokens, self.embedding.weight)
        if tokens.shape[1] < 1:
            raise ValueError(
                f"a prompt must be (B, T) with T at least 1, got {tuple(tokens.shape)}"
            )
        self._check_vocabulary(tokens)
        steps = check_least("steps", steps, 0)
        if (needed := tokens.shape[1] + steps - 1) > self.context:
            raise ValueError(f"{needed} tokens to read, but the model has {self.context} positions")
        sampling.check_settings(temperature, top_k, top_p)
        if not (generator is None or isinstance(generator, torch.Generator)):
            raise TypeError(
                f"generator must be a torch.Generator, got {type(generator).__name__}: use "
                "torch.Generator().manual_seed(0)"
            )
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
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}: encode one at a time")
        encoded = self.tokenizer.encode(text)
        ids = getattr(encoded, "ids", encoded)
        return torch.tensor([ids], dtype=torch.long, device=self.embedding.weight.device)

    def decode(self, tokens: Tensor) -> str:
        """Return the text of one row of tokens, `(T,)`."""
        if isinstance(tokens, np.ndarray) and tokens.dtype.kind in "iu":
            tokens = torch.from_numpy(tokens.astype(np.int64))
        if not isinstance(tokens, Tensor):
            raise TypeError(f"tokens must be integers (T,), a tensor, got {type(tokens).__name__}")
        if tokens.ndim != 1 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"tokens must be one row of integers (T,), got {tokens.dtype} "
                f"{tuple(tokens.shape)}: decode row by row, such as tokens[0]"
            )
        self._check_vocabulary(tokens)
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
        In evaluation mode, on the CPU, whatever torch's default device and dtype are. Nothing is
        drawn, so torch's random state stays as it is.

    Raises
    ------
    ValueError
        If the file holds no such model.
    TypeError
        If `dtype` is not a floating-point dtype of torch.
    ModuleNotFoundError
        If the model reads pieces of words and `tokenizers` is not installed.
    """
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be one such as torch.float32, got {dtype!r}")
    try:
        sizes, state = _stored(path)
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} holds no model that tools/train_lm.py has written") from error
    if "tokenizer" in sizes:
        from tokenizers import Tokenizer as Pieces

        tokenizer: str | Tokenizer = Pieces.from_str(sizes.pop("tokenizer"))
    else:
        tokenizer = sizes.pop("characters")
    with torch.device("meta"):  # shapes only: there nothing is drawn
        model = Decoder(tokenizer, **sizes)
    model.load_state_dict({name: a.to(dtype) for name, a in state.items()}, assign=True)
    return model.eval()


def _stored(path: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the sizes and the parameters that a file holds."""
    with Path(path).open("rb") as file, np.load(file) as stored:
        sizes = json.loads(str(stored["sizes"]))
        names = [name for name in stored.files if name != "sizes"]
        return sizes, {name: torch.from_numpy(stored[name]) for name in names}


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
        In evaluation mode, on the CPU, as :func:`load` returns it: nothing is drawn.

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
