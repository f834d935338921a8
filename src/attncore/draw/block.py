"""A transformer block: the stream that runs through it, and what is added to the stream."""

from __future__ import annotations

from typing import NamedTuple

from attncore.base.integers import check_least, check_sizes
from attncore.base.settings import check_choice
from attncore.draw.picture import Picture
from attncore.draw.scene import Box, Point, Scene

NORM, PART, PLUS = 40, 116, 11  # widths of boxes, and the radius of a sum
TALL_NORM, TALL_PART = 26, 46  # their heights


class Part(NamedTuple):
    """What is added to the stream: its name, what is written under it, and its formula."""

    name: str
    detail: str
    formula: str
    role: str
    reads: str = ""  # the size of a second sequence


def block(
    T: int,
    d_model: int,
    *,
    heads: int,
    d_ff: int,
    norm: str = "pre",
    context: int | None = None,
) -> Picture:
    r"""Draw a transformer block with its residual stream and the size of each array.

    .. math:: \text{pre: } x \leftarrow x + f(\operatorname{norm}(x)), \qquad
        \text{post: } x \leftarrow \operatorname{norm}(x + f(x))

    f is attention first, and then a network that works on each token by itself.

    Parameters
    ----------
    T
        Number of tokens.
    d_model
        Width of the stream.
    heads
        Number of heads of the attention.
    d_ff
        Width inside of the network.
    norm
        "pre" normalises what each part reads; "post" normalises the sum.
    context
        Length of a second sequence, which a cross-attention between the two parts reads. Without
        it there is none.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If a size is below 1, or `norm` is neither of the two.
    TypeError
        If a size is no integer.

    References
    ----------
    Vaswani et al. (2017), section 3.1 and figure 1, for "post"; Xiong et al. (2020), figure 1,
    for both.

    Examples
    --------
    >>> block(3, 4, heads=2, d_ff=16).words.split(". ")[0]
    'The residual stream holds 3 tokens of width 4 from end to end'
    """
    T, d_model, heads, d_ff = check_sizes(T=T, d_model=d_model, heads=heads, d_ff=d_ff)
    check_choice("norm", norm, ("pre", "post"))
    own = f"{heads} head{'s' if heads > 1 else ''}"
    parts = [_part("attention", f"{own}, {T}×{T}", norm, "weights")]
    if context is not None:
        Tk = check_least("context", context, 1)
        size = f"{Tk}×{d_model}"
        parts.append(_part("cross-attention", f"{own}, {T}×{Tk}", norm, "weights", size))
    parts.append(_part("network", f"{d_model} → {d_ff} → {d_model}", norm, "ink"))
    size = f"{T}×{d_model}"
    names = [part.name for part in parts]
    when = "reads it normalised" if norm == "pre" else "reads it as it is"
    link = "and " if norm == "pre" else ""
    then = "" if norm == "pre" else ", and the sum is normalised"
    words = (
        f"The residual stream holds {T} tokens of width {d_model} from end to end. In turn "
        f"{', '.join(names[:-1])} and {names[-1]} read it: each {when}, {link}its result is added "
        f"to the stream{then}. Attention mixes tokens: {parts[0].detail} weights each. The network "
        f"works on each token by itself: {parts[-1].detail}."
    )
    if context is not None:
        words += f" Cross-attention takes its keys and values from a context of {Tk} tokens."
    title = f"A transformer block, {norm}-norm"
    return Picture(title, words, _wide(parts, norm, size), _tall(parts, norm, size))


def _part(name: str, detail: str, norm: str, role: str, reads: str = "") -> Part:
    formula = f"x + {name}(norm(x))" if norm == "pre" else f"norm(x + {name}(x))"
    return Part(name, detail, formula, role, reads)


def _box(s: Scene, box: Box, name: str, detail: str, role: str) -> Box:
    """Draw a part as a box with its name, and a line under it."""
    s.rect(box, role, opacity=0.18, corner=6)
    x, y = box.center
    s.text((x, y - 8 if detail else y), name, "bold" if detail else "small")
    if detail:
        s.text((x, y + 10), detail, "small soft")
    return box


def _plus(s: Scene, at: Point) -> None:
    """Draw where a result is added to the stream."""
    s.circle(at, PLUS, "ink")
    s.text(at, "+", "bold")


