"""What a figure of matplotlib shows, in words: the alternative text of what a cell draws."""

import sys


def words(figure):
    """Return what a figure shows in words, as far as they can be had."""
    plot = sys.modules.get("attncore.plot")
    try:
        return plot.alt_text(figure)
    except (AttributeError, ValueError):
        titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
        return "Figure: " + "; ".join(titles) if titles else "Figure made by this cell"
