"""Boolean masks. True = may attend, everywhere in this package.

A mask is laid over the scores `(..., H, Tq, Tk)`: row = query, column = key. Query i
stands at position `Tk - Tq + i`, so the last query is level with the last key
("lower right"), which is what decoding with a cache needs. torch's ``is_causal=True``
is "upper left" and differs whenever Tq and Tk differ.
"""

from __future__ import annotations

from attncore.base.arrays import (
    Array,
    check_boolean,
    check_device,
    namespace,
    padding_mask,
    positions,
)
from attncore.base.checks import check_lengths
from attncore.base.integers import check_length, check_product, check_window
from attncore.base.settings import check_flag
from attncore.masks.documents import documents
from attncore.masks.patterns import FARTHEST, global_tokens, random_keys, symmetric_window

__all__ = [
    "causal",
    "combine",
    "documents",
    "global_tokens",
    "padding",
    "random_keys",
    "symmetric_window",
    "window",
]


def causal(
    Tq: int, Tk: int | None = None, *, window: int | None = None, like: Array | None = None
) -> Array:
    r"""Mask the keys that lie in a query's future, and with `window` also the distant past.

    .. math:: M_{ij} = [\,0 \le p_i - j < W\,], \qquad p_i = T_k - T_q + i

    Parameters
    ----------
    Tq, Tk
        Number of queries and of keys; `Tk` is `Tq` unless given.
    window
        W: a query sees W keys, its own included (flash-attn's ``left = W - 1``).
        None: no limit.
    like
        An array of the wanted library and device; NumPy without it.

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`.

    Raises
    ------
    ValueError
        If a length is negative or `window` is below 1.
    TypeError
        If a length or `window` is not an integer, or `like` is not an array.

    References
    ----------
    Vaswani et al. (2017), section 3.2.3 (causal); Beltagy et al. (2020), section 3.1 (window).

    Examples
    --------
    >>> print(causal(2, 5).astype(int))
    [[1 1 1 1 0]
     [1 1 1 1 1]]
    >>> print(causal(5, 2).astype(int))
    [[0 0]
     [0 0]
     [0 0]
     [1 0]
     [1 1]]
    >>> print(causal(4, window=2).astype(int))
    [[1 0 0 0]
     [1 1 0 0]
     [0 1 1 0]
     [0 0 1 1]]
    """
    queries, keys = positions(Tq, Tk, like)
    age = queries - keys
    past = age >= 0
    if window is None:
        return past
    return past & (age < min(check_window(window), FARTHEST))


def window(Tq: int, Tk: int | None = None, *, size: int, like: Array | None = None) -> Array:
    """Let each query see the last `size` keys, its own included.

    The same as ``causal(Tq, Tk, window=size)``, for when the window is the point.

    Parameters
    ----------
    Tq, Tk, like
        As in :func:`causal`.
    size
        W, the number of keys a query sees.

    Returns
    -------
    Array
        Boolean `(Tq, Tk)`.

    Raises
    ------
    ValueError, TypeError
        As :func:`causal`.

    References
    ----------
    Beltagy et al. (2020), section 3.1.

    Examples
    --------
    >>> print(window(2, 5, size=3).astype(int))
    [[0 1 1 1 0]
     [0 0 1 1 1]]
    """
    return causal(Tq, Tk, window=check_window(size), like=like)


def padding(lengths: Array, Tk: int, *, left: bool = False) -> Array:
    r"""Mask the keys at and beyond each sequence's length, or those before it.

    .. math:: M_{b,1,1,j} = [\,j < \text{length}_b\,], \qquad \text{left: }
        M_{b,1,1,j} = [\,j \ge T_k - \text{length}_b\,]

    Parameters
    ----------
    lengths
        Integers `(B,)`: how many keys of each sequence are real. Array, tensor or list.
    Tk
        Number of keys after padding.
    left
        Whether the padding comes first, as in prompts that are all to be continued: then the last
        keys of each sequence are the real ones.

    Returns
    -------
    Array
        Boolean `(B, 1, 1, Tk)`, ready for scores `(B, H, Tq, Tk)`. Padded *queries* are
        not masked: they still produce output rows, which you ignore.

    Raises
    ------
    ValueError
        If `lengths` is not `(B,)` or a length is outside 0 to Tk.
    TypeError
        If the lengths are not integers, or `left` is no flag.

    References
    ----------
    The layout follows ``torch.nn.functional.scaled_dot_product_attention``.

    Examples
    --------
    >>> padding([1, 3], 4)[:, 0, 0].astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 1, 0]])
    """
    Tk = check_length("Tk", Tk)
    left = check_flag("left", left)
    check_product(Tk=Tk)
    counts = check_lengths(lengths, Tk)
    check_product(B=counts.shape[0], Tk=Tk)
    return ~padding_mask(Tk - counts, Tk) if left else padding_mask(counts, Tk)


def combine(*masks: Array | None) -> Array | None:
    """Allow only what every mask allows; None stands for "no limit".

    Parameters
    ----------
    *masks
        Boolean arrays of one library whose shapes broadcast together, or None.

    Returns
    -------
    Array or None
        Their logical AND; None if all are None.

    Raises
    ------
    TypeError
        If a mask is not boolean, or NumPy and torch are mixed.
    ValueError
        If the shapes do not broadcast together.

    References
    ----------
    The rule is that of ``flax.linen.combine_masks``.

    Examples
    --------
    >>> combine(causal(3), None, padding([2], 3))[0, 0].astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 0]])
    """
    given = [mask for mask in masks if mask is not None]
    xp = namespace(**{f"mask {i}": mask for i, mask in enumerate(given)})
    for i, mask in enumerate(given):
        check_boolean(f"mask {i}", mask)
    check_device(**{f"mask {i}": mask for i, mask in enumerate(given)})
    try:
        xp.broadcast_shapes(*(tuple(mask.shape) for mask in given))
    except (ValueError, RuntimeError):  # NumPy's, and torch's
        shapes = ", ".join(str(tuple(mask.shape)) for mask in given)
        raise ValueError(f"masks do not broadcast together: {shapes}") from None
    result = None
    for mask in given:
        result = mask if result is None else result & mask
    return result
