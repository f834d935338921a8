"""Train a language model on Moby-Dick, and score it on text it has not seen.

    python tools/train_lm.py                  the book's model, attncore's whale(), and the curve
                                              of its training: an hour on one CPU core
    python tools/train_lm.py --recipe gpu     a model of 24 million parameters on pieces of words,
                                              for one CUDA card: bfloat16, compiled
    python tools/train_lm.py --score          only score the book's model

`--text FILES` adds texts of yours to train on, which must not hold the end of the novel: it is
held out. The larger recipe keeps the model that does best on the first half of that end, and is
judged by the second, which chose nothing. `--steps` and `--batch` make a run shorter. The file with
the model (`--out`) is read by `attncore.nn.load`. The GPU recipe has been run by its authors for a
few steps on a CPU, and on no GPU yet.

The book's file is this script's result on one machine. Elsewhere rounding differs, and with it
every bit; the score should come out about the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from attncore import pick_device
from attncore.data import moby_dick
from attncore.nn import Decoder, load, whale

DATA = Path(__file__).resolve().parent.parent / "src/attncore/data"
WHALE, CURVE = DATA / "whale.npz", DATA / "kept/whale_training.json"
SAMPLES = (0, 100, 1000)  # the steps after which the book's model writes, and after the last
HELD_OUT = 0.05  # of the novel, its end


@dataclass(frozen=True)
class Recipe:
    """What to train, and how."""

    sizes: dict[str, int]
    pieces: int | None  # tokens of a byte-level BPE; None: characters
    steps: int
    batch: int
    rate: float
    warm_up: int
    score_every: int  # steps; the best model is kept (0: the last), and ten in vain are the end
    draw_every: int  # steps between the points of the curve (0: none)
    cpu: bool  # one thread: the same bits each time on one machine


RECIPES = {
    "book": Recipe(
        sizes={"d_model": 96, "layers": 4, "heads": 4, "kv_heads": 2, "context": 256},
        pieces=None,
        steps=9000,
        batch=32,
        rate=3e-3,
        warm_up=100,
        score_every=0,
        draw_every=150,
        cpu=True,
    ),
    # 6 operations for each parameter and token: 6 x 24e6 x 64 x 512 x 10,000 = 5e16, a quarter of
    # an hour at 5e13 a second. The novel alone is learnt by heart long before, and training stops.
    "gpu": Recipe(
        sizes={"d_model": 512, "layers": 8, "heads": 8, "kv_heads": 2, "context": 512},
        pieces=4096,
        steps=10_000,
        batch=64,
        rate=6e-4,
        warm_up=200,
        score_every=100,
        draw_every=0,
        cpu=False,
    ),
}


def parts() -> tuple[str, str]:
    """Return the novel's text to learn from, and that held out."""
    text = moby_dick()
    edge = int(len(text) * (1 - HELD_OUT))
    return text[:edge], text[edge:]


def halves() -> tuple[str, str]:
    """Return the held-out text in two parts: to choose a model by, and to judge the chosen by."""
    held_out = parts()[1]
    middle = len(held_out) // 2
    return held_out[:middle], held_out[middle:]


def judge(recipe: Recipe) -> str:
    """Return the text that had no say in what a recipe made."""
    return halves()[1] if recipe.score_every else parts()[1]


def check_unseen(more: str) -> None:
    """Raise if 80 characters of the held-out text are in `more`, however its lines are broken."""
    held_out, more = (" ".join(text.split()) for text in (parts()[1], more))
    for start in range(0, len(held_out) - 79, 80):
        if (passage := held_out[start : start + 80]) in more:
            raise ValueError(
                f"the texts to train on hold some of the text to judge by, {passage!r}: cut it out"
            )


def new_model(recipe: Recipe, text: str) -> Decoder:
    """Return an untrained model for what is in the text."""
    if recipe.pieces is None:
        return Decoder("".join(sorted(set(text + moby_dick()))), **recipe.sizes)
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text], vocab_size=recipe.pieces, show_progress=False)
    return Decoder(tokenizer, **recipe.sizes)


