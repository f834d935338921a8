"""Put Python for the browser where the site serves it: Pyodide, NumPy, Matplotlib, attncore.

    python tools/live_assets.py [OUT] [--from FOLDER]     OUT is _build/live by default

NumPy and Matplotlib publish no wheels for the browser, but the PyPI wheel of open-webui
carries those of the Pyodide project. It is a carrier, not an authority: only files with the
SHA-256 that the official npm package pyodide lists are taken out of it, and nothing of it is
run. They are kept in OUT/../live-cache; any FOLDER that holds them will do as well.

The large ones then lose what no page needs (which files stand in live_assets.json), and the
modules that a first Run imports are compiled. OUT/LICENSES.json says it of each piece.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import precompile
import slim_wheels

ROOT = Path(__file__).resolve().parent.parent
PINS = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))


class AssetsMissing(Exception):  # noqa: N818 (it reads better where it is caught)
    """The files cannot be had, or are not the pinned ones."""


class Piece(NamedTuple):
    """A file to ship: what it is, how its official form is known, what to leave out of it."""

    file: str
    name: str
    version: str
    licence: str  # empty: as its metadata says
    source: str
    sha256: str
    drop: list[str]


def make(out: Path, source: Path | None = None) -> None:
    """Fill `out`, rewriting only what changed; raise AssetsMissing if that is impossible."""
    out.mkdir(parents=True, exist_ok=True)
    before = notes(out)
    if all(is_fresh(out, piece, before.get(piece.file, {})) for piece in pieces()):
        known = before
    else:
        known = put_pieces(out, source)
    entries = {
        piece.file: note(piece, piece.licence or known[piece.file]["licence"], known[piece.file])
        for piece in pieces()
    }
    lock = lock_of({file: entry["sha256"] for file, entry in entries.items()})
    own, compiled = put_attncore(out, lock)
    lock["packages"]["attncore"] = own
    apart = slim_wheels.data_wheels(ROOT)
    entries[own["file_name"]] = {
        "file": own["file_name"],
        "name": "attncore",
        "version": own["version"],
        "licence": slim_wheels.licence((out / own["file_name"]).read_bytes()),
        "slimmed": True,
        "dropped": [data.path for data in apart],
        "compiled": compiled,
        "sha256": own["sha256"],
    }
    for data in apart:
        package, entry = put_data(out, own["version"], data)
        lock["packages"][package["name"]] = package
        entries[entry["file"]] = entry
    write(out / "pyodide-lock.json", json.dumps(lock).encode())
    write(out / "LICENSES.json", (json.dumps([*entries.values()], indent=1) + "\n").encode())
    for file in before.keys() - entries.keys():  # shipped by an earlier run
        (out / file).unlink(missing_ok=True)


def put_pieces(out: Path, source: Path | None) -> dict[str, dict[str, Any]]:
    """Write every pinned piece as it is shipped, and return what to note about it."""
    official = fetch({piece.file: piece.sha256 for piece in pieces()}, out, source)
    slim = {
        p.file: slim_wheels.slim(official[p.file], p.drop) if p.drop else official[p.file]
        for p in pieces()
    }
    with tempfile.TemporaryDirectory() as folder:
        for file, raw in slim.items():
            Path(folder, file).write_bytes(raw)
        lock = lock_of({file: sha256(raw) for file, raw in slim.items()})
        Path(folder, "pyodide-lock.json").write_text(json.dumps(lock))
        modules = compiled_by(precompile.first_modules, Path(folder))
    known = {}
    for piece in pieces():
        shipped, count = slim[piece.file], 0
        if is_archive(piece):
            shipped, count = slim_wheels.with_compiled(shipped, modules)
        write(out / piece.file, shipped)
        licence = piece.licence or slim_wheels.licence(official[piece.file])
        known[piece.file] = {"licence": licence, "compiled": count, "sha256": sha256(shipped)}
    return known


def lock_of(hashes: dict[str, str]) -> dict[str, Any]:
    """Return the pinned lock, with the hashes of the files as they are here."""
    lock = copy.deepcopy(PINS["lock"])
    for package in lock["packages"].values():
        package["sha256"] = hashes[package["file_name"]]
    return lock


def pieces() -> list[Piece]:
    """Return what is pinned."""
    drop = PINS["drop"]
    core = [Piece(**entry, drop=drop.get(entry["file"], [])) for entry in PINS["core"]]
    packages = [
        Piece(
            file=package["file_name"],
            name=package["name"],
            version=package["version"],
            licence="",
            source=f"PyPI: {key} {package['version']}",
            sha256=package["sha256"],
            drop=drop.get(key, []),
        )
        for key, package in PINS["lock"]["packages"].items()
    ]
    return core + packages


def notes(out: Path) -> dict[str, dict[str, Any]]:
    """Return what an earlier run noted about each file it shipped."""
    try:
        return {entry["file"]: entry for entry in json.loads((out / "LICENSES.json").read_bytes())}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def note(piece: Piece, licence: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return what LICENSES.json says of a piece."""
    return {
        "file": piece.file,
        "name": piece.name,
        "version": piece.version,
        "licence": licence,
        "source": piece.source,
        "slimmed": bool(piece.drop),
        "dropped": piece.drop,
        "official_sha256": piece.sha256,
        "compiled": known["compiled"],
        "recipe_sha256": recipe() if is_archive(piece) else None,
        "sha256": known["sha256"],
    }


