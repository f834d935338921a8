"""The data files are the ones their README describes."""

import gzip
import hashlib
import importlib.resources
import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest.mock import patch

import measure_bits
import numpy as np
import pytest
import slim_wheels
import torch
import train_vision
import train_vision_seeds
from train_date_models import KINDS

import attncore as ac
from attncore import data, models, nn
from attncore.training.scores import bits_per_character
from attncore.training.texts import parts

DATA = importlib.resources.files("attncore") / "data"
FILES = [
    path.relative_to(DATA).as_posix()
    for path in sorted(Path(DATA).rglob("*"))
    if path.suffix in (".csv", ".gz", ".npz") or path.parent.name == "kept"
]
SENTENCES = {
    "minilm_cat_en": (6, "the cat sat on the mat ."),
    "minilm_tired": (6, "the animal didn ' t cross the street because it was too tired ."),
    "e5_cat_en": (12, "▁The ▁cat ▁sat ▁on ▁the ▁mat ."),
    "e5_cat_zh": (12, "▁ 猫 坐在 垫 子 上"),
    "e5_tree_zh": (12, "▁ 猫 在 树 上"),
    "e5_bi": (12, "▁The ▁cat ▁sat ▁on ▁the ▁mat . ▁ 猫 坐在 垫 子 上"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_has_the_hash_its_readme_gives(name):
    content = (DATA / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)  # packing may differ from one zlib to another
    rows = [row for row in (DATA / "README.md").read_text("utf-8").splitlines() if name in row]

    assert any(row.startswith("| `") and f"`{name}`" in row.split(" | ")[0] for row in rows)
    assert any(hashlib.sha256(content).hexdigest() in row for row in rows)


@pytest.mark.parametrize("name", SENTENCES)
def test_maps_are_weights_of_their_sentence(name):
    layers, words = SENTENCES[name]
    tokens, maps = ac.data.attention_maps(name)

    assert tokens[1:-1] == words.split()
    assert maps.shape == (layers, 12, len(tokens), len(tokens))
    assert maps.dtype == np.float64
    assert (maps >= 0).all()
    assert np.allclose(maps.sum(axis=-1), 1, rtol=0, atol=1e-3)


def test_an_unknown_sentence_is_named():
    with pytest.raises(ValueError, match=r"no maps of 'dog': there are minilm_cat_en, .*e5_bi"):
        ac.data.attention_maps("dog")


def test_the_novel_is_whole():
    text = ac.data.moby_dick()

    assert text.startswith("Loomings.\n\nCall me Ishmael. Some years ago")
    assert "\n\nThe Chapel.\n\n" in text
    assert len(text) == 1_188_140


def test_the_digits_are_whole():
    images, labels = ac.data.digits()
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # as UCI gives for its test set

    assert images.shape == (1797, 8, 8)
    assert (images.dtype, labels.dtype) == (np.float64, np.int64)
    assert set(np.unique(images)) == set(range(17))
    assert np.bincount(labels).tolist() == counts
    assert (images[0, 0] == [0, 0, 5, 13, 9, 1, 0, 0]).all()


def test_the_photograph_is_the_right_way_up():
    image = ac.data.photograph()
    sky, trees = image[:16, 120:].mean(axis=(0, 1)), image[-16:, :40].mean(axis=(0, 1))

    assert image.shape == (96, 160, 3)
    assert image.dtype == np.float64
    assert 0 <= image.min() < 0.05 < 0.95 < image.max() <= 1
    assert sky[2] > sky[1] > sky[0] > 0.85  # blue above red
    assert trees.max() < 0.4
    assert trees[2] < trees[:2].min() / 1.9  # yellow green: little blue


def test_kept_curves_are_of_three_models_and_eight_seeds():
    found = ac.data.kept("curves")

    assert found["steps"] == [*range(5, 201, 5)]
    assert list(found["lessons"]) == ["characters", "pieces", "few characters"]
    for lesson in found["lessons"].values():
        assert np.shape(lesson["curves"]) == (8, 40)
        assert np.shape(lesson["unseen"]) == np.shape(lesson["nats per token"]) == (8,)


def test_kept_choices_are_of_nine_rates_six_schedules_and_two_lengths():
    found = ac.data.kept("choices")
    runs = [*found["rates"].values()]
    for schedules in found["schedules"].values():
        runs += schedules.values()
    long = [*found["lengths"].values(), *found["helps"].values()]

    assert (len(found["rates"]), len(found["lengths"]), len(found["helps"])) == (9, 2, 3)
    assert len(runs) == 9 + 2 * 3
    assert (found["steps"][-1], found["long steps"][-1]) == (400, 1500)
    for run in runs:
        assert np.shape(run["curves"]) == np.shape(run["gradient"]) == (6, 20)
        assert np.shape(run["unseen"]) == (6,)
    for run in long:
        assert np.shape(run["seen"]) == np.shape(run["unseen"]) == (3, 16)


def test_kept_heads_are_of_ten_starts_of_a_task_and_four_of_a_model():
    found = ac.data.kept("heads")

    assert list(found["blur"]) == ["1/1", "2/2", "4/4", "4/2", "4/1"]
    assert {len(errors) for errors in found["blur"].values()} == {10}
    assert list(found["bits"]) == list(found["parameters"]) == ["8", "4", "2", "1"]
    assert {len(bits) for bits in found["bits"].values()} == {4}
    saved = found["parameters"]["8"] - found["parameters"]["1"]
    assert saved == 2 * 2 * 64 * 7 * 8  # maps to keys and values, two layers, seven heads of 8


def test_kept_positions_are_of_seven_kinds_and_ten_starts():
    found = ac.data.kept("positions")
    assert found["lengths"] == [32, 48, 64, 96, 128]
    assert list(found["runs"]) == list(models.trained("positions"))
    for kind, runs in found["runs"].items():
        tests = 1 if kind == "learned" else 5  # its table ends
        assert np.shape([run["shares"] for run in runs]) == (10, tests, 2)
        assert np.shape([run["crowded"] for run in runs]) == (10, 2)
        assert all(("window" in run) == (kind != "learned") for run in runs)
    assert list(found["speeds"]) == ["plain", "linear", "ntk", "yarn"]
    for runs in found["speeds"].values():
        assert np.shape(runs) == (10, 3, 2)  # untouched, short, trained; two questions


def test_kept_shares_are_of_four_kinds_and_five_seeds():
    found = ac.data.kept("date_models")

    assert list(found["shares"]) == list(KINDS)
    for kind, runs in found["shares"].items():
        shares = np.array(runs)  # (seeds, steps, lengths)
        assert shares.shape == (5, len(found["steps"]), len(found["dates"])) == (5, 6, 3)
        assert (shares[:, -1].min() > 0.97) == KINDS[kind][1]


def test_kept_seeds_of_the_vision_transformer_are_what_its_kept_models_give():
    found = ac.data.kept("vision_seeds")
    (_, _), (images, labels) = train_vision.parts()
    hidden = ["random", "another image", "all images", "map", "rollout", "ink", "needed"]

    assert list(found["hidden"]) == hidden
    for ways in (found["hidden"], found["same patch on top"], *found["grids"].values()):
        assert {len(shares) for shares in ways.values()} == {24}
    assert {len(v) for v in found["pairs"].values()} == {24 * 23 // 2}
    for seed, name in ((0, "vision"), (7, "vision_second")):
        model = models.trained(name)
        own = train_vision_seeds.cls_maps(model, images)
        logits = train_vision_seeds.without(model, images, own)
        told = train_vision_seeds.right(logits, labels)
        grids = train_vision_seeds.on_grids(model, images, labels)

        share = train_vision.share_right(name)
        assert found["right"][seed] == pytest.approx(share, abs=0.006)  # two of 360 images
        assert found["hidden"]["map"][seed] == pytest.approx(told, abs=0.006)
        for grid, ways in grids.items():
            for way, value in ways.items():
                assert found["grids"][grid][way][seed] == pytest.approx(value, abs=0.006)
    for learned_from in found["learned from"].values():
        assert {len(shares) for shares in learned_from.values()} == {5}


def test_kept_measurements_are_of_all_windows():
    found = ac.data.kept("whale_context")

    assert np.shape(found["bits"]) == (160, len(found["last"]))


def test_kept_scores_of_windows_and_changes_by_rounding_are_what_whale_gives():
    found, novel = ac.data.kept("whale_window"), ac.data.moby_dick()
    model, sizes = models.whale(np.float64), found["window"]
    tokens = model.encode(novel[int(0.95 * len(novel)) :][:257])
    at = sizes.index(32)
    caches = [ac.KVCache(1, 2, 256, 24, window=32) for _ in model.blocks]
    p = ac.softmax(model(tokens[:, :-1], caches)[0, -128:])
    bits = -np.log2(p[np.arange(128), tokens[0, -128:]]).mean()

    assert np.shape(found["bits"]) == (160, len(sizes))
    assert found["bits"][0][at] == pytest.approx(bits, abs=1e-4)
    rounding = ac.data.kept("whale_rounding")
    for dtype in ("float64", "float32", "bfloat16"):
        for way in ("no cache", "one batch"):
            places = rounding[dtype][way]
            assert len(places) == 20
            assert all(n is None or 0 <= n < rounding["letters"] for n in places)


def test_the_kept_course_of_a_training_ends_at_the_model_that_came_of_it():
    found, unseen = ac.data.kept("whale_training"), parts()[1]

    assert found["step"] == list(range(0, 9001, 150))
    assert len(found["seen"]) == len(found["unseen"]) == len(found["rate"]) == 61
    score = bits_per_character(nn.whale(), unseen)
    assert found["unseen"][-1] == pytest.approx(score, abs=1e-3)  # stored in 16 bits
    assert [step for step, _ in found["samples"]] == [0, 100, 1000, 9000]
    assert {len(text) for _, text in found["samples"]} == {158}


def test_kept_sinks_are_of_eight_starts_with_and_without_a_logit():
    runs = ac.data.kept("sinks")["runs"]

    assert list(runs) == ["no sink logit", "sink logit"]
    for kind, starts in runs.items():
        assert len(starts) == 8
        sums = [run["sum"]["plain"] for run in starts]
        assert (min(sums) == 1) == (kind == "no sink logit")
        for run in starts:
            assert list(run["nats"]) == ["all", "last 8", "first and last 7"]
            assert run["first word"]["plain"] <= run["sum"]["plain"] + 1e-3


def test_kept_bits_with_first_tokens_are_what_whale_gives():
    found, novel = ac.data.kept("whale_sinks"), ac.data.moby_dick()
    model = models.whale(np.float64)
    tokens = model.encode(novel[int(0.95 * len(novel)) :][:257])
    i, j = np.arange(256)[:, None], np.arange(256)
    near = (j <= i) & ((i - j < 28) | (j < 4))

    def limited(q, k, v, *_, **__):
        return ac.attention(q, k, v, near)

    with patch("attncore.models.functional.attention", limited):
        p = ac.softmax(model(tokens[:, :-1])[0, -128:])
    bits = -np.log2(p[np.arange(128), tokens[0, -128:]]).mean()

    assert np.shape(found["bits"]) == (160, len(found["seen"])) == (160, 6)
    at = found["seen"].index("first 4, last 28")
    assert found["bits"][0][at] == pytest.approx(bits, abs=1e-4)
    whole = ac.data.kept("whale_window")
    assert np.allclose(np.array(found["bits"])[:, 0], np.array(whole["bits"])[:, -1], atol=2e-4)


def test_kept_scores_of_caches_in_few_bits_are_what_whale_gives():
    found, novel = ac.data.kept("whale_bits"), ac.data.moby_dick()
    model = nn.whale(torch.float64)
    window = model.encode(novel[int(0.95 * len(novel)) :][:257])

    assert np.shape(found["bits"]) == (len(measure_bits.WAYS), measure_bits.WINDOWS)
    for n in (0, 3, 4):
        way = measure_bits.WAYS[n]
        bits = measure_bits.bits_of(model, window, way)[0]
        assert found["ways"][n] == list(way)
        assert found["bits"][n][0] == pytest.approx(bits, abs=1e-3)


def test_a_cache_in_few_bits_tells_no_query_of_later_tokens():
    q, k, v = torch.randn(3, 1, 2, 64, 4, dtype=torch.float64)
    way = (2, "channel", 2, "token")
    before = measure_bits.attend(q, k, v, way)
    k[..., 40:, :] *= 9
    v[..., 40:, :] *= 9

    assert torch.allclose(measure_bits.attend(q, k, v, way)[..., :40, :], before[..., :40, :])


def test_kept_texts_are_the_novels_and_what_whale_writes_after_their_beginning():
    own, *written = ac.data.kept("whale_texts")["written"]
    model, novel = models.whale(np.float64), ac.data.moby_dick()
    chance = np.random.default_rng(23)
    found = model.generate(
        model.encode(own["texts"][23][:16]), 150, temperature=1.0, generator=chance
    )

    assert all(text in novel[int(0.95 * len(novel)) :] for text in own["texts"])
    assert [(case["temperature"], case["top_p"]) for case in written] == [
        (0, 1), (0.5, 1), (1, 0.8), (1, 1)
    ]  # fmt: skip
    for case in written:
        assert [text[:16] for text in case["texts"]] == [text[:16] for text in own["texts"]]
        assert {len(text) for text in case["texts"]} == {166}
    assert model.decode(found[0]) == written[-1]["texts"][23]


def test_what_is_not_kept_is_named():
    with pytest.raises(
        ValueError, match=r"kept by the name of 'dog': there are choices, curves, .*whale"
    ):
        ac.data.kept("dog")


def test_two_calls_share_nothing():
    ac.data.photograph()[:] = 0
    ac.data.digits()[0][:] = 0

    assert ac.data.photograph().max() > 0.9
    assert ac.data.digits()[0].max() == 16


@pytest.mark.parametrize(
    ("load", "file"),
    [
        (data.motorcycle, "motorcycle.csv"),
        (data.moby_dick, "moby_dick.txt.gz"),
        (data.digits, "digits.npz"),
        (data.photograph, "photograph.npz"),
        (lambda: data.attention_maps("minilm_tired"), "attention_maps.npz"),
        (models.whale, "whale.npz"),
        (nn.whale, "whale.npz"),
    ],
)
def test_what_the_browser_lacks_is_said_in_one_sentence(load, file, tmp_path, monkeypatch):
    monkeypatch.setattr(data.files, "files", lambda name: tmp_path)
    call = rf"{file.split('.')[0]}\(\)"
    with pytest.raises(
        FileNotFoundError,
        match=rf"^{re.escape(file)} is not part of the browser's package, .* that says {call} "
        "itself: .*own machine, with all",
    ) as told:
        load()

    assert told.value.__suppress_context__  # no second traceback, about a path in the wheel
    assert str(told.value).count(". ") == 0


@pytest.mark.parametrize("call", ["moby_dick", "digits", "photograph"])
def test_the_browsers_package_says_what_it_lacks(call, tmp_path):
    _, wheel = slim_wheels.own_wheel(Path(__file__).resolve().parent.parent)
    zipfile.ZipFile(io.BytesIO(wheel)).extractall(tmp_path)
    code = f"from attncore import data; data.motorcycle(); data.{call}()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip

    assert done.stderr.count("Traceback") == 1
    assert re.search(
        rf"FileNotFoundError: {call}\S+ is not part of the browser's package", done.stderr
    )
