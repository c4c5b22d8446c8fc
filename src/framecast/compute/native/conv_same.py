"""The native "same" convolution as torch sees it: ``framecast::conv_same``, its gradients, and where it is used.

In a roll-out the same kernels meet many inputs. So they are transformed once, and their gradient is gathered over all
steps as that of transformed kernels, and brought back once, when the last step of backward has added its part. That is
known by a token: transforming gives it, every convolution takes it, and autograd comes back to it last.
"""

from __future__ import annotations

import ctypes
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from framecast.compute.native.library import Library, all_plain, find_library, pixel_step

KERNELS = (3, 5)
WORTH = 2_000_000
"""Multiplications of the direct convolution from which on the native one is faster, with all that is around it."""
LEAST_CHANNELS = 8
LAST = torch.channels_last


def transform_kernel(library: Library, weight: Tensor, turned: bool) -> Tensor:
    """Return the transformed kernels of weights (O, C, k, k), or those of the gradient by the inputs."""
    outputs, inputs, kernel, _ = weight.shape
    strides = list(weight.stride())
    if turned:
        outputs, inputs, strides[:2] = inputs, outputs, strides[1::-1]
    result = torch.empty(library.call("kernel_size", inputs, outputs, kernel))
    library.call(
        "transform_kernel", weight, (ctypes.c_long * 4)(*strides), int(turned), inputs, outputs, kernel, result
    )
    return result


