"""A small decoder-only language model, as a torch module. Not loaded by ``import attncore``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attncore import models
from attncore.base.arrays import Array
from attncore.base.integers import check_sizes
from attncore.base.settings import check_flag
from attncore.models.inputs import autocasts
from attncore.models.lm import (
    DecoderParts,
    chooser,
    reader,
    speculate,
    stored,
    tokenizer_of,
    whale_of,
    write,
)
from attncore.models.tokenizers import Tokenizer
from attncore.nn.layers import Block, norm_of
from attncore.nn.snapshot import snapshot


class Decoder(DecoderParts, nn.Module):
    r"""A decoder-only language model, with learned positions or `rope`.

    .. math:: x_t = E_{c_t} + P_t, \qquad x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits}_t = \operatorname{norm}(x_t) E^\top

    As it is, it is built as GPT-2 is. Llama 3 has ``rope="half", norm="rms", network="swiglu",
    tied=False``, speeds of kind "llama3" and a `d_ff` of its own; Qwen3 ``qk_norm=True`` and a
    `head_dim` too.

    Parameters
    ----------
    tokenizer
        A string of N different characters: token n is its n-th character, and the string is
        kept as the attribute `characters`. Or an object with `encode`, `decode` and
        `get_vocab_size`, such as one of Hugging Face's `tokenizers`.
    d_model, layers, heads, kv_heads
        The sizes of the blocks.
    context
        The largest number of tokens it can read: it has so many learned positions, or with
        `rope`, which has none, so much room in its caches.
    rope
        As in :class:`MultiHeadAttention`, in place of the learned positions P.
    norm, norm_eps
        As in :class:`Block`, and of the last norm.
    tied
        Whether the logits are products with the embeddings E; if not, with a map of their own.
    block
        Other options of :class:`Block`: `network`, `d_ff`, and those of its attention.

    Raises
    ------
    ValueError
        If a character is repeated or a size does not fit; on a call, if tokens are no integers
        `(B, T)`, on another device or outside the vocabulary, if there are more of them than
        positions, the caches do not belong together, or the padding leaves a row no token; by
        :meth:`encode`, if a character is unknown. On a GPU only :meth:`generate` and
        :meth:`decode` look for tokens outside the vocabulary: looking waits for the GPU, as
        `left_padding` does.
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
        rope: str | None = None,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        tied: bool = True,
        **block: Any,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, layers=layers, context=context)
        tied = check_flag("tied", tied)
        self._set_tokenizer(tokenizer, context)
        N = self.tokenizer.get_vocab_size()
        self.embedding = nn.Embedding(N, d_model)
        self.position = nn.Embedding(context, d_model) if rope is None else None
        block |= {"rope": rope, "norm": norm, "norm_eps": norm_eps}
        self.blocks = nn.ModuleList(Block(d_model, heads, kv_heads, **block) for _ in range(layers))
        self.norm = norm_of(norm, d_model, norm_eps)
        self.output = None if tied else nn.Linear(d_model, N, bias=False)
        for table in (self.embedding, self.position):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    def _like_keys(self) -> Tensor:
        weight = self.embedding.weight
        like = torch.empty(0, dtype=weight.dtype, device=weight.device)
        if autocasts(weight) and weight.dtype != torch.float64:  # which it leaves alone
            like = like.to(torch.get_autocast_dtype(weight.device.type))
        return like

    @torch.no_grad()
    def generate(
        self,
        tokens: Tensor,
        steps: int,
        *,
        left_padding: Array | None = None,
        cached: bool = True,
        compiled: bool = False,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        draft: Decoder | Callable[[Tensor], Tensor] | None = None,
        ahead: int = 4,
    ) -> Tensor:
        """Append a next token, `steps` times: the likeliest, or one drawn at random.

        Parameters
        ----------
        tokens
            `(B, T)`, the prompt.
        steps
            How many tokens to add; T + steps - 1 positions are needed.
        left_padding
            Integers `(B,)`: with how much padding each prompt begins, if they are of different
            lengths: see :meth:`encode_batch`. Each text goes on as it does alone, to rounding.
            Row b of the result begins with its padding too.
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
            size, and in another dtype. A list of generators, one for each row, gives each row the
            text that it gets alone with that generator.
        draft, ahead
            Speculative decoding: `draft` proposes `ahead` tokens, one after the other, and one call
            of this model decides how many of them stay, by :func:`attncore.sampling.accept`. The
            likeliest tokens are the same as without, but for near-ties; drawn ones have the same
            probabilities, but the same seed draws others. It pays where the draft is much cheaper
            and often right. The draft is a Decoder of the same tokens, or a function of the text
            so far, `(B, T)` with its padding, that returns logits `(B, N)`. The rows of a batch go
            on together, by as many tokens as the row that keeps fewest. Not with `compiled`.

        Returns
        -------
        Tensor
            `(B, T + steps)`.
        """
        settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        kind = torch.Generator
        steps = self._check_prompt(tokens, steps, left_padding, generator, kind, **settings)
        if compiled and not cached:
            raise ValueError("compiled=True needs cached=True: only a step on caches is compiled")
        ahead = self._check_draft(draft, ahead, tokens, steps)
        if compiled and draft is not None:
            raise ValueError(
                "compiled=True cannot be used with draft, of which a step reads now more tokens "
                "and now fewer: leave one of them out"
            )
        needed = max(tokens.shape[1] + steps - 1, 1)
        room = min(-(-needed // 256) * 256, self.context) if compiled else None

        def numbers(count: int, dtype: torch.dtype, chance: torch.Generator) -> Tensor:
            return torch.rand(count, dtype=dtype, generator=chance, device=chance.device)

        def draw(p: Tensor) -> Tensor:
            if isinstance(generator, torch.Generator):
                return numbers(len(p), p.dtype, generator).to(p.device)
            rows = [numbers(1, p.dtype, one).to(p.device) for one in generator or ()]
            return torch.cat(rows)

        uniform = None if generator is None else draw
        with torch.inference_mode():
            caches = self.new_caches(len(tokens), room, static=compiled) if cached else None
            step = self._compiled() if compiled else quick(self)
            if left_padding is not None:
                left_padding = torch.as_tensor(left_padding, device=tokens.device)
            if draft is None:
                choose = chooser(uniform, **settings)
                found = write(self, step, tokens, steps, caches, choose, left_padding)
            else:
                guess, others = self._guess(draft, len(tokens), left_padding, cached, quick)
                read, both = reader(step, caches, left_padding), [*(caches or ()), *others]
                found = speculate(read, guess, both, tokens, steps, ahead, uniform, **settings)
        torch.clear_autocast_cache()  # what was cast in inference mode could not be trained with
        return found.clone()  # what inference mode makes could not be trained on

    def _compiled(self) -> Callable[..., Tensor]:
        """Return the model compiled; torch keeps what it has compiled."""
        mode = "reduce-overhead" if self.embedding.weight.is_cuda else "default"
        compiled: Callable[..., Tensor] = torch.compile(self, fullgraph=True, mode=mode)

        def step(*inputs: Any, **named: Any) -> Tensor:
            try:
                return compiled(*inputs, **named)
            except RuntimeError as error:
                if "C++ compiler" in str(error) or "C compiler" in str(error):  # torch's, Triton's
                    raise RuntimeError(
                        "compiled=True needs a C++ compiler, and this machine has none: install "
                        "one, such as g++, or leave compiled out"
                    ) from error
                raise

        return step

    def _array(self, numbers: Any) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.embedding.weight.device)


def quick(model: Any) -> Any:
    """Return a model as what is quick to step through, if that can be."""
    return snapshot(model, Decoder, models.Decoder)


def load(path: Any, dtype: torch.dtype = torch.float32) -> Decoder:
    """Return a model that ``python -m attncore.training`` has written.

    Parameters
    ----------
    path
        Of the file; or the file, opened for reading bytes.
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
    sizes, state = stored(path)
    with torch.device("meta"):  # shapes only: there nothing is drawn
        model = Decoder(tokenizer_of(sizes), **sizes)
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in state.items()}
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def whale(dtype: torch.dtype = torch.float32) -> Decoder:
    """Return a model that the authors of this book trained on *Moby-Dick*.

    0.44 million parameters, stored in 16 bits; :mod:`attncore.training` has its recipe, and
    ``data/README.md`` its hash and how well it predicts text it has not seen. It knows
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
    return whale_of(load, dtype)
