"""Training a language model: what it learns from, several processes, stopping and going on."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import attncore as ac
from attncore.nn import load, whale
from attncore.training import __main__ as program
from attncore.training import checkpoints, curve, loop, model, ranks, texts
from attncore.training.recipes import RECIPES
from attncore.training.scores import bits_per_character
from attncore.training.texts import Texts

SOURCE = Path(ac.__file__).resolve().parent.parent
CPU = torch.device("cpu")
SIZES = {"d_model": 12, "layers": 3, "heads": 6, "kv_heads": 2, "context": 17}
SMALL = {"sizes": SIZES, "batch": 8, "warm_up": 3}
ROOMY = {**SMALL, "sizes": {**SIZES, "context": 160}}  # for what a curve and main write
NOVEL = "Call me Ishmael. " * 400


@pytest.fixture
def scored(monkeypatch):
    """Short texts, and a list of the texts and scores that training asks for."""
    found = []

    def score(model, text):
        found.append((text, bits_per_character(model, text)))
        return found[-1][1]

    monkeypatch.setenv("ATTNCORE_DEVICE", "cpu")
    monkeypatch.setattr(texts, "moby_dick", lambda: NOVEL)
    for module in (loop, curve, program):
        monkeypatch.setattr(module, "bits_per_character", score)
    return found


def small_code(choose="def g(x): return x\n" * 40, judge="def h(y): return -y\n" * 40):
    return Texts(["def f(x):\n    return 2 * x\n" * 50] * 3, choose, judge, "def ")


# What the recipes do.


def test_the_books_recipe_trains(scored):
    recipe = replace(RECIPES["book"], steps=60, rate=2e-2, **SMALL)
    model = loop.train(recipe, texts.novel(["And more. "]), CPU)

    assert bits_per_character(model, texts.parts()[1]) < 1.5  # at first 3.9
    assert not scored
    assert model.decode(model.encode("more")[0]) == "more"


def test_the_larger_recipe_keeps_the_best_and_stops_when_it_gets_no_better(scored):
    recipe = replace(
        RECIPES["gpu"], steps=999, pieces=264, score_every=1, rate=1.0, **SMALL
    )  # a rate far too large: it gets worse after the first steps
    text = small_code()
    model = loop.train(recipe, text, CPU, compiled=False)
    asked, scores = zip(*scored, strict=True)

    assert set(asked) == {text.choose}
    assert len(scores) == scores.index(min(scores)) + 11
    assert bits_per_character(model, asked[0]) == pytest.approx(min(scores), rel=1e-5)


def test_what_chose_the_larger_model_does_not_judge_it(scored, monkeypatch, tmp_path, capsys):
    recipe = replace(RECIPES["gpu"], steps=4, pieces=264, score_every=2, **ROOMY)
    monkeypatch.setitem(RECIPES, "gpu", recipe)
    monkeypatch.setattr(texts, "PACKAGES", ("one",))
    packages = {"one": ["def f(x): return x\n" * 99], "jinja2": ["a = b + 1\n" * 800]}
    monkeypatch.setattr(texts, "sources", lambda name: iter(packages[name]))
    monkeypatch.setattr(loop.torch, "compile", lambda model: model)
    out = str(tmp_path / "gpu.npz")
    program.main(["--out", out])
    (*chosen, (last, score)) = scored
    (choosing,) = {text for text, _ in chosen}

    assert len(chosen) == 2
    assert choosing + last == packages["jinja2"][0]
    assert abs(len(choosing) - len(last)) < 2
    assert f"{score:.3f} bits per character on held-out text" in capsys.readouterr().out
    assert texts.novel().judge == texts.parts()[1]


def test_the_curve_has_a_point_now_and_then_and_what_was_written(scored):
    recipe = replace(RECIPES["book"], steps=7, draw_every=3, **ROOMY)
    text = texts.novel()
    drawn = curve.Curve(recipe.draw_every, text)
    loop.train(recipe, text, CPU, curve=drawn)
    found = drawn.found

    assert list(found) == ["step", "rate", "seen", "unseen", "samples"]
    assert found["step"] == [0, 3, 6, 7]
    assert found["rate"] == sorted(found["rate"][:2]) + sorted(found["rate"][2:])[::-1]
    assert [round(score, 5) for _, score in scored[1::2]] == found["unseen"]
    assert [step for step, _ in found["samples"]] == [0, 7]
    assert all(text.startswith("Call me ") for _, text in found["samples"])


def test_the_books_model_is_scored(scored, capsys):
    program.main(["--score"])
    ((text, score),) = scored
    said = capsys.readouterr().out

    assert text == texts.parts()[1]
    assert "whale.npz: 441,504 parameters" in said
    assert f"{score:.3f} bits per character" in said


def test_only_the_script_writes_the_books_file(scored, monkeypatch, tmp_path):
    """What the package is asked for lands where it was asked, not in the package."""
    import train_lm

    stored = Path(train_lm.BOOK[1])
    before = stored.stat().st_mtime_ns
    recipe = replace(RECIPES["book"], draw_every=2, **ROOMY)
    monkeypatch.setitem(RECIPES, "book", recipe)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    program.main(["--recipe", "book", "--steps", "3"])
    torch.set_num_threads(threads)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["book.json", "book.npz"]
    assert json.loads((tmp_path / "book.json").read_text())["step"] == [0, 2, 3]
    assert load("book.npz").context == 160
    assert stored == SOURCE / "attncore/data/whale.npz"
    assert stored.stat().st_mtime_ns == before


def test_a_text_too_short_to_score_by_is_refused():
    with pytest.raises(ValueError, match=r"must have at least 257 tokens, .*, got 15"):
        bits_per_character(whale(), "Call me Ishmael")


# What there is to learn from.


def test_texts_to_train_on_may_not_hold_the_text_to_judge_by():
    seen, held_out = texts.parts()
    wrapped = held_out[10_000:10_200].replace(" ", "\n")

    texts.novel(["And more. " + seen])
    for source in (texts.novel, texts.code_of):
        assert source is texts.code_of or source().judge == held_out
    with pytest.raises(ValueError, match=r"hold some of the text to judge by, '.*': cut it out"):
        texts.novel([f"And more.\n{wrapped}\nThe end."])


def test_every_long_passage_is_found_wherever_it_stands():
    held_out = "".join(f"{n} bottles of beer\n" for n in range(100, 400))
    repeated = texts.repeats(held_out)

    for start in range(80):
        passage = held_out[1000 + start : 1159 + start]
        assert repeated("x" * start + passage + "the end") in " ".join(held_out.split())
    assert repeated("x" * 1000) is None
    assert repeated(held_out[1000:1079]) is None
    assert texts.repeats("short")("short") is None


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two packages, of which the second has a copy of a file of the held-out one."""
    (copied,) = (file for file in texts.sources("jinja2") if "class Lexer" in file)
    for name, files in {
        "one": {"a.py": "a = 1\n", "b.txt": "no code", "inner/test/c.py": "c = 'é'\n"},
        "two": {"copy.py": copied, "own.py": "own = 2\n", "broken.py": b"# \xff\n"},
    }.items():
        for file, content in files.items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.syspath_prepend(tmp_path)
    return ["one", "two"]


