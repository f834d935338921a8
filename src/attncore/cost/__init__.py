"""What a decoder-only model costs, counted from its sizes: whole numbers, nothing is run.

FLOPs are those of matrix products, a multiplication and an addition counting as two;
softmax, norms and sums, which grow no faster, are left out. Bytes come from a number of
bytes per number: 4 for float32, 2 for 16 bits. `MODELS` has the sizes of `attncore.nn.whale` and
of public models, by name: "GPT-2 small", "Gemma 2B", "Llama 2 7B", "Mistral 7B", "Qwen2 7B" and
"Llama 3 8B".
"""

from __future__ import annotations

import math
from fractions import Fraction

from attncore.base.integers import check_length, check_sizes
from attncore.base.settings import check_flag, check_positive
from attncore.cost.sizes import MODELS, Sizes

__all__ = [
    "MODELS",
    "Sizes",
    "activation_bytes",
    "flops",
    "flops_by_part",
    "kv_bytes",
    "params",
    "params_by_part",
    "read_bytes",
    "training_bytes",
    "training_bytes_by_part",
]


def params_by_part(sizes: Sizes) -> dict[str, int]:
    r"""Count the parameters of each part of a model.

    .. math:: \text{attention} = L\,(2 d H D + 2 d G D), \qquad
        \text{network} = L\,(2 \text{ or } 3)\, d\, d_{ff}, \qquad
        \text{embedding} = N d

    and the biases; N is the vocabulary.

    Parameters
    ----------
    sizes
        Of the model.

    Returns
    -------
    dict of str to int
        "embedding" (with learned positions), "attention", "network", "norms" (of each block, of
        queries and keys, and a last one) and "logits", which is 0 if the map is tied and has no
        bias.

    Raises
    ------
    TypeError
        If `sizes` is not of the class :class:`Sizes`.

    References
    ----------
    Kaplan et al. (2020), table 1.

    Examples
    --------
    >>> params_by_part(MODELS["GPT-2 small"])["attention"]           # 12 (4 d^2 + 4 d)
    28348416
    """
    _check(sizes)
    d, inner = sizes.d_model, sizes.heads * sizes.head_dim
    qkv = inner + 2 * sizes.kv_heads * sizes.head_dim
    attention = d * qkv + inner * d + sizes.qkv_bias * qkv + sizes.out_bias * d
    maps = 3 if sizes.gated else 2
    network = maps * d * sizes.d_ff + sizes.network_bias * ((maps - 1) * sizes.d_ff + d)
    norms = sizes.layers * (sizes.norms * d + 2 * sizes.qk_norm * sizes.head_dim) + d
    return {
        "embedding": (sizes.vocabulary + sizes.positions) * d,
        "attention": sizes.layers * attention,
        "network": sizes.layers * network,
        "norms": norms * (2 if sizes.norm_bias else 1),
        "logits": sizes.vocabulary * ((0 if sizes.tied else d) + sizes.logits_bias),
    }


def params(sizes: Sizes) -> int:
    """Count the parameters of a model: the sum of :func:`params_by_part`.

    Parameters
    ----------
    sizes
        Of the model.

    Returns
    -------
    int
        Parameters.

    Raises
    ------
    TypeError
        As :func:`params_by_part`.

    References
    ----------
    Kaplan et al. (2020), table 1.

    Examples
    --------
    >>> params(MODELS["GPT-2 small"]), params(MODELS["Llama 2 7B"])
    (124439808, 6738415616)
    """
    return sum(params_by_part(sizes).values())


