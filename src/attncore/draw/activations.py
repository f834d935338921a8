"""What a block keeps for its backward pass: each operation, and what it will need again."""

from __future__ import annotations

from typing import NamedTuple

from attncore.base.settings import check_flag
from attncore.draw.picture import Picture, check_step
from attncore.draw.scene import WHOLE, Box, Scene

LINE, TALL_BAR = 26, 14  # from one line to the next, and the height of a bar
SQUARE = 2.4  # a bar of what has T columns is drawn as long as so many rows of width d


class Kept(NamedTuple):
    """An array that an operation keeps: its name, its bytes, and its colour."""

    name: str
    rows: int  # times B T d
    squares: int = 0  # times B H T^2
    role: str = "soft"


def activations(*, dropout: bool = True, fused: bool = False, step: int | None = None) -> Picture:
    r"""Draw what each operation of a block keeps for the backward pass, in 16 bits.

    .. math:: 34\,B T d + 5\,B H T^2 \text{ bytes}

    with dropout and attention written out, for d = H D, as many key/value heads as query heads,
    and a network of inner width 4 d. Mean and spread of the norms, a few numbers for each token,
    are left out, and so is the number that a fused kernel keeps for each query.

    Parameters
    ----------
    dropout
        Whether weights and results are dropped: each dropout keeps a mask of one byte a number.
    fused
        Whether attention is one operation, which keeps no weights and no mask.
    step
        Draw it as it is after this operation, counted from 0. None draws the end.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each operation; its `repr` says it in words.

    Raises
    ------
    ValueError
        If there is no such step.
    TypeError
        If `dropout` or `fused` is no bool, or `step` no integer.

    References
    ----------
    Korthikanti et al. (2023), section 4.1.

    Examples
    --------
    >>> activations(dropout=False, fused=True).words.split(": ")[0]
    'Operations of a block, and what each keeps, in bytes'
    """
    lines = _lines(check_flag("dropout", dropout), check_flag("fused", fused))
    check_step(step, len(lines), "operations")
    wide, tall = Scene(step), Scene(step)
    _draw(wide, lines, 150, 36.0, names=True)
    _draw(tall, lines, 92, 13.0, names=False)
    told = "; ".join(
        f"{name}: {', '.join(f'{k.name} {_amount(k.rows, k.squares)}' for k in kept) or 'nothing'}"
        for name, kept in lines
    )
    until = lines if step is None else lines[: step + 1]
    words = (
        f"Operations of a block, and what each keeps, in bytes: {told}. "
        f"So far {_amount(*_sum(until))} bytes are kept."
    )
    return Picture("What a block keeps for the backward pass", words, wide, tall,
                   [name for name, _ in lines])  # fmt: skip


def _lines(dropout: bool, fused: bool) -> list[tuple[str, list[Kept]]]:
    """Return the operations in their order, each with what it keeps."""
    q, k, v = Kept("Q", 2, role="query"), Kept("K", 2, role="key"), Kept("V", 2, role="value")
    mask = [("dropout", [Kept("mask", 1)])] if dropout else []
    if fused:
        attention = [("attention", [q, k, v])]
    else:
        a = Kept("A", 0, 2, "weights")
        attention = [("QKᵀ", [q, k]), ("softmax", [a])]
        if dropout:
            attention += [("dropout", [Kept("mask", 0, 1, "weights")])]
        attention += [("times V", [Kept("dropped A", 0, 2, "weights"), v] if dropout else [v])]
    return [
        ("norm 1", [Kept("x", 2)]),
        ("Q, K, V maps", [Kept("norm(x)", 2)]),
        *attention,
        ("output map", [Kept("heads' outputs", 2)]),
        *mask,
        ("norm 2", [Kept("x", 2)]),
        ("network, up", [Kept("norm(x)", 2)]),
        ("GELU", [Kept("inner rows", 8)]),
        ("network, down", [Kept("GELU's output", 8)]),
        *mask,
    ]


def _sum(lines: list[tuple[str, list[Kept]]]) -> tuple[int, int]:
    kept = [k for _, all_kept in lines for k in all_kept]
    return sum(k.rows for k in kept), sum(k.squares for k in kept)


def _amount(rows: int, squares: int) -> str:
    parts = [f"{rows} BTd"] * (rows > 0) + [f"{squares} BHT²"] * (squares > 0)
    return " + ".join(parts)


def _draw(
    s: Scene, lines: list[tuple[str, list[Kept]]], left: float, unit: float, *, names: bool
) -> None:
    """Draw a line for each operation, with a bar for all that it keeps and the sum so far."""
    s.text((0, 0), "operation", "small start soft bold")
    s.text((left, 0), "keeps, bytes", "small start soft bold")
    for n, (name, kept) in enumerate(lines):
        y = LINE * (n + 1)
        with s.row(n, "made"):
            s.text((0, y), name, "small start")
            x = left
            for k in kept:
                length = unit * (k.rows + SQUARE * k.squares)
                bar = Box(x, y - TALL_BAR / 2, length - 2, TALL_BAR)
                s.rect(bar, k.role, opacity=0.5 if k.name != "mask" else 0.25, corner=2)
                x += length
            said = " + ".join(_amount(k.rows, k.squares) for k in kept)
            if names:
                said = ", ".join(f"{k.name}: {_amount(k.rows, k.squares)}" for k in kept)
            s.text((x + 6, y), said, "small start")
    foot = LINE * (len(lines) + 1)
    for n in [*range(len(lines)), WHOLE]:
        until = lines if n == WHOLE else lines[: n + 1]
        s.text((0, foot), "so far", "small start bold", only=n)
        s.text((left, foot), f"{_amount(*_sum(until))} bytes", "small start bold", only=n)
