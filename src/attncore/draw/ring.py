"""Ring attention: queries stay, keys and values go round, and devices wait for the busiest."""

from __future__ import annotations

from attncore.base.integers import check_integer
from attncore.base.settings import check_flag
from attncore.draw.picture import Picture
from attncore.draw.scene import WHOLE, Box, Point, Scene
from attncore.draw.text import number

MOST = 6  # devices
CARD = Box(0, 0, 238, 48)
PITCH = 74  # from card to card
Held = list[tuple[int, ...]]  # the parts of the sequence on each device


def ring(
    devices: int, *, causal: bool = False, zigzag: bool = False, step: int | None = None
) -> Picture:
    r"""Draw the devices of ring attention, and the tiles of the square that each step computes.

    .. math:: \text{step } s: \text{ queries of device } r \text{ meet keys of device }
        (r - s) \bmod N

    Parameters
    ----------
    devices
        How many devices share the sequence, N: 2 to 6.
    causal
        A query attends to no later key: tiles in the future are not computed.
    zigzag
        The sequence is cut into 2N parts, and device r holds part r and part 2N - 1 - r: under a
        causal mask all devices then have as much to do. Without it each holds one part of N.
    step
        Draw it as it is at this step, counted from 0. None draws the end, with what each device
        has computed.

    Returns
    -------
    Picture
        Shown by Jupyter, with a step for each move; its `repr` says it in words.

    Raises
    ------
    ValueError
        If there are fewer than 2 devices or more than 6, or there is no such step.
    TypeError
        If `devices` or `step` is no integer, or `causal` or `zigzag` no bool.

    References
    ----------
    Liu, Zaharia and Abbeel (2023); Brandon et al. (2023) for the balance of causal work.

    Examples
    --------
    >>> ring(4, causal=True).words.split(". ")[-1]
    'Tiles computed by each device: 0.5, 1.5, 2.5, 3.5; waiting for the busiest takes 3.5.'
    >>> ring(4, causal=True, zigzag=True).words.split(". ")[-1]
    'Tiles computed by each device: 8, 8, 8, 8; waiting for the busiest takes 8.'
    """
    devices = check_integer("devices", devices)
    causal, zigzag = check_flag("causal", causal), check_flag("zigzag", zigzag)
    if not 2 <= devices <= MOST:
        raise ValueError(f"devices must be 2 to {MOST} to be read as a picture, got {devices}")
    if step is not None and not 0 <= check_integer("step", step) < devices:
        raise ValueError(f"step must be one of the {devices} steps, counted from 0, got {step}")
    parts = 2 * devices if zigzag else devices
    held: Held = [(r, parts - 1 - r) if zigzag else (r,) for r in range(devices)]
    owner = {part: r for r, own in enumerate(held) for part in own}
    work = [
        [
            sum(
                1.0 if not causal or key < query else 0.5 * (key == query)
                for query in held[r]
                for key in held[(r - s) % devices]
            )
            for r in range(devices)
        ]
        for s in range(devices)
    ]
    totals = [sum(row[r] for row in work) for r in range(devices)]
    waited = sum(max(row) for row in work)
    wide, tall = Scene(step), Scene(step)
    for s in (wide, tall):
        foot = _cards(s, held, work, totals, waited)
        beside = (CARD.w + 70, (foot - 46 - parts * _side(parts)) / 2)
        _square(s, beside if s is wide else (30, foot + 26), parts, owner, causal)
    told = ", ".join(number(total, 1 if total % 1 else 0) for total in totals)
    now = ""
    if step is not None:
        shared = ", ".join(f"{r} with those of {(r - step) % devices}" for r in range(devices))
        now = f"Now, at step {step}, queries of device {shared}. "
    words = (
        f"{devices} devices in a ring hold {parts} parts of the sequence"
        f"{', two each, from both ends' if zigzag else ''}. Queries stay; keys and values move on "
        f"by one device after each step. {now}Tiles computed by each device: {told}; waiting for "
        f"the busiest takes {number(waited, 1 if waited % 1 else 0)}."
    )
    kind = ", zigzag" if zigzag else ""
    names = [f"step {s}" for s in range(devices)]
    return Picture(f"Ring attention{kind}", words, wide, tall, names)


