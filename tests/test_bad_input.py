"""Every public function, every argument, wrong values: our own words, or a right answer.

A row of `CALLS` is a function and arguments that it takes. The values of each argument are
replaced, one at a time, by those that people pass by mistake. The call must then either raise a
TypeError or ValueError of ours that names the argument, or return what it returns for the plain
value that was meant. Nothing that is given may be altered.
"""

import dis
import inspect
import math
import re
import sys
import warnings
from functools import partial, wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.distributed as dist

import attncore as ac
from attncore import draw, parallel, plot
from attncore.base.reading import to_numpy
from attncore.exercises import EXERCISES, check, verdict

SOURCE = str(Path(ac.__file__).parent)
REFUSED = object()  # nothing sensible could be meant
ANYTHING = object()  # a result of some kind may make sense: only the errors must be ours


def numbers(*shape):
    """Return numbers between 0 and 1, always the same."""
    return np.random.default_rng(len(shape)).random(shape)


q, k, v = numbers(3, 4), numbers(5, 4), numbers(5, 2)
MASK = np.arange(15).reshape(3, 5) % 4 > 0
LINE = np.linspace(0, 1, 5)
SIZES = ac.cost.MODELS["GPT-2 small"]
COUNTED = {"batch": 2, "number_bytes": 4}
TRAINED = {"number_bytes": 4, "gradient_bytes": 4, "master": True, "ranks": 3, "stage": 2}

QKV = {"q": q, "k": k, "v": v}
SQUARE = {"q": numbers(5, 4), "k": k, "v": v}
BATCH = {"q": numbers(2, 4, 3, 4), "k": numbers(2, 2, 5, 4), "v": numbers(2, 2, 5, 2)}
ALIKE = {"q": numbers(2, 4, 5, 4), "k": numbers(2, 4, 5, 4), "v": numbers(2, 4, 5, 2)}
LENGTHS = np.array([2, 5])
TERMS = {"mask": MASK, "bias": numbers(3, 5), "scale": 0.5}
LIKE = numbers(2)
SENT = torch.from_numpy(numbers(2, 3))
ROOM = {"batch": 2, "kv_heads": 2, "capacity": 8, "head_dim": 4, "value_dim": 2}


def fresh(function):
    """Return the function with its generator as it was at first, so that each call is alike."""

    @wraps(function)
    def call(**arguments):
        if isinstance(arguments["generator"], Seed):
            of_torch = any(isinstance(arguments[n], torch.Tensor) for n in "qk")
            made = torch.Generator().manual_seed(3) if of_torch else np.random.default_rng(3)
            arguments["generator"] = made
        return function(**arguments)

    return call


class Seed:
    """Stands for a generator of the library that is called for."""


OPTIONS = {"softcap": 2.0, "dropout": 0.5, "generator": Seed()}


def filled(kind, like, **options):
    """Return a cache of the library of `like` that holds five tokens."""
    cache = kind(**ROOM, like=like, **options)
    new = [x if isinstance(like, np.ndarray) else torch.from_numpy(x) for x in BATCH.values()]
    cache.append(*new[1:])
    return cache


def append(kind, like=None, k=None, v=None, **options):
    return kind(**ROOM, like=like, **options).append(k, v)


def given(cache, *arrays):
    """Return arrays in the library of a cache."""
    return [x if isinstance(cache._k, np.ndarray) else torch.from_numpy(x) for x in arrays]


def ragged_call(name):
    """Return a function that calls this method of a cache that holds 5 tokens and 3."""

    @wraps(getattr(ac.RaggedKVCache, name))
    def call(like=LIKE, **options):
        cache = ac.RaggedKVCache(**ROOM, like=like)
        cache.append(*given(cache, BATCH["k"], BATCH["v"]), counts=[5, 3])
        found = getattr(cache, name)(**options)
        return cache.lengths if found is None else found

    return call


def paged_call(name):
    """Return a function that calls this method of a pool with sequences 0 and 1 of 5 tokens."""

    @wraps(getattr(ac.PagedKVCache, name))
    def call(like=LIKE, **options):
        cache = ac.PagedKVCache(9, 2, 4, value_dim=2, size=2, like=like)
        cache.append([cache.add(), cache.add()], *given(cache, BATCH["k"], BATCH["v"]))
        found = getattr(cache, name)(**options)
        return cache.lengths if found is None else found

    return call


def cropped(kind, like, length):
    cache = filled(kind, like)
    cache.crop(length)
    return cache.length


def selected(kind, like, rows):
    cache = filled(kind, like)
    cache.select(rows)
    new = np.ones((2, 2, 1, 4))
    k, v = (new, new[..., :2]) if like is LIKE else map(torch.from_numpy, (new, new[..., :2]))
    return cache.append(k, v)


def static_mask(n, window=None):
    return filled(ac.StaticKVCache, torch.zeros(2, dtype=torch.float64)).mask(n, window=window)


def as_only_rank(function):
    """Return a function of ranks that can be called here."""

    @wraps(function)
    def call(**arguments):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        try:
            return function(**arguments)
        finally:
            dist.destroy_process_group()

    return call


