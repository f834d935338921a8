"""What a model learns from, and what is held out: the novel, or Python code that is installed.

The code is that of Python's standard library, torch, NumPy and what these bring along, so it is
wherever attncore is: a hundred million characters. Its licences, PSF and BSD, let everybody use it.
A package is learnt from or held out as a whole: its files repeat each other, and whoever has read
some of them knows too much of the rest.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from attncore.data import moby_dick

HELD_OUT = 0.05  # of the novel, its end
PACKAGES = ("stdlib", "torch", "sympy", "numpy", "networkx", "mpmath")
UNSEEN = "jinja2"  # the package held out; torch brings it along
NOT_OURS = {"site-packages", "dist-packages", "test"}  # folders of the standard library to pass by
PASSAGE = 80  # characters


@dataclass(frozen=True)
class Texts:
    """What is there to learn from, and what is held out."""

    learn: list[str]
    choose: str  # the best model is the one that does best here
    judge: str  # this chose nothing
    opening: str  # the trained model continues it, for us to read


def novel(more: Sequence[str] = (), packages: Sequence[str] = ()) -> Texts:
    """Return Moby-Dick and more texts to learn from; its end judges."""
    seen, held_out = parts()
    check_unseen(more, held_out)
    return Texts([seen, *more, *code_of(packages, held_out)], "", held_out, "Call me ")


def code(more: Sequence[str] = (), packages: Sequence[str] = ()) -> Texts:
    """Return the code of packages and more texts to learn from; another package judges."""
    held_out = "".join(sources(UNSEEN))
    check_unseen(more, held_out)
    middle = len(held_out) // 2
    learn = [*code_of(packages or PACKAGES, held_out), *more]
    return Texts(learn, held_out[:middle], held_out[middle:], "def ")


SOURCES = {"novel": novel, "code": code}


def parts() -> tuple[str, str]:
    """Return the novel's text to learn from, and that held out."""
    text = moby_dick()
    edge = int(len(text) * (1 - HELD_OUT))
    return text[:edge], text[edge:]


def code_of(packages: Sequence[str], held_out: str) -> Iterator[str]:
    """Yield the files of packages, but for those that repeat a passage of the held-out text."""
    repeated = repeats(held_out)
    for package in packages:
        yield from (text for text in sources(package) if repeated(text) is None)


def sources(package: str) -> Iterator[str]:
    """Yield the text of a package's Python files, without importing it."""
    if package == "stdlib":
        folder = Path(sysconfig.get_path("stdlib"))
    else:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(
                f"{package} is no installed package to learn from: pip install {package}, "
                "or name others with --packages"
            )
        folder = Path(spec.submodule_search_locations[0])
    for file in sorted(folder.rglob("*.py")):
        if package != "stdlib" or not NOT_OURS & set(file.relative_to(folder).parts):
            yield file.read_text("utf-8", errors="replace")


def check_unseen(more: Sequence[str], held_out: str) -> None:
    """Raise if a passage of the held-out text is in the texts to add."""
    repeated = repeats(held_out)
    for text in more:
        if passage := repeated(text):
            raise ValueError(
                f"the texts to train on hold some of the text to judge by, {passage!r}: cut it out"
            )


def repeats(held_out: str) -> Callable[[str], str | None]:
    """Return what finds a passage of the held-out text in another, however lines are broken.

    Every 80th passage of the other is looked up among all those of the held-out text: what both
    have in common is found for certain if it is twice as long.
    """
    held_out = " ".join(held_out.split())
    known = {held_out[n : n + PASSAGE] for n in range(len(held_out) - PASSAGE + 1)}

    def repeated(text: str) -> str | None:
        text = " ".join(text.split())
        passages = (text[n : n + PASSAGE] for n in range(0, len(text) - PASSAGE + 1, PASSAGE))
        return next((passage for passage in passages if passage in known), None)

    return repeated
