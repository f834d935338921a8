"""The KV cache at a step: what is new, what is read again, and what is not kept."""

from __future__ import annotations

from collections.abc import Sequence

from attncore.base.arrays import Array, shape_of
from attncore.base.reading import read_labels, read_numbers
from attncore.core.attention import attention_weights
from attncore.draw.matrix import Matrix
from attncore.draw.picture import (
    TALL,
    WIDE,
    Picture,
    check_alike,
    check_maps,
    check_small,
    check_step,
)
from attncore.draw.scene import WHOLE, Box, Scene
from attncore.masks import causal

APART, ROOM = 22, 14  # between two matrices, and around what is kept
OVER = 62  # height of what is written over a matrix
LOOK = {"K": "key", "V": "value"}


def kv_cache(
    x: Array,
    w_q: Array,
    w_k: Array,
    w_v: Array,
    *,
    tokens: Sequence[str] | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw causal attention one token a step, as it is computed with a KV cache.

    .. math:: y_t = \sum_{j \le t} \alpha_{tj} v_j

    At step t one query, one key and one value are new. The keys and values before it are read
    again, which is why they are kept; earlier queries, weights and outputs are not.

    Parameters
    ----------
    x
        Tokens `(T, d)`, NumPy or torch, at most 8 of them and at most 8 wide.
    w_q, w_k, w_v
        Learned maps `(d, D)`, `(d, D)` and `(d, E)`.
    tokens
        Their names; numbers from 0 unless given.
    step
        Draw it as it is when this token, counted from 0, is computed. None draws the whole.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If the arrays do not fit or are too large to be read, a name is missing, or there is no
        such step.
    TypeError
        If the arrays are not real numbers or `step` is no integer.

    References
    ----------
    Shazeer (2019), section 2.4; Pope et al. (2023), section 2.

    Examples
    --------
    >>> import numpy as np
    >>> eye = np.eye(2)
    >>> kv_cache(eye, eye, eye, eye, tokens=["a", "b"]).words.split(". ")[-1]
    'Step 1, b: 1 key and 1 value are new, 1 of each is read again.'
    """
    given = {"x": x, "w_q": w_q, "w_k": w_k, "w_v": w_v}
    arrays = {name: read_numbers(name, array) for name, array in given.items()}
    rows = arrays.pop("x")
    check_small("x", rows)
    check_maps("x", rows, **arrays)
    T = len(rows)
    check_step(step, T, "tokens")
    names = read_labels("tokens", tokens, T)
    q, k, v = (rows @ arrays[name] for name in ("w_q", "w_k", "w_v"))
    check_alike(arrays["w_q"], arrays["w_k"])
    weights = attention_weights(q, k, causal(T, T))
    parts = (
        Matrix(rows, name="X", rows=names, row_role="ink bold", links="token", stage="dropped"),
        Matrix(q, "query", "Q", links="query", stage="dropped"),
        Matrix(k, "key", "K", links="key", stage="kept"),
        Matrix(v, "value", "V", links="key", stage="kept"),
        Matrix(weights, "weights", "A", names, names, "query", "key", links="both",
               stage="dropped", shade=True, hidden=lambda i, j: j > i),
        Matrix(weights @ v, name="O", links="query", stage="dropped"),
    )  # fmt: skip
    captions = [f"1 key and 1 value are new, {_again(t)} read again" for t in range(T)]
    wide, tall = (_scene(step, parts, captions, room) for room in (WIDE, TALL))
    told = [f"Step {t}, {names[t]}: {caption}." for t, caption in enumerate(captions)]
    words = (
        f"Tokens X {shape_of(rows)} are read one a step. Each makes a query, a key and a value; "
        f"keys K {shape_of(k)} and values V {shape_of(v)} are kept and read again, queries are "
        f"not. A step computes one row of the weights A {shape_of(weights)} and of the output "
        f"{shape_of(weights @ v)}. {' '.join(told)}"
    )
    return Picture("The KV cache, step by step", words, wide, tall, names)


def _again(t: int) -> str:
    return "nothing is" if t == 0 else f"{t} of each {'is' if t == 1 else 'are'}"


def _scene(
    step: int | None, parts: Sequence[Matrix], captions: Sequence[str], room: float
) -> Scene:
    """Draw the rows of tokens, queries, keys and values, and what a step makes of them below."""
    s = Scene(step)
    x, q, k, v, a, o = parts
    kept = max(k.width + v.width + APART, 170) + 2 * ROOM
    beside = x.before + x.width + 46 + q.width + 22 + kept <= room
    tokens = s.put(x, x.before, OVER)
    query = s.put(q, tokens.end + 46, OVER)
    s.arrow(tokens.right, query.left, role="query", label="W_Q")
    s.text((query.center[0], OVER - 42), "not kept", "small soft")
    frame = Box(query.end + 22, 0, kept, OVER + k.height + 12)
    if not beside:
        frame = Box(0, query.foot + 42, kept, OVER + k.height + 12)
    s.frame(frame, "soft", dash=True, corner=8)
    s.text((frame.center[0], frame.y + OVER - 42), "KV cache: kept, read again", "small soft")
    inner = frame.x + (kept - k.width - v.width - APART) / 2
    key = s.put(k, inner, frame.y + OVER)
    value = s.put(v, key.end + APART, frame.y + OVER)
    down = tokens.center[0]
    if beside:
        turn = frame.foot + 20
        s.line((down, tokens.foot + 8), (down, turn), (key.center[0], turn))
        for box, name in ((key, "K"), (value, "V")):
            start = (box.center[0] - 10, turn) if name == "K" else (key.center[0], turn)
            s.arrow(start, (box.center[0], turn), (box.center[0], frame.foot + 3), role=LOOK[name])
            s.text((box.center[0] + 6, turn + 9), f"W_{name}", f"small start {LOOK[name]}")
    else:
        s.arrow((down, tokens.foot + 8), (down, frame.y - 4), label="W_K and W_V")
    foot = frame.foot + (50 if beside else 26)
    told = f"each step: softmax of the new query times the keys so far ÷ √{q.array.shape[1]}"
    s.text((0, foot), told, "small soft start")
    weights = s.put(a, a.before, foot + a.above + 18)
    if a.before + a.width + 46 + o.width <= room:
        output = s.put(o, weights.end + 46, weights.y)
        s.arrow(weights.right, output.left, role="value", label="× V")
    else:
        output = s.put(o, weights.x, weights.foot + o.above + 40)
        s.arrow(weights.bottom, (weights.center[0], output.top[1]), role="value", label="times V")
    place = (0.0, output.foot + 26)
    for t, caption in enumerate(captions):
        s.text(place, f"step {t}:  {caption}", "small start", only=t)
    s.text(
        place, "each row of A is one step: one query, all keys so far", "small start", only=WHOLE
    )
    return s