CALLS = {
    "attention": (
        ac.attention,
        {**QKV, **TERMS, "causal": True, "window": 3, "backend": "reference"},
    ),
    "attention of a batch": (ac.attention, {**BATCH, "lengths": LENGTHS, "causal": True}),
    "attention with options": (
        fresh(ac.attention),
        {**BATCH, **OPTIONS, "sinks": numbers(4), "return_lse": True},
    ),
    "attention as torch has it": (ac.attention, {**ALIKE, "causal": True, "backend": "auto"}),
    "attention_weights": (
        ac.attention_weights,
        {"q": q, "k": k, **TERMS, "causal": False, "window": 3},
    ),
    "attention_weights with options": (
        fresh(ac.attention_weights),
        {"q": q, "k": k, **OPTIONS, "sinks": numbers(1)},
    ),
    "merge": (ac.merge, {"outs": numbers(2, 3, 4), "lses": numbers(2, 3)}),
    "merge of a list": (
        lambda out, lse: ac.merge([out], [lse]),
        {"out": numbers(3, 4), "lse": numbers(3)},
    ),
    "packed_attention": (
        fresh(ac.packed_attention),
        {
            **BATCH,
            "cu_seqlens": np.array([0, 1, 3]),
            "cu_seqlens_k": np.array([0, 2, 5]),
            "causal": True,
            "window": 3,
            "scale": 0.5,
            **OPTIONS,
            "sinks": numbers(4),
            "return_lse": True,
        },
    ),
    "attention_weights of a batch": (
        ac.attention_weights,
        {"q": BATCH["q"], "k": BATCH["k"], "lengths": LENGTHS},
    ),
    "streaming_attention": (
        ac.streaming_attention,
        {**QKV, "causal": True, "window": 3, "scale": 0.5, "block": 2},
    ),
    "streaming_attention with options": (
        fresh(ac.streaming_attention),
        {**BATCH, **OPTIONS, "sinks": numbers(4), "return_lse": True, "block": 2},
    ),
    "sparse_attention": (
        ac.sparse_attention,
        {
            **SQUARE,
            "window": 3,
            "global_tokens": [0, 2],
            "random_keys": 1,
            "seed": 7,
            "causal": True,
            "scale": 0.5,
        },
    ),
    "linear_attention": (ac.linear_attention, {**SQUARE, "causal": True, "block": 2}),
    "masks.causal": (ac.masks.causal, {"Tq": 3, "Tk": 5, "window": 2, "like": LIKE}),
    "masks.window": (ac.masks.window, {"Tq": 3, "Tk": 5, "size": 2, "like": LIKE}),
    "masks.symmetric_window": (
        ac.masks.symmetric_window,
        {"Tq": 3, "Tk": 5, "size": 3, "like": LIKE},
    ),
    "masks.global_tokens": (
        ac.masks.global_tokens,
        {"Tq": 3, "Tk": 5, "tokens": [0, 2], "like": LIKE},
    ),
    "masks.random_keys": (
        ac.masks.random_keys,
        {"Tq": 3, "Tk": 5, "count": 2, "seed": 7, "like": LIKE},
    ),
    "parallel.run": (
        lambda function, **options: parallel.run(function, **options),
        {"function": dist.get_rank, "ranks": 1, "device": "cpu", "timeout": 30.0},
    ),
    "parallel.shift": (as_only_rank(parallel.shift), {"x": SENT, "by": 1}),
    "parallel.exchange": (as_only_rank(parallel.exchange), {"x": SENT, "split": 0, "join": 1}),
    "parallel.total": (as_only_rank(parallel.total), {"x": SENT}),
    "parallel.spread": (as_only_rank(parallel.spread), {"x": SENT, "axis": 1}),
    "masks.padding": (ac.masks.padding, {"lengths": LENGTHS, "Tk": 5, "left": True}),
    "masks.documents": (
        ac.masks.documents,
        {
            "cu_seqlens": np.array([0, 1, 3]),
            "cu_seqlens_k": np.array([0, 2, 5]),
            "causal": True,
            "window": 3,
            "like": LIKE,
        },
    ),
    "masks.combine": (
        lambda first, other: ac.masks.combine(first, other),
        {"first": MASK, "other": ~MASK},
    ),
    "positions.sinusoidal": (
        ac.positions.sinusoidal,
        {"positions": np.arange(3), "D": 4, "base": 100.0},
    ),
    "positions.rope": (
        ac.positions.rope,
        {"x": q, "positions": np.arange(3), "base": 100.0, "pairing": "half"},
    ),
    "positions.rope of a part": (
        ac.positions.rope,
        {"x": q, "positions": np.arange(3), "rope_dim": 2, "speeds": numbers(1), "gain": 1.5},
    ),
    "positions.rope_speeds": (ac.positions.rope_speeds, {"D": 8, "base": 100.0, "like": LIKE}),
    **{
        f"positions.rope_speeds of {kind}": (
            partial(ac.positions.rope_speeds, 8),
            {"kind": kind, **settings},
        )
        for kind, settings in {
            "dynamic": {"factor": 2.5, "length": 64, "tokens": 128},
            "yarn": {"factor": 2.5, "length": 64, "low": 1.5, "high": 8.5, "truncate": False},
            "llama3": {"factor": 2.5, "length": 64, "low": 1.5, "high": 8.5},
            "longrope": {
                "length": 64,
                "tokens": 128,
                "short": 1 + numbers(4),
                "long": 2 + numbers(4),
                "gain": 1.5,
            },
            "proportional": {"rope_dim": 4, "factor": 2.5},
        }.items()
    },
    "positions.distances": (ac.positions.distances, {"Tq": 3, "Tk": 5, "like": LIKE}),
    "positions.alibi": (ac.positions.alibi, {"H": 3, "Tq": 3, "Tk": 5, "like": LIKE}),
    "positions.t5_bucket": (
        ac.positions.t5_bucket,
        {"distance": np.arange(12), "buckets": 8, "max_distance": 20, "causal": False},
    ),
    "positions.skew": (ac.positions.skew, {"by_distance": numbers(3, 7)}),
    "positions.xl_bias": (
        ac.positions.xl_bias,
        {
            "q": q,
            "k": k,
            "r": numbers(7, 4),
            "content_bias": numbers(4),
            "position_bias": numbers(4),
        },
    ),
    "KVCache": (
        wraps(ac.KVCache)(lambda **options: ac.KVCache(**options).slots),
        {**ROOM, "window": 3, "like": LIKE},
    ),
    "StaticKVCache": (
        wraps(ac.StaticKVCache)(lambda **options: ac.StaticKVCache(**options).slots),
        {**ROOM, "like": torch.zeros(2)},
    ),
    "KVCache.append": (
        partial(append, ac.KVCache),
        {"like": LIKE, "k": BATCH["k"], "v": BATCH["v"]},
    ),
    "KVCache.append in a ring": (
        partial(append, ac.KVCache, window=3),
        {"like": LIKE, "k": BATCH["k"], "v": BATCH["v"]},
    ),
    "StaticKVCache.append": (
        partial(append, ac.StaticKVCache, torch.zeros(2, dtype=torch.float64)),
        {name: torch.from_numpy(BATCH[name]) for name in "kv"},
    ),
    "KVCache.crop": (partial(cropped, ac.KVCache, LIKE), {"length": 3}),
    "StaticKVCache.crop": (
        partial(cropped, ac.StaticKVCache, torch.zeros(2, dtype=torch.float64)),
        {"length": 3},
    ),
    "KVCache.select": (partial(selected, ac.KVCache, LIKE), {"rows": np.array([1, 0])}),
    "StaticKVCache.select": (
        partial(selected, ac.StaticKVCache, torch.zeros(2, dtype=torch.float64)),
        {"rows": torch.tensor([1, 0])},
    ),
    "StaticKVCache.mask": (static_mask, {"n": 2, "window": 3}),
    "CrossKVCache": (
        wraps(ac.CrossKVCache)(
            lambda k, v, **options: [
                (cache := ac.CrossKVCache(k, v, **options)).k,
                cache.v,
                cache.lengths,
            ]
        ),
        {"k": BATCH["k"], "v": BATCH["v"], "lengths": LENGTHS},
    ),
    "CrossKVCache.select": (
        lambda rows: (cache := ac.CrossKVCache(BATCH["k"], BATCH["v"])).select(rows) or cache.k,
        {"rows": np.array([1, 0])},
    ),
    "RaggedKVCache": (
        wraps(ac.RaggedKVCache)(lambda **options: ac.RaggedKVCache(**options).slots),
        {**ROOM, "like": LIKE},
    ),
    "RaggedKVCache.append": (
        ragged_call("append"),
        {
            "like": LIKE,
            "k": BATCH["k"][:, :, :3],
            "v": BATCH["v"][:, :, :3],
            "counts": np.array([1, 3]),
        },
    ),
    "RaggedKVCache.mask": (ragged_call("mask"), {"n": 3, "counts": np.array([1, 3]), "window": 3}),
    "RaggedKVCache.positions": (ragged_call("positions"), {"n": 3}),
    "RaggedKVCache.crop": (ragged_call("crop"), {"lengths": np.array([4, 1])}),
    "RaggedKVCache.select": (ragged_call("select"), {"rows": np.array([1, 0])}),
    "PagedKVCache": (
        wraps(ac.PagedKVCache)(lambda **options: ac.PagedKVCache(**options).free),
        {"blocks": 3, "kv_heads": 2, "head_dim": 4, "size": 2, "value_dim": 2, "like": LIKE},
    ),
    "PagedKVCache.append": (
        paged_call("append"),
        {
            "like": LIKE,
            "sequences": np.array([1, 0]),
            "k": BATCH["k"][:, :, :3],
            "v": BATCH["v"][:, :, :3],
            "counts": np.array([1, 3]),
        },
    ),
    "PagedKVCache.attend": (
        paged_call("attend"),
        {
            "like": LIKE,
            "q": BATCH["q"],
            "sequences": np.array([1, 0]),
            "counts": np.array([1, 3]),
            "window": 3,
            "scale": 0.5,
        },
    ),
    "PagedKVCache.gather": (paged_call("gather"), {"sequence": 1}),
    "PagedKVCache.table": (paged_call("table"), {"sequence": 1}),
    "PagedKVCache.positions": (
        paged_call("positions"),
        {"sequences": np.array([1, 0]), "n": 3},
    ),
    "PagedKVCache.fork": (paged_call("fork"), {"sequence": 1, "length": 3}),
    "PagedKVCache.crop": (paged_call("crop"), {"sequence": 1, "length": 3}),
    "PagedKVCache.drop": (paged_call("drop"), {"sequence": 1}),
    "softmax": (ac.softmax, {"scores": numbers(3, 5), "mask": MASK, "temperature": 2.0, "axis": 1}),
    "kernel_weights": (
        ac.kernel_weights,
        {"x": LINE[:2], "x_train": LINE, "kernel": "gaussian", "bandwidth": 0.5},
    ),
    "nadaraya_watson": (
        ac.nadaraya_watson,
        {"x": LINE[:2], "x_train": LINE, "y_train": LINE**2, "kernel": "boxcar", "bandwidth": 0.5},
    ),
    "leave_one_out": (
        ac.leave_one_out,
        {"x_train": LINE, "y_train": LINE**2, "kernel": "gaussian", "bandwidth": 0.5},
    ),
    "choose_bandwidth": (
        ac.choose_bandwidth,
        {"x_train": LINE, "y_train": LINE**2, "bandwidths": [0.5, 1.0], "kernel": "gaussian"},
    ),
    "attention_pooling": (
        ac.attention_pooling,
        {"q": q, "k": k, "v": v, "score": ac.scores.dot, "mask": MASK},
    ),
    "scores.dot": (ac.scores.dot, {"q": q, "k": k}),
    "scores.scaled_dot": (ac.scores.scaled_dot, {"q": q, "k": k}),
    "scores.cosine": (ac.scores.cosine, {"q": q, "k": k}),
    "scores.neg_sq_distance": (ac.scores.neg_sq_distance, {"q": q, "k": k, "bandwidth": 2.0}),
    "scores.bilinear": (ac.scores.bilinear, {"q": q, "k": k, "W": numbers(4, 4)}),
    "scores.additive": (
        ac.scores.additive,
        {"q": q, "k": k, "Wq": numbers(4, 7), "Wk": numbers(4, 7), "w": numbers(7)},
    ),
    **{f"kernels.{name}": (kernel, {"u": LINE}) for name, kernel in ac.kernels.KERNELS.items()},
    "sampling.probabilities": (
        ac.sampling.probabilities,
        {"logits": numbers(3, 5), "temperature": 0.5, "top_k": 3, "top_p": 0.5},
    ),
    "sampling.draw": (ac.sampling.draw, {"probabilities": numbers(3, 5), "uniform": numbers(3)}),
    "sampling.accept": (
        ac.sampling.accept,
        {
            "target": numbers(3, 5),
            "draft": numbers(2, 5),
            "drafted": np.array([1, 4]),
            "uniform": numbers(3),
        },
    ),
    "images.patches": (ac.images.patches, {"images": numbers(4, 6, 3), "size": 2}),
    "images.from_patches": (
        ac.images.from_patches,
        {"rows": numbers(6, 12), "shape": (4, 6), "size": 2},
    ),
    "draw.attention": (
        draw.attention,
        {**QKV, "queries": ["a", "b", "c"], "keys": list("abcde"), "mask": MASK, "step": 1},
    ),
    "draw.regression": (
        draw.regression,
        {"query": 0.5, "keys": LINE, "values": numbers(5), "bandwidth": 0.5, "kernel": "boxcar"},
    ),
    "draw.mask": (
        lambda allowed, names=None, queries=None, keys=None: draw.mask(
            allowed, MASK, names=names, queries=queries, keys=keys
        ),
        {"allowed": MASK, "names": ["a", "b"], "queries": ["a", "b", "c"], "keys": list("abcde")},
    ),
    "draw.product": (
        draw.product,
        {
            "left": numbers(3, 4),
            "right": numbers(4, 5),
            "names": ["a", "b", "c"],
            "roles": ["query", "key", "weights"],
            "rows": ["a", "b", "c"],
            "columns": list("abcde"),
            "step": 1,
        },
    ),
    "draw.embedding": (
        draw.embedding,
        {"table": numbers(3, 4), "numbers": [0, 2, 1], "vocabulary": list("abc"), "step": 1},
    ),
    "draw.translation": (
        draw.translation,
        {"source": list("abc"), "target": list("ab"), "weights": numbers(2, 3), "step": 1},
    ),
    "draw.heads": (
        draw.heads,
        {
            "x": numbers(3, 5),
            **{name: numbers(5, 4) for name in ("w_q", "w_k", "w_v")},
            "w_o": numbers(4, 3),
            "heads": 2,
            "tokens": ["a", "b", "c"],
            "causal": True,
            "step": 1,
        },
    ),
    "draw.head_sharing": (
        draw.head_sharing,
        {"heads": 8, "kv_heads": [8, 2], "head_dim": 4, "latent": 3},
    ),
    "draw.block": (
        draw.block,
        {"T": 3, "d_model": 8, "heads": 2, "d_ff": 16, "norm": "pre", "context": 5},
    ),
    "draw.activations": (draw.activations, {"dropout": True, "fused": False, "step": 1}),
    "draw.memory": (
        draw.memory,
        {"rows": {"a": {"b": 1.0, "c": 2.0}, "d": {"b": 0.0, "c": 3.0}}, "room": 4, "unit": "GB"},
    ),
    "draw.decoder": (
        draw.decoder,
        {
            "tokens": ["a", "b"],
            "layers": 2,
            "d_model": 8,
            "heads": 2,
            "d_ff": 16,
            "vocabulary": 5,
            "guesses": ["b", "a"],
            "step": 1,
        },
    ),
    "draw.kv_cache": (
        draw.kv_cache,
        {
            "x": numbers(3, 5),
            "w_q": numbers(5, 4),
            "w_k": numbers(5, 4),
            "w_v": numbers(5, 2),
            "tokens": ["a", "b", "c"],
            "step": 1,
        },
    ),
    "draw.machine": (
        draw.machine,
        {
            "x": numbers(3, 4),
            "w_q": numbers(4, 2),
            "w_k": numbers(4, 2),
            "w_v": numbers(4, 3),
            "context": numbers(5, 4),
            "tokens": ["a", "b", "c"],
            "context_tokens": list("abcde"),
            "mask": MASK,
            "step": 1,
        },
    ),
    "draw.tiles": (draw.tiles, {"blocks": 3, "causal": True, "step": 1}),
    "draw.positions": (draw.positions, {"step": 1}),
    "draw.rotations": (
        draw.rotations,
        {"q": numbers(2), "k": numbers(2), "positions": numbers(3, 2), "speed": 0.5},
    ),
    "draw.ring": (draw.ring, {"devices": 3, "causal": True, "zigzag": True, "step": 1}),
    "draw.patches": (
        draw.patches,
        {"image": np.linspace(0, 1, 24).reshape(4, 6), "size": 2, "step": 1},
    ),
    "draw.vision": (
        draw.vision,
        {
            "image": np.linspace(0, 1, 8).reshape(2, 4),
            "size": 2,
            "layers": 2,
            "d_model": 8,
            "heads": 2,
            "classes": 3,
            "step": 1,
        },
    ),
    "draw.pages": (
        draw.pages,
        {
            "tables": [[0, 1], [0, 2]],
            "lengths": [6, 7],
            "block_size": 4,
            "blocks": 5,
            "names": ["a", "b"],
            "step": 1,
        },
    ),
    "draw.timetable": (
        lambda tables, names: draw.timetable(tables, tables, names=names),
        {"tables": np.array([[0, 0, 1], [2, -1, -1]]), "names": ["a", "b"]},
    ),
    "draw.matrix": (
        draw.matrix,
        {
            "array": numbers(2, 3),
            "name": "Q",
            "rows": ["x", "y"],
            "columns": ["a", "b", "c"],
            "digits": 2,
            "shade": True,
        },
    ),
    "draw.equation": (
        lambda array, rows=None, columns=None, digits=None: draw.equation(
            ("X", array), "=", ("Y", np.eye(3)), rows=rows, columns=columns, digits=digits
        ),
        {"array": numbers(2, 3), "rows": ["x", "y"], "columns": ["a", "b", "c"], "digits": 2},
    ),
    "draw.equation of parts": (
        lambda parts: draw.equation(parts, "=", ("Y", np.eye(2))),
        {"parts": ("X", np.eye(2))},
    ),
    "draw.table": (
        draw.table,
        {"rows": numbers(2, 3), "columns": ["a", "b", "c"], "digits": 2, "caption": "Results"},
    ),
    "draw.table of lists": (
        lambda rows: draw.table(rows, columns=["a", "b"]),
        {"rows": [["x", 1.5], ["y", None]]},
    ),
    "draw.table of dicts": (draw.table, {"rows": [{"a": 1.5}, {"a": 2.5}]}),
    "plot.heatmap": (
        plot.heatmap,
        {"weights": numbers(2, 3), "queries": ["x", "y"], "keys": ["x", "y", "z"], "digits": 2},
    ),
    "plot.strip": (
        plot.strip,
        {"scores": LINE, "weights": LINE / LINE.sum(), "values": v, "keys": ["x"] * 5},
    ),
    "plot.heatmap on axes": (
        lambda ax: plot.heatmap(np.eye(2), ax=ax),
        {"ax": plt.figure().subplots()},
    ),
    "plot.alt_text": (plot.alt_text, {"drawn": plot.heatmap(np.eye(2))}),
    "to_numpy": (to_numpy, {"array": numbers(2, 3)}),
    "exercises.check": (lambda number: check(number, None), {"number": "1.1"}),
    "cost.Sizes": (ac.cost.Sizes, {f: getattr(SIZES, f) for f in SIZES.__dataclass_fields__}),
    "cost.params": (ac.cost.params, {"sizes": SIZES}),
    "cost.params_by_part": (ac.cost.params_by_part, {"sizes": SIZES}),
    "cost.flops": (ac.cost.flops, {"sizes": SIZES, "T": 3, "past": 2, "batch": 2}),
    "cost.flops_by_part": (ac.cost.flops_by_part, {"sizes": SIZES, "T": 3, "past": 2, "batch": 2}),
    "cost.activation_bytes": (
        ac.cost.activation_bytes,
        {"sizes": SIZES, "T": 3, **COUNTED, "fused": True, "recompute": True},
    ),
    **{
        f"cost.{count.__name__}": (count, {"sizes": SIZES, **TRAINED})
        for count in (ac.cost.training_bytes, ac.cost.training_bytes_by_part)
    },
    "cost.kv_bytes": (ac.cost.kv_bytes, {"sizes": SIZES, "T": 3, **COUNTED}),
    "cost.read_bytes": (ac.cost.read_bytes, {"sizes": SIZES, "past": 3, **COUNTED}),
    "data.attention_maps": (ac.data.attention_maps, {"sentence": "minilm_tired"}),
    "pick_device": (ac.pick_device, {"prefer": "cpu"}),
    "data.kept": (ac.data.kept, {"name": "curves"}),
    "data.speeds": (ac.data.speeds, {"name": "cpu-2-cores"}),
}

