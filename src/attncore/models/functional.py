"""The models' arithmetic, written once for NumPy arrays and torch tensors.

`p` is a part of a model: it has its parameters and its own parts as attributes, by the names of
the state_dict. A torch module is such a part, and so is one of :mod:`attncore.models.plain`.
Shapes: B sequences, T tokens, d features, H query heads, G key/value heads, D and E their widths,
N tokens to choose from. What a cache is given, it keeps; nothing else is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from attncore.base.arrays import Array, cast, library_of, namespace, padding_mask, widest
from attncore.base.tracing import known
from attncore.cache.cross import CrossKVCache
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
    context: Array | CrossKVCache | None,
    cache: KVCache | None = None,
    places: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Return q `(..., H, Tq, D)`, then k and v `(..., G, Tk, D)`; x follows what is cached.

    `places` are the positions of the rows of x, if they are others: `(T,)` or `(..., 1, T)`.
    """
    if isinstance(context, CrossKVCache):
        return queries(p, x), context.k, context.v
    if context is not None:
        return queries(p, x), *keys_and_values(p, context)
    counts = (p.heads, p.kv_heads, p.kv_heads)  # one product for the three
    rows = linear(x, p.in_proj_weight, p.in_proj_bias)  # (..., T, (H + 2 G) D)
    q, k, v = split(by_head(rows, sum(counts)), counts, -3)
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


def queries(p: Any, x: Array) -> Array:
    """Return q `(..., H, Tq, D)` alone, of a cross-attention."""
    weights, biases = maps(p)
    q = by_head(linear(x, weights[0], biases[0]), p.heads)
    return q if p.q_norm is None else normed(p.q_norm, q)


def keys_and_values(p: Any, context: Array) -> tuple[Array, Array]:
    """Return k and v `(..., G, Tk, D)` of a context."""
    k, v = (
        by_head(linear(context, weight, bias), p.kv_heads)
        for weight, bias in list(zip(*maps(p), strict=True))[1:]
    )
    return k if p.k_norm is None else normed(p.k_norm, k), v


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
    context: Array | CrossKVCache | None = None,
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
    if isinstance(context, CrossKVCache):
        lengths = context.lengths
        q = q.to(k.dtype) if q.dtype != k.dtype and autocasts(q) else q
    if cache is not None and k.dtype != cache.dtype and autocasts(k):
        q, k, v = (a.to(cache.dtype) for a in (q, k, v))
    q, k, v = seen(look, "q", q), seen(look, "k", k), seen(look, "v", v)
    with undo_on_error(() if cache is None else (cache,)):
        if cache is not None:
            k, v = cache.append(k, v)
            mask, causal, window = limits_behind(cache, x.shape[-2], mask, window)
        limits = {"causal": causal, "window": window, "lengths": lengths, "scale": p.scale}
        mixed = average(q, k, v, mask, limits | extras(p), look)
        mixed = seen(look, "heads", mixed)  # (..., H, Tq, D)
        return p.out_proj(side_by_side(mixed))


def limits_behind(
    cache: KVCache, n: int, mask: Array | None, window: int | None
) -> tuple[Array | None, bool, int | None]:
    """Return mask, causal and window for the n tokens that were appended to a cache last."""
    if isinstance(cache, StaticKVCache):
        return combine(mask, cache.mask(n, window=window)), False, None
    return mask, True, cache.window if window is None else window


def extras(p: Any) -> dict[str, Any]:
    """Return those options of attention that only some layers have."""
    if p.softcap is None and p.sinks is None and not p.dropout:
        return {}
    found = {"softcap": p.softcap, "sinks": p.sinks}
    if p.dropout and p.training:
        found |= {"dropout": p.dropout, "generator": sys.modules["torch"].default_generator}
    return found


def average(
    q: Array, k: Array, v: Array, mask: Array | None, options: dict[str, Any], look: Look | None
) -> Array:
    """Return attention `(..., H, Tq, E)`; the weights are built only if somebody looks."""
    if look is None:
        return attention(q, k, v, mask, **options)
    weights = attention_weights(q, k, mask, **options)
    other = look("weights", weights)
    if other is None and "dropout" in options:  # a second draw would drop others
        other = weights
    return attention(q, k, v, mask, **options) if other is None else mix(other, v)


def side_by_side(heads: Array) -> Array:
    """Lay heads `(..., H, T, E)` side by side: `(..., T, H E)`."""
    rows = heads.swapaxes(-3, -2)
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])


