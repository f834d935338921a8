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
    check_dense,
    check_device,
    check_readable,
    dtype_name,
    is_float,
    is_tensor,
    namespace,
    read_array,
    shape_of,
    wide,
    widest,
)
from attncore.base.integers import check_least
from attncore.base.settings import check_number
from attncore.base.tracing import check_holds
from attncore.core.softmax import softmax

__all__ = ["accept", "draw", "probabilities"]


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
        probabilities=_as_wide_as("probabilities", probabilities, uniform),
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
    _check_numbers("probabilities", p, u)
    return _chosen(xp, p, u)


def accept(target: Array, draft: Array, drafted: Array, uniform: Array) -> tuple[Array, Array]:
    r"""Keep as many drafted tokens as exactly gives the target's distribution, and add one token.

    .. math:: \text{keep } x \text{ with probability } \min\!\left(1, \frac{p(x)}{q(x)}\right),
        \qquad \text{else draw from } \frac{\max(p - q, 0)}{\sum_n \max(p_n - q_n, 0)}

    A cheap model has drawn n tokens from its own probabilities q, one after the other, and one
    call of the target model has given its probabilities p at the same places. The first token that
    is not kept ends it: a token drawn from what q gave too little of takes its place. If all are
    kept, one more comes from the target's last row. Whatever q is, what is written has the
    distribution of the target; a better q only makes it longer.

    Parameters
    ----------
    target
        p, `(..., n + 1, N)`: the target's probabilities at each drafted token, and of the token
        after the last.
    draft
        q, `(..., n, N)`: what the drafted tokens were drawn from. Rows of both are divided by
        their sum.
    drafted
        `(..., n)`, the tokens drawn: integers from 0 to N - 1, none of them with a q of 0. No
        token, n = 0, will do.
    uniform
        `(..., n + 1)`, numbers :math:`0 \le u < 1` as for :func:`draw`: one to decide on each
        token, and one to draw the last.

    Returns
    -------
    kept : Array
        `(...)`, integers from 0 to n: how many of the drafted tokens stay.
    token : Array
        `(...)`, integers: the token that comes after these.

    Raises
    ------
    ValueError
        If shapes do not fit, a probability is negative or not finite, all of a row are 0, a
        drafted token is not from 0 to N - 1 or could not have been drawn, or a number is not at
        least 0 and below 1.
    TypeError
        If libraries or dtypes are mixed, `drafted` are not integers, or `uniform` has fewer bits
        than the probabilities.

    References
    ----------
    Leviathan et al. (2023), algorithm 1; Chen et al. (2023), algorithm 2.

    Examples
    --------
    Of three tokens the first was drafted twice, and q gave it far too much the second time:

    >>> p = np.array([[0.5, 0.5, 0.0], [0.1, 0.0, 0.9], [0.2, 0.3, 0.5]])
    >>> q = np.array([[0.5, 0.2, 0.3], [0.8, 0.1, 0.1]])
    >>> kept, token = accept(p, q, np.array([0, 0]), np.array([0.7, 0.7, 0.5]))
    >>> int(kept), int(token)
    (1, 2)
    """
    xp, p, q, u = as_floats(
        target=_as_wide_as("target", target, uniform),
        draft=_as_wide_as("draft", draft, uniform),
        uniform=uniform,
    )
    x = _tokens(xp, "drafted", drafted, p)
    for name, array in (("target", p), ("drafted", x)):
        check_readable(name, array)
    if p.ndim < 2 or 0 in p.shape[-2:]:
        raise ValueError(f"target must be (..., n + 1, N), got {shape_of(p)}")
    *lead, rows, N = shape_of(p)
    n = rows - 1
    for name, array, axes in (
        ("draft", q, (*lead, n, N)),
        ("drafted", x, (*lead, n)),
        ("uniform", u, (*lead, rows)),
    ):
        if shape_of(array) != axes:
            raise ValueError(
                f"{name} must be {axes}, for target (..., n + 1, N) = {shape_of(p)}, "
                f"got {shape_of(array)}"
            )
    _check_numbers("target", p, u)
    _check_numbers("draft", q, u)
    check_holds((x >= 0) & (x < N), f"drafted must lie in 0 to N - 1 = {N - 1}")
    p, q, u = (cast(xp, a, widest(xp, a)) for a in (p, q, u))
    p, q = p / p.sum(-1)[..., None], q / q.sum(-1)[..., None]
    of_p, of_q = (_at(xp, a, x[..., None], -1) for a in (p[..., :n, :], q))
    check_holds(of_q > 0, "drafted holds a token of probability 0 in draft: it was not drawn there")
    keep = cast(xp, u[..., :n] * of_q < of_p, xp.int64)
    kept = xp.cumprod(keep, -1).sum(-1)
    # Nothing was proposed after the last drafted token: there q is 0, and all of p is left.
    q = xp.concatenate([q, xp.zeros_like(p[..., :1, :])], -2)
    p, q = (_at(xp, a, kept[..., None, None], -2) for a in (p, q))
    left = xp.where(p > q, p - q, 0.0)
    some = (left > 0).any(axis=-1, keepdims=True)  # rounding may leave nothing
    return kept, _chosen(xp, xp.where(some, left, p), u[..., n])


def _tokens(xp: Any, name: str, tokens: Array, beside: Array) -> Array:
    """Return tokens as int64."""
    namespace(**{name: tokens, "target": beside})
    where = {"device": beside.device} if is_tensor(beside) else {}
    tokens = read_array(xp, name, tokens, **where)
    check_dense(name, tokens)
    if not dtype_name(tokens).startswith(("int", "uint")):
        raise TypeError(f"{name} must be integers, got {dtype_name(tokens)}")
    check_device(**{"target": beside, name: tokens})
    return cast(xp, tokens, xp.int64)


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


def _check_numbers(name: str, p: Array, u: Array) -> None:
    """Raise unless rows of p can be drawn from, with numbers u."""
    check_holds(
        (u >= 0) & (u < 1),
        "uniform must be at least 0 and below 1; draw it in 32 or 64 bits, as 16 round up to 1",
    )
    sound = ((p >= 0) & (p < math.inf)).all(-1) & (p > 0).any(-1)
    check_holds(sound, f"{name} must be at least 0 and finite, and not all 0")


def _chosen(xp: Any, p: Array, u: Array) -> Array:
    """Return the tokens that numbers `(...)` choose from p `(..., N)`."""
    sums = _sums(xp, p)
    total = sums[..., -1:]
    # Rounding may lift u times the total to the total, which no stretch reaches beyond.
    point = xp.minimum(cast(xp, u, sums.dtype)[..., None] * total, xp.nextafter(total, 0 * total))
    return cast(xp, (sums > point) & (p > 0), xp.int8).argmax(-1)


def _at(xp: Any, array: Array, index: Array, axis: int) -> Array:
    """Return what stands at `index` of an axis, without that axis."""
    take = np.take_along_axis if xp is np else xp.take_along_dim
    return take(array, index, axis).squeeze(axis)


def _as_wide_as(name: str, probabilities: Array, uniform: Array) -> Array:
    """Return the probabilities in the dtype of `uniform`, if that has more bits."""
    xp = namespace(**{name: probabilities, "uniform": uniform})
    both = probabilities, uniform
    if not all((isinstance(a, np.ndarray) or is_tensor(a)) and is_float(a) for a in both):
        return probabilities
    have, given = (a.dtype.itemsize for a in both)
    if given < have:
        called = "the probabilities" if name == "probabilities" else name
        raise TypeError(
            f"uniform is {dtype_name(uniform)}, with fewer bits than {called}, "
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
