"""RoPE: queries and keys turn with their positions, and only the distance stays in the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_numbers
from attncore.base.settings import check_number
from attncore.draw.picture import Picture
from attncore.draw.scene import Point, Scene
from attncore.draw.text import coordinate, number

RADIUS = 80
MOST = 6  # pairs of positions


def rotations(
    q: Array, k: Array, positions: Sequence[tuple[int, int]] | Array, *, speed: float = 1.0
) -> Picture:
    r"""Draw a query and a key as arrows that RoPE turns by their positions.

    .. math:: q' = R(m\omega)\,q, \qquad k' = R(n\omega)\,k, \qquad
        q' \cdot k' = q \cdot R((n - m)\,\omega)\,k

    Parameters
    ----------
    q, k
        One pair of features of a query and of a key, `(2,)` each, NumPy or torch.
    positions
        `(pairs, 2)`: for each circle the query's position m and the key's position n, at most 6.
    speed
        The angle :math:`\omega` of one position, in radians.

    Returns
    -------
    Picture
        A circle for each pair: dashed arrows as they are at position 0, full ones after turning,
        the angle from query to key, and their dot product.

    Raises
    ------
    ValueError
        If a shape does not fit, an arrow has no length, or a number is not finite.
    TypeError
        If what is given are not real numbers.

    References
    ----------
    Su et al. (2024), section 3.2.1 and figure 1.

    Examples
    --------
    >>> rotations([1.0, 0.0], [1.0, 0.0], [(2, 1), (9, 8)], speed=0.5).words.split(": ")[-1]
    'm = 2, n = 1, angle -29 degrees, score 0.88; m = 9, n = 8, angle -29 degrees, score 0.88.'
    """
    q, k, places = (
        read_numbers(name, array) for name, array in (("q", q), ("k", k), ("positions", positions))
    )
    speed = check_number("speed", speed)
    for name, arrow in (("q", q), ("k", k)):
        if arrow.shape != (2,):
            raise ValueError(f"{name} must be one pair of features, (2,), got {shape_of(arrow)}")
        if not np.isfinite(arrow).all() or not 1e-9 < np.linalg.norm(arrow) < 1e9:
            raise ValueError(f"{name} must be an arrow of some length, got {arrow.tolist()}")
    if places.ndim != 2 or places.shape[1] != 2 or not 1 <= len(places) <= MOST:
        raise ValueError(
            f"positions must be (pairs, 2), 1 to {MOST} of query and key, got {shape_of(places)}"
        )
    if not np.isfinite(places).all() or not abs(places).max() <= 1e6:
        raise ValueError("positions must be finite, and no larger than 1,000,000 to be drawn")
    if not abs(speed) <= 1e3:
        raise ValueError(f"speed must be finite, at most 1000 radians a position, got {speed}")
    wide, tall, told = Scene(), Scene(), []
    scale = RADIUS / max(math.hypot(*q), math.hypot(*k))
    for at, (m, n) in enumerate(places):
        turned = _turn(q, m * speed), _turn(k, n * speed)
        angle = math.degrees(_angle(turned[1]) - _angle(turned[0]))
        angle = (angle + 180 - 1e-9) % 360 - 180 + 1e-9  # from -180, which is left out, to 180
        score = float(turned[0] @ turned[1])
        told.append(f"m = {m:g}, n = {n:g}, angle {angle:.0f} degrees, score {score:.2f}")
        lines = (
            f"query at {m:g}, key at {n:g}",
            f"angle {number(angle, 0)}°",
            f"q · k = {number(score, 2)}",
        )
        few = len(places) < 4
        for s, columns in ((wide, 2 if len(places) == 4 else 3), (tall, 1 if few else 2)):
            step = 232 if s is wide else 200
            center = (at % columns * step, at // columns * 292.0)
            _circle(s, center, (q, k), turned, scale, lines)
    words = (
        f"Each circle shows a query and a key as arrows, turned by {speed:.3g} radians times their "
        f"positions m and n. The score depends on the distance m - n alone: {'; '.join(told)}."
    )
    return Picture("RoPE turns queries and keys", words, wide, tall)


def _turn(arrow: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([cos * arrow[0] - sin * arrow[1], sin * arrow[0] + cos * arrow[1]])


def _angle(arrow: np.ndarray) -> float:
    return math.atan2(arrow[1], arrow[0])


def _circle(
    s: Scene,
    center: Point,
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    scale: float,
    lines: tuple[str, str, str],
) -> None:
    """Draw one circle, its four arrows, the angle between two of them, and three lines of text."""

    def on(angle: float, radius: float) -> Point:
        return (center[0] + radius * math.cos(angle), center[1] - radius * math.sin(angle))

    r = RADIUS
    s.path(
        f"M{coordinate(center[0] - r)} {coordinate(center[1])}"
        f"a{r} {r} 0 0 1 {2 * r} 0a{r} {r} 0 0 1 -{2 * r} 0z",
        "soft",
        opacity=0.1,
    )
    s.reach((center[0] - r, center[1] - r), (center[0] + r, center[1] + r))
    start = _angle(after[0])
    sweep = (_angle(after[1]) - start + math.pi) % (2 * math.pi) - math.pi
    arc = [on(start + sweep * t / 16, 30) for t in range(17)]
    wedge = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in (center, *arc))
    s.path(f"M{wedge}Z", "weights", opacity=0.3)
    # Two names that would touch are moved apart along the circle.
    apart = max(0.0, 0.42 - abs(sweep)) / 2 * (1 if sweep >= 0 else -1)
    names = (("q", "query", -apart), ("k", "key", apart))
    for arrow, turned, (name, role, aside) in zip(before, after, names, strict=True):
        length = scale * math.hypot(*arrow)
        s.line(center, on(_angle(arrow), length), role=role, dash=True)
        s.arrow(center, on(_angle(turned), length), role=role)
        s.text(on(_angle(turned) + aside, max(length, 40) + 16), name, f"name {role}")
    for line, (text, look) in enumerate(zip(lines, ("", "weights", "weights bold"), strict=True)):
        s.text((center[0], center[1] + RADIUS + 40 + 20 * line), text, look)
