"""The sizes of a decoder-only model, and those of some public models."""

from __future__ import annotations

from dataclasses import dataclass, fields

from attncore.base.integers import check_least, check_length


@dataclass(frozen=True, kw_only=True)
class Sizes:
    r"""The sizes of a decoder-only model, from which :mod:`attncore.cost` counts all else.

    .. math:: \text{block} = \underbrace{2 d H D + 2 d G D}_{\text{attention}}
        + \underbrace{(2 \text{ or } 3)\, d\, d_{ff}}_{\text{network}} + \text{biases and norms}

    Parameters
    ----------
    d_model, layers
        d and L.
    heads, kv_heads, head_dim
        H, G and D; H must be a multiple of G, and H D need not be d.
    d_ff
        Inner width of the network in each block.
    vocabulary
        Number of different tokens.
    positions
        Rows of a table of learned positions; 0 if there is none.
    gated
        Whether the network has a third map, which gates the inner row.
    tied
        Whether the logits are made by the table of the embedding, not by a map of their own.
    qkv_bias, out_bias, network_bias
        Whether the maps to q, k and v, the output map, and the network's add a bias.
    logits_bias
        Whether the map to the logits adds a bias, one number for each token of the vocabulary.
    norm_bias
        Whether a norm adds a bias to its scale (LayerNorm) or has none (RMSNorm).
    norms
        Norms in each block: 2, before attention and network; 1, if they share it, as in Phi-2;
        or 4, if their outputs are normed too, as in Gemma 2.
    qk_norm
        Whether the queries and keys of each head are normed, as in Qwen3: two scales of D
        numbers in each block, which its heads share.

    Raises
    ------
    ValueError
        If a size is below 1 (`positions` below 0), `kv_heads` does not divide `heads`, or
        `norms` is neither 1, 2 nor 4.
    TypeError
        If a size is not an integer, or a choice is not a bool.

    References
    ----------
    Vaswani et al. (2017), section 3; Shazeer (2020) for the gate; Ainslie et al. (2023) for G.

    Examples
    --------
    >>> sizes = Sizes(d_model=8, layers=1, heads=4, kv_heads=2, head_dim=2, d_ff=32, vocabulary=10)
    >>> from attncore import cost
    >>> cost.params_by_part(sizes)
    {'embedding': 80, 'attention': 192, 'network': 512, 'norms': 24, 'logits': 80}
    """

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    d_ff: int
    vocabulary: int
    positions: int = 0
    gated: bool = False
    tied: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    network_bias: bool = False
    logits_bias: bool = False
    norm_bias: bool = False
    norms: int = 2
    qk_norm: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be; NumPy's integers, which overflow, become Python's."""
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type == "bool":
                if not isinstance(value, bool):
                    raise TypeError(f"{name} must be True or False, got {value!r}")
            else:
                zero = name == "positions"
                checked = check_length(name, value) if zero else check_least(name, value, 1)
                object.__setattr__(self, name, checked)
        if self.heads % self.kv_heads:
            raise ValueError(
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})"
            )
        if self.norms not in (1, 2, 4):
            raise ValueError(
                "norms must be 2 in each block, 1 that attention and network share, or 4 if "
                f"their outputs are normed too, got {self.norms}"
            )


MODELS = {
    "whale": Sizes(
        d_model=96, layers=4, heads=4, kv_heads=2, head_dim=24, d_ff=384, vocabulary=81,
        positions=256, tied=True, network_bias=True, norm_bias=True,
    ),
    "GPT-2 small": Sizes(
        d_model=768, layers=12, heads=12, kv_heads=12, head_dim=64, d_ff=3072, vocabulary=50257,
        positions=1024, tied=True, qkv_bias=True, out_bias=True, network_bias=True,
        norm_bias=True,
    ),
    "Gemma 2B": Sizes(
        d_model=2048, layers=18, heads=8, kv_heads=1, head_dim=256, d_ff=16384, vocabulary=256000,
        gated=True, tied=True,
    ),
    "Llama 2 7B": Sizes(
        d_model=4096, layers=32, heads=32, kv_heads=32, head_dim=128, d_ff=11008, vocabulary=32000,
        gated=True,
    ),
    "Mistral 7B": Sizes(
        d_model=4096, layers=32, heads=32, kv_heads=8, head_dim=128, d_ff=14336, vocabulary=32000,
        gated=True,
    ),
    "Qwen2 7B": Sizes(
        d_model=3584, layers=28, heads=28, kv_heads=4, head_dim=128, d_ff=18944, vocabulary=152064,
        gated=True, qkv_bias=True,
    ),
    "Llama 3 8B": Sizes(
        d_model=4096, layers=32, heads=32, kv_heads=8, head_dim=128, d_ff=14336, vocabulary=128256,
        gated=True,
    ),
}  # fmt: skip
"""The sizes of public models, by name, and of :func:`attncore.nn.whale`.

From Radford et al. (2019), Gemma Team (2024), Touvron et al. (2023), Jiang et al. (2023), Yang
et al. (2024), Llama Team (2024), and the configuration files published with the weights. A window,
which Mistral has, is not among the sizes.
"""
