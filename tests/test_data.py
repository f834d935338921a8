"""The data files are the ones their README describes."""

import gzip
import hashlib
import importlib.resources

import numpy as np
import pytest

import attncore as ac

DATA = importlib.resources.files("attncore") / "data"
FILES = [path.name for path in DATA.iterdir() if path.name.endswith((".csv", ".gz", ".npz"))]
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
