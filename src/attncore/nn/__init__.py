"""Layers and models as torch modules: they train, and run on a GPU. Needs torch."""

from attncore.nn.latent import LatentAttention
from attncore.nn.layers import Block, MultiHeadAttention
from attncore.nn.lm import Decoder, load, whale
from attncore.nn.seq2seq import Translator, fit
from attncore.nn.vision import VisionTransformer

__all__ = [
    "Block",
    "Decoder",
    "LatentAttention",
    "MultiHeadAttention",
    "Translator",
    "VisionTransformer",
    "fit",
    "load",
    "whale",
]
