"""How fast each pair of features turns, for texts longer than a model was trained on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    check_readable,
    check_real,
    library_of,
    namespace,
    read_array,
    shape_of,
    widest,
)
from attncore.base.integers import check_integer, check_least, check_product
from attncore.base.settings import check_choice, check_flag, check_positive

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": ((), ()),
    "linear": (("factor",), ()),
    "ntk": (("factor",), ()),
    "dynamic": (("factor", "length", "tokens"), ()),
    "yarn": (("factor", "length"), ("low", "high", "truncate", "gain")),
    "llama3": (("factor", "length"), ("low", "high")),
    "longrope": (("length", "tokens", "short", "long"), ("factor", "gain")),
    "proportional": (("rope_dim",), ("factor",)),
}
"""The settings that each kind needs, and those that it may have."""


def rope_speeds(
    D: int,
    *,
    base: float = 10000.0,
    kind: str = "plain",
    factor: float | None = None,
    length: int | None = None,
    tokens: int | None = None,
    low: float | None = None,
    high: float | None = None,
    truncate: bool | None = None,
    short: Array | None = None,
    long: Array | None = None,
    rope_dim: int | None = None,
    gain: float | None = None,
    like: Array | None = None,
) -> tuple[Array, float]:
    r"""Return how fast each pair of features turns, and what the turned features grow by.

    .. math:: \omega_i' = \omega_i \left(\kappa_i + \frac{1 - \kappa_i}{s}\right), \qquad
        \omega_i = \text{base}^{-2i/D}, \quad s = \text{factor}, \quad 0 \le \kappa_i \le 1

    A model that was trained on texts of L tokens has never met the angles of later positions. Each
    kind slows some pairs down, so that a text s times as long turns them no further:

    ============== ==============================================================================
    "plain"        :math:`\omega_i`: nothing is slowed.
    "linear"       :math:`\kappa_i = 0`: positions are divided by s.
    "ntk"          A larger base, base s^(D / (D - 2)): the slowest pair is slowed s times, the
                   fastest not at all.
    "dynamic"      The same with s N / L - (s - 1) for s, as the text has grown to N tokens; plain
                   up to N = L. Keys that were turned and kept stay as they were.
    "yarn"         Pairs with more than `high` turns in L tokens keep their speed
                   (:math:`\kappa_i = 1`), those with fewer than `low` are slowed s times, and from
                   the one to the other :math:`\kappa_i` falls in a line, by i.
    "llama3"       The same, but the line is one by the number of turns.
    "longrope"     Each pair is slowed by a factor of its own: `short` for texts of up to L tokens,
                   `long` beyond.
    "proportional" The first `rope_dim` / 2 pairs turn, as plain ones of width D do; the others
                   stand still. Then as "linear".
    ============== ==============================================================================

    Parameters
    ----------
    D
        How many features turn, even: half as many pairs.
    base
        As in :func:`rope`.
    kind
        One of the above. Each needs the settings that its line names, and takes no others.
    factor
        s: how many times as long as L a text may be. ("proportional": 1 unless given.)
    length
        L, the length that the model was trained on: ``original_max_position_embeddings``. (For
        Hugging Face's "dynamic" ``max_position_embeddings``.)
    tokens
        N, the length of the text.
    low, high
        Turns within L tokens. 1 and 32 for "yarn", where others say beta_slow and beta_fast, and
        1 and 4 for "llama3", where they say low_freq_factor and high_freq_factor.
    truncate
        Of "yarn": whether the line begins and ends at whole pairs, as it does unless False.
    short, long
        `(D / 2,)`.
    rope_dim
        Of "proportional": how many features turn, even, at most D.
    gain
        Of "yarn" and "longrope": the gain that is returned. Unless given it is 0.1 ln(s) + 1 for
        "yarn", and for "longrope" sqrt(1 + ln(s) / ln(L)), where `factor` is needed to know it.
        (DeepSeek's mscale and mscale_all_dim, m and n, make (0.1 m ln(s) + 1) / (0.1 n ln(s) + 1).)
    like
        An array of the wanted library and device; NumPy without it.

    Returns
    -------
    speeds, gain
        `(D / 2,)` in 64 bits (32 on Apple's GPUs), in radians per token, and a float, which is 1
        for all kinds but "yarn" and "longrope". Both go into :func:`rope`. The gain multiplies
        queries and keys, and so the scores by its square.

    Raises
    ------
    ValueError
        If `kind` is none of the above, a setting is missing, is not one of this kind or is out of
        range.
    TypeError
        If a setting is not of the kind that is asked for, or `like` is not an array.

    References
    ----------
    Su et al. (2024), section 3.2; for "yarn", and before it "linear" and "ntk", Peng et al. (2024),
    sections 2.3 to 3.4; Ding et al. (2024), section 3.3, for "longrope"; the formula of "llama3" is
    in the authors' program only. The names are those of Hugging Face's
    ``modeling_rope_utils``, whose "dynamic" sits between "ntk" and "plain".

    Examples
    --------
    >>> rope_speeds(8)[0].round(4)
    array([1.   , 0.1  , 0.01 , 0.001])
    >>> speeds, gain = rope_speeds(8, kind="yarn", factor=4.0, length=512)
    >>> (speeds / rope_speeds(8)[0]).round(2), round(gain, 2)     # the fastest pairs keep theirs
    (array([1.  , 0.62, 0.25, 0.25]), 1.14)
    """
    base = check_waves(check_integer("D", D), base)
    check_product(D=D)
    kind = check_choice("kind", kind, KINDS)
    given = {
        "factor": factor,
        "length": length,
        "tokens": tokens,
        "low": low,
        "high": high,
        "truncate": truncate,
        "short": short,
        "long": long,
        "rope_dim": rope_dim,
        "gain": gain,
    }
    _check_settings(kind, {name for name, value in given.items() if value is not None})
    xp, where = library_of(like)
    options = {"dtype": np.float64 if like is None else widest(xp, like), **where}
    s = 1.0 if factor is None else check_positive("factor", factor)
    L = 0 if length is None else _tokens("length", length, 2)
    N = 0 if tokens is None else _tokens("tokens", tokens, 1)
    found = 1.0 if gain is None else check_positive("gain", gain)

    if kind in ("ntk", "dynamic"):
        growth = s if kind == "ntk" else s * max(N / L, 1.0) - (s - 1)
        return plain_speeds(xp, D, _larger(base, growth, D, kind), **options), 1.0
    speeds = plain_speeds(xp, D, base, **options)
    if kind == "longrope":
        slower = {"short": _factors("short", short, D), "long": _factors("long", long, D)}
        if gain is None:
            found = math.sqrt(1 + math.log(s) / math.log(L)) if s > 1 else 1.0
        return speeds / xp.asarray(slower["long" if N > L else "short"], **options), found
    if kind == "yarn":
        if gain is None:
            found = 0.1 * math.log(s) + 1 if s > 1 else 1.0
        low, high = _turns(low, high, 1.0, 32.0)
        first, last = (_pair(turns, D, base, L) for turns in (high, low))
        if truncate is None or check_flag("truncate", truncate):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, D - 1)
        i = xp.arange(D // 2, **options)
        slowed = xp.clip((i - first) / (max(last, first + 0.001) - first), 0, 1)
        return speeds * (1 - slowed + slowed / s), found
    if kind == "llama3":
        low, high = _turns(low, high, 1.0, 4.0)
        kept = xp.clip((L * speeds / (2 * math.pi) - low) / (high - low), 0, 1)
        return speeds * (kept + (1 - kept) / s), found
    if kind == "proportional":
        turning = check_rope_dim(rope_dim, D) // 2
        speeds = xp.where(xp.arange(D // 2, **options) < turning, speeds, 0.0)
    return speeds / s, found


def plain_speeds(xp: Any, D: int, base: float, **options: Any) -> Array:
    """Return the speeds that RoPE was published with, `(D / 2,)`, evenly spaced in their logs."""
    return base ** (-xp.arange(0, D, 2, **options) / D)


def check_waves(D: int, base: float) -> float:
    """Return `base` as a float; raise unless there can be D / 2 waves."""
    if D < 1 or D % 2:
        raise ValueError(f"D must be even and positive, got {D}")
    return check_positive("base", base)


def check_rope_dim(rope_dim: int | None, D: int) -> int:
    """Return how many of D features turn: all unless given."""
    if rope_dim is None:
        return D
    rope_dim = check_integer("rope_dim", rope_dim)
    if rope_dim < 1 or rope_dim % 2 or rope_dim > D:
        raise ValueError(f"rope_dim must be even, from 2 to the width, {D}, got {rope_dim}")
    return rope_dim


def _check_settings(kind: str, given: set[str]) -> None:
    """Raise unless these are the settings of the kind."""
    needed, further = KINDS[kind]
    if missing := [name for name in needed if name not in given]:
        raise ValueError(f"kind={kind!r} needs {missing[0]}=")
    if kind == "longrope" and not given & {"factor", "gain"}:
        raise ValueError("kind='longrope' needs factor= or gain=")
    if extra := sorted(given - {*needed, *further}):
        takes = ", ".join((*needed, *further)) or "no setting"
        raise ValueError(f"{extra[0]} is not for kind={kind!r}, which takes {takes}")


def _tokens(name: str, value: object, least: int) -> int:
    """Return a number of tokens from `least` on."""
    number = check_least(name, value, least)
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, as positions are, got {number}")
    return number


def _larger(base: float, growth: float, D: int, kind: str) -> float:
    """Return the base with which the slowest pair is slowed by `growth`."""
    if D < 4:
        raise ValueError(f"D must be at least 4 for kind={kind!r}, got {D}: a pair is to stay fast")
    try:
        return check_positive("base", base * growth ** (D / (D - 2)))
    except (OverflowError, ValueError):
        raise ValueError(
            f"factor is too large: with it the base {base} grows to infinity"
        ) from None


def _turns(low: Any, high: Any, least: float, most: float) -> tuple[float, float]:
    """Return `low` and `high` as floats, the one below the other."""
    low = check_positive("low", least if low is None else low)
    high = check_positive("high", most if high is None else high)
    if low >= high:
        raise ValueError(f"low ({low}) must be below high ({high}): both are turns")
    return low, high


def _pair(turns: float, D: int, base: float, L: int) -> float:
    """Return which pair, counted from 0 and not in whole numbers, turns so often in L tokens."""
    if base <= 1:
        raise ValueError(f"base must be above 1 for kind='yarn', got {base}")
    return D * math.log(L / (2 * math.pi * turns)) / (2 * math.log(base))


def _factors(name: str, value: Array, D: int) -> list[float]:
    """Return the factors of the pairs as numbers, one for each."""
    array = read_array(namespace(**{name: value}), name, value)
    check_real(name, array)
    check_readable(name, array)
    if shape_of(array) != (D // 2,):
        raise ValueError(f"{name} must be (D / 2,) = ({D // 2},), got {shape_of(array)}")
    return [check_positive(f"a number of {name}", n) for n in array.tolist()]
