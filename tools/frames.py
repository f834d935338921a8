"""Frames: what a cell shows for each setting of its knobs, drawn while the book is executed.

They let a knob answer at once, before Python is loaded, and in cells that need torch. A file
holds the frames of one cell:

    {"source": the cell as the page has it,
     "base": parts, tags and words, of its first figure, and images that come twice,
     "frames": {its knobs' values, a line each: messages, as the live worker sends them}}

The text of an SVG is a list of pieces: [from, to] are parts of the base, a string is other text.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import operator
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import frame_kernel
from nbclient import NotebookClient

from attncore import knobs

MOST = 72  # as in frames.mjs; more settings, and only one knob at a time is turned
PARTS = re.compile(r"(?<=>)|(?=</text)")
LONG = 200  # letters: from here on it is an image, and worth to look for
POSSIBLE = hasattr(os, "fork")  # Windows has none: there a knob asks for Python
PAGES = "pages.json"  # tells which files belong to which page
MAKERS = (__file__, frame_kernel.__file__, frame_kernel.WORDS)


class FramesWrong(Exception):  # noqa: N818 (it reads better where it is caught)
    """A cell cannot be shown for every setting of its knobs."""


def settings(code: str) -> list[dict[str, str]]:
    """Return what the knobs of a cell are set to, frame by frame, its own setting first."""
    found = knobs.find(code)
    own = {knob.name: knob.value for knob in found}
    names, values = list(own), [knob.values for knob in found]
    grid = [dict(zip(names, row, strict=True)) for row in itertools.product(*values)]
    if len(grid) > MOST:
        grid = [own | {knob.name: value} for knob in found for value in knob.values]
    return [dict(pairs) for pairs in dict.fromkeys(tuple(s.items()) for s in [own, *grid])]


def cells_with_knobs(notebook: Any) -> list[int]:
    """Return the places of a notebook's cells that have knobs."""
    return [
        place
        for place, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and knobs.LINE.search(cell.source)
    ]


def keys(notebook: Any) -> list[str]:
    """Return the names of the files that hold the frames of a notebook's cells, in order.

    A name is a hash of all code down to the cell, and of the programs that draw. Where nothing
    can be drawn there are none.
    """
    if not POSSIBLE:
        return []
    digest = hashlib.sha256(b"".join(Path(path).read_bytes() for path in MAKERS))
    found, places = [], cells_with_knobs(notebook)
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            digest.update(f"{len(cell.source)} {cell.source}".encode())
        if place in places:
            found.append(digest.hexdigest()[:32])
    return found


def missing(folder: Path) -> list[str]:
    """Return the pages that lack frames."""
    names = json.loads((folder / PAGES).read_text("utf-8"))
    return [p for p, own in names.items() if not all((folder / f"{n}.json").exists() for n in own)]


class Client(NotebookClient):
    """Executes a page; before a cell with knobs, draws its frames into a folder."""

    def __init__(self, notebook: Any, folder: Path, **options: Any) -> None:
        super().__init__(notebook, record_timing=False, **options)
        self.folder = folder
        self.names = dict(zip(cells_with_knobs(notebook), keys(notebook), strict=False))
        self.spent = 0.0

    async def async_execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Draw, execute as always, and compare."""
        if cell_index not in self.names:
            return await super().async_execute_cell(cell, cell_index, **options)
        path = self.folder / f"{self.names[cell_index]}.json"
        began = time.monotonic()
        try:
            every = settings(cell.source)
        except ValueError as problem:
            raise FramesWrong(f"{cell.source}\n\n{problem}") from None
        own, *frames = await self.draw(cell.source, every, path)
        self.spent += time.monotonic() - began
        done = await super().async_execute_cell(cell, cell_index, **options)
        check(cell, every, own, frames)
        path.write_text(packed(cell.source, every, frames), "utf-8")
        return done

    async def draw(self, code: str, every: list[dict[str, str]], path: Path) -> Any:
        """Return the cell's own messages with figures as PNG, and those of each setting as SVG."""
        codes = [(code, "png"), *((knobs.turned(code, setting), "svg") for setting in every)]
        program, raw = frame_kernel.__file__, f"{path}.raw"
        call = f"__import__('runpy').run_path({program!r})['draw']({codes!r}, {raw!r}, "
        reply = await self.kc.execute_interactive(
            "",
            silent=True,
            store_history=False,
            allow_stdin=False,
            timeout=(self.timeout or 120) * len(codes),
            user_expressions={"drawn": f"{call}{self.timeout or 120})"},  # leaves no name behind
        )
        answer = reply["content"]["user_expressions"]["drawn"]
        if answer["status"] != "ok":
            raise FramesWrong(f"{code}\n\n{answer['ename']}: {answer['evalue']}")
        found = json.loads(Path(raw).read_text("utf-8"))
        Path(raw).unlink()
        return found