OF_ANY_DTYPE = {
    "strings", "dates", "durations", "records", "complex numbers", "flags", "8 bits",
    "8 other bits", "8 bits of exponent", "quantized numbers",
}  # fmt: skip
ACCEPTED = {
    ("attention", "scale"): {"a negative integer"},
    ("attention_weights", "scale"): {"a negative integer"},
    ("sparse_attention", "scale"): {"a negative integer"},
    ("streaming_attention", "scale"): {"a negative integer"},
    ("packed_attention", "scale"): {"a negative integer"},
    ("sparse_attention", "global_tokens"): {"an empty list"},
    ("masks.global_tokens", "tokens"): {"an empty list"},
    ("PagedKVCache.attend", "scale"): {"a negative integer"},
    ("PagedKVCache.append", "like"): {"None"},  # NumPy
    ("PagedKVCache.attend", "like"): {"None"},
    ("RaggedKVCache.append", "like"): {"None"},
    ("masks.combine", "first"): {"None"},
    ("masks.combine", "other"): {"None"},
    ("images.patches", "images"): OF_ANY_DTYPE,
    ("parallel.shift", "by"): {"a negative integer"},  # back
    ("images.from_patches", "rows"): OF_ANY_DTYPE,
    ("to_numpy", "array"): {"True", "flags"},  # 1 and 0
    ("draw.equation", "rows"): {"two strings", "a list of lists of two lengths"},
    ("draw.equation of parts", "parts"): {"a string"},  # a sign
    ("draw.matrix", "name"): {"a string"},
    ("draw.matrix", "rows"): {"two strings", "a list of lists of two lengths"},
    ("draw.pages", "names"): {"two strings", "a list of lists of two lengths"},
    ("draw.timetable", "names"): {"None", "two strings", "a list of lists of two lengths"},
    ("draw.decoder", "tokens"): {"two strings"},
    ("draw.decoder", "guesses"): {"two strings"},
    ("draw.table", "caption"): {"a string"},
    ("draw.memory", "unit"): {"a string"},
    ("plot.heatmap", "digits"): {"None"},  # no numbers in the cells
    ("plot.heatmap", "queries"): {"two strings", "a list of lists of two lengths"},
    ("plot.heatmap on axes", "ax"): {"None"},  # new axes
    ("draw.translation", "target"): {"two strings"},
    ("draw.regression", "query"): {"a negative integer"},
    ("draw.mask", "names"): {"two strings", "a list of lists of two lengths"},
    ("draw.head_sharing", "kv_heads"): {"an empty list"},  # the latent row alone
}
"""What is no mistake for this argument: what comes of it is not looked at."""
for row, (_, arguments) in CALLS.items():  # of `like` only the library and the device are asked
    if "like" in arguments and "KVCache" not in row:
        ACCEPTED[row, "like"] = OF_ANY_DTYPE | {
            "an array of complex numbers", "an array of objects", "a masked array",
            "a sparse tensor",
        }  # fmt: skip

