"""Write notebooks/*.ipynb from the executable pages of book/, one way.

    python tools/notebooks.py            write them
    python tools/notebooks.py --check    only tell whether they are current

A page is a MyST text notebook; a notebook is plain Jupyter Markdown, as JupyterLab and
Colab show it, with the outputs that the book's own build stored. Nothing is executed here,
and nothing ever flows back: the notebooks are for readers, book/*.md is the source.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nbformat
from build_book import pages
from jupyter_cache import get_cache
from myst_nb.core.read import read_myst_markdown_notebook
from plain_markdown import Converter
from repository import repository
from same_outputs import difference, without_noise

ROOT = Path(__file__).resolve().parent.parent
COLAB_CELL = """\
# On Colab this cell installs the package. On your own machine, install it from a
# clone of {url}, in a terminal,
# in the clone's folder: pip install -e '.[pages]'
import sys

if "google.colab" in sys.modules:
    %pip install -q "attncore[pages] @ git+{url}@{branch}\""""
CLONE_CELL = """\
# This notebook needs the package attncore, which is part of the book's project.
# On your own machine, install it in a terminal, in the folder of your clone:
#     pip install -e '.[pages]'
# On Colab, upload a zip file of that folder as attncore.zip, and run in a cell:
#     %pip install "attncore[pages] @ file:///content/attncore.zip"
import attncore"""


def executed(page: Path) -> Any:
    """Return the page as a notebook with the outputs of the last build."""
    notebook = read_myst_markdown_notebook(page.read_text("utf-8"))
    try:
        _, merged = get_cache(ROOT / "_build" / ".jupyter_cache").merge_match_into_notebook(
            notebook
        )
    except KeyError:
        sys.exit(f"{page.name} was not executed as it stands: run `make book` first.")
    return merged


def reader_notebook(page: Path) -> Any:
    """Return the notebook a reader gets for a page."""
    source = executed(page)
    names = {p.stem for p in pages(ROOT)}
    address = repository(ROOT)
    project = "{url}/blob/{branch}" if address["url"] else ".."
    convert = Converter(ROOT / "book", names, project.format(**address))
    first = COLAB_CELL if address["url"] else CLONE_CELL
    cells = [nbformat.v4.new_code_cell(first.format(**address), execution_count=1)]
    for cell in source.cells:
        if cell.cell_type == "markdown":
            text = convert(cell.source, page.stem)
            if text:
                cells.append(nbformat.v4.new_markdown_cell(text))
        else:
            cells.append(_code_cell(cell, convert.solution))
    counts: Counter[str] = Counter()
    number = 0
    for cell in cells:
        counts[cell.source] += 1
        key = f"{page.stem}\n{cell.source}\n{counts[cell.source]}"
        cell.id = hashlib.sha256(key.encode()).hexdigest()[:12]
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "name": "python"},
        "attncore": {"generated_from": f"book/{page.name}"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def _code_cell(cell: Any, solution: str) -> Any:
    options = cell.metadata.get("mystnb", {})
    outputs = without_noise(cell.outputs, options.get("image", {}).get("alt"))
    made = nbformat.v4.new_code_cell(cell.source, outputs=outputs)
    if tags := cell.metadata.get("tags"):
        made.metadata["tags"] = list(tags)
    if solution:
        # JupyterLab folds by the first, and then shows the first line of code; Colab by the second.
        made.metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": True}
        made.metadata["cellView"] = "form"
        made.source = f"# Solution to exercise {solution}\n{made.source}"
    return made


def target(page: Path) -> Path:
    """Return where a page's notebook lies."""
    return ROOT / "notebooks" / f"{page.stem}.ipynb"


def stale() -> list[str]:
    """Return one line for each notebook that is missing, left over or not what it should be."""
    problems = []
    for page in pages(ROOT):
        path = target(page)
        if not path.exists():
            problems.append(f"{path.name} is missing")
            continue
        committed = nbformat.read(path, as_version=4)
        if found := difference(committed, reader_notebook(page)):
            problems.append(f"{path.name} is out of date: {found}")
    expected = {target(page) for page in pages(ROOT)}
    left_over = sorted(set((ROOT / "notebooks").glob("*.ipynb")) - expected)
    return problems + [f"{path.name} has no page in book/" for path in left_over]


def write() -> None:
    """Write every notebook that is not current."""
    (ROOT / "notebooks").mkdir(exist_ok=True)
    for page in pages(ROOT):
        path, fresh = target(page), reader_notebook(page)
        if path.exists() and not difference(nbformat.read(path, as_version=4), fresh):
            print(f"{path.name} is current")
            continue
        nbformat.validate(fresh)
        path.write_text(nbformat.writes(fresh, indent=1) + "\n", "utf-8", newline="\n")
        print(f"{path.name} written")


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if stale")
    if not parser.parse_args().check:
        write()
    elif problems := stale():
        sys.exit("\n".join([*problems, "Run `make notebooks` and commit notebooks/."]))


if __name__ == "__main__":
    main()
