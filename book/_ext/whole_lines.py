"""Show what a cell printed as it was printed, wherever it was cut on its way.

A kernel sends text in chunks, on a busy machine cut within a line. myst-nb, which merges them, ends
each with a line break: it would break lines that were whole.
"""

from __future__ import annotations

from typing import Any

from myst_nb.core import render
from myst_nb.core.utils import coalesce_streams
from nbformat import NotebookNode
from sphinx.application import Sphinx


def merged(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return outputs with neighbouring chunks of one stream joined, then as myst-nb merges them."""
    whole: list[Any] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output["output_type"] == "stream" == last.get("output_type") and (
            output["name"] == last["name"]
        ):
            whole[-1] = NotebookNode(last, text=last["text"] + output["text"])
        else:
            whole.append(output)
    return coalesce_streams(whole)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    render.coalesce_streams = merged
    return {"parallel_read_safe": True, "parallel_write_safe": True}
