"""What fills a memory: one bar for each case, cut into its parts, and where the memory ends."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attncore.base.settings import check_positive
from attncore.draw.picture import Picture
from attncore.draw.scene import Box, Scene, shelves
from attncore.draw.text import SMALL, number, width_of

LOOKS = (("ink", 0.75), ("ink", 0.5), ("ink", 0.3), ("soft", 0.22), ("soft", 0.1))
ROLES = {"cache": "key"}  # a part that has a colour of its own
MOST = 8  # cases
PITCH, BAR = 48, 20


def memory(
    rows: Mapping[str, Mapping[str, float]], *, room: float | None = None, unit: str = "GB"
) -> Picture:
    r"""Draw what fills a memory, one bar for each case, and where the memory ends.

    .. math:: \text{length of a part} \propto \text{its bytes}

    Parameters
    ----------
    rows
        For each case by its name, such as "training": the size of each part by its name. A part
        called "cache" has the colour of keys. At most 8 cases, and 5 parts besides the cache.
    room
        How large the memory is, in the same unit; a line stands there. None draws no line.
    unit
        Of all sizes.

    Returns
    -------
    Picture
        Shown by Jupyter; its `repr` says it in words.

    Raises
    ------
    ValueError
        If there is no case or too many, there is no part or too many, a size is negative or not
        finite, all are 0, or `room` is not positive and finite.
    TypeError
        If `rows` or a case is no dict, a size or `room` no number, or a name or `unit` no string.

    References
    ----------
    Rajbhandari et al. (2020), figure 1, draws what trains a model like this.

    Examples
    --------
    >>> memory({"serving": {"parameters": 16, "cache": 4}}, room=24).words
    'serving: parameters 16, cache 4; 20 GB in all, of 24 GB. It fits.'
    """
    cases = _read(rows)
    if not isinstance(unit, str):
        raise TypeError(f"unit must be a string, got {type(unit).__name__}")
    end = None if room is None else float(check_positive("room", room))
    longest = max(*(sum(parts.values()) for parts in cases.values()), end or 0)
    told = []
    for name, parts in cases.items():
        sizes = ", ".join(f"{part} {_short(size)}" for part, size in parts.items())
        total = sum(parts.values())
        said = f"{name}: {sizes}; {_short(total)} {unit} in all"
        if end is not None:
            fits = "It fits" if total <= end else "It does not fit"
            said += f", of {_short(end)} {unit}. {fits}"
        told.append(said)
    wide, tall = Scene(), Scene()
    for scene, length in ((wide, 560), (tall, 300)):
        _draw(scene, cases, end, length / longest, unit, length)
    return Picture("What fills a memory", f"{'. '.join(told)}.", wide, tall)


def _read(rows: object) -> dict[str, dict[str, float]]:
    """Return the cases as they are drawn."""
    if not isinstance(rows, Mapping):
        raise TypeError(f"rows must be a dict of dicts, got {type(rows).__name__}")
    if not 1 <= len(rows) <= MOST:
        raise ValueError(f"rows must be 1 to {MOST} to be read, got {len(rows)}")
    cases: dict[str, dict[str, float]] = {}
    for name, parts in rows.items():
        if not isinstance(parts, Mapping):
            raise TypeError(f"rows[{name!r}] must be a dict, got {type(parts).__name__}")
        for text in (name, *parts):
            if not isinstance(text, str):
                raise TypeError(f"names must be strings, got {type(text).__name__}: {text!r}")
        cases[name] = {part: _size(name, part, size) for part, size in parts.items()}
    plain = [part for part in _parts(cases) if part not in ROLES]
    if len(plain) > len(LOOKS):
        raise ValueError(
            f"there must be at most {len(LOOKS)} parts besides a cache, got {', '.join(plain)}"
        )
    if not any(size for parts in cases.values() for size in parts.values()):
        raise ValueError("all sizes are 0: nothing can be drawn")
    return cases


def _parts(cases: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the names of all parts, each once, as they come."""
    return list(dict.fromkeys(part for sizes in cases.values() for part in sizes))


def _size(name: str, part: str, size: object) -> float:
    """Return the size of a part, unless it is none."""
    try:
        value = 0.0 if size == 0 else float(check_positive("size", size))
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"rows[{name!r}][{part!r}] must be a finite number, at least 0, got {size!r}"
        ) from None
    return value


def _short(size: float) -> str:
    """Return a size with about three digits."""
    places = 0 if size >= 99.95 or math.isclose(size, round(size), abs_tol=1e-9) else 1
    return number(size, places if size >= 1 or size == 0 else 2)


def _draw(
    s: Scene,
    cases: Mapping[str, Mapping[str, float]],
    end: float | None,
    scale: float,
    unit: str,
    length: float,
) -> None:
    parts = _parts(cases)
    plain = iter(LOOKS)
    looks = {part: (ROLES[part], 0.6) if part in ROLES else next(plain) for part in parts}
    legend = parts if end is None else [*parts, f"room: {_short(end)} {unit}"]
    widths = [width_of(text, SMALL) + 36 for text in legend]
    y = 0.0
    for shelf in shelves(widths, length):
        x = 0.0
        for n in shelf:
            if n < len(parts):
                role, opacity = looks[parts[n]]
                s.rect(Box(x, y - 6, 12, 12), role, opacity=opacity, corner=2)
                s.frame(Box(x, y - 6, 12, 12), role, corner=2)
            else:
                s.line((x + 6, y - 9), (x + 6, y + 9), dash=True, role="ink")
            s.text((x + 18, y), legend[n], "small start")
            x += widths[n]
        y += 22
    y += 10
    for name, sizes in cases.items():
        total = sum(sizes.values())
        s.text((0, y), f"{name}: {_short(total)} {unit}", "small start bold")
        x = 0.0
        for part, size in sizes.items():
            role, opacity = looks[part]
            if size:
                bar = Box(x, y + 11, max(size * scale, 0.5), BAR)
                s.rect(bar, role, opacity=opacity, corner=0)
                s.frame(bar, role, corner=0)
            x += size * scale
        if end is not None:
            s.line((end * scale, y + 8), (end * scale, y + 16 + BAR), dash=True, role="ink")
        y += PITCH
