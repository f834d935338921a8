"""Train four kinds of date translators from five seeds each, for chapter 5, and keep their scores.

    python tools/train_date_models.py      three minutes on one CPU core

They are the four that come from two questions. Is the source read by a recurrent network, one
character after another, or by self-attention? And does the decoder get one vector of the source,
or attend to all of its rows? The recurrent models are as Sutskever et al. (2014) and Luong et al.
(2015) drew them, with gated recurrent units; the one vector is the last state. Without recurrence
it is the average of the rows, as in `train_translators.py`. All have width 48, and 600 steps of 24
lists of one, two and three dates.

The file, data/kept/date_models.json, has for each kind and seed the share of 300 new lists that it
writes without any error, 100 of each length, at the steps named. Elsewhere rounding differs, and
with it a list here or there.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from kept_runs import keep
from train_translators import TEST, date_pairs

import attncore as ac
from attncore.models.seq2seq import END, up_to_end
from attncore.nn import Translator, fit

KINDS = {
    "recurrent, last state": (True, False),
    "recurrent, all states": (True, True),
    "attention, average": (False, False),
    "attention, all rows": (False, True),
}
STEPS, SEEDS = (50, 100, 200, 300, 450, 600), 5


class Recurrent(Translator):
    """An encoder and a decoder of gated recurrent units, with attention between them or without."""

    def __init__(self, pairs: list[tuple[str, str]], *, attend: bool, d_model: int = 48) -> None:
        super().__init__(pairs, d_model=d_model)
        for name in ("encoder", "decoder", "norm_context", "norm_output"):
            delattr(self, name)
        self.reader = torch.nn.GRU(d_model, d_model, batch_first=True)
        self.writer = torch.nn.GRU(d_model, d_model, batch_first=True)
        self.ask = torch.nn.Linear(d_model, d_model)
        self.join = torch.nn.Linear(2 * d_model, d_model)
        self.attend = attend

    def forward(self, sources, targets, *, look=None):
        """Score the next character after each token of `targets`, `(B, Tt)` -> `(B, Tt, N)`."""
        rows, lengths = self.tokens(sources, 0)
        states = self.reader(self.source_embedding(rows))[0]  # (B, Ts, d)
        last = states[torch.arange(len(rows)), lengths - 1]  # (B, d)
        written = self.writer(self.target_embedding(targets), last[None])[0]  # (B, Tt, d)
        if self.attend:
            mask = ac.masks.padding(lengths, rows.shape[1])[:, 0]  # (B, 1, Ts)
            found = ac.attention(self.ask(written), states, states, mask=mask)
            written = torch.tanh(self.join(torch.cat([written, found], -1)))
        return self.output(written)

    @torch.no_grad()
    def translate(self, sources: list[str]) -> list[str]:
        """Return the likeliest target of each source, one character after another."""
        written = torch.full((len(sources), 1), END)
        for _ in range(self.longest):
            likeliest = self(sources, written)[:, -1].argmax(-1)
            written = torch.cat([written, likeliest[:, None]], 1)
        return ["".join(self.letters[n] for n in up_to_end(row)) for row in written.tolist()]


def share(model: Translator, test: list[tuple[str, str]]) -> list[float]:
    """Return the share of lists of one, two and three dates that are written without any error."""
    out = model.translate([source for source, _ in test])
    right = [o == target for o, (_, target) in zip(out, test, strict=True)]
    return np.reshape(right, (-1, 3)).mean(axis=0).round(2).tolist()


def curve(kind: str, seed: int, steps: tuple[int, ...] = STEPS) -> list[list[float]]:
    """Train one model, and return its shares at each of the steps."""
    pairs = date_pairs()
    test, train = pairs[:TEST], pairs[TEST:]
    recurrent, everything = KINDS[kind]
    torch.manual_seed(seed)
    model = (
        Recurrent(train, attend=everything)
        if recurrent
        else Translator(train, summary=not everything)
    )
    found, calls = [], 0

    def note(*_: object) -> None:  # before the forward pass of step n, n steps are done
        nonlocal calls
        if calls in steps:
            handle.remove()
            found.append(share(model, test))
            again()
        calls += 1

    def again() -> None:
        nonlocal handle
        handle = model.register_forward_pre_hook(note)

    handle = model.register_forward_pre_hook(note)
    fit(model, train, steps=steps[-1], batch=24)
    handle.remove()
    return [*found, share(model, test)]


def main() -> None:
    """Train them all, and write."""
    torch.set_num_threads(1)
    shares = {}
    for kind in KINDS:
        shares[kind] = [curve(kind, seed) for seed in range(SEEDS)]
        print(kind, np.mean(shares[kind], axis=0).round(2).tolist(), file=sys.stderr)
    keep("date_models", {"steps": STEPS, "dates": [1, 2, 3], "shares": shares})


if __name__ == "__main__":
    main()
