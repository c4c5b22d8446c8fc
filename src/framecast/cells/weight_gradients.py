"""Gradients of a convolution's weights from several steps of a roll-out at a time, on a GPU.

Every step of a roll-out has the same weights, so their gradients are sums over all steps:

    dW = Σ_t x_t ⋆ dy_t        db = Σ_t Σ_pixels dy_t

What one step of a small batch adds does not fill a GPU. So backward keeps x and dy of several steps side by side and
computes what they add in one go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

IMAGES = 64
"""Images, steps times batch, whose weight gradients are computed together; they fill a GPU."""


class Kernel(NamedTuple):
    """The weights of a convolution during one roll-out.

    Attributes:
        weight: (O, C, k, k).
        bias: (O,), or None.
        link: a number without effect, where the gradients are computed from several steps at a time: through it
            backward comes to know that all steps are through.
    """

    weight: Tensor
    bias: Tensor | None
    link: Tensor | None = None


class _Steps:
    """What some steps took and the gradients of what they gave, and the weight gradients of the steps before."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        # As an output, the weight would keep the node that keeps this.
        self.weight, self.has_bias = weight.detach(), bias is not None
        self.waiting: dict[torch.Size, _Waiting] = {}
        self.dw: Tensor | None = None
        self.db: Tensor | None = None

    def add(self, x: Tensor, dy: Tensor) -> None:
        """Keep x (B, C, H, W) and dy (B, O, H, W) until there are enough of this size."""
        if x.shape not in self.waiting:
            self.waiting[x.shape] = _Waiting(x, dy)
        if self.waiting[x.shape].add(x, dy):
            self.compute(self.waiting.pop(x.shape))

    def compute(self, waiting: _Waiting) -> None:
        """Add what some steps give to the gradients."""
        x, dy = waiting.x[: waiting.images], waiting.dy[: waiting.images]
        _, dw, _ = _gradients(dy, x, self.weight, (False, True, False))
        exact = torch.promote_types(dw.dtype, torch.float32)
        self.dw = dw.to(exact) if self.dw is None else self.dw.add_(dw)
        if self.has_bias:
            db = dy.sum((0, 2, 3), dtype=exact)
            self.db = db if self.db is None else self.db.add_(db)

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of all steps since the last time, None where there were none."""
        for waiting in self.waiting.values():
            self.compute(waiting)
        result = self.dw, self.db
        self.waiting, self.dw, self.db = {}, None, None
        return result


class _Waiting:
    """Room for what several steps of one size took and the gradients of what they gave, side by side."""

    def __init__(self, x: Tensor, dy: Tensor) -> None:
        batch, self.images = len(x), 0
        images = batch * max(1, IMAGES // batch)
        self.x, self.dy = (_empty((images, *part.shape[1:]), part, _order(x)) for part in (x, dy))

    def add(self, x: Tensor, dy: Tensor) -> bool:
        """Copy both, as a compiled step writes over its own, and return whether there is room for no more."""
        place = slice(self.images, self.images + len(x))
        self.x[place].copy_(x)
        self.dy[place].copy_(dy)
        self.images += len(x)
        return self.images == len(self.x)


# By where the weights of a roll-out lie, which is all that a compiled step hands on of them.
_steps: WeakValueDictionary[int, _Steps] = WeakValueDictionary()


def share(kernels: Mapping[str, Kernel], dtype: torch.dtype | None) -> dict[str, Kernel]:
    """Return weights for all steps of a roll-out, cast once.

    Args:
        kernels: what the roll-out convolves with, by name.
        dtype: that convolutions are computed in; None leaves it.
    """
    result, learned = {}, {}
    for name, (weight, bias, _) in kernels.items():
        if weight.requires_grad and torch.is_grad_enabled():
            learned[name] = (weight, bias)
        else:
            result[name] = Kernel(
                weight.to(dtype or weight.dtype), None if bias is None else bias.to(dtype or bias.dtype)
            )
    if learned:
        flat = [part for pair in learned.values() for part in pair]
        link, *parts = _Shared.apply(dtype, *flat)  # type: ignore[no-untyped-call]
        for name, weight, bias in zip(learned, parts[::2], parts[1::2], strict=True):
            result[name] = Kernel(weight, bias, link)
    return result


class _Shared(torch.autograd.Function):
    """Copies of weights and biases, whose gradients are those that the steps have kept, and those that reach it."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype | None, *parts: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        ctx.dtypes = [None if part is None else part.dtype for part in parts]
        copies = [None if part is None else part.to(dtype or part.dtype, copy=True) for part in parts]
        ctx.steps = [
            _Steps(weight, bias) for weight, bias in zip(copies[::2], copies[1::2], strict=True) if weight is not None
        ]
        _steps.update({steps.weight.data_ptr(): steps for steps in ctx.steps})
        return ctx.steps[0].weight.new_zeros(()), *copies

    @staticmethod
    def backward(ctx: Any, link: Tensor | None, *others: Tensor | None) -> Any:
        kept = [part for steps in ctx.steps for part in steps.gradients()]
        totals = []
        for dtype, *both in zip(ctx.dtypes, kept, others, strict=True):
            parts = [part.to(dtype) for part in both if part is not None]
            totals.append(sum(parts[1:], parts[0]) if parts else None)
        return (None, *totals)


