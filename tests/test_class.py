"""What a class gets: notebooks without solutions, and assignments that grade what comes back."""

import json
import re
import subprocess
import sys

import make_class
import nbformat
import pytest

from attncore.exercises import EXERCISES

NOTEBOOKS = sorted((make_class.ROOT / "notebooks").glob("ch*.ipynb"))
SAMPLE = NOTEBOOKS[0]  # it needs no torch, and runs in a second
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def text_of(notebook):
    return "\n".join(cell.source for cell in notebook.cells)


@BY_NAME
def test_no_solution_is_left_and_every_check_is(path):
    whole = nbformat.read(path, as_version=4)
    opened = make_class.without_solutions(whole)
    chapter = str(int(path.stem[2:4]))
    wanted = [number for number in EXERCISES if number.split(".")[0] == chapter]

    nbformat.validate(opened)
    assert "Solution to exercise" not in text_of(opened)
    assert text_of(whole).count("# Solution to exercise") >= len(wanted)
    assert [make_class.checked(c)[0] for c in opened.cells if make_class.checked(c)] == wanted
    assert text_of(opened).count("check.summary()") == 1
    assert text_of(opened).count("### Exercise ") == len(wanted)
    assert len(opened.cells) > 0.6 * len(whole.cells)


@BY_NAME
def test_every_exercise_has_its_test(path):
    opened = make_class.without_solutions(nbformat.read(path, as_version=4))
    graded, tests = make_class.assignment(opened, path.stem)

    nbformat.validate(graded)
    calls = re.findall(r'grader\.check\("(\w+)"\)', text_of(graded))
    assert calls == list(tests)
    for name, text in tests.items():
        names = {}
        exec(text, names)  # noqa: S102 (our own)
        assert names["test"]["name"] == name
        assert f"'{name[3:].replace('_', '.')}'" in text


def solve(notebook, solved, wrong=()):
    """Put the book's solutions, or a wrong answer, into the open exercises of a notebook."""
    whole = nbformat.read(SAMPLE, as_version=4)
    known = {}
    for cell in whole.cells:
        if cell.source.startswith("# Solution to exercise "):
            number = cell.source.split()[4]
            known[number] = known.get(number, "") + "\n" + cell.source
    for cell in notebook.cells:
        found = make_class.checked(cell)
        if found and found[0] in solved:
            cell.source = known[found[0]]
        elif found and found[0] in wrong:
            cell.source = f"{found[1]} = 123456.0"
    return notebook


def test_a_right_a_wrong_and_an_empty_submission_get_what_they_should(tmp_path):
    make_class.write(SAMPLE, tmp_path)
    folder = tmp_path / "otter" / SAMPLE.stem
    numbers = [n for n in EXERCISES if n.startswith("1.")]
    half = numbers[: len(numbers) // 2]
    cases = {"right": (numbers, ()), "wrong": (half, set(numbers) - {*half}), "empty": ((), ())}
    expected = {"right": len(numbers), "wrong": len(half), "empty": 0}
    for name, (solved, wrong) in cases.items():
        handed_in = tmp_path / name / SAMPLE.name
        handed_in.parent.mkdir()
        submitted = solve(nbformat.read(folder / SAMPLE.name, as_version=4), solved, wrong)
        nbformat.write(submitted, handed_in)
        command = [sys.executable, "-m", "otter", "run", "--no-logo"]
        command += ["-a", str(folder / "autograder.zip"), "-o", str(handed_in.parent)]
        run = subprocess.run(
            [*command, str(handed_in)], cwd=handed_in.parent, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
        results = json.loads((handed_in.parent / "results.json").read_text("utf-8"))
        scores = [t["score"] for t in results["tests"] if "score" in t and "ex_" in t["name"]]
        assert sum(scores) == expected[name], name


def test_an_unknown_chapter_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["make_class.py", "ch99_nothing"])

    with pytest.raises(SystemExit, match="There is no chapter ch99_nothing in notebooks/"):
        make_class.main()
