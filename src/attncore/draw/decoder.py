"""A decoder from its tokens to its guesses: a column for each token, the past on the left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from attncore.base.integers import check_least, check_sizes
from attncore.base.reading import read_labels
from attncore.draw.picture import Picture, check_step
from attncore.draw.scene import Box, Scene

MOST = {"tokens": 6, "layers": 4, "characters": 3}
HIGH = 26.0  # of a box


def decoder(
    tokens: Sequence[str],
    *,
    layers: int,
    d_model: int,
    heads: int,
    d_ff: int,
    vocabulary: int,
    guesses: Sequence[str] | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw a decoder: rows of two tables, blocks that add to the rows, and a guess for each token.

    .. math:: x_t = E_{c_t} + P_t, \qquad x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits}_t = \operatorname{norm}(x_t)\, E^\top

    Parameters
    ----------
    tokens
        Their names, 1 to 6 of them, the first on the left: 3 characters each at most, since a
        column of a narrow page has no room for more.
    layers
        Number of blocks, 1 to 4.
    d_model
        Width of the stream.
    heads
        Heads of each attention.
    d_ff
        Width inside of each network.
    vocabulary
        How many tokens the model knows, and so how many logits a row has.
    guesses
        Names of the likeliest next tokens, one for each token; question marks unless given. A
        space is drawn as ␣.
    step
        Draw it as it is at this step: 0 the tokens, 1 their rows, then a step for each block, and
        last the logits. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter, with its steps; a column, when pointed at, is lit. Its `repr` says it in
        words.

    Raises
    ------
    ValueError
        If there are no tokens or more than 6, no layers or more than 4, a size is below 1, a name
        is missing or too long, or there is no such step.
    TypeError
        If a size or `step` is no integer, or names are no row of strings.

    References
    ----------
    Radford et al. (2019), section 2.3.

    Examples
    --------
    >>> drawn = decoder(["a", "b"], layers=1, d_model=8, heads=2, d_ff=32, vocabulary=5)
    >>> drawn.words.split(". ")[0]
    'Each of the 2 tokens a and b is a column, and its row of 8 numbers runs down it'
    """
    if isinstance(tokens, str) or not isinstance(tokens, (list, tuple)):
        raise TypeError(f"tokens must be a list of names, got {type(tokens).__name__}")
    if not 1 <= len(tokens) <= MOST["tokens"]:
        raise ValueError(f"tokens must be 1 to {MOST['tokens']} to be drawn, got {len(tokens)}")
    names = read_labels("tokens", tokens, len(tokens))
    layers = check_least("layers", layers, 1)
    if layers > MOST["layers"]:
        raise ValueError(f"layers must be at most {MOST['layers']} to be drawn, got {layers}")
    d_model, heads, d_ff, vocabulary = check_sizes(
        d_model=d_model, heads=heads, d_ff=d_ff, vocabulary=vocabulary
    )
    unknown = ["?"] * len(names)
    ends = unknown if guesses is None else read_labels("guesses", guesses, len(names))
    for kind, given in (("tokens", names), ("guesses", ends)):
        for name in given:
            if len(name) > MOST["characters"]:
                raise ValueError(
                    f"{kind} must have names of at most {MOST['characters']} characters to fit "
                    f"their columns, got {name!r}"
                )
    steps = ["tokens", "rows", *(f"block {n}" for n in range(layers)), "logits"]
    check_step(step, len(steps), "steps")
    own = f"{heads} head{'s' if heads > 1 else ''}"
    names, ends = ([name.replace(" ", "␣") for name in row] for row in (names, ends))
    sizes = {
        "rows": f"{len(names)}×{d_model}",
        "attention": f"{own}, {len(names)}×{len(names)}",
        "network": f"{d_model} → {d_ff} → {d_model}",
        "logits": f"{len(names)}×{vocabulary}",
    }
    columns = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    words = (
        f"Each of the {len(names)} tokens {columns} is a column, and its row of {d_model} numbers "
        f"runs down it. The row begins as the sum of the token's row and the position's row. Each "
        f"of {layers} blocks adds to it twice: attention ({own}) brings what columns to the left "
        f"hold, and the network ({sizes['network']}) works on each column by itself. Then the row "
        f"is normalised, and its products with all {vocabulary} rows of the table are the logits."
    )
    if guesses is not None:
        told = ", ".join(f"{end} after {name}" for name, end in zip(names, ends, strict=True))
        words += f" Likeliest: {told}."
    if step is not None:
        words += f" Drawn up to the step: {steps[step]}."
    scenes = Scene(step), Scene(step)
    for scene, column in zip(scenes, (62.0, 31.0), strict=True):
        _draw(scene, names, ends, layers, sizes, column)
    return Picture("A decoder, from tokens to logits", words, *scenes, steps)


def _draw(
    s: Scene,
    names: list[str],
    ends: list[str],
    layers: int,
    sizes: dict[str, str],
    column: float,
) -> None:
    """Draw the columns from top to bottom, and beside them what each stage is."""
    T, wide = len(names), column - 6
    across, places = T * column - 6, [(t + 0.5) * column - 3 for t in range(T)]

    def boxes(y: float, role: str, texts: Sequence[str], opacity: float = 0.14) -> None:
        for i, (x, text) in enumerate(zip(places, texts, strict=True)):
            box = Box(x - wide / 2, y, wide, HIGH)
            with s.cell("token", i):
                s.rect(box, role, opacity=opacity, corner=5)
                s.text(box.center, text, "small")

    def beside(y: float, name: str, detail: str, role: str = "") -> None:
        s.text((across + 14, y + 5), name, f"small start {role}".strip())
        s.text((across + 14, y + 21), detail, "small start soft")

    def stream(y: float, end: float) -> None:
        for x in places:
            s.rect(Box(x - 6, y, 12, end - y), "ink", opacity=0.1, corner=2)
            s.arrow((x, y), (x, end), role="ink")

    with s.row(0, "kept"):
        boxes(0, "soft", names)
        beside(0, "tokens", f"T = {T}")
    with s.row(1, "kept"):
        stream(HIGH + 2, HIGH + 22)
        boxes(HIGH + 24, "ink", ["W_E + P" if wide > 40 else "+"] * T)
        beside(HIGH + 24, "token row + place row", sizes["rows"])
    y = 2 * HIGH + 26
    for n in range(layers):
        with s.row(2 + n, "kept"):
            stream(y, y + 18)
            bar = Box(0, y + 20, across, HIGH)
            s.rect(bar, "weights", opacity=0.18, corner=6)
            for left, right in pairwise(places):
                s.arrow((left + 4, bar.center[1]), (right - 6, bar.center[1]), role="weights")
            beside(bar.y, f"block {n}: + attention", sizes["attention"], "weights")
            stream(bar.foot + 2, bar.foot + 16)
            boxes(bar.foot + 18, "ink", ["net" if wide > 40 else ""] * T)
            beside(bar.foot + 18, f"block {n}: + network", sizes["network"])
            y = bar.foot + 20 + HIGH
    with s.row(2 + layers, "kept"):
        stream(y, y + 18)
        boxes(y + 20, "soft", ["norm" if wide > 40 else ""] * T)
        beside(y + 20, "norm, then times W_Eᵀ", f"logits {sizes['logits']}")
        stream(y + HIGH + 22, y + HIGH + 38)
        boxes(y + HIGH + 40, "soft", ends)
        beside(y + HIGH + 40, "likeliest next", "one guess a column")
