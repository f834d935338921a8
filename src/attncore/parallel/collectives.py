"""What ranks send each other, with the gradients that flow back the other way."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from attncore.base.arrays import check_readable, check_real, dtype_name, shape_of
from attncore.base.integers import check_integer

INTEGERS = (torch.uint8, torch.int8, torch.int32, torch.int64)


def check_rank(name: str) -> None:
    """Raise unless this process is a rank."""
    if not dist.is_initialized():
        raise RuntimeError(
            f"{name} is for ranks: call it in a function that attncore.parallel.run starts"
        )


def shift(x: torch.Tensor, by: int = 1) -> torch.Tensor:
    r"""Send a tensor on round the ring of ranks, and return the one that arrives.

    .. math:: y^{(n)} = x^{(n - \mathrm{by} \bmod N)}

    Sending and receiving go on at once, so no two ranks wait for each other. Gradients travel
    the other way. All ranks must call it, with tensors of one shape and dtype, and all must use
    what arrives, or none: a gradient is only sent by a rank that has one.

    Parameters
    ----------
    x
        A tensor of any shape, the same on all ranks.
    by
        How many ranks further it goes; negative numbers go back.

    Returns
    -------
    torch.Tensor
        Of the same shape, from the rank that is `by` behind.

    Raises
    ------
    TypeError, ValueError
        If x is no dense tensor of real numbers, or `by` no integer.
    RuntimeError
        If this process is no rank of :func:`run`.

    References
    ----------
    Liu, Zaharia and Abbeel (2023), "Ring attention with blockwise transformers for near-infinite
    context", section 3.

    Examples
    --------
    >>> import torch
    >>> import torch.distributed as dist
    >>> from attncore.parallel import run, shift
    >>> def neighbour():
    ...     return shift(torch.tensor(dist.get_rank())).item()
    >>> run(neighbour, ranks=3)
    [2, 0, 1]
    """
    _check("shift", x)
    return _Shift.apply(x, check_integer("by", by) % dist.get_world_size())


def exchange(x: torch.Tensor, split: int, join: int) -> torch.Tensor:
    r"""Cut a tensor into a piece for each rank, and put together the pieces that arrive.

    .. math:: y^{(n)} = \mathrm{concat}_{\mathrm{join}}
        \big(x^{(0)}_n, x^{(1)}_n, \dots, x^{(N-1)}_n\big)

    where :math:`x_n` is piece n of x along the axis `split`. From all heads of some tokens it makes
    all tokens of some heads, which one call of attention can take, and back again with the two axes
    changed over. So do gradients.

    Parameters
    ----------
    x
        A tensor of any shape, the same on all ranks.
    split
        The axis that is cut, of a size that the number of ranks divides.
    join
        The axis along which pieces are put together, in the order of ranks.

    Returns
    -------
    torch.Tensor
        As x, but N times shorter along `split` and N times longer along `join`.

    Raises
    ------
    TypeError, ValueError
        If x is no dense tensor of real numbers, there is no such axis, or it cannot be cut.
    RuntimeError
        If this process is no rank of :func:`run`.

    References
    ----------
    Jacobs et al. (2023), "DeepSpeed Ulysses: System optimizations for enabling training of extreme
    long sequence transformer models", section 3.

    Examples
    --------
    >>> import torch
    >>> from attncore.parallel import exchange, run
    >>> def heads_for_tokens():
    ...     some_tokens = torch.zeros(8, 5, 16)  # 8 heads, 5 of 10 tokens
    ...     some_heads = exchange(some_tokens, split=0, join=1)
    ...     return some_heads.shape, exchange(some_heads, split=1, join=0).shape
    >>> run(heads_for_tokens, ranks=2)[0]
    (torch.Size([4, 10, 16]), torch.Size([8, 5, 16]))
    """
    _check("exchange", x)
    split, join = _check_cut("split", split, x), _check_axis("join", join, x)
    return _Exchange.apply(x, split, join)


def total(x: torch.Tensor) -> torch.Tensor:
    r"""Add up a tensor over all ranks; every rank gets the sum.

    .. math:: y^{(n)} = \sum_m x^{(m)}

    Every rank is taken to go on with the sum to the same loss, so the gradient passes as it is.
    Where ranks go on differently, take ``spread(total(x))``: then gradients are added up, too.

    Parameters
    ----------
    x
        A tensor of any shape, the same on all ranks.

    Returns
    -------
    torch.Tensor
        The sum, of the same shape and dtype.

    Raises
    ------
    TypeError, ValueError
        If x is no dense tensor of real numbers.
    RuntimeError
        If this process is no rank of :func:`run`.

    References
    ----------
    Shoeybi et al. (2019), "Megatron-LM: Training multi-billion parameter language models using
    model parallelism", section 3: the function g.

    Examples
    --------
    >>> import torch
    >>> from attncore.parallel import run, total
    >>> def gradient():
    ...     x = torch.ones(2, requires_grad=True)
    ...     y = total(3 * x)
    ...     y.sum().backward()
    ...     return y.tolist(), x.grad.tolist()
    >>> run(gradient, ranks=2)[0]
    ([6.0, 6.0], [3.0, 3.0])
    """
    _check("total", x)
    return _Total.apply(x)


def spread(x: torch.Tensor, axis: int | None = None) -> torch.Tensor:
    r"""Hand a tensor that every rank holds on to all of them, whole or each rank its part.

    .. math:: y^{(n)} = x \quad \text{or} \quad y^{(n)} = x_n, \qquad
        \frac{\partial L}{\partial x} = \sum_n \frac{\partial L}{\partial x}\Big|_{y^{(n)}}

    Nothing is sent on the way forward: x is there already. On the way back every rank gets the
    whole gradient of x, added up over all ranks' uses of it. Without this each rank would have a
    gradient of its own, of what itself did, while outputs would be right.

    Parameters
    ----------
    x
        A tensor of any shape, the same on all ranks, with the same numbers.
    axis
        Where x is cut into a part for each rank, of a size that the number of ranks divides. If
        None, each rank goes on with all of x.

    Returns
    -------
    torch.Tensor
        x, or this rank's part of it.

    Raises
    ------
    TypeError, ValueError
        If x is no dense tensor of real numbers, there is no such axis, or it cannot be cut.
    RuntimeError
        If this process is no rank of :func:`run`.

    References
    ----------
    Shoeybi et al. (2019), "Megatron-LM: Training multi-billion parameter language models using
    model parallelism", section 3: the function f.

    Examples
    --------
    >>> import torch
    >>> from attncore.parallel import run, spread
    >>> def gradient():
    ...     x = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    ...     part = spread(x, axis=0)
    ...     (part**2).sum().backward()
    ...     return part.tolist(), x.grad.tolist()
    >>> run(gradient, ranks=2)[1]
    ([3.0, 4.0], [2.0, 4.0, 6.0, 8.0])
    """
    _check("spread", x)
    return _Spread.apply(x, None if axis is None else _check_cut("axis", axis, x))


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, by: int) -> torch.Tensor:
        ctx.by = by
        rank, ranks = dist.get_rank(), dist.get_world_size()
        if by == 0:
            return x.clone()
        x = x.contiguous()
        y = torch.empty_like(x)
        send = dist.P2POp(dist.isend, x, (rank + by) % ranks)
        receive = dist.P2POp(dist.irecv, y, (rank - by) % ranks)
        for each in dist.batch_isend_irecv([send, receive]):
            each.wait()
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Shift.apply(gradient, -ctx.by % dist.get_world_size()), None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, split: int, join: int) -> torch.Tensor:
        ctx.axes = join, split
        pieces = torch.stack(_parts(x, split))
        arrived = torch.empty_like(pieces)
        dist.all_to_all_single(arrived, pieces)
        return torch.cat(list(arrived), join)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Exchange.apply(gradient, *ctx.axes), None, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axis: int | None) -> torch.Tensor:
        ctx.axis = axis
        return (x if axis is None else _parts(x, axis)[dist.get_rank()]).clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        if ctx.axis is None:
            return _Total.apply(gradient), None
        gradient = gradient.contiguous()
        parts = [torch.empty_like(gradient) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, gradient)
        return torch.cat(parts, ctx.axis), None


def _parts(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, ...]:
    return x.tensor_split(dist.get_world_size(), axis)


def _check(name: str, x: object) -> None:
    """Raise unless this process is a rank and x can be sent."""
    check_rank(name)
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x must be a torch tensor, got {type(x).__name__}; use torch.as_tensor(x)")
    check_real("x", x)
    check_readable("x", x)
    if not x.is_floating_point() and x.dtype not in INTEGERS:
        raise TypeError(f"x is {dtype_name(x)}, which Gloo does not add up; use x.to(torch.int64)")


def _check_axis(name: str, axis: object, x: torch.Tensor) -> int:
    """Return the axis, counted from 0, or raise if x has none such."""
    axis = check_integer(name, axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name} = {axis} is no axis of x {shape_of(x)}, which has {x.ndim}")
    return axis % x.ndim


def _check_cut(name: str, axis: object, x: torch.Tensor) -> int:
    """Return the axis, or raise if it cannot be cut into a part for each rank."""
    found, ranks = _check_axis(name, axis, x), dist.get_world_size()
    if x.shape[found] % ranks:
        raise ValueError(
            f"{name} = {axis} of x {shape_of(x)} must be a multiple of the number of ranks, "
            f"{ranks}, for equal parts; pad x, or take another number of ranks"
        )
    return found
