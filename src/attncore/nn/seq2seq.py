"""A small encoder-decoder that spells one text as another. Not loaded by ``import attncore``."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from attncore.base.arrays import check_device, dtype_name, padding_mask, shape_of
from attncore.base.integers import check_sizes
from attncore.nn.layers import Block

END = 0
"""The token that starts a target, ends it, and fills a batch up."""


class Translator(nn.Module):
    r"""An encoder block reads the source; a decoder block writes the target, by characters.

    .. math:: C = \operatorname{encoder}(\text{source}), \qquad
        \text{logits}_t = \operatorname{decoder}(\text{target}_{<t}, C)

    Parameters
    ----------
    pairs
        (source, target) texts; from these it knows its characters and its longest text.
    summary
        If True the decoder attends to one vector, the average of the rows of C, in place of
        C. The parameters are the same.
    d_model, heads
        The sizes of both blocks.

    Raises
    ------
    ValueError
        If there are no pairs or a size does not fit; later, if a text is empty, has another
        character or is longer, or targets are no tokens `(B, Tt)` on the model's device.
    TypeError
        If a text is not a str, a size not an integer or targets are no tensor.

    References
    ----------
    Sutskever et al. (2014) for one summary vector, Bahdanau et al. (2015) for attention in
    its place, Vaswani et al. (2017) for the blocks.

    Examples
    --------
    >>> model = Translator([("abc", "z"), ("cab", "xyz")])
    >>> model.translate(["ab"])[0].strip("xyz")                  # untrained, but in letters
    ''
    >>> model.alignment("cab", "zy").shape                       # (H, Tt + 1, Ts)
    torch.Size([4, 3, 3])
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        summary: bool = False,
        d_model: int = 48,
        heads: int = 4,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, heads=heads)
        _check_pairs(pairs)
        self.summary = summary
        letters = [sorted(set("".join(side))) for side in zip(*pairs, strict=True)]
        self.numbers = [{c: n + 1 for n, c in enumerate(side)} for side in letters]
        self.letters = ["", *letters[1]]  # of targets; END has none
        self.longest = max(len(text) for pair in pairs for text in pair)
        self.source_embedding = nn.Embedding(len(letters[0]) + 1, d_model)
        self.target_embedding = nn.Embedding(len(letters[1]) + 1, d_model)
        self.source_position = nn.Embedding(self.longest, d_model)
        self.target_position = nn.Embedding(self.longest + 1, d_model)
        self.encoder = Block(d_model, heads)
        self.decoder = Block(d_model, heads, cross=True)
        self.norm_context, self.norm_output = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, len(letters[1]) + 1)

    def forward(self, sources: Sequence[str], targets: Tensor) -> Tensor:
        """Score the next character after each token of `targets`, `(B, Tt)` -> `(B, Tt, N)`."""
        context, mask = self.encode(sources)
        self._check(targets, len(context))
        try:
            return self._decode(targets, context, mask)
        except IndexError:
            N = len(self.letters)
            raise ValueError(f"targets must be tokens from 0 to N - 1 = {N - 1}") from None

    def encode(self, sources: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return what the decoder attends to, `(B, Ts, d_model)`, and its mask `(B, 1, 1, Ts)`."""
        rows, lengths = self.tokens(sources, 0)
        mask = padding_mask(lengths, rows.shape[1])
        x = self.source_embedding(rows) + self.source_position.weight[: rows.shape[1]]
        x = self.norm_context(self.encoder(x, mask=mask))
        if not self.summary:
            return x, mask
        real = mask[:, 0, 0, :, None]  # (B, Ts, 1)
        mean = (x * real).sum(dim=1, keepdim=True) / lengths[:, None, None]
        return mean, mask[..., :1]

    def tokens(self, texts: Sequence[str], side: int) -> tuple[Tensor, Tensor]:
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
        unknown = sorted(set("".join(texts)) - set(self.numbers[side]))
        if unknown:
            raise ValueError(f"the model does not know {''.join(unknown)!r}")
        number = self.numbers[side]
        rows = [[number[c] for c in text] + [END] * (width - len(text)) for text in texts]
        device = self.output.weight.device
        return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)

    @torch.no_grad()
    def translate(self, sources: Sequence[str]) -> list[str]:
        """Return the likeliest target of each source, one character after another."""
        context, mask = self.encode(sources)
        written = torch.full((len(sources), 1), END, device=context.device)
        done = torch.zeros(len(sources), dtype=torch.bool, device=context.device)
        while not done.all() and written.shape[1] <= self.longest:
            likeliest = self._decode(written, context, mask)[:, -1].argmax(dim=-1)
            written = torch.cat([written, likeliest[:, None]], dim=1)
            done |= likeliest == END
        return ["".join(self.letters[n] for n in _up_to_end(row)) for row in written.tolist()]

    @torch.no_grad()
    def alignment(self, source: str, target: str) -> Tensor:
        """Return the weights `(H, Tt + 1, Ts)` of the decoder's cross-attention.

        Row t is where the model looks when it is about to write character t of the target;
        the last row, when it is about to end.
        """
        context, mask = self.encode([source])
        x = self._embed(shifted(self.tokens([target], 1)[0]))
        block: Any = self.decoder
        x = x + block.attention(block.norm1(x), causal=True)
        return block.cross.weights(block.norm_cross(x), context, mask)[0]

    def _check(self, targets: Tensor, batch: int) -> None:
        if not isinstance(targets, Tensor):
            raise TypeError(
                f"targets must be a tensor of tokens, got {type(targets).__name__}: use "
                "shifted(model.tokens(texts, 1)[0])"
            )
        longest = self.longest + 1
        fits = targets.ndim == 2 and len(targets) == batch and targets.shape[1] <= longest
        if not fits or targets.dtype not in (torch.int64, torch.int32):
            raise ValueError(
                f"targets must be integers (B, Tt) = ({batch}, at most {longest}), got "
                f"{dtype_name(targets)} {shape_of(targets)}"
            )
        check_device(targets=targets, parameters=self.output.weight)

    def _decode(self, targets: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        x = self.decoder(self._embed(targets), context, mask, causal=True)
        return self.output(self.norm_output(x))

    def _embed(self, targets: Tensor) -> Tensor:
        return self.target_embedding(targets) + self.target_position.weight[: targets.shape[1]]


def fit(
    model: Translator,
    pairs: Sequence[tuple[str, str]],
    *,
    steps: int,
    batch: int = 32,
    rate: float = 1e-2,
) -> list[float]:
    """Train on pairs drawn at random, always in the same order; return the loss of each step.

    Parameters
    ----------
    model
        Changed in place.
    pairs
        (source, target) texts.
    steps, batch
        How many steps, and pairs in each.
    rate
        The largest learning rate, of AdamW with one warm-up and decay.

    Returns
    -------
    list of float
        Cross-entropy per character in nats. A progress bar is shown meanwhile.

    Raises
    ------
    ValueError
        If `steps` or `batch` is below 1, `rate` not positive and finite, or `pairs` are
        not such as the model takes.
    TypeError
        If `steps` or `batch` is not an integer.
    """
    from tqdm import tqdm

    check_sizes(steps=steps, batch=batch)
    _check_pairs(pairs)
    if not (isinstance(rate, Real) and 0 < rate < math.inf):
        raise ValueError(f"rate must be positive and finite, got {rate!r}")
    optimizer = torch.optim.AdamW(model.parameters(), rate, fused=True)
    warm_up = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warm_up, (1 + math.cos(math.pi * n / steps)) / 2)
    )
    generator = torch.Generator("cpu").manual_seed(0)  # one order on every device
    losses = []
    for _ in tqdm(range(steps), file=sys.stdout):
        chosen = torch.randint(len(pairs), (batch,), generator=generator, device="cpu").tolist()
        sources, targets = zip(*(pairs[n] for n in chosen), strict=True)
        rows, lengths = model.tokens(targets, 1)
        places = torch.arange(rows.shape[1] + 1, device=rows.device)
        wanted = pad(rows, (0, 1), value=END)
        wanted = wanted.masked_fill(places > lengths[:, None], -100)  # nothing after the END
        loss = cross_entropy(model(sources, shifted(rows)).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def shifted(targets: Tensor) -> Tensor:
    """Return what the decoder reads, `(B, T + 1)`: END, then the target."""
    return pad(targets, (1, 0), value=END)


def _check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Raise unless these are pairs of texts."""
    wanted = "pairs must be (source, target) texts, none of them empty"
    if not isinstance(pairs, Sequence) or len(pairs) == 0:
        raise ValueError(f"{wanted}, and at least one")
    for pair in pairs:
        fits = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not (fits and all(isinstance(text, str) and text for text in pair)):
            raise ValueError(f"{wanted}, got {pair!r}")


def _up_to_end(row: list[int]) -> list[int]:
    """Return the tokens between the END that starts a row and the next one."""
    written = row[1:]
    return written[: written.index(END)] if END in written else written
