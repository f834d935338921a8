"""A small encoder-decoder that spells one text as another: checks, text, NumPy parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attncore.base.arrays import Array, dtype_name, namespace, shape_of
from attncore.base.integers import check_sizes
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import INTEGERS, check_array, check_vocabulary
from attncore.models.layers import Block
from attncore.models.plain import Embedding, LayerNorm, Linear, Module

END = 0
"""The token that starts a target, ends it, and fills a batch up."""


class TranslatorParts:
    """Checks, text and forward pass of a translator; the parameters are elsewhere."""

    source_embedding: Any
    target_embedding: Any
    source_position: Any
    target_position: Any
    encoder: Any
    decoder: Any
    norm_context: Any
    norm_output: Any
    output: Any

    def _set_texts(self, pairs: Sequence[tuple[str, str]], summary: bool) -> tuple[int, int]:
        """Return how many tokens sources and targets are made of."""
        check_pairs(pairs)
        self.summary = summary
        letters = [sorted(set("".join(side))) for side in zip(*pairs, strict=True)]
        self.numbers = [{c: n + 1 for n, c in enumerate(side)} for side in letters]
        self.letters = ["", *letters[1]]  # of targets; END has none
        self.longest = max(len(text) for pair in pairs for text in pair)
        return len(letters[0]) + 1, len(letters[1]) + 1

    def forward(self, sources: Sequence[str], targets: Array, *, look: Look | None = None) -> Array:
        """Score the next character after each token of `targets`, `(B, Tt)` -> `(B, Tt, N)`."""
        rows, lengths = self.tokens(sources, 0)
        self._check(targets, len(rows))
        context, mask = functional.read(self, rows, lengths, look)
        try:
            return functional.write(self, targets, context, mask, look)
        except IndexError:
            check_vocabulary("targets", targets, len(self.letters))
            raise

    def encode(self, sources: Sequence[str]) -> tuple[Array, Array]:
        """Return what the decoder attends to, `(B, Ts, d_model)`, and its mask `(B, 1, 1, Ts)`."""
        return functional.read(self, *self.tokens(sources, 0))

    def tokens(self, texts: Sequence[str], side: int) -> tuple[Array, Array]:
        """Return texts of a side, 0 or 1, as rows of tokens `(B, T)`, and lengths `(B,)`."""
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise ValueError("texts must be a list of one text or more")
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"a text must be a str, got {type(text).__name__}")
        if side not in (0, 1):
            raise ValueError(f"side must be 0 (sources) or 1 (targets), got {side!r}")
        if "" in texts:
            raise ValueError("a text is empty")
        lengths = [len(text) for text in texts]
        width = max(lengths)
        if width > self.longest:
            raise ValueError(f"a text has {width} characters, the longest known {self.longest}")
        number = self.numbers[side]
        if unknown := sorted(set("".join(texts)) - set(number)):
            raise ValueError(f"the model does not know {''.join(unknown)!r}")
        rows = [[number[c] for c in text] + [END] * (width - len(text)) for text in texts]
        return self._array(rows), self._array(lengths)

    def _array(self, numbers: list[Any]) -> Array:
        """Return integers as an array of the parameters' library, on their device."""
        return np.array(numbers)

    def translate(self, sources: Sequence[str]) -> list[str]:
        """Return the likeliest target of each source, one character after another."""
        context, mask = self.encode(sources)
        written = self._array([[END]] * len(sources))
        done = written[:, 0] != END
        xp = namespace(written=written)
        while not done.all() and written.shape[1] <= self.longest:
            likeliest = functional.write(self, written, context, mask)[:, -1].argmax(-1)
            written = xp.concatenate([written, likeliest[:, None]], 1)
            done = done | (likeliest == END)
        return ["".join(self.letters[n] for n in up_to_end(row)) for row in written.tolist()]

    def alignment(self, source: str, target: str) -> Array:
        """Return the weights `(H, Tt + 1, Ts)` of the decoder's cross-attention.

        Row t is where the model looks when it is about to write character t of the target;
        the last row, when it is about to end.
        """
        found: dict[str, Array] = {}
        targets = shifted(self.tokens([target], 1)[0])
        self.forward([source], targets, look=functional.into(found))
        return found["decoder.cross.weights"][0]

    def _check(self, targets: Array, batch: int) -> None:
        try:
            check_array("targets", targets, self.output.weight)
        except TypeError as error:
            raise TypeError(f"{error}; shifted(model.tokens(texts, 1)[0]) makes targets") from None
        longest = self.longest + 1
        fits = targets.ndim == 2 and len(targets) == batch and targets.shape[1] <= longest
        if not fits or dtype_name(targets) not in INTEGERS:
            raise ValueError(
                f"targets must be integers (B, Tt) = ({batch}, at most {longest}), got "
                f"{dtype_name(targets)} {shape_of(targets)}"
            )


class Translator(TranslatorParts, Module):
    r"""An encoder block reads the source; a decoder block writes the target, by characters.

    .. math:: C = \operatorname{encoder}(\text{source}), \qquad
        \text{logits}_t = \operatorname{decoder}(\text{target}_{<t}, C)

    The NumPy twin of :class:`attncore.nn.Translator`.

    Parameters
    ----------
    pairs, summary, d_model, heads
        As in :class:`attncore.nn.Translator`.
    dtype
        Of the parameters.
    rng
        A seed or a NumPy generator, from which they are drawn.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.Translator`.

    References
    ----------
    Sutskever et al. (2014) for one summary vector, Bahdanau et al. (2015) for attention in
    its place, Vaswani et al. (2017) for the blocks.

    Examples
    --------
    >>> model = Translator([("abc", "z"), ("cab", "xyz")], rng=0)
    >>> model.alignment("cab", "zy").shape                       # (H, Tt + 1, Ts)
    (4, 3, 3)
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        summary: bool = False,
        d_model: int = 48,
        heads: int = 4,
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        check_sizes(d_model=d_model, heads=heads)
        sources, targets = self._set_texts(pairs, summary)
        rng = np.random.default_rng(rng)
        options: dict[str, Any] = {"dtype": dtype, "rng": rng}
        self.source_embedding = Embedding(sources, d_model, **options)
        self.target_embedding = Embedding(targets, d_model, **options)
        self.source_position = Embedding(self.longest, d_model, **options)
        self.target_position = Embedding(self.longest + 1, d_model, **options)
        self.encoder = Block(d_model, heads, **options)
        self.decoder = Block(d_model, heads, cross=True, **options)
        self.norm_context, self.norm_output = LayerNorm(d_model, dtype), LayerNorm(d_model, dtype)
        self.output = Linear(d_model, targets, **options)


def shifted(targets: Array) -> Array:
    """Return what the decoder reads, `(B, T + 1)`: END, then the target."""
    xp = namespace(targets=targets)
    return xp.concatenate([xp.full_like(targets[:, :1], END), targets], 1)


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Raise unless these are pairs of texts."""
    wanted = "pairs must be (source, target) texts, none of them empty"
    if not isinstance(pairs, Sequence) or len(pairs) == 0:
        raise ValueError(f"{wanted}, and at least one")
    for pair in pairs:
        fits = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not (fits and all(isinstance(text, str) and text for text in pair)):
            raise ValueError(f"{wanted}, got {pair!r}")


def up_to_end(row: list[int]) -> list[int]:
    """Return the tokens between the END that starts a row and the next one."""
    written = row[1:]
    return written[: written.index(END)] if END in written else written
