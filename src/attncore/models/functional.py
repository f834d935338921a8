"""The models' arithmetic, written once for NumPy arrays and torch tensors.

`p` is a part of a model: it has its parameters and its own parts as attributes, by the names of
the state_dict. A torch module is such a part, and so is one of :mod:`attncore.models.plain`.
Shapes: B sequences, T tokens, d features, H query heads, G key/value heads, D and E their widths,
N tokens to choose from. What a cache is given, it keeps; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attncore.base.arrays import Array, cast, library_of, namespace, padding_mask, widest
from attncore.cache.growing import KVCache, undo_on_error
from attncore.cache.static import StaticKVCache
from attncore.core.attention import attention, attention_weights
from attncore.core.reference import mix
from attncore.masks import combine
from attncore.models.inputs import autocasts
from attncore.models.ops import embed, gelu, linear, silu, split
from attncore.positions.rotary import turn, turns

Look = Callable[[str, Array], Any]
"""Is told the name and the value of what is computed; what it returns goes on in its place."""


def heads(
    p: Any,
    x: Array,
    context: Array | None,
    cache: KVCache | None = None,
    places: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return q `(..., H, Tq, D)`, then k and v `(..., G, Tk, D)`; x follows what is cached.

    `places` are the positions of the rows of x, if they are others: `(T,)` or `(..., 1, T)`.
    """
    counts = (p.heads, p.kv_heads, p.kv_heads)
    if context is None:  # one product for the three
        rows = linear(x, p.in_proj_weight, p.in_proj_bias)  # (..., T, (H + 2 G) D)
        q, k, v = split(by_head(rows, sum(counts)), counts, -3)
    else:
        q, k, v = (
            by_head(linear(source, weight, bias), count)
            for source, weight, bias, count in zip(
                (x, context, context), *maps(p), counts, strict=True
            )
        )
    if p.q_norm is not None:
        q, k = normed(p.q_norm, q), normed(p.k_norm, k)
    if p.rope is not None:
        xp = namespace(x=x)
        if places is None:
            start = 0 if cache is None else cache.length
            places = positions_from(start, x.shape[-2], x, dtype=widest(xp, x))
        speed = {"base": p.rope_base, "speeds": p.speeds_beside(x), "gain": p.rope_gain}
        cos, sin = turns(xp, places, q, p.rope_dim, **speed)  # once for both
        q, k = turn(xp, q, cos, sin, p.rope), turn(xp, k, cos, sin, p.rope)
    return q, k, v


def normed(norm: Any, rows: Array) -> Array:
    """Return the rows normed; under autocast they may be of another dtype than its weight."""
    weight = getattr(norm, "weight", None)  # another norm may have none
    if weight is None or weight.dtype == rows.dtype:
        return norm(rows)
    xp = namespace(rows=rows)
    return cast(xp, norm(cast(xp, rows, weight.dtype)), rows.dtype)


