"""Which device torch tensors should live on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

VARIABLE = "ATTNCORE_DEVICE"


def pick_device(prefer: str | None = None) -> torch.device:
    """Return the fastest device at hand: cuda, else mps, else cpu.

    Parameters
    ----------
    prefer
        A device to use instead, such as "cpu" or "cuda:1". Without it the environment
        variable ``ATTNCORE_DEVICE`` is asked.

    Returns
    -------
    torch.device
        Pass it as ``device=`` or to ``.to(...)``.

    Raises
    ------
    ValueError
        If the wanted device is unknown or not at hand.
    ModuleNotFoundError
        If torch is not installed (NumPy needs no device).

    References
    ----------
    The torch documentation, "CUDA semantics" and "MPS backend".

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    try:
        import torch
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "pick_device needs torch, which is not installed: pip install torch", name="torch"
        ) from None
    wanted, source = prefer, "prefer="
    if wanted is None:
        wanted, source = os.environ.get(VARIABLE) or None, f"{VARIABLE}="
    mps = torch.backends.mps.is_available()
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{source}{wanted} is no torch device: use cpu, cuda, mps") from error
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(device.type)
    if here is None:
        raise ValueError(f"{source}{wanted} is not supported here: use cpu, cuda, mps")
    if (device.index or 0) >= here:
        raise ValueError(f"{source}{wanted} is not at hand: torch sees {here} of {device.type}")
    return device
