"""Every page once more as Markdown, and llms.txt, the list of them.

For programs that read text, and for readers who do: beside page.html lies page.md. A page with
cells has its code and, in words and tables, its outputs; they are those of its notebook in
notebooks/. The proposal of llms.txt is at https://llmstxt.org.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from previews import first_words
from site_address import address
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder
from sphinx.writers.text import TextTranslator

PICTURE = "image/svg+xml"
ABOUT = "An interactive textbook on attention, and attncore, the tested package under it."


def from_notebook(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown: text, code, and what the code shows."""
    blocks = []
    for cell in notebook["cells"][1:]:  # the first tells how to install the package
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub(r'<a id="[^"]*"></a>\n*', "", source)
            blocks.append(re.sub(r"(\]\([\w-]+)\.ipynb\b", r"\1.md", source))
        else:
            blocks.append(f"```python\n{source}\n```")
            blocks += filter(None, map(shown, cell["outputs"]))
    return "\n\n".join(blocks) + "\n"


def shown(output: dict[str, Any]) -> str:
    """Return what an output shows: its text, or a picture in words."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output.get("data", {})
    plain = "".join(data.get("text/plain", "")).rstrip()
    if "image/png" in data:
        return f"*Figure: {output['metadata'].get('image/png', {}).get('alt', plain)}*"
    if PICTURE in data:
        return f"*Picture: {plain}*"
    return f"```text\n{plain}\n```"


class Plain(TextTranslator):
    """Writes a page without cells as text; what has no text is left out."""

    def unknown_visit(self, node: nodes.Node) -> None:
        """Pass over boxes of extensions, to what is in them."""

    def unknown_departure(self, node: nodes.Node) -> None:
        """Do nothing after them either."""


def from_document(app: Sphinx, document: nodes.document) -> str:
    """Return a resolved page as text."""
    builder = TextBuilder(app, app.env)
    builder.init()
    translator = Plain(document, builder)
    document.walkabout(translator)
    return translator.body


def write_twins(app: Sphinx, error: Exception | None) -> None:
    """Write page.md for every page, and llms.txt."""
    if error is not None or app.builder.format != "html":
        return
    root, out = Path(app.srcdir), Path(app.outdir)
    words = {}
    for name in sorted(app.env.found_docs):
        notebook = root / "notebooks" / f"{Path(name).name}.ipynb"
        document = app.env.get_and_resolve_doctree(name, app.builder)
        words[name] = first_words(document)
        if notebook.exists():
            text = from_notebook(json.loads(notebook.read_text("utf-8")))
        else:
            text = from_document(app, document)
        out.joinpath(f"{name}.md").write_text(text, "utf-8")
    out.joinpath("llms.txt").write_text(list_of_pages(app, words), "utf-8")


def list_of_pages(app: Sphinx, words: dict[str, str]) -> str:
    """Return llms.txt: the parts of the book with their pages."""
    toc = yaml.safe_load((Path(app.srcdir) / "_toc.yml").read_text("utf-8"))
    base = address(app.config)

    def line(name: str) -> str:
        title = app.env.titles[name].astext()
        return f"- [{title}]({base}{name}.md)" + (f": {words[name]}" if words[name] else "")

    lines = [f"# {app.config.html_title}", "", f"> {ABOUT}", "", line(toc["root"])]
    for part in toc.get("parts", [toc]):  # a small book has no parts
        lines += ["", f"## {part.get('caption', 'Chapters')}", ""]
        lines += [line(chapter["file"]) for chapter in part["chapters"]]
    return "\n".join(lines) + "\n"


def offer_the_twin(
    app: Sphinx, page: str, _: str, context: dict[str, Any], document: nodes.document | None
) -> None:
    """Say in a page's head where its twin is."""
    if document is not None:
        link = f'<link rel="alternate" type="text/markdown" href="{Path(page).name}.md" />'
        context["metatags"] = f"{context.get('metatags', '')}\n{link}"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("build-finished", write_twins)
    app.connect("html-page-context", offer_the_twin)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
