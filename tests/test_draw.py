"""Pictures: right numbers, readable text, one style sheet, and colours that can be told apart."""

import re
import subprocess
import sys
from itertools import combinations
from xml.etree import ElementTree  # our own text

import numpy as np
import pytest

import attncore as ac
from attncore import draw
from attncore.draw.colors import COLORS
from attncore.draw.picture import TALL, WIDE
from attncore.draw.sheet import page_sheet, sheet
from attncore.draw.text import NAME, PLAIN, SMALL, width_of

X = np.array([[0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 0]])
W_Q = np.array([[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, -1]])
W_K = np.array([[2, 0, -2, 2], [0, 0, 0, 0], [0, 0, 0, 2], [0, 2, 2, 0]])
W_V = np.arange(8).reshape(4, 2)
W_O = np.array([[1, 0, 2, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 3]])
FOUR = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # as wide as Q and K
LONGER = np.vstack([X, [[0, 1, 1, 0]]])
TOKENS = ["猫 cat", "坐在 sat on", "垫子 mat"]
ALL = [*TOKENS, "上 on"]
GUESTS, LOAVES = [51, 56, 58], [40, 43, 48]
Q, K = X @ W_Q, X @ W_K
NAMED = {"names": ["Q", "Kᵀ", "QKᵀ"], "roles": ["query", "key", "weights"]}
PICTURES = {
    "attention": lambda: draw.attention(X @ W_Q, X @ W_K, X @ W_V),
    "attention, named": lambda: draw.attention(
        LONGER @ W_Q, LONGER @ W_K, LONGER @ FOUR, queries=ALL, keys=ALL
    ),
    "machine": lambda: draw.machine(X, W_Q, W_K, W_V, tokens=TOKENS, causal=True, step=1),
    "machine of two": lambda: draw.machine(X[:2], W_Q, W_K, W_V, context=X, mask=X[:2, :3] > 0),
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
    "head_sharing": lambda: draw.head_sharing(8, kv_heads=[8, 2, 1]),
    "head_sharing, latent": lambda: draw.head_sharing(4, kv_heads=[2], head_dim=128, latent=576),
    "block": lambda: draw.block(3, 96, heads=4, d_ff=384),
    "block, post": lambda: draw.block(3, 96, heads=4, d_ff=384, norm="post"),
    "block of a decoder": lambda: draw.block(3, 96, heads=4, d_ff=384, context=5),
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
    for element in scene.iter(f"{SVG}text"):
        kinds, text = element.get("class", "").split(), "".join(element.itertext())
        size = SMALL if "ac-small" in kinds else NAME if "ac-name" in kinds else PLAIN
        wide = width_of(text, size) * 0.9  # an estimate, on the safe side
        x, y = float(element.get("x")), float(element.get("y"))
        left = x if "ac-start" in kinds else x - wide if "ac-end" in kinds else x - wide / 2
        found.append((text, element.get("data-only"), left, left + wide, y))
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
@pytest.mark.parametrize(("theme", "least"), [("light", 20), ("dark", 23)])
def test_roles_can_be_told_apart(eye, theme, least):
    roles = [getattr(COLORS[name], theme) for name in ("query", "key", "value", "weights", "ink")]
    seen = [lab(np.array(EYES[eye]) @ linear(color)) for color in roles]

    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) >= least


@pytest.mark.parametrize("name", COLORS)
def test_colours_are_readable_as_text(name):
    assert contrast(COLORS[name].light, "#ffffff") >= 4.5
    assert contrast(COLORS[name].dark, "#14181e") >= 4.5
    assert f"--ac-{name}:{COLORS[name].dark}" in page_sheet()
