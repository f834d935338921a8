"""Make .venv with everything the book and its tests need; do nothing if it is current.

    python3 tools/make_env.py            the pinned versions of constraints.txt
    python3 tools/make_env.py --newest   the newest versions that pyproject.toml allows
    python3 tools/make_env.py --pin      the newest, and write them to constraints.txt

This file must run on any Python 3, to be able to say that the Python is too old.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "installed-from")


def fingerprint(newest):
    """Return a hash of all that decides what gets installed."""
    digest = hashlib.sha256(repr((sys.version, newest)).encode())
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(command, sentence):
    """Run a command, show what is new in its output; if it fails, say one sentence and stop."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, universal_newlines=True
    ) as process:
        for line in process.stdout:
            if not line.startswith("Requirement already satisfied"):
                print(line, end="", flush=True)
    if process.returncode:
        sys.exit("\n" + sentence)


def usable():
    """Tell whether .venv works and is of this Python; a moved or half-made one is not."""
    try:
        found = subprocess.check_output(
            [PYTHON, "-c", "import sys, pip; print(sys.version)"], stderr=subprocess.DEVNULL
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return found.decode().strip() == sys.version.strip()


def install(newest):
    """Make the environment if need be, and install the project into it."""
    if not usable():
        run(
            [sys.executable, "-m", "venv", "--clear", VENV],
            "Python's venv module is missing: on Debian or Ubuntu, apt-get install python3-venv.",
        )
    print("Installing; the first time this takes a minute or several.", flush=True)
    versions = ["--upgrade"] if newest else ["--constraint", "constraints.txt"]
    run(
        [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *versions, "-e", ".[test]"],
        "Installing failed, see pip's last lines above. Is there a network, and 5 GB of disk?",
    )


def write_pins():
    """Write the installed versions to constraints.txt."""
    freeze = [PYTHON, "-m", "pip", "freeze", "--exclude-editable"]
    lines = subprocess.check_output(freeze, cwd=ROOT, universal_newlines=True).splitlines()
    names = [re.sub(r"\+.*", "", line) for line in lines]  # torch's build, cpu or cuda, is free
    # Libraries of one accelerator belong to one build of torch, which asks for them itself.
    pins = [n for n in names if not re.match(r"nvidia|cuda|triton", n)]
    with open(os.path.join(ROOT, "constraints.txt"), "w") as file:
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
    install(newest)
    if options.pin:
        write_pins()
    with open(STAMP, "w") as file:
        file.write(fingerprint(newest))


if __name__ == "__main__":
    main()
