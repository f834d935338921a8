"""Which operations torch runs, and whether every route of attention computes the same."""

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import attncore as ac


class Recorder(TorchDispatchMode):
    """Notes which operations run; with `shapes`, on arrays of which shapes, too."""

    def __init__(self, shapes=False):
        super().__init__()
        self.seen = []
        self.shapes = shapes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        shapes = (tuple(a.shape) for a in args[:2] if isinstance(a, torch.Tensor))
        self.seen.append((name, *shapes) if self.shapes else name)
        return func(*args, **(kwargs or {}))


def check_all(q, k, v, expected, *, mask, bias, **options):
    """Assert that NumPy, the kernel and the formula give this; return the kernel's gradients."""
    assert np.allclose(ac.attention(q, k, v, mask, bias=bias, **options), expected, 0, 1e-13)

    gradients = []
    torch_mask = None if mask is None else torch.from_numpy(mask)
    torch_bias = None if bias is None else torch.from_numpy(bias)
    for backend in ("auto", "reference"):
        inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in (q, k, v)]
        out = ac.attention(*inputs, torch_mask, bias=torch_bias, backend=backend, **options)
        assert np.allclose(out.detach().numpy(), expected, 0, 1e-13)
        (out * torch.arange(out.numel()).reshape(out.shape)).sum().backward()
        gradients.append([x.grad for x in inputs])
    for fused, plain in zip(*gradients, strict=True):
        assert torch.allclose(fused, plain, 1e-9, 1e-9)
    return gradients[0]
