"""In Jupyter, `%load_ext attncore.knobs` gives cells with knobs their widgets."""

import sys

import nbformat
import pytest
from IPython.core.error import UsageError
from nbclient import NotebookClient

from attncore import knobs

CELL = """h = 1.0  #@param {type:"slider", min:0.5, max:1.5, step:0.5}
word = "one"  #@param ["one", "two"]
loud = False  #@param {type:"boolean"}
print(h, word, loud)
h * 2"""
TURN = """import gc, ipywidgets
[control] = [w for w in gc.get_objects() if isinstance(w, ipywidgets.KIND)]
control.value = VALUE"""


@pytest.fixture(scope="module")
def ipywidgets():
    return pytest.importorskip("ipywidgets", reason="IPYWIDGETS IS MISSING: pip install ipywidgets")


def run(*cells):
    """Run cells in a fresh kernel; return the texts of each, and of what widgets show."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(made, timeout=60, kernel_name="python3").execute()
    state = made.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    shown = [w["state"] for w in state.get("state", {}).values()]
    return [texts(cell.outputs) for cell in made.cells], shown


def texts(outputs):
    return [o["text"] if "text" in o else o["data"]["text/plain"] for o in outputs]


def turn(kind, value):
    return TURN.replace("KIND", kind).replace("VALUE", repr(value))


def results(shown):
    """Return what the cell showed when it ran last because a knob was turned."""
    [state] = [s for s in shown if s["_model_name"] == "OutputModel"]
    return texts(state["outputs"])


def test_a_cell_with_knobs_gets_widgets_and_its_output_stays(ipywidgets):
    plain, nothing = run(CELL)
    [_, own, other], shown = run("%load_ext attncore.knobs", CELL, "1 + 1")
    by_name = {s["description"]: s for s in shown if s.get("description")}

    assert nothing == []
    assert own[:2] == plain[0] == ["1.0 one False\n", "2.0"]
    assert len(own) == 3
    assert other == ["2"]
    assert by_name["h"]["_options_labels"] == ["0.5", "1.0", "1.5"]
    assert by_name["word"]["_options_labels"] == ['"one"', '"two"']
    assert by_name["loud"]["value"] is False


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("SelectionSlider", "1.5", ["1.5 one False\n", "3.0"]),
        ("Dropdown", '"two"', ["1.0 two False\n", "2.0"]),
        ("Checkbox", True, ["1.0 one True\n", "2.0"]),
    ],
)
def test_a_turned_widget_runs_the_cell_again(ipywidgets, kind, value, expected):
    cells = ["%load_ext attncore.knobs", CELL, turn(kind, value), "print(h, word, loud)"]
    [_, own, _, after], shown = run(*cells)

    assert own[:2] == ["1.0 one False\n", "2.0"]
    assert results(shown) == expected
    assert after == expected[:1]
    assert sum(s["_model_name"] == "OutputModel" for s in shown) == 1  # no knobs of knobs


def test_unloaded_it_shows_none_and_a_bad_line_is_told(ipywidgets):
    bad = 'h = 1.0  #@param {type:"slider", min:0}'
    cells = ["%load_ext attncore.knobs", bad, "%unload_ext attncore.knobs", CELL]
    [_, told, _, own], shown = run(*cells)

    assert told == [f"No knobs: the slider h lacks max and step: {bad[17:]}.\n"]
    assert own == ["1.0 one False\n", "2.0"]
    assert shown == []


def test_without_ipywidgets_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(UsageError, match="needs ipywidgets, which is not installed: pip install"):
        knobs.load_ipython_extension(None)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('h = 1  #@param {type:"slider", min:0, max:2}', "the slider h lacks step"),
        ('h = 1  #@param {type:"slider", min:0, max:2, step:0}', "must go up from min to max"),
        ('h = 1  #@param {type:"slider", min:2, max:0, step:1}', "must go up from min to max"),
        ('h = 1  #@param {type:"slider", min:0, max:2, step:0.5}', "h needs more decimals"),
        ('h = 5  #@param {type:"slider", min:0, max:2, step:1}', "h is 5, which is none of 0, 1"),
        ("h = 3  #@param [1, 2]", "the choice h is 3, which is none of 1, 2"),
        ('h = 0  #@param {type:"boolean"}', "the tick h is 0, which is none of False, True"),
        ("h = 1  #@param nonsense", r"must be a slider, a boolean or a \[list\], got nonsense"),
    ],
)
def test_a_line_that_cannot_be_a_knob_is_refused(line, complaint):
    with pytest.raises(ValueError, match=complaint):
        knobs.find(line)


def test_only_the_values_that_are_turned_change():
    code = "a = 1  #@param [1, 2]\nb = 1  #@param [1, 2]\na = 1"

    assert knobs.turned(code, {"b": "2"}) == code.replace("b = 1", "b = 2")
    assert knobs.turned(code, {}) == code
    with pytest.raises(ValueError, match="setting names c; the knobs are"):
        knobs.turned(code, {"c": "2"})