def flops_by_part(sizes: Sizes, T: int, *, past: int = 0, batch: int = 1) -> dict[str, int]:
    r"""Count the FLOPs of one forward pass over T tokens of each sequence.

    .. math:: \text{projections} = 2 B T L\,(2 d H D + 2 d G D), \qquad
        \text{scores} = 4 B T\,(\text{past} + T)\, L H D

    Prefill has no past; a decode step has T = 1. Training takes three times as many: the
    backward pass has two products for each of these (2.5 for each of a fused kernel's scores).
    No window is counted, and T is not compared with `positions`.

    Parameters
    ----------
    sizes
        Of the model.
    T
        New tokens of each sequence.
    past, batch
        Tokens of each sequence whose keys and values are in a cache, and B sequences.

    Returns
    -------
    dict of str to int
        "projections" (the four maps of attention), "scores" (queries by keys, and weights by
        values, for every pair: a causal kernel can skip nearly half of those of a prefill),
        "network" and "logits" (of every token).

    Raises
    ------
    ValueError
        If `T` or `batch` is below 1, or `past` below 0.
    TypeError
        If one of them is not an integer.

    References
    ----------
    Kaplan et al. (2020), table 1, which has half of these scores.

    Examples
    --------
    >>> flops_by_part(MODELS["GPT-2 small"], 1024)["scores"]         # 4 T^2 L d
    38654705664
    """
    _check(sizes)
    T, batch = check_sizes(T=T, batch=batch)
    tokens, inner = T * batch, sizes.heads * sizes.head_dim
    projections = 2 * sizes.d_model * (inner + sizes.kv_heads * sizes.head_dim)
    network = (3 if sizes.gated else 2) * sizes.d_model * sizes.d_ff
    return {
        "projections": 2 * tokens * sizes.layers * projections,
        "scores": 4 * tokens * (check_length("past", past) + T) * sizes.layers * inner,
        "network": 2 * tokens * sizes.layers * network,
        "logits": 2 * tokens * sizes.d_model * sizes.vocabulary,
    }


def flops(sizes: Sizes, T: int, *, past: int = 0, batch: int = 1) -> int:
    """Count the FLOPs of one forward pass: the sum of :func:`flops_by_part`.

    Parameters
    ----------
    sizes, T, past, batch
        As in :func:`flops_by_part`, and with its errors.

    Returns
    -------
    int
        FLOPs.

    References
    ----------
    Kaplan et al. (2020), table 1.

    Examples
    --------
    >>> flops(MODELS["Llama 2 7B"], 1)              # about two for each parameter
    13214679040
    """
    return sum(flops_by_part(sizes, T, past=past, batch=batch).values())


def activation_bytes(
    sizes: Sizes,
    T: int,
    *,
    batch: int = 1,
    number_bytes: float = 4,
    fused: bool = True,
    recompute: bool = False,
) -> int:
    r"""Count the bytes that a forward pass keeps for the backward pass.

    .. math:: B T \left( L \left[ 4 d + 4 + 2 (H + G) D + H + (2 \text{ or } 4)\, d_{ff}
        \right] + 2 d + 2 \right)

    numbers, and 8 bytes for each token. In each block: what goes into the norms, with mean
    and spread of each row, into the maps and into the activation; q, k and v; the output of
    attention, and H sums of exponentials for each query. That is for two norms: one that is
    shared keeps 2 d + 2 fewer, norms of the outputs d + 2 more each, and norms of q and k
    (H + G) (D + 2) more. Parameters, dropout and the loss are not counted, nor are copies of
    keys and values for grouped heads: torch needs them on a GPU in 32 bits, and on a CPU
    before torch 2.9.

    Parameters
    ----------
    sizes
        Of the model.
    T, batch
        Tokens of each sequence, and B sequences.
    number_bytes
        Bytes per number: 2 for a model whose parameters have 16 bits. (torch keeps the sums of
        its fused kernel in 32 then. Under autocast parameters have 32 bits, and norms keep their
        inputs in 32 and products a copy of each map in 16: that is not counted here.)
    fused
        False: the weights of attention, B H T T in each block, are kept, not the sums.
    recompute
        True: of each block only its input is kept, d numbers for each token. The backward pass
        computes the rest of a block again, and needs room for one block at a time.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        If `T` or `batch` is below 1, or `number_bytes` is not positive and finite.
    TypeError
        If `T` or `batch` is not an integer, `number_bytes` no number, `fused` or `recompute` no
        bool, or `sizes` not of the class :class:`Sizes`.

    References
    ----------
    Korthikanti et al. (2023), section 4.1, who count dropout too; Chen et al. (2016) for
    `recompute`.

    Examples
    --------
    >>> activation_bytes(MODELS["GPT-2 small"], 1024) / 2**20
    582.765625
    >>> activation_bytes(MODELS["GPT-2 small"], 1024, fused=False) / 2**20
    1158.203125
    """
    _check(sizes)
    T, batch = check_sizes(T=T, batch=batch)
    d, H, D = sizes.d_model, sizes.heads, sizes.head_dim
    network = (4 if sizes.gated else 2) * sizes.d_ff
    before = min(sizes.norms, 2)  # norms of what goes into attention and network
    norms = before * (2 * d + 2) + (sizes.norms - before) * (d + 2)
    norms += sizes.qk_norm * (H + sizes.kv_heads) * (D + 2)
    sums = H * (1 if check_flag("fused", fused) else T)
    block = norms + 2 * (H + sizes.kv_heads) * D + network + sums
    if check_flag("recompute", recompute):
        block = d
    kept = batch * T * (sizes.layers * block + 2 * d + 2)
    return _bytes(kept, number_bytes) + 8 * batch * T