ALIASES = {
    "array": "X",
    "distance": "distances",
    "first": "mask(s| 0)",
    "global_tokens": "global tokens?",
    "length": "crop to",
    "like": "cache",
    "counts": "count",
    "lse": "lses",
    "lengths": "length",
    "name": "speeds",
    "number": "exercise",
    "other": "mask(s| 1)",
    "out": "outs",
    "parts": "a",
    "positions": "T",
    "rows": "row",
    "sentence": "maps",
    "sequences": "sequence",
    "size": "window",
    "tokens": "global tokens?",
    "x": "D",
}
"""How a message calls an argument, if not by its name."""

NO_ARGUMENTS = "it takes no arguments"
PICTURES = "the pictures, which have rows, are made of it"
ELSEWHERE = {
    "draw.Box": PICTURES,
    "draw.Matrix": PICTURES,
    "draw.Picture": PICTURES,
    "draw.Scene": PICTURES,
    "draw.Table": PICTURES,
    "data.motorcycle": NO_ARGUMENTS,
    "data.moby_dick": NO_ARGUMENTS,
    "data.digits": NO_ARGUMENTS,
    "data.photograph": NO_ARGUMENTS,
    "plot.style": NO_ARGUMENTS,
    "parallel.bytes_sent": NO_ARGUMENTS,
}

