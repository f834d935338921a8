"""What torch records once and runs again at other sizes: exported, compiled, traced by torch.jit.

Then a length may be a symbol. Asking it a question with `if` would settle the answer for all
later runs, so a way that is right for any answer is taken; and numbers in a tensor cannot be
looked at, so a check of them goes into the recording.
"""

from __future__ import annotations

import sys
from typing import Any, TypeGuard


def is_traced() -> bool:
    """Tell whether torch is recording, so that what a tensor holds cannot be looked at."""
    torch = sys.modules.get("torch")
    return torch is not None and (torch.compiler.is_compiling() or torch.jit.is_tracing())


def is_symbol(size: object) -> TypeGuard[Any]:
    """Tell whether `size` is what stands for a size in a recording."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    if isinstance(size, torch.Tensor):  # so torch.jit.trace hands out sizes
        return torch.jit.is_tracing() and size.ndim == 0 and size.dtype == torch.int64
    return isinstance(size, torch.SymInt)


def varies(*lengths: Any) -> bool:
    """Tell whether a length may be another when the recording is run."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_dynamo_compiling():
        # Here symbols pass for integers. Of one, not even this is known.
        return _can_ask(torch) and not all(known(n % 2 == 0) or known(n % 2 == 1) for n in lengths)
    return any(is_symbol(n) for n in lengths)


def known(condition: Any) -> bool:
    """Tell whether a condition on sizes holds, in a recording whatever they will be."""
    torch = sys.modules.get("torch")
    if torch is None or not is_traced() or not _can_ask(torch):
        return True if condition else False  # noqa: SIM210  bool() of a symbol cannot be compiled
    if isinstance(condition, torch.Tensor):
        return False
    return bool(torch.fx.experimental.symbolic_shapes.statically_known_true(condition))


def holds(condition: Any, message: str) -> bool:
    """Tell whether all of a boolean array is true; a recording will check it, with `message`."""
    if not is_traced():
        return bool(condition.all())
    sys.modules["torch"]._assert_async(condition.all(), message)
    return True


def check_holds(condition: Any, message: str) -> None:
    """Raise unless all of a boolean array is true, when it runs."""
    if not holds(condition, message):
        raise ValueError(message)


def _can_ask(torch: Any) -> bool:
    """Tell whether it can be asked what is known. Older compilers can't: they compile anew."""
    return not torch.compiler.is_dynamo_compiling() or bool(torch.__version__ >= (2, 9))
