"""The attention machine: from tokens to outputs, with every number on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_labels, read_mask, read_numbers
from attncore.core.attention import attention_weights
from attncore.draw.matrix import LEAST, Matrix
from attncore.draw.picture import Picture, check_maps, check_small, check_step
from attncore.draw.scene import Box, Scene
from attncore.masks import causal as causal_mask


class Parts(NamedTuple):
    """The matrices of one attention, ready to be drawn."""

    q: Matrix
    k: Matrix
    v: Matrix
    raw: Matrix
    scaled: Matrix
    weights: Matrix
    output: Matrix
    masked: bool


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    queries: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    causal: bool = False,
    mask: Array | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw attention with all of its numbers, from queries, keys and values to the output.

    .. math:: QK^\top \;\to\; S = QK^\top/\sqrt{D} \;\to\; A = \operatorname{softmax}(S)
        \;\to\; O = AV

    Parameters
    ----------
    q
        Queries `(Tq, D)`, NumPy or torch, at most 8 of them and at most 8 wide.
    k
        Keys `(Tk, D)`.
    v
        Values `(Tk, E)`.
    queries, keys
        Their names, Tq and Tk of them; numbers from 0 unless given. A name of two words, such
        as "猫 cat", stands on two lines over a column.
    causal
        A query attends to no later key; with fewer queries than keys they are the last ones.
    mask
        Boolean `(Tq, Tk)`; True = may attend.
    step
        Draw it as it is when this query, counted from 0, is computed. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the arrays do not fit or are too large to be read, a name is missing or there is no
        such step.
    TypeError
        If the arrays are not real numbers, the mask is not boolean or `step` is no integer.

    References
    ----------
    Vaswani et al. (2017), equation 1 and figure 2, drawn with numbers.

    Examples
    --------
    >>> drawn = attention([[2.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[4.0], [0.0]], keys=["a", "b"])
    >>> drawn.words.split("; ")[-1]
    'A times V (2, 1) is the output O (1, 1). Query 0 attends most to a (0.80).'
    """
    q, k, v = read_numbers("q", q), read_numbers("k", k), read_numbers("v", v)
    parts, words = _parts(q, k, v, queries, keys, causal, mask, step)
    steps = read_labels("queries", queries, len(parts.q.array))
    parts = parts._replace(
        q=replace(parts.q, rows=steps),
        k=replace(parts.k, rows=parts.raw.columns),
        v=replace(parts.v, rows=parts.raw.columns),
        output=replace(parts.output, rows=steps),
    )
    # On a phone there is room for the queries' names; those of the keys stand over the scores.
    narrow = parts._replace(
        q=replace(parts.q, cell=_narrow(parts.q)),
        k=replace(parts.k, rows=(), cell=_narrow(parts.k)),
        v=replace(parts.v, rows=(), cell=_narrow(parts.v)),
        output=replace(parts.output, rows=()),
    )
    wide, tall = Scene(step), Scene(step)
    _wide(wide, parts)
    _tall(tall, narrow, 0)
    return Picture("Attention, step by step", words, wide, tall, steps)