def _stream(s: Scene, start: Point, end: Point) -> None:
    """Draw a stretch of the stream: a pale band with an arrow in it."""
    (x0, y0), (x1, y1) = start, end
    wide = 7 if y0 == y1 else 0
    band = Box(x0 - (7 - wide), y0 - wide, x1 - x0 + 2 * (7 - wide), y1 - y0 + 2 * wide)
    s.rect(band, "ink", opacity=0.1, corner=2)
    s.arrow(start, end, role="ink")


def _wide(parts: list[Part], norm: str, size: str) -> Scene:
    """Draw the stream from left to right, and what is added to it below."""
    s, down = Scene(), 74.0
    s.text((14, 0), "X", "name")
    s.text((14, 21), size, "small soft")
    x = 28.0
    for part in parts:
        fork = x + 10
        box = Box(fork + 10, down - TALL_PART / 2, PART, TALL_PART)
        if norm == "pre":
            first = Box(fork + 10, down - TALL_NORM / 2, NORM, TALL_NORM)
            _box(s, first, "norm", "", "soft")
            s.arrow((fork, 7), (fork, down), (first.x - 2, down), role="ink")
            box = Box(first.end + 15, box.y, PART, TALL_PART)
            s.arrow((first.end + 2, down), (box.x - 2, down), role="ink")
        else:
            s.arrow((fork, 7), (fork, down), (box.x - 2, down), role="ink")
        _box(s, box, part.name, part.detail, part.role)
        plus = (box.end + 16, 0.0)
        s.arrow((box.end + 2, down), (plus[0], down), (plus[0], PLUS + 2), role="ink")
        _stream(s, (x, 0), (plus[0] - PLUS - 1, 0))
        _plus(s, plus)
        middle = (fork + plus[0]) / 2
        s.text((middle, -22), part.formula, "small soft")
        if part.reads:
            s.text((box.center[0], box.foot + 52), f"context C  {part.reads}", "small key")
            s.arrow((box.center[0], box.foot + 40), (box.center[0], box.foot + 4), role="key",
                    label="K, V")  # fmt: skip
        x = plus[0] + PLUS + 1
        if norm == "post":
            after = _box(s, Box(x + 14, -TALL_NORM / 2, NORM, TALL_NORM), "norm", "", "soft")
            s.line((x, 0), (after.x - 1, 0), role="ink")
            x = after.end + 1
    _stream(s, (x, 0), (x + 22, 0))
    s.text((x + 38, 0), "Y", "name")
    s.text((x + 38, 21), size, "small soft")
    return s


def _tall(parts: list[Part], norm: str, size: str) -> Scene:
    """Draw the stream from top to bottom, and what is added to it on the right."""
    s, x = Scene(), 30.0
    s.text((x, 0), "X", "name")
    s.text((x + 16, 0), size, "small soft start")
    y = free = 14.0
    for part in parts:
        fork = max(y, free) + 36
        s.text((62, fork - 23), part.formula, "small soft start")
        left, middle = 76.0, 76.0 + PART / 2
        if norm == "pre":
            first = Box(middle - NORM / 2, fork - TALL_NORM / 2, NORM, TALL_NORM)
            _box(s, first, "norm", "", "soft")
            s.arrow((x + 7, fork), (first.x - 2, fork), role="ink")
            box = Box(left, first.foot + 18, PART, TALL_PART)
            s.arrow((middle, first.foot + 2), (middle, box.y - 2), role="ink")
        else:
            box = Box(left, fork + 18, PART, TALL_PART)
            s.arrow((x + 7, fork), (middle, fork), (middle, box.y - 2), role="ink")
        _box(s, box, part.name, part.detail, part.role)
        plus = (x, box.center[1])
        s.arrow((box.x - 2, plus[1]), (x + PLUS + 2, plus[1]), role="ink")
        _stream(s, (x, y), (x, plus[1] - PLUS - 1))
        _plus(s, plus)
        if part.reads:
            s.arrow((box.end + 44, plus[1]), (box.end + 4, plus[1]), role="key", label="K, V")
            s.text((box.end + 48, plus[1]), f"C  {part.reads}", "small key start")
        y, free = plus[1] + PLUS + 1, box.foot
        if norm == "post":
            after = Box(x - NORM / 2, y + 14, NORM, TALL_NORM)
            _box(s, after, "norm", "", "soft")
            s.line((x, y), (x, after.y - 1), role="ink")
            y = after.foot + 1
    _stream(s, (x, y), (x, y + 26))
    s.text((x, y + 42), "Y", "name")
    s.text((x + 16, y + 42), size, "small soft start")
    return s
