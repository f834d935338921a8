"""Where readers find the book."""

from __future__ import annotations

from sphinx.config import Config


def address(config: Config) -> str:
    """Return the address of _config.yml with a slash at its end; empty if nobody has set it."""
    base = str(config.html_baseurl).rstrip("/")
    return f"{base}/" if base else ""
