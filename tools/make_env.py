"""Make .venv with everything the book and its tests need; do nothing if it is current.

    python3 tools/make_env.py            the pinned versions of constraints.txt
    python3 tools/make_env.py --newest   the newest versions that pyproject.toml allows
    python3 tools/make_env.py --pin      the newest that every promised Python can install, and
                                         write them to constraints.txt

This file must run on any Python 3, to be able to say that the Python is too old.
"""

import argparse
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed-from")
PINS = os.path.join(ROOT, "constraints.txt")
GIGABYTES = 5


class CommandFailed(Exception):  # noqa: N818 (it reads better where it is caught)
    """A command failed."""


def fingerprint(newest):
    """Return a hash of all that decides what gets installed, and where."""
    digest = hashlib.sha256(os.fsencode(repr((sys.version, newest)) + ROOT))
    for path in (os.path.join(ROOT, "pyproject.toml"), PINS):
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(command, sentence):
    """Run a command, show what is new in its output; if it fails, say why and stop."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", errors="replace"
    ) as process:
        for line in process.stdout:
            if not line.startswith("Requirement already satisfied"):
                # In an ASCII locale not all can be shown that a package calls itself.
                known = sys.stdout.encoding or "ascii"
                print(line.encode(known, "replace").decode(known), end="", flush=True)
    if process.returncode:
        sys.exit("\n" + (in_the_way() or sentence))


def in_the_way():
    """Say what stops this folder from being filled; '' if it is neither rights nor space."""
    shown = os.fsencode(ROOT).decode("ascii", "replace")
    if not os.access(ROOT, os.W_OK):
        return "The folder {} cannot be written to: clone into one of your own.".format(shown)
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES:
        return "The disk is too full: {} GB are needed, and {:.1f} are free.".format(
            GIGABYTES, free
        )
    return ""


def usable():
    """Tell whether .venv works, is of this Python, and was made in this very folder."""
    try:
        found = subprocess.check_output(
            [PYTHON, "-c", "import sys, pip; print(sys.version)"], stderr=subprocess.DEVNULL
        )
        with open(os.path.join(VENV, "pyvenv.cfg"), "rb") as file:
            lines = file.read().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return False
    # The programs in .venv/bin name their Python by its whole path: after a move it is another's.
    here = any(line.endswith(b" " + os.fsencode(VENV)) for line in lines)
    return here and found.decode().strip() == sys.version.strip()


def make():
    """Make an empty environment."""
    try:
        import ensurepip  # noqa: F401 (some systems leave it out)
    except ImportError:
        sys.exit(
            "This Python cannot make environments: on Debian or Ubuntu, "
            "apt-get install python{}.{}-venv.".format(*sys.version_info)
        )
    if os.path.exists(STAMP):
        print("The folder or its Python is another one: .venv is made anew.", flush=True)
    run([sys.executable, "-m", "venv", "--clear", VENV], "The environment could not be made.")


def install(newest, constraints):
    """Make the environment if need be, and install the project into it."""
    if not usable():
        make()
    print("Installing; the first time this takes a minute or several.", flush=True)
    options = ["--disable-pip-version-check", "--constraint", constraints]
    options += ["--upgrade"] if newest else []
    run(
        [PYTHON, "-m", "pip", "install", *options, "-e", ".[test]"],
        "Installing failed: pip's last lines above say why. Is there a network?",
    )
    point_to_source()


def point_to_source():
    """Let the environment find src/ by a relative path.

    pip writes the whole path, and in an ASCII locale Python cannot start if it holds an umlaut.
    """
    for path in glob.glob(os.path.join(glob.escape(VENV), "lib/python3*/site-packages/*.pth")):
        with open(path, "rb") as file:
            found = file.read().strip()
        if found == os.fsencode(os.path.join(ROOT, "src")):
            with open(path, "w") as file:
                file.write(os.path.relpath(os.path.join(ROOT, "src"), os.path.dirname(path)))


def pin():
    """Install the newest versions that every promised Python can install, and pin them."""
    with tempfile.TemporaryDirectory() as folder:
        bounds = os.path.join(folder, "bounds.txt")
        open(bounds, "w").close()
        install(True, bounds)
        check = [PYTHON, os.path.join(ROOT, "tools", "unfit_pins.py")]
        while True:
            unfit = subprocess.check_output(check, universal_newlines=True)
            if not unfit:
                break
            print("Not for every Python that is promised:\n" + unfit, flush=True)
            with open(bounds, "a") as file:
                file.write(re.sub(r"==(\S+).*", r"<\1", unfit))
            install(True, bounds)
    freeze = [PYTHON, "-m", "pip", "freeze", "--exclude-editable"]
    lines = subprocess.check_output(freeze, cwd=ROOT, universal_newlines=True).splitlines()
    names = [re.sub(r"\+.*", "", line) for line in lines]  # torch's build, cpu or cuda, is free
    # Libraries of one accelerator belong to one build of torch, which asks for them itself.
    pins = [n for n in names if not re.match(r"nvidia|cuda|triton", n)]
    with open(PINS, "w") as file:
        file.write("# The versions the book is built and tested with. Made by `make pins`.\n")
        file.write("\n".join(pins) + "\n")


def main():
    """Read the arguments and work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--newest", action="store_true", help="ignore constraints.txt")
    parser.add_argument("--pin", action="store_true", help="install the newest and pin them")
    options = parser.parse_args()
    if sys.version_info < (3, 11):
        sys.exit(
            "Python 3.11 or newer is needed, this is "
            + sys.version.split()[0]
            + ": try make PYTHON=/path/to/python3.11"
        )
    newest = options.newest or options.pin
    if os.path.exists(STAMP):
        with open(STAMP) as file:
            if file.read() == fingerprint(newest) and not options.pin:
                return
    if options.pin:
        pin()
    else:
        install(newest, os.devnull if newest else PINS)
    with open(STAMP, "w") as file:
        file.write(fingerprint(newest))


if __name__ == "__main__":
    main()
