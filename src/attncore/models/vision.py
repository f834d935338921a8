"""A small vision transformer: checks, maps of attention, and NumPy parameters."""

from __future__ import annotations

from typing import Any

import numpy as np

from attncore.base.arrays import Array, dtype_name, is_bool, namespace, shape_of
from attncore.base.integers import check_axes, check_sizes
from attncore.images import patches
from attncore.models import functional
from attncore.models.functional import Look
from attncore.models.inputs import check_array
from attncore.models.layers import Block
from attncore.models.plain import LayerNorm, Linear, Module


class VisionParts:
    """Sizes, checks and forward pass of a vision transformer; the parameters are elsewhere."""

    embed: Any
    cls: Any
    position: Any
    blocks: Any
    norm: Any
    head: Any

    def _set_sizes(
        self, shape: tuple[int, int, int], size: int, d_model: int, layers: int, classes: int
    ) -> tuple[int, int]:
        """Return T and how many numbers a patch has."""
        rows, columns, channels = check_axes(shape, "rows, columns, channels")
        check_sizes(rows=rows, columns=columns, channels=channels, classes=classes)
        check_sizes(d_model=d_model, layers=layers)
        self.shape, self.size = (rows, columns, channels), size
        T, numbers = patches(np.zeros((rows, columns, channels), np.bool_), size).shape
        return T, numbers

    def forward(
        self, images: Array, keep: Array | None = None, *, look: Look | None = None
    ) -> Array:
        """Score every class for every image.

        Parameters
        ----------
        images
            `(B, rows, columns, channels)`.
        keep
            Boolean `(B, T)`: which patches may be attended to. All, unless given.
        look
            As in the blocks, whose names are put before: "blocks.0.attention.weights".

        Returns
        -------
        Array
            `(B, classes)`, the logits: softmax makes them probabilities.
        """
        self._check(images, keep)
        mask = None
        if keep is not None:  # CLS may always be attended to
            xp = namespace(keep=keep)
            mask = xp.concatenate([xp.ones_like(keep[:, :1]), keep], 1)[:, None, None]
        return functional.vision(self, patches(images, self.size), mask, look)

    def weights(self, images: Array, keep: Array | None = None) -> Array:
        """Return the attention `(layers, B, H, 1 + T, 1 + T)` that :meth:`forward` uses.

        Row and column 0 are those of CLS. The arguments are those of :meth:`forward`.
        """
        found: dict[str, Array] = {}
        self.forward(images, keep, look=functional.into(found))
        maps = [found[f"blocks.{n}.attention.weights"] for n in range(len(self.blocks))]
        return namespace(images=images).stack(maps)

    def _check(self, images: Array, keep: Array | None) -> None:
        weight = self.embed.weight
        check_array("images", images, weight)
        if images.dtype != weight.dtype:
            raise TypeError(
                f"images must be {dtype_name(weight)}, as the parameters are, "
                f"got {dtype_name(images)}"
            )
        if shape_of(images)[1:] != self.shape:
            rows, columns, channels = self.shape
            raise ValueError(
                f"images must be (B, {rows}, {columns}, {channels}), got {shape_of(images)}"
            )
        if keep is None:
            return
        check_array("keep", keep, weight)
        if not is_bool(keep):
            raise TypeError(f"keep must be boolean (True = attend), got {dtype_name(keep)}")
        wanted = (images.shape[0], self.shape[0] * self.shape[1] // self.size**2)
        if shape_of(keep) != wanted:
            raise ValueError(f"keep must be (B, T) = {wanted}, got {shape_of(keep)}")


class VisionTransformer(VisionParts, Module):
    r"""An encoder over the patches of an image, and a class read from one extra row.

    .. math:: x = [\,c;\; \operatorname{patches}(\text{image})\, W + b\,] + P, \qquad
        x \leftarrow \operatorname{block}_l(x), \qquad
        \text{logits} = \operatorname{norm}(x_0) W_N + b_N

    The NumPy twin of :class:`attncore.nn.VisionTransformer`, which says what c and P are.

    Parameters
    ----------
    shape, classes, size, d_model, layers, heads, positions
        As in :class:`attncore.nn.VisionTransformer`.
    dtype
        Of the parameters.
    rng
        A seed or a NumPy generator, from which they are drawn.

    Raises
    ------
    ValueError, TypeError
        As :class:`attncore.nn.VisionTransformer`.

    References
    ----------
    Dosovitskiy et al. (2021), section 3.1.

    Examples
    --------
    >>> model = VisionTransformer((8, 8, 1), 10, size=2, d_model=16, layers=2, heads=4, rng=0)
    >>> images = np.zeros((3, 8, 8, 1))
    >>> model(images).shape                                      # (B, classes)
    (3, 10)
    >>> model.weights(images).shape                              # (layers, B, H, 1 + T, 1 + T)
    (2, 3, 4, 17, 17)
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
        dtype: Any = np.float64,
        rng: Any = None,
    ) -> None:
        T, numbers = self._set_sizes(shape, size, d_model, layers, classes)
        rng = np.random.default_rng(rng)
        options: dict[str, Any] = {"dtype": dtype, "rng": rng}
        self.cls = (0.02 * rng.standard_normal((1, d_model))).astype(dtype)
        table = 0.5 * rng.standard_normal((1 + T, d_model))
        self.position = table.astype(dtype) if positions else None
        self.embed = Linear(numbers, d_model, **options)
        self.blocks = [Block(d_model, heads, **options) for _ in range(layers)]
        self.norm = LayerNorm(d_model, dtype)
        self.head = Linear(d_model, classes, **options)
