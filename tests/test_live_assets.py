"""The live cells' Python: checked before use, slimmer, and as its lock says. No network."""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import kept_models
import live_assets
import precompile
import pytest
import slim_wheels

ROOT = Path(__file__).resolve().parent.parent
METADATA = b"Metadata-Version: 2.4\nName: toy\nVersion: 1\nLicense-Expression: MIT\n"
TOY = {
    "toy/__init__.py": b"x = 1\n",
    "toy/tests/test_x.py": b"assert True\n",
    "toy/tests/LICENSE": b"MIT\n",
    "toy/x.pyi": b"x: int\n",
    "toy-1.dist-info/METADATA": METADATA,
    "toy-1.dist-info/RECORD": b"".join(
        b"%s,sha256=a,1\n" % name
        for name in (b"toy/__init__.py", b"toy/tests/test_x.py", b"toy/tests/LICENSE", b"toy/x.pyi")
    )
    + b"toy-1.dist-info/METADATA,,\ntoy-1.dist-info/RECORD,,\n",
}
DROP = ["*.pyi", "toy/tests/*"]


def sha256(raw):
    return hashlib.sha256(raw).hexdigest()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Return a folder with a small runtime and a wheel, which are pinned instead of Pyodide."""
    folder = tmp_path / "source"
    folder.mkdir()
    core = slim_wheels.pack({"os.py": b"1\n", "smtplib.py": b"2\n"})
    wheel = slim_wheels.pack(TOY)
    (folder / "python_stdlib.zip").write_bytes(core)
    (folder / "toy-1-py3-none-any.whl").write_bytes(wheel)
    package = {"name": "toy", "version": "1", "sha256": sha256(wheel), "depends": []}
    package["file_name"] = "toy-1-py3-none-any.whl"
    stdlib = {"file": "python_stdlib.zip", "name": "stdlib", "version": "3"}
    stdlib |= {"licence": "PSF-2.0", "source": "https://example.org", "sha256": sha256(core)}
    pins = {
        "carrier": "carrier==1",
        "core": [stdlib],
        "drop": {"toy": DROP, "python_stdlib.zip": ["smtplib.py"]},
        "lock": {"info": {}, "packages": {"toy": package}},
    }
    monkeypatch.setattr(live_assets, "PINS", pins)
    compiled = slim_wheels.pack({"toy/__init__.pyc": b"code", "another/__init__.pyc": b""})
    monkeypatch.setattr(precompile, "first_modules", lambda _: compiled)
    own = slim_wheels.pack({"attncore/__pycache__/masks.cpython-314.pyc": b"code"})
    monkeypatch.setattr(precompile, "own_modules", lambda _: own)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    return folder


def notes(out):
    return {entry["file"]: entry for entry in json.loads((out / "LICENSES.json").read_text())}


def stamps(out):
    return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}


def test_slimming_drops_what_is_listed_and_no_licence():
    files = slim_wheels.unpack(slim_wheels.slim(slim_wheels.pack(TOY), DROP))
    record = files.pop("toy-1.dist-info/RECORD").decode()

    assert files.keys() == TOY.keys() - {
        "toy/tests/test_x.py",
        "toy/x.pyi",
        "toy-1.dist-info/RECORD",
    }
    assert all(files[name] == TOY[name] for name in files)
    assert [row.split(",")[0] for row in record.splitlines()] == [
        "toy/__init__.py",
        "toy/tests/LICENSE",
        "toy-1.dist-info/METADATA",
        "toy-1.dist-info/RECORD",
    ]


def test_the_same_files_give_the_same_bytes():
    backwards = dict(reversed(TOY.items()))

    assert slim_wheels.pack(TOY) == slim_wheels.pack(backwards)
    assert slim_wheels.slim(slim_wheels.pack(TOY), DROP) == slim_wheels.slim(
        slim_wheels.slim(slim_wheels.pack(backwards), DROP), DROP
    )


def test_compiled_modules_stand_for_their_source():
    code = {"toy/__init__.pyc": b"code", "another.pyc": b"code"}
    raw, count = slim_wheels.with_compiled(slim_wheels.pack(TOY), code)
    files = slim_wheels.unpack(raw)
    rows = files.pop("toy-1.dist-info/RECORD").decode().splitlines()

    assert count == 1
    assert files.keys() == TOY.keys() - {"toy/__init__.py", "toy-1.dist-info/RECORD"} | {
        "toy/__init__.pyc"
    }
    assert files["toy/__init__.pyc"] == b"code"
    assert f"toy/__init__.pyc,{slim_wheels.fingerprint(b'code')},4" in rows
    assert not any(row.startswith("toy/__init__.py,") for row in rows)


def test_what_a_first_run_imports_is_compiled_and_little_else():
    live = ROOT / "_build/live"
    names = {
        name: set(slim_wheels.unpack(next(live.glob(f"{name}*")).read_bytes()))
        for name in ("python_stdlib", "numpy-", "matplotlib-", "attncore-")
    }
    names = {name.removesuffix("-"): inside for name, inside in names.items()}

    assert {"typing.pyc", "asyncio/base_events.pyc"} <= names["python_stdlib"]
    assert {"statistics.py", "unittest/case.py"} <= names["python_stdlib"]
    assert {"numpy/__init__.pyc", "numpy/lib/_npyio_impl.pyc"} <= names["numpy"]
    assert {"numpy/ma/core.py", "numpy/polynomial/legendre.py"} <= names["numpy"]
    assert {"matplotlib/figure.pyc", "matplotlib/animation.py"} <= names["matplotlib"]
    assert "attncore/__init__.py" in names["attncore"]  # readers may look at our source
    code = [name for name in names["attncore"] if name.endswith(".pyc")]
    compiled = {re.sub(r"__pycache__/(\w+)\.cpython-\d+\.pyc", r"\1.py", name) for name in code}
    assert compiled == loaded_with_models()
    for inside in names.values():
        assert not {name for name in inside if name.endswith(".py") and f"{name}c" in inside}


def loaded_with_models():
    """Return the files of attncore that `import attncore.models` loads."""
    code = (
        "import sys, attncore.models; print(*(m.__file__ for n, m in list(sys.modules.items())"
        " if n.split('.')[0] == 'attncore'), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    return {Path(line).relative_to(ROOT / "src").as_posix() for line in done.stdout.splitlines()}


def test_a_folder_without_pyodide_is_told(tmp_path):
    with pytest.raises(precompile.NotCompiled, match=r"(?s)could not compile.*pyodide\.mjs"):
        precompile.first_modules(tmp_path)


def test_without_the_compiler_there_are_no_assets(source, tmp_path, monkeypatch):
    def fail(_):
        raise precompile.NotCompiled("Node.js could not compile it")

    monkeypatch.setattr(precompile, "first_modules", fail)
    with pytest.raises(live_assets.AssetsMissing, match="could not compile it"):
        live_assets.make(tmp_path / "live", source)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT\nLicense: long", "MIT"),
        ("License: X\nClassifier: License :: OSI Approved :: BSD License", "BSD License"),
        ("License: MIT", "MIT"),
        ("Name: toy", "not named"),
    ],
)
def test_a_licence_is_read_from_the_metadata(fields, expected):
    wheel = slim_wheels.pack({"toy-1.dist-info/METADATA": f"{fields}\n\nText.".encode()})

    assert slim_wheels.licence(wheel) == expected


def test_attncores_wheel_has_the_code_and_the_small_data():
    version, wheel = slim_wheels.own_wheel(ROOT)
    files = slim_wheels.unpack(wheel)
    info = f"attncore-{version}.dist-info"
    every = {path.relative_to(ROOT / "src").as_posix() for path in ROOT.glob("src/**/*.py")}
    inside = {name for name in every if "/training/" not in name}  # which needs torch

    data = {"motorcycle.csv", "README.md", "speeds/cpu-2-cores.json"}
    assert inside | {f"attncore/data/{name}" for name in data} <= set(files)
    assert not any(name.endswith((".npz", ".gz")) or "__pycache__" in name for name in files)
    assert len(wheel) < 380_000
    assert b"Requires-Dist: numpy" in files[f"{info}/METADATA"]
    rows = [line.split(",") for line in files[f"{info}/RECORD"].decode().splitlines()]
    assert {row[0] for row in rows} == set(files)
    for name, digest, size in rows:
        if name != f"{info}/RECORD":
            assert (digest, int(size)) == (slim_wheels.fingerprint(files[name]), len(files[name]))


def test_attncores_wheel_can_be_imported(tmp_path):
    path = tmp_path / "attncore.zip"
    path.write_bytes(slim_wheels.own_wheel(ROOT)[1])
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r}); import attncore; print(attncore.__file__);"
        "attncore.data.motorcycle(); attncore.data.speeds('cpu-2-cores')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout


DATA = {
    "attention_maps": "attention_maps.npz",
    "digits": "digits.npz",
    "moby_dick": "moby_dick.txt.gz",
    "photograph": "photograph.npz",
    "whale": "whale.npz",
}


def test_each_packed_file_of_data_is_a_wheel_of_its_own():
    wheels = {data.key: data for data in slim_wheels.data_wheels(ROOT)}
    trained = {f"trained.{path.stem}" for path in ROOT.glob("src/attncore/data/trained/*")}

    assert wheels.keys() == DATA.keys() | trained
    for key, name in DATA.items():
        files = slim_wheels.unpack(wheels[key].raw)
        (info,) = {part.split("/")[0] for part in files} - {"attncore"}
        assert info.startswith(f"attncore_data_{key}-")
        assert wheels[key].path == f"attncore/data/{name}"
        assert files.keys() == {
            wheels[key].path,
            *(f"{info}/{part}" for part in ("METADATA", "RECORD", "WHEEL", "licenses/README.md")),
        }
        assert files[wheels[key].path] == (ROOT / "src" / wheels[key].path).read_bytes()
        assert wheels[key].source in files[f"{info}/licenses/README.md"].decode()
        assert slim_wheels.licence(wheels[key].raw) == wheels[key].terms
    assert wheels["whale"].terms == "Ours: MIT."
    assert "CC BY 4.0" in wheels["digits"].terms


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a copy of what attncore's wheels are made from, with a made-up trained model."""
    root = tmp_path / "tree"
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, root)
    monkeypatch.setattr(kept_models, "FOLDER", root / "src/attncore/data/trained")
    kept_models.keep("two_heads", "Block", [4, 2], {}, {0: {"a": [1.0]}})
    monkeypatch.setattr(live_assets, "ROOT", root)
    return root