MODULES = (
    "cost", "data", "draw", "images", "kernels", "masks", "parallel", "plot", "positions",
    "sampling", "scores",
)  # fmt: skip
"""The public modules, each of whose public functions and classes has a row, like those of ac."""


def bad_values(good):
    """Yield (words, wrong value, the plain value that it may be taken for)."""
    yield "None", None, REFUSED
    yield "a string", "a", REFUSED
    yield "two strings", ["a", "b"], REFUSED
    yield "bytes", b"a", REFUSED
    yield "an object", object(), REFUSED
    yield "a set", {1.5}, REFUSED
    yield "a dict", {"a": 1.5}, REFUSED
    if not callable(good):
        yield "a function", bad_values, REFUSED
    yield "a complex number", 1 + 1j, REFUSED
    yield "an array of complex numbers", np.array([1 + 1j]), REFUSED
    yield "a list of lists of two lengths", [[1.0], [1.0, 2.0]], REFUSED
    yield "an array of objects", np.array([object()]), REFUSED
    yield "a date", np.datetime64("2000-01-01"), REFUSED
    if isinstance(good, bool):
        yield from bad_flags(good)
    elif isinstance(good, (int, float)):
        yield from bad_numbers(good)
    elif isinstance(good, (np.ndarray, torch.Tensor)):
        yield from bad_arrays(good)
    else:
        yield "a number", 1.5, REFUSED
        yield "True", True, REFUSED
        yield "an array", np.ones((2, 3)), REFUSED
        yield "a tensor", torch.ones(2, 3), REFUSED
        yield "an empty list", [], REFUSED


