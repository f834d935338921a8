"""Cases of the multi-head layer, with the same weights in every peer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.functional import scaled_dot_product_attention as sdpa
from transformers import DeepseekV3Config, DynamicCache, GPT2Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from x_transformers.x_transformers import Attention

import attncore as ac
from attncore.nn import LatentAttention, MultiHeadAttention

WIDTH, HEADS = 512, 8
RANK, TURNED = 256, 32
Case = tuple[str, dict[str, Callable[[], object]]]


def cases(device: torch.device) -> Iterator[Case]:
    """Yield causal self-attention, forward, and forward and backward."""
    peers = make(device)
    for batch, length in ((1, 1), (4, 64), (4, 512), (1, 2048)):
        x = torch.randn(batch, length, WIDTH, device=device)
        yield f"forward, ({batch}, {length})", {name: ahead(f, x) for name, f in peers.items()}
    x = torch.randn(1, 2048, WIDTH, device=device, requires_grad=True)
    yield "forward and backward, (1, 2048)", {name: back(f, x) for name, f in peers.items()}
    for new, before in ((1, 2048), (512, 0)):
        yield latent(device, new, before)


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


def latent(device: torch.device, new: int, before: int) -> Case:
    """Latent attention of the next tokens after those in a cache, in both forms."""
    config = DeepseekV3Config(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_key_value_heads=HEADS, q_lora_rank=None,
        kv_lora_rank=RANK, qk_rope_head_dim=TURNED, qk_nope_head_dim=64, v_head_dim=64,
        attn_implementation="sdpa",
    )  # fmt: skip
    ours = LatentAttention(WIDTH, HEADS, RANK, TURNED, device=device).eval()
    theirs = DeepseekV3Attention(config, layer_idx=0).to(device).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, before + new, WIDTH, device=device)
    cache = ac.KVCache(1, 1, before + new, RANK + TURNED, value_dim=0, like=x)
    other = DynamicCache(config=config)
    turning = DeepseekV3RotaryEmbedding(config).to(device)
    turns = turning(x, torch.arange(before + new, device=device)[None])
    hidden = torch.full((new, before + new), -torch.inf, device=device).triu(before + 1)[None, None]

    def run(**form: bool) -> Tensor:
        with torch.inference_mode():
            y = ours(x[:, before:], cache=cache, **form)
            cache.crop(before)
            return y

    def run_theirs() -> Tensor:
        with torch.inference_mode():
            place = tuple(part[:, before:] for part in turns)
            y = theirs(x[:, before:], place, None if new == 1 else hidden, past_key_values=other)[0]
            other.crop(-new)
            return y

    with torch.inference_mode():
        if before:
            ours(x[:, :before], cache=cache)
            theirs(x[:, :before], tuple(part[:, :before] for part in turns), None, other)
    return f"latent attention, {new} tokens after {before}", {
        "ours": run,
        "ours, plain": lambda: run(absorb=False),
        "ours, absorbed": lambda: run(absorb=True),
        "transformers, DeepSeek-V3": run_theirs,
    }


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
