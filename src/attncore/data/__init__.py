"""The small real data sets the book uses. Sources and hashes: README.md beside this file.

In the browser the large ones come with the first cell that says `moby_dick(` or `digits(`; where
none says so, asking for one raises FileNotFoundError.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np

from attncore.data import files


def motorcycle() -> tuple[np.ndarray, np.ndarray]:
    """Return 133 readings of a crash helmet in a simulated motorcycle accident.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        Time after the impact in milliseconds, `(133,)`, ascending, 39 of them a repeat of
        the one before; and head acceleration in g, `(133,)`. Both float64.

    References
    ----------
    Schmidt, Mattern and Schueler (1981); analysed by Silverman (1985).

    Examples
    --------
    >>> times, accel = motorcycle()
    >>> times.shape, float(times.max()), float(accel.min())
    ((133,), 57.6, -134.0)
    """
    lines = files.read("motorcycle.csv").decode("ascii").splitlines()[1:]
    table = np.array([line.split(",") for line in lines], dtype=np.float64)
    return table[:, 0].copy(), table[:, 1].copy()


def moby_dick() -> str:
    """Return the 135 chapters of Melville's novel, each after its title.

    Returns
    -------
    str
        1.19 million characters, 81 different ones.

    References
    ----------
    Herman Melville, *Moby-Dick; or, The Whale* (1851), in the public domain.

    Examples
    --------
    >>> text = moby_dick()
    >>> text[11:27], len(set(text))
    ('Call me Ishmael.', 81)
    """
    return gzip.decompress(files.read("moby_dick.txt.gz")).decode("utf-8")


def attention_maps(sentence: str) -> tuple[list[str], np.ndarray]:
    """Return the attention of every head of a trained encoder, as it read one sentence.

    Parameters
    ----------
    sentence
        One of "minilm_cat_en", "minilm_tired" (MiniLM, English), "e5_cat_en", "e5_cat_zh",
        "e5_tree_zh", "e5_bi" (multilingual E5 small, the last English and Chinese).

    Returns
    -------
    (list of str, numpy.ndarray)
        The T tokens, and the weights `(layers, H, T, T)` in float64: 6 or 12 layers of 12
        heads. They were stored in 16 bits, so rows sum to 1 within 0.001.

    Raises
    ------
    ValueError
        If there is no such sentence.
    TypeError
        If `sentence` is no string.

    References
    ----------
    Wang et al. (2020) and Reimers and Gurevych (2019) for MiniLM, Wang et al. (2024) for E5.

    Examples
    --------
    >>> tokens, weights = attention_maps("minilm_cat_en")
    >>> tokens[1:4], weights.shape
    (['the', 'cat', 'sat'], (6, 12, 9, 9))
    """
    if not isinstance(sentence, str):
        raise TypeError(f"sentence must be a name, got {type(sentence).__name__}")
    stored = files.arrays("attention_maps.npz")
    names = [name for name in stored if not name.endswith("_tokens")]
    if sentence not in names:
        raise ValueError(f"no maps of {sentence!r}: there are {', '.join(names)}")
    return stored[f"{sentence}_tokens"].tolist(), stored[sentence].astype(np.float64)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 1,797 handwritten digits, 8 by 8 pixels each, and what they are.

    Returns
    -------
    (numpy.ndarray, numpy.ndarray)
        The images `(1797, 8, 8)` in float64, 0 where there is no ink to 16; and the digits
        0 to 9, `(1797,)`, int64. By 13 people, in the order of the source.

    References
    ----------
    Alpaydin and Kaynak (1998), of whose data this is the test set.

    Examples
    --------
    >>> images, labels = digits()
    >>> images.shape, float(images.max()), labels[:5].tolist()
    ((1797, 8, 8), 16.0, [0, 1, 2, 3, 4])
    """
    stored = files.arrays("digits.npz")
    return stored["images"].astype(np.float64), stored["labels"].astype(np.int64)


def photograph() -> np.ndarray:
    """Return a small colour photograph: a pagoda between sky, lake and trees.

    Returns
    -------
    numpy.ndarray
        `(96, 160, 3)` in float64: red, green and blue from 0 to 1, top row first.

    References
    ----------
    Photograph by danielbuechele, CC BY 2.0; made smaller, and cut at the top and bottom.

    Examples
    --------
    >>> image = photograph()
    >>> image.shape, [round(float(c), 2) for c in image[0, 0]]       # sky, at the upper left
    ((96, 160, 3), [0.7, 0.8, 0.91])
    """
    stored = files.arrays("photograph.npz")
    return stored["image"] / 255.0


def speeds(name: str) -> dict[str, Any]:
    """Return speeds that were measured on one machine, its limits and those of `attncore`.

    Parameters
    ----------
    name
        Of the machine: "cpu-2-cores" comes with the package; `benchmarks/run.py` adds others.

    Returns
    -------
    dict
        "machine", "threads", "torch", "attncore" and "date" say what was measured; "limits"
        has the speed of matrix products in GFLOP/s and of reading in GB/s; "rows" is a list
        of cases, each with the median "ms" of everyone and the "peak_mb" of extra memory, or
        None; "left_out" names the dtypes and peers that this machine has no hardware or no
        compiler for, with the reason, and neither "limits" nor "rows" has them; "weights_mb" is
        what the decoding model reads in each step.

    Raises
    ------
    ValueError
        If there is no such machine.
    TypeError
        If `name` is no string.

    References
    ----------
    Measured by the authors, with `benchmarks/run.py`.

    Examples
    --------
    >>> found = speeds("cpu-2-cores")
    >>> found["threads"], sorted(found["rows"][0])
    (2, ['case', 'group', 'ms', 'peak_mb'])
    """
    return _json("speeds", name, "name must be that of a machine", "no speeds of")


def kept(name: str) -> dict[str, Any]:
    """Return what a script of this project has computed and a page has no time to compute.

    Parameters
    ----------
    name
        "curves": losses of three small models, trained from eight seeds each, by step.
        "heads": errors of a task by heads, and bits per character of a small language model by
        key-value heads, from several random starts each.
        "date_models": what four kinds of translators, five seeds each, write right, by step.
        "whale_context": what the language model loses that reads only the last characters.
        "whale_texts": passages of the novel, and how the model went on after their beginning.
        "whale_window": bits per character of the model when its caches have a window.
        "whale_rounding": after how many letters its texts change without a cache, or in a batch.

    Returns
    -------
    dict
        Numbers, texts, lists and dictionaries; ``data/README.md`` says of each file which script
        has made it, and the script what is in it.

    Raises
    ------
    ValueError
        If there is no such file.
    TypeError
        If `name` is no string.

    References
    ----------
    Computed by the authors, with the scripts in ``tools/``.

    Examples
    --------
    >>> found = kept("whale_context")
    >>> found["last"], len(found["bits"])
    ([1, 2, 4, 8, 16, 32], 160)
    """
    return _json("kept", name, "name must be that of a file", "nothing is kept by the name of")


def _json(folder: str, name: str, wanted: str, missing: str) -> dict[str, Any]:
    """Return what a JSON file of a folder holds."""
    if not isinstance(name, str):
        raise TypeError(f"{wanted}, got {type(name).__name__}")
    there = [file.removesuffix(".json") for file in files.names(folder)]
    if name not in there:
        raise ValueError(f"{missing} {name!r}: there are {', '.join(sorted(there))}")
    return json.loads(files.read(f"{folder}/{name}.json"))