def check(cell: Any, every: list[dict[str, str]], own: Any, frames: list[Any]) -> None:
    """Refuse frames that fail, and those of a cell whose own frame is not what it shows."""
    for setting, frame in zip([every[0], *every], [own, *frames], strict=True):
        if isinstance(frame, dict):
            values = ", ".join(" = ".join(pair) for pair in setting.items())
            raise FramesWrong(f"{cell.source}\n\nwith {values}: {frame['failed']}")
    if own != stored(cell.outputs):
        raise FramesWrong(f"{cell.source}\n\nThe page shows something else than the cell does in "
                          "a fork of the kernel. Does it print after a figure, or show what is "
                          "never twice the same?")  # fmt: skip


def stored(outputs: list[Any]) -> list[dict[str, Any]]:
    """Return a cell's stored outputs as messages; chunks of text are joined."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        if output.output_type != "stream":
            found.append(frame_kernel.message(output.data))
        elif found and found[-1]["type"] == "stream":
            found[-1]["text"] += output.text
        else:
            found.append({"type": "stream", "name": "stream", "text": output.text})
    return found


def packed(source: str, every: list[dict[str, str]], frames: list[Any]) -> str:
    """Return the text of a cell's file; what its figures have in common is told once."""
    svgs = [message for frame in frames for message in frame if message["type"] == "svg"]
    parts = [PARTS.split(message["svg"]) for message in svgs]
    images = Counter(part for figure in parts for part in set(figure) if len(part) > LONG)
    first = parts[0] if parts else []
    base = first + [part for part, count in images.items() if count > 1 and part not in first]
    for message, figure in zip(svgs, parts, strict=True):
        message["svg"] = pieces(first, base, figure)
    named = {"\n".join(s.values()): frame for s, frame in zip(every, frames, strict=True)}
    content = {"source": source, "base": base, "frames": named}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def pieces(first: list[str], base: list[str], parts: list[str]) -> list[Any]:
    """Return a figure as [from, to], which are parts of the base, and strings of others."""
    found: list[Any] = []
    for same, start, end, here, there in stretches(first, parts):
        if same:
            found.append([start, end])
            continue
        for long, group in itertools.groupby(parts[here:there], base[len(first) :].__contains__):
            if long:
                found += [[at, at + 1] for at in map(base.index, group)]
            else:
                found.append("".join(group))
    return found


def stretches(base: list[str], parts: list[str]) -> Iterator[tuple[bool, int, int, int, int]]:
    """Yield (whether they are the same, from, to in the base, from, to in the parts)."""
    if len(base) != len(parts):
        matcher = difflib.SequenceMatcher(None, base, parts, autojunk=False)
        yield from ((kind == "equal", *places) for kind, *places in matcher.get_opcodes())
        return
    place = 0  # part by part, which is quick
    for same, group in itertools.groupby(map(operator.eq, base, parts)):
        start, place = place, place + len(list(group))
        yield same, start, place, start, place


class Done(NamedTuple):
    """A page that was executed, or why it was not; and for how many seconds frames were drawn."""

    notebook: Any
    drawing: float
    error: str = ""
    wrong: str = ""


def execute(notebook: Any, folder: Path, **options: Any) -> Done:
    """Execute a notebook, drawing its frames into the folder."""
    client = Client(notebook, folder, **options)
    try:
        client.execute()
    except FramesWrong as problem:
        return Done(notebook, client.spent, wrong=str(problem))
    except Exception as problem:  # a cell's error, or a kernel's: jupyter-book tells it better
        return Done(notebook, client.spent, error=str(problem))
    return Done(notebook, client.spent)
