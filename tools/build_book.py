"""Build the book into _build/html, executing the cells that changed.

    python tools/build_book.py           build if anything changed
    python tools/build_book.py --force   forget what was executed and build

Two things jupyter-book does not do are done here. Its execution cache knows the cells of a
page but not the package they import: when src/ or the pinned versions change, the cache
goes. And its second build after a failure can pass unnoticed: a build counts only when it
ran to the end without a warning, and nothing of a failed one is reused.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CODE = ("src", "constraints.txt")
TEXT = ("book", "notebooks", "_config.yml", "_toc.yml", "tools/build_book.py")


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """Return one hash over the names and contents of files and folders below `root`."""
    digest = hashlib.sha256(sys.version.encode())
    for name in names:
        top = root / name
        for path in sorted([top] if top.is_file() else top.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                data = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
                digest.update(data)
    return digest.hexdigest()


def forget_stale_outputs(root: Path) -> bool:
    """Drop the execution cache if the package or the pins differ from when it was filled."""
    build = root / "_build"
    stamp = build / "executed-with"
    current = fingerprint(root, CODE)
    if stamp.exists() and stamp.read_text() == current:
        return False
    for folder in (".jupyter_cache", ".doctrees", "jupyter_execute"):
        shutil.rmtree(build / folder, ignore_errors=True)
    build.mkdir(exist_ok=True)
    stamp.write_text(current)
    return True


def build(root: Path, force: bool = False) -> int:
    """Build the book below `root`; return the exit status."""
    done = root / "_build" / "built-from"
    current = fingerprint(root, (*CODE, *TEXT))
    if force:
        (root / "_build" / "executed-with").unlink(missing_ok=True)
    elif done.exists() and done.read_text() == current:
        print(f"The book is up to date: {root / '_build/html/index.html'}")
        return 0
    done.unlink(missing_ok=True)
    if forget_stale_outputs(root):
        print("The package or its pins changed: every cell will be executed.", flush=True)
    started = time.monotonic()
    # Static files are only copied, and warnings only repeated, when all pages are written.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    environment.pop("MPLBACKEND", None)  # Jupyter's own, or figures would not be stored
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    status = subprocess.run(
        [jupyter_book, "build", str(root), "--all", "-W", "--keep-going"],
        cwd=root,  # the cache path in _config.yml is relative
        env=environment,
        check=False,
    ).returncode
    if status:
        shutil.rmtree(root / "_build" / ".doctrees", ignore_errors=True)
        print("The book was NOT built: see the warnings above.", file=sys.stderr)
        return status
    done.write_text(current)
    print(f"Built in {time.monotonic() - started:.0f} s. Open {root / '_build/html/index.html'}")
    print("or run `make serve`.")
    return 0


def main() -> None:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="execute every cell again")
    sys.exit(build(ROOT, parser.parse_args().force))


if __name__ == "__main__":
    main()
