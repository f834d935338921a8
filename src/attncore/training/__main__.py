"""Train a language model, and score it on text it has not seen.

    python -m attncore.training                   a model of 24 million parameters on pieces of
                                                  words, for one CUDA card: bfloat16, compiled
    torchrun --standalone --nproc-per-node 8 -m attncore.training
                                                  the same on eight cards
    python -m attncore.training --recipe book     the book's model, attncore's whale(), and the
                                                  curve of its training: on one CPU core
    python -m attncore.training --score           only score the book's model

The larger model learns from the Python code that is installed with attncore. It is scored on that
of another package, held out: the best model by the first half of it is kept, and judged by the
second, which chose nothing. The book's model learns from Moby-Dick, whose end is held out.

`--packages NAMES` chooses the installed packages to learn from; each name is that of the folder.
`--text FILES` adds texts of yours, which must not hold what is held out. `--steps` and `--batch`
make a run shorter. With `--checkpoint FILE` the state of the run is stored there every
`--save-every` steps, and the same command goes on from it after the run was stopped, on as many
cards as then are there. The file with the model (`--out`) is read by `attncore.nn.load`.

The GPU recipe has been run by its authors for a few steps on CPUs, and on no GPU yet.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from attncore.nn import Decoder, load, whale
from attncore.training import ranks
from attncore.training.curve import Curve
from attncore.training.loop import train
from attncore.training.model import write
from attncore.training.recipes import RECIPES
from attncore.training.scores import bits_per_character
from attncore.training.texts import PACKAGES, SOURCES, Texts, novel


def options_of(words: Sequence[str] | None) -> argparse.Namespace:
    """Return what a command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m attncore.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", choices=RECIPES, default="gpu", help="what to train")
    parser.add_argument("--score", action="store_true", help="score the book's model")
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe's")
    parser.add_argument("--batch", type=int, help="windows in each step")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="more texts, in UTF-8")
    parser.add_argument(
        "--packages",
        nargs="+",
        default=[],
        help=f"installed packages to learn from; the larger model's are {' '.join(PACKAGES)}",
    )
    parser.add_argument("--checkpoint", type=Path, help="the file to stop and go on with")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--out", type=Path, help="the file to write the model to")
    parser.add_argument("--curve", type=Path, help="the file to write the curve to")
    options = parser.parse_args(words)
    for file in (options.checkpoint, options.out, options.curve):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"there is no folder {file.parent} to write {file.name} to: make it first")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Train and write, or score."""
    options = options_of(words)
    if options.score:
        stored = Path(str(files("attncore") / "data/whale.npz"))
        report(whale(), stored, novel())
        return
    recipe = RECIPES[options.recipe]
    changes = {"steps": options.steps, "batch": options.batch}
    recipe = replace(recipe, **{name: n for name, n in changes.items() if n is not None})
    path = options.out or Path(f"{options.recipe}.npz")
    if recipe.cpu:
        torch.set_num_threads(1)
    more = [file.read_text("utf-8") for file in options.text]
    texts = SOURCES[recipe.source](more, options.packages)
    curve = Curve(recipe.draw_every, texts) if recipe.draw_every else None
    device = ranks.join(recipe.cpu)
    model = train(
        recipe,
        texts,
        device,
        curve=curve,
        checkpoint=options.checkpoint,
        save_every=options.save_every,
    )
    if ranks.place()[0] == 0:
        write(model, recipe, path)
        if curve:
            kept = options.curve or path.with_suffix(".json")
            kept.write_text(json.dumps(curve.found) + "\n")
        report(load(path), path, texts)
    ranks.leave()


def report(model: Decoder, path: Path, texts: Texts) -> None:
    """Print what a file holds, how well it predicts the text that judges, and how it writes."""
    numbers = sum(p.numel() for p in model.parameters())
    print(f"{path.name}: {numbers:,} parameters, {path.stat().st_size:,} bytes, SHA-256")
    print(hashlib.sha256(path.read_bytes()).hexdigest())
    score = bits_per_character(model, texts.judge)
    print(f"{score:.3f} bits per character on held-out text that chose nothing.")
    print(f"It continues {texts.opening!r} with:")
    print(model.decode(model.generate(model.encode(texts.opening), 80)[0]))


if __name__ == "__main__":
    main()
