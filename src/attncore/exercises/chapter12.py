"""Exercises of chapter 12: cost."""

from __future__ import annotations

from attncore.cost import MODELS, kv_bytes, params
from attncore.exercises.exercise import Exercise

_LLAMA = MODELS["Llama 3 8B"]
_RATIO = 2 * params(_LLAMA) / kv_bytes(_LLAMA, 8192)  # weights over the cache of one text

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
}
