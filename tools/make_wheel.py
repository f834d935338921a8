"""Build the package's wheel, and try it where nothing else of this project is.

    python tools/make_wheel.py

The wheel comes to _build/dist. It is installed, with what it needs, into a new environment in a
temporary folder, and the examples of README.md run there; what the first prints must be what
README.md says.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "_build" / "dist"


def examples() -> list[tuple[str, str]]:
    """Return the Python of README.md, each with what it prints; "" where it does not say."""
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", text, flags=re.S)


def run(command: list[str | Path], **options: object) -> str:
    """Run a command to its end; return what it printed, or stop with what it complained of."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return str(done.stdout)


def build() -> Path:
    """Build the wheel and return where it is."""
    DIST.mkdir(parents=True, exist_ok=True)
    for old in DIST.glob("attncore-*.whl"):
        old.unlink()
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", DIST, ROOT])
    return next(DIST.glob("attncore-*.whl"))


def main() -> None:
    """Build, install and run."""
    wheel = build()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        pins = ROOT / "constraints.txt"
        run([python, "-m", "pip", "install", "-q", "-c", pins, wheel])
        for code, expected in examples():
            printed = run([python, "-c", code], cwd=folder)
            if expected and printed != expected:
                sys.exit(f"README.md says\n{expected}but the wheel prints\n{printed}")
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB, installed and tried")


if __name__ == "__main__":
    main()