def convolve(
    library: Library, x: Tensor, kernels: Tensor, outputs: int, kernel: int, bias: Tensor | None = None,
    plus: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Convolve x (B, C, H, W), channels last, with transformed kernels, and add a bias and a map (B, O, H, W)."""
    batch, inputs, height, width = x.shape
    y = torch.empty((batch, outputs, height, width), memory_format=LAST)
    step = 0 if plus is None else pixel_step(plus)
    library.call("convolve", x, kernels, bias, plus, step, y, batch, height, width, inputs, outputs, kernel)
    return y


def gather(library: Library, x: Tensor, gradient: Tensor, gathered: Tensor, kernel: int) -> None:
    """Add the gradient by transformed kernels to ``gathered``; x and the gradient by y are channels last."""
    batch, inputs, height, width = x.shape
    library.call("gather", x, gradient, gathered, batch, height, width, inputs, gradient.shape[1], kernel)


def kernel_gradient(library: Library, gathered: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the gradient by weights of a shape (O, C, k, k)."""
    outputs, inputs, kernel, _ = shape
    result = torch.empty(tuple(shape), memory_format=LAST)
    library.call("kernel_gradient", gathered, result, inputs, outputs, kernel)
    return result


class Kernels:
    """Weights, transformed for forward and backward, and their gradient as it is gathered.

    Args:
        library: the compiled functions.
        weight: (O, C, k, k).
    """

    def __init__(self, library: Library, weight: Tensor) -> None:
        self.library, self.weight = library, weight.detach()
        self.forward = transform_kernel(library, self.weight, turned=False)
        self._turned: Tensor | None = None
        self._gathered: Tensor | None = None
        self._task = -1

    @property
    def turned(self) -> Tensor:
        """Those of the gradient by the inputs, made when they are first asked for."""
        if self._turned is None:
            self._turned = transform_kernel(self.library, self.weight, turned=True)
        return self._turned

    def gather(self, x: Tensor, gradient: Tensor) -> None:
        """Add a step's part to the gradient of this backward pass."""
        # A pass that asks for the gradient by the inputs only leaves its sum behind; the next one begins anew.
        task = torch._C._current_graph_task_id()
        if self._gathered is None or self._task != task:
            self._gathered, self._task = torch.zeros_like(self.forward), task
        gather(self.library, x, gradient, self._gathered, self.weight.shape[-1])

    def gradient(self) -> Tensor | None:
        """Return the gradient by the weights, of all steps of this backward pass."""
        gathered, self._gathered = self._gathered, None
        if gathered is None or self._task != torch._C._current_graph_task_id():
            return None
        return kernel_gradient(self.library, gathered, self.weight.shape)


class _Transform(torch.autograd.Function):
    """From weights to the token that every convolution with them takes."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: Tensor) -> Any:
        return ctx.kernels.gradient(), None


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, bias: Tensor | None, plus: Tensor | None, kernels: Kernels
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernels = kernels
        outputs, _, kernel, _ = kernels.weight.shape
        return convolve(kernels.library, x, kernels.forward, outputs, kernel, bias, plus)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        kernels: Kernels = ctx.kernels
        _, inputs, kernel, _ = kernels.weight.shape
        gradient = gradient.contiguous(memory_format=LAST)
        by_x = by_bias = by_token = None
        if ctx.needs_input_grad[0]:
            by_x = convolve(kernels.library, gradient, kernels.turned, inputs, kernel)
        if ctx.needs_input_grad[1]:
            kernels.gather(ctx.saved_tensors[0], gradient)
            by_token = gradient.new_zeros(())
        if ctx.needs_input_grad[2]:
            by_bias = gradient.sum((0, 2, 3))
        return by_x, by_token, by_bias, gradient if ctx.needs_input_grad[3] else None, None


def pays(pixels: int, inputs: int, outputs: int, kernel: int) -> bool:
    """Return whether the native convolution is faster than torch's: not where there is little to do."""
    return min(inputs, outputs) >= LEAST_CHANNELS and pixels * inputs * outputs * kernel**2 >= WORTH


class ConvSame:
    """The native convolution, and when to use it.

    Args:
        library: the compiled functions.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    @staticmethod
    def suits(x: Tensor, weight: Tensor, plus: Tensor | None) -> bool:
        """Return whether x, weight and what is added are such as it takes, and faster than torch would be."""
        if not all_plain(x, weight) or torch.is_autocast_enabled("cpu"):
            return False
        outputs, inputs, kernel, _ = weight.shape
        if torch.compiler.is_exporting() or not x.is_contiguous(memory_format=LAST):
            return False
        if kernel not in KERNELS:
            return kernel == 1 and not torch.compiler.is_compiling()
        if plus is not None and not (all_plain(plus) and pixel_step(plus)):
            return False
        return pays(x.shape[0] * x.shape[2] * x.shape[3], inputs, outputs, kernel)

    def convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, plus: Tensor | None, memo: MutableMapping[Any, Any] | None
    ) -> Tensor:
        """Convolve x with weights, whose transformed kernels are kept in the memo of a roll-out, and add ``plus``."""
        if weight.shape[-1] == 1:
            # A product of matrices, which torch does not make of it by itself.
            product = F.linear(x.movedim(1, -1), weight[:, :, 0, 0], bias).movedim(-1, 1)
            return product if plus is None else plus + product
        place = id(weight), torch.is_grad_enabled()
        kept = None if memo is None else memo.get(place)
        if kept is None:
            kernels = Kernels(self.library, weight)
            token = _Transform.apply(weight, kernels)  # type: ignore[no-untyped-call]
            kept = weight, kernels, token
            if memo is not None:
                memo[place] = kept  # it holds the weight too, so no other tensor has its number meanwhile
        _, kernels, token = kept
        result: Tensor = _Convolve.apply(x, token, bias, plus, kernels)  # type: ignore[no-untyped-call]
        return result

    @staticmethod
    def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve as one operation, which the compiler takes as it is."""
        result: Tensor = operation(x, weight, bias)
        return result


@torch.library.custom_op("framecast::conv_same", mutates_args=())
def operation(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve x (B, C, H, W), channels last, with weights (O, C, k, k), zeros around it."""
    library = _present_library()
    kernels = transform_kernel(library, weight, turned=False)
    return convolve(library, x, kernels, weight.shape[0], weight.shape[-1], bias)


@operation.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:])).contiguous(memory_format=LAST)


@torch.library.custom_op("framecast::conv_same_gradients", mutates_args=())
def gradients(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients by x and by weights."""
    library, (outputs, inputs, kernel, _) = _present_library(), weight.shape
    gradient = gradient.contiguous(memory_format=LAST)
    by_x = convolve(library, gradient, transform_kernel(library, weight, turned=True), inputs, kernel)
    gathered = torch.zeros(library.call("kernel_size", inputs, outputs, kernel))
    gather(library, x, gradient, gathered, kernel)
    return by_x, kernel_gradient(library, gathered, weight.shape)


@gradients.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=LAST), torch.empty_like(weight, memory_format=LAST)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    by_x, by_weight = gradients(gradient, *ctx.saved_tensors)
    return by_x, by_weight, gradient.sum((0, 2, 3)) if ctx.has_bias else None


operation.register_autograd(_backward, setup_context=_keep)


def _present_library() -> Library:
    library = find_library()
    assert library is not None, "the operation is used only where the library was found"
    return library