def is_fresh(out: Path, piece: Piece, entry: dict[str, Any]) -> bool:
    """Tell whether `out` holds what would be made from the piece now."""
    path = out / piece.file
    return (
        path.exists()
        and entry.get("official_sha256") == piece.sha256
        and entry.get("dropped") == piece.drop
        and entry.get("recipe_sha256") == (recipe() if is_archive(piece) else None)
        and entry.get("sha256") == sha256(path.read_bytes())
    )


def is_archive(piece: Piece) -> bool:
    """Tell whether a piece holds Python modules."""
    return piece.file.endswith((".whl", ".zip"))


@functools.cache
def recipe() -> str:
    """Return a fingerprint of the code that slims and compiles."""
    return sha256(b"".join(path.read_bytes() for path in (slim_wheels.HERE, *precompile.RECIPE)))


def fetch(wanted: dict[str, str], out: Path, source: Path | None) -> dict[str, bytes]:
    """Return the official files, given their names and hashes, and keep copies of them."""
    cache = out.resolve().parent / "live-cache"
    cache.mkdir(exist_ok=True)
    found = {}
    for file, expected in wanted.items():
        for path in (out / file, cache / file):
            if path.exists() and sha256(raw := path.read_bytes()) == expected:
                found[file] = raw
                break
    missing = [file for file in wanted if file not in found]
    if missing:
        found |= from_folder(missing, source) if source else from_carrier(missing)
    for file, raw in found.items():
        if sha256(raw) != wanted[file]:
            place = source or PINS["carrier"]
            raise AssetsMissing(f"{place} holds another {file} than the official one.")
        write(cache / file, raw)  # what is shipped under this name may be slimmer
    return found


def from_folder(files: list[str], source: Path) -> dict[str, bytes]:
    """Return files from a folder."""
    absent = [file for file in files if not (source / file).is_file()]
    if absent:
        raise AssetsMissing(f"{source} lacks {', '.join(absent)}.")
    return {file: (source / file).read_bytes() for file in files}


def from_carrier(files: list[str]) -> dict[str, bytes]:
    """Return files from the wheel that carries them."""
    carrier = PINS["carrier"]
    # The wheel suits every system but not every Python, and pip would refuse it on the others.
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--retries=1"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", *options, "-d", folder, carrier]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            raise AssetsMissing(
                f"pip could not download {carrier} (100 MB), which carries Python for the "
                "browser: connect to the network, or name a folder that holds the files (--from)."
            )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            inside = {n.rsplit("/", 1)[1]: n for n in wheel.namelist() if "/pyodide/" in n}
            absent = [file for file in files if file not in inside]
            if absent:
                raise AssetsMissing(f"{carrier} lacks {', '.join(absent)}.")
            return {file: wheel.read(inside[file]) for file in files}


