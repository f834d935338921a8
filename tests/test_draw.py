"""Pictures: right numbers, readable text, one style sheet, and colours that can be told apart."""

import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree  # our own text

import numpy as np
import pytest

import attncore as ac
from attncore import draw, plot
from attncore.draw.colors import COLORS, ROLES
from attncore.draw.sheet import page_sheet, sheet

X = np.array([[0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 0]])
W_Q = np.array([[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, -1]])
W_K = np.array([[2, 0, -2, 2], [0, 0, 0, 0], [0, 0, 0, 2], [0, 2, 2, 0]])
W_V = np.arange(8).reshape(4, 2)
TOKENS = ["猫 cat", "坐在 sat on", "垫子 mat"]
PICTURES = {
    "attention": lambda: draw.attention(X @ W_Q, X @ W_K, X @ W_V),
    "machine": lambda: draw.machine(X, W_Q, W_K, W_V, tokens=TOKENS, causal=True, step=1),
    "machine of two": lambda: draw.machine(X[:2], W_Q, W_K, W_V, context=X, mask=X[:2, :3] > 0),
}
EACH = pytest.mark.parametrize("name", PICTURES)
SVG = "{http://www.w3.org/2000/svg}"


def tree(picture):
    return ElementTree.fromstring(picture.svg())  # noqa: S314


def texts(picture, kind="ac-wide"):
    """Return what the elements of a class say, in the order of drawing."""
    groups = [g for g in tree(picture).iter() if kind in g.get("class", "").split()]
    return ["".join(text.itertext()) for group in groups for text in group.iter(f"{SVG}text")]


@EACH
def test_a_picture_is_whole_by_itself(name):
    picture = PICTURES[name]()
    root = tree(picture)
    inner = root.find(f"{SVG}title").text, root.find(f"{SVG}desc").text

    assert root.get("role") == "img"
    assert inner == (picture.title, picture.words)
    assert repr(picture) == f"{picture.title}. {picture.words}"
    assert len(picture.words.split()) >= 8
    assert picture.words.endswith(".")
    assert picture._repr_svg_() == picture.svg() == PICTURES[name]().svg()
    assert len(picture.svg()) < 120_000
    float(root.get("width"))
    assert "nan" not in picture.svg()


@EACH
def test_nothing_in_a_picture_can_clash_with_a_page(name):
    for element in tree(PICTURES[name]()).iter():
        assert element.get("id") is None
        assert all(word.startswith("ac-") for word in element.get("class", "ac-").split())
        assert "href" not in "".join(element.attrib)
    for selector in re.findall(r"([^{}]+)\{", re.sub(r"@media[^{]*\{", "", sheet())):
        assert all(".ac-" in part for part in selector.split(",")), selector


@EACH
def test_the_same_text_on_any_machine(name):
    picture = PICTURES[name]().svg()

    assert not re.search(r"\d\.\d{3}", re.sub(r"<(title|desc|style)>.*?</\1>", "", picture))
    assert not re.search(r'[">]-0[" <]', picture)


@EACH
def test_all_that_is_drawn_is_inside(name):
    """Every place is inside the picture's room, of both layouts."""
    picture = PICTURES[name]()
    for scene in (picture.wide, picture.tall or picture.wide):
        body = "".join(scene.parts)
        for x, y in re.findall(r' x="(-?[\d.]+)" y="(-?[\d.]+)"', body):
            assert scene.low[0] <= float(x) <= scene.high[0]
            assert scene.low[1] <= float(y) <= scene.high[1] + 5


def test_hash_seeds_change_nothing():
    code = "import test_draw as t\nfor make in t.PICTURES.values(): print(make().svg())"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for seed, path in (("1", ":".join(sys.path)), ("2", ":".join(sys.path)))
    ]

    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"<svg ") >= len(PICTURES)


def test_the_machine_shows_the_numbers_of_attention():
    q, k, v = X @ W_Q, X @ W_K, X @ W_V
    shown = texts(draw.machine(X, W_Q, W_K, W_V), "ac-cell")
    weights, output = ac.attention_weights(q, k), ac.attention(q, k, v)

    for array in (X, q, k, v, q @ k.T, q @ k.T / 2):
        rows = [f"{x:g}" for x in np.asarray(array).flat]
        at = range(len(shown) - len(rows) + 1)
        assert any(shown[i : i + len(rows)] == rows for i in at), array
    for array in (weights, output):
        assert {f"{x:.2f}" for x in array.flat} <= set(shown)


