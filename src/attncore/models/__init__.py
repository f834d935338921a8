"""Models with NumPy parameters: they read, write and can be looked into, in a browser too.

:mod:`attncore.nn` has the same as torch modules, which train and run on a GPU. The names of
classes, methods and parameters are the same, and so is the forward pass, which stands in
:mod:`attncore.models.functional`. One layer of attention can be trained here too: the gradient,
written out by hand, is in :mod:`attncore.models.gradient`.
"""

from attncore.models.adam import Adam
from attncore.models.gradient import with_gradient
from attncore.models.latent import LatentAttention
from attncore.models.layers import Block, MultiHeadAttention
from attncore.models.lm import Decoder, load, whale
from attncore.models.seq2seq import Translator
from attncore.models.trained import steps, trained
from attncore.models.vision import VisionTransformer

__all__ = [
    "Adam",
    "Block",
    "Decoder",
    "LatentAttention",
    "MultiHeadAttention",
    "Translator",
    "VisionTransformer",
    "load",
    "steps",
    "trained",
    "whale",
    "with_gradient",
]