def by_head(rows: Array, count: int) -> Array:
    """View `(..., T, H D)` as `(..., H, T, D)`."""
    return rows.reshape(*rows.shape[:-1], count, rows.shape[-1] // count).swapaxes(-3, -2)


def maps(p: Any) -> tuple[Sequence[Array], Sequence[Array | None]]:
    """Return the weights and the biases of the maps to q, k and v."""
    if p.context_dim == p.d_model:
        weights = split(p.in_proj_weight, p.widths, -2)
    else:
        weights = (p.q_proj_weight, p.k_proj_weight, p.v_proj_weight)
    bias = p.in_proj_bias
    return weights, (None, None, None) if bias is None else split(bias, p.widths, -1)


def attend(
    p: Any,
    x: Array,
    context: Array | None = None,
    mask: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Any = None,
    places: Array | None = None,
    cache: KVCache | None = None,
    look: Look | None = None,
) -> Array:
    """Multi-head attention from x to a context, or to itself: `(..., Tq, d)`."""
    q, k, v = heads(p, x, context, cache, places)
    if cache is not None and k.dtype != cache.dtype and autocasts(k):
        q, k, v = (a.to(cache.dtype) for a in (q, k, v))
    q, k, v = seen(look, "q", q), seen(look, "k", k), seen(look, "v", v)
    with undo_on_error(() if cache is None else (cache,)):
        if cache is not None:
            k, v = cache.append(k, v)
            if isinstance(cache, StaticKVCache):
                mask = combine(mask, cache.mask(x.shape[-2], window=window))
                causal, window = False, None
            else:
                causal, window = True, cache.window if window is None else window
        limits = {"causal": causal, "window": window, "lengths": lengths, "scale": p.scale}
        other = None
        if look is not None:
            other = look("weights", attention_weights(q, k, mask, **limits))
        mixed = attention(q, k, v, mask, **limits) if other is None else mix(other, v)
        mixed = seen(look, "heads", mixed)  # (..., H, Tq, D)
        rows = mixed.swapaxes(-3, -2)  # (..., Tq, H, D)
        return p.out_proj(rows.reshape(*rows.shape[:-2], p.widths[0]))


def block(
    p: Any,
    x: Array,
    context: Array | None = None,
    mask: Array | None = None,
    *,
    causal: bool = False,
    positions: Array | None = None,
    cache: KVCache | None = None,
    look: Look | None = None,
) -> Array:
    """One layer of a transformer: each line adds to the residual stream x `(B, T, d)`."""
    x = seen(look, "x", x)
    own_mask = mask if context is None else None
    own = {"mask": own_mask, "causal": causal, "cache": cache, **within(look, "attention")}
    if positions is not None:
        own["positions"] = positions
    with undo_on_error(() if cache is None else (cache,)):
        x = x + p.attention(p.norm1(x), **own)
        if context is not None:
            x = x + p.cross(p.norm_cross(x), context, mask, **within(look, "cross"))
        rows = p.norm2(x)
        inner = gelu(p.up(rows)) if p.gate is None else silu(p.gate(rows)) * p.up(rows)
        return x + p.down(inner)


def decoder(
    p: Any,
    tokens: Array,
    caches: Sequence[KVCache] | None = None,
    *,
    start: Any = 0,
    left_padding: Array | None = None,
    causal: bool = True,
    look: Look | None = None,
) -> Array:
    """Score every token as the next one: `(B, T, N)` from tokens `(B, T)` that begin at `start`."""
    x, T, given = p.embedding(tokens), tokens.shape[-1], {"causal": causal}  # (B, T, d)
    places: Any = None
    if left_padding is not None:
        Tk = caches[0].slots if caches and not isinstance(start, int) else start + T
        given["mask"] = ~padding_mask(left_padding, Tk)
        places = (positions_from(start, T, left_padding) - left_padding[:, None]).clip(min=0)
    if p.position is not None:
        x = x + rows_from(start, T, p.position.weight, places)
    elif places is not None:
        given["positions"] = places
    with undo_on_error(caches or ()):  # the first layers may have appended
        for n, layer in enumerate(p.blocks):
            cache = caches[n] if caches else None
            x = layer(x, cache=cache, **given, **within(look, f"blocks.{n}"))
    return linear(p.norm(x), (p.embedding if p.output is None else p.output).weight)


def rows_from(start: Any, T: int, table: Array, places: Array | None = None) -> Array:
    """Return T rows of a table of positions `(T, d)`, from `start` on; or those of `places`."""
    if places is None and isinstance(start, int):
        return table[start : start + T]
    if places is None:
        places = positions_from(start, T, table)
    return embed(places.clip(max=table.shape[0] - 1), table)  # a full cache gives NaN later


def positions_from(start: Any, T: int, like: Array, **options: Any) -> Array:
    """Return the positions `(T,)` of T tokens, the first of them `start`."""
    xp, where = library_of(like)
    return start + xp.arange(T, **where, **options)


def vision(p: Any, patches: Array, mask: Array | None, look: Look | None = None) -> Array:
    """Score every class for each image: `(B, N)` from patches `(B, T, numbers)`."""
    x = p.embed(patches)
    xp = namespace(x=x)
    cls = xp.broadcast_to(p.cls, (x.shape[0], 1, x.shape[-1]))
    x = xp.concatenate([cls, x], 1)  # (B, 1 + T, d)
    x = x if p.position is None else x + p.position
    for n, layer in enumerate(p.blocks):
        x = layer(x, mask=mask, **within(look, f"blocks.{n}"))
    return p.head(p.norm(x[:, 0]))


def read(p: Any, sources: Array, lengths: Array, look: Look | None = None) -> tuple[Array, Array]:
    """Return what a translator attends to, `(B, Ts, d)`, and its mask `(B, 1, 1, Ts)`."""
    T = sources.shape[1]
    mask = padding_mask(lengths, T)
    x = p.source_embedding(sources) + p.source_position.weight[:T]
    x = p.norm_context(p.encoder(x, mask=mask, **within(look, "encoder")))
    if not p.summary:
        return x, mask
    real = namespace(x=x).ones_like(x[..., :1]) * mask[:, 0, 0, :, None]  # (B, Ts, 1), 1 or 0
    return (x * real).sum(1)[:, None] / real.sum(1)[:, None], mask[..., :1]


def write(p: Any, targets: Array, context: Array, mask: Array, look: Look | None = None) -> Array:
    """Score the next character after each one of `(B, Tt)`: `(B, Tt, N)`."""
    x = p.target_embedding(targets) + p.target_position.weight[: targets.shape[1]]
    x = p.decoder(x, context, mask, causal=True, **within(look, "decoder"))
    return p.output(p.norm_output(x))


def seen(look: Look | None, name: str, value: Array) -> Array:
    """Show a value if somebody looks; return what goes on in its place."""
    other = None if look is None else look(name, value)
    return value if other is None else other


def into(found: dict[str, Array]) -> Look:
    """Return a look that keeps each value under its name, and changes none."""

    def look(name: str, value: Array) -> None:
        found[name] = value

    return look


def keeping(found: dict[str, Array], look: Look | None) -> Look:
    """Return a look that keeps the weights, as `look` leaves them, and has them used."""

    def both(name: str, value: Array) -> Any:
        other = None if look is None else look(name, value)
        if name != "weights":
            return other
        found[name] = value if other is None else other
        return found[name]

    return both


def within(look: Look | None, part: str) -> dict[str, Look]:
    """Return what a part is called with, so that its values are seen under its name."""
    return {} if look is None else {"look": lambda name, value: look(f"{part}.{name}", value)}
