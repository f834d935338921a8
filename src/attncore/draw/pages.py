"""A paged KV cache: block tables that point into one pool, shared prefixes, and what is wasted."""

from __future__ import annotations

from collections.abc import Sequence

from attncore.base.integers import check_integer
from attncore.base.reading import read_labels
from attncore.draw.picture import Picture
from attncore.draw.scene import Box, Scene
from attncore.draw.text import SMALL, width_of

MOST = {"block_size": 8, "blocks": 24, "tables": 6, "table": 6}


def pages(
    tables: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    block_size: int = 4,
    blocks: int | None = None,
    names: Sequence[str] | None = None,
    step: int | None = None,
) -> Picture:
    r"""Draw a paged KV cache: each sequence's block table, and the pool that the tables point into.

    .. math:: \text{token } t \text{ lies in block } \text{table}[\lfloor t / \text{size} \rfloor],
        \text{ place } t \bmod \text{size}

    Parameters
    ----------
    tables
        For each sequence, at most 6, the numbers of its blocks in order, at most 6. A block that
        stands in several tables is shared.
    lengths
        How many tokens each sequence has.
    block_size
        Tokens that a block has room for, at most 8.
    blocks
        Blocks in the pool, at most 24; as many as the tables need unless given.
    names
        Names of the sequences; numbers from 0 unless given.
    step
        Point out the blocks of this sequence, counted from 0. None points out none.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each sequence; its `repr` counts what is used and wasted.

    Raises
    ------
    ValueError
        If a table has not as many blocks as its tokens need, names a block that is not in the
        pool or names it twice, a shared block is not a common prefix, or there is too much to be
        read.
    TypeError
        If a table is no list, or a number no integer.

    References
    ----------
    Kwon et al. (2023), sections 4.1 to 4.4.

    Examples
    --------
    >>> pages([[0, 1], [0, 2]], [6, 7], block_size=4).words.split(". ")[1]
    'Of 12 places in the 3 blocks in use 9 are filled and 3 wasted'
    """
    given = _lists("tables", tables)
    if not 1 <= len(given) <= MOST["tables"]:
        raise ValueError(f"tables must be of 1 to {MOST['tables']} sequences, got {len(given)}")
    size = check_integer("block_size", block_size)
    if not 1 <= size <= MOST["block_size"]:
        raise ValueError(f"block_size must be 1 to {MOST['block_size']} to be drawn, got {size}")
    counts = _integers("lengths", lengths)
    if len(counts) != len(given):
        raise ValueError(
            f"lengths must have one number for each of the {len(given)} tables, got {len(counts)}"
        )
    needed = max((block for table in given for block in table), default=-1) + 1
    pool = needed if blocks is None else check_integer("blocks", blocks)
    if not max(1, needed) <= pool <= MOST["blocks"]:
        raise ValueError(
            f"blocks must be {max(1, needed)} or more, for the tables name block {needed - 1}, "
            f"and at most {MOST['blocks']} to be read as a picture, got {pool}"
        )
    labels = read_labels("names", names, len(given))
    if step is not None and not 0 <= check_integer("step", step) < len(given):
        raise ValueError(f"step must be one of the {len(given)} sequences, from 0, got {step}")
    users, filled = _filled(given, counts, size)
    wide, tall = Scene(step), Scene(step)
    foot = _sequences(wide, given, counts, labels)
    table_end = wide.high[0]
    _pool(wide, table_end + 40, 0, pool, size, users, filled, 688 - table_end - 40)
    foot = _sequences(tall, given, counts, labels)
    _pool(tall, 0, foot + 30, pool, size, users, filled, 350)
    used, room = sum(filled.values()), size * len(filled)
    shared = [
        f"block {b} is shared by {len(users[b])} sequences"
        for b in sorted(users)
        if len(users[b]) > 1
    ]
    words = (
        f"{len(given)} sequences of {', '.join(map(str, counts))} tokens lie in blocks of {size}. "
        f"Of {room} places in the {len(filled)} blocks in use {used} are filled and {room - used} "
        f"wasted. Free blocks: {pool - len(filled)}. "
        f"{'; '.join(shared).capitalize() or 'No block is shared'}."
    )
    return Picture("A paged KV cache", words, wide, tall, [f"sequence {name}" for name in labels])


