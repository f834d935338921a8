"""Train the book's small language model on Moby-Dick: src/attncore/data/whale.npz.

    python tools/train_lm.py            train and write it: about half an hour on one CPU core
    python tools/train_lm.py --score    only score the file there is, on the text it never saw

The file is this script's result on one machine. Elsewhere rounding differs, and with it every
bit; the score should come out about the same.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from attncore.data import moby_dick
from attncore.lm import Decoder, whale

TARGET = Path(__file__).resolve().parent.parent / "src/attncore/data/whale.npz"
SIZES = {"d_model": 96, "layers": 4, "heads": 4, "kv_heads": 2, "context": 256}
HELD_OUT = 0.05  # of the text, its end
STEPS, BATCH, RATE, WARM_UP = 3000, 32, 3e-3, 100


def split(model: Decoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens to learn from and those held out."""
    tokens = model.encode(moby_dick())[0]
    edge = int(len(tokens) * (1 - HELD_OUT))
    return tokens[:edge], tokens[edge:]


def loss(model: Decoder, windows: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of the next character, in nats; windows `(B, T + 1)`."""
    logits = model(windows[:, :-1])
    return cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def bits_per_character(model: Decoder) -> float:
    """Score the model on the held-out text, cut into windows that know nothing of each other."""
    _, held_out = split(model)
    length = model.context + 1
    with torch.no_grad():
        windows = held_out[: len(held_out) // length * length].view(-1, length)
        losses = [loss(model, part) * len(part) for part in windows.split(32)]
    return float(sum(losses)) / len(windows) / math.log(2)


def train() -> Decoder:
    """Return a model trained for STEPS steps."""
    torch.manual_seed(0)
    model = Decoder("".join(sorted(set(moby_dick()))), **SIZES)
    tokens, _ = split(model)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=RATE,
        betas=(0.9, 0.99),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda n: min(1, (n + 1) / WARM_UP) * (0.05 + 0.475 * (1 + math.cos(math.pi * n / STEPS))),
    )
    offsets = torch.arange(model.context + 1)
    bar = tqdm(range(STEPS), unit="step")
    for step in bar:
        starts = torch.randint(len(tokens) - model.context, (BATCH, 1))
        value = loss(model, tokens[starts + offsets])
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            bar.set_postfix(nats=f"{value.item():.2f}")
    return model.eval()


def write(model: Decoder) -> None:
    """Store the parameters in 16 bits, with the sizes that :func:`whale` needs."""
    state = {name: p.half().numpy() for name, p in model.state_dict().items()}
    sizes = np.array(json.dumps({"characters": model.tokenizer.characters, **SIZES}))
    np.savez_compressed(TARGET, sizes=sizes, **state)


def main() -> None:
    """Train and write, or score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--score", action="store_true", help="score the stored model")
    torch.set_num_threads(1)
    if not parser.parse_args().score:
        write(train())
    model = whale()
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes, {bits_per_character(model):.3f} bits")
    print("per character on held-out text. It continues 'Call me ' with:")
    print(model.decode(model.generate(model.encode("Call me "), 80)[0]))


if __name__ == "__main__":
    main()
