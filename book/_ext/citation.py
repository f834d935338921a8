"""How to cite the book, made from CITATION.cff.

    :::{citation}
    :::

stands for the entry of a BibTeX file, with a button that copies it.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx


def bibtex(said: dict[str, object], url: str) -> str:
    """Return the entry for what a CITATION.cff says; `url` may be empty."""
    authors = " and ".join(
        # Braces keep BibTeX from taking a name apart that is no person's.
        f"{{{who['name']}}}" if "name" in who else f"{who['family-names']}, {who['given-names']}"
        for who in said["authors"]
    )
    year = str(said["date-released"])[:4]
    fields = {
        "title": f"{{{said['title']}}}",
        "author": authors,
        "year": year,
        "version": str(said["version"]),
        "note": str(said["abstract"]),
        "url": url,
    }
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join([f"@misc{{attncore{year},", *lines, "}"])


class Citation(Directive):
    """Puts the entry there."""

    def run(self) -> list[nodes.Node]:
        """Return a block of BibTeX."""
        env = self.state.document.settings.env
        file = Path(env.srcdir) / "CITATION.cff"
        env.note_dependency(str(file))
        entry = bibtex(yaml.safe_load(file.read_text("utf-8")), env.config.html_baseurl)
        block = nodes.literal_block(entry, entry)
        block["language"] = "bibtex"
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_directive("citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
