"""Two sequences: a decoder that gets one vector of its source, or attends to all of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from attncore.base.arrays import Array
from attncore.base.reading import read_labels, read_numbers
from attncore.draw.picture import TALL, WIDE, Picture, check_finite, check_step
from attncore.draw.scene import WHOLE, Box, Scene
from attncore.draw.text import lines_of, number

MOST = 6  # tokens of a side
HIGH, LEFT = 30, 74  # a state, and the room for the names of the two networks


def translation(
    source: Sequence[str],
    target: Sequence[str],
    weights: Array | None = None,
    *,
    step: int | None = None,
) -> Picture:
    r"""Draw a recurrent encoder and decoder, with one vector between them or with attention.

    .. math:: h_j = f(h_{j-1}, x_j), \qquad s_i = g(s_{i-1}, y_{i-1}, c), \qquad
        c = h_{T_k} \;\text{ or }\; c_i = \sum_j \alpha_{ij} h_j

    Parameters
    ----------
    source
        The tokens that the encoder reads, at most 6.
    target
        The tokens that the decoder writes, at most 6.
    weights
        Of attention `(Tq, Tk)`, a row for each token of the target, between 0 and 1, NumPy or
        torch. Without them the decoder gets the encoder's last state and nothing else.
    step
        Of attention: draw it as it is when this token of the target, counted from 0, is written.
        None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If there is no token or too many, the weights do not fit, or there is no such step.
    TypeError
        If the tokens are no list of strings, or the weights no real numbers.

    References
    ----------
    Sutskever et al. (2014), figure 1, for one vector; Bahdanau et al. (2015), figure 1, for
    attention.

    Examples
    --------
    >>> translation(["猫", "坐在"], ["the cat", "sat on"]).words.split(". ")[1]
    'The decoder gets the last state alone and writes the cat, sat on.'
    """
    sides = []
    for name, given in (("source", source), ("target", target)):
        if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
            raise TypeError(f"{name} must be a list of tokens, got {type(given).__name__}")
        if not 1 <= len(given) <= MOST:
            raise ValueError(f"{name} must have 1 to {MOST} tokens to be drawn, got {len(given)}")
        for at, token in enumerate(given):
            if not isinstance(token, str):
                raise TypeError(f"{name}[{at}] must be a string, got {type(token).__name__}")
        sides.append(read_labels(name, given, len(given)))
    source, target = sides
    check_step(step, len(target), "tokens of the target")
    words = (
        f"The encoder reads {', '.join(source)} one after another and makes a state of each, "
        "from the token and the state before. "
    )
    if weights is None:
        shares = None
        words += f"The decoder gets the last state alone and writes {', '.join(target)}."
    else:
        shares = read_numbers("weights", weights)
        if shares.shape != (len(target), len(source)):
            raise ValueError(
                f"weights must be (Tq, Tk) = ({len(target)}, {len(source)}), a row for each token "
                f"of the target and a column for each of the source, got {shares.shape}"
            )
        check_finite("weights", shares)
        if not bool(((shares >= 0) & (shares <= 1 + 1e-6)).all()):
            raise ValueError("weights must lie between 0 and 1: apply softmax to scores first")
        most = [
            f"for {target[i]} it attends most to {source[row.argmax()]} ({row.max():.2f})"
            for i, row in enumerate(shares)
        ]
        words += f"The decoder attends to all states: {', '.join(most)}."
    title = "Encoder and decoder, " + ("one vector between them" if shares is None else "attention")
    wide, tall = (_scene(source, target, shares, step, room) for room in (WIDE, TALL))
    return Picture(title, words, wide, tall, () if weights is None else target)


def _scene(
    source: list[str],
    target: list[str],
    weights: np.ndarray | None,
    step: int | None,
    room: float,
) -> Scene:
    """Draw the encoder above the decoder, and what goes from one to the other."""
    s = Scene(step)
    left = LEFT if room == WIDE else 0
    pitch = min(112.0, (room - left) / max(len(source), len(target)))
    wide = min(64.0, pitch - 18)
    span = pitch * max(len(source), len(target))
    s.text((0, HIGH / 2 if left else -68), "encoder", "small soft start")
    top = _states(s, "h", source, left + (span - pitch * len(source)) / 2, 0, pitch, wide, "key")
    low = 142 if weights is None else 150
    at = left + (span - pitch * len(target)) / 2
    bottom = _states(s, "s", target, at, low, pitch, wide, "query")
    s.text((0, low + HIGH / 2 if left else low + HIGH + 68), "decoder", "small soft start")
    if weights is None:
        one = Box(left + span / 2 - 70, 66, 140, 32)
        s.rect(one, "value", opacity=0.2, corner=6)
        s.frame(one, "value", corner=6)
        s.text(one.center, "one vector for all", "bold")
        last, first = top[-1], bottom[0]
        x, foot = last.center[0], last.foot + 3
        if x > one.end + 12:  # round the corner, into its side
            s.arrow((x, foot), (x, one.center[1]), (one.end + 3, one.center[1]), role="value")
        else:
            x = min(x, one.end - 8)
            s.arrow((x, foot), (x, one.y - 3), role="value")
        x = max(first.center[0], one.x + 8)
        s.arrow((x, one.foot + 3), (x, first.y - 3), role="value")
        return s
    for i, row in enumerate(weights):
        with s.only(i):
            _ribbons(s, top, bottom[i], row)
            for box, share in zip(top, row, strict=True):
                s.text((box.center[0], box.foot + 14), number(float(share), 2), "small weights",
                       only=i)  # fmt: skip
    with s.only(WHOLE):
        for i, row in enumerate(weights):
            _ribbons(s, top, bottom[i], row)
    return s


def _states(
    s: Scene,
    letter: str,
    tokens: list[str],
    x: float,
    y: float,
    pitch: float,
    wide: float,
    role: str,
) -> list[Box]:
    """Draw a chain of states; tokens that are read stand above, tokens that are written below."""
    boxes: list[Box] = []
    for n, token in enumerate(tokens):
        box = Box(x + pitch * n + (pitch - wide) / 2, y, wide, HIGH)
        s.rect(box, role, opacity=0.2, corner=6)
        s.text(box.center, f"{letter}_{n}", "bold")
        lines, middle = lines_of(token), box.center[0]
        for at, line in enumerate(lines):
            height = (
                y - 29 - 15 * (len(lines) - 1 - at) if role == "key" else box.foot + 29 + 15 * at
            )
            s.text((middle, height), line, "small")
        ends = (y - 20, y - 3) if role == "key" else (box.foot + 3, box.foot + 20)
        s.arrow(*((middle, end) for end in ends), role="ink")
        if boxes:
            s.arrow((boxes[-1].end + 2, box.center[1]), (box.x - 2, box.center[1]), role=role)
        boxes.append(box)
    return boxes


def _ribbons(s: Scene, states: list[Box], to: Box, row: np.ndarray) -> None:
    """Draw a ribbon from each state to one of the decoder, as broad as its weight is large."""
    for box, share in zip(states, row, strict=True):
        (x0, y0), (x1, y1) = (box.center[0], box.foot + 24), (to.center[0], to.y - 3)
        half = (0.6 + 8 * float(share)) / 2 / math.hypot(x1 - x0, y1 - y0)
        dx, dy = half * (y1 - y0), half * (x0 - x1)  # across the ribbon
        corners = ((x0 - dx, y0 - dy), (x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy))
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        s.path(f"M{path}Z", "weights", opacity=0.25 + 0.6 * float(share))
        s.reach(*corners)
