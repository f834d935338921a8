"""A small vision transformer, as a torch module. Not loaded by ``import attncore``."""

from __future__ import annotations

import torch
from torch import nn

from attncore.models.vision import VisionParts
from attncore.nn.layers import Block


class VisionTransformer(VisionParts, nn.Module):
    r"""An encoder over the patches of an image, and a class read from one extra row.

    .. math:: x = [\,c;\; \operatorname{patches}(\text{image})\, W + b\,] + P, \qquad
        x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits} = \operatorname{norm}(x_0) W_N + b_N

    c is a learned row that belongs to no patch, often called CLS; P is a learned table with
    one row for c and one for each patch.

    Parameters
    ----------
    shape
        (rows, columns, channels) of the images it reads.
    classes
        How many classes there are.
    size
        Side of a patch in pixels.
    d_model, layers, heads
        The sizes of the blocks.
    positions
        False leaves P out: the model then cannot tell one order of the patches from another.

    Raises
    ------
    ValueError
        If a size does not fit; on a call, if images or `keep` have another shape or device.
    TypeError
        If `shape` is no tuple or a size no integer; on a call, if images are no tensor of the
        dtype of the parameters, or `keep` is not boolean.

    References
    ----------
    Dosovitskiy et al. (2021), section 3.1.

    Examples
    --------
    >>> model = VisionTransformer((8, 8, 1), 10, size=2, d_model=16, layers=2, heads=4)
    >>> images = torch.zeros(3, 8, 8, 1)
    >>> model(images).shape                                      # (B, classes)
    torch.Size([3, 10])
    >>> model.weights(images).shape                              # (layers, B, H, 1 + T, 1 + T)
    torch.Size([2, 3, 4, 17, 17])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        size: int,
        d_model: int,
        layers: int,
        heads: int,
        positions: bool = True,
    ) -> None:
        super().__init__()
        T, numbers = self._set_sizes(shape, size, d_model, layers, classes)
        self.embed = nn.Linear(numbers, d_model)
        self.cls = nn.Parameter(torch.empty(1, d_model))
        table = nn.Parameter(torch.empty(1 + T, d_model)) if positions else None
        self.register_parameter("position", table)
        self.blocks = nn.ModuleList(Block(d_model, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, classes)
        nn.init.normal_(self.cls, std=0.02)
        if table is not None:
            # Small models learn several times faster than from the usual 0.02.
            nn.init.normal_(table, std=0.5)
