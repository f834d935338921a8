"""The matplotlib backend of live cells: draws like Agg, and shows in the page."""

import io
import sys

from live_cells import send
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas  # noqa: F401


def show(*args, **kwargs):
    """Send all open figures to the page, as Jupyter does at the end of a cell."""
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    for figure in figures:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=2 * figure.dpi, bbox_inches="tight")
        data = picture.getvalue()
        width = int.from_bytes(data[16:20], "big") // 2
        send("figure", bytes=data, width=width, alt=words(figure))


def words(figure):
    """Return what a figure shows in words, as far as they can be had."""
    plot = sys.modules.get("attncore.plot")
    try:
        return plot.alt_text(figure)
    except (AttributeError, ValueError):
        titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
        return "Figure: " + "; ".join(titles) if titles else "Figure made by this cell"