def bad_flags(good):
    yield "1", 1, True
    yield "0.0", 0.0, False
    yield "a flag of NumPy", np.bool_(good), good
    yield "an array of one flag", np.array([good]), good
    yield "an array of flags", np.array([good, not good]), REFUSED
    yield "a tensor of flags", torch.tensor([good, not good]), REFUSED
    yield "an empty list", [], REFUSED


def bad_numbers(good):
    yield "True", True, 1
    yield "NaN", math.nan, REFUSED
    yield "infinity", math.inf, REFUSED
    yield "minus infinity", -math.inf, REFUSED
    yield "NumPy's NaN", np.float32(math.nan), REFUSED
    yield "an enormous integer", 2**70, ANYTHING
    yield "an integer no float can hold", 10**400, ANYTHING
    yield "a negative integer", -(2**70), REFUSED
    yield "a duration", np.timedelta64(2, "s"), REFUSED  # to NumPy, an integer
    yield "a duration in nanoseconds", np.timedelta64(2, "ns"), REFUSED
    yield "a string of digits", str(good), REFUSED
    yield "a list of one", [good], good
    yield "an array of one", np.array([good]), good
    yield "an array of two", np.array([good, good]), REFUSED
    yield "an empty array", np.array([]), REFUSED
    yield "an array without axes", np.array(good), good
    yield "a masked array", np.ma.masked_array(good, True), REFUSED
    yield "NumPy's masked", np.ma.masked, REFUSED
    yield "a tensor without axes", torch.tensor(good), good
    yield "a tensor of one", torch.tensor([good]), good
    yield "a tensor of two", torch.tensor([good, good]), REFUSED
    yield "a meta tensor", torch.tensor(good, device="meta"), REFUSED
    yield "a float16", np.float16(good), float(np.float16(good))
    if isinstance(good, int):
        yield "a float", float(good), good
        yield "a fraction", good + 0.5, ANYTHING if good == 4 else REFUSED  # bytes of a number
        yield "an integer of NumPy", np.int32(good), good


