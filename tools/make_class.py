"""Write what a class needs into _build/class: notebooks without solutions, and assignments.

    python tools/make_class.py [CHAPTER ...]      after `make book`; all chapters if none is named

    students/ch08_kv_cache.ipynb    the chapter's notebook, its exercises open, and their checks
    otter/ch08_kv_cache/            the same as an assignment for Otter-Grader: the notebook, its
                                    tests, and the autograder.zip that grades what comes back

Both are made from notebooks/, so from the pages of the book. A student's own check and the
grader's test ask the same function, attncore.exercises.verdict. A submission is graded by
`otter run -a autograder.zip NOTEBOOK`, on the machine where attncore is installed.
"""

from __future__ import annotations

import ast
import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CLASS = ROOT / "_build" / "class"
SOLUTION = re.compile(
    r"<details>\n<summary>Solution to exercise [\d.]+</summary>.*?</details>\n?", flags=re.S
)
TEST = """\
OK_FORMAT = True

test = {{
    "name": "{name}",
    "points": 1,
    "suites": [
        {{
            "type": "doctest",
            "cases": [
                {{
                    "code": (
                        ">>> from attncore.exercises import EXERCISES, verdict\\n"
                        ">>> verdict(EXERCISES['{number}'], {answer})\\n"
                        "'correct'"
                    ),
                    "hidden": False,
                    "locked": False,
                }}
            ],
        }}
    ],
}}
"""


def without_solutions(notebook: Any) -> Any:
    """Return a copy of a notebook whose exercises are open; at its end is a summary."""
    opened = copy.deepcopy(notebook)
    opened.cells = []
    for cell in copy.deepcopy(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
        if cell.source and not cell.source.startswith("# Solution to exercise "):
            opened.cells.append(cell)
    ends = [n for n, cell in enumerate(opened.cells) if checked(cell)]
    if ends:
        last = nbformat.v4.new_code_cell("check.summary()", id="summary-of-checks")
        opened.cells.insert(ends[-1] + 1, last)
    return opened


def checked(cell: Any) -> tuple[str, str] | None:
    """Return the number and the answer's name if a cell checks an exercise."""
    if cell.cell_type != "code" or "check(" not in cell.source:
        return None
    for node in ast.walk(ast.parse(re.sub(r"^%.*$", "", cell.source, flags=re.M))):
        match node:
            case ast.Call(
                func=ast.Name(id="check"), args=[ast.Constant(value=str(number)), answer]
            ):
                return number, ast.unparse(answer)
    return None


def assignment(opened: Any, name: str) -> tuple[Any, dict[str, str]]:
    """Return a notebook that Otter-Grader grades, and its tests by their names."""
    graded = copy.deepcopy(opened)
    first = f'import otter\ngrader = otter.Notebook("{name}.ipynb")'
    graded.cells = [nbformat.v4.new_code_cell(first, id="grader")]
    tests = {}
    for cell in copy.deepcopy(opened.cells):
        graded.cells.append(cell)
        if found := checked(cell):
            number, answer = found
            test = f"ex_{number.replace('.', '_')}"
            tests[test] = TEST.format(name=test, number=number, answer=answer)
            call = nbformat.v4.new_code_cell(f'grader.check("{test}")', id=f"grade-{test}")
            graded.cells.append(call)
    return graded, tests


def write(path: Path, out: Path = CLASS) -> None:
    """Write both forms of one of the book's notebooks."""
    opened = without_solutions(nbformat.read(path, as_version=4))
    graded, tests = assignment(opened, path.stem)
    if not tests:
        return
    folder = out / "otter" / path.stem
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tests").mkdir(parents=True)
    (out / "students").mkdir(exist_ok=True)
    nbformat.write(opened, out / "students" / path.name)
    nbformat.write(graded, folder / path.name)
    for name, text in tests.items():
        (folder / "tests" / f"{name}.py").write_text(text, "utf-8")
    command = [sys.executable, "-m", "otter", "generate", "-t", "tests", "-o", "autograder.zip"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def main() -> None:
    """Write them all, or those that are named."""
    every = sorted((ROOT / "notebooks").glob("ch*.ipynb"))
    chosen = [path for path in every if path.stem in sys.argv[1:]] or every
    if unknown := set(sys.argv[1:]) - {path.stem for path in every}:
        sys.exit(f"There is no chapter {', '.join(sorted(unknown))} in notebooks/.")
    for path in chosen:
        write(path)
    print(f"{CLASS}: {len(chosen)} chapters, for students and for Otter-Grader")


if __name__ == "__main__":
    main()
