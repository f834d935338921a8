"""A small vision transformer. Not loaded by ``import attncore``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attncore.base.arrays import check_device, dtype_name, is_bool, shape_of
from attncore.base.integers import check_axes, check_sizes
from attncore.images import patches
from attncore.nn.layers import Block, check_rows


class VisionTransformer(nn.Module):
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

    position: nn.Parameter | None

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
        rows, columns, channels = check_axes(shape, "rows, columns, channels")
        check_sizes(rows=rows, columns=columns, channels=channels, classes=classes)
        check_sizes(d_model=d_model, layers=layers)
        T, numbers = patches(torch.empty(rows, columns, channels, device="meta"), size).shape
        self.shape, self.size = (rows, columns, channels), size
        self.embed = nn.Linear(numbers, d_model)
        self.cls = nn.Parameter(torch.empty(1, d_model))
        table = nn.Parameter(torch.empty(1 + T, d_model)) if positions else None
        self.register_parameter("position", table)
        self.blocks = nn.ModuleList(Block(d_model, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, classes)
        nn.init.normal_(self.cls, std=0.02)
        if self.position is not None:
            # Small models learn several times faster than from the usual 0.02.
            nn.init.normal_(self.position, std=0.5)

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Score every class for every image.

        Parameters
        ----------
        images
            `(B, rows, columns, channels)`.
        keep
            Boolean `(B, T)`: which patches may be attended to. All, unless given.

        Returns
        -------
        Tensor
            `(B, classes)`, the logits: softmax makes them probabilities.
        """
        x, mask = self._tokens(images, keep)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.head(self.norm(x[:, 0]))

    def weights(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the attention `(layers, B, H, 1 + T, 1 + T)` that :meth:`forward` uses.

        Row and column 0 are those of CLS. The arguments are those of :meth:`forward`.
        """
        x, mask = self._tokens(images, keep)
        found = []
        for module in self.blocks:
            block: Any = module
            found.append(block.attention.weights(block.norm1(x), mask=mask))
            x = block(x, mask=mask)
        return torch.stack(found)

    def _tokens(self, images: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what enters the first block, `(B, 1 + T, d_model)`, and its mask."""
        self._check(images, keep)
        x = self.embed(patches(images, self.size))
        x = torch.cat([self.cls.expand(x.shape[0], 1, -1), x], dim=1)
        if self.position is not None:
            x = x + self.position
        if keep is None:
            return x, None
        return x, torch.nn.functional.pad(keep, (1, 0), value=True)[:, None, None]

    def _check(self, images: Tensor, keep: Tensor | None) -> None:
        dtype = self.embed.weight.dtype
        if not isinstance(images, Tensor) or images.dtype != dtype:
            found = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"images must be a {dtype} tensor, as the parameters are, got {found}")
        check_rows("images", images, self.embed.weight)
        if shape_of(images)[1:] != self.shape:
            rows, columns, channels = self.shape
            raise ValueError(
                f"images must be (B, {rows}, {columns}, {channels}), got {shape_of(images)}"
            )
        if keep is None:
            return
        if not isinstance(keep, Tensor):
            raise TypeError(f"keep must be a boolean tensor, got {type(keep).__name__}")
        if not is_bool(keep):
            raise TypeError(f"keep must be boolean (True = attend), got {dtype_name(keep)}")
        wanted = (images.shape[0], self.shape[0] * self.shape[1] // self.size**2)
        if shape_of(keep) != wanted:
            raise ValueError(f"keep must be (B, T) = {wanted}, got {shape_of(keep)}")
        check_device(keep=keep, images=images)