def bad_arrays(good):
    """Yield wrong values for an array, in its own library and in the other."""
    array = np.asarray(good)
    hidden = np.zeros(array.shape, dtype=bool)
    hidden.flat[0] = True
    yield "a number", 0.5, ANYTHING
    yield "True", True, REFUSED
    yield "an array without axes", array.flat[0], ANYTHING
    yield "an array with an axis more", array[None], ANYTHING
    yield "an array with an axis less", array[0], ANYTHING
    yield "an array with no row", array[:0], ANYTHING
    yield "an array with no column", array[..., :0], ANYTHING
    yield "an empty list", [], ANYTHING
    yield "a list", array.tolist(), good
    yield "a masked array", np.ma.masked_array(array, hidden), REFUSED
    yield "a masked array with nothing masked", np.ma.masked_array(array), good
    yield "objects", array.astype(object), good
    yield "strings", array.astype(str), REFUSED
    yield "dates", array.astype("int64").astype("datetime64[s]"), REFUSED
    yield "durations", array.astype("int64").astype("timedelta64[s]"), REFUSED
    yield "complex numbers", array * (1 + 1j), REFUSED
    yield "records", np.zeros(array.shape, dtype=[("a", float)]), REFUSED
    yield "a longer float", array.astype(np.longdouble), good
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        if array.ndim == 2:
            yield "a matrix", np.matrix(array), good
    if array.dtype.kind in "iuf":
        yield "flags", array > 0.5, REFUSED
        yield "big-endian numbers", array.astype(array.dtype.newbyteorder(">")), good
        yield "float16", array.astype(np.float16), array.astype(np.float16).astype(float)
    if array.dtype.kind in "iu":
        yield "big-endian short integers", array.astype(">i2"), good
        yield "unsigned bytes", array.astype(np.uint8), good
        yield "floats", array.astype(float), good
    if array.dtype.kind == "b":
        yield "numbers for flags", array.astype(float), good
    yield "a tensor in another library", torch.ones(2, 3), ANYTHING
    if isinstance(good, torch.Tensor):
        yield "an array of the other library", array, good


def bad_tensors(good):
    """Yield wrong tensors in place of a good one."""
    yield "a sparse tensor", good.to_sparse(), REFUSED
    if good.ndim == 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch calls this layout unfinished
            yield "a compressed sparse tensor", good.to_sparse_csr(), REFUSED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # and these
        if good.ndim > 1:
            yield "a nested tensor", torch.nested.nested_tensor([*good]), REFUSED
            rows = torch.nested.nested_tensor([*good], layout=torch.jagged)
            yield "a jagged tensor", rows, REFUSED
    yield "complex numbers", good * (1 + 1j), REFUSED
    yield "another device", good.to("meta"), ANYTHING
    yield "a learned parameter", good.clone().requires_grad_(good.is_floating_point()), good
    yield "a tensor without axes", good.flatten()[0], ANYTHING
    yield "a tensor with an axis more", good[None], ANYTHING
    yield "a tensor with an axis less", good[0], ANYTHING
    yield "a tensor with no row", good[:0], ANYTHING
    yield "a tensor with no column", good[..., :0], ANYTHING
    yield "a conjugate's imaginary part", (good + 0j).conj().imag, ANYTHING
    if good.dtype != torch.bool:
        yield "flags", good > 0.5, REFUSED
    if good.is_floating_point():
        yield "8 bits", good.to(torch.float8_e4m3fn), REFUSED
        yield "8 other bits", good.to(torch.float8_e5m2), REFUSED
        if hasattr(torch, "float8_e8m0fnu"):  # since torch 2.7
            yield "8 bits of exponent", good.to(torch.float8_e8m0fnu), REFUSED
        yield "16 bits", good.half(), good.half().double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            quantized = torch.quantize_per_tensor(good.float(), 0.1, 0, torch.qint8)
        yield "quantized numbers", quantized, REFUSED
    else:
        yield "floats", good.double(), good


def as_tensors(arguments):
    """Return the arguments with a tensor for each array."""
    return {
        n: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        for n, value in arguments.items()
    }


