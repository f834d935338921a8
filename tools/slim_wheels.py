"""Make zip files for the browser: copies without what no page needs, and attncore's own wheels.

The same content gives the same bytes: names are sorted, dates fixed. tools/live_assets.py
uses this; what is left out of which file stands in tools/live_assets.json.

Data that only some pages use comes in wheels of its own, one for each file.
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
from typing import NamedTuple

LICENCE = re.compile(r"LICEN[CS]E|COPYING|NOTICE", re.IGNORECASE)
HERE = Path(__file__)
DATA = "attncore/data/"
APART = ("*.gz", "*.npz", "trained/*.npz")  # within DATA
LEFT_OUT = {"__pycache__", "training"}  # a program that needs torch, and runs on no page


class DataWheel(NamedTuple):
    """A wheel that holds one file of data, and what README.md beside it says of the file."""

    key: str  # such as whale, trained.translator
    path: str  # in the wheel, and in attncore
    source: str
    terms: str
    raw: bytes


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
    """Return the version of attncore and its wheel, without the data that comes apart."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    source = root / "src"
    apart = apart_files(root)
    paths = (
        path
        for path in source.glob("attncore/**/*")
        if path.is_file() and not LEFT_OUT & set(path.relative_to(source).parts)
        if path not in apart
    )
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    fields = {
        "Summary": project["description"],
        "License-Expression": project["license"],
        "License-File": "LICENSE",
        "Requires-Python": project["requires-python"],
        "Requires-Dist": "numpy>=2.0",
    }
    licences = {"LICENSE": (root / "LICENSE").read_bytes()}
    version = own_version(root)
    return version, wheel("attncore", version, files, fields, licences)


def data_wheels(root: Path) -> list[DataWheel]:
    """Return a wheel for each file of data that comes apart from attncore's."""
    readme = (root / "src" / DATA / "README.md").read_text("utf-8")
    found = []
    for file in apart_files(root):
        path = file.relative_to(root / "src").as_posix()
        name = path.removeprefix(DATA)
        what, source, terms = described(readme, name)
        key = name.split(".")[0].replace("/", ".")
        fields = {"Summary": what, "License": terms, "Requires-Dist": "attncore"}
        licences = {"README.md": f"{what}\n\nSource: {source}\n\nTerms: {terms}\n".encode()}
        version = own_version(root)
        raw = wheel(data_name(key), version, {path: file.read_bytes()}, fields, licences)
        found.append(DataWheel(key, path, source, terms, raw))
    return found


def apart_files(root: Path) -> list[Path]:
    """Return the files of data that come apart."""
    return sorted(path for name in APART for path in (root / "src" / DATA).glob(name))


def described(readme: str, name: str) -> tuple[str, str, str]:
    """Return what the table of a README says of a file: what it is, its source and terms."""
    for row in readme.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        if len(cells) == 5 and any(
            fnmatchcase(part, known)
            for known in re.findall(r"`(.+?)`", cells[0])
            for part in (name, name.rpartition("/")[2])
        ):
            _, what, source, terms, _ = cells
            return what, source, terms
    raise LookupError(
        f"{DATA}README.md has no row for `{name}`: say there what it is, its source and its terms"
    )


def data_name(key: str) -> str:
    """Return the name of the package with some data, written as indexes of packages do."""
    return f"attncore-data-{re.sub('[._]', '-', key)}"


def own_version(root: Path) -> str:
    """Return the version of attncore."""
    code = (root / "src/attncore/__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE)[1]


def wheel(
    name: str,
    version: str,
    files: dict[str, bytes],
    fields: dict[str, str],
    licences: dict[str, bytes],
) -> bytes:
    """Return a wheel of pure Python; `fields` are those of its metadata."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    head = {"Metadata-Version": "2.4", "Name": name, "Version": version, **fields}
    metadata = "".join(f"{field}: {text}\n" for field, text in head.items())
    files = {
        **files,
        **{f"{info}/licenses/{file}": text for file, text in licences.items()},
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: slim_wheels\nRoot-Is-Purelib: true\n"
            b"Tag: py3-none-any\n"
        ),
    }
    rows = [[file, fingerprint(files[file]), str(len(files[file]))] for file in sorted(files)]
    files[f"{info}/RECORD"] = table([*rows, [f"{info}/RECORD", "", ""]])
    return pack(files)


def fingerprint(raw: bytes) -> str:
    """Return the SHA-256 as a RECORD has it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(raw).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"
