"""Positions that turn queries and keys; re-exported by attncore.positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import (
    LOW_PRECISION,
    Array,
    as_floats,
    broadcasts_to,
    cast,
    check_device,
    check_real,
    dtype_name,
    is_tensor,
    namespace,
    read_array,
    shape_of,
    wide,
    widest,
)
from attncore.base.settings import check_choice, check_positive
from attncore.positions.speeds import check_rope_dim, check_waves, plain_speeds

PAIRINGS = ("half", "interleaved")


def rope(
    x: Array,
    positions: Array,
    *,
    base: float = 10000.0,
    pairing: str = "half",
    rope_dim: int | None = None,
    speeds: Array | None = None,
    gain: float = 1.0,
) -> Array:
    r"""Turn each pair (a, b) of features of a query or key by an angle, position times speed.

    .. math:: (a, b) \mapsto (a \cos t\omega_i - b \sin t\omega_i,\;
        a \sin t\omega_i + b \cos t\omega_i), \qquad \omega_i = \text{base}^{-2i/D}

    The dot product of a turned query and a turned key depends on the two vectors and the
    difference of their positions. Turn keys before they enter a cache; do not turn values.

    Parameters
    ----------
    x
        Queries or keys `(..., T, D)`, D even.
    positions
        `(T,)`, or with an axis for each of `(..., T)`, such as `(B, 1, T)`: integers of any size,
        which are exact, or floats of 32 bits at least. With a cache the first new token stands at
        ``cache.length``. Of position ids `(B, T)` and x `(B, H, T, D)` give ``ids[:, None]``.
    base
        The slowest pair takes 2 pi base^(1 - 2/D) tokens for a turn.
    pairing
        "half": features i and D / 2 + i (GPT-NeoX, Hugging Face's Llama). "interleaved":
        2i and 2i + 1 (the paper, GPT-J, Meta's Llama). One is the other with the features in
        another order, so weights made for one run with the other, and come out wrong.
    rope_dim
        R, even: only the first R features turn, as if they were all, and the others stay as they
        are (partial rotary). All D unless given; then D may be odd.
    speeds
        `(R / 2,)`, of 32 bits at least: the speeds themselves, in place of `base`, such as
        :func:`rope_speeds` makes. They may learn.
    gain
        What the turned features are multiplied by, the second result of :func:`rope_speeds`.

    Returns
    -------
    Array
        Shape, library, dtype and device of `x` (integers become floats).

    Raises
    ------
    ValueError
        If the number of features that turn is odd, the positions or speeds do not fit, or `base`,
        `pairing`, `rope_dim` or `gain` is none of the above.
    TypeError
        If libraries are mixed, or the positions or speeds are not real numbers or have 16 bits,
        which do not hold every position above 256 (bfloat16) or 2,048 (float16).

    References
    ----------
    Su et al. (2024), section 3.2; partial rotary: Black et al. (2022), section 2.1.1.

    Examples
    --------
    >>> q, k = np.array([[1.0, 0.0]]), np.array([[0.5, 2.0]])
    >>> for i, j in ((5, 3), (105, 103)):
    ...     print((rope(q, [i]) @ rope(k, [j]).T).round(4))
    [[1.6105]]
    [[1.6105]]
    >>> rope(np.ones((1, 4)), [3], rope_dim=2).round(2)
    array([[-1.13, -0.85,  1.  ,  1.  ]])
    """
    given = {} if speeds is None else {"speeds": speeds}
    namespace(x=x, positions=positions, **given)
    xp, x = as_floats(x=x)
    if x.ndim < 2:
        raise ValueError(f"x must be (..., T, D), got {shape_of(x)}; add an axis with a[None]")
    R = check_rope_dim(rope_dim, x.shape[-1])
    base = check_rope(R, base, pairing)
    gain = check_positive("gain", gain)
    places = exact(xp, positions, x)
    check_places(places, shape_of(x)[:-1])
    if speeds is not None:
        speeds = check_speeds(xp, speeds, R)
        check_device(**({"speeds": speeds} if is_tensor(given["speeds"]) else {}), x=x)
    cos, sin = turns(xp, places, x, R, base=base, speeds=speeds, gain=gain)
    return turn(xp, x, cos, sin, pairing)


def turns(
    xp: Any,
    places: Array,
    like: Array,
    R: int,
    *,
    base: float = 10000.0,
    speeds: Any = None,
    gain: float = 1.0,
) -> tuple[Array, Array]:
    """Return cosine and sine of the angles `(..., R / 2)` at places that :func:`exact` returned.

    Both are of the precision in which rows like these are turned, and multiplied by the gain.
    """
    angles = angles_of(xp, places, R, base, speeds)
    dtype = xp.float32 if dtype_name(like) in LOW_PRECISION else like.dtype
    cos, sin = xp.cos(angles), xp.sin(angles)
    if gain != 1:
        cos, sin = gain * cos, gain * sin
    return cast(xp, cos, dtype), cast(xp, sin, dtype)


def turn(xp: Any, x: Array, cos: Array, sin: Array, pairing: str) -> Array:
    """Turn the first features of x `(..., T, D)`, two for each cosine `(..., T, R / 2)`."""
    R = 2 * cos.shape[-1]
    part = x.shape[-1] != R
    pairs = wide(xp, x[..., :R] if part else x)
    if pairing == "half":
        a, b = pairs[..., : R // 2], pairs[..., R // 2 :]
        turned = xp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)
    else:
        a, b = pairs[..., 0::2], pairs[..., 1::2]
        turned = xp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(pairs.shape)
    turned = cast(xp, turned, x.dtype)
    return xp.concatenate([turned, x[..., R:]], -1) if part else turned


def check_rope(R: int, base: float, pairing: str) -> float:
    """Return `base` as a float; raise unless R features can be turned."""
    check_choice("pairing", pairing, PAIRINGS)
    return check_waves(R, base)


def check_places(places: Array, rows: tuple[int, ...], name: str = "positions") -> None:
    """Raise unless there is a position for each of the rows `(..., T)`."""
    # (B, T) might broadcast to (H, T), and one position to many tokens: neither is meant.
    fits = places.ndim in (1, len(rows)) and places.shape[-1] == rows[-1]
    if not (fits and broadcasts_to(places.shape, rows)):
        raise ValueError(
            f"{name} must be (T,) = ({rows[-1]},), or have an axis for each of (..., T) = "
            f"{rows}, such as (B, 1, T): got {shape_of(places)}"
        )


def check_speeds(xp: Any, speeds: Array, R: int) -> Array:
    """Return the speeds `(R / 2,)` as an array of a library."""
    speeds = read_array(xp, "speeds", speeds)
    check_real("speeds", speeds)
    if dtype_name(speeds) in LOW_PRECISION:
        raise TypeError(
            f"speeds must be floats of 32 bits at least, got {dtype_name(speeds)}, in which angles "
            "far from the start are wrong: make them with rope_speeds"
        )
    if shape_of(speeds) != (R // 2,):
        raise ValueError(
            f"speeds must be one for each pair that turns, ({R // 2},), got {shape_of(speeds)}: "
            "give rope_dim=, if only some features turn"
        )
    return speeds


def exact(xp: Any, positions: Array, like: Array) -> Array:
    """Return positions as float64; in 32 bits, angles near 100,000 are off by up to 0.007."""
    namespace(positions=positions)  # refuses a masked array
    positions = read_array(xp, "positions", positions)
    check_real("positions", positions)
    if dtype_name(positions) in LOW_PRECISION:
        raise TypeError(
            f"positions must be integers or floats of 32 bits at least, got "
            f"{dtype_name(positions)}, in which large ones were rounded: give integers"
        )
    if not is_tensor(like):
        return np.asarray(positions, dtype=np.float64)
    check_device(positions=positions, x=like)
    return xp.as_tensor(positions, dtype=widest(xp, like), device=like.device)


def angles_of(xp: Any, places: Array, R: int, base: float, speeds: Any = None) -> Array:
    """Return position times speed, `(..., R / 2)`."""
    options: dict[str, Any] = {"dtype": places.dtype}
    if is_tensor(places):
        options["device"] = places.device
    if speeds is None:
        speeds = plain_speeds(xp, R, base, **options)
    elif is_tensor(speeds):
        speeds = speeds.to(**options)
    else:
        speeds = xp.asarray(speeds, **options)
    return places[..., None] * speeds
