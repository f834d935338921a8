"""From logits to the next token: temperature, top-k, top-p, and a draw that can be repeated.

No random number is made here. :func:`draw` is given one between 0 and 1, so that whoever calls
it decides where chance comes from, and the same numbers give the same tokens.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    as_floats,
    cast,
    check_readable,
    dtype_name,
    is_float,
    is_tensor,
    namespace,
    shape_of,
    wide,
)
from attncore.base.integers import check_least
from attncore.base.settings import check_number
from attncore.base.tracing import check_holds
from attncore.core.softmax import softmax

__all__ = ["draw", "probabilities"]


def probabilities(
    logits: Array,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Array:
    r"""Turn logits into the probabilities to draw the next token from.

    .. math:: p_n = \frac{e^{z_n / \tau}}{\sum_{l \text{ kept}} e^{z_l / \tau}} \text{ for kept }
        n, \qquad p_n = 0 \text{ for the others}

    The order: temperature, then top-k, then top-p on what top-k has left. Tokens that tie with
    the last one kept are kept too, so the result does not depend on how tokens are numbered.

    Parameters
    ----------
    logits
        `(..., N)`, real numbers; minus infinity rules a token out.
    temperature
        :math:`\tau`. Below 1 the likely become likelier, above 1 the unlikely. 0 takes the
        likeliest token, the first of them if several tie.
    top_k
        Keep the k likeliest, and those that tie with the last of them: logits of 16 bits often
        do. More than N keeps all.
    top_p
        Keep the fewest of the likeliest that together have at least this probability: the token
        that crosses or meets it is kept, so there is always one, and those that tie with it. A
        sum that is less by rounding alone, up to 16 units in the last place of float32, or of
        float64 for such logits, meets it.

    Returns
    -------
    Array
        `(..., N)`, of the library, dtype and device of `logits` (integers become floats); each
        row sums to 1.

    Raises
    ------
    ValueError
        If `logits` hold NaN or plus infinity, or a row rules every token out; if the temperature
        is neither 0 nor from 1e-6 to 1e6, `top_k` below 1, or `top_p` not above 0 and at most 1.
    TypeError
        If `logits` are not real numbers, `top_k` is not an integer, or the temperature or `top_p`
        no number.

    References
    ----------
    Fan et al. (2018) for top-k; Holtzman et al. (2020) for top-p, their nucleus sampling.

    Examples
    --------
    >>> logits = np.log([0.5, 0.3, 0.15, 0.05])
    >>> probabilities(logits, temperature=0.5).round(3)
    array([0.685, 0.247, 0.062, 0.007])
    >>> probabilities(logits, top_k=2).round(3)
    array([0.625, 0.375, 0.   , 0.   ])
    >>> probabilities(logits, top_p=0.6).round(3)
    array([0.625, 0.375, 0.   , 0.   ])
    """
    xp, logits = as_floats(logits=logits)
    check_readable("logits", logits)
    check_settings(temperature, top_k, top_p)
    scores = _checked(wide(xp, logits))
    temperature = float(temperature)
    if temperature == 0:
        best = scores.argmax(-1)[..., None]
        return cast(xp, _numbers(xp, scores) == best, logits.dtype)
    mask = None
    if top_k is not None:
        mask = scores >= _descending(xp, scores)[..., :top_k][..., -1:]
    kept = softmax(scores, mask, temperature=temperature)
    if top_p is not None and top_p < 1:  # rounding must not let 1 drop the unlikeliest
        ordered = _descending(xp, kept)
        # The probabilities themselves are rounded: log([0.5, 0.3, ...]) has no exact 0.8.
        enough = float(top_p) - 16 * float(xp.finfo(kept.dtype).eps)
        count = 1 + (_sums(xp, ordered)[..., :-1] < enough).sum(-1)[..., None]
        least = xp.amin(xp.where(_numbers(xp, scores) < count, ordered, math.inf), -1)[..., None]
        kept = xp.where(kept >= least, kept, 0.0)
        kept = kept / kept.sum(-1)[..., None]
    return cast(xp, kept, logits.dtype)


def draw(probabilities: Array, uniform: Array) -> Array:
    r"""Choose the token whose stretch of the line from 0 to 1 a given number falls into.

    .. math:: n = \min \{ n : p_0 + \dots + p_n > u \}

    Parameters
    ----------
    probabilities
        `(..., N)`, at least 0; they are divided by their sum. A 0 is never chosen.
    uniform
        `(...)`, the numbers :math:`0 \le u < 1`, such as ``rng.random()`` gives. They may have
        more bits than the probabilities, and should where these have 16: of `b` bits they
        choose no token less probable than :math:`2^{-b}`, and 16 bits round some up to 1.

    Returns
    -------
    Array
        `(...)`, integers from 0 to N - 1, of the library and device of `probabilities`.

    Raises
    ------
    ValueError
        If a probability is negative or not finite, all of a row are 0, a number is not at least
        0 and below 1, or there is not one number for each row.
    TypeError
        If libraries are mixed, or `uniform` has fewer bits than `probabilities`.

    References
    ----------
    Devroye, *Non-uniform random variate generation* (1986), chapter III: inversion.

    Examples
    --------
    >>> for u in (0.0, 0.49, 0.5, 0.999):
    ...     print(draw(np.array([0.5, 0.0, 0.5]), u))
    0
    0
    2
    2
    """
    xp, p, u = as_floats(
        probabilities=_as_wide_as(probabilities, uniform),
        uniform=uniform,
    )
    check_readable("probabilities", p)
    if p.ndim < 1 or p.shape[-1] == 0:
        raise ValueError(f"probabilities must be (..., N), got {shape_of(p)}")
    if shape_of(u) != shape_of(p)[:-1]:
        raise ValueError(
            f"uniform must hold one number for each row: probabilities {shape_of(p)}, "
            f"uniform {shape_of(u)}"
        )
    check_holds(
        (u >= 0) & (u < 1),
        "uniform must be at least 0 and below 1; draw it in 32 or 64 bits, as 16 round up to 1",
    )
    sound = ((p >= 0) & (p < math.inf)).all(-1) & (p > 0).any(-1)
    check_holds(sound, "probabilities must be at least 0 and finite, and not all 0")
    sums = _sums(xp, p)
    total = sums[..., -1:]
    # Rounding may lift u times the total to the total, which no stretch reaches beyond.
    point = xp.minimum(cast(xp, u, sums.dtype)[..., None] * total, xp.nextafter(total, 0 * total))
    return cast(xp, (sums > point) & (p > 0), xp.int8).argmax(-1)


def check_settings(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise unless the three are such as :func:`probabilities` takes."""
    number = check_number("temperature", temperature)
    if not (number == 0 or 1e-6 <= number <= 1e6):
        raise ValueError(
            f"temperature must be 0 (the likeliest token) or from 1e-6 to 1e6, got {temperature}"
        )
    if top_k is not None:
        check_least("top_k", top_k, 1)
    if top_p is not None and not 0 < check_number("top_p", top_p) <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}; None keeps all")