def _lists(name: str, given: object) -> list[list[int]]:
    """Return lists of block numbers, or say what is none."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{name} must be a list of block tables, got {type(given).__name__}")
    return [_integers(f"{name}[{s}]", table) for s, table in enumerate(given)]


def _integers(name: str, given: object) -> list[int]:
    """Return integers from 0 on, or say which is none."""
    if hasattr(given, "tolist"):
        given = given.tolist()
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{name} must be a list of integers, got {type(given).__name__}")
    found = [check_integer(f"{name}[{i}]", value) for i, value in enumerate(given)]
    for i, value in enumerate(found):
        if value < 0:
            raise ValueError(f"{name}[{i}] must not be negative, got {value}")
    return found


def _filled(
    tables: list[list[int]], lengths: list[int], size: int
) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return the sequences that use each block, and how many tokens are in it."""
    users: dict[int, list[int]] = {}
    filled: dict[int, int] = {}
    place: dict[int, int] = {}
    for s, (table, length) in enumerate(zip(tables, lengths, strict=True)):
        if len(table) > MOST["table"]:
            raise ValueError(
                f"tables[{s}] must have at most {MOST['table']} blocks to be drawn, got "
                f"{len(table)}"
            )
        if len(table) != -(-length // size):
            raise ValueError(
                f"tables[{s}] must have {-(-length // size)} blocks of {size} for lengths[{s}] = "
                f"{length} tokens, got {len(table)}"
            )
        for at, block in enumerate(table):
            inside = min(size, length - at * size)
            if s in users.get(block, []):
                raise ValueError(f"tables[{s}] must not name block {block} twice")
            if place.setdefault(block, at) != at or (
                at and block in users and any(tables[o][:at] != table[:at] for o in users[block])
            ):
                raise ValueError(
                    f"tables[{s}] must share block {block} as part of a common prefix: its tokens "
                    "depend on all tokens before them"
                )
            if filled.setdefault(block, inside) != inside:
                raise ValueError(
                    f"lengths[{s}] leaves {inside} tokens in block {block}, which is shared and "
                    f"holds {filled[block]}: the sequence that writes must copy the block first"
                )
            users.setdefault(block, []).append(s)
    return users, filled


def _sequences(s: Scene, tables: list[list[int]], lengths: list[int], labels: list[str]) -> float:
    """Draw the block tables; return where they end below."""
    widest = max(width_of(label, SMALL) for label in ("sequence", *labels))
    left = widest + 82
    s.text((0, 0), "sequence", "small start soft")
    s.text((widest + 70, 0), "length", "small end soft")
    s.text((left + 10, 0), "block table", "small start soft")
    for i, (table, length, label) in enumerate(zip(tables, lengths, labels, strict=True)):
        y = 30.0 + 38 * i
        with s.row(i, "lit"), s.cell("query", i):
            s.text((0, y), label, "small start bold")
            s.text((widest + 62, y), str(length), "small end")
            for at, block in enumerate(table):
                box = Box(left + 10 + 30 * at, y - 13, 26, 26)
                s.rect(box, "key", opacity=0.2, corner=4)
                s.text(box.center, str(block))
            whole = Box(left + 6, y - 17, 30 * max(len(table), 1) + 4, 34)
            s.rect(whole, "key", corner=6, look="line outline")
    return 30.0 + 38 * len(tables)


def _pool(
    s: Scene,
    x: float,
    y: float,
    blocks: int,
    size: int,
    users: dict[int, list[int]],
    filled: dict[int, int],
    width: float,
) -> None:
    """Draw all blocks, with their tokens, and how often each is used."""
    slot = 14
    w = max(size * (slot + 2) + 14, 70)
    across = max(1, int((width + 12) // (w + 12)))
    legend = "; ×2: in two tables" if any(len(who) > 1 for who in users.values()) else ""
    s.text((x, y), f"pool: {blocks} blocks of {size}{legend}", "small start soft")
    used, room = sum(filled.values()), size * len(filled)
    told = f"{room} places in use: {used} filled, {room - used} wasted"
    s.text((x, y + 36 + -(-blocks // across) * 66), told, "small start")
    for block in range(blocks):
        box = Box(x + block % across * (w + 12), y + 17 + block // across * 66, w, 54)
        if block not in users:
            s.frame(box, "soft", dash=True, corner=6)
            s.text((box.x + 8, box.y + 14), str(block), "small start soft")
            s.text((box.center[0], box.center[1] + 8), "free", "small soft")
            continue
        first, *others = users[block]
        with s.cell("query", first, 0, *others):
            s.rect(box, "key", opacity=0.12, corner=6)
            s.text((box.x + 8, box.y + 14), str(block), "start bold")
            if len(users[block]) > 1:
                s.text((box.end - 8, box.y + 14), f"×{len(users[block])}", "small end weights bold")
            for t in range(size):
                place = Box(box.x + 8 + t * (slot + 2), box.y + 30, slot, slot)
                if t < filled[block]:
                    s.rect(place, "key", opacity=0.75, corner=2)
                else:
                    s.frame(place, "soft", dash=True, corner=2)
        for i in users[block]:
            with s.only(i):
                s.frame(box, "key", corner=6)
