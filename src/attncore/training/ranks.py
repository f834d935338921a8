"""One process for each card: ``torchrun`` starts them, and torch lets them talk.

The processes are called ranks. Each holds a copy of the model and takes its share of every
batch; torch's DistributedDataParallel averages the gradients, so all copies take the same step.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from attncore import pick_device


def join(cpu: bool) -> torch.device:
    """Join the other ranks, if torchrun has started this process; return the device to use."""
    device = torch.device("cpu") if cpu else pick_device()
    if dist.is_torchelastic_launched():
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave() -> None:
    """Part from the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()


def place() -> tuple[int, int]:
    """Return the number of this rank, and how many there are: 0 and 1 if nobody else is."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def first(value: Any) -> Any:
    """Return the value that rank 0 has, on every rank."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]


def averaged(model: nn.Module) -> nn.Module:
    """Return a model whose backward pass averages gradients over the ranks."""
    return DistributedDataParallel(model) if dist.is_initialized() else model
