"""Print what is installed here and refuses a Python that this project promises, as pip would."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
RELEASES = [f"3.{minor}.{patch}" for minor in range(11, 15) for patch in range(20)]


def unfit() -> list[str]:
    """Return `name==version  (needs ...)` for each such distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    promised = [r for r in RELEASES if r in SpecifierSet(project["requires-python"])]
    found = []
    for distribution in distributions():
        needs = distribution.metadata.get("Requires-Python") or ""
        if any(release not in SpecifierSet(needs) for release in promised):
            name, version = distribution.metadata["Name"], distribution.version
            found.append(f"{name}=={version}  (needs Python {needs})")
    return sorted(found)


if __name__ == "__main__":
    print("".join(f"{line}\n" for line in unfit()), end="")
