"""Build the book into _build/html, executing the cells that changed.

    python tools/build_book.py           build what changed
    python tools/build_book.py --force   forget all that was built and executed, and build

Python for the browser, which the live cells need, is fetched once; without it the book is
built with no Run buttons, and says so.

Three things jupyter-book does not do are done here. Its execution cache knows the cells of a
page but not the package they import: when src/ or the pinned versions change, the cache
goes. It executes one page after another: here all processors do, and draw what the knobs of
cells show (frames.py). And its second build after a failure can pass unnoticed: a build counts
only when it ran to the end without a warning, and nothing of a failed one is reused.

The reader's own settings of Jupyter's kernel and of Matplotlib are left out: they could change
what a page prints, and a home that cannot be written to would make them complain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import frames
import live_assets
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.base import JupyterCacheAbstract as JupyterCache
from repository import repository

ROOT = Path(__file__).resolve().parent.parent
CODE = ("src", "constraints.txt")
FRAME = ("_config.yml", "_toc.yml", "book/_ext", "book/_static", "notebooks", "tools")
PAGES = ("book",)
OWN_SETTINGS = ("IPYTHONDIR", "MPLCONFIGDIR")


def pages(root: Path) -> list[Path]:
    """Return the pages of the book below `root` that hold code cells."""
    found = sorted((root / "book").glob("*.md"))
    return [
        page for page in found if page.read_text("utf-8").startswith("---\nfile_format: mystnb")
    ]


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """Return one hash over the names and contents of files and folders below `root`."""
    digest = hashlib.sha256(sys.version.encode())
    for name in names:
        top = root / name
        for path in sorted([top] if top.is_file() else top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                data = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode())
                digest.update(data)
    return digest.hexdigest()


def build(root: Path, force: bool = False) -> int:
    """Build the book below `root`; return the exit status."""
    repository(root)  # an address that is no address ends here
    made, stamps = root / "_build", root / "_build" / "built-from.json"
    live = get_live_parts(made / "live")
    now = {"code": CODE, "frame": FRAME, "pages": PAGES}
    now = {part: fingerprint(root, names) for part, names in now.items()}
    now["frame"] += f" {live}"
    before = {} if force else read(stamps)
    if before == now:
        print(f"The book is up to date: {made / 'html/index.html'}")
        return 0
    if before.get("code") != now["code"] and made.exists():
        if before:
            print("The package or its pins changed: every cell will be executed.", flush=True)
        for folder in (".jupyter_cache", ".doctrees", "frames", "jupyter_execute"):
            shutil.rmtree(made / folder, ignore_errors=True)
    stamps.unlink(missing_ok=True)
    started = time.monotonic()
    if wrong := execute(root):
        stamps.write_text(json.dumps({"code": now["code"]}))
        print(f"{wrong}The book was NOT built: see above.", file=sys.stderr)
        return 1
    # Static files are copied only when all pages are written.
    every = [] if before.get("frame") == now["frame"] else ["--all"]
    if every:
        shutil.rmtree(made / "html", ignore_errors=True)  # with pages that are no more
    status = jupyter_book(root, every)
    if not status and (missing := frames.missing(root / "_build" / "frames")):
        print(f"Failed at first, and then did not: {', '.join(missing)}.", file=sys.stderr)
        status = 1
    if status:
        # Not the cache: what was executed without an error or a complaint stays true.
        shutil.rmtree(made / ".doctrees", ignore_errors=True)
        forget_complaints(root)
        stamps.write_text(json.dumps({"code": now["code"]}))
        print("The book was NOT built: see the warnings above.", file=sys.stderr)
        return status
    stamps.write_text(json.dumps(now))
    print(f"Built in {time.monotonic() - started:.0f} s. Open {made / 'html/index.html'}")
    print("or run `make serve`.")
    return 0


def read(stamps: Path) -> dict[str, str]:
    """Return what the last whole build was made from; nothing if it was not written whole."""
    try:
        return dict(json.loads(stamps.read_text()))
    except (OSError, ValueError):
        return {}


def get_live_parts(folder: Path) -> bool:
    """Make the parts of live cells, if they can be had; tell whether they are there."""
    try:
        live_assets.make(folder)
    except live_assets.AssetsMissing as problem:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"\nWARNING: THE BOOK GETS NO LIVE CELLS. {problem}\n", file=sys.stderr)
        return False
    return True


def execute(root: Path) -> str:
    """Execute what is not in the cache, a page per processor, and draw the frames of its knobs.

    A page that fails is left to jupyter-book, which executes it again and tells why. Return what
    is wrong with frames, of which jupyter-book knows nothing.
    """
    cache, folder = open_cache(root), root / "_build" / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    for record in cache.list_project_records():
        cache.remove_nb_from_project(record.pk)  # its page may be gone
    waiting, names = {}, {}
    for page in reversed(pages(root)):  # the last chapters take longest: they must not end alone
        reader = {"name": "myst_nb_md", "type": "plugin"}
        record = cache.add_nb_to_project(str(page), read_data=reader)
        notebook = cache.get_project_notebook(record.pk).nb
        names[page.stem] = frames.keys(notebook)
        drawn = all((folder / f"{name}.json").exists() for name in names[page.stem])
        if not drawn or cache.get_cached_project_nb(record.pk) is None:
            waiting[page] = notebook
    (folder / frames.PAGES).write_text(json.dumps(names))
    if not waiting:
        return ""
    prepare_kernels(root)
    print(f"Executing {len(waiting)} page(s)...", flush=True)
    resources = {"metadata": {"path": str(root / "book")}}  # where the kernels run
    options = {"timeout": execution(root)["timeout"], "resources": resources}
    wrong = ""
    with ProcessPoolExecutor() as pool:
        every = pool.map(partial(frames.execute, folder=folder, **options), waiting.values())
        for page, done in zip(waiting, every, strict=True):
            if done.wrong:
                wrong += f"{page.name}, what its knobs show:\n{done.wrong}\n\n"
            elif not done.error:
                bundle = CacheBundleIn(done.notebook, str(page))
                cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return wrong


def execution(root: Path) -> dict[str, Any]:
    """Return what _config.yml says of executing."""
    return yaml.safe_load((root / "_config.yml").read_text("utf-8"))["execute"]


def open_cache(root: Path) -> JupyterCache:
    """Return the execution cache; a new one if it is damaged, as a full disk may leave it."""
    path = root / execution(root)["cache"]
    try:
        cache = get_cache(path)
        cache.list_cache_records()
    except (OSError, RuntimeError):  # its own, for whatever the database says
        shutil.rmtree(path)
        cache = get_cache(path)
    return cache


def prepare_kernels(root: Path) -> None:
    """Make what would otherwise be written to stderr from a page's kernel, and fail the page."""
    settings = Path(os.environ["IPYTHONDIR"]) / "profile_default/ipython_kernel_config.py"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("c = get_config()\nc.IPKernelApp.log_level = 'ERROR'\n")
    # Matplotlib's list of fonts, which takes a slow machine long enough for a complaint.
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        cwd=root,
        capture_output=True,
        check=True,
    )


def forget_complaints(root: Path) -> None:
    """Forget the pages that wrote to stderr: they would fail every later build as well."""
    cache = open_cache(root)
    for record in cache.list_cache_records():
        cells = cache.get_cache_bundle(record.pk).nb.cells
        outputs = [output for cell in cells for output in cell.get("outputs", ())]
        if any(output.get("name") == "stderr" for output in outputs):
            cache.remove_cache(record.pk)


def jupyter_book(root: Path, options: list[str]) -> int:
    """Run jupyter-book with warnings as errors; return its exit status."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", str(root), "-W", "--keep-going", *options]
    # The cache path in _config.yml is relative to the root.
    return subprocess.run(command, cwd=root, check=False).returncode


def main() -> None:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="execute every cell again")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}  # of the pages' kernels
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would not live on in a fork
    os.environ |= {name: str(ROOT / "_build" / name.lower()) for name in OWN_SETTINGS}
    os.environ.pop("MPLBACKEND", None)  # Jupyter's own, or figures would not be stored
    sys.exit(build(ROOT, parser.parse_args().force))


if __name__ == "__main__":
    main()
