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

import numpy as np
import pytest
import slim_wheels

import attncore as ac
from attncore import data

DATA = importlib.resources.files("attncore") / "data"
FILES = [path.name for path in DATA.iterdir() if path.name.endswith((".csv", ".gz", ".npz"))]
FILES += [f"trained/{path.name}" for path in (DATA / "trained").iterdir()]
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

    assert any(row.startswith(f"| `{name}`") for row in rows)
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
    ],
)
def test_what_the_browser_lacks_is_said_in_one_sentence(load, file, tmp_path, monkeypatch):
    monkeypatch.setattr(data.files, "files", lambda name: tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=rf"^{re.escape(file)} is not part of the browser's package, .*own machine, with all",
    ) as told:
        load()

    assert told.value.__suppress_context__  # no second traceback, about a path in the wheel
    assert str(told.value).count(". ") == 0


@pytest.mark.parametrize("call", ["moby_dick", "digits"])
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