def test_code_of_packages_is_learnt_but_for_copies_of_what_judges(packages):
    found = texts.code(["x = 3\n"], packages)
    judges = "".join(texts.sources("jinja2"))

    assert found.learn == ["a = 1\n", "c = 'é'\n", "# \ufffd\n", "own = 2\n", "x = 3\n"]
    assert found.choose + found.judge == judges
    assert texts.novel(packages=["one"]).learn[1:] == ["a = 1\n", "c = 'é'\n"]
    assert "one" not in sys.modules
    with pytest.raises(ValueError, match="hold some of the text to judge by"):
        texts.code([judges[:1000]], packages)


@pytest.mark.parametrize("name", ["no_such_package", "this"])
def test_a_package_that_cannot_be_read_is_named(name):
    with pytest.raises(
        ModuleNotFoundError, match=f"^{name} is no installed package to learn from: pip install"
    ):
        texts.code(packages=[name])


def test_what_comes_with_attncore_is_much_more_than_the_model_can_learn_by_heart():
    """The page and the recipe tell how often each token is read."""
    characters = sum(len(text) for package in texts.PACKAGES for text in texts.sources(package))
    recipe = RECIPES["gpu"]
    read = recipe.steps * recipe.batch * recipe.sizes["context"]

    assert 6 < read / (characters / 3.2) < 14  # 3.2 characters a token


