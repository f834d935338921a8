"""Keep what a script has computed in the package, for pages that have no time to compute it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "src/attncore/data/kept"


def keep(name: str, found: dict[str, Any]) -> Path:
    """Write a dictionary of numbers, texts and lists: :func:`attncore.data.kept` reads it."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(found, separators=(",", ":")) + "\n", "utf-8")
    return path
