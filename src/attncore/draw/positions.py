"""Where positions enter a model: added to its rows, to its scores, or turning queries and keys."""

from __future__ import annotations

from attncore.base.integers import check_integer
from attncore.draw.picture import Picture
from attncore.draw.scene import WHOLE, Box, Point, Scene

LAYERS = 2
STEPS = ("added rows", "a bias", "turning")
LINES = {
    0: "added rows P: once, before the first layer",
    1: "a bias b: added to the scores of every layer",
    2: "turning: queries and keys of every layer",
    WHOLE: "three places where a position can enter; a model uses one",
}
MARKED = {"X": (0, "X + P"), "S": (1, "S + b"), "Q": (2, "Q turned"), "K": (2, "K turned")}
ROLES = {"X": "ink", "Q": "query", "K": "key", "V": "value", "S": "weights", "A": "weights"}
WIDE = {"Q": (0, 0), "K": (0, 42), "V": (0, 84), "S": (100, 21), "A": (190, 21), "O": (190, 84)}
TALL = {"Q": (0, 0), "K": (90, 0), "V": (180, 0), "S": (45, 66), "A": (135, 66), "O": (180, 132)}
WIDTHS = {"Q": 72, "K": 72, "V": 72, "S": 58, "A": 44, "O": 44}
HEIGHT = 28


def positions(*, step: int | None = None) -> Picture:
    r"""Draw two layers of attention, and the three places where a position can enter.

    .. math:: X + P, \qquad S + b, \qquad (Q \operatorname{turn})(K \operatorname{turn})^\top

    Parameters
    ----------
    step
        0 marks rows that are added, 1 a bias, 2 turned queries and keys. None marks all three.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each place; its `repr` says it in words.

    Raises
    ------
    ValueError
        If there is no such step.
    TypeError
        If `step` is no integer.

    References
    ----------
    Vaswani et al. (2017), section 3.5; Shaw et al. (2018); Su et al. (2024).

    Examples
    --------
    >>> positions(step=1).words.split(". ")[-1]
    'Here: a bias b: added to the scores of every layer.'
    """
    if step is not None and not 0 <= check_integer("step", step) < len(STEPS):
        raise ValueError(f"step must be 0, 1 or 2, one of {', '.join(STEPS)}, got {step}")
    wide, tall = Scene(step), Scene(step)
    _wide(wide)
    _tall(tall)
    words = (
        f"Rows X enter {LAYERS} layers, one after the other. In each, queries Q and keys K make "
        "scores S, softmax makes weights A of them, and with the values V these make the output O. "
        f"Here: {LINES[wide.now]}."
    )
    return Picture("Where positions enter", words, wide, tall, STEPS)


def _array(s: Scene, name: str, at: Point, width: float) -> Box:
    """Draw an array as a box; at its step, and in the whole, it says what was done to it."""
    box = Box(*at, width, HEIGHT)
    s.rect(box, ROLES.get(name, "ink"), opacity=0.16, corner=5)
    place, changed = MARKED.get(name, (None, ""))
    for t in (*range(len(STEPS)), WHOLE):
        with s.only(t):
            marked = place is not None and t in (place, WHOLE)
            if marked:
                s.frame(box, "ink", corner=5)
            s.text(box.center, changed if marked else name, "bold" if marked else "")
    return box


def _wide(s: Scene) -> None:
    """Draw the layers from left to right."""
    before = _array(s, "X", (0, 53), 58)
    for layer in range(LAYERS):
        frame = Box(86 + 296 * layer, -12, 262, 158)
        s.arrow(before.right, frame.left, role="ink")
        s.frame(frame, "soft", corner=8)
        s.text((frame.end - 10, frame.y + 14), f"layer {layer + 1}", "small end bold")
        at = {n: _array(s, n, (frame.x + 16 + x, 12 + y), WIDTHS[n]) for n, (x, y) in WIDE.items()}
        s.arrow(at["Q"].right, (at["S"].left[0], at["S"].center[1] - 6))
        s.arrow(at["K"].right, (at["S"].left[0], at["S"].center[1] + 6))
        s.arrow(at["S"].right, at["A"].left)
        s.arrow(at["A"].bottom, at["O"].top)
        s.arrow(at["V"].right, at["O"].left)
        before = frame
    for t, line in LINES.items():
        s.text((0, 168), line, "small start", only=t)


def _tall(s: Scene) -> None:
    """Draw the layers from the top down."""
    before = _array(s, "X", (107, 0), 72)
    for layer in range(LAYERS):
        frame = Box(0, 54 + 236 * layer, 286, 206)
        s.arrow(before.bottom, frame.top, role="ink")
        s.frame(frame, "soft", corner=8)
        s.text((frame.x + 10, frame.foot - 14), f"layer {layer + 1}", "small start bold")
        at = {
            n: _array(s, n, (frame.x + 17 + x, frame.y + 18 + y), WIDTHS[n])
            for n, (x, y) in TALL.items()
        }
        s.arrow(at["Q"].bottom, (at["S"].center[0] - 10, at["S"].top[1]))
        s.arrow(at["K"].bottom, (at["S"].center[0] + 10, at["S"].top[1]))
        s.arrow(at["S"].right, at["A"].left)
        s.arrow(at["A"].bottom, (at["O"].left[0] - 8, at["O"].top[1]), at["O"].left)
        s.arrow(
            (at["V"].center[0] + 14, at["V"].foot + 8), (at["O"].center[0] + 14, at["O"].top[1])
        )
        before = frame
    for t, line in LINES.items():
        s.text(
            (0, 54 + 236 * LAYERS - 6),
            line.replace("; a model uses one", ""),
            "small start",
            only=t,
        )
