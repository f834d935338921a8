"""Pictures of small arrays: what goes where, with every number, as SVG that any notebook shows.

Colours mean the same everywhere: queries are blue, keys orange, values green, scores and weights
purple, and outputs dark. On its own a picture is dark ink on white; in the book it takes the
page's theme. Plots of data are matplotlib's: :mod:`attncore.plot`.
"""

from attncore.draw.activations import activations
from attncore.draw.block import block
from attncore.draw.cache import kv_cache
from attncore.draw.decoder import decoder
from attncore.draw.embedding import embedding
from attncore.draw.heads import heads
from attncore.draw.machine import attention, machine
from attncore.draw.mask import mask
from attncore.draw.matrices import equation, matrix
from attncore.draw.matrix import Matrix
from attncore.draw.memory import memory
from attncore.draw.pages import pages
from attncore.draw.patches import patches
from attncore.draw.picture import Picture
from attncore.draw.positions import positions
from attncore.draw.product import product
from attncore.draw.regression import regression
from attncore.draw.ring import ring
from attncore.draw.rotations import rotations
from attncore.draw.scene import Box, Scene
from attncore.draw.sharing import head_sharing
from attncore.draw.table import Table, table
from attncore.draw.tiles import tiles
from attncore.draw.timetable import timetable
from attncore.draw.translation import translation
from attncore.draw.vision import vision

__all__ = [
    "Box",
    "Matrix",
    "Picture",
    "Scene",
    "Table",
    "activations",
    "attention",
    "block",
    "decoder",
    "embedding",
    "equation",
    "head_sharing",
    "heads",
    "kv_cache",
    "machine",
    "mask",
    "matrix",
    "memory",
    "pages",
    "patches",
    "positions",
    "product",
    "regression",
    "ring",
    "rotations",
    "table",
    "tiles",
    "timetable",
    "translation",
    "vision",
]