def machine(
    x: Array,
    w_q: Array,
    w_k: Array,
    w_v: Array,
    *,
    context: Array | None = None,
    tokens: Sequence[str] | None = None,
    context_tokens: Sequence[str] | None = None,
    causal: bool = False,
    mask: Array | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw one head of attention with all of its numbers, from tokens to outputs.

    .. math:: Q = XW_Q, \quad K = XW_K, \quad V = XW_V, \quad
        O = \operatorname{softmax}(QK^\top/\sqrt{D})\,V

    Parameters
    ----------
    x
        Tokens `(T, d)`, NumPy or torch, at most 8 of them and at most 8 wide.
    w_q, w_k, w_v
        Learned maps `(d, D)`, `(d, D)` and `(d, E)`.
    context
        A second sequence `(Tk, d)`, from which keys and values are made: cross-attention.
        Without it they are made from `x`: self-attention.
    tokens, context_tokens
        Names of the rows of `x` and of `context`; numbers from 0 unless given. A name of two
        words, such as "猫 cat", stands on two lines over a column.
    causal
        A query attends to no later key; with fewer queries than keys they are the last ones.
    mask
        Boolean `(T, Tk)`; True = may attend.
    step
        Draw it as it is when this query, counted from 0, is computed. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the arrays do not fit or are too large to be read, a name is missing, or there is no
        such step, or no context whose tokens could be named.
    TypeError
        If the arrays are not real numbers, the mask is not boolean or `step` is no integer.

    References
    ----------
    Vaswani et al. (2017), section 3.2, drawn with numbers.

    Examples
    --------
    >>> import numpy as np
    >>> machine(np.eye(2), 2 * np.eye(2), np.eye(2), np.eye(2), tokens=["a", "b"]).title
    'The attention machine'
    """
    given = {"x": x, "w_q": w_q, "w_k": w_k, "w_v": w_v}
    x, w_q, w_k, w_v = (read_numbers(name, array) for name, array in given.items())
    check_small("x", x)
    if context is None and context_tokens is not None:
        raise ValueError("context_tokens name the rows of context, which is not given")
    source = x if context is None else read_numbers("context", context)
    check_small("context", source)
    check_maps("tokens", x, w_q=w_q)
    check_maps("tokens", source, w_k=w_k, w_v=w_v)
    queries = read_labels("tokens", tokens, len(x))
    keys = queries
    if context is not None:
        keys = read_labels("context_tokens", context_tokens, len(source))
    parts, words = _parts(x @ w_q, source @ w_k, source @ w_v, queries, keys, causal, mask, step)
    first = Matrix(x, name="X", rows=queries, row_role="ink bold", links="token", stage="lit")
    second = None
    if context is not None:
        first = Matrix(x, name="X", rows=queries, row_role="ink bold", links="query", stage="lit")
        second = Matrix(source, name="C", rows=keys, row_role="ink bold", links="key")
    wide, tall = Scene(step), Scene(step)
    _wide_inputs(wide, parts, first, second)
    _tall_inputs(tall, parts, first, second)
    made = (
        f"Tokens X {shape_of(x)} become queries, keys and values."
        if context is None
        else f"Tokens X {shape_of(x)} become queries; the context C {shape_of(source)} becomes "
        "keys and values."
    )
    title = "The attention machine" + (", across two sequences" if context is not None else "")
    return Picture(title, f"{made} {words}", wide, tall, queries)


def _parts(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    queries: Sequence[str] | None,
    keys: Sequence[str] | None,
    causal: bool,
    mask: Array | None,
    step: int | None,
) -> tuple[Parts, str]:
    """Return the matrices to draw, and what they show in words."""
    for name, array in (("q", q), ("k", k), ("v", v)):
        check_small(name, array)
    if len(v) != len(k):
        raise ValueError(f"k and v must have one row per key: k {shape_of(k)}, v {shape_of(v)}")
    allowed = np.ones((len(q), len(k)), bool)
    if mask is not None:
        allowed &= read_mask("mask", mask, allowed.shape)
    if causal:
        allowed &= causal_mask(len(q), len(k))
    weights = attention_weights(q, k, allowed)
    names = read_labels("queries", queries, len(q))
    columns = read_labels("keys", keys, len(k))
    check_step(step, len(q))
    raw = q @ k.T
    scaled = np.where(allowed, raw / math.sqrt(q.shape[1]), -np.inf)

    def square(array: np.ndarray, name: str, hidden_text: str = "", shade: bool = False) -> Matrix:
        return Matrix(
            array,
            role="weights",
            name=name,
            columns=columns,
            column_role="key",
            links="both",
            stage="made",
            shade=shade,
            hidden=(lambda i, j: not allowed[i, j]) if hidden_text else None,
            hidden_text=hidden_text,
        )

    parts = Parts(
        Matrix(q, "query", "Q", row_role="query", links="query", stage="made"),
        Matrix(k, "key", "K", row_role="key", links="key"),
        Matrix(v, "value", "V", row_role="value", links="key"),
        square(raw, "QKᵀ"),
        square(scaled, "S", "−∞"),
        square(weights, "A", "0", shade=True),
        Matrix(weights @ v, name="O", links="query", stage="made"),
        not bool(allowed.all()),
    )
    root = f"the square root of {q.shape[1]}"
    most = [
        f"{names[i]} attends most to {columns[j]} ({weights[i, j]:.2f})"
        if weights[i, j] > 0
        else f"{names[i]} attends to nothing"
        for i, j in enumerate(weights.argmax(axis=1))
    ]
    subject = "Query " if queries is None else ""
    return parts, (
        f"Scores are Q {shape_of(q)} times K transposed, divided by {root}"
        f"{', masked' if parts.masked else ''}; softmax of each row gives the weights A "
        f"{shape_of(weights)}; A times V {shape_of(v)} is the output O {parts.output.array.shape}. "
        f"{subject}{', '.join(most)}."
    )


def _narrow(m: Matrix) -> float:
    """Return the width of a column where there is little room: single digits need less."""
    return 22 if m.column == LEAST else m.column


def _root(parts: Parts) -> str:
    """Return the label of the division, such as ÷ √4."""
    return f"÷ √{parts.q.array.shape[1]}"


def _wide(s: Scene, p: Parts) -> tuple[Box, Box, Box]:
    """Draw Q, K and V in a column, what is made of them to its right; return their places."""
    left = max(m.before for m in (p.q, p.k, p.v))
    q = s.put(p.q, left, 0)
    k = s.put(p.k, left, q.foot + p.k.above + 30)
    inner = left + max(m.width for m in (p.q, p.k, p.v)) + 36
    middle = max(p.raw.width, p.output.width + p.output.before - 10)
    raw = s.put(p.raw, inner + (middle - p.raw.width) / 2, 0)
    last = inner + middle + 48
    right = max(p.scaled.width, p.weights.width)
    scaled = s.put(p.scaled, last + (right - p.scaled.width) / 2, 0)
    # V, A and O in one line, under K and under what is over A and O.
    free = max(scaled.foot + 40, k.center[1] + 12) + max(p.weights.above, p.output.above)
    line = max(k.foot + p.v.above + 30 + p.v.height / 2, free + p.weights.height / 2)
    v = s.put(p.v, left, line - p.v.height / 2)
    y = line - p.weights.height / 2
    weights = s.put(p.weights, last + (right - p.weights.width) / 2, y)
    output = s.put(p.output, inner + middle - p.output.width, y)
    s.arrow(q.right, raw.left, role="query")
    s.arrow(k.right, (raw.center[0], k.center[1]), raw.bottom, role="key")
    s.arrow(raw.right, scaled.left, role="weights", label=_root(p))
    if p.masked:
        s.text(((raw.end + scaled.x) / 2, scaled.center[1] + 13), "mask", "small weights")
    s.arrow(scaled.bottom, weights.top, role="weights")
    x, y = scaled.center[0], (scaled.bottom[1] + weights.top[1]) / 2
    room = x - raw.center[0] > 130  # to the left, beside the keys' arrow
    place = (x - 9, y) if room else (x + 9, y)
    s.text(place, "softmax of each row", f"small weights {'end' if room else 'start'}")
    s.arrow(weights.left, output.right, role="weights")
    s.arrow(v.right, output.left, role="value")
    s.text((output.center[0], output.foot + 16), "O = A V", "small soft")
    return q, k, v


def _tall(s: Scene, p: Parts, y: float) -> tuple[Box, Box, Box]:
    """Draw Q, K and V in a row, what is made of them below."""
    x, boxes = 0.0, []
    for m in (p.q, p.k, p.v):
        boxes.append(s.put(m, x + m.before, y + m.above))
        x = boxes[-1].end + 10
    q, k, v = boxes
    foot = max(b.foot for b in boxes)
    raw = s.put(p.raw, 8, foot + p.raw.above + 62)
    scaled = s.put(p.scaled, raw.end + 42, raw.y)
    s.arrow(
        q.bottom,
        (q.center[0], foot + 18),
        (raw.center[0] - 12, foot + 18),
        (raw.center[0] - 12, raw.top[1]),
        role="query",
    )
    s.arrow(
        k.bottom,
        (k.center[0], foot + 34),
        (raw.center[0] + 12, foot + 34),
        (raw.center[0] + 12, raw.top[1]),
        role="key",
    )
    s.arrow(raw.right, scaled.left, role="weights", label=_root(p))
    if p.masked:
        s.text(((raw.end + scaled.x) / 2, scaled.center[1] + 13), "mask", "small weights")
    weights = s.put(p.weights, 8, scaled.foot + p.weights.above + 56)
    turn = scaled.foot + 26
    s.arrow(
        scaled.bottom,
        (scaled.center[0], turn),
        (weights.center[0], turn),
        weights.top,
        role="weights",
    )
    s.text((weights.center[0] + 9, turn + 11), "softmax of each row", "small start weights")
    output = s.put(p.output, weights.end + p.output.before + 40, weights.y)
    s.arrow(weights.right, output.left, role="weights", label="× V")
    edge = max(scaled.end, output.end, v.end) + 11
    s.arrow(
        (v.center[0], v.bottom[1]),
        (v.center[0], foot + 18),
        (edge, foot + 18),
        (edge, output.center[1]),
        output.right,
        role="value",
    )
    return q, k, v


def _wide_inputs(s: Scene, p: Parts, first: Matrix, second: Matrix | None) -> None:
    """Draw the sequences, and everything that is made of them, from left to right."""
    q, k, v = _wide(s, p)
    turn = min(b.left[0] for b in (q, k, v)) - 26

    def feed(box: Box, targets: tuple[tuple[Box, str, str], ...]) -> None:
        start = box.right
        s.line(start, (turn, start[1]))
        for target, name, role in targets:
            height = target.center[1]
            bend = [(turn, height)] if abs(height - start[1]) > 1 else []
            s.arrow((turn, start[1]), *bend, target.left, role=role)
            s.text((turn + 3, height - 17), name, f"small start {role}")

    into = ((q, "W_Q", "query"), (v, "W_V", "value"), (k, "W_K", "key"))
    x = turn - 24
    if second is None:
        feed(s.put(first, x - first.width, k.center[1] - first.height / 2), into)
        return
    middle = (k.center[1] + v.center[1]) / 2
    feed(s.put(first, x - first.width, q.center[1] - first.height / 2), into[:1])
    feed(s.put(second, x - second.width, middle - second.height / 2), into[1:])


def _tall_inputs(s: Scene, p: Parts, first: Matrix, second: Matrix | None) -> None:
    """Draw the sequences at the top, and everything that is made of them below."""
    top = max(m.height + m.above for m in (first, second) if m is not None) + 62
    q, k, v = _tall(s, p, top)
    turn = top - 34

    def feed(box: Box, targets: tuple[tuple[Box, str, str], ...]) -> None:
        start = box.bottom
        s.line(start, (start[0], turn))
        for target, name, role in targets:
            x = target.center[0]
            bend = [(x, turn)] if abs(x - start[0]) > 1 else []
            s.arrow((start[0], turn), *bend, target.top, role=role)
            s.text((x + 8, turn + 10), name, f"small start {role}")

    into = ((q, "W_Q", "query"), (v, "W_V", "value"), (k, "W_K", "key"))
    if second is None:
        feed(s.put(first, k.center[0] - first.width / 2, first.above), into)
        return
    middle = (k.center[0] + v.center[0]) / 2
    first_box = s.put(first, max(q.center[0] - first.width / 2, first.before), first.above)
    feed(first_box, into[:1])
    after = first_box.end + 18 + second.before
    feed(s.put(second, max(middle - second.width / 2, after), second.above), into[1:])
