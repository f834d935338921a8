"""A small encoder-decoder that spells one text as another, as a torch module.

Not loaded by ``import attncore``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from attncore.base.integers import check_sizes
from attncore.models.seq2seq import END, TranslatorParts, check_pairs, shifted
from attncore.nn.layers import Block


class Translator(TranslatorParts, nn.Module):
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
        sources, targets = self._set_texts(pairs, summary)
        self.source_embedding = nn.Embedding(sources, d_model)
        self.target_embedding = nn.Embedding(targets, d_model)
        self.source_position = nn.Embedding(self.longest, d_model)
        self.target_position = nn.Embedding(self.longest + 1, d_model)
        self.encoder = Block(d_model, heads)
        self.decoder = Block(d_model, heads, cross=True)
        self.norm_context, self.norm_output = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.output = nn.Linear(d_model, targets)

    def _array(self, numbers: list[Any]) -> Tensor:
        return torch.tensor(numbers, device=self.output.weight.device)

    @torch.no_grad()
    def translate(self, sources: Sequence[str]) -> list[str]:
        """Return the likeliest target of each source, one character after another."""
        return super().translate(sources)

    @torch.no_grad()
    def alignment(self, source: str, target: str) -> Tensor:
        """Return the weights `(H, Tt + 1, Ts)` of the decoder's cross-attention.

        Row t is where the model looks when it is about to write character t of the target;
        the last row, when it is about to end.
        """
        return super().alignment(source, target)


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
    check_pairs(pairs)
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