def describe(root, row):
    readme = root / "src/attncore/data/README.md"
    readme.write_text(f"{readme.read_text('utf-8')}\n{row}\n", "utf-8")


@pytest.mark.parametrize("named", ["trained/two_heads.npz", "trained/*.npz", "two_heads.npz"])
def test_a_trained_model_is_picked_up(source, tree, tmp_path, named):
    out = tmp_path / "live"
    describe(tree, f"| `a`, `{named}` | two \\| heads | by a script | Ours: MIT. | `12` |")
    live_assets.make(out, source)
    file = "attncore_data_trained_two_heads-0.1.0-py3-none-any.whl"
    packages = json.loads((out / "pyodide-lock.json").read_text())["packages"]
    files = slim_wheels.unpack((out / file).read_bytes())
    inside = "attncore/data/trained/two_heads.npz"

    assert packages["attncore-data-trained-two-heads"]["file_name"] == file
    assert packages["attncore-data-trained-two-heads"]["imports"] == [
        "attncore.data.trained.two_heads"
    ]
    assert files[inside] == (tree / "src" / inside).read_bytes()
    assert inside not in slim_wheels.unpack(slim_wheels.own_wheel(tree)[1])
    assert inside in notes(out)["attncore-0.1.0-py3-none-any.whl"]["dropped"]
    assert notes(out)[file]["licence"] == "Ours: MIT."
    assert notes(out)[file]["source"] == "by a script"

    (tree / "src" / inside).unlink()
    live_assets.make(out)
    assert not (out / file).exists()


