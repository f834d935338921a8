"""FlashAttention's tiles: what lies in the small, fast memory while scores pass through it."""

from __future__ import annotations

from attncore.base.integers import check_integer
from attncore.base.settings import check_flag
from attncore.draw.picture import Picture
from attncore.draw.scene import WHOLE, Box, Scene

MOST = 6  # blocks


def tiles(blocks: int, *, causal: bool = False, step: int | None = None) -> Picture:
    r"""Draw the tiles that FlashAttention visits, and the two memories between which blocks move.

    .. math:: m' = \max(m, \max_j s_j), \quad
        \ell' = e^{m - m'} \ell + \sum_j e^{s_j - m'}, \quad
        o' = e^{m - m'} o + \sum_j e^{s_j - m'} v_j

    Parameters
    ----------
    blocks
        How many blocks the queries are cut into, and the keys and values: 2 to 6.
    causal
        Tiles that lie wholly in the future are skipped, and those on the diagonal are half hidden.
    step
        Draw it as it is when this tile, counted from 0 in the order of the visits, is computed.
        None draws the end.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each tile; its `repr` says it in words.

    Raises
    ------
    ValueError
        If there are fewer than 2 blocks or more than 6, or there is no such step.
    TypeError
        If `blocks` or `step` is no integer, or `causal` no bool.

    References
    ----------
    Dao et al. (2022), algorithm 1, in the order of Dao (2023): queries outside, keys inside.

    Examples
    --------
    >>> tiles(4, causal=True).words.split(". ")[1]
    'Of the 4 x 4 tiles of scores 10 are computed, one at a time, and none is stored'
    """
    blocks = check_integer("blocks", blocks)
    if not 2 <= blocks <= MOST:
        raise ValueError(f"blocks must be 2 to {MOST} to be read as a picture, got {blocks}")
    hidden = check_flag("causal", causal)
    visits = [(i, j) for i in range(blocks) for j in range(blocks) if j <= i or not hidden]
    if step is not None and not 0 <= check_integer("step", step) < len(visits):
        raise ValueError(f"step must be one of the {len(visits)} tiles, counted from 0, got {step}")
    wide, tall = Scene(step), Scene(step)
    slow = _slow(wide, 0, 0, blocks, visits)
    fast = _fast(wide, slow.end + 56, slow.center[1] - 151, visits)
    high, low = fast.y + 100, fast.y + 180
    wide.arrow((slow.end + 5, high), (fast.x - 5, high), label="load")
    wide.arrow((fast.x - 5, low), (slow.end + 5, low), role="ink", label="write O")
    slow = _slow(tall, 0, 0, blocks, visits)
    fast = _fast(tall, (slow.w - 300) / 2, slow.foot + 50, visits)
    left, right = slow.center[0] - 80, slow.center[0] + 60
    tall.arrow((left, slow.foot + 5), (left, fast.y - 5), label="load")
    tall.arrow((right, fast.y - 5), (right, slow.foot + 5), role="ink", label="write O")
    names = [f"tile {i}, {j}" for i, j in visits]
    loads = f"Q and O move once, K and V {len(visits)} blocks each"
    now = "All tiles have been visited."
    if step is not None:
        i, j = visits[step]
        now = (
            f"Now: block {i} of Q and block {j} of K and V are in the fast memory, with the tile "
            f"of scores S {i}, {j}, the running maximum m and sum l of each query, and the "
            f"unfinished output O {i}."
        )
    words = (
        f"The slow memory holds Q, K, V and O, cut into {blocks} blocks each. Of the {blocks} x "
        f"{blocks} tiles of scores {len(visits)} are computed, one at a time, and none is stored. "
        f"In all, {loads}. {now}"
    )
    return Picture("FlashAttention, tile by tile", words, wide, tall, names)


