"""Exercises of chapter 13: a language model."""

from __future__ import annotations

import math

import numpy as np

from attncore.exercises.exercise import Exercise

_P = np.array([0.05, 0.4, 0.1, 0.25, 0.2])
_EXACT = np.array([1, 16, 3, 4, 8]) / 32  # its sums have no rounding
_THEN = np.array([[0.3, 0.4, 0.3], [0.05, 0.05, 0.9], [0.2, 0.6, 0.2]])


def _merge(ids: list[int], a: int, b: int, new: int) -> list[int]:
    out: list[int] = []
    for n in ids:
        if n == b and out[-1:] == [a]:
            out[-1] = new
        else:
            out.append(n)
    return out


def _from_the_right(ids: list[int], a: int, b: int, new: int) -> list[int]:
    return _merge(ids[::-1], b, a, new)[::-1]


def _either_way(ids: list[int], a: int, b: int, new: int) -> list[int]:
    out: list[int] = []
    for n in ids:
        if (*out[-1:], n) in ((a, b), (b, a)):
            out[-1] = new
        else:
            out.append(n)
    return out


def _top_p(p: np.ndarray, least: float) -> np.ndarray:
    order = np.argsort(-p)
    before = np.append(0, np.cumsum(p[order])[:-1])
    return _kept(p, np.isin(np.arange(len(p)), order[before < least]))


def _kept(p: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.where(keep, p, 0) / p[keep].sum()


def _before(p: np.ndarray) -> np.ndarray:
    """Return the probability of all tokens that are likelier."""
    return np.array([p[p > x].sum() for x in p])


def _likeliest(first: np.ndarray, then: np.ndarray) -> list[int]:
    both = first[:, None] * then
    return [int(n) for n in np.unravel_index(both.argmax(), both.shape)]


EXERCISES = {
    "13.1": Exercise(
        solve=lambda: math.log2(50_257),
        mistakes=(
            (lambda: math.log(50_257), "that is in nats: divide by log 2"),
            (lambda: math.log10(50_257), "bits are logarithms to base 2"),
            (lambda: math.log(50_257) * math.log(2), "divide by log 2, do not multiply"),
            (lambda: 50_257, "that is the perplexity: take its logarithm"),
        ),
    ),
    "13.2": Exercise(
        solve=lambda nats, tokens, characters: nats * tokens / math.log(2) / characters,
        cases=((4.5, 470, 1000), (2.4, 1000, 1000), (3.0, 10, 35)),
        mistakes=(
            (lambda nats, tokens, characters: nats * tokens / characters, "that is in nats"),
            (
                lambda nats, tokens, characters: nats / math.log(2),
                "that is for each token: spread the total over the characters",
            ),
            (
                lambda nats, tokens, characters: nats * characters / tokens / math.log(2),
                "fewer tokens must give fewer bits: the ratio is upside down",
            ),
            (
                lambda nats, tokens, characters: nats / characters / math.log(2),
                "nats is a mean: the total is nats times tokens",
            ),
        ),
    ),
    "13.3": Exercise(
        solve=_merge,
        cases=(
            ([1, 2, 3, 1, 2, 1], 1, 2, 9),
            ([5, 5, 5, 2, 5, 5], 5, 5, 8),
            ([3, 1, 1, 2, 2], 1, 2, 7),
            ([2, 1, 2], 1, 2, 9),
            ([2, 11, 2, 3, 1], 1, 2, 9),
            ([4], 4, 4, 6),
            ([], 1, 2, 9),
        ),
        mistakes=(
            (_from_the_right, "of three in a row the first two become one: go from left to right"),
            (_either_way, "b followed by a is another pair: the order counts"),
            (
                lambda ids, a, b, new: [b if n == new else n for n in _merge(ids, a, b, new)],
                "a pair becomes the new number, not one of its own",
            ),
        ),
    ),
    "13.4": Exercise(
        solve=_top_p,
        cases=((_P, 0.5), (_EXACT, 0.5), (_P, 0.9), (_P[::-1], 0.7)),
        mistakes=(
            (
                lambda p, least: np.where(_before(p) < least, p, 0),
                "what is kept must sum to 1: divide by the sum",
            ),
            (
                lambda p, least: _kept(p, _before(p) + p <= max(least, p.max())),
                "the token that crosses is kept too",
            ),
            (
                lambda p, least: _kept(p, np.cumsum(p) - p < least),
                "start from the likeliest: the probabilities come in any order",
            ),
            (
                lambda p, least: np.sort(_top_p(p, least))[::-1],
                "each probability must stay in its token's place",
            ),
        ),
    ),
    "13.5": Exercise(
        solve=_likeliest,
        cases=(
            (np.array([0.5, 0.4, 0.1]), _THEN),
            (np.array([0.2, 0.1, 0.7]), _THEN),
            (np.array([0.35, 0.25, 0.4]), _THEN),
        ),
        mistakes=(
            (
                lambda first, then: [first.argmax(), then[first.argmax()].argmax()],
                "that is greedy: a less likely first token may be followed by a surer one",
            ),
            (
                lambda first, then: _likeliest(np.ones(3), then),
                "the first token has a probability too",
            ),
            (
                lambda first, then: _likeliest(first, then)[::-1],
                "the first token comes first",
            ),
        ),
    ),
}
