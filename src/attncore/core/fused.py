"""Attention by torch's own kernel, on the way that is fast for each case."""

from __future__ import annotations

import math
import sys
from typing import Any

from attncore import masks
from attncore.base.arrays import Array, cast, is_tensor, wide
from attncore.base.tracing import known, varies
from attncore.core.blocks import joined, spans
from attncore.core.call import Call
from attncore.core.reference import learns, levelled, with_sinks

BLOCK = 256  # queries at a time: shorter blocks make torch take smaller, slower tiles


def fits_at_once(q: Array, k: Array, v: Array, causal: bool) -> bool:
    """Tell whether the kernel takes these as they are: the commonest calls, checked fast."""
    torch = sys.modules.get("torch")
    if torch is None or not (type(q) is type(k) is type(v) is torch.Tensor):
        return False
    if q.is_nested or k.is_nested or v.is_nested:  # these have no shape
        return False
    shape, wanted, dtype, device = q.shape, k.shape, q.dtype, q.device
    if len(shape) != 4 or len(wanted) != 4 or type(shape[2]) is not int:  # a symbol
        return False
    if shape != wanted:
        B, H, Tq, D = shape
        if (wanted[0], wanted[3]) != (B, D) or (causal and Tq != 1):
            return False
        G = wanted[1]
        if H != G and (Tq != 1 or G == 0 or H % G):  # one query of shared heads: see at_once
            return False
    return (
        v.shape == wanted
        and dtype == k.dtype == v.dtype
        and device == k.device == v.device
        and dtype.is_floating_point
        and q.layout == k.layout == v.layout == torch.strided
        and q.numel() > 0 < k.numel()
    )


