"""attncore: attention you can read, check and use, for NumPy and torch.

>>> import numpy as np
>>> import attncore as ac
>>> q, k, v = np.eye(2), np.eye(2), np.array([[1.0], [0.0]])
>>> ac.attention(q, k, v).round(2)
array([[0.67],
       [0.33]])
"""

from attncore import cost, data, images, kernels, masks, positions, sampling, scores
from attncore.base.device import pick_device
from attncore.cache.cross import CrossKVCache
from attncore.cache.growing import KVCache
from attncore.cache.paged import PagedKVCache
from attncore.cache.ragged import RaggedKVCache
from attncore.cache.static import StaticKVCache
from attncore.core.attention import attention, attention_weights
from attncore.core.merge import merge
from attncore.core.softmax import softmax
from attncore.long.linear import linear_attention
from attncore.long.packed import packed_attention
from attncore.long.sparse import sparse_attention
from attncore.long.streaming import streaming_attention
from attncore.regression import (
    attention_pooling,
    choose_bandwidth,
    kernel_weights,
    leave_one_out,
    nadaraya_watson,
)

__version__ = "0.1.0"

__all__ = [
    "CrossKVCache",
    "KVCache",
    "PagedKVCache",
    "RaggedKVCache",
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
    "merge",
    "nadaraya_watson",
    "packed_attention",
    "pick_device",
    "positions",
    "sampling",
    "scores",
    "softmax",
    "sparse_attention",
    "streaming_attention",
]