def test_data_of_unknown_terms_is_not_shipped(source, tree, tmp_path):
    with pytest.raises(LookupError, match=r"README.md has no row for `trained/two_heads.npz`: say"):
        live_assets.make(tmp_path / "live", source)
    describe(tree, "| `trained/two_heads.npz` |")
    with pytest.raises(LookupError, match=r"no row for `trained/two_heads.npz`: .* and its terms"):
        live_assets.make(tmp_path / "live", source)


def test_the_lock_and_the_notes_name_what_is_there(source, tmp_path):
    out = tmp_path / "live"
    live_assets.make(out, source)
    packages = json.loads((out / "pyodide-lock.json").read_text())["packages"]
    pieces = notes(out)

    data = {slim_wheels.data_name(data.key) for data in slim_wheels.data_wheels(ROOT)}
    assert packages.keys() == {"toy", "attncore", *data}
    assert {"attncore-data-whale", "attncore-data-moby-dick"} < data
    for name in data:
        assert packages[name]["depends"] == ["attncore"]
        assert packages[name]["install_dir"] == "site"
    assert packages["attncore-data-moby-dick"]["imports"] == ["attncore.data.moby_dick"]
    assert packages["attncore"]["depends"] == ["numpy"]
    for package in packages.values():
        assert sha256((out / package["file_name"]).read_bytes()) == package["sha256"]
    for file, entry in pieces.items():
        assert sha256((out / file).read_bytes()) == entry["sha256"]
    assert {path.name for path in out.iterdir()} == {*pieces, "pyodide-lock.json", "LICENSES.json"}
    assert pieces["toy-1-py3-none-any.whl"]["licence"] == "MIT"
    assert pieces["toy-1-py3-none-any.whl"]["dropped"] == DROP
    assert pieces["toy-1-py3-none-any.whl"]["compiled"] == 1
    with zipfile.ZipFile(out / "python_stdlib.zip") as stdlib:
        assert stdlib.namelist() == ["os.py"]
    assert "toy" in live_assets.PINS["lock"]["packages"]
    assert "attncore" not in live_assets.PINS["lock"]["packages"]