def raised_by_us(error):
    """Tell whether a `raise` in attncore made the error, not an operation of another library."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    deliberate = code.co_code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return code.co_filename.startswith(SOURCE) and deliberate


def same(found, wanted):
    """Tell whether two results are alike, but for the precision of 16 bits."""
    if isinstance(found, plt.Figure) or hasattr(found, "figure"):
        return plot.alt_text(found) == plot.alt_text(wanted)
    if isinstance(found, draw.Table):
        return repr(found) == repr(wanted)
    if isinstance(found, draw.Picture):
        return re.sub(r"[\d.]+", "", found.words) == re.sub(r"[\d.]+", "", wanted.words)
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(same(found[n], wanted[n]) for n in found)
    if isinstance(found, (tuple, list)):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, (np.ndarray, torch.Tensor, float, np.number)):
        found, wanted = (x.detach().cpu() if torch.is_tensor(x) else x for x in (found, wanted))
        found, wanted = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
        return found.shape == wanted.shape and np.allclose(
            found, wanted, rtol=1e-2, atol=1e-2, equal_nan=True
        )
    return found == wanted


def trouble(function, arguments, name, bad, plain):
    """Return what is wrong with a call, or None."""
    before = bad.copy() if type(bad) is np.ndarray else None
    try:
        found = function(**arguments | {name: bad})
    except (TypeError, ValueError) as error:
        if not raised_by_us(error):
            return f"not ours: {type(error).__name__}: {error}"
        # Where two shapes do not fit together, either may be named.
        names = arguments if plain is ANYTHING else [name]
        called = "|".join([*names, *(ALIASES[n] for n in names if n in ALIASES)])
        if not re.search(rf"\b({called})\b", str(error)):
            return f"does not name {name}: {error}"
        return None
    except Exception as error:  # whatever comes is to be reported beside the others
        return f"not ours: {type(error).__name__}: {error}"
    if before is not None and before.tobytes() != bad.tobytes():
        return "altered what it was given"
    if plain is ANYTHING:
        return None
    if plain is REFUSED:
        return f"accepted: {found!r:.200}"
    wanted = function(**arguments | {name: plain})
    return None if same(found, wanted) else f"wrong answer: {found!r:.200}, not {wanted!r:.200}"


def takes_none(function, name):
    """Tell whether None is the default of an argument."""
    parameter = inspect.signature(function).parameters.get(name)
    return parameter is not None and parameter.default is None


def troubles(row, arguments, name, values):
    """Return what is wrong with the calls in which `name` has one value after another."""
    function, found = CALLS[row][0], []
    for words, bad, plain in values:
        if bad is None and takes_none(function, name):
            continue
        if words in ACCEPTED.get((row, name), ()):
            plain = ANYTHING
        told = trouble(function, arguments, name, bad, plain)
        if told:
            found.append(f"{name} = {words}: {told}")
        plt.close("all")
    return found


ARGUMENTS = [(name, argument) for name, (_, arguments) in CALLS.items() for argument in arguments]
ARRAYS = [
    (name, argument)
    for name, argument in ARGUMENTS
    if isinstance(CALLS[name][1][argument], (np.ndarray, torch.Tensor))
]


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_wrong_values_are_refused_in_our_words_or_understood(name, argument):
    arguments = CALLS[name][1]
    found = troubles(name, arguments, argument, bad_values(arguments[argument]))

    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "argument"), ARRAYS)
def test_wrong_tensors_are_refused_in_our_words_or_understood(name, argument):
    arguments = as_tensors(CALLS[name][1])
    found = troubles(name, arguments, argument, bad_tensors(arguments[argument]))

    assert not found, "\n".join(found)


@pytest.mark.parametrize("number", EXERCISES)
def test_no_answer_to_an_exercise_is_an_error(number):
    good = numbers(2, 3)
    for words, bad, _ in [*bad_values(good), *bad_numbers(2.5), *bad_tensors(torch.tensor(good))]:
        for answer in (bad, lambda *_, bad=bad: bad):
            told = verdict(EXERCISES[number], answer)

            assert told.startswith("not yet: "), words
            assert "\n" not in told, words


@pytest.mark.parametrize("text", ["43.666666666666664", b"43.666666666666664"])
def test_a_number_in_quotes_is_no_answer(text):
    told = verdict(EXERCISES["1.4"], text)

    assert told == f"not yet: a number or an array is wanted, not a {type(text).__name__}."


def test_labels_that_cannot_be_read_are_refused_in_our_words():
    for words, bad, _ in bad_tensors(torch.arange(5.0)):
        if words not in ("a learned parameter", "16 bits", "a conjugate's imaginary part"):
            with pytest.raises((TypeError, ValueError), match=r"^keys ") as caught:
                plot.strip(LINE, LINE, v, keys=bad)
            assert raised_by_us(caught.value), words
        plt.close("all")


@pytest.mark.parametrize("name", CALLS)
def test_the_rows_themselves_are_right(name):
    function, arguments = CALLS[name]

    function(**arguments)
    plt.close("all")


def public():
    """Return the names of the public functions and classes, such as "scores.dot"."""
    found = {name: getattr(ac, name) for name in ac.__all__}
    for module in MODULES:
        of = sys.modules[f"attncore.{module}"]
        own = {n: x for n, x in vars(of).items() if getattr(x, "__module__", "") == of.__name__}
        names = getattr(of, "__all__", [n for n in own if not n.startswith(("_", "check_"))])
        found |= {f"{module}.{n}": getattr(of, n) for n in names}
    return {name for name, value in found.items() if callable(value)}


def test_every_public_name_has_a_row():
    names = public()

    assert names - CALLS.keys() - ELSEWHERE.keys() == set()
    assert ELSEWHERE.keys() <= names
