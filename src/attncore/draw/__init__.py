"""Pictures of small arrays: what goes where, with every number, as SVG that any notebook shows.

Colours mean the same everywhere: queries are blue, keys orange, values green, scores and weights
purple, and outputs dark. On its own a picture is dark ink on white; in the book it takes the
page's theme. Plots of data are matplotlib's: :mod:`attncore.plot`.
"""

from attncore.draw.block import block
from attncore.draw.cache import kv_cache
from attncore.draw.heads import heads
from attncore.draw.machine import attention, machine
from attncore.draw.mask import mask
from attncore.draw.matrix import Matrix
from attncore.draw.picture import Picture
from attncore.draw.product import product
from attncore.draw.regression import regression
from attncore.draw.scene import Box, Scene
from attncore.draw.sharing import head_sharing

__all__ = [
    "Box",
    "Matrix",
    "Picture",
    "Scene",
    "attention",
    "block",
    "head_sharing",
    "heads",
    "kv_cache",
    "machine",
    "mask",
    "product",
    "regression",
]