def test_the_book_lists_every_part_with_its_version_and_licence():
    page = (ROOT / "book/live_cells.md").read_text("utf-8")
    rows = [row.casefold() for row in page.splitlines() if row.startswith("|")]
    for entry in notes(ROOT / "_build/live").values():
        if entry["name"].startswith("attncore-data-"):
            continue  # the next test
        name = entry["name"].split()[0].casefold()
        family = entry["licence"].split()[0].split("-")[0].casefold()
        row = next(row for row in rows if row.startswith((f"| {name}", f"| [{name}")))

        assert entry["version"] in row
        assert family in row


def test_the_book_lists_all_data_with_its_size_and_terms():
    page = (ROOT / "book/live_cells.md").read_text("utf-8")
    for file, entry in notes(ROOT / "_build/live").items():
        if not entry["name"].startswith("attncore-data-"):
            continue
        name = re.sub("trained-.*", "trained-…", entry["name"])
        row = re.search(rf"^\| {name},.+ \| `.+` \| (up to )?([\d.]+) MB \| (.+) \|$", page, re.M)
        size = (ROOT / "_build/live" / file).stat().st_size / 1e6
        known = r"MIT|Apache-2\.0|public domain|PDDL 1\.0|CC0 1\.0|CC BY \d\.0"
        terms = re.findall(known, entry["licence"], re.I)

        assert size < float(row[2]) if row[1] else abs(size - float(row[2])) < 0.006
        assert terms, entry["licence"]
        assert all(term.casefold() in row[3].casefold() for term in terms)


def test_what_pages_load_stays_small():
    live, scripts = ROOT / "_build/live", ROOT / "book/_static/live"
    lock = json.loads((live / "pyodide-lock.json").read_text("utf-8"))["packages"]

    def megabytes(paths):
        return sum(len(gzip.compress(path.read_bytes(), 6)) for path in paths) / 1e6

    def wheels(*names):
        return megabytes(live / lock[name]["file_name"] for name in names)

    later = {name for name in lock if name.startswith("attncore-data-")}
    start = [path for path in live.iterdir() if path.suffix != ".whl"]
    page = megabytes([*start, *scripts.iterdir()]) + wheels("numpy", "attncore")
    page += 0.1  # its own text

    assert 8 < page <= 9.3
    assert page + wheels(*lock.keys() - later - {"numpy", "attncore"}) <= 16
    assert page + wheels("attncore-data-whale") <= 10.5


