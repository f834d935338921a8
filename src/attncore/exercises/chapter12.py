"""Exercises of chapter 12: cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attncore.cost import MODELS, kv_bytes, params
from attncore.exercises.exercise import Exercise

_LLAMA = MODELS["Llama 3 8B"]
_RATIO = 2 * params(_LLAMA) / kv_bytes(_LLAMA, 8192)  # weights over the cache of one text


def _plan(
    d: int,
    L: int,
    H: int,
    N: int,
    T: int,
    memory: float,
    read: float,
    *,
    tables: bool = True,
    of_one: int = 12,
    training: int = 16,
    layers: bool = True,
    squares: bool = True,
    below: bool = False,
    whole: bool = True,
    both: int = 2,
    cached: bool = True,
    each: bool = False,
    seconds: bool = False,
    empty: bool = False,
) -> list[float]:
    """Plan for a card; each option is a mistake."""
    numbers = of_one * L * d * d + tables * N * d
    text = (L if layers else 1) * (34 * T * d + squares * 5 * H * T * T)
    cache = both * 2 * L * T * d

    def texts(held: float, more: float) -> float:
        count = (memory - held) // more if whole else (memory - held) / more
        return count if below else max(0, count)

    trained = texts(training * numbers, text)
    served = texts(0 if empty else 2 * numbers, cache)
    bytes_read = 2 * numbers * (served if each else 1) + cached * served * cache
    return [trained, served, (1 if seconds else 1000) * bytes_read / read]


def _with(**mistake: Any) -> Callable[..., list[float]]:
    return lambda *case: _plan(*case, **mistake)


EXERCISES = {
    "12.1": Exercise(
        solve=lambda: (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) / 1e6,
        mistakes=(
            (
                lambda: (4 * 4096**2 + 3 * 4096 * 14336) / 1e6,
                "there are 8 key and value heads: those maps are 1024 wide",
            ),
            (
                lambda: (2 * 4096**2 + 2 * 4096 * 1024 + 2 * 4096 * 14336) / 1e6,
                "a gated network has three maps",
            ),
            (
                lambda: (4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336) / 1e6,
                "the output map is missing",
            ),
            (
                lambda: 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336,
                "the answer is wanted in millions",
            ),
            (
                lambda: params(_LLAMA) / 32 / 1e6,
                "the tables are no part of a block: count its maps",
            ),
        ),
    ),
    "12.2": Exercise(
        solve=lambda T, d: 24 * T * d**2 + 4 * T**2 * d,
        cases=((5, 3), (2, 7), (1, 1)),
        mistakes=(
            (
                lambda T, d: 12 * T * d**2 + 2 * T**2 * d,
                "a multiplication and its addition count as two",
            ),
            (lambda T, d: 24 * T * d**2, "scores and averages are missing"),
            (lambda T, d: 24 * T * d**2 + 2 * T**2 * d, "scores and averages are two products"),
            (lambda T, d: 8 * T * d**2 + 4 * T**2 * d, "the network is missing"),
            (lambda T, d: 24 * d**2 + 4 * T * d, "that is for one token: there are T"),
            (lambda T, d: 14 * T * d**2 + 4 * T**2 * d, "attention has four maps"),
        ),
    ),
    "12.3": Exercise(
        solve=lambda: int(_RATIO) + 1,
        mistakes=(
            (lambda: _RATIO, "there is no part of a text: the next whole number"),
            (lambda: int(_RATIO), "so many caches take a little less than the weights"),
            (lambda: int(_RATIO / 2) + 1, "weights are in 16 bits too: two bytes each"),
            (lambda: int(_RATIO / 4) + 1, "there are 8 key and value heads, not 32"),
            (lambda: int(_RATIO * 2) + 1, "keys are not all: values are kept too"),
        ),
    ),
    "12.4": Exercise(
        solve=lambda f, b, peak, read: max(f / peak, b / read),
        cases=(
            (6.0, 5.0, 2.0, 1.0),
            (9.0, 2.0, 3.0, 4.0),
            (1.0, 1.0, 8.0, 8.0),
            (7.0, 2.0, 2.0, 4.0),  # of a quotient that is not whole
            (20.0, 90.0, 5.0, 3.0),  # bytes count, though FLOPs are many
        ),
        mistakes=(
            (
                lambda f, b, peak, read: f / peak + b / read,
                "reading and computing can go on at once: do not add",
            ),
            (
                lambda f, b, peak, read: min(f / peak, b / read),
                "the job is done when the slower of the two is",
            ),
            (lambda f, b, peak, read: f / peak, "reading takes time too"),
            (lambda f, b, peak, read: b / read, "computing takes time too"),
            (
                lambda f, b, peak, read: min(peak, f / b * read),
                "that is the speed under the roof, not the time",
            ),
        ),
    ),
    "12.5": Exercise(
        solve=lambda: 200,
        mistakes=(
            (lambda: 400, "each weight has two bytes, but also two FLOPs for each text"),
            (lambda: 100, "each weight has two FLOPs for each text, but also two bytes"),
            (lambda: 50, "16 bits are two bytes, and a multiplication and an addition two FLOPs"),
        ),
    ),
    "12.6": Exercise(
        solve=lambda: 6 * 124e6 * 1e10 / 5e13 / 3600,
        mistakes=(
            (lambda: 2 * 124e6 * 1e10 / 5e13 / 3600, "two is forward alone; backward is four more"),
            (lambda: 4 * 124e6 * 1e10 / 5e13 / 3600, "four is backward alone; forward is two more"),
            (lambda: 6 * 124e6 * 1e10 / 5e13, "those are seconds"),
            (lambda: 6 * 124e6 * 1e10 / 5e13 / 60, "those are minutes"),
            (lambda: 6 * 124e6 * 1e10 / 5e13 / 86400, "those are days"),
        ),
    ),
    "12.7": Exercise(
        solve=lambda: 26.25,
        mistakes=(
            (lambda: 112, "that is without ZeRO: an eighth of some parts is on each rank"),
            (lambda: 14, "the second stage leaves all parameters on each rank"),
            (lambda: 38.5, "the second stage spreads the gradients too"),
            (lambda: 22.75, "the master copy is missing, 4 bytes for each parameter"),
            (lambda: 19.25, "Adam keeps two averages, 4 bytes each"),
            (lambda: 28, "gradients have 16 bits here, as the parameters have"),
            (lambda: 26.25e9, "the answer is wanted in GB"),
        ),
    ),
    "12.8": Exercise(
        solve=_plan,
        cases=(
            (64, 3, 4, 100, 50, 20e6, 1e9),
            (32, 2, 2, 500, 20, 3e6, 5e8),
            (128, 4, 8, 1000, 64, 8e6, 2e9),  # too small for training
            (48, 5, 3, 77, 10, 9e6, 1e8),
        ),
        mistakes=(
            (
                _with(tables=False),
                "the embedding has N d parameters, and it is read for the logits",
            ),
            (
                _with(of_one=1),
                "a block has 12 d d parameters: four maps of attention, and eight d d",
            ),
            (
                _with(training=2),
                "training keeps 16 bytes for each parameter: gradients and Adam's too",
            ),
            (_with(layers=False), "each of the L blocks keeps activations"),
            (_with(squares=False), "the weights are kept too: 5 H T T bytes in each block"),
            (_with(below=True), "there are no negative texts: 0 if the model alone has no room"),
            (_with(whole=False), "there is no part of a text: round down"),
            (_with(both=1), "a cache keeps keys and values, 2 bytes for each number: 4 L T d"),
            (_with(both=4), "a cache keeps 2 bytes for each number of keys and values: 4 L T d"),
            (_with(empty=True), "the parameters must be there too when the model is served"),
            (_with(cached=False), "a step reads the caches of all texts too"),
            (_with(each=True), "all texts of a batch share one reading of the parameters"),
            (_with(seconds=True), "those are seconds: milliseconds are wanted"),
        ),
    ),
}