def loss(model: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the next token, in nats; windows `(B, T + 1)`."""
    logits = model(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def bits_per_character(model: Decoder, text: str) -> float:
    """Score the model on a text, cut into windows that know nothing of each other."""
    held_out = model.encode(text)[0]
    length = model.context + 1
    with torch.no_grad():
        windows = held_out[: len(held_out) // length * length].view(-1, length)
        losses = [loss(model, part) * len(part) for part in windows.split(32)]
    nats = float(sum(losses)) / len(windows)
    return nats * len(held_out) / len(text) / math.log(2)


class Curve:
    """What a training is like on the way: scores on text seen and unseen, and what it writes."""

    def __init__(self, every: int) -> None:
        self.every, self.seen_text = every, parts()[0][: len(parts()[1])]
        self.found: dict[str, list[Any]] = {
            name: [] for name in ("step", "rate", "seen", "unseen", "samples")
        }

    def look(self, model: Decoder, step: int, rate: float, last: bool) -> None:
        """Add a point after `step` steps, and a sample now and then."""
        if step % self.every == 0 or last:
            scores = [bits_per_character(model, text) for text in (self.seen_text, parts()[1])]
            self.found["step"].append(step)
            for name, x in zip(("rate", "seen", "unseen"), (rate, *scores), strict=True):
                self.found[name].append(round(x, 5))
        if step in SAMPLES or last:
            chance = torch.Generator().manual_seed(0)
            start = model.encode("Call me ")
            wrote = model.generate(start, 150, temperature=0.8, generator=chance)[0]
            self.found["samples"].append([step, model.decode(wrote)])


def train(
    recipe: Recipe, more: str = "", *, curve: Curve | None = None, compiled: bool = True
) -> Decoder:
    """Return a model trained on the novel, and on `more`."""
    check_unseen(more)
    torch.manual_seed(0)
    text = parts()[0] + more
    device = torch.device("cpu") if recipe.cpu else pick_device()
    model = new_model(recipe, text).to(device)
    tokens = model.encode(text)[0]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.rate,
        betas=(0.9, 0.99),
        fused=None if recipe.cpu else True,
    )
    steps, warm_up = recipe.steps, recipe.warm_up
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda n: min(1, (n + 1) / warm_up) * (0.05 + 0.475 * (1 + math.cos(math.pi * n / steps))),
    )
    called = torch.compile(model) if compiled and not recipe.cpu else model
    best, best_step, kept = math.inf, 0, None
    offsets = torch.arange(model.context + 1, device=device)
    if curve:
        curve.look(model, 0, schedule.get_last_lr()[0], False)
    bar = tqdm(range(1, steps + 1), unit="step")
    for step in bar:
        starts = torch.randint(len(tokens) - model.context, (recipe.batch, 1)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(called, tokens[starts + offsets])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if curve:
            curve.look(model, step, schedule.get_last_lr()[0], step == steps)
        schedule.step()
        if step % 100 == 1:
            bar.set_postfix(nats=f"{value.item():.2f}")
        if recipe.score_every and (step % recipe.score_every == 0 or step == steps):
            score = bits_per_character(model, halves()[0])
            bar.write(f"step {step}: {score:.3f} bits per character of the text to choose by")
            if score < best:
                best, best_step = score, step
                kept = {n: p.clone() for n, p in model.state_dict().items()}
            elif step - best_step >= 10 * recipe.score_every:
                break
    if kept:
        model.load_state_dict(kept)
    return model.cpu().eval()


def write(model: Decoder, recipe: Recipe, path: Path) -> None:
    """Store the parameters in 16 bits, with the sizes and the tokenizer."""
    state = {name: p.half().numpy() for name, p in model.state_dict().items()}
    own = (
        {"characters": model.characters}
        if recipe.pieces is None
        else {"tokenizer": model.tokenizer.to_str()}
    )
    np.savez_compressed(path, sizes=np.array(json.dumps({**own, **recipe.sizes})), **state)


def target(name: str, recipe: Recipe, texts: list[Path]) -> Path:
    """Return the file to write: the book's own only for its very recipe."""
    return WHALE if recipe == RECIPES["book"] and not texts else Path(f"{name}.npz")


def main() -> None:
    """Train and write, or score."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=RECIPES, default="book", help="what to train")
    parser.add_argument("--score", action="store_true", help="score the book's model")
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe's")
    parser.add_argument("--batch", type=int, help="windows in each step")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="more texts, in UTF-8")
    parser.add_argument("--out", type=Path, help="the file to write")
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]
    changes = {"steps": options.steps, "batch": options.batch}
    recipe = replace(recipe, **{name: n for name, n in changes.items() if n is not None})
    path = options.out or target(options.recipe, recipe, options.text)
    if recipe.cpu:
        torch.set_num_threads(1)
    if options.score:
        path, model, recipe = WHALE, whale(), RECIPES["book"]
    else:
        more = "".join(file.read_text("utf-8") for file in options.text)
        curve = Curve(recipe.draw_every) if recipe.draw_every else None
        write(train(recipe, more, curve=curve), recipe, path)
        if curve:
            kept = CURVE if path == WHALE else path.with_suffix(".json")
            kept.write_text(json.dumps(curve.found) + "\n")
        model = load(path)
    numbers = sum(p.numel() for p in model.parameters())
    print(f"{path.name}: {numbers:,} parameters, {path.stat().st_size:,} bytes, SHA-256")
    print(hashlib.sha256(path.read_bytes()).hexdigest())
    score = bits_per_character(model, judge(recipe))
    print(f"{score:.3f} bits per character on held-out text that chose nothing.")
    print("It continues 'Call me ' with:")
    print(model.decode(model.generate(model.encode("Call me "), 80)[0]))


if __name__ == "__main__":
    main()