def training_bytes_by_part(
    sizes: Sizes,
    *,
    number_bytes: float = 2,
    gradient_bytes: float = 2,
    master: bool = True,
    ranks: int = 1,
    stage: int = 0,
) -> dict[str, int]:
    r"""Count the bytes that each rank holds for training with Adam, activations left out.

    .. math:: \Psi\,(\text{bytes per parameter} + \text{bytes per gradient} + \underbrace{4 + 4}_{
        \text{Adam's two averages}} + \underbrace{4}_{\text{master copy}})

    of Ψ parameters: 16 bytes each, as unless said otherwise, are those of training in 16 bits.
    In 32 bits there is no master copy, and they are 16 again.

    Parameters
    ----------
    sizes
        Of the model.
    number_bytes, gradient_bytes
        Bytes of a parameter, and of its gradient: 6 if it is kept in 16 and in 32 bits.
    master
        Whether the optimizer keeps a copy of the parameters in 32 bits.
    ranks
        On how many ranks the model is trained.
    stage
        What ZeRO spreads over the ranks, each part on one of them: 0 nothing, 1 what the
        optimizer keeps, 2 the gradients too, and 3 the parameters too.

    Returns
    -------
    dict of str to int
        "parameters", "gradients" and "optimizer", in bytes; what is not whole is rounded up.

    Raises
    ------
    ValueError
        If `ranks` is below 1, `stage` is none of the four, or a number of bytes is not positive
        and finite.
    TypeError
        If `ranks` or `stage` is not an integer, `master` no bool, a number of bytes no number, or
        `sizes` not of the class :class:`Sizes`.

    References
    ----------
    Rajbhandari et al. (2020), "ZeRO", section 3.1 and figure 1; Micikevicius et al. (2018) for
    the master copy.

    Examples
    --------
    >>> training_bytes_by_part(MODELS["GPT-2 small"])
    {'parameters': 248879616, 'gradients': 248879616, 'optimizer': 1493277696}
    """
    numbers = params(sizes)
    (ranks,) = check_sizes(ranks=ranks)
    if check_length("stage", stage) > 3:
        raise ValueError(f"stage must be 0, 1, 2 or 3, got {stage}")
    whole = {
        "parameters": _bytes(numbers, number_bytes),
        "gradients": _bytes(numbers, gradient_bytes, "gradient_bytes"),
        "optimizer": numbers * (12 if check_flag("master", master) else 8),
    }
    first = {"parameters": 3, "gradients": 2, "optimizer": 1}  # the stage that spreads it
    return {
        part: math.ceil(Fraction(n, ranks)) if stage >= first[part] else n
        for part, n in whole.items()
    }


