"""What counts as the same notebook: text exactly, pictures to the eye."""

from __future__ import annotations

import base64
import copy
import io
from typing import Any

import nbformat
import numpy as np

VISIBLE = 64
"""A pixel that differs by more than this, of 255, looks different; a letter has about 20."""
PIXELS_PER_THOUSAND = 0.2


def without_noise(outputs: list[Any], alt: str | None = None) -> list[Any]:
    """Return outputs as they are stored: chunks of one stream joined, alternative text kept."""
    kept: list[Any] = []
    for output in copy.deepcopy(outputs):
        if (
            output.output_type == "stream"
            and kept
            and kept[-1].output_type == "stream"
            and kept[-1].name == output.name
        ):
            kept[-1].text += output.text
            continue
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = output.data["image/png"].strip()
            output.metadata = {"image/png": {"alt": alt}} if alt else {}
        kept.append(nbformat.from_dict(output))
    for output in kept:
        if output.output_type == "stream":  # of a progress bar, its last state
            output.text = "\n".join(line.split("\r")[-1] for line in output.text.split("\n"))
    return kept


def difference(old: Any, new: Any) -> str:
    """Say in a few words how two notebooks differ; '' if they do not."""
    if old.metadata != new.metadata:
        return "its metadata"
    if len(old.cells) != len(new.cells):
        return f"{len(old.cells)} cells, {len(new.cells)} expected"
    for number, (was, now) in enumerate(zip(old.cells, new.cells, strict=True)):
        if _bare(was) != _bare(now):
            return f"cell {number}, its text or code"
        if now.cell_type == "code" and not _same_outputs(was, now):
            return f"cell {number}, its output"
    return ""


def _bare(cell: Any) -> dict[str, Any]:
    return {key: value for key, value in cell.items() if key != "outputs"}


def _same_outputs(old: Any, new: Any) -> bool:
    if "nbval-ignore-output" in new.metadata.get("tags", []):
        return True  # a timing, a device, or what training came to on one machine
    return len(old.outputs) == len(new.outputs) and all(map(_same_output, old.outputs, new.outputs))


def _same_output(old: Any, new: Any) -> bool:
    old, new = dict(old), dict(new)
    before, after = dict(old.pop("data", {})), dict(new.pop("data", {}))
    picture, other = before.pop("image/png", None), after.pop("image/png", None)
    if old != new or before != after or (picture is None) != (other is None):
        return False
    return picture is None or picture.strip() == other.strip() or _look_alike(picture, other)


def _look_alike(first: str, second: str) -> bool:
    # Another processor or FreeType may shift a pixel's shade; nobody should commit that.
    a, b = _pixels(first), _pixels(second)
    return a.shape == b.shape and float((abs(a - b) > VISIBLE).mean()) < PIXELS_PER_THOUSAND / 1000


def _pixels(png: str) -> np.ndarray:
    from matplotlib.image import imread

    return 255 * imread(io.BytesIO(base64.b64decode(png)), format="png")
