"""Ways to tell attention where tokens stand: added to rows or to scores, or by turning.

Attention compares contents only. A position can be added to the rows that enter a layer
(:func:`sinusoidal`), put into queries and keys by turning them (:func:`rope`, at the speeds of
:func:`rope_speeds`), or become a number added to the scores, ``bias=`` (:func:`alibi`,
:func:`t5_bucket`, :func:`xl_bias`).
Query i stands at position `Tk - Tq + i` and key j at j, as in :mod:`attncore.masks`.
"""

from __future__ import annotations

from attncore.positions.relative import alibi, distances, skew, t5_bucket, xl_bias
from attncore.positions.rotary import PAIRINGS as PAIRINGS
from attncore.positions.rotary import rope
from attncore.positions.speeds import rope_speeds
from attncore.positions.waves import sinusoidal

__all__ = [
    "alibi",
    "distances",
    "rope",
    "rope_speeds",
    "sinusoidal",
    "skew",
    "t5_bucket",
    "xl_bias",
]