def at_once(q: Array, k: Array, v: Array, causal: bool) -> Array:
    """Return attention of what fits at once."""
    kernel = sys.modules["torch"].nn.functional.scaled_dot_product_attention
    B, H, Tq, D = q.shape
    if causal and Tq != 1:  # a single query is the last: it has no future
        return kernel(q, k, v, is_causal=True)
    G = k.shape[1]
    if G == H:
        return kernel(q, k, v)
    # Query heads that share keys are further rows of one product: the keys are read once.
    return kernel(q.reshape(B, G, H // G, D), k, v).reshape(B, H, 1, D)


def why_not(call: Call) -> str:
    """Say why the kernel cannot be used; '' if it can."""
    q, k, bias = call.q, call.k, call.bias
    if not is_tensor(q):
        return "the arrays are NumPy"
    if 0 in q.shape or 0 in k.shape:
        return f"an axis is empty: q {tuple(q.shape)}, k {tuple(k.shape)}"
    if bias is not None and bias.requires_grad and call.xp.is_grad_enabled():
        return "it has no gradient for the bias"
    if call.softcap is not None:
        return "it has no softcap"
    if call.dropout:
        return "it takes no generator for its dropout, and on a CPU builds all weights for it"
    if call.needs_lse and q.device.type != "cpu":
        return "only the CPU's kernel tells the log-sum-exp, which sinks and return_lse need"
    if call.needs_lse and learns(q, k, call.scale):
        return "it has no gradient for the log-sum-exp, which sinks and return_lse need"
    return ""


def fused(call: Call) -> tuple[Array, Array | None]:
    """Return attention `(..., H, Tq, E)` without building the weights, and the log-sum-exp."""
    if call.sinks is not None:
        out, lse = fused(call.but(sinks=None, wants_lse=True))
        return with_sinks(call.xp, out, lse, call.sinks)
    call, torch = _with_a_scale(call.settled()), call.xp
    q, k, v, mask, bias = call.q, call.k, call.v, call.mask, call.bias
    causal, window = call.causal, call.window
    Tq, Tk = q.shape[-2], k.shape[-2]
    here = q.device.type == "cpu"
    if bias is not None and bias.dtype != q.dtype and q.element_size() == 2 and not here:
        # Only the CPU's kernel adds numbers of 32 bits to the scores of queries of 16.
        q, k, v = (wide(torch, array) for array in (q, k, v))
        out, lse = fused(call.but(q=q, k=k, v=v))
        return cast(torch, out, call.q.dtype), lse
    if window is not None and known(window >= Tk):
        causal, window = True, None
    limited = causal or window is not None
    # Else a long bias goes in blocks, that its copy be small. To a compiler T may be a variable.
    whole = bias is None or torch.compiler.is_compiling() or Tq <= BLOCK
    if not limited and whole:
        return _kernel(call, mask)
    # The kernel's is_causal is upper-left: ours only when the two lengths are equal.
    if known(Tq == Tk) and window is None and mask is None and bias is None:
        return _kernel(call, None, is_causal=True)
    if varies(Tq, Tk):  # how many blocks there are would be settled
        return _kernel(call, call.allowed())
    outs = []
    band: Array | None = None
    for rows, keys in spans(Tq, Tk, BLOCK, causal=causal, window=window):
        n, seen = rows.stop - rows.start, keys.stop - keys.start
        block = call.part(rows, keys)
        if seen == 0:  # these come before the first key
            outs.append(block.unseen())
            continue
        # No row is ended early by the window, and nothing else is hidden but the future.
        plain = mask is None and bias is None and (window is None or window >= seen)
        if plain and n == seen:  # as the first block is
            outs.append(_kernel(block, None, is_causal=True))
            continue
        # A single query sees all that is cut out for it.
        if n == 1 or not limited:
            band = None
        elif plain:
            band = _future(torch, n, seen, q)
        elif band is None or band.shape != (n, seen):
            band = masks.causal(n, seen, window=window, like=q)
        outs.append(_kernel(block, _both(block.mask, band)))
    return joined(torch, outs)


def _both(mask: Array | None, band: Array | None) -> Array | None:
    """Return what both allow; a band alone may be numbers to add."""
    return band if mask is None else masks.combine(mask, band)


def _future(torch: Any, n: int, seen: int, q: Array) -> Array:
    """Return what to add to hide the future, `(n, seen)`: the last query sees the last key.

    The same as :func:`masks.causal`, but only the corner where something is hidden is computed.
    """
    corner = min(n, seen)
    options = {"dtype": q.dtype, "device": q.device}
    hidden = torch.full((n, corner), -math.inf, **options).triu(corner - n + 1)
    return torch.cat([torch.zeros((n, seen - corner), **options), hidden], dim=1)


def _with_a_scale(call: Call) -> Call:
    """Return the call with a scale that is a positive number, as the kernel needs it.

    It hides scores by minus infinity, which it then multiplies by the scale; a number is not
    learned.
    """
    q, scale = call.q, call.scale
    if is_tensor(scale):
        return call.but(q=q * scale, scale=1.0)
    if scale < 0:
        q, scale = -q, -scale
    if scale < call.xp.finfo(call.xp.float32).tiny:  # in 32 bits this could be 0
        q, scale = q * scale, 1.0
    return call if scale == call.scale else call.but(q=q, scale=scale)


def _kernel(
    call: Call, allowed: Array | None, is_causal: bool = False
) -> tuple[Array, Array | None]:
    """Call the kernel in the one form that is fused: four axes, values as wide as keys.

    `allowed` is a boolean mask, or in place of a bias numbers to add.
    """
    torch, q, k, v = call.xp, call.q, call.k, call.v
    D, E = q.shape[-1], v.shape[-1]
    extra, taken = allowed, None
    if call.bias is not None:
        dtype = wide(torch, q).dtype if q.device.type == "cpu" else q.dtype
        extra, taken = levelled(torch, call.bias, allowed, dtype)
    if extra is not None:
        extra = _four_axes(extra.expand(*extra.shape[:-1], k.shape[-2]), q)
    q4, k4, v4 = (_four_axes(array, array) for array in (q, k, v))
    if D < E:  # zeros add nothing to a score, and `scale` is set
        q4, k4 = (torch.nn.functional.pad(array, (0, E - D)) for array in (q4, k4))
    elif E < D:
        v4 = torch.nn.functional.pad(v4, (0, D - E))
    B, H, Tq, _ = q4.shape
    G = k4.shape[1]
    grouped = H != G
    # Query heads that share keys are further rows of one product: the keys are read once.
    folds = grouped and not is_causal and (extra is None or known(Tq == 1))
    if folds:
        q4 = q4.reshape(B, G, H // G * Tq, q4.shape[-1])
        if extra is not None and extra.shape[1] != 1:
            extra = extra.reshape(extra.shape[0], G, H // G, extra.shape[-1])
    if grouped and not folds and not _shares_heads(torch, q4, extra):
        k4, v4 = (array.repeat_interleave(H // G, dim=1) for array in (k4, v4))
        grouped = False
    lse = None
    if call.wants_lse:
        out, lse = _with_lse(torch, q4, k4, v4, extra, is_causal, call.scale)
        lse = lse.reshape(q.shape[:-1])
        lse = lse if taken is None else lse + taken
    else:
        # Under torch.compile sizes, and what is asked of them, may be symbols: only `if` decides.
        shared = {"enable_gqa": True} if grouped and not folds else {}
        out = torch.nn.functional.scaled_dot_product_attention(
            q4, k4, v4, attn_mask=extra, is_causal=is_causal, scale=call.scale, **shared
        )
    if E < D:
        out = out[..., :E]
    return out.reshape(*q.shape[:-1], E), lse


def _with_lse(
    torch: Any, q: Array, k: Array, v: Array, extra: Array | None, is_causal: bool, scale: Any
) -> tuple[Array, Array]:
    """Return the output of the CPU's kernel and the log-sum-exp, for which it has no gradient."""
    if extra is not None and extra.dtype == torch.bool:
        hidden = ~extra
        extra = torch.zeros(extra.shape, dtype=q.dtype).masked_fill(hidden, -math.inf)
    # Unlike the public function this one reads a last axis with gaps as if it had none.
    q, k, v = (array if array.stride(-1) == 1 else array.contiguous() for array in (q, k, v))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(q, k, v, 0.0, is_causal, attn_mask=extra, scale=scale)
    if extra is not None:  # where nothing is seen it says 0
        lse = torch.where((extra == -math.inf).all(-1), -math.inf, lse)
    return out, lse.detach()


def _shares_heads(torch: Any, q: Array, extra: Array | None) -> bool:
    """Tell whether the kernel reads shared heads itself.

    Where none does, torch would build all weights, which takes far more memory than repeated
    keys. The CPU's does since torch 2.9; on CUDA only one does, for 16 bits and no mask.
    """
    if q.device.type == "cuda":
        return extra is None and q.element_size() == 2 and q.shape[-1] <= 256
    return q.device.type != "cpu" or bool(torch.__version__ >= (2, 9))


def _four_axes(array: Array, whole: Array) -> Array:
    """View as `(B, heads, rows, columns)`, the only rank torch fuses.

    `array` is `whole` itself or a mask that broadcasts over its leading axes.
    """
    if array.ndim == whole.ndim == 4:
        return array
    array = array.reshape((1,) * (max(whole.ndim, 4) - array.ndim) + tuple(array.shape))
    lead = array.shape[:-3]
    if len(lead) > 1:
        if any(size != 1 for size in lead):
            array = array.expand(*whole.shape[:-3], *array.shape[-3:])
        array = array.flatten(0, len(lead) - 1)
    return array
