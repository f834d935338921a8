"""A small decoder-only language model: checks, text, caches, and NumPy parameters."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from attncore import sampling
from attncore.base.arrays import (
    Array,
    cast,
    check_device,
    dtype_name,
    is_tensor,
    namespace,
    shape_of,
    wide,
    widest,
)
from attncore.base.integers import check_least, check_sizes
from attncore.base.settings import check_flag
from attncore.cache.growing import KVCache
from attncore.cache.static import StaticKVCache
from attncore.data import files
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import (
    INTEGERS,
    check_left_padding,
    check_tokens,
    check_vocabulary,
)
from attncore.models.layers import Block, norm_of
from attncore.models.plain import Embedding, Linear, Module
from attncore.models.tokenizers import Characters, Tokenizer


class DecoderParts:
    """Checks, forward pass, text and writing of a decoder; the parameters are elsewhere."""

    embedding: Any
    position: Any
    blocks: Any
    norm: Any
    output: Any
    _array: Callable[..., Array]

    def _set_tokenizer(self, tokenizer: str | Tokenizer, context: int) -> None:
        if isinstance(tokenizer, str):
            self.characters = tokenizer
            tokenizer = Characters(tokenizer)
        if not all(hasattr(tokenizer, m) for m in ("encode", "decode", "get_vocab_size")):
            raise TypeError(
                "tokenizer must be a string of characters, or have encode, decode and "
                f"get_vocab_size, got {type(tokenizer).__name__}"
            )
        self.tokenizer, self.context = tokenizer, context

    def forward(
        self,
        tokens: Array,
        caches: Sequence[KVCache] | None = None,
        *,
        causal: bool = True,
        left_padding: Array | None = None,
        look: Look | None = None,
    ) -> Array:
        """Score every token as the next one, after each token.

        Parameters
        ----------
        tokens
            `(B, T)`, integers.
        caches
            One per layer, from :meth:`new_caches`: `tokens` then follow those cached.
        causal
            False lets every token see the future. It takes no caches; chapter 8 shows why.
        left_padding
            Integers `(B,)`: with how much padding each row begins, as :meth:`encode_batch` returns
            it. Nothing attends to it, and positions count from the token after it, so that each
            row is scored as it is alone. What is scored in the padding means nothing. With caches:
            the same at each call, and no cache that has a window.
        look
            A function of (name, value) that is told of what is computed: see :meth:`look`. What it
            returns, unless it is None, goes on in place of the value.

        Returns
        -------
        Array
            `(B, T, N)`, the logits: softmax makes them probabilities.
        """
        check_tokens(tokens, self.embedding.weight)
        start = self._length(caches, causal)
        if isinstance(start, int) and start + tokens.shape[1] > self.context:
            needed = start + tokens.shape[1]
            raise ValueError(f"{needed} tokens, but the model has {self.context} positions")
        given = {"start": start, "causal": causal, "look": look}
        if left_padding is not None:
            given["left_padding"] = self._left_padding(left_padding, tokens, caches)
        try:
            return functional.decoder(self, tokens, caches, **given)
        except IndexError:
            check_vocabulary("tokens", tokens, len(self.embedding.weight))
            raise

    def look(
        self, tokens: Array, caches: Sequence[KVCache] | None = None, *, causal: bool = True
    ) -> dict[str, Array]:
        """Return, by name, what a call computes on its way.

        For block n these are ``blocks.n.x``, what enters it, `(B, T, d_model)`; then
        ``blocks.n.attention.q``, ``k`` and ``v``, one `(B, H, T, D)` and two `(B, G, T, D)`;
        ``.weights`` `(B, H, T, Tk)`; ``.heads`` `(B, H, T, D)`. Last, ``logits`` `(B, T, N)`. The
        arguments are those of :meth:`forward`.
        """
        found: dict[str, Array] = {}
        logits = self.forward(tokens, caches, causal=causal, look=functional.into(found))
        return {**found, "logits": logits}

    def _left_padding(
        self, left_padding: Array, tokens: Array, caches: Sequence[KVCache] | None
    ) -> Array:
        """Return the padding as int64 `(B,)`, after checking that it can be left out."""
        windows = [cache.window for cache in caches or () if cache.window]
        if windows:
            raise ValueError(
                f"left_padding cannot be used with caches that have a window ({windows[0]}), "
                "which keep no order: use model.new_caches()"
            )
        # With caches a prompt may come in parts, the first of which are padding only.
        total = tokens.shape[1] if caches is None else self.context
        return check_left_padding(left_padding, tokens, total)

    def _length(self, caches: Sequence[KVCache] | None, causal: bool) -> Any:
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

    def _static_length(self, caches: Sequence[KVCache], alike: bool) -> Array:
        """Return the length of the first; whether all are equal only the GPU knows."""
        # Comparing ids would make torch.compile compile anew for each set of caches.
        if not alike or any(a is b for a, b in combinations(caches, 2)):
            raise ValueError("each layer needs its own cache, all static or none")
        slots = max(cache.slots for cache in caches)
        if slots > self.context:
            raise ValueError(f"caches of {slots} slots, but the model has {self.context} positions")
        return caches[0].length

    def new_caches(
        self, batch: int = 1, capacity: int | None = None, *, static: bool = False
    ) -> list[KVCache]:
        """Return one empty cache per layer, for `capacity` tokens (all positions unless given).

        With `static`, which needs torch, they are :class:`attncore.StaticKVCache`, for
        ``torch.compile(model)``. They are of the dtype of the keys: the parameters', or under
        ``torch.autocast`` its own.
        """
        layer = self.blocks[0].attention
        kind: Any = StaticKVCache if static else KVCache
        capacity = self.context if capacity is None else capacity
        like = self._like_keys()
        return [
            kind(batch, layer.kv_heads, capacity, layer.head_dim, like=like) for _ in self.blocks
        ]

    def _like_keys(self) -> Array:
        """Return an array of the keys' library, dtype and device."""
        return self.embedding.weight

    def _check_prompt(
        self,
        tokens: Array,
        steps: int,
        left_padding: Array | None,
        generator: object,
        kind: type,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> int:
        """Raise unless a text can be written; return the steps as a plain integer."""
        check_tokens(tokens, self.embedding.weight)
        if tokens.shape[1] < 1:
            raise ValueError(
                f"a prompt must be (B, T) with T at least 1, got {tuple(tokens.shape)}"
            )
        check_vocabulary("tokens", tokens, len(self.embedding.weight))
        if left_padding is not None:
            check_left_padding(left_padding, tokens, tokens.shape[1])
        steps = check_least("steps", steps, 0)
        if (needed := tokens.shape[1] + steps - 1) > self.context:
            raise ValueError(f"{needed} tokens to read, but the model has {self.context} positions")
        sampling.check_settings(temperature, top_k, top_p)
        made = "torch.Generator().manual_seed(0)"
        if kind is np.random.Generator:
            made = "numpy.random.default_rng(0)"
        each = generator if isinstance(generator, (list, tuple)) else [generator]
        for one in each:
            if not (generator is None or isinstance(one, kind)):
                wanted = f"{kind.__module__.removesuffix('._C')}.{kind.__name__}"
                raise TypeError(
                    f"generator must be a {wanted}, got {type(one).__name__}: use {made}"
                )
        if each is generator and len(each) != len(tokens):
            raise ValueError(
                f"generator must be one, or a list of one for each of the {len(tokens)} rows of "
                f"tokens, got {len(each)}"
            )
        if (generator is None) != (temperature == 0):
            raise ValueError(
                f"a temperature above 0 and a generator, such as {made}, need each other: at "
                "temperature 0 nothing is drawn"
            )
        return steps

    def _check_draft(self, draft: Any, ahead: int, tokens: Array, steps: int) -> int:
        """Raise unless a draft can propose tokens; return how many at a time."""
        ahead = check_least("ahead", ahead, 1)
        if not isinstance(draft, DecoderParts):
            if not (draft is None or callable(draft)):
                raise TypeError(
                    "draft must be a Decoder, or a function of tokens (B, T) that returns the "
                    f"logits (B, N) of the next, got {type(draft).__name__}"
                )
            return ahead
        own, other = self.embedding.weight, draft.embedding.weight
        namespace(model=own, draft=other)
        check_device(model=own, draft=other)
        if len(own) != len(other):
            raise ValueError(
                f"draft must know the same tokens: it has {len(other)}, the model {len(own)}"
            )
        if (needed := tokens.shape[1] + steps - 2) > draft.context:
            raise ValueError(
                f"{needed} tokens to read, but draft has {draft.context} positions: take fewer "
                "steps, or a draft with a larger context"
            )
        return ahead

    def _guess(
        self,
        draft: Any,
        batch: int,
        left_padding: Array | None,
        cached: bool,
        quick: Callable[[Any], Any] = lambda model: model,
    ) -> tuple[Callable[[Array], Array], Sequence[KVCache]]:
        """Return what scores the next tokens of a text by a draft, and the caches that it has."""
        if not isinstance(draft, DecoderParts):
            return asked(draft, len(self.embedding.weight)), ()
        caches = draft.new_caches(batch) if cached else None
        return reader(quick(draft), caches, left_padding), caches or ()

    def decode(self, tokens: Array) -> str:
        """Return the text of one row of tokens, `(T,)`."""
        if not (is_tensor(tokens) or isinstance(tokens, np.ndarray)):
            raise TypeError(f"tokens must be integers (T,), an array, got {type(tokens).__name__}")
        if tokens.ndim != 1 or dtype_name(tokens) not in INTEGERS:
            raise ValueError(
                f"tokens must be one row of integers (T,), got {dtype_name(tokens)} "
                f"{shape_of(tokens)}: decode row by row, such as tokens[0]"
            )
        check_vocabulary("tokens", tokens, len(self.embedding.weight))
        return self.tokenizer.decode(tokens.tolist())

    def encode(self, text: str) -> Array:
        """Return the tokens of a text, `(1, T)`, where the model's parameters are."""
        return self._array([self._ids(text)])

    def encode_batch(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """Return tokens `(B, T)` of several texts, and the padding before each, `(B,)`.

        T is the length of the longest; padding is token 0. Both go into :meth:`generate`, the
        second as ``left_padding=``.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise TypeError("texts must be a list of str, one at least: encode(text) takes one")
        rows = [self._ids(text) for text in texts]
        if not all(rows):
            raise ValueError("texts must have a token each, and one of them is empty")
        T = max(map(len, rows))
        padding = [T - len(row) for row in rows]
        padded = [[0] * n + list(row) for n, row in zip(padding, rows, strict=True)]
        return self._array(padded), self._array(padding)

    def _ids(self, text: str) -> list[int]:
        """Return the token numbers of a text."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, got {type(text).__name__}: encode one at a time")
        encoded = self.tokenizer.encode(text)
        return getattr(encoded, "ids", encoded)


def write(
    read: Callable[..., Array],
    step: Callable[..., Array],
    tokens: Array,
    steps: int,
    caches: Sequence[KVCache] | None,
    choose: Callable[[Array], Array],
    left_padding: Array | None = None,
) -> Array:
    """Append `steps` tokens to `(B, T)`: `read` scores the prompt, `step` each one after it.

    `choose` turns logits `(B, N)` into tokens `(B,)`.
    """
    xp, unread = namespace(tokens=tokens), tokens
    given = {} if left_padding is None else {"left_padding": left_padding}
    for _ in range(steps):
        logits = read(unread if caches else tokens, caches, **given)[:, -1]
        read = step
        unread = choose(logits)[:, None]
        tokens = xp.concatenate([tokens, unread], 1)
    return tokens


def reader(
    step: Callable[..., Array], caches: Sequence[KVCache] | None, left_padding: Array | None
) -> Callable[[Array], Array]:
    """Return what scores a text that goes on, `(B, n, N)`: the n tokens that are not cached."""
    given = {} if left_padding is None else {"left_padding": left_padding}

    def read(tokens: Array) -> Array:
        return step(tokens[:, caches[0].length :] if caches else tokens, caches, **given)

    return read


def asked(draft: Callable[[Array], Array], N: int) -> Callable[[Array], Array]:
    """Return a :func:`reader` of what a function says of the next token, `(B, N)`."""

    def read(tokens: Array) -> Array:
        logits = draft(tokens)
        if not (is_tensor(logits) or isinstance(logits, np.ndarray)):
            raise TypeError(f"draft must return logits (B, N), got {type(logits).__name__}")
        namespace(tokens=tokens, draft=logits)
        check_device(tokens=tokens, draft=logits)
        if shape_of(logits) != (len(tokens), N):
            raise ValueError(
                f"draft must return logits (B, N) = {(len(tokens), N)}, got {shape_of(logits)}"
            )
        return logits[:, None]

    return read


def speculate(
    read: Callable[[Array], Array],
    guess: Callable[[Array], Array],
    caches: Sequence[KVCache],
    tokens: Array,
    steps: int,
    ahead: int,
    uniform: Callable[[Array], Array] | None,
    **settings: Any,
) -> Array:
    """Append `steps` tokens to `(B, T)`: `guess` proposes some, and one `read` decides on them.

    The rows of a batch go on together: as many tokens are taken as the row that keeps fewest has.
    """
    xp, stop = namespace(tokens=tokens), tokens.shape[1] + steps

    def probable(logits: Array) -> Array:
        return sampling.probabilities(cast(xp, logits, widest(xp, logits)), **settings)

    def number(p: Array) -> Array:
        return xp.zeros_like(p[:, 0]) if uniform is None else uniform(p)

    while (T := tokens.shape[1]) < stop:
        n, text, proposed = min(ahead, stop - T - 1), tokens, []
        for _ in range(n):
            proposed.append(probable(guess(text)[:, -1]))
            token = sampling.draw(proposed[-1], number(proposed[-1]))
            text = xp.concatenate([text, token[:, None]], 1)
        p = probable(read(text)[:, -n - 1 :])  # (B, n + 1, N)
        q = xp.stack(proposed, 1) if n else p[:, :0]
        numbers = xp.stack([number(p[:, 0]) for _ in range(n + 1)], 1)
        kept, token = sampling.accept(p, q, text[:, T:], numbers)
        least = int(kept.min())
        if least < n:  # other rows have kept the next one
            token = xp.where(kept == least, token, text[:, T + least])
        tokens = xp.concatenate([text[:, : T + least], token[:, None]], 1)
        for cache in caches:  # what was rejected is forgotten, and the last token is not read yet
            cache.crop(min(cache.length, T + least))
    return tokens


def chooser(uniform: Callable[[Array], Array] | None, **settings: Any) -> Callable[[Array], Array]:
    """Return what chooses the next tokens: the likeliest, or by numbers `uniform(p)` in [0, 1)."""

    def choose(logits: Array) -> Array:
        if uniform is None:
            return logits.argmax(-1)
        p = sampling.probabilities(wide(namespace(logits=logits), logits), **settings)
        return sampling.draw(p, uniform(p))

    return choose


class Decoder(DecoderParts, Module):
    r"""A decoder-only language model, with learned positions or `rope`.

    .. math:: x_t = E_{c_t} + P_t, \qquad x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits}_t = \operatorname{norm}(x_t) E^\top

    The NumPy twin of :class:`attncore.nn.Decoder`: it reads, writes and can be looked into.

    Parameters
    ----------
    tokenizer, d_model, layers, heads, kv_heads, context, rope, norm, norm_eps, tied, block
        As in :class:`attncore.nn.Decoder`.
    dtype
        Of the parameters.
    rng
        A seed or a NumPy generator, from which they are drawn.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.Decoder`.

    References
    ----------
    Radford et al. (2019); Ainslie et al. (2023) for the shared key/value heads.

    Examples
    --------
    >>> model = Decoder("abc ", d_model=16, layers=2, heads=4, kv_heads=2, context=32, rng=0)
    >>> tokens = model.encode("a cab")
    >>> tokens
    array([[0, 3, 2, 0, 1]])
    >>> model(tokens).shape                                      # (B, T, N)
    (1, 5, 4)
    >>> model.look(tokens)["blocks.1.attention.weights"].shape   # (B, H, T, Tk)
    (1, 4, 5, 5)
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
        dtype: Any = np.float64,
        rng: Any = None,
        **block: Any,
    ) -> None:
        check_sizes(d_model=d_model, layers=layers, context=context)
        tied = check_flag("tied", tied)
        self._set_tokenizer(tokenizer, context)
        options: dict[str, Any] = {"dtype": dtype, "rng": np.random.default_rng(rng)}
        N = self.tokenizer.get_vocab_size()
        self.embedding = Embedding(N, d_model, std=0.02, **options)
        self.position = Embedding(context, d_model, std=0.02, **options) if rope is None else None
        block |= {"rope": rope, "norm": norm, "norm_eps": norm_eps, **options}
        self.blocks = [Block(d_model, heads, kv_heads, **block) for _ in range(layers)]
        self.norm = norm_of(norm, d_model, norm_eps, dtype)
        self.output = None if tied else Linear(d_model, N, bias=False, **options)

    def generate(
        self,
        tokens: np.ndarray,
        steps: int,
        *,
        left_padding: Array | None = None,
        cached: bool = True,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: np.random.Generator | Sequence[np.random.Generator] | None = None,
        draft: Decoder | Callable[[np.ndarray], np.ndarray] | None = None,
        ahead: int = 4,
    ) -> np.ndarray:
        """Append a next token, `steps` times: the likeliest, or one drawn at random.

        Parameters
        ----------
        tokens, steps, left_padding, cached, temperature, top_k, top_p, draft, ahead
            As in :meth:`attncore.nn.Decoder.generate`.
        generator
            Where chance comes from, if the temperature is above 0: a NumPy generator, which draws
            other numbers than torch's from the same seed; or a list of one for each row.

        Returns
        -------
        ndarray
            `(B, T + steps)`.
        """
        settings: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        kind = np.random.Generator
        steps = self._check_prompt(tokens, steps, left_padding, generator, kind, **settings)
        ahead = self._check_draft(draft, ahead, tokens, steps)
        caches = self.new_caches(len(tokens)) if cached else None

        def draw(p: np.ndarray) -> np.ndarray:
            if isinstance(generator, np.random.Generator):
                return generator.random(len(p))
            return np.array([one.random() for one in generator or ()])

        uniform = None if generator is None else draw
        if draft is None:
            choose = chooser(uniform, **settings)
            return write(self, self, tokens, steps, caches, choose, left_padding)
        guess, others = self._guess(draft, len(tokens), left_padding, cached)
        read, both = reader(self, caches, left_padding), [*(caches or ()), *others]
        return speculate(read, guess, both, tokens, steps, ahead, uniform, **settings)

    def _array(self, numbers: Any) -> np.ndarray:
        return np.array(numbers, dtype=np.int64)


def load(path: Any, dtype: Any = np.float32) -> Decoder:
    """Return a model that :mod:`attncore.training` has written, with NumPy parameters.

    Parameters
    ----------
    path
        Of the file; or the file, opened for reading bytes.
    dtype
        Of the parameters.

    Returns
    -------
    Decoder
        Nothing of it is drawn.

    Raises
    ------
    ValueError
        If the file holds no such model.
    TypeError
        If `dtype` is not a floating-point dtype of NumPy.
    ModuleNotFoundError
        If the model reads pieces of words and `tokenizers` is not installed.
    """
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype must be one such as numpy.float32, got {dtype!r}") from None
    if dtype.kind != "f":
        raise TypeError(f"dtype must be one such as numpy.float32, got {dtype}")
    sizes, state = stored(path)
    model = Decoder(tokenizer_of(sizes), **sizes, dtype=dtype, rng=0)
    model.load_state_dict(state)
    return model


def stored(path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the sizes and the parameters that a file holds."""
    raw = path.read() if hasattr(path, "read") else Path(path).read_bytes()
    try:
        with np.load(io.BytesIO(raw)) as found:
            sizes = json.loads(str(found["sizes"]))
            names: Iterable[str] = (name for name in found.files if name != "sizes")
            return sizes, {name: found[name] for name in names}
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} holds no model that attncore.training has written") from error


def tokenizer_of(sizes: dict[str, Any]) -> str | Tokenizer:
    """Take the tokenizer out of what a file holds of sizes."""
    if "tokenizer" not in sizes:
        return sizes.pop("characters")
    from tokenizers import Tokenizer as Pieces

    pieces: Tokenizer = Pieces.from_str(sizes.pop("tokenizer"))
    return pieces


def whale(dtype: Any = np.float32) -> Decoder:
    """Return a model that the authors of this book trained on *Moby-Dick*, in NumPy.

    The parameters are those of :func:`attncore.nn.whale`, which says more of them.

    Parameters
    ----------
    dtype
        Of the parameters.

    Returns
    -------
    Decoder
        As :func:`load` returns it.

    References
    ----------
    Melville (1851), in the public domain.

    Examples
    --------
    >>> model = whale()
    >>> model.decode(model.generate(model.encode("Call me "), 5)[0])
    'Call me that '
    """
    return whale_of(load, dtype)


def whale_of(load: Callable[..., Any], dtype: Any) -> Any:
    """Return the model that comes with the package, as `load` reads it."""
    return load(io.BytesIO(files.read("whale.npz")), dtype)