def pays(x: Tensor, kernel: Kernel) -> bool:
    """Return whether the weight gradients of this convolution are to wait for those of other steps."""
    # Maps of one channel have no order in memory that a compiler could be told of.
    return kernel.link is not None and 2 * len(x) <= IMAGES and min(kernel.weight.shape[:2]) > 1


def convolve(x: Tensor, kernel: Kernel) -> Tensor:
    """Convolve x (B, C, H, W) with zeros around it; the weight gradients wait for those of other steps."""
    x = x.to(kernel.weight.dtype)
    if torch.compiler.is_compiling():
        y: Tensor = operation(x, kernel.weight, kernel.link)
    else:
        y = _Convolution.apply(x, kernel.weight, kernel.link)  # type: ignore[no-untyped-call]
    # Whoever keeps dy for the weights has the gradient of the bias from it too.
    return y if kernel.bias is None else y + kernel.bias.detach()[:, None, None]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, link: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolution(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _backward(dy, *ctx.saved_tensors), None, None


@torch.library.custom_op("framecast::conv_shared", mutates_args=())
def operation(x: Tensor, weight: Tensor, link: Tensor) -> Tensor:
    """Convolve x (B, C, H, W) with the weights (O, C, k, k) of a roll-out."""
    return _in_promised_order(_convolution(x, weight), (len(x), len(weight), *x.shape[2:]), x)


@operation.register_fake
def _(x: Tensor, weight: Tensor, link: Tensor) -> Tensor:
    return _empty((len(x), len(weight), *x.shape[2:]), x, _order(x))


@torch.library.custom_op("framecast::conv_shared_backward", mutates_args=())
def backward_operation(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of x, and keep both for the gradient of the weights."""
    return _in_promised_order(_backward(dy, x, weight), x.shape, x)


@backward_operation.register_fake
def _(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return _empty(x.shape, x, _order(x))


def _save_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _compiled_backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, Tensor]:
    # To the compiler an input without a gradient has no part in backward, hence the link.
    return backward_operation(dy, *ctx.saved_tensors), None, dy.new_zeros(())


operation.register_autograd(_compiled_backward, setup_context=_save_for_backward)


def _backward(dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    _steps[weight.data_ptr()].add(x, dy)
    return _gradients(dy, x, weight, (True, False, False))[0]


def _convolution(x: Tensor, weight: Tensor) -> Tensor:
    return torch.conv2d(x, weight, padding=weight.shape[-1] // 2)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
    around = [weight.shape[-1] // 2] * 2
    result: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        dy, x, weight, None, [1, 1], around, [1, 1], False, [0, 0], 1, wanted
    )
    return result


def _order(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _empty(shape: Any, like: Tensor, order: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=order)


def _in_promised_order(y: Tensor, shape: Any, x: Tensor) -> Tensor:
    """Return y in the order that the compiler was told of."""
    promised = _empty(shape, y, _order(x))
    return y if y.stride() == promised.stride() else promised.copy_(y)
