"""The matplotlib backend of live cells: draws like Agg, and shows in the page.

While a knob moves, figures are sketches: half as many pixels to the inch, and the axes where
the first sketch of the same cell had them, for finding their places takes as long as drawing.
When the knob rests, `finish` draws the last ones as all others are drawn.
"""

import io

import live_cells
from figure_words import words
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas  # noqa: F401
from PIL import Image

PADDING = 0.1  # inches around a figure, as matplotlib has it
FAST = {"compress_level": 1}  # of PNG: larger, and made in a third of the time

sketches = []  # the figures that a knob's last move made
layouts = {}  # (cell, which of its figures) -> what to cut out, and the places of its axes


def show(*args, **kwargs):
    """Send all open figures to the page, as Jupyter does at the end of a cell."""
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    for figure in figures:
        if live_cells.sketching:
            data, scale = sketch(figure), 1
            sketches.append(figure)
        else:
            data, scale = draw(figure), 2
        live_cells.send("figure", bytes=data, width=width(data) // scale, alt=words(figure))


def finish():
    """Send the sketches once more, drawn well."""
    for place, figure in enumerate(sketches):
        data = draw(figure)
        live_cells.send("figure", bytes=data, width=width(data) // 2, place=place)
    sketches.clear()


def draw(figure):
    """Return a figure as PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=2 * figure.dpi, bbox_inches="tight", format="png", pil_kwargs=FAST)
    return picture.getvalue()


def sketch(figure):
    """Return a figure as PNG, drawn fast."""
    key = (live_cells.sketching, len(sketches))
    cut, places = layouts.get(key, (None, []))
    if len(places) != len(figure.axes):
        figure.draw_without_rendering()  # lays it out
        cut = figure.get_tightbbox().padded(PADDING)
        layouts[key] = cut, [ax.get_position(original=True) for ax in figure.axes]
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    for ax, place in zip(figure.axes, layouts[key][1], strict=True):
        ax.set_position(place)
        ax.set_in_layout(True)  # set_position takes it out
    figure.canvas.draw()
    figure.set_layout_engine(engine)
    drawn = Image.frombuffer("RGBA", figure.canvas.get_width_height(), figure.canvas.buffer_rgba())
    left, bottom, right, top = (round(edge * figure.dpi) for edge in cut.extents)
    page = Image.new("RGB", (right - left, top - bottom), "white")
    page.paste(drawn, (-left, top - drawn.height))
    picture = io.BytesIO()
    page.save(picture, format="png", **FAST)
    return picture.getvalue()


def width(png):
    """Return how many pixels wide a PNG is."""
    return int.from_bytes(png[16:20], "big")
