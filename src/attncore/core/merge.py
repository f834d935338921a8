"""Results of parts of the keys, joined into that of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attncore.base.arrays import (
    Array,
    as_floats,
    cast,
    check_dense,
    check_device,
    is_tensor,
    namespace,
    shape_of,
    wide,
)
from attncore.core.softmax import weigh_and_sum


def merge(outs: Sequence[Array], lses: Sequence[Array]) -> tuple[Array, Array]:
    r"""Join attention to parts of the keys into attention to all of them, exactly.

    .. math:: o = \sum_n \frac{e^{l_n}}{\sum_m e^{l_m}} o_n, \qquad l = \log \sum_n e^{l_n}

    Each part tells by its log-sum-exp l how much of the whole sum it has seen. So keys can be
    spread over memory, over pages or over machines. A sink belongs in one part only, since it
    counts once.

    Parameters
    ----------
    outs
        The outputs of the parts, one or more, each `(..., H, Tq, E)`, in a list or along the
        first axis of an array.
    lses
        Their log-sum-exps, each `(..., H, Tq)`, as :func:`attention` returns them with
        ``return_lse=True``. Minus infinity: this part saw no key.

    Returns
    -------
    out : Array
        `(..., H, Tq, E)`, of the library, dtype and device of `outs`; zeros where no part saw a
        key.
    lse : Array
        `(..., H, Tq)`, of the dtype of `lses`, 32 bits at least. Both can be merged again.

    Raises
    ------
    ValueError
        If there is no part, not as many outputs as log-sum-exps, or shapes do not fit.
    TypeError
        If libraries or dtypes are mixed.

    References
    ----------
    Milakov and Gimelshein (2018), section 3.1; Dao et al. (2023), section 3.1.

    Examples
    --------
    >>> import numpy as np
    >>> import attncore as ac
    >>> q, k, v = np.random.default_rng(0).normal(size=(3, 6, 4))
    >>> parts = [ac.attention(q, k[n], v[n], return_lse=True) for n in (slice(2), slice(2, 6))]
    >>> out, lse = merge(*zip(*parts))
    >>> np.allclose(out, ac.attention(q, k, v))
    True
    """
    namespace(outs=outs, lses=lses)
    outs, lses = _parts("outs", outs), _parts("lses", lses)
    if len(outs) != len(lses):
        raise ValueError(
            f"outs and lses must be as many, one of each for a part: {len(outs)} outs, "
            f"{len(lses)} lses"
        )
    xp = namespace(**_named("outs", outs), **_named("lses", lses))
    _, *outs = as_floats(**_named("outs", outs))
    _, *lses = as_floats(**_named("lses", lses))
    check_device(outs=outs[0], lses=lses[0])
    for n, (out, lse) in enumerate(zip(outs, lses, strict=True)):
        if shape_of(out) != shape_of(outs[0]):
            raise ValueError(
                f"outs must be of one shape (..., H, Tq, E): outs[0] {shape_of(outs[0])}, "
                f"outs[{n}] {shape_of(out)}; a part must have all queries"
            )
        if shape_of(lse) != shape_of(out)[:-1] or out.ndim == 0:
            raise ValueError(
                f"lses must be (..., H, Tq) for outs (..., H, Tq, E): outs[{n}] {shape_of(out)}, "
                f"lses[{n}] {shape_of(lse)}"
            )
    shares, lse = weigh_and_sum(xp, xp.stack([wide(xp, lse) for lse in lses]), None, axis=0)
    out = sum(share[..., None] * wide(xp, out) for share, out in zip(shares, outs, strict=True))
    return cast(xp, out, outs[0].dtype), lse


def _named(name: str, parts: list[Array]) -> dict[str, Array]:
    return {f"{name}[{n}]": part for n, part in enumerate(parts)}


def _parts(name: str, parts: Any) -> list[Array]:
    """Return the parts as a list: of a list or tuple, or of an array along its first axis."""
    if is_tensor(parts) or isinstance(parts, np.ndarray):
        check_dense(name, parts)
        parts = [parts[n] for n in range(parts.shape[0])] if parts.ndim else None
    if not isinstance(parts, (list, tuple)):
        raise TypeError(f"{name} must be a list of arrays, one for each part of the keys")
    if len(parts) == 0:
        raise ValueError(f"{name} is empty: give the result of one part at least")
    return list(parts)
