"""attncore: attention you can read, check and use, for NumPy and torch.

>>> import numpy as np
>>> import attncore as ac
>>> q, k, v = np.eye(2), np.eye(2), np.array([[1.0], [0.0]])
>>> ac.attention(q, k, v).round(2)
array([[0.67],
       [0.33]])
"""

from attncore import cost, data, images, kernels, masks, positions, sampling, scores
from attncore._attention import attention, attention_weights
from attncore._cache import KVCache
from attncore._device import pick_device
from attncore._linear import linear_attention
from attncore._regression import (
    attention_pooling,
    choose_bandwidth,
    kernel_weights,
    leave_one_out,
    nadaraya_watson,
)
from attncore._softmax import softmax
from attncore._sparse import sparse_attention
from attncore._static import StaticKVCache
from attncore._streaming import streaming_attention

__version__ = "0.1.0"

__all__ = [
    "KVCache",
    "StaticKVCache",
    "attention",
    "attention_pooling",
    "attention_weights",
    "choose_bandwidth",
    "cost",
    "data",
    "images",
    "kernel_weights",
    "kernels",
    "leave_one_out",
    "linear_attention",
    "masks",
    "nadaraya_watson",
    "pick_device",
    "positions",
    "sampling",
    "scores",
    "softmax",
    "sparse_attention",
    "streaming_attention",
]
