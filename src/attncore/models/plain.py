"""What torch's modules are to torch, for NumPy: parts that hold parameters by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from attncore.base.arrays import Array
from attncore.models import ops


class Module:
    """A part of a model: its attributes are parameters, other parts, lists of parts, and sizes."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Run the part."""
        return self.forward(*given, **named)

    forward: Any

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Yield each parameter with its name, as torch's modules do."""
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value.named_parameters(f"{prefix}{name}.")
            elif isinstance(value, list):
                for n, part in enumerate(value):
                    if isinstance(part, Module):
                        yield from part.named_parameters(f"{prefix}{name}.{n}.")

    def state_dict(self) -> dict[str, Array]:
        """Return the parameters by name: the arrays themselves, not copies."""
        return dict(self.named_parameters())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the values of a state_dict, of this library or of torch.

        Raises
        ------
        ValueError
            If it has other names, or an array of another shape; nothing is changed then.
        """
        own = self.state_dict()
        if other := sorted(own.keys() ^ state.keys()):
            raise ValueError(f"the state_dict is of another model: it differs in {other}")
        new = {name: np.asarray(value) for name, value in state.items()}
        for name, array in own.items():
            if new[name].shape != array.shape:
                raise ValueError(f"{name} must be {array.shape}, got {new[name].shape}")
        for name, array in own.items():
            array[...] = new[name]


class Linear(Module):
    """A map x W^T + b; W and b are drawn as torch's are."""

    def __init__(
        self, into: int, out: int, *, bias: bool = True, dtype: Any, rng: np.random.Generator
    ) -> None:
        bound = into**-0.5
        self.weight = rng.uniform(-bound, bound, (out, into)).astype(dtype)
        self.bias = rng.uniform(-bound, bound, out).astype(dtype) if bias else None

    def forward(self, x: Array) -> Array:
        """Return `(..., out)` from x `(..., in)`."""
        return ops.linear(x, self.weight, self.bias)


class LayerNorm(Module):
    """Each row brought to mean 0 and variance 1, then stretched and shifted."""

    def __init__(self, d: int, dtype: Any, eps: float = 1e-5) -> None:
        self.weight, self.bias, self.eps = np.ones(d, dtype), np.zeros(d, dtype), eps

    def forward(self, x: Array) -> Array:
        """Return `(..., d)` from x `(..., d)`."""
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """Each row brought to mean square 1, then stretched, if `gain`."""

    def __init__(self, d: int, eps: float, dtype: Any, *, gain: bool = True) -> None:
        self.weight, self.eps = np.ones(d, dtype) if gain else None, eps

    def forward(self, x: Array) -> Array:
        """Return `(..., d)` from x `(..., d)`."""
        return ops.rms_norm(x, self.weight, self.eps)


class Embedding(Module):
    """A table with a row for each token or position."""

    def __init__(
        self, count: int, d: int, *, std: float = 1.0, dtype: Any, rng: np.random.Generator
    ) -> None:
        self.weight = (std * rng.standard_normal((count, d))).astype(dtype)

    def forward(self, tokens: Array) -> Array:
        """Return `(..., d)` from tokens `(...)`."""
        return ops.embed(tokens, self.weight)
