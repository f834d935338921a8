"""Train the book's two date translators, attncore's trained("translator") and trained("summary").

    python tools/train_translators.py

Both are for chapter 5 and differ in one thing: the decoder of the first attends to every row that
the encoder made of the source, the decoder of the second to their average alone. Each takes 1,500
steps of 24 lists of dates, some 40 seconds on one CPU core. Of 300 lists that neither was trained
on, 100 of each length, they write without any error

    step     with attention, of 1, 2 and 3 dates     with one summary vector
    300              1.00  0.99  0.88                    0.88  0.05  0.00
    1500             1.00  1.00  1.00                    1.00  0.94  0.52

(the script prints the shares at each step that is kept). The files are this script's result on one
machine; elsewhere rounding differs, and with it every bit.
"""

from __future__ import annotations

import datetime
import random

import numpy as np
import torch
from kept_models import keep

from attncore.models import trained
from attncore.nn import Translator, fit

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sept", "Oct", "Nov", "Dec"]
KEPT = {"translator": [50, 200, 300, 1500], "summary": [300, 1500]}
LAST = 1500
TEST = 300  # pairs: the first ones


def spelled(dates: list[datetime.date]) -> tuple[str, str]:
    """Return a list of dates as Britons and as Chinese write it."""
    british = ", ".join(f"{d.day} {MONTHS[d.month - 1]}" for d in dates)
    return british, "、".join(f"{d.month}月{d.day}日" for d in dates)


def date_pairs() -> list[tuple[str, str]]:
    """Return 6,000 lists of one, two and three dates in turn, in both languages."""
    draw, start = random.Random(0), datetime.date(2024, 1, 1)  # noqa: S311 (no secret)
    days = [start + datetime.timedelta(n) for n in range(366)]
    return [spelled(draw.sample(days, 1 + n % 3)) for n in range(6000)]


def covering(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a few pairs with all the characters, and the longest text, of the others."""
    few: list[tuple[str, str]] = []
    for pair in sorted(pairs, key=lambda pair: -max(map(len, pair))):
        if any(set(text) - set("".join(p[side] for p in few)) for side, text in enumerate(pair)):
            few.append(pair)
    return few


def states(model: Translator, pairs: list[tuple[str, str]], steps: list[int]) -> dict[int, dict]:
    """Train, and return the parameters as they were after these steps."""
    found: dict[int, dict] = {}
    calls = 0

    def note(*_: object) -> None:  # before the forward pass of step n, n steps are done
        nonlocal calls
        if calls in steps:
            found[calls] = {name: p.clone() for name, p in model.state_dict().items()}
        calls += 1

    hook = model.register_forward_pre_hook(note)
    fit(model, pairs, steps=LAST, batch=24)
    hook.remove()
    return {**found, LAST: model.state_dict()}


def main() -> None:
    """Train both, keep them, and score what was kept."""
    torch.set_num_threads(1)
    pairs = date_pairs()
    test, train = pairs[:TEST], pairs[TEST:]
    for name, steps in KEPT.items():
        torch.manual_seed(0)
        model = Translator(train, summary=name == "summary")
        path = keep(name, "Translator", [covering(train)], {"summary": model.summary},
                    states(model, train, steps))  # fmt: skip
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        for step in steps:
            out = trained(name, step).translate([source for source, _ in test])
            right = [o == target for o, (_, target) in zip(out, test, strict=True)]
            print(step, np.reshape(right, (-1, 3)).mean(axis=0).round(2))


if __name__ == "__main__":
    main()