def latent(
    p: Any,
    x: Array,
    mask: Array | None = None,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Any = None,
    places: Array | None = None,
    cache: KVCache | None = None,
    absorb: bool | None = None,
    look: Look | None = None,
) -> Array:
    """Multi-head latent attention from x to itself: `(..., T, d)`."""
    q, rows = compressed(p, x, cache, places)
    if cache is not None and rows.dtype != cache.dtype and autocasts(rows):
        rows = rows.to(cache.dtype)
    with undo_on_error(() if cache is None else (cache,)):
        if cache is not None:
            rows, _ = cache.append(rows)
            mask, causal, window = limits_behind(cache, x.shape[-2], mask, window)
        options = {"causal": causal, "window": window, "lengths": lengths, "scale": p.scale}
        if absorb is None:
            absorb = absorbing_is_less(p, x.shape[-2], rows.shape[-2])
        attend_to = absorbed if absorb else expanded
        mixed = seen(look, "heads", attend_to(p, q, rows, mask, options, look))
        return p.o_proj(side_by_side(mixed))


def compressed(
    p: Any, x: Array, cache: KVCache | None, places: Array | None
) -> tuple[Array, Array]:
    """Return q `(..., H, T, D + R)` and what is kept of each token, `(..., 1, T, rank + R)`."""
    q = p.q_proj(x) if p.q_rank is None else p.q_b_proj(normed(p.q_a_layernorm, p.q_a_proj(x)))
    q = by_head(q, p.heads)
    row, key = split(p.kv_a_proj_with_mqa(x), (p.rank, p.rope_dim), -1)
    row, key = normed(p.kv_a_layernorm, row)[..., None, :, :], key[..., None, :, :]  # one head
    xp = namespace(x=x)
    if places is None:
        start = 0 if cache is None else cache.length
        places = positions_from(start, x.shape[-2], x, dtype=widest(xp, x))
    speed = {"base": p.rope_base, "speeds": p.speeds_beside(x), "gain": p.rope_gain}
    cos, sin = turns(xp, places, q, p.rope_dim, **speed)
    plain, turned = split(q, (p.head_dim, p.rope_dim), -1)
    q = xp.concatenate([plain, turn(xp, turned, cos, sin, p.rope)], -1)
    return q, xp.concatenate([row, turn(xp, key, cos, sin, p.rope)], -1)


def absorbing_is_less(p: Any, Tq: int, Tk: int) -> bool:
    """Tell whether the absorbed form multiplies less, for each head, than the plain one."""
    D, E, R, rank = p.head_dim, p.value_dim, p.rope_dim, p.rank
    if not p.can_absorb():
        return False
    return known(
        Tq * rank * (D + E) + Tq * Tk * (2 * rank + R) < Tk * rank * (D + E) + Tq * Tk * (D + R + E)
    )


def expanded(
    p: Any, q: Array, rows: Array, mask: Array | None, options: dict[str, Any], look: Look | None
) -> Array:
    """Attend, with keys and values of every head made anew from the rows: `(..., H, Tq, E)`."""
    xp = namespace(rows=rows)
    row, key = split(rows, (p.rank, p.rope_dim), -1)
    made = by_head(p.kv_b_proj(row[..., 0, :, :]), p.heads)
    k, v = split(made, (p.head_dim, p.value_dim), -1)
    key = xp.broadcast_to(cast(xp, key, k.dtype), (*k.shape[:-1], p.rope_dim))
    q, k = cast(xp, q, k.dtype), xp.concatenate([k, key], -1)
    q, k, v = seen(look, "q", q), seen(look, "k", k), seen(look, "v", v)
    return average(q, k, v, mask, options, look)


def absorbed(
    p: Any, q: Array, rows: Array, mask: Array | None, options: dict[str, Any], look: Look | None
) -> Array:
    """Attend to the rows themselves, one key/value head for all: `(..., H, Tq, E)`.

    q (W c) is (q W) c, and the sum of a W c is W (the sum of a c): the map from rows to keys goes
    to the queries, and the one to values to what comes out.
    """
    xp = namespace(rows=rows)
    up = p.kv_b_proj.weight.reshape(p.heads, p.head_dim + p.value_dim, p.rank)
    to_k, to_v = split(up, (p.head_dim, p.value_dim), -2)  # (H, D, rank), (H, E, rank)
    plain, turned = split(q, (p.head_dim, p.rope_dim), -1)
    q = xp.concatenate([cast(xp, plain @ to_k, q.dtype), turned], -1)  # (..., H, Tq, rank + R)
    q, rows = seen(look, "q", cast(xp, q, rows.dtype)), seen(look, "k", rows)
    # As values the rows keep their key: to cut it off first would copy all of them.
    mixed = average(q, rows, seen(look, "v", rows), mask, options, look)[..., : p.rank]
    return mixed @ to_v.mT


def block(
    p: Any,
    x: Array,
    context: Array | CrossKVCache | None = None,
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
