"""The training itself: AdamW, a warm-up and a cosine, the best model kept."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from attncore.nn import Decoder
from attncore.training import checkpoints, ranks
from attncore.training.curve import Curve
from attncore.training.model import new_model, vocabulary_of
from attncore.training.recipes import Recipe
from attncore.training.scores import bits_per_character, loss
from attncore.training.texts import Texts

try:
    from tqdm import tqdm
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "attncore.training needs tqdm, which is not installed: pip install tqdm",
        name="tqdm",
    ) from None


def optimizer_of(model: Decoder, recipe: Recipe) -> AdamW:
    """Return AdamW, which shrinks matrices and tables but neither biases nor gains."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    return AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.rate,
        betas=(0.9, 0.99),
        fused=None if recipe.cpu else True,
    )


def schedule_of(optimizer: AdamW, recipe: Recipe) -> LambdaLR:
    """Return a warm-up in a straight line, times a cosine from 1 down to a twentieth."""
    steps, warm_up = recipe.steps, recipe.warm_up
    return LambdaLR(
        optimizer,
        lambda n: min(1, (n + 1) / warm_up) * (0.05 + 0.475 * (1 + math.cos(math.pi * n / steps))),
    )


def train(
    recipe: Recipe,
    texts: Texts,
    device: torch.device,
    *,
    curve: Curve | None = None,
    checkpoint: Path | None = None,
    save_every: int = 500,
    compiled: bool = True,
) -> Decoder:
    """Return a trained model, on the CPU; with a checkpoint, go on where its run had come to."""
    rank, count = ranks.place()
    if recipe.batch % count:
        raise ValueError(
            f"batch must be a multiple of {count}, as so many processes share it, "
            f"got {recipe.batch}"
        )
    torch.manual_seed(0)  # on every rank, so that all draw the same windows
    saved = ranks.first(checkpoints.load(checkpoint) if rank == 0 else None)
    run = saved["run"] if saved else {}
    vocabulary = run.get("vocabulary") or ranks.first(
        vocabulary_of(recipe, texts) if rank == 0 else None
    )
    model = new_model(recipe, vocabulary)
    tokens = torch.cat([model.encode(text)[0] for text in texts.learn])
    run = {
        "recipe": asdict(recipe),
        "tokens": hashlib.sha256(tokens.numpy().data).hexdigest(),
        "vocabulary": vocabulary,
    }
    model, tokens = model.to(device), tokens.to(device)
    optimizer = optimizer_of(model, recipe)
    schedule = schedule_of(optimizer, recipe)
    progress = checkpoints.Progress()
    parts: dict[str, Any] = {
        "model": model,
        "optimizer": optimizer,
        "schedule": schedule,
        "chance": checkpoints.Chance(),
        "progress": progress,
    } | ({"curve": curve} if curve else {})
    if saved:
        checkpoints.restore(saved, run, parts)
    elif curve:
        curve.look(model, 0, optimizer.param_groups[0]["lr"], False)
    if checkpoint and rank == 0:  # at once, to know that it can be written
        checkpoints.save(checkpoint, run, parts)
    called: Any = ranks.averaged(model)
    if compiled and not recipe.cpu:
        called = torch.compile(called)

    bar = tqdm(total=recipe.steps, initial=progress.step, unit="step", disable=rank > 0)
    if rank == 0:
        drawn = recipe.steps * recipe.batch * model.context / len(tokens)
        bar.write(f"{len(tokens):,} tokens, each to be read {drawn:.1f} times")
    offsets = torch.arange(model.context + 1, device=device)
    for step in range(progress.step + 1, recipe.steps + 1):
        last = step == recipe.steps
        starts = torch.randint(len(tokens) - model.context, (recipe.batch, 1))
        windows = tokens[starts[rank::count].to(device) + offsets]  # this rank's share
        with torch.autocast(device.type, torch.bfloat16):
            value = loss(called, windows)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if curve:
            curve.look(model, step, optimizer.param_groups[0]["lr"], last)
        schedule.step()
        progress.step = step
        bar.update()
        if step % 100 == 1:
            bar.set_postfix(nats=f"{value.item():.2f}")
        if recipe.score_every and (step % recipe.score_every == 0 or last):
            score = ranks.first(bits_per_character(model, texts.choose))
            if rank == 0:
                bar.write(f"step {step}: {score:.3f} bits per character of the text to choose by")
            if score < progress.best:
                progress.best, progress.best_step = score, step
                progress.kept = {n: p.clone() for n, p in model.state_dict().items()}
            elif step - progress.best_step >= 10 * recipe.score_every:
                break
        if checkpoint and rank == 0 and (step % save_every == 0 or last):
            checkpoints.save(checkpoint, run, parts)
    bar.close()
    if progress.kept:
        model.load_state_dict(progress.kept)
    return model.cpu().eval()
