"""What travels to a rank and back: things made in a notebook or a script go by value."""

from __future__ import annotations

import io
import marshal
import pickle
from types import CodeType
from typing import Any

import torch
from torch.distributed._functional_collectives import AsyncCollectiveTensor

try:
    import cloudpickle
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "attncore.parallel needs cloudpickle, which is not installed: pip install cloudpickle",
        name="cloudpickle",
    ) from None


class _Pickler(cloudpickle.Pickler):
    """A pickler for code that remembers its file and lines, and for tensors under way."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):  # so that a traceback can quote it
            return marshal.loads, (marshal.dumps(obj),)
        if isinstance(obj, AsyncCollectiveTensor):  # else it would go as it was before the sum
            return torch.Tensor.detach, (obj.trigger_wait(),)
        return super().reducer_override(obj)


def packed(what: str, value: Any) -> bytes:
    """Return `value` as bytes that ``pickle.loads`` reads in any process.

    Functions and classes of a module go by name. Those of a cell or a script, which no other
    process could import, go as code, together with the variables that they name.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception as error:  # each kind of object has its own way to say no
        raise TypeError(
            f"{what} cannot be sent to another process: {error}; open files, locks, generators and "
            "the like must be made, used and left inside the function"
        ) from error
    return file.getvalue()
