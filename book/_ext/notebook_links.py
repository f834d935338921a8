"""Point the launch and download buttons of a chapter at its notebook in notebooks/.

The theme only looks for a notebook beside the page, and what it offers for download has
no outputs and raw directives. It runs at priority 501; this runs later.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

AFTER_THE_THEME = 900


def point_at_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Rewrite the buttons of a page that has a notebook."""
    notebook = Path(app.srcdir) / "notebooks" / f"{Path(pagename).name}.ipynb"
    if not notebook.exists():
        return
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(
                    f"{pagename}.md", f"notebooks/{notebook.name}"
                )
            elif button.get("label") == "download-notebook-button":
                shutil.copyfile(notebook, Path(app.outdir) / "_sources" / f"{pagename}.ipynb")
                # Without `download`, browsers show a notebook as JSON. The theme's macro has
                # no place for the attribute, so it rides along with the address.
                button["url"] += f'" download="{notebook.name}'


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-page-context", point_at_notebook, priority=AFTER_THE_THEME)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
