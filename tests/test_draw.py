"""Pictures: right numbers, readable text, one style sheet, and colours that can be told apart."""

import math
import re
import subprocess
import sys
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree  # our own text

import numpy as np
import pytest

import attncore as ac
from attncore import draw, plot
from attncore.draw.colors import COLORS, ROLES
from attncore.draw.picture import TALL, WIDE
from attncore.draw.sheet import page_sheet, sheet
from attncore.draw.text import NAME, PLAIN, SMALL, width_of, width_of_name

X = np.array([[0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 0]])
W_Q = np.array([[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, -1]])
W_K = np.array([[2, 0, -2, 2], [0, 0, 0, 0], [0, 0, 0, 2], [0, 2, 2, 0]])
W_V = np.arange(8).reshape(4, 2)
PLACES = [(4, 2), (5, 3), (9, 7), (3, 9)]
TABLES = [[0, 1, 4], [0, 1, 2], [5]]
ROWS = [[0, 0, 0, 2, 2], [1, -1, -1, 3, -1]]
W_O = np.array([[1, 0, 2, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 3]])
FOUR = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # as wide as Q and K
LONGER = np.vstack([X, [[0, 1, 1, 0]]])
TOKENS = ["猫 cat", "坐在 sat on", "垫子 mat"]
ALL = [*TOKENS, "上 on"]
GUESTS, LOAVES = [51, 56, 58], [40, 43, 48]
Q, K = X @ W_Q, X @ W_K
NAMED = {"names": ["Q", "Kᵀ", "QKᵀ"], "roles": ["query", "key", "weights"]}
MEMORY = {
    "training": {"parameters": 16, "gradients": 16, "optimizer": 96},
    "serving": {"parameters": 16, "cache": 2, "gradients": 0},
}
IMAGE = np.array([[0, 2, 4, 0], [0, 0, 4, 0], [0, 0, 4, 0], [0, 4, 4, 4]]) / 4
VIT = {"layers": 2, "d_model": 32, "heads": 4, "classes": 10}
WHALE = {"layers": 4, "d_model": 96, "heads": 4, "d_ff": 384, "vocabulary": 81}
PICTURES = {
    "attention": lambda: draw.attention(X @ W_Q, X @ W_K, X @ W_V),
    "attention, named": lambda: draw.attention(
        LONGER @ W_Q, LONGER @ W_K, LONGER @ FOUR, queries=ALL, keys=ALL
    ),
    "machine": lambda: draw.machine(X, W_Q, W_K, W_V, tokens=TOKENS, causal=True, step=1),
    "machine of two": lambda: draw.machine(X[:2], W_Q, W_K, W_V, context=X, mask=X[:2, :3] > 0),
    "tiles": lambda: draw.tiles(4, step=6),
    "causal tiles": lambda: draw.tiles(6, causal=True),
    "rotations": lambda: draw.rotations([2, 1], [1.5, -0.3], PLACES, speed=0.6),
    "positions": lambda: draw.positions(),
    "positions, one of them": lambda: draw.positions(step=2),
    "ring": lambda: draw.ring(4, causal=True, step=1),
    "zigzag": lambda: draw.ring(6, causal=True, zigzag=True),
    "patches": lambda: draw.patches(np.arange(64).reshape(8, 8) / 63, 2, step=5),
    "patches in colour": lambda: draw.patches(np.arange(96).reshape(4, 8, 3) / 95, 4),
    "vision": lambda: draw.vision(IMAGE, 2, **VIT),
    "vision at a step": lambda: draw.vision(IMAGE, 2, **VIT, step=3),
    "vision of one patch": lambda: draw.vision(IMAGE, 4, **{**VIT, "layers": 4}),
    "pages": lambda: draw.pages(TABLES, [11, 10, 3], blocks=8, names=["a", "b", "c"], step=0),
    "timetable": lambda: draw.timetable(ROWS, names=["static"]),
    "timetable of one step": lambda: draw.timetable([[0]]),
    "timetables": lambda: draw.timetable(
        np.arange(600)[None] // 9, np.arange(64).reshape(16, 4) // 3 - 1, names=["a long one", "b"]
    ),
    "matrix": lambda: draw.matrix(X @ W_Q, name="Q", rows=TOKENS, columns=list("abcd")),
    "equation": lambda: draw.equation(("X", X), ("W_Q", W_Q), "=", ("Q", X @ W_Q), rows=TOKENS),
    "machine of two, named": lambda: draw.machine(
        X[:2], W_Q, W_K, W_V, context=LONGER, tokens=["the", "cat"], context_tokens=ALL
    ),
    "machine of more queries than keys": lambda: draw.machine(
        np.vstack([LONGER, LONGER]), W_Q, W_K, W_V, context=X[:1]
    ),
    "machine of one token": lambda: draw.machine(X[:1, :1], W_Q[:1], W_K[:1], W_V[:1]),
    "regression": lambda: draw.regression(57, GUESTS, LOAVES, bandwidth=1),
    "regression of near keys": lambda: draw.regression(
        1.5, [7, 1, 2, 2], [-1, 3, 2.5, 2], bandwidth=0.5, kernel="triangular"
    ),
    "regression of nothing": lambda: draw.regression(
        53.5, GUESTS, LOAVES, bandwidth=1, kernel="boxcar"
    ),
    "mask": lambda: draw.mask(ac.masks.causal(2, 5)),
    "masks": lambda: draw.mask(
        *(ac.masks.causal(4, window=window) for window in (None, 2)),
        names=["causal", "window of 2"],
        queries=ALL,
        keys=ALL,
    ),
    "product": lambda: draw.product(Q, K.T, **NAMED, rows=TOKENS, columns=TOKENS, step=1),
    "product of decimals": lambda: draw.product(X / 3, -X.T / 7),
    "heads": lambda: draw.heads(X, W_Q, W_K, FOUR, W_O, heads=2, tokens=TOKENS),
    "four heads": lambda: draw.heads(
        LONGER, W_Q, W_K, FOUR, W_O, heads=4, tokens=ALL, causal=True, step=2
    ),
    "one head": lambda: draw.heads(LONGER, W_Q, W_K, FOUR, W_O, heads=1, tokens=ALL),
    "embedding": lambda: draw.embedding(LONGER, [0, 1, 2, 0], vocabulary=ALL, step=1),
    "embedding of one": lambda: draw.embedding(X[:1] / 2, [0]),
    "translation": lambda: draw.translation(TOKENS, ["the cat", "sat on"]),
    "translation of one": lambda: draw.translation(["猫"], ["cat"], [[1.0]]),
    "translation of many": lambda: draw.translation(
        [*ALL, "a", "b"], list("abc"), np.full((3, 6), 1 / 6), step=2
    ),
    "translation with attention": lambda: draw.translation(
        TOKENS, ["the cat", "sat on"], ac.attention_weights(Q, K)[:2]
    ),
    "head_sharing": lambda: draw.head_sharing(8, kv_heads=[8, 2, 1]),
    "head_sharing, latent": lambda: draw.head_sharing(4, kv_heads=[2], head_dim=128, latent=576),
    "block": lambda: draw.block(3, 96, heads=4, d_ff=384),
    "block, post": lambda: draw.block(3, 96, heads=4, d_ff=384, norm="post"),
    "block of a decoder": lambda: draw.block(3, 96, heads=4, d_ff=384, context=5),
    "decoder": lambda: draw.decoder(list("Call"), **WHALE, guesses=list("oll "), step=3),
    "decoder of one token": lambda: draw.decoder(["a"], **{**WHALE, "layers": 1}),
    "decoder of six tokens": lambda: draw.decoder(list("Call m"), **WHALE),
    "activations": lambda: draw.activations(step=4),
    "activations, fused": lambda: draw.activations(dropout=False, fused=True),
    "memory": lambda: draw.memory(MEMORY, room=24),
    "memory of one": lambda: draw.memory({"all": {"weights": 0.5, "a long name": 0}}, unit="B"),
    "kv_cache": lambda: draw.kv_cache(LONGER, W_Q, W_K, FOUR, tokens=ALL, step=2),
    "kv_cache, narrow": lambda: draw.kv_cache(X, W_Q[:, :1], W_K[:, :1], W_V[:, :1]),
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
def test_whatever_is_pointed_at_stays_lit(name):
    """The style sheet has a rule for each row and column that a cell says it belongs to."""
    for axis, n in set(re.findall(r"ac-([ij])(\d+)", "".join(PICTURES[name]().wide.parts))):
        assert f":has(.ac-{axis}{n}:hover) .ac-{axis}{n}" in sheet()


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


def layouts(picture):
    """Yield the scenes of a picture as trees, and how much room there is for each in full size."""
    for scene, room in ((picture.wide, WIDE), (picture.tall, TALL)):
        if scene is not None:
            body = f'<svg xmlns="{SVG[1:-1]}">{"".join(scene.parts)}</svg>'
            yield scene, ElementTree.fromstring(body), room  # noqa: S314


def places(scene):
    """Return (text, the step it is there at, left, right, height) of all that is written."""
    found = []
    when = {
        text: group.get("data-only")
        for group in scene.iter(f"{SVG}g")
        if group.get("data-only")
        for text in group.iter(f"{SVG}text")
    }
    for element in scene.iter(f"{SVG}text"):
        kinds, text = element.get("class", "").split(), "".join(element.itertext())
        size = SMALL if "ac-small" in kinds else NAME if "ac-name" in kinds else PLAIN
        wide = width_of(text, size) * 0.9  # an estimate, on the safe side
        x, y = float(element.get("x")), float(element.get("y"))
        left = x if "ac-start" in kinds else x - wide if "ac-end" in kinds else x - wide / 2
        found.append((text, element.get("data-only", when.get(element)), left, left + wide, y))
    return found


@EACH
def test_no_text_lies_on_another(name):
    for _, scene, _ in layouts(PICTURES[name]()):
        for one, other in combinations(places(scene), 2):
            beside = one[3] <= other[2] or other[3] <= one[2] or abs(one[4] - other[4]) >= 9
            never_together = None not in (one[1], other[1]) and one[1] != other[1]
            assert beside or never_together, (one, other)


@EACH
def test_text_can_be_read_on_a_page_and_on_a_phone(name):
    for scene, _, room in layouts(PICTURES[name]()):
        width = scene.high[0] - scene.low[0]
        assert SMALL * min(1, (room + 12) / (width + 12)) >= 11, width


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


def test_positions_enter_once_or_in_every_layer():
    for step, marked in enumerate((["X + P"], 2 * ["S + b"], 2 * ["Q turned", "K turned"])):
        root = tree(draw.positions(step=step))
        groups = [g for g in root.iter(f"{SVG}g") if g.get("data-only") == str(step)]
        shown = ["".join(text.itertext()) for g in groups for text in g.iter(f"{SVG}text")]
        assert [text for text in shown if len(text) > 1] == 2 * marked  # both layouts
        assert all("ac-off" not in g.get("class", "") for g in groups)
    assert list(draw.positions().steps) == ["added rows", "a bias", "turning"]
    with pytest.raises(ValueError, match=r"step must be 0, 1 or 2, one of added rows, .*got 3"):
        draw.positions(step=3)
    with pytest.raises(TypeError, match="step must be an integer"):
        draw.positions(step="1")


def test_an_embedding_shows_the_row_of_each_token():
    drawn = draw.embedding(LONGER, [2, 0, 2], vocabulary=ALL)
    shown = texts(drawn, "ac-row")

    assert shown == 2 * [str(n) for n in LONGER[[2, 0, 2]].flat]  # both layouts
    assert drawn.steps == [ALL[2], ALL[0], ALL[2]]
    for wrong, told in (([4], r"numbers\[0\] must be a row of .*0 to 3, got 4"), ([], "1 to 8")):
        with pytest.raises(ValueError, match=told):
            draw.embedding(LONGER, wrong)
    with pytest.raises(TypeError, match="numbers must be a list"):
        draw.embedding(LONGER, "012")


def test_a_translation_shows_one_vector_or_the_weights_of_a_step():
    weights = ac.attention_weights(Q, K)[:2]
    with_one = draw.translation(TOKENS, ["the cat", "sat on"])
    drawn = draw.translation(TOKENS, ["the cat", "sat on"], weights, step=1)
    said = [t for t in tree(drawn).iter(f"{SVG}text") if t.get("data-only") == "1"]

    assert (list(with_one.steps), drawn.steps) == ([], ["the cat", "sat on"])
    assert "one vector for all" in "".join(with_one.wide.parts)
    assert [t.text for t in said] == 2 * [f"{x:.2f}" for x in weights[1]]
    assert all("ac-off" not in t.get("class") for t in said)
    assert "for sat on it attends most to" in drawn.words
    for wrong, told in ((weights.T, r"\(Tq, Tk\) = \(2, 3\)"), (2 * weights, "apply softmax")):
        with pytest.raises(ValueError, match=told):
            draw.translation(TOKENS, ["the cat", "sat on"], wrong)
    with pytest.raises(ValueError, match="1 to 6 tokens"):
        draw.translation([], ["a"])
    with pytest.raises(TypeError, match="target must be a list"):
        draw.translation(["a"], "cat")


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


def test_the_regression_shows_the_package_s_weights_and_forecast():
    drawn = draw.regression(53, GUESTS, LOAVES, bandwidth=2)
    shown = texts(drawn)
    weights = ac.kernel_weights([53.0], np.array(GUESTS, float), bandwidth=2.0)[0]
    forecast = ac.nadaraya_watson([53.0], np.array(GUESTS, float), LOAVES, bandwidth=2.0)[0]

    assert (
        texts(drawn, "ac-cell")
        == [
            text
            for k, v, w in zip(GUESTS, LOAVES, weights, strict=True)
            for text in (f"{k}", f"{v}", f"{w:.2f}", f"{w * v:.2f}")
        ]
        * 2
    )
    assert shown.count(f"{forecast:.2f}") == 2  # beside its line, and under the products
    bars = [r for r in tree(drawn).iter(f"{SVG}rect") if r.get("width") == "16"][:3]
    heights = np.array([float(bar.get("height")) for bar in bars])
    assert np.allclose(heights / heights.sum(), weights, atol=0.01)


def test_the_kernel_s_curve_meets_the_bars():
    """Where a key stands, the curve is as high as the key's bar."""
    drawn = draw.regression(57, GUESTS, LOAVES, bandwidth=1.5)
    root = tree(drawn)
    curve = next(p for p in root.iter(f"{SVG}path") if p.get("d").count("L") > 60)
    x, y = np.array(re.findall(r"([\d.]+) ([\d.]+)", curve.get("d")), float).T
    for bar in [r for r in root.iter(f"{SVG}rect") if r.get("width") == "16"][1:3]:
        top = float(bar.get("y"))
        assert abs(np.interp(float(bar.get("x")) + 8, x, y) - top) < 1


def test_where_no_key_is_within_reach_nothing_is_forecast():
    drawn = PICTURES["regression of nothing"]()

    assert drawn.words.endswith("There is no forecast.")
    assert {"no key within reach", "none"} <= set(texts(drawn))


@pytest.mark.parametrize("shape", [(4, 4), (2, 5), (12, 12), (1, 3)])
def test_a_mask_s_cells_are_the_mask(shape):
    allowed = np.random.default_rng(0).random(shape) < 0.5
    cells = [
        cell.find(f"{SVG}rect").get("class")
        for group in tree(draw.mask(allowed)).iter()
        if group.get("class") == "ac-wide"
        for cell in group.iter(f"{SVG}g")
        if "ac-cell" in cell.get("class", "").split()
    ]

    assert [kind == "ac-weights" for kind in cells] == allowed.flatten().tolist()
    assert set(cells) <= {"ac-weights", "ac-soft ac-gone"}
    assert f"{allowed.sum()} of {allowed.size} allowed" in texts(draw.mask(allowed))


def test_a_mask_is_told_in_words():
    words = draw.mask(np.array([[True, False, False], [False, False, False]]), keys=list("abc"))

    assert words.words == "2 queries by 3 keys. query 0 may attend to a; query 1 to nothing."
    assert "query 1 to keys 2 to 4." in draw.mask(ac.masks.causal(2, 5, window=3)).words


def test_the_name_of_a_product_stands_clear_of_the_bracket_above_it():
    for scene in (draw.product(Q, K.T, **NAMED).wide, draw.product(Q, K.T, **NAMED).tall):
        body = "".join(scene.parts)
        names = [float(y) for y in re.findall(r'y="([\d.]+)" class="ac-name', body)]
        feet = [
            float(y) + 24 for y in re.findall(r'<rect [^>]*y="([\d.]+)" [^>]*height="24"', body)
        ]
        last = max(y for y in feet if y < names[1] + 9)  # of the numbers over it
        assert names[1] - 13 - last > 5  # its letters, and the corner of the bracket


def test_a_product_shows_its_numbers_and_writes_out_a_row():
    cells = texts(draw.product(Q, K.T), "ac-cell")

    for array in (K.T, Q @ K.T, Q):
        rows = [f"{x:g}" for x in array.flat]
        assert any(cells[i : i + len(rows)] == rows for i in range(len(cells))), array
    found = {}
    for group in tree(draw.product(Q, K.T, step=1)).iter(f"{SVG}g"):
        if group.get("class") == "ac-wide":
            for text in group.iter(f"{SVG}text"):
                if "·" in (text.text or ""):
                    found.setdefault(text.get("data-only"), []).append(text.text)
    for i in range(3):
        for told, total in zip(found[str(i)], Q[i] @ K.T, strict=True):
            terms, end = told.split(" = ")
            pairs = [term.split("·") for term in terms.split(" + ")]
            assert sum(int(a) * int(b) for a, b in pairs) == int(end) == total
    assert found["-1"] == found["0"]  # of the whole, the first row


def test_a_sum_too_long_for_a_phone_is_cut():
    array = np.full((1, 8), -0.25)
    picture = draw.product(array, array.T)

    assert any("… + −0.25·(−0.25) = 0.50" in text for text in texts(picture, "ac-tall"))
    assert not any("…" in text for text in texts(draw.product(array[:, :3], array[:, :3].T)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads_show_the_numbers_of_the_layer(heads, causal):
    from attncore.models import MultiHeadAttention

    layer = MultiHeadAttention(4, heads, bias=False)
    maps = np.concatenate([W_Q, W_K, FOUR], axis=1).astype(float)
    layer.load_state_dict({"in_proj_weight": maps.T, "out_proj.weight": W_O.T.astype(float)})
    shown = texts(draw.heads(X, W_Q, W_K, FOUR, W_O, heads=heads, causal=causal), "ac-cell")
    wanted = [*layer.weights(X.astype(float), causal=causal), layer(X.astype(float), causal=causal)]

    for array in wanted:
        rows = ["0" if x == 0 else f"{x:.2f}" for x in array.flat]
        at = range(len(shown) - len(rows) + 1)
        assert any(
            all(a in (b, b.replace("0.00", "0")) for a, b in zip(rows, shown[i:], strict=False))
            for i in at
        ), rows


def test_shared_heads_read_the_head_of_their_group():
    root = tree(draw.head_sharing(8, kv_heads=[2]))
    wide = next(g for g in root.iter(f"{SVG}g") if g.get("class") == "ac-wide")
    groups = [
        {int(n) for n in re.findall(r"ac-i(\d+)", g.get("class"))}
        for g in wide.iter(f"{SVG}g")
        if "ac-cell" in g.get("class", "")
    ]

    assert groups == [{h} for h in range(8)] + [{0, 1, 2, 3}, {4, 5, 6, 7}]
    ends = [float(p.get("d").split("L")[-1].split()[0]) for p in wide.iter(f"{SVG}path")]
    keys = [
        float(rect.get("x")) + float(rect.get("width")) / 2
        for rect in wide.iter(f"{SVG}rect")
        if rect.get("class") == "ac-key"
    ]
    assert ends == [keys[h * 2 // 8] for h in range(8)]


@pytest.mark.parametrize("kv_heads", [8, 4, 2, 1])
def test_the_share_of_the_cache_is_what_cost_counts(kv_heads):
    def kept(G):
        sizes = ac.cost.Sizes(d_model=64, layers=1, heads=8, kv_heads=G, head_dim=8, d_ff=1,
                              vocabulary=1)  # fmt: skip
        return ac.cost.kv_bytes(sizes, 100)

    share = 100 * kept(kv_heads) / kept(8)
    assert f"the cache takes {share:g} %." in draw.head_sharing(8, kv_heads=[kv_heads]).words


def test_the_share_of_a_latent_row():
    drawn = draw.head_sharing(8, kv_heads=[1], head_dim=128, latent=576)

    assert f"the cache takes {100 * 576 / (2 * 8 * 128):.1f} %." in drawn.words
    assert "1 row of 576: cache 28.1 %" in texts(drawn)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_says_where_it_normalises(norm):
    formula = {"pre": "x + {}(norm(x))", "post": "norm(x + {}(x))"}[norm]
    shown = texts(draw.block(3, 96, heads=4, d_ff=384, norm=norm, context=5))

    assert {formula.format(f) for f in ("attention", "cross-attention", "network")} <= set(shown)
    assert {"3×96", "4 heads, 3×3", "4 heads, 3×5", "96 → 384 → 96"} <= set(shown)
    assert shown.count("norm") == 3


def test_a_decoder_has_a_column_for_each_token_and_a_step_for_each_block():
    drawn = draw.decoder(list("Cal"), **WHALE, guesses=list("a l"), step=1)
    shown = texts(drawn)

    assert shown[:3] == ["C", "a", "l"]
    assert shown[-5:-2] == ["a", "␣", "l"]
    assert shown.count("net") == 3 * 4
    assert {"3×96", "4 heads, 3×3", "96 → 384 → 96", "logits 3×81"} <= set(shown)
    assert drawn.steps == ["tokens", "rows", *(f"block {n}" for n in range(4)), "logits"]
    assert drawn.words.endswith("Drawn up to the step: rows.")
    assert "a after C, ␣ after a, l after l." in drawn.words
    with pytest.raises(ValueError, match="at most 3 characters to fit their columns, got 'call'"):
        draw.decoder(["call"], **WHALE)
    with pytest.raises(ValueError, match="layers must be at most 4 to be drawn, got 5"):
        draw.decoder(["a"], **{**WHALE, "layers": 5})
    with pytest.raises(ValueError, match="tokens must be 1 to 6 to be drawn, got 7"):
        draw.decoder(list("Call me"), **WHALE)
    with pytest.raises(ValueError, match="one of the 7 steps, counted from 0, got 7"):
        draw.decoder(["a"], **WHALE, step=7)


def test_the_cache_shows_what_decoding_computes():
    q, k, v = (LONGER @ w for w in (W_Q, W_K, FOUR))
    cache = ac.KVCache(1, 1, capacity=4, head_dim=4)
    shown = texts(draw.kv_cache(LONGER, W_Q, W_K, FOUR), "ac-cell")
    for t in range(4):
        new = np.s_[None, None, t : t + 1]
        keys, values = cache.append(k[new].astype(float), v[new].astype(float))
        weights = ac.attention_weights(q[new].astype(float), keys)[0, 0, 0]
        output = ac.attention(q[new].astype(float), keys, values)[0, 0, 0]
        for row in (weights, output):
            rows = [f"{x:.2f}" for x in row]
            assert any(shown[i : i + len(rows)] == rows for i in range(len(shown))), rows


def test_a_step_of_the_cache_keeps_keys_and_values_alone():
    svg = PICTURES["kv_cache"]().svg()
    wide = svg[: svg.index('class="ac-tall"')]
    rows = re.findall(r'class="ac-row ac-(kept|dropped)(?: ac-(\w+))" data-i="(\d)"', wide)

    assert [row[0] for row in rows].count("kept") == 2 * 4
    assert all(row[1] == ("past", "past", "now", "later")[int(row[2])] for row in rows)
    told = re.findall(r'data-only="2">(step[^<]*)<', wide)
    assert told == ["step 2:  1 key and 1 value are new, 2 of each are read again"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_cannot_be_placed_is_refused(bad):
    lost = X.astype(float)
    lost[1, 2] = bad
    good = {"w_q": W_Q, "w_k": W_K, "w_v": FOUR}
    calls = {
        "q": lambda: draw.attention(lost, K, X),
        "x": lambda: draw.machine(lost, **good),
        "left": lambda: draw.product(lost, X.T),
        "keys": lambda: draw.regression(1, lost[1], X[1], bandwidth=1),
        "query": lambda: draw.regression(bad, X[1], X[1], bandwidth=1),
    }
    for name, call in calls.items():
        told = rf"^{name} must be finite to be drawn, and is {bad} at \[.*\]: put a number there"
        with pytest.raises(ValueError, match=told):
            call()
    with pytest.raises(ValueError, match="x must be finite to be drawn"):
        draw.kv_cache(lost, **good)
    with pytest.raises(ValueError, match="x must be finite to be drawn"):
        draw.heads(lost, **good, w_o=W_O, heads=2)


def test_long_names_over_narrow_matrices_stand_apart_and_inside():
    one, names = np.eye(2), ["weights without a mask", "weights with a window", "causal"]
    for drawn in (
        draw.equation(*((name, one) for name in names)),
        draw.mask(*[one > 0] * 3, names=names),
    ):
        for scene in (drawn.wide, drawn.tall):
            ends = {}
            for text in re.findall(r"<text[^>]*ac-name[^>]*>.*?</text>", "".join(scene.parts)):
                x, y = (float(re.search(rf'{axis}="([-.0-9]+)"', text)[1]) for axis in "xy")
                half = width_of_name(re.search(r">(.*?)<tspan", text)[1], "2×2") / 2
                assert scene.low[0] <= x - half + 0.01
                assert x + half - 0.01 <= scene.high[0]
                assert ends.get(y, -1e9) <= x - half
                ends[y] = x + half


def test_masked_scores_and_nan_are_written_and_not_shaded():
    scores = [[3, -math.inf], [math.nan, math.inf]]
    for drawn in (draw.matrix(scores, name="S"), draw.equation(("S", scores))):
        assert texts(drawn, "ac-cell")[:4] == ["3", "−∞", "nan", "∞"]
        assert "(3, −∞), (nan, ∞)" in drawn.words
    with pytest.raises(
        ValueError, match=r"^array must be finite to be drawn, and is -inf at \[0, 1"
    ):
        draw.matrix(scores, shade=True)


def test_a_huge_number_does_not_fill_the_page():
    shown = texts(draw.attention([[1e200]], [[1.0]], [[-1e200]]), "ac-cell")

    assert {"1.0e200", "−1.0e200"} <= set(shown)


def test_a_torch_tensor_is_drawn_as_an_array_is():
    torch = pytest.importorskip("torch")
    q, k, v = X @ W_Q / 3, X @ W_K / 3, X @ W_V / 3

    assert draw.attention(*map(torch.from_numpy, (q, k, v))).svg() == draw.attention(q, k, v).svg()


def test_names_cannot_break_the_picture():
    drawn = draw.attention(X @ W_Q, X @ W_K, X, queries=["<b>", "a&b", '"'])

    assert {"<b>", "a&b", '"'} <= set(texts(drawn))


def shown_at(picture, step):
    """Return the texts that are there at a step alone, in the wide layout; -1 is the whole."""
    (wide,) = [g for g in tree(picture).iter() if "ac-wide" in g.get("class", "").split()]
    parts = [e for e in wide.iter() if e.get("data-only") == str(step)]
    return [
        "".join(t.itertext()).replace("\u200b", "") for e in parts for t in e.iter(f"{SVG}text")
    ]


@pytest.mark.parametrize("step", [None, 0, 5])
def test_what_belongs_to_another_step_is_off(step):
    now = "-1" if step is None else str(step)
    parts = [e for e in tree(draw.tiles(3, step=step)).iter() if e.get("data-only") is not None]

    assert {e.get("data-only") for e in parts} == {"-1", *map(str, range(9))}
    for e in parts:
        assert ("ac-off" in e.get("class", "").split()) == (e.get("data-only") != now)


@pytest.mark.parametrize("causal", [False, True])
def test_tiles_are_visited_row_by_row_and_counted(causal):
    picture = draw.tiles(4, causal=causal)
    visits = [(i, j) for i in range(4) for j in range(4) if j <= i or not causal]

    assert picture.steps == [f"tile {i}, {j}" for i, j in visits]
    assert f"{len(visits)} are computed" in picture.words
    for step, (i, j) in enumerate(visits):
        said = shown_at(picture, step)
        assert {f"Q{i}", f"K{j}", f"V{j}", f"O{i}", f"S{i}{j}"} <= set(said)
        done = i + (j == max(b for a, b in visits if a == i))
        assert said[-1] == f"Q {i + 1}, K {step + 1}, V {step + 1} in; O {done} out"
    assert texts(picture).count("–") == (6 if causal else 0)


def test_streaming_softmax_over_tiles_is_what_the_tiles_say():
    """The three lines of the fast memory, done by hand, are attention."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 8, 4))
    out = np.zeros((8, 4))
    for i, j in (map(int, name[5:].split(", ")) for name in draw.tiles(4, causal=True).steps):
        rows, columns = slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)
        if j == 0:
            m, total, o = np.full((2, 1), -np.inf), 0, 0
        hidden = np.arange(8)[columns] > np.arange(8)[rows, None]
        s = np.where(hidden, -np.inf, q[rows] @ k[columns].T / 2)
        new = np.maximum(m, s.max(axis=1, keepdims=True))
        fade, weights = np.exp(m - new), np.exp(s - new)
        m, total = new, fade * total + weights.sum(axis=1, keepdims=True)
        o = fade * o + weights @ v[columns]
        out[rows] = o / total

    assert np.allclose(out, ac.attention(q, k, v, causal=True))


def test_rotations_show_the_scores_of_rope():
    q, k, speed = np.array([2.0, 1.0]), np.array([1.5, -0.3]), 1.0
    picture = draw.rotations(q, k, PLACES, speed=speed)
    shown = texts(picture)
    for m, n in PLACES:  # of width 2 the only speed is 1
        turned_q, turned_k = ac.positions.rope(q[None], [m]), ac.positions.rope(k[None], [n])
        score = (turned_q @ turned_k.T).item()
        assert f"query at {m}, key at {n}" in shown
        assert f"q · k = {score:.2f}".replace("-", "−") in shown
    same = draw.rotations(q, k, [(4, 2), (104, 102), (2, 0)], speed=0.3)
    assert len({line for line in texts(same) if "angle" in line or "q · k" in line}) == 2


def test_rotations_turn_each_arrow_by_its_position():
    """A query along the first axis, at position 1 and a quarter turn a position, points up."""
    drawn = "".join(draw.rotations([1, 0], [1, 0], [(1, 0)], speed=np.pi / 2).wide.parts)

    assert 'd="M0 0L0 -75" class="ac-line ac-query"' in drawn  # SVG counts downwards
    assert 'd="M0 0L75 0" class="ac-line ac-key"' in drawn
    assert "angle −90°" in drawn


@pytest.mark.parametrize("zigzag", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("devices", [2, 3, 6])
def test_a_ring_computes_each_tile_once_where_its_queries_are(devices, causal, zigzag):
    picture = draw.ring(devices, causal=causal, zigzag=zigzag)
    parts = 2 * devices if zigzag else devices
    at = {}
    for group in tree(picture).iter():
        if "ac-wide" in group.get("class", "").split():
            for row in group.iter(f"{SVG}g"):
                for cell in row.findall(f"{SVG}g"):
                    if "ac-cell" in cell.get("class", ""):
                        i, j = re.findall(r"ac-[ij](\d+)", cell.get("class"))
                        assert (int(i), int(j)) not in at
                        at[int(i), int(j)] = int(row.get("data-i"))
                        assert cell.find(f"{SVG}text").text == row.get("data-i")

    def owner(part):
        return min(part, parts - 1 - part) if zigzag else part

    assert set(at) == {(i, j) for i in range(parts) for j in range(parts) if j <= i or not causal}
    work = np.zeros((devices, devices))
    for (i, j), step in at.items():
        assert (owner(i) - owner(j)) % devices == step
        work[step, owner(i)] += 0.5 if causal and i == j else 1
    for step, row in enumerate([*work, work.sum(axis=0)]):
        said = shown_at(picture, step if step < devices else -1)
        assert [t for t in said if t.startswith("tiles")] == [f"tiles: {x:g}" for x in row]
    waited = work.max(axis=1).sum()
    assert f"the busiest takes {waited:g}." in picture.words
    if zigzag or not causal:
        assert waited == work.sum() / devices  # nobody waits


def test_keys_and_values_go_round_the_ring():
    picture = draw.ring(4)
    for step in range(4):
        keys = [t for t in shown_at(picture, step) if t.startswith("K")]
        assert keys == [f"K{(r - step) % 4}" for r in range(4)]


def test_patches_are_those_of_the_package():
    image = np.arange(64).reshape(8, 8) / 63
    picture = draw.patches(image, 4)
    rows = ac.images.patches(image[..., None], 4)
    colors = []
    for group in tree(picture).iter():
        if "ac-wide" in group.get("class", "").split():
            for cell in group.iter(f"{SVG}g"):
                if "ac-cell" in cell.get("class", ""):
                    colors.append({p.get("fill") for p in cell.iter(f"{SVG}path")} - {None})

    assert len(colors) == 8  # each of four patches in the image and among the tokens
    for t, row in enumerate(rows):
        wanted = {f"#{round(255 * x):02x}" + 2 * f"{round(255 * x):02x}" for x in row}
        assert colors[t] == colors[t + 4] == wanted
    assert "X is 4×16: a token is 4×4×1 = 16 numbers" in texts(picture)


def test_a_vision_transformer_has_a_column_for_each_patch_and_reads_the_first():
    picture = draw.vision(IMAGE, 2, **VIT)
    shown = texts(picture)
    rows = ac.images.patches(IMAGE[..., None], 2)
    fills = {0.0: "#000000", 0.5: "#808080", 1.0: "#ffffff"}
    cells = [g for g in tree(picture).iter(f"{SVG}g") if "ac-cell" in g.get("class", "")]
    drawn = [{p.get("fill") for p in g.iter(f"{SVG}path")} - {None} for g in cells]
    drawn = [colors for colors in drawn if colors]

    assert drawn == 2 * [{fills[float(x)] for x in row} for row in rows]  # wide and tall
    assert (shown.count("CLS"), shown.count("map"), shown.count("+ P")) == (1, 5, 5)
    assert {"4×4", "4×32", "5×32", "4 heads, 5×5", "logits: 10 numbers"} <= set(shown)
    assert picture.steps == ["patches", "one map", "CLS", "positions", "block 0", "block 1",
                             "logits"]  # fmt: skip
    assert draw.vision(IMAGE, 2, **VIT, step=2).words.endswith("Drawn up to the step: CLS.")


def test_pages_count_shared_blocks_once():
    picture = draw.pages(TABLES, [11, 10, 3], blocks=8)
    marks = [t for t in texts(picture) if t in {"×2", "×3", "free"}]

    assert "Of 20 places in the 5 blocks in use 16 are filled and 4 wasted." in picture.words
    assert "Free blocks: 3. Block 0 is shared by 2 sequences; block 1" in picture.words
    assert marks == ["×2", "×2", "free", "free", "free"]
    assert "20 places in use: 16 filled, 4 wasted" in texts(picture)
    used = [g.get("class") for g in tree(picture).iter() if "ac-cell" in g.get("class", "")]
    assert used.count("ac-cell ac-i ac-i0 ac-i1") == 4  # two blocks, in two layouts


def test_a_block_may_be_shared_half_full_as_a_fork_leaves_it():
    assert "Of 8 places in the 2 blocks in use 6 are" in draw.pages([[0, 1], [0, 1]], [6, 6]).words


def test_a_timetable_has_a_bar_for_each_request_where_it_is_written():
    for _, scene, _ in layouts(draw.timetable(ROWS)):
        rects = list(scene.iter(f"{SVG}rect"))
        step = (float(rects[0].get("width")) + 0.8) / 3  # three steps of request 0
        found = [
            (
                round((float(e.get("x")) - 36) / step, 2),
                round((float(e.get("width")) + 0.8) / step, 2),
                "dash" in e.get("class"),
            )
            for e in rects
        ]

        assert found == [
            *[(0, 3, False), (3, 2, False)],
            *[(0, 1, False), (1, 2, True), (3, 1, False), (4, 1, True)],
        ]


def test_timetables_have_one_scale_and_count_busy_places():
    one, two = np.zeros((2, 4), int), np.array([[0, 0, 1, 1, 2, 2, 2, 2]])
    picture = draw.timetable(one, two, names=["a", "b"])
    widths = [float(e.get("width")) + 0.8 for e in tree(picture).find(f"{SVG}g").iter(f"{SVG}rect")]

    assert picture.words == (
        "a: 1 request on 2 rows take 4 steps; 8 of 8 places are busy, 100 %. "
        "b: 3 requests on 1 row take 8 steps; 8 of 8 places are busy, 100 %."
    )
    assert widths == pytest.approx([widths[0], widths[0], *[widths[0] / 2] * 2, widths[0]], abs=0.1)
    assert "4 steps, 100 % of the places busy" in texts(picture)
    assert "62 %" in draw.timetable([[0, 0, 0, 2], [1, -1, -1, -1]]).words


def test_a_matrix_has_its_numbers_names_and_the_colour_of_its_role():
    picture = draw.matrix(X @ W_K / 3, name="K", rows=TOKENS, digits=1)

    assert {"K 3×4".replace(" ", ""), *TOKENS} <= set(texts_of(picture.wide))
    numbers = [f"{x:.1f}" for x in (X @ W_K / 3).flat]
    assert [t for t in texts_of(picture.wide) if re.fullmatch(r"−?\d\.\d", t)] == numbers
    assert "ac-line ac-key" in picture.svg()
    assert "(0.0, 0.7, 0.7, 0.7)" in picture.words


def texts_of(scene):
    root = ElementTree.fromstring(f'<g xmlns="{SVG[1:-1]}">{"".join(scene.parts)}</g>')  # noqa: S314
    return ["".join(t.itertext()).replace("\u200b", "") for t in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("name", "role"),
    [("Q", "query"), ("W_K", "key"), ("Kᵀ", "key"), ("V_0", "value"), ("A", "weights"),
     ("QKᵀ", "weights"), ("KQᵀ", "weights"), ("X", "ink"), ("Average", "ink"), ("W_O", "ink"),
     ("", "ink")],
)  # fmt: skip
def test_a_name_has_the_colour_of_its_role(name, role):
    assert f"ac-line ac-{role}" in "".join(draw.matrix(np.eye(2), name=name).wide.parts)


def test_a_number_of_a_product_lights_its_row_and_its_column():
    product = draw.equation(("X", X), ("W_Q", W_Q), "=", ("Q", X @ W_Q)).wide
    cells = re.findall(r'class="ac-cell([^"]*)"', "".join(product.parts))

    assert cells[0] == " ac-i ac-i0"
    assert cells[12:16] == [f" ac-j ac-j{j}" for j in range(4)]
    assert cells[28:] == [f" ac-i ac-j ac-i{i} ac-j{j}" for i in range(3) for j in range(4)]
    plain = draw.equation(("X", X), "+", ("P", X), "=", ("Y", 2 * X)).wide
    assert set(re.findall(r'class="ac-cell([^"]*)"', "".join(plain.parts))) == {""}


def test_an_equation_breaks_its_line_where_the_page_is_narrow():
    parts = draw.equation(("X", X), ("W_Q", W_Q), "=", ("Q", X @ W_Q))
    wide, tall = (scene.high[0] - scene.low[0] for scene in (parts.wide, parts.tall))

    assert tall < 360 < wide
    assert texts_of(parts.tall) == texts_of(parts.wide)


def test_a_table_is_aligned_text_and_html_with_the_same_cells():
    rows = {"raw": [1024, 0.97, 8.1e-5, None], "scaled": [12_345, -0.2, 0.03, True]}
    heads = ["scores", "D", "largest", "J", "ok"]
    shown = draw.table(rows, columns=heads, digits={"J": ".1e"}, caption="Two < three")

    assert repr(shown).splitlines() == [
        "Two < three",
        "scores       D  largest         J  ok",
        "------  ------  -------  --------  ---",
        "raw      1,024    0.970  8.1·10⁻⁵  —",
        "scaled  12,345   −0.200  3.0·10⁻²  yes",
    ]
    table = ElementTree.fromstring(shown._repr_html_())  # noqa: S314
    cells = [[cell.text for cell in row] for row in table.iter("tr")]
    assert table.find("caption").text == "Two < three"
    assert cells == [heads, ["raw", "1,024", "0.970", "8.1·10⁻⁵", "—"],
                     ["scaled", "12,345", "−0.200", "3.0·10⁻²", "yes"]]  # fmt: skip
    sides = [cell.get("style") for cell in table.find("tbody")[0]]
    assert sides == [f"text-align:{s}" for s in ("left", "right", "right", "right", "left")]
    assert [cell.get("scope") for cell in table.find("tbody")[0]] == ["row", *[None] * 4]


def test_a_table_takes_lists_dicts_arrays_and_tensors():
    torch = pytest.importorskip("torch")
    wanted = "a      b\n-  -----\n1  0.500\n3  2.000"

    for rows in (
        [[1, 0.5], (3, 2.0)],
        [{"a": 1, "b": 0.5}, {"b": 2.0, "a": 3}],
        [[np.int8(1), np.float32(0.5)], [torch.tensor(3), torch.tensor(2.0)]],
    ):
        columns = None if isinstance(rows[0], dict) else ["a", "b"]
        assert repr(draw.table(rows, columns=columns)) == wanted
    whole = "a  b\n-  -\n0  1\n2  3"
    for rows in (np.arange(4).reshape(2, 2), torch.arange(4).reshape(2, 2)):
        assert repr(draw.table(rows, columns=["a", "b"])) == whole
    by_name = draw.table({"x": {"a": 1, "b": 2}}, columns=["kind", "a", "b"])
    assert repr(by_name).splitlines()[2] == "x     1  2"


def test_chinese_characters_are_two_columns_wide():
    lines = repr(draw.table([["猫", 1], ["cat", 2]], columns=["字", "n"])).splitlines()

    assert lines == ["字   n", "---  -", "猫   1", "cat  2"]


def test_a_table_shows_numbers_as_its_digits_say():
    def cell(value, digits=None):
        return draw.table([[value]], columns=["x"], digits=digits).cells[0][0]

    assert cell(2.0) == "2.000"
    assert cell(2) == "2"
    assert cell(2, 1) == "2"
    assert cell(2, {"x": 1}) == "2.0"
    assert cell(0.256, ".0%") == "26%"
    assert cell(12_345.6, ".2e") == "1.23·10⁴"
    assert cell(Fraction(-1, 8), ".1e") == "−1.2·10⁻¹"
    assert cell(10**20, {"x": ","}) == "100,000,000,000,000,000,000"
    assert cell(-1e6, ",.1f") == "−1,000,000.0"
    assert cell(-0.0001, 2) == "0.00"
    assert cell(-np.inf) == "−∞"
    assert cell(123_456_789) == "123,456,789"


def test_a_bar_in_a_name_is_no_further_step():
    drawn = draw.attention(Q, K, X, queries=["a | b", "c", "d"])

    assert tree(drawn).get("data-steps").split(" | ") == ["a ¦ b", "c", "d"]


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


@pytest.mark.parametrize(
    ("dropout", "fused", "rows", "squares"),
    [(True, False, 34, 5), (False, False, 32, 2), (True, True, 34, 0), (False, True, 32, 0)],
)
def test_activations_sum_to_what_is_published(dropout, fused, rows, squares):
    """34 b s h + 5 b s s a are Korthikanti et al. (2023)'s; 32 have no masks."""
    drawn = draw.activations(dropout=dropout, fused=fused)
    amount = f"{rows} BTd" + (f" + {squares} BHT²" if squares else "")

    assert drawn.words.endswith(f"So far {amount} bytes are kept.")
    assert f"{amount} bytes" in texts(drawn)
    said = [text for text in texts(drawn, "ac-row") if "BTd" in text or "BHT²" in text]
    wide = said[: len(said) // 2]
    assert sum(int(n) for text in wide for n in re.findall(r"(\d+) BTd", text)) == rows
    assert sum(int(n) for text in wide for n in re.findall(r"(\d+) BHT²", text)) == squares
    with pytest.raises(ValueError, match=r"step must be one of the .* operations, counted from 0"):
        draw.activations(dropout=dropout, fused=fused, step=13)


def test_a_step_of_activations_says_what_is_kept_so_far():
    drawn = draw.activations(step=3)
    root = tree(drawn)
    shown = [t.text for t in root.iter(f"{SVG}text") if t.get("data-only") == "3"]

    assert drawn.words.endswith("So far 8 BTd + 2 BHT² bytes are kept.")
    assert shown == 2 * ["so far", "8 BTd + 2 BHT² bytes"]
    assert len(drawn.steps) == 13
    assert drawn.steps[3] == "softmax"


def test_bars_of_a_memory_are_as_long_as_their_parts():
    drawn = draw.memory(MEMORY, room=24)
    bars = [r for r in tree(drawn).iter(f"{SVG}rect") if r.get("height") == "20"]
    filled = [float(r.get("width")) for r in bars if "ac-line" not in r.get("class")]

    for lengths in (filled[:5], filled[5:]):  # of both layouts
        sizes = [16, 16, 96, 16, 2]
        assert np.allclose(np.array(lengths) / lengths[0], np.array(sizes) / 16, atol=0.01)
    assert bars[-2].get("class") == "ac-key"
    assert texts(drawn)[:5] == ["parameters", "gradients", "optimizer", "cache", "room: 24 GB"]
    assert "128 GB in all, of 24 GB. It does not fit. serving" in drawn.words
    assert drawn.words.endswith("18 GB in all, of 24 GB. It fits.")


@pytest.mark.parametrize(
    ("rows", "more", "error", "told"),
    [
        ([], {}, TypeError, "rows must be a dict of dicts, got list"),
        ({}, {}, ValueError, "rows must be 1 to 8 to be read, got 0"),
        ({"a": 3}, {}, TypeError, r"rows\['a'\] must be a dict, got int"),
        ({"a": {"b": -1}}, {}, ValueError, r"rows\['a'\]\['b'\] must be a finite number, at least"),
        ({"a": {"b": "1"}}, {}, TypeError, r"rows\['a'\]\['b'\] must be a finite number, at least"),
        ({"a": {"b": 0}}, {}, ValueError, "all sizes are 0"),
        ({"a": dict.fromkeys("bcdefg", 1)}, {}, ValueError, "at most 5 parts besides a cache"),
        ({"a": {3: 1}}, {}, TypeError, "names must be strings, got int"),
        ({"a": {"b": 1}}, {"room": 0}, ValueError, "room must be positive and finite, got 0"),
        ({"a": {"b": 1}}, {"unit": 3}, TypeError, "unit must be a string, got int"),
    ],
)
def test_a_memory_that_cannot_be_drawn_is_refused(rows, more, error, told):
    with pytest.raises(error, match=told):
        draw.memory(rows, **more)
