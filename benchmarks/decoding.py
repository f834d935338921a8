"""Cases of decoding a small GPT-2, token by token, with the same weights in every peer."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from attncore.nn import Decoder

LAYERS, WIDTH, HEADS, CONTEXT = 6, 384, 6, 1024
PROMPT, STEPS = 64, 64
CHARACTERS = string.printable[:65]
Case = tuple[str, dict[str, Callable[[], object]]]


def cases(device: torch.device) -> Iterator[Case]:
    """Yield the decoding of one text and of eight."""
    ours, theirs = models(device)
    weights = torch.ones(weight_bytes(ours) // 4, device=device)
    for batch in (1, 8):
        prompt = torch.randint(len(CHARACTERS), (batch, PROMPT), device=device)
        runs = {
            "ours": lambda: ours.generate(prompt, STEPS),  # noqa: B023 (run before the next)
            "ours, compiled": lambda: ours.generate(prompt, STEPS, compiled=True),  # noqa: B023
            "transformers, dynamic cache": lambda: generate(theirs, prompt, "dynamic"),  # noqa: B023
            "transformers, static cache": lambda: generate(theirs, prompt, "static"),  # noqa: B023
        }
        if batch == 1:
            runs["ours, no cache"] = lambda: ours.generate(prompt, STEPS, cached=False)  # noqa: B023
        expected = runs["ours"]()
        runs = {name: partial(check, name, run, expected) for name, run in runs.items()}
        runs["reading the weights"] = partial(read, weights)
        yield f"{STEPS} tokens after {PROMPT}, batch {batch}", runs


def check(name: str, run: Callable[[], torch.Tensor], expected: torch.Tensor) -> None:
    """Generate, and compare: speeds of peers that write something else say nothing."""
    if not torch.equal(run(), expected):
        raise AssertionError(f"{name} generates other tokens")


def read(numbers: torch.Tensor) -> None:
    """Read all numbers once for each step: the least that decoding can do with its weights.

    Where they fit into a cache, as a large GPU's, this is faster than memory.
    """
    for _ in range(STEPS):
        numbers.sum()


def weight_bytes(model: Decoder) -> int:
    """Return the bytes of weights that each step must read: all but the tables of positions."""
    return sum(p.nbytes for name, p in model.named_parameters() if "position" not in name)


def models(device: torch.device) -> tuple[Decoder, GPT2LMHeadModel]:
    """Return our decoder and transformers' GPT-2 with the same weights."""
    torch.manual_seed(0)
    ours = Decoder(
        CHARACTERS, d_model=WIDTH, layers=LAYERS, heads=HEADS, kv_heads=HEADS, context=CONTEXT
    )
    config = GPT2Config(
        n_embd=WIDTH,
        n_head=HEADS,
        n_layer=LAYERS,
        n_positions=CONTEXT,
        vocab_size=len(CHARACTERS),
        activation_function="gelu",
        attn_implementation="sdpa",
        bos_token_id=None,
        eos_token_id=None,
    )
    theirs = GPT2LMHeadModel(config)
    state = theirs.state_dict()
    for name, source in names():
        value = ours.state_dict()[source]
        state[name] = (
            value.mT if value.ndim == 2 and "wte" not in name and "wpe" not in name else value
        )
    for name in state:
        if "attn" in name and name.endswith("bias"):
            state[name].zero_()  # ours has none
    state["lm_head.weight"] = state["transformer.wte.weight"]
    theirs.load_state_dict(state)
    return ours.to(device).eval(), theirs.to(device).eval()


def names() -> Iterator[tuple[str, str]]:
    """Yield the names of the same parameter in both, theirs first."""
    yield "transformer.wte.weight", "embedding.weight"
    yield "transformer.wpe.weight", "position.weight"
    for kind in ("weight", "bias"):
        yield f"transformer.ln_f.{kind}", f"norm.{kind}"
        for n in range(LAYERS):
            theirs, ours = f"transformer.h.{n}", f"blocks.{n}"
            yield f"{theirs}.ln_1.{kind}", f"{ours}.norm1.{kind}"
            yield f"{theirs}.ln_2.{kind}", f"{ours}.norm2.{kind}"
            yield f"{theirs}.mlp.c_fc.{kind}", f"{ours}.up.{kind}"
            yield f"{theirs}.mlp.c_proj.{kind}", f"{ours}.down.{kind}"
            if kind == "weight":
                yield f"{theirs}.attn.c_attn.weight", f"{ours}.attention.in_proj_weight"
                yield f"{theirs}.attn.c_proj.weight", f"{ours}.attention.out_proj.weight"


def generate(model: GPT2LMHeadModel, prompt: torch.Tensor, cache: str) -> torch.Tensor:
    """Return what transformers generates: the likeliest token each time."""
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=STEPS,
        do_sample=False,
        cache_implementation=cache,
        pad_token_id=0,
    )
