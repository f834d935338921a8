"""Write the Chinese characters that the book uses as a small font, for readers who have none.

    python tools/make_font.py

Noto Sans SC, under the SIL Open Font License 1.1, from an npm package compared with its hash.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

import carriers
from fontTools import subset

ROOT = Path(__file__).resolve().parent.parent
FONT = ROOT / "book/_static/chinese.woff"
PACKAGE = "@fontsource/noto-sans-sc@5.3.0"
TARBALL = "05a7abac78a6cac4bd1361e7b24c680ee820fcc2f22cf5cc92673f4cd12771c5"
LICENCE = "This font is licensed under the SIL Open Font License"
MEMBER = "package/files/noto-sans-sc-chinese-simplified-400-normal.woff"


def used() -> set[str]:
    """Return the Chinese characters in the pages, and in what their cells print."""
    paths = [*(ROOT / "book").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    return {
        character
        for path in paths
        for character in re.findall(r"[\u3000-\u303f\u4e00-\u9fff]", path.read_text("utf-8"))
    }


def main() -> None:
    """Fetch the whole font, and write the part that is used."""
    with tempfile.TemporaryDirectory() as name:
        try:
            archive = carriers.from_npm(PACKAGE, TARBALL, Path(name))
        except carriers.NotCarried as problem:
            sys.exit(str(problem))
        with tarfile.open(archive) as files:
            whole = files.extractfile(MEMBER).read()
    options = subset.Options(flavor="woff", name_IDs=[0, 1, 2, 13, 14], layout_features=[])
    options.recalc_timestamp = False
    font = subset.load_font(BytesIO(whole), options)
    part = subset.Subsetter(options)
    part.populate(text="".join(sorted(used())))
    part.subset(font)
    names = {0: "(c) Google Inc.", 13: f"{LICENCE}, Version 1.1", 14: "https://openfontlicense.org"}
    for number, text in names.items():
        font["name"].setName(text, number, 3, 1, 0x409)
    subset.save_font(font, FONT, options)
    print(f"{FONT}: {len(used())} characters, {FONT.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
