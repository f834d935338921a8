"""A knob may be turned when the rest of the page has run, and to wherever it goes."""

import dis
import itertools
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from build_book import pages
from myst_nb.core.read import read_myst_markdown_notebook

BOOK = pages(Path(__file__).resolve().parent.parent)
KNOB = re.compile(r"^(?P<name>\w+) = .+? +#@param (?P<form>.+)$", re.M)  # as in knobs.mjs
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


def settings(form):
    """Return what a knob can be set to; of a slider, both ends."""
    if "boolean" in form:
        return "False", "True"
    if form.startswith("["):
        return [json.dumps(choice) for choice in json.loads(form[: form.index("]") + 1])]
    return re.search(r"min: *([-\d.]+), *max: *([-\d.]+)", form).groups()


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
            for knob in KNOB.finditer(cell):
                for value in settings(knob["form"]):
                    turned = cell.replace(knob[0], f"{knob['name']} = {value}")
                    exec(turned, names)  # noqa: S102 (our own page)
                    plt.close("all")


def test_the_knobs_are_found():
    assert sum(bool(KNOB.search(c)) for page in BOOK for c in live_cells(page)) >= 11
    assert used("import a\nb = a.c + d")[0] == {"a", "d"}
    assert used("import a\nb = a.c + d")[1] == {"b"}
    assert settings('{type:"slider", min:0.2, max:10, step:0.2}') == ("0.2", "10")
    assert settings('["x", "y"]') == ['"x"', '"y"']