def test_a_second_run_rewrites_only_what_changed(source, tmp_path, monkeypatch):
    out = tmp_path / "live"
    live_assets.make(out, source)
    before = stamps(out)
    live_assets.make(out)
    assert stamps(out) == before

    (out / "toy-1-py3-none-any.whl").write_bytes(b"half a file")
    live_assets.make(out)  # from the cache
    assert slim_wheels.licence((out / "toy-1-py3-none-any.whl").read_bytes()) == "MIT"
    assert stamps(out)["python_stdlib.zip"] == before["python_stdlib.zip"]

    wheel = slim_wheels.pack({"attncore-9.dist-info/METADATA": METADATA})
    monkeypatch.setattr(slim_wheels, "own_wheel", lambda _: ("9", wheel))
    live_assets.make(out)
    assert [path.name for path in out.glob("attncore-*")] == ["attncore-9-py3-none-any.whl"]
    assert stamps(out)["python_stdlib.zip"] == before["python_stdlib.zip"]

    monkeypatch.setitem(live_assets.PINS["core"][0], "licence", "0BSD")
    live_assets.make(out)
    assert notes(out)["python_stdlib.zip"]["licence"] == "0BSD"

    monkeypatch.setitem(live_assets.PINS["drop"], "toy", [])
    live_assets.make(out)
    whole = slim_wheels.with_compiled(slim_wheels.pack(TOY), {"toy/__init__.pyc": b"code"})[0]
    assert (out / "toy-1-py3-none-any.whl").read_bytes() == whole
    assert not notes(out)["toy-1-py3-none-any.whl"]["slimmed"]


def test_another_file_than_the_pinned_one_is_refused(source, tmp_path):
    wheel = source / "toy-1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"!")

    with pytest.raises(live_assets.AssetsMissing, match=r"another toy-1\S+ than"):
        live_assets.make(tmp_path / "live", source)
    assert not (tmp_path / "live" / wheel.name).exists()
    wheel.unlink()
    with pytest.raises(live_assets.AssetsMissing, match=r"lacks toy-1\S+"):
        live_assets.make(tmp_path / "live", source)


def pip(carried, code=0):
    """Return a stand-in for subprocess.run that downloads a wheel with `carried` in it."""

    def run(command, **_):
        if code == 0:
            folder = Path(command[command.index("-d") + 1])
            (folder / "carrier-1-py3-none-any.whl").write_bytes(slim_wheels.pack(carried))
        return subprocess.CompletedProcess(command, code)

    return run


def test_the_carrier_is_opened_and_not_believed(source, tmp_path, monkeypatch):
    files = {f"carrier/pyodide/{path.name}": path.read_bytes() for path in source.iterdir()}
    monkeypatch.setattr(subprocess, "run", pip({**files, "carrier/pyodide/more.whl": b""}))
    live_assets.make(tmp_path / "good" / "live")
    assert not (tmp_path / "good" / "live" / "more.whl").exists()

    for content, match in (
        ({**files, "carrier/pyodide/python_stdlib.zip": b"PK"}, "another python_stdlib.zip than"),
        ({"carrier/readme": b""}, "carrier==1 lacks python_stdlib.zip"),
    ):
        monkeypatch.setattr(subprocess, "run", pip(content))
        with pytest.raises(live_assets.AssetsMissing, match=match):
            live_assets.make(tmp_path / "bad" / "live")


@pytest.mark.usefixtures("source")
def test_without_network_the_reader_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip({}, code=1))

    with pytest.raises(live_assets.AssetsMissing, match=r"could not download carrier==1 .*--from"):
        live_assets.make(tmp_path / "live")


def test_the_pins_fit_together():
    pins = json.loads((ROOT / "tools/live_assets.json").read_text())
    packages = pins["lock"]["packages"]
    pinned = [*pins["core"], *packages.values()]

    assert all(len(bytes.fromhex(entry["sha256"])) == 32 for entry in pinned)
    assert all(set(package["depends"]) <= packages.keys() for package in packages.values())
    assert pins["drop"].keys() <= packages.keys() | {entry["file"] for entry in pins["core"]}
