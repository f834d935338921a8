"""Runs one cell in the browser, and shows what Jupyter would show. Not part of attncore."""

import builtins
import linecache
import sys
import traceback

import js
from pyodide.code import eval_code_async, should_quiet
from pyodide.ffi import to_js

sketching = None  # the number of the cell whose knob moves
namespace = {"__name__": "__main__", "__builtins__": builtins}


async def run(code, number, sketch=False):
    """Run a cell's code; tell whether it ended without an error."""
    global sketching
    sketching = number if sketch else None
    if "live_figures" in sys.modules:
        sys.modules["live_figures"].sketches.clear()
    name = f"<cell {number}>"
    lines = ["" if line.lstrip().startswith("%") else line for line in code.splitlines()]
    code = "\n".join(lines)
    linecache.cache[name] = (len(code), None, [line + "\n" for line in lines], name)
    try:
        value = await eval_code_async(code, globals=namespace, filename=name)
        if value is not None and not should_quiet(code):
            display(value)
    except BaseException as error:  # SystemExit too: it is the reader's, not ours
        sys.stdout.flush()
        send("error", text=short_traceback(error, name))
        return False
    finally:
        show_figures()
    return True


def display(*values):
    """Show values as Jupyter does, as far as a page can."""
    for value in values:
        svg = getattr(value, "_repr_svg_", lambda: None)()
        html = getattr(value, "_repr_html_", lambda: None)()
        latex = getattr(value, "_repr_latex_", lambda: None)()
        if hasattr(value, "savefig"):
            show_figures()
        elif svg:
            send("svg", svg=svg)
        elif html or latex:
            send("html", html=html or latex)
        else:
            send("text", text=repr(value))


def show_figures():
    """Send every open figure, if matplotlib was used at all."""
    if "matplotlib.pyplot" in sys.modules:
        import live_figures

        live_figures.show()


def finish():
    """Draw well what was only sketched."""
    if "live_figures" in sys.modules:
        sys.modules["live_figures"].finish()


def short_traceback(error, name):
    """Return the traceback from the reader's own code on."""
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename != name:
        step = step.tb_next
    return "".join(traceback.format_exception(type(error), error, step))


def send(kind, **content):
    """Pass a result on to the page."""
    js.send(kind, to_js(content, dict_converter=js.Object.fromEntries))


builtins.display = display
