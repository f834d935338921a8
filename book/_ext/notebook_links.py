"""The buttons at the top of a page: Colab, a hub, the repository, and the notebook to download.

Those for the repository and for Colab appear once _config.yml has the repository's address, and
that for a JupyterHub once it has the hub's address as well.
Those of a chapter lead to its notebook in notebooks/: the theme only looks for a notebook
beside the page, and what it offers for download has no outputs and raw directives.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

COLAB = "https://colab.research.google.com"
AFTER_THE_THEME = 900  # which adds its buttons at 501


def offer_the_repository(app: Sphinx, config: Config) -> None:
    """Show what needs the repository's address, if there is one.

    It is done here because jupyter-book refuses these settings where there is no address.
    Pages write `{only} repository` around what they say of the buttons.
    """
    options = config.html_theme_options
    if options.get("repository_url"):
        options.setdefault("launch_buttons", {})["colab_url"] = COLAB
        options.update(use_repository_button=True, use_issues_button=True)
        app.tags.add("repository")


def notebook_of(app: Sphinx, pagename: str) -> Path | None:
    """Return the notebook in notebooks/ that was made from a page."""
    notebook = Path(app.srcdir) / "notebooks" / f"{Path(pagename).name}.ipynb"
    return notebook if notebook.exists() else None


def offer_the_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Have the theme add a download button also where it adds no Colab button."""
    if notebook_of(app, pagename):
        context["ipynb_source"] = f"{pagename}.ipynb"


def point_at_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Rewrite the buttons of a page that has a notebook."""
    notebook = notebook_of(app, pagename)
    if notebook is None:
        return
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("text") in ("Colab", "JupyterHub"):
                button["url"] = button["url"].replace(
                    f"{pagename}.md", f"notebooks/{notebook.name}"
                )
            elif button.get("label") == "download-notebook-button":
                target = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(notebook, target)
                # Without `download`, browsers show a notebook as JSON. The theme's macro has
                # no place for the attribute, so it rides along with the address.
                button["url"] += f'" download="{notebook.name}'


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("config-inited", offer_the_repository)
    app.connect("html-page-context", offer_the_notebook)
    app.connect("html-page-context", point_at_notebook, priority=AFTER_THE_THEME)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