def _slow(s: Scene, x: float, y: float, blocks: int, visits: list[tuple[int, int]]) -> Box:
    """Draw the slow memory, with all blocks and the square of tiles that is not in it."""
    side = 38 if blocks <= 4 else 34
    across = blocks * side
    box = Box(x, y, across + 120, across + 150)
    s.rect(box, "soft", opacity=0.08, corner=10)
    s.text((x + 16, y + 20), "slow memory, large", "small start soft bold")
    left, top = x + 62, y + 84

    def places(b: int) -> dict[str, Box]:
        along, size = b * side, side - 4
        return {
            "Q": Box(left - 46, top + along, 34, size),
            "K": Box(left + along, top - 44, size, 32),
            "V": Box(left + along, top + across + 8, size, 32),
            "O": Box(left + across + 8, top + along, 34, size),
        }

    roles = {"Q": "query", "K": "key", "V": "value", "O": "ink"}
    for b in range(blocks):
        for name, at in places(b).items():
            if name == "O":  # there from the row's last tile on
                with s.row(max(t for t, (i, _) in enumerate(visits) if i == b), "made"):
                    s.rect(at, "ink", opacity=0.3, corner=4)
            else:
                s.rect(at, roles[name], opacity=0.14, corner=4)
            s.text(at.center, f"{name}_{b}", "small")
    for i in range(blocks):
        for j in range(blocks):
            at = Box(left + j * side, top + i * side, side - 4, side - 4)
            if (i, j) not in visits:
                s.text(at.center, "–", "small soft")
                continue
            with s.row(visits.index((i, j)), "kept"):
                s.rect(at, "weights", opacity=0.3, corner=4)
            s.frame(at, "weights", dash=True, corner=4)
            if i == j and len(visits) < blocks**2:
                s.line((at.x + 3, at.y + 3), (at.end - 3, at.foot - 3))
    for t, (i, j) in enumerate(visits):
        with s.only(t):
            tile = Box(left + j * side, top + i * side, side - 4, side - 4)
            s.rect(tile, "weights", opacity=0.3, corner=4)
            s.text(tile.center, f"S_{i}{j}", "small halo bold")
            for name, b in (("Q", i), ("K", j), ("V", j)):
                s.rect(places(b)[name], roles[name], opacity=0.3, corner=4)
                s.frame(places(b)[name], roles[name], corner=4)
            s.frame(places(i)["O"], "ink", corner=4)
    skipped = ", – is skipped" if len(visits) < blocks**2 else ""
    s.text((box.center[0], box.foot - 14), f"tiles of S: never stored{skipped}", "small weights")
    return box


def _fast(s: Scene, x: float, y: float, visits: list[tuple[int, int]]) -> Box:
    """Draw the fast memory: three blocks, one tile, and what is kept for each query."""
    box = Box(x, y, 300, 302)
    s.frame(box, "ink", corner=10)
    s.text((x + 16, y + 20), "fast memory, small", "small start bold")
    size = 44
    slots = {
        "Q": Box(x + 22, y + 92, size, size),
        "K": Box(x + 78, y + 38, size, size),
        "S": Box(x + 78, y + 92, size, size),
        "V": Box(x + 166, y + 38, size, size),
        "O": Box(x + 166, y + 92, size, size),
        "m": Box(x + 222, y + 92, 24, size),
        "ℓ": Box(x + 254, y + 92, 24, size),
    }
    roles = {"Q": "query", "K": "key", "S": "weights", "V": "value"}
    for name, at in slots.items():
        s.rect(at, roles.get(name, "ink"), opacity=0.18, corner=5)
    s.arrow((x + 126, y + 114), (x + 162, y + 114), role="weights", label="exp")
    for name in "mℓ":
        s.text(slots[name].center, name)
    rows = {i: [t for t, (a, _) in enumerate(visits) if a == i] for i, _ in visits}
    s.text((x + 150, y + 160), "m grows to the largest score so far;", "small soft")
    s.text((x + 150, y + 178), "ℓ and O shrink by exp(m before − m),", "small soft")
    s.text((x + 150, y + 196), "then the tile's sums are added.", "small soft")
    for t, (i, j) in enumerate(visits):
        with s.only(t):
            for name, label in zip("QKVSO", (i, j, j, f"{i}{j}", i), strict=True):
                s.text(slots[name].center, f"{name}_{label}", "bold")
            state = f"S_{i}{j} is dropped; m, ℓ and O_{i} stay."
            if t == rows[i][-1]:
                state = f"Last tile of the row: O_{i} / ℓ is written."
            elif t == rows[i][0]:
                state = f"First tile: m = −∞, ℓ = 0 and O_{i} = 0 before."
            s.text((x + 150, y + 226), state, "small")
            done = sum(t >= row[-1] for row in rows.values())
            _moved(s, x, y, i + 1, t + 1, done)
    with s.only(WHOLE):
        s.text((x + 150, y + 226), "All tiles visited: the fast memory is free.", "small")
        _moved(s, x, y, len(rows), len(visits), len(rows))
    return box


def _moved(s: Scene, x: float, y: float, queries: int, keys: int, outputs: int) -> None:
    """Write how many blocks have moved so far."""
    s.text((x + 150, y + 256), "Blocks moved so far:", "small soft")
    s.text((x + 150, y + 276), f"Q {queries}, K {keys}, V {keys} in; O {outputs} out", "small bold")