def _named(letter: str, own: tuple[int, ...]) -> str:
    return ", ".join(f"{letter}_{part}" for part in own)


def _cards(
    s: Scene,
    held: Held,
    work: list[list[float]],
    totals: list[float],
    waited: float,
) -> float:
    """Draw a card for each device, with what it holds at each step; return where they end."""
    devices = len(held)

    def tiles(count: float) -> str:
        return number(count, 1 if count % 1 else 0)

    for r, own in enumerate(held):
        card = Box(0, r * PITCH, CARD.w, CARD.h)
        s.frame(card, "soft", corner=8)
        s.text((card.x + 10, card.y + 15), f"device {r}", "small start bold")
        queries = Box(card.x + 10, card.y + 25, 62, 18)
        moving = Box(card.x + 82, card.y + 25, 100, 18)
        s.rect(queries, "query", opacity=0.2, corner=4)
        s.text(queries.center, _named("Q", own), "small")
        s.rect(Box(moving.x, moving.y, 49, 18), "key", opacity=0.2, corner=4)
        s.rect(Box(moving.x + 51, moving.y, 49, 18), "value", opacity=0.2, corner=4)
        for t in [*range(devices), WHOLE]:
            there = held[(r - max(t, 0)) % devices]
            count = work[t][r] if t != WHOLE else totals[r]
            with s.only(t):
                s.text((moving.x + 25, moving.center[1]), _named("K", there), "small")
                s.text((moving.x + 75, moving.center[1]), _named("V", there), "small")
                s.text((card.end - 10, card.y + 15), f"tiles: {tiles(count)}", "small end weights")
        if r + 1 < devices:
            s.arrow((132, card.foot + 4), (132, card.foot + PITCH - CARD.h - 4), label="K, V")
    foot = (devices - 1) * PITCH + CARD.h
    s.arrow((132, foot), (132, foot + 14), (-16, foot + 14), (-16, 24), (-4, 24))
    for t in [*range(devices), WHOLE]:
        busiest = max(work[t]) if t != WHOLE else waited
        line = f"step {t}: the busiest computes tiles: {tiles(busiest)}"
        if t == WHOLE:
            line = (
                f"in all: {tiles(waited)} with waiting, {tiles(sum(totals) / devices)} if balanced"
            )
        s.text((0, foot + 32), line, "small start", only=t)
    return foot + 40


def _side(parts: int) -> float:
    return min(44.0, 264 / parts)


def _square(s: Scene, at: Point, parts: int, owner: dict[int, int], causal: bool) -> None:
    """Draw the square of tiles, with the step that computes each, and whose rows they are."""
    devices = max(owner.values()) + 1
    side = _side(parts)
    box = Box(at[0], at[1] + 46, side * parts, side * parts)
    s.text((box.x, at[1] + 8), "step at which a tile is computed", "small start bold weights")
    for i in range(parts):
        s.text((box.x - 8, box.y + (i + 0.5) * side), f"Q_{i}", "small end query")
        s.text((box.x + (i + 0.5) * side, box.y - 12), f"K_{i}", "small key")
        s.text((box.end + 8, box.y + (i + 0.5) * side), f"device {owner[i]}", "small start soft")
        for j in range(parts):
            tile = Box(box.x + j * side, box.y + i * side, side - 3, side - 3)
            if causal and j > i:
                s.text(tile.center, "–", "small soft")
                continue
            t = (owner[i] - owner[j]) % devices
            with s.row(t, "made"), s.cell("both", i, j):
                s.rect(tile, "weights", opacity=0.25, corner=3)
                x, y = tile.center
                if causal and i == j:  # half of it is hidden
                    s.line((tile.x + 2, tile.y + 2), (tile.end - 2, tile.foot - 2))
                    x, y = x - 0.2 * side, y + 0.16 * side
                s.text((x, y), str(t), "small")
                s.rect(tile, "weights", corner=3, look="line outline")
