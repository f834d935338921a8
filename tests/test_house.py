"""The rooms of the package, and which way its imports go: down, and never in a circle."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "attncore"
FRONT = "attncore"
FLOORS = (  # from the top; an import goes to a lower floor, or stays in its room
    ("exercises", "training"),
    ("nn",),
    ("models",),
    (FRONT,),
    ("plot",),
    ("draw",),
    ("long", "cache", "sampling", "regression", "cost"),
    ("core",),
    ("masks", "positions", "scores", "kernels", "images", "data", "parallel", "knobs"),
    ("base",),
)
FLOOR = {room: -n for n, rooms in enumerate(FLOORS) for room in rooms}


def rooms():
    """Return the names of the rooms: folders, and single files at the top."""
    parts = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}
    return {FRONT if part == "__init__.py" else part.removesuffix(".py") for part in parts}


def room_of(path):
    first = path.relative_to(SOURCE).parts[0]
    return FRONT if first == "__init__.py" else first.removesuffix(".py")


def imported(tree):
    """Yield the dotted names that a file imports from this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == FRONT)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "relative"
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == FRONT:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                known = SOURCE.joinpath(*inner.split(".")[1:])
                is_module = known.is_dir() or known.with_suffix(".py").exists()
                yield inner if is_module or node.module == FRONT else node.module


def arrows(source=SOURCE):
    """Return (file, its room, the room it imports from) for each import that leaves its room."""
    found = []
    for path in sorted(source.rglob("*.py")):
        own = room_of(path)
        for name in imported(ast.parse(path.read_text("utf-8"))):
            second = name.split(".")[1] if "." in name else FRONT
            other = second if second in FLOOR else FRONT
            if other != own:
                found.append((path.relative_to(source).as_posix(), own, other))
    return found


def test_every_room_has_its_floor():
    assert rooms() == set(FLOOR)


def test_imports_run_down():
    up = [a for a in arrows() if FLOOR[a[1]] <= FLOOR[a[2]]]

    assert len(arrows()) > 50
    assert up == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("import attncore as ac", ["attncore"]),
        ("from attncore import masks, softmax", ["attncore.masks", "attncore.softmax"]),
        ("def f():\n    from attncore.core.fused import fused", ["attncore.core.fused"]),
        ("from . import arrays", ["relative"]),
        ("import numpy.attncore", []),
    ],
)
def test_imports_are_seen_in_every_form(line, names):
    assert list(imported(ast.parse(line))) == names


def test_no_file_is_in_a_circle():
    """Within a room, too: else which file comes first would depend on who imports."""
    files = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        files[name] = set(imported(ast.parse(path.read_text("utf-8"))))
    known = {n: {i for i in found if i in files and i != n} for n, found in files.items()}
    while free := {n for n, found in known.items() if not found & known.keys()}:
        known = {n: found - free for n, found in known.items() if n not in free}

    assert known == {}


def test_no_room_bears_the_name_of_an_exported_function():
    import attncore as ac

    functions = {name for name in ac.__all__ if callable(getattr(ac, name))}
    assert not functions & rooms()
    assert callable(ac.attention)
