"""Train the book's model anew, attncore's whale(), and keep the curve of its training.

    python tools/train_lm.py              an hour and more on one CPU core
    python tools/train_lm.py --score      only score the book's model

The program is `python -m attncore.training`, which trains other models too; this says where the
book's files are. They are this script's result on one machine. Elsewhere rounding differs, and
with it every bit; the score should come out about the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attncore.training.__main__ import main

DATA = Path(__file__).resolve().parent.parent / "src/attncore/data"
BOOK = ["--out", str(DATA / "whale.npz"), "--curve", str(DATA / "kept/whale_training.json")]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--score", action="store_true", help="score the book's model")
    main(["--score"] if parser.parse_args().score else ["--recipe", "book", *BOOK])