def test_what_is_masked_is_not_scored():
    shown = texts(draw.machine(X, W_Q, W_K, W_V, causal=True))
    weights = ac.attention_weights(X @ W_Q, X @ W_K, causal=True)

    assert shown.count("−∞") == 3
    assert {f"{weights[i, j]:.2f}" for i in range(3) for j in range(i + 1)} <= set(shown)
    assert "mask" in shown


def test_a_step_makes_rows_past_now_and_later():
    rows = re.findall(
        r'class="ac-row([^"]*)" data-i="(\d)"', draw.machine(X, W_Q, W_K, W_V, step=1).svg()
    )

    assert rows
    for states, i in rows:
        assert states.split()[-1] == ("ac-past", "ac-now", "ac-later")[int(i)]
    whole = draw.machine(X, W_Q, W_K, W_V).svg()
    assert not re.search(r'class="[^"]*ac-(past|now|later)', whole)


def test_a_torch_tensor_is_drawn_as_an_array_is():
    torch = pytest.importorskip("torch")
    q, k, v = X @ W_Q / 3, X @ W_K / 3, X @ W_V / 3

    assert draw.attention(*map(torch.from_numpy, (q, k, v))).svg() == draw.attention(q, k, v).svg()


def test_names_cannot_break_the_picture():
    drawn = draw.attention(X @ W_Q, X @ W_K, X, queries=["<b>", "a&b", '"'])

    assert {"<b>", "a&b", '"'} <= set(texts(drawn))


def linear(color):
    """Return the linear red, green and blue of a colour like #10479a."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    """Return the contrast ratio of WCAG 2."""
    lights = sorted(0.05 + linear(color) @ [0.2126, 0.7152, 0.0722] for color in (one, two))
    return lights[1] / lights[0]


def lab(rgb):
    """Return CIE L*a*b* of linear red, green and blue, under D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.clip(np.array(to_xyz) @ rgb / [0.95047, 1, 1.08883], 0, None)
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes (2009), severity 1.
EYES = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(("theme", "least"), [("light", 20), ("dark", 30)])
def test_roles_can_be_told_apart(eye, theme, least):
    roles = [getattr(COLORS[name], theme) for name in ("query", "key", "value", "weights", "ink")]
    seen = [lab(np.array(EYES[eye]) @ linear(color)) for color in roles]

    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= least


@pytest.mark.parametrize("name", COLORS)
def test_colours_are_readable_as_text(name):
    assert contrast(COLORS[name].light, "#ffffff") >= 4.5
    assert contrast(COLORS[name].dark, "#14181e") >= 4.5
    assert f"--ac-{name}:{COLORS[name].dark}" in page_sheet()


# The dark page's background, and what book.css does to a plot there.
DARK = "#14181e"
INVERTED = "filter: invert(1) hue-rotate(180deg);\n    mix-blend-mode: screen;"


def parts(color):
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def inverted(color):
    """Return how a colour of a plot looks in dark mode: lightness inverted, hue kept."""
    # Turning hues half round (Filter Effects Module, feColorMatrix hueRotate, cos = -1, sin = 0).
    gray = np.array([0.213, 0.715, 0.072])
    turned = np.clip(2 * gray @ (1 - parts(color)) - (1 - parts(color)), 0, 1)
    screened = 1 - (1 - turned) * (1 - parts(DARK))
    return "#" + "".join(f"{round(255 * x):02x}" for x in screened)


def test_lines_of_plots_have_the_colours_of_the_pictures():
    names = ("query", "key", "value", "weights", "ink")

    assert plot.LINE_COLORS[:5] == tuple(COLORS[name].light for name in names)
    assert len(plot.LINE_STYLES) == len(set(plot.LINE_COLORS)) == 6


@pytest.mark.parametrize("color", plot.LINE_COLORS)
def test_lines_of_plots_stand_out_on_white_and_in_dark_mode(color):
    style = Path(__file__).parent.parent / "book/_static/book.css"

    assert INVERTED in style.read_text("utf-8")
    assert contrast(color, "#ffffff") >= 3
    assert contrast(inverted(color), DARK) >= 3


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(("shown", "least"), [(str, 24), (inverted, 16)])
def test_lines_of_plots_can_be_told_apart(eye, shown, least):
    seen = [lab(np.array(EYES[eye]) @ linear(shown(color))) for color in plot.LINE_COLORS]

    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= least


@pytest.mark.parametrize("role", ROLES)
def test_a_plot_keeps_the_hue_of_each_role_in_dark_mode(role):
    """Within 25 degrees of the colour that pictures have there; roles are 80 or more apart."""
    hues = [
        np.degrees(np.arctan2(b, a))
        for _, a, b in (lab(linear(c)) for c in (inverted(COLORS[role].light), COLORS[role].dark))
    ]

    assert abs((hues[0] - hues[1] + 180) % 360 - 180) <= 25
