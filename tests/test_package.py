"""The package as a whole: light to import, documented throughout, devices, pictures."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

import attncore as ac
from attncore import draw, models, nn, parallel, plot
from attncore.draw.colors import COLORS
from attncore.exercises import check

ROOT = Path(__file__).resolve().parent.parent
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def run(code, blocked=()):
    command = [sys.executable, "-c", BLOCK.format(blocked=set(blocked)) + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_importing_loads_neither_torch_nor_matplotlib():
    done = run("import attncore, attncore.exercises, attncore.plot; print(*sys.modules)")

    assert done.returncode == 0, done.stderr
    assert not {"torch", "matplotlib", "attncore.parallel"} & set(done.stdout.split())


def test_the_oldest_versions_tested_are_the_oldest_allowed():
    allowed = re.findall(r'"(torch|numpy)>=([\d.]+)', (ROOT / "pyproject.toml").read_text("utf-8"))
    tested = re.findall(r'"(torch|numpy)==([\d.]+)\.\*"', (ROOT / "Makefile").read_text("utf-8"))

    assert dict(tested) == dict(allowed) == {"torch": "2.6", "numpy": "2.0"}


def test_numpy_works_where_torch_cannot_be_had():
    done = run(
        "import numpy as np, attncore as ac\n"
        "print(ac.attention(np.eye(2), np.eye(2), np.eye(2), causal=True).sum())\n"
        "ac.pick_device()",
        blocked=["torch"],
    )

    assert done.stdout.startswith("2.0")
    assert "pick_device needs torch, which is not installed: pip install torch" in done.stderr


def test_plots_say_what_to_install():
    done = run("from attncore import plot; plot.heatmap([[1.0]])", blocked=["matplotlib"])

    assert (
        "attncore.plot needs matplotlib, which is not installed: pip install matplotlib"
        in done.stderr
    )


def test_several_processes_say_what_to_install():
    done = run("import attncore.parallel", blocked=["cloudpickle"])

    assert (
        "attncore.parallel needs cloudpickle, which is not installed: pip install cloudpickle"
        in done.stderr
    )


PUBLIC = [
    function
    for module in (
        ac,
        ac.cost,
        ac.images,
        ac.kernels,
        ac.masks,
        ac.positions,
        ac.sampling,
        ac.scores,
        ac.data,
        draw,
        parallel,
        plot,
    )
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__.startswith("attncore")
    if function.__module__ not in ("attncore.base.arrays", "attncore.base.reading")
    if not name.startswith(("_", "check_"))
] + [check]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_documentation_is_complete(function):
    text = inspect.getdoc(function)
    short = "as :func:`dot`" in text or "`u`: distances" in text

    assert text.splitlines()[0].endswith((".", "?"))
    for section in ("References", "Examples"):
        assert f"\n{section}\n---" in text
    if not short:
        assert re.search(r"\n(Raises|Returns)\n---", text)
        for name in inspect.signature(function).parameters:
            assert re.search(rf"(^|, |\*){name}\b", text, flags=re.M), f"{name} is not explained"
    assert ">>>" in text


def test_every_public_name_is_on_the_page_of_the_package():
    page = (ROOT / "book/api.md").read_text("utf-8")
    rooms = (ac, ac.cost, ac.images, ac.kernels, ac.masks, ac.positions, ac.sampling, ac.scores)
    names = {
        name
        for room in (*rooms, models, nn, parallel)
        for name in getattr(room, "__all__", ())
        if callable(getattr(room, name))
    }

    assert len(names) > 60
    assert {name for name in names if not re.search(rf"\b{name}\b", page)} == set()


def test_all_is_sorted_and_complete():
    names = {n for n in vars(ac) if not n.startswith("_")}
    # Loaded by tests, not by ac.
    rooms = {"base", "cache", "core", "exercises", "long", "models", "nn", "regression"}
    rooms |= {"draw", "knobs", "parallel", "plot", "training"}

    assert ac.__all__ == sorted(ac.__all__)
    assert names - rooms == set(ac.__all__)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_the_fastest_device_is_picked(monkeypatch, cuda, mps, expected):
    monkeypatch.delenv("ATTNCORE_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    assert ac.pick_device().type == expected


def test_argument_and_variable_overrule(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("ATTNCORE_DEVICE", "cuda:1")

    assert ac.pick_device() == torch.device("cuda:1")
    assert ac.pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("ATTNCORE_DEVICE", "cuda:2")
    with pytest.raises(ValueError, match=r"ATTNCORE_DEVICE=cuda:2 is not at hand: torch sees 2"):
        ac.pick_device()
    monkeypatch.setenv("ATTNCORE_DEVICE", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ac.pick_device().type == "cuda"


@pytest.fixture
def figures():
    yield
    plt.close("all")


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.usefixtures("figures")
def test_numbers_in_a_heatmap_can_be_read():
    weights = np.linspace(0, 1, 11)[None]
    ax = plot.heatmap(torch.from_numpy(weights))
    image, map_ = ax.images[0], plt.get_cmap(plot.MAP)

    assert [t.get_text() for t in ax.texts] == [f"{w:.2f}" for w in weights[0]]
    for text, weight in zip(ax.texts, weights[0], strict=True):
        ink = 1.0 if text.get_color() == "white" else 0.0
        dark, light = sorted([ink, luminance(map_(image.norm(weight)))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.usefixtures("figures")
def test_a_heatmap_goes_from_white_to_the_purple_of_weights():
    image = plot.heatmap(np.eye(2)).images[0]
    shown = [to_hex(image.cmap(image.norm(weight))) for weight in (0, 1)]

    assert shown == ["#ffffff", COLORS["weights"].light]


def test_the_style_sets_the_colours_of_lines_and_images():
    with plt.rc_context():
        plot.style()
        lines = [line["color"] for line in plt.rcParams["axes.prop_cycle"]]

        assert tuple(lines) == plot.LINE_COLORS
        assert plt.rcParams["image.cmap"] == plot.MAP


@pytest.mark.usefixtures("figures")
def test_a_heatmap_has_labels_and_words():
    weights = torch.tensor([[0.9, 0.1], [0.0, 0.0]])
    ax = plot.heatmap(weights, ["it", "all"], ["cat", "mat"])

    assert [t.get_text() for t in ax.get_xticklabels()] == ["cat", "mat"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key", "query")
    assert plot.alt_text(ax) == (
        "Heat map of attention weights, 2 queries by 2 keys. "
        "it attends most to cat (0.90), all to nothing."
    )


@pytest.mark.usefixtures("figures")
def test_a_large_heatmap_prints_no_numbers_and_has_a_scale():
    ax = plot.heatmap(np.full((20, 30), 1 / 30), digits=None)

    assert not ax.texts
    assert len(ax.get_xticks()) < 30
    assert len(ax.figure.axes) == 2
    assert plot.alt_text(ax.figure) == "Heat map of attention weights, 20 queries by 30 keys."


@pytest.mark.usefixtures("figures")
def test_a_strip_shows_scores_weights_and_output():
    figure = plot.strip([2.0, -1.0], [0.75, 0.25], [[4.0, 0.0], [0.0, 8.0]], ["a", "b"])
    heights = [[bar.get_height() for bar in ax.patches] for ax in figure.axes]

    assert heights == [[2, -1], [0.75, 0.25], [3, 2]]
    colors = [to_hex(ax.patches[0].get_facecolor()) for ax in figure.axes]
    assert colors == [COLORS[role].light for role in ("weights", "weights", "ink")]
    assert "Output: 3, 2." in plot.alt_text(figure)


@pytest.mark.usefixtures("figures")
@pytest.mark.parametrize(
    ("draw", "axes", "warnings"),
    [  # of the queries and of the keys; of the keys, drawn twice
        (lambda labels: plot.heatmap(np.eye(2), labels, labels).figure, [0], 2),
        (lambda labels: plot.strip([1.0, 0.0], [0.7, 0.3], [1.0, 2.0], labels), [0, 1], 1),
    ],
)
def test_what_the_font_lacks_is_no_box_in_a_figure(draw, axes, warnings):
    with pytest.warns(UserWarning, match=r"no 猫 日, which is drawn as \?: add a font") as told:
        figure = draw(["猫 cat", "日日\n1"])
    figure.canvas.draw()  # if matplotlib misses a glyph it warns, and the test fails

    assert [warning.filename for warning in told] == [__file__] * warnings
    for ax in axes:
        shown = [label.get_text() for label in figure.axes[ax].get_xticklabels()]
        assert shown == ["? cat", "??\n1"]
    assert "猫 cat" in plot.alt_text(figure)


@pytest.mark.usefixtures("figures")
def test_a_second_font_draws_what_the_first_lacks(monkeypatch):
    # matplotlib ships both fonts: the second has only digits and signs of formulas
    letter = "\ue000"
    with pytest.warns(UserWarning, match=f"no {letter}, which is drawn"):
        plot.heatmap([[1.0]], [letter])
    monkeypatch.setitem(plt.rcParams, "font.family", ["DejaVu Sans", "STIXNonUnicode"])
    ax = plot.heatmap([[1.0]], [letter])
    ax.figure.canvas.draw()

    assert [label.get_text() for label in ax.get_yticklabels()] == [letter]


@pytest.mark.usefixtures("figures")
def test_two_heatmaps_on_one_figure_are_both_described():
    figure, axes = plt.subplots(1, 2)
    for ax in axes:
        plot.heatmap(np.eye(2), ax=ax)

    assert plot.alt_text(figure).count("Heat map") == 2