def _checked(scores: Array) -> Array:
    if scores.ndim < 1 or scores.shape[-1] == 0:
        raise ValueError(f"logits must be (..., N), got {shape_of(scores)}")
    check_holds(
        scores < math.inf, "logits must be numbers below infinity: there is NaN or infinity in them"
    )
    check_holds(
        (scores > -math.inf).any(-1),
        "a row of logits is minus infinity throughout: no token is left to choose",
    )
    return scores


def _as_wide_as(probabilities: Array, uniform: Array) -> Array:
    """Return the probabilities in the dtype of `uniform`, if that has more bits."""
    xp = namespace(probabilities=probabilities, uniform=uniform)
    both = probabilities, uniform
    if not all((isinstance(a, np.ndarray) or is_tensor(a)) and is_float(a) for a in both):
        return probabilities
    have, given = (a.dtype.itemsize for a in both)
    if given < have:
        raise TypeError(
            f"uniform is {dtype_name(uniform)}, with fewer bits than the probabilities, "
            f"{dtype_name(probabilities)}: draw it in {dtype_name(probabilities)}"
        )
    return cast(xp, probabilities, uniform.dtype) if given > have else probabilities


def _sums(xp: Any, p: Array) -> Array:
    """Return the running sums, in float64 where the device has it."""
    narrow = is_tensor(p) and p.device.type == "mps"
    return xp.cumsum(cast(xp, p, xp.float32 if narrow else xp.float64), -1)


def _numbers(xp: Any, scores: Array) -> Array:
    """Return 0 to N - 1, beside `scores`."""
    where = {} if xp is np else {"device": scores.device}
    return xp.arange(scores.shape[-1], **where)


def _descending(xp: Any, values: Array) -> Array:
    if xp is np:
        return np.sort(values, axis=-1)[..., ::-1]
    return values.sort(dim=-1, descending=True).values
