"""Cases of the multi-head layer, with the same weights in every peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import GPT2Config
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from x_transformers.x_transformers import Attention

from attncore.nn import MultiHeadAttention

WIDTH, HEADS = 512, 8
Case = tuple[str, dict[str, Callable[[], object]]]


def cases(device: torch.device) -> Iterator[Case]:
    """Yield causal self-attention, forward, and forward and backward."""
    peers = make(device)
    for batch, length in ((1, 1), (4, 64), (4, 512), (1, 2048)):
        x = torch.randn(batch, length, WIDTH, device=device)
        yield f"forward, ({batch}, {length})", {name: ahead(f, x) for name, f in peers.items()}
    x = torch.randn(1, 2048, WIDTH, device=device, requires_grad=True)
    yield "forward and backward, (1, 2048)", {name: back(f, x) for name, f in peers.items()}


def ahead(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Return a call of the layer as for inference."""

    def call() -> None:
        with torch.inference_mode():
            layer(x)

    return call


def back(layer: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Return a call of the layer as in training."""

    def call() -> None:
        with torch.enable_grad():
            layer(x).sum().backward()

    return call


def make(device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return layers that compute the same, checked on one input."""
    ours = MultiHeadAttention(WIDTH, HEADS, bias=False, device=device).eval()
    into, out = ours.in_proj_weight, ours.out_proj.weight
    torchs = nn.MultiheadAttention(WIDTH, HEADS, bias=False, batch_first=True, device=device).eval()
    torchs.load_state_dict(ours.state_dict())
    config = GPT2Config(n_embd=WIDTH, n_head=HEADS, attn_implementation="sdpa")
    gpt2 = GPT2Attention(config, layer_idx=0).to(device).eval()
    gpt2.load_state_dict(
        {
            "c_attn.weight": into.mT,
            "c_attn.bias": torch.zeros(3 * WIDTH),
            "c_proj.weight": out.mT,
            "c_proj.bias": torch.zeros(WIDTH),
        }
    )
    lucid = Attention(WIDTH, heads=HEADS, dim_head=WIDTH // HEADS, causal=True, flash=True)
    lucid = lucid.to(device).eval()
    lucid.load_state_dict(
        dict(zip(("to_q.weight", "to_k.weight", "to_v.weight"), into.chunk(3), strict=True))
        | {"to_out.weight": out}
    )

    def by_hand(x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in linear(x, into).chunk(3, -1)
        )
        return linear(sdpa(q, k, v, is_causal=True).transpose(1, 2).flatten(2), out)

    def by_torch(x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=device)
        return torchs(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]

    peers: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda x: ours(x, causal=True),
        "written by hand": by_hand,
        "torch.nn.MultiheadAttention": by_torch,
        "transformers, GPT-2": lambda x: gpt2(x)[0],
        "x-transformers": lambda x: lucid(x),
    }
    x = torch.randn(2, 9, WIDTH, device=device)
    with torch.inference_mode():
        for name, layer in peers.items():
            torch.testing.assert_close(layer(x), peers["ours"](x), rtol=1e-4, atol=1e-4, msg=name)
    return peers