def test_tests_of_the_standard_library_and_other_packages_are_no_part_of_it(tmp_path, monkeypatch):
    for file in ("os.py", "test/a.py", "json/tool.py", "site-packages/torch/b.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    monkeypatch.setattr(texts.sysconfig, "get_path", lambda name: str(tmp_path))

    assert list(texts.sources("stdlib")) == ["json/tool.py", "os.py"]


# Stopping and going on.

TINY = f"""
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from attncore.training import checkpoints, curve, loop, ranks
from attncore.training.recipes import RECIPES
from attncore.training.texts import Texts

TEXTS = Texts(["def f(x):\\n    return 2 * x\\n" * 50] * 3, "def g(x): return x\\n" * 60,
              "def h(y): return -y\\n" * 60, "def ")
RECIPE = replace(RECIPES["gpu"], steps=24, pieces=264, score_every=4, draw_every=6, rate=2e-2,
                 sizes={ROOMY["sizes"]}, batch=4, warm_up=3)

def train(checkpoint=None, device=torch.device("cpu")):
    drawn = curve.Curve(RECIPE.draw_every, TEXTS)
    model = loop.train(RECIPE, TEXTS, device, curve=drawn, checkpoint=checkpoint, save_every=5,
                       compiled=False)
    return {{"parameters": dict(model.state_dict()), "curve": drawn.found}}

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""
WHOLE_THEN_KILLED = """
torch.save(train(), "whole.pt")
plain, calls = loop.loss, []
def loss(*inputs):
    calls.append(inputs)
    if len(calls) == 17:
        end()
    return plain(*inputs)
loop.loss = loss
train(Path("run.pt"))
"""
KILLED_WHILE_IT_SAVES = """
plain = torch.save
def save(state, file):
    if state["progress"]["step"] == 20:
        file.write(b"half")
        file.flush()
        end()
    plain(state, file)
torch.save = save
train(Path("run.pt"))
"""
TO_THE_END = 'torch.save(train(Path("run.pt")), "resumed.pt")'


def start(code, folder, *launcher):
    """Run a script of its own, and return how it ended."""
    script = folder / "script.py"
    script.write_text(TINY + code)
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *launcher, str(script)],
        cwd=folder, capture_output=True, text=True, timeout=500,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ATTNCORE_DEVICE": "cpu"},
    )  # fmt: skip


def test_a_run_that_was_killed_twice_comes_to_the_same_bits(tmp_path):
    """Between two steps, then while it writes the file that it would go on from."""
    steps = []
    for code in (WHOLE_THEN_KILLED, KILLED_WHILE_IT_SAVES):
        done = start(code, tmp_path)
        assert done.returncode == -signal.SIGKILL, done.stderr
        steps.append(torch.load(tmp_path / "run.pt")["progress"]["step"])
    assert steps == [15, 15]
    assert (tmp_path / "run.pt.part").read_bytes() == b"half"
    done = start(TO_THE_END, tmp_path)
    assert done.returncode == 0, done.stderr
    whole, resumed = (torch.load(tmp_path / name) for name in ("whole.pt", "resumed.pt"))

    assert whole["curve"] == resumed["curve"]
    assert whole["curve"]["step"] == [0, 6, 12, 18, 24]
    for name, parameter in whole["parameters"].items():
        assert torch.equal(parameter, resumed["parameters"][name]), name
    assert torch.load(tmp_path / "run.pt")["progress"]["step"] == 24
    assert not (tmp_path / "run.pt.part").exists()


@pytest.fixture
def tiny():
    names = {}
    exec(TINY, names)  # noqa: S102 - what the other processes run
    return names


def test_a_checkpoint_of_another_run_is_refused(tiny, tmp_path):
    path = tmp_path / "run.pt"
    tiny["RECIPE"] = replace(tiny["RECIPE"], steps=1)
    tiny["train"](path)
    before = path.read_bytes()
    tiny["RECIPE"] = replace(tiny["RECIPE"], steps=2)
    with pytest.raises(ValueError, match=r"of another run: its recipe was .*'steps': 1.*repeat th"):
        tiny["train"](path)
    tiny["RECIPE"] = replace(tiny["RECIPE"], steps=1)
    tiny["TEXTS"].learn.append("more\n")
    with pytest.raises(ValueError, match=r"of another run: its tokens was .* give this run anothe"):
        tiny["train"](path)

    assert path.read_bytes() == before


def test_a_file_of_something_else_is_named_and_left(tiny, tmp_path):
    for number, content in enumerate((b"", b"no checkpoint", {"a": 1}, [1, 2], torch.zeros(3))):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        before = path.read_bytes()
        with pytest.raises(ValueError, match=rf"{number}\.pt holds no checkpoint of a training"):
            tiny["train"](path)
        assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_named_before_the_training(capsys):
    for option in ("--out", "--checkpoint", "--curve"):
        with pytest.raises(SystemExit):
            program.main([option, "/no/such/file"])
        assert "there is no folder /no/such to write file to" in capsys.readouterr().err


# Several processes.

TWO = """
torch.set_default_dtype(torch.float64)
device = ranks.join(cpu=False)
rank, count = ranks.place()
assert count == 2
plain, losses = loop.loss, []
def loss(model, windows):
    value = plain(model, windows)
    if torch.is_grad_enabled():
        losses.append(value.item())
    return value
loop.loss = loss
whole = train(device=device)
resumed = train(Path("run.pt"), device)
torch.save({"whole": whole, "resumed": resumed, "losses": losses}, f"rank{rank}.pt")
ranks.leave()
"""


def test_two_processes_come_to_the_same_as_one(tiny, tmp_path, monkeypatch):
    """The same losses and parameters to rounding, from the start and from one's checkpoint."""
    losses, plain = [], loop.loss

    def loss(model, windows):
        value = plain(model, windows)
        losses.append(value.item())
        return value

    def save(path, run, parts):
        keep(path, run, parts)
        if parts["progress"].step == 10:
            shutil.copy(path, tmp_path / "run.pt")

    keep = checkpoints.save
    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(loop, "loss", loss)
    torch.set_default_dtype(torch.float64)
    try:
        one = tiny["train"](tmp_path / "one.pt")
    finally:
        torch.set_default_dtype(torch.float32)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = start(TWO, tmp_path, *launcher)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))

    shares = np.array([first["losses"], second["losses"]])
    assert np.abs(shares[0] - shares[1]).min() > 1e-6  # each has its own windows
    assert shares.shape == (2, 24 + 14)
    assert np.allclose(shares.mean(axis=0), losses + losses[10:], rtol=0, atol=1e-10)
    for two in (first["whole"], second["whole"], first["resumed"], second["resumed"]):
        for name, parameter in one["parameters"].items():
            assert torch.allclose(two["parameters"][name], parameter, rtol=0, atol=1e-9), name
        assert two["curve"]["samples"] == one["curve"]["samples"]
    assert done.stderr.count("bits per character of the text to choose by") == 0
    assert done.stdout.count("bits per character of the text to choose by") == 6 + 4


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(ranks, "place", lambda: (0, 3))
    recipe = replace(RECIPES["gpu"], batch=8)
    with pytest.raises(ValueError, match=r"batch must be a multiple of 3, as .*, got 8"):
        loop.train(recipe, small_code(), CPU)


def test_each_process_takes_the_card_of_its_number(monkeypatch):
    asked = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(ranks, "pick_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(ranks.dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(ranks.dist, "init_process_group", asked.append)
    monkeypatch.setattr(ranks.torch.cuda, "set_device", asked.append)

    assert ranks.join(cpu=False) == torch.device("cuda:3")
    assert asked == [torch.device("cuda:3"), "nccl"]
    assert ranks.join(cpu=True) == CPU
    assert asked[2:] == ["gloo"]


# The package.


@pytest.mark.parametrize(("missing", "module"), [("tqdm", loop), ("tokenizers", model)])
def test_what_to_install_is_said(missing, module, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ModuleNotFoundError,
        match=rf"^attncore.training needs {missing}, which is not installed: pip install",
    ):
        runpy.run_path(module.__file__)


def test_it_is_no_part_of_the_browsers_package():
    import slim_wheels

    _, wheel = slim_wheels.own_wheel(SOURCE.parent)
    names = slim_wheels.unpack(wheel)

    assert "attncore/nn/lm.py" in names
    assert not [name for name in names if "training/" in name]
