"""Make zip files for the browser: copies without what no page needs, and attncore's own wheel.

The same content gives the same bytes: names are sorted, dates fixed. tools/live_assets.py
uses this; what is left out of which file stands in tools/live_assets.json.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import tomllib
import zipfile
from email import message_from_bytes
from fnmatch import fnmatchcase
from pathlib import Path

LICENCE = re.compile(r"LICEN[CS]E|COPYING|NOTICE", re.IGNORECASE)
HERE = Path(__file__)
TOO_BIG = (  # or read by no live cell
    "attncore/data/moby_dick.txt.gz",
    "attncore/data/whale.npz",
    "attncore/data/digits.npz",
)


def pack(files: dict[str, bytes]) -> bytes:
    """Return a zip file of `files`."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # as on Unix, everywhere
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, compresslevel=9)
    return target.getvalue()


def unpack(raw: bytes) -> dict[str, bytes]:
    """Return the files of a zip file."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name[-1] != "/"}


def slim(raw: bytes, drop: list[str]) -> bytes:
    """Return a zip file without what matches `drop`; licences stay, a wheel's RECORD follows.

    In the patterns, `*` matches slashes too.
    """
    files = {
        name: content
        for name, content in unpack(raw).items()
        if LICENCE.search(name) or not any(fnmatchcase(name, pattern) for pattern in drop)
    }
    for name in files:
        if name.endswith(".dist-info/RECORD"):
            rows = csv.reader(io.StringIO(files[name].decode()))
            files[name] = table([row for row in rows if row[0] in files])
    return pack(files)


def with_compiled(raw: bytes, compiled: dict[str, bytes]) -> tuple[bytes, int]:
    """Return a zip file with compiled modules instead of their source, and how many there are.

    `compiled` may hold those of other zip files, too.
    """
    files = unpack(raw)
    modules = {name: code for name, code in compiled.items() if name.removesuffix("c") in files}
    rest = {name: code for name, code in files.items() if f"{name}c" not in modules}
    return pack(_joined(rest, modules)), len(modules)


def with_added(raw: bytes, added: dict[str, bytes]) -> bytes:
    """Return a zip file with more files; a wheel's RECORD follows."""
    return pack(_joined(unpack(raw), added))


def _joined(files: dict[str, bytes], added: dict[str, bytes]) -> dict[str, bytes]:
    """Return all files; a RECORD among them lists what is there."""
    files = files | added
    for name in files:
        if name.endswith(".dist-info/RECORD"):
            rows = csv.reader(io.StringIO(files[name].decode()))
            kept = [row for row in rows if row[0] in files]
            more = [[path, fingerprint(code), str(len(code))] for path, code in added.items()]
            files[name] = table([*kept, *more])
    return files


def table(rows: list[list[str]]) -> bytes:
    """Return the text of a RECORD."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def licence(wheel: bytes) -> str:
    """Return the licence that a wheel's metadata names."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        fields = message_from_bytes(archive.read(name))
    classes = [c for c in fields.get_all("Classifier", []) if c.startswith("License ::")]
    classified = "; ".join(c.rsplit(" :: ", 1)[1] for c in classes)
    return fields["License-Expression"] or classified or fields["License"] or "not named"


def own_wheel(root: Path) -> tuple[str, bytes]:
    """Return the version of attncore and its wheel, without the data that no live cell reads."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    source = root / "src"
    code = (source / "attncore/__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)[1]
    paths = (
        p for p in source.glob("attncore/**/*") if p.is_file() and "__pycache__" not in p.parts
    )
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    files = {name: content for name, content in files.items() if name not in TOO_BIG}
    info = f"attncore-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.4\nName: attncore\nVersion: {version}\n"
        f"Summary: {project['description']}\nLicense-Expression: {project['license']}\n"
        f"License-File: LICENSE\nRequires-Python: {project['requires-python']}\n"
        "Requires-Dist: numpy>=2.0\n"
    )
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: slim_wheels\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/licenses/LICENSE"] = (root / "LICENSE").read_bytes()
    rows = [[name, fingerprint(files[name]), str(len(files[name]))] for name in sorted(files)]
    files[f"{info}/RECORD"] = table([*rows, [f"{info}/RECORD", "", ""]])
    return version, pack(files)


def fingerprint(raw: bytes) -> str:
    """Return the SHA-256 as a RECORD has it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
