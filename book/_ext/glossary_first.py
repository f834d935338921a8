"""Have the search find the terms of the glossary, before the pages that use them.

Sphinx knows all terms, but hides them from its search.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain

IMPORTANT = 0  # among the priorities 0, 1 and 2 of what the search finds


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    StandardDomain.object_types["term"].attrs["searchprio"] = IMPORTANT
    return {"parallel_read_safe": True, "parallel_write_safe": True}
