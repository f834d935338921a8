"""Heads that share keys and values: who reads whom, and how much of the cache is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attncore.base.arrays import is_tensor
from attncore.base.integers import check_sizes
from attncore.draw.picture import TALL, WIDE, Picture
from attncore.draw.scene import Box, Scene, shelves
from attncore.draw.text import number

MOST = 8  # query heads
PITCH, SIZE = 22, 16  # from one head to the next, and a head
APART = 26  # between two panels


class Kind(NamedTuple):
    """One way to share: its name, its key-value heads, and its share of the full cache."""

    name: str
    kv_heads: int
    share: float
    latent: int = 0


def head_sharing(
    heads: int = 8,
    *,
    kv_heads: Sequence[int] = (8, 2, 1),
    head_dim: int | None = None,
    latent: int | None = None,
) -> Picture:
    r"""Draw which key and value heads the query heads read, one panel for each way to share.

    .. math:: \text{query head } h \text{ reads key-value head } \lfloor hG/H \rfloor, \qquad
        \text{cache} = \frac{G}{H}, \quad\text{or}\quad \frac{\text{latent}}{2 H D}

    Multi-head (MHA) has G = H, multi-query (MQA) has G = 1, and grouped-query (GQA) lies between.
    Multi-head latent attention (MLA) keeps one row for all heads, from which it makes their keys
    and values again.

    Parameters
    ----------
    heads
        H, the number of query heads, at most 8.
    kv_heads
        G of each panel; each divides H.
    head_dim
        D, the width of a head, for the last panel.
    latent
        Width of what MLA keeps for a token, positions included; the last panel is drawn only if
        it is given.

    Returns
    -------
    Picture
        Shown by Jupyter; `svg()` is its text, and its `repr` says it in words.

    Raises
    ------
    ValueError
        If there are too many heads, a number of key-value heads does not divide theirs, only one
        of `head_dim` and `latent` is given, or the latent row is longer than what it stands for.
    TypeError
        If a number is no integer.

    References
    ----------
    Shazeer (2019); Ainslie et al. (2023); DeepSeek-AI (2024), "DeepSeek-V2", section 2.1.

    Examples
    --------
    >>> head_sharing(4, kv_heads=[2]).words
    '4 query heads. GQA: 2 query heads read each of 2 key-value heads; the cache takes 50 %.'
    """
    (H,) = check_sizes(heads=heads)
    if H > MOST:
        raise ValueError(f"heads must be at most {MOST} to be read as a picture, got {H}")
    if is_tensor(kv_heads) or isinstance(kv_heads, str) or not isinstance(kv_heads, Sequence):
        raise TypeError(f"kv_heads must be a list of integers, got {type(kv_heads).__name__}")
    kinds = []
    for given in kv_heads:
        (G,) = check_sizes(kv_heads=given)
        if H % G:
            raise ValueError(f"kv_heads must divide heads: heads = {H}, kv_heads = {G}")
        kinds.append(Kind("MHA" if G == H else "MQA" if G == 1 else "GQA", G, G / H))
    if (head_dim is None) != (latent is None):
        raise ValueError("head_dim and latent belong together: give both, or neither")
    if head_dim is not None:
        D, width = check_sizes(head_dim=head_dim, latent=latent)
        if width > 2 * H * D:
            raise ValueError(
                f"latent must be at most 2 * heads * head_dim = {2 * H * D}, which all heads' keys "
                f"and values take, got {width}"
            )
        kinds.append(Kind("MLA", 1, width / (2 * H * D), width))
    if not kinds:
        raise ValueError("kv_heads is empty: give the number of key-value heads of a panel")
    words = f"{H} query head{'s' if H > 1 else ''}. {' '.join(_words(H, kind) for kind in kinds)}"
    wide, tall = (_scene(H, kinds, room) for room in (WIDE, TALL))
    return Picture("Heads that share keys and values", words, wide, tall)


def _percent(share: float) -> str:
    text = number(100 * share, 1)
    return f"{text.removesuffix('.0')} %"


def _words(H: int, kind: Kind) -> str:
    cache = f"the cache takes {_percent(kind.share)}."
    if kind.latent:
        return (
            f"{kind.name}: one row of {kind.latent} numbers is kept for a token, from which all "
            f"heads' keys and values are made again; {cache}"
        )
    readers = H // kind.kv_heads
    few = f"{readers} query head{'s read' if readers > 1 else ' reads'}"
    if kind.kv_heads == 1:
        return f"{kind.name}: {few} the only key-value head; {cache}"
    return f"{kind.name}: {few} each of {kind.kv_heads} key-value heads; {cache}"


def _scene(H: int, kinds: Sequence[Kind], room: float) -> Scene:
    s, y = Scene(), 0.0
    before, width = 20.0, float(max(H * PITCH, 176))
    panel = before + width + APART
    rows = shelves([panel] * len(kinds), room + APART)
    if len(rows) > 1 and len(kinds) == len(rows[0]) + 1:  # no single panel in the last row
        half = (len(kinds) + 1) // 2
        rows = [list(range(half)), list(range(half, len(kinds)))]
    for row in rows:
        for place, n in enumerate(row):
            _panel(s, place * panel + before, y, H, kinds[n], width)
        y += 190 if any(kinds[n].latent for n in row) else 166
    return s


def _panel(s: Scene, x: float, y: float, H: int, kind: Kind, width: float) -> None:
    """Draw query heads above, key and value heads below, and what is kept."""
    middle = x + width / 2
    left = middle - H * PITCH / 2
    made = bool(kind.latent)  # keys and values are made anew, not kept
    G = H if made else kind.kv_heads
    group = H // G
    s.text((middle, y), kind.name, "bold")
    for name, role, down in (("Q", "query", 29), ("K", "key", 88), ("V", "value", 110)):
        s.text((left - 10, y + down), name, f"small bold {role}")
    for h in range(H):
        top, foot = left + (h + 0.5) * PITCH, left + (h // group + 0.5) * group * PITCH
        with s.cell("query", h):
            s.line((top, y + 40), (foot, y + 77))
            s.rect(Box(top - SIZE / 2, y + 20, SIZE, SIZE), "query", opacity=0.75, corner=4)
    for g in range(G):
        at = left + (g + 0.5) * group * PITCH - SIZE / 2
        with s.cell("query", g * group, 0, *range(g * group + 1, (g + 1) * group)):
            for role, down in (("key", 79), ("value", 101)):
                box = Box(at, y + down, SIZE, SIZE)
                if made:
                    s.frame(box, role, dash=True, corner=4)
                else:
                    s.rect(box, role, opacity=0.75, corner=4)
            if made:
                s.line((at + SIZE / 2, y + 121), (at + SIZE / 2, y + 131))
    plural = "s" if kind.kv_heads > 1 else ""
    kept = f"{kind.kv_heads} key-value head{plural}"
    if made:
        row = Box(left + 3, y + 132, H * PITCH - 6, 16)
        s.rect(row, "ink", opacity=0.4, corner=4)
        kept = f"1 row of {kind.latent}"
    below = y + (161 if made else 136)
    s.text((middle, below), f"{kept}: cache {_percent(kind.share)}", "small")
