"""Where the project lives on the web: what _config.yml says, checked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ADDRESS = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)")  # as Colab needs it


def repository(root: Path) -> dict[str, str]:
    """Return the repository's `url` and `branch`; the url is empty until somebody has set it.

    Nothing may tell a reader to install from an address that is not this project's own, so
    there is no default.
    """
    said = yaml.safe_load((root / "_config.yml").read_text("utf-8"))["repository"]
    url = said.get("url") or ""
    if url and not ADDRESS.fullmatch(url):
        sys.exit(
            "repository.url in _config.yml must be empty, or be like "
            f"https://github.com/OWNER/NAME, without a slash or .git at its end: got {url}"
        )
    return {"url": url, "branch": said["branch"]}