def training_bytes(
    sizes: Sizes,
    *,
    number_bytes: float = 2,
    gradient_bytes: float = 2,
    master: bool = True,
    ranks: int = 1,
    stage: int = 0,
) -> int:
    """Count the bytes that each rank holds: the sum of :func:`training_bytes_by_part`.

    Parameters
    ----------
    sizes, number_bytes, gradient_bytes, master, ranks, stage
        As in :func:`training_bytes_by_part`, and with its errors.

    Returns
    -------
    int
        Bytes.

    References
    ----------
    Rajbhandari et al. (2020), section 3.1.

    Examples
    --------
    >>> llama = MODELS["Llama 3 8B"]
    >>> training_bytes(llama) / params(llama)
    16.0
    """
    parts = training_bytes_by_part(
        sizes,
        number_bytes=number_bytes,
        gradient_bytes=gradient_bytes,
        master=master,
        ranks=ranks,
        stage=stage,
    )
    return sum(parts.values())


def kv_bytes(sizes: Sizes, T: int, *, batch: int = 1, number_bytes: float = 2) -> int:
    r"""Count the bytes of the KV caches of all layers.

    .. math:: 2 B L G T D \times \text{bytes per number}

    Parameters
    ----------
    sizes
        Of the model.
    T, batch
        Tokens of each sequence (no window is counted, no `positions`), and B sequences.
    number_bytes
        Bytes per number: 0.5625 if each has 4 bits, and 32 of them a scale of 16 bits.

    Returns
    -------
    int
        Bytes; what is not whole is rounded up.

    Raises
    ------
    ValueError
        If `T` is below 0, `batch` below 1, or `number_bytes` is not positive and finite.
    TypeError
        If `T` or `batch` is not an integer, `number_bytes` no number, or `sizes` not of the
        class :class:`Sizes`.

    References
    ----------
    Pope et al. (2023).

    Examples
    --------
    >>> kv_bytes(MODELS["Llama 2 7B"], 1), kv_bytes(MODELS["Llama 3 8B"], 1)
    (524288, 131072)
    >>> kv_bytes(MODELS["Llama 3 8B"], 1, number_bytes=0.5625)       # 4 bits, with scales
    36864
    """
    return _bytes(_cached(sizes, T, batch), number_bytes)


def read_bytes(sizes: Sizes, *, past: int = 0, batch: int = 1, number_bytes: float = 2) -> int:
    """Count the bytes that a forward pass must read at least: its parameters, and the cache.

    Tables of which only a few rows are looked up are left out: learned positions, and the
    embedding if it is not tied. No window is counted, and `past` may exceed `positions`.

    Parameters
    ----------
    sizes
        Of the model.
    past, batch
        Cached tokens of each sequence, and B sequences. All share one reading of the
        parameters; each has a cache of its own.
    number_bytes
        Bytes per number, as in :func:`kv_bytes`.

    Returns
    -------
    int
        Bytes; what is not whole is rounded up.

    Raises
    ------
    ValueError
        If `past` is below 0, `batch` below 1, or `number_bytes` is not positive and finite.
    TypeError
        If `past` or `batch` is not an integer, `number_bytes` no number, or `sizes` not of the
        class :class:`Sizes`.

    References
    ----------
    Pope et al. (2023), section 2.

    Examples
    --------
    >>> read_bytes(MODELS["Llama 2 7B"])
    13214687232
    """
    cached = _cached(sizes, check_length("past", past), batch)
    unread = sizes.positions + (0 if sizes.tied else sizes.vocabulary)
    return _bytes(params(sizes) - unread * sizes.d_model + cached, number_bytes)


def _cached(sizes: Sizes, T: int, batch: int) -> int:
    """Return how many numbers the KV caches hold."""
    _check(sizes)
    T, (batch,) = check_length("T", T), check_sizes(batch=batch)
    return 2 * batch * sizes.layers * sizes.kv_heads * T * sizes.head_dim


def _bytes(numbers: int, number_bytes: float, name: str = "number_bytes") -> int:
    """Return the bytes of so many numbers, rounded up to a whole one."""
    each = Fraction(check_positive(name, number_bytes))
    return math.ceil(numbers * each.limit_denominator(2**20))  # 0.1 is meant to be 1/10


def _check(sizes: object) -> None:
    if not isinstance(sizes, Sizes):
        raise TypeError(
            "sizes must be cost.Sizes(...), or of a model in cost.MODELS, got "
            f"{type(sizes).__name__}"
        )
