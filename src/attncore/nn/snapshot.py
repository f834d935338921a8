"""A model read once into plain parts, which are quicker to walk through than torch's modules."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module

from attncore import models
from attncore.models import plain
from attncore.nn.layers import Block, MultiHeadAttention

TWINS: dict[type, type] = {
    Block: models.Block,
    MultiHeadAttention: models.MultiHeadAttention,
    nn.Embedding: plain.Embedding,
    nn.LayerNorm: plain.LayerNorm,
    nn.Linear: plain.Linear,
    nn.ModuleList: list,
    nn.RMSNorm: plain.RMSNorm,
}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def snapshot(model: nn.Module, kind: type, twin_kind: type) -> Any:
    """Return a twin of a model of this kind that shares its parameters, for one use.

    Where a part is not of a kind that is known, or has hooks, as adapters and parametrisations
    do, it could mean more than its parameters: then the model itself is returned.
    """
    twins = {**TWINS, kind: twin_kind}
    known = all(type(part) in twins and not hooked(part) for part in model.modules())
    return twin(model, twins) if known and not hooked(torch_module, "_global") else model


def hooked(part: Any, prefix: str = "") -> bool:
    """Tell whether calling a module does more than run its forward pass on its parameters."""
    special = ("_compiled_call_impl", "max_norm")
    more = any(getattr(part, name, None) is not None for name in special)
    return more or any(getattr(part, prefix + name, None) for name in HOOKS)


def twin(part: nn.Module, twins: dict[type, type]) -> Any:
    """Return a module's parameters, sizes and parts under the same names."""
    if isinstance(part, nn.ModuleList):
        return [twin(each, twins) for each in part]
    found: Any = object.__new__(twins[type(part)])
    sizes = {name: value for name, value in vars(part).items() if not name.startswith("_")}
    parts = {name: twin(each, twins) for name, each in part.named_children()}
    vars(found).update({**sizes, **part._parameters, **parts})
    return found