def put_attncore(out: Path, lock: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Write attncore's wheel; return its entry in the lock, and how many modules are compiled."""
    version, plain = slim_wheels.own_wheel(ROOT)
    kept = out.resolve().parent / "live-cache" / f"attncore-{sha256(plain + recipe().encode())}"
    if not kept.exists():
        whole = slim_wheels.with_added(plain, own_modules(out, lock, version, plain))
        for old in kept.parent.glob("attncore-*"):
            old.unlink()
        whole_file = kept.with_name("new")  # a full disk must not leave half of one
        whole_file.write_bytes(whole)
        whole_file.rename(kept)
    wheel = kept.read_bytes()
    entry = own_entry(version, wheel)
    write(out / entry["file_name"], wheel)
    return entry, sum(name.endswith(".pyc") for name in slim_wheels.unpack(wheel))


def own_modules(out: Path, lock: dict[str, Any], version: str, wheel: bytes) -> dict[str, bytes]:
    """Return attncore's compiled modules."""
    entry = own_entry(version, wheel)
    own_lock = {**lock, "packages": {**lock["packages"], "attncore": entry}}
    with tempfile.TemporaryDirectory() as folder:
        for path in out.resolve().iterdir():
            if path.name not in (entry["file_name"], "pyodide-lock.json"):
                Path(folder, path.name).symlink_to(path)
        Path(folder, entry["file_name"]).write_bytes(wheel)
        Path(folder, "pyodide-lock.json").write_text(json.dumps(own_lock))
        return compiled_by(precompile.own_modules, Path(folder))


def put_data(
    out: Path, version: str, data: slim_wheels.DataWheel
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a wheel of data; return its entry in the lock, and what to note about it."""
    name = slim_wheels.data_name(data.key)
    package = lock_entry(name, version, data.raw, f"attncore.data.{data.key}", "attncore")
    write(out / package["file_name"], data.raw)
    return package, {
        "file": package["file_name"],
        "name": name,
        "version": version,
        "licence": data.terms,
        "source": data.source,
        "slimmed": False,
        "dropped": [],
        "compiled": 0,
        "sha256": package["sha256"],
    }


def own_entry(version: str, wheel: bytes) -> dict[str, Any]:
    """Return attncore's entry in the lock."""
    return lock_entry("attncore", version, wheel, "attncore", "numpy")


def lock_entry(name: str, version: str, wheel: bytes, imported: str, needed: str) -> dict[str, Any]:
    """Return the entry in the lock of a wheel of ours: what cells import, what it depends on."""
    return {
        "name": name,
        "version": version,
        "file_name": f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        "sha256": sha256(wheel),
        "install_dir": "site",
        "package_type": "package",
        "imports": [imported],
        "depends": [needed],
        "unvendored_tests": False,
    }


def compiled_by(compile_modules: Callable[[Path], bytes], folder: Path) -> dict[str, bytes]:
    """Return compiled modules, or say that these assets cannot be had."""
    try:
        return slim_wheels.unpack(compile_modules(folder))
    except precompile.NotCompiled as problem:
        raise AssetsMissing(str(problem)) from problem


def write(path: Path, content: bytes) -> None:
    """Write a file unless that is what it holds."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def sha256(raw: bytes) -> str:
    """Return the fingerprint that locks and pins use."""
    return hashlib.sha256(raw).hexdigest()


def main() -> None:
    """Fill the folder and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "_build/live", metavar="OUT")
    parser.add_argument("--from", dest="source", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    try:
        make(options.out, options.source)
    except AssetsMissing as problem:
        sys.exit(str(problem))
    files = [path for path in options.out.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    print(f"{options.out}: {len(files)} files, {size:.1f} MB")


if __name__ == "__main__":
    main()
