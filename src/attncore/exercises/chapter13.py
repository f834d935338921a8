"""Exercises of chapter 13: a language model."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from attncore.core.softmax import softmax
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


def _rate_at(t: int, steps: int, warm_up: int, top: float, low: float) -> float:
    if t <= warm_up:
        return top * t / warm_up
    return low + (top - low) * _wave((t - warm_up) / (steps - warm_up))


def _wave(far: float) -> float:
    return (1 + math.cos(math.pi * far)) / 2


def _d_logits(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return (softmax(logits) - np.eye(logits.shape[-1])[targets]) / targets.size


_Gradient = Callable[[np.ndarray], np.ndarray]


def _trained(
    w: np.ndarray,
    gradient_of: _Gradient,
    steps: int,
    top: float,
    warm_up: int,
    decay: float,
    clip: float,
    *,
    clipped: Callable[[np.ndarray, float], np.ndarray] | None = None,
    decay_in_gradient: bool = False,
    decay_without_rate: bool = False,
    corrected: bool = True,
    first: int = 1,
    rooted: bool = True,
) -> np.ndarray:
    """Train with AdamW, or with one of the mistakes that the options name."""
    m, s = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, steps + 1):
        g = gradient_of(w)
        g = g * min(1, clip / np.linalg.norm(g)) if clipped is None else clipped(g, clip)
        g = g + decay * w if decay_in_gradient else g
        rate = top * min(1, (t - 1 + first) / warm_up)
        if not decay_in_gradient:
            w = w - (1 if decay_without_rate else rate) * decay * w
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g**2
        up, down = (m / (1 - 0.9**t), s / (1 - 0.999**t)) if corrected else (m, s)
        w = w - rate * up / ((np.sqrt(down) if rooted else down) + 1e-8)
    return w


def _cubed(w: np.ndarray) -> np.ndarray:
    return w**3


def _to_a_point(w: np.ndarray) -> np.ndarray:
    return 0.3 * (w - np.array([1.0, -2, 0.5]))


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
    "13.6": Exercise(
        solve=_rate_at,
        cases=(
            (1, 100, 10, 0.02, 0.001),
            (10, 100, 10, 0.02, 0.001),
            (55, 100, 10, 0.02, 0.001),
            (100, 100, 10, 0.02, 0.001),
            (7, 40, 20, 1.0, 0.0),
            (33, 40, 20, 1.0, 0.0),
        ),
        mistakes=(
            (
                lambda t, steps, warm_up, top, low: (
                    min(1, t / warm_up) * (low + (top - low) * _wave(t / steps))
                ),
                "the wave begins where the warm-up ends, not at step 0",
            ),
            (
                lambda t, steps, warm_up, top, low: _rate_at(t - 1, steps, warm_up, top, low),
                "steps count from 1: the first rate is top / warm_up, not 0",
            ),
            (
                lambda t, steps, warm_up, top, low: (
                    top * t / warm_up
                    if t <= warm_up
                    else top * _wave((t - warm_up) / (steps - warm_up))
                ),
                "the wave ends at low, not at 0",
            ),
            (
                lambda t, steps, warm_up, top, low: (
                    low + (top - low) * _wave(max(0, t - warm_up) / (steps - warm_up))
                ),
                "the first steps must grow: the warm-up is missing",
            ),
            (
                lambda t, steps, warm_up, top, low: (
                    top * t / warm_up
                    if t <= warm_up
                    else top + (low - top) * (t - warm_up) / (steps - warm_up)
                ),
                "that falls in a straight line: use the cosine",
            ),
        ),
    ),
    "13.7": Exercise(
        solve=_d_logits,
        cases=(
            (np.array([[[1.0, 0, 2], [0, 0, 0]]]), np.array([[2, 0]])),
            (np.random.default_rng(0).normal(size=(2, 3, 4)), np.array([[0, 3, 1], [2, 2, 0]])),
        ),
        mistakes=(
            (
                lambda logits, targets: _d_logits(logits, targets) * targets.size,
                "the loss is a mean over all targets: divide by how many there are",
            ),
            (
                lambda logits, targets: -_d_logits(logits, targets),
                "the sign: at the target it is negative, since more logit means less loss",
            ),
            (
                lambda logits, targets: softmax(logits) / targets.size,
                "take 1 from the probability of each target",
            ),
            (
                lambda logits, targets: (logits - np.eye(logits.shape[-1])[targets]) / targets.size,
                "make probabilities of the logits first: softmax",
            ),
            (
                lambda logits, targets: (
                    _d_logits(logits, targets) * targets.size / targets.shape[-1]
                ),
                "divide by all targets of the batch, B times T",
            ),
        ),
    ),
    "13.8": Exercise(
        solve=_trained,
        cases=(
            (np.array([3.0, -4, 0.5]), _cubed, 6, 0.1, 3, 0.5, 1.0),
            (np.array([0.0, 0.4, 0.2]), _to_a_point, 5, 0.05, 2, 0.1, 100.0),
            (np.array([2.0, 1, -1]), _to_a_point, 8, 0.2, 1, 0.02, 0.25),
        ),
        mistakes=(
            (
                lambda *given: _trained(
                    *given, clipped=lambda g, clip: g * clip / np.linalg.norm(g)
                ),
                "a gradient that is short enough stays as it is: only long ones are clipped",
            ),
            (
                lambda *given: _trained(*given, clipped=lambda g, clip: g.clip(-clip, clip)),
                "clip the length of the whole row, not each number: the direction must stay",
            ),
            (
                lambda *given: _trained(*given, clipped=lambda g, clip: g),
                "long gradients are not clipped",
            ),
            (
                lambda *given: _trained(*given, decay_in_gradient=True),
                "decay the weights beside the step: in the gradient, Adam divides it away",
            ),
            (
                lambda *given: _trained(*given, decay_without_rate=True),
                "the decay is rate times decay times w: the rate is missing",
            ),
            (
                lambda *given: _trained(*given, corrected=False),
                "m and s begin at 0: divide them by 1 - 0.9**t and 1 - 0.999**t",
            ),
            (
                lambda *given: _trained(*given, first=0),
                "steps count from 1: the first step has a rate above 0",
            ),
            (
                lambda *given: _trained(*given, rooted=False),
                "divide by the square root of the mean of squares",
            ),
            (
                lambda w, gradient_of, steps, top, warm_up, *others: _trained(
                    w, gradient_of, steps, top, 1, *others
                ),
                "the first steps are smaller: the warm-up is missing",
            ),
        ),
    ),
}
