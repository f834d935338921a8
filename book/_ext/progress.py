"""How long a page takes, and how far a reader is.

Each page with exercises says below its title how long it takes. The script progress.mjs ticks
what a reader has solved; it needs to know which exercises there are.
"""

from __future__ import annotations

import json
import re
from typing import Any

from docutils import nodes
from indexes import is_cell
from sphinx.application import Sphinx

# A slow reader's pace, for a text with formulas.
WORDS_PER_MINUTE = 130
MINUTES_PER_CELL = 0.5
MINUTES_PER_EXERCISE = 6
STEP = 5  # minutes: nothing here is more exact


def minutes(document: nodes.document) -> int:
    """Estimate the time to read a page and to run its cells, without its exercises."""
    boxes = [n for n in document.findall(nodes.Element) if "exercise" in n.get("classes", ())]
    boxes += [n for n in document.findall(nodes.Element) if "solution" in n.get("classes", ())]
    apart = {id(node) for box in boxes for node in box.findall()}
    read = [p for p in document.findall(nodes.paragraph) if id(p) not in apart]
    cells = [c for c in document.findall(nodes.container) if is_cell(c) and id(c) not in apart]
    words = sum(len(paragraph.astext().split()) for paragraph in read)
    time = words / WORDS_PER_MINUTE + MINUTES_PER_CELL * len(cells)
    return max(STEP, STEP * round(time / STEP))


def exercises(app: Sphinx) -> dict[str, list[str]]:
    """Return the numbers of the exercises of each page that has some."""
    found = {
        page.rpartition("/")[2]: [
            name.removeprefix("ex-").replace("-", ".") for _, name in notes["exercise"]
        ]
        for page, notes in sorted(app.env.attn_found.items())
    }
    return {page: numbers for page, numbers in found.items() if numbers}


def add_both(
    app: Sphinx, page: str, _: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Put the time below the title, and the numbers into the head."""
    every = exercises(app)
    script = f'<script type="application/json" id="exercise-counts">{json.dumps(every)}</script>'
    context["metatags"] = f"{context.get('metatags', '')}\n{script}"
    if document is None or "body" not in context:
        return
    count = len(every.get(page.rpartition("/")[2], ()))
    if count and page != app.config.root_doc:
        practice = STEP * round(count * MINUTES_PER_EXERCISE / STEP)
        said = f"About {minutes(document)} minutes to read, and {practice} for {count} exercises"
        line = f'<p class="page-time">{said}</p>'
        context["body"] = re.sub(r"</h1>", rf"\g<0>\n{line}", context["body"], count=1)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.setup_extension("indexes")  # which notes the exercises
    app.add_js_file("progress.mjs", type="module")
    app.connect("html-page-context", add_both)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
