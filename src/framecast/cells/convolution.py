"""Convolutions that keep the size of a frame, which all cells share.

On a processor they take fewer multiplications where that is faster (``framecast.compute.native``). What is the same in
every step of a roll-out, such as a kernel made of two, is made once where the roll-out says where it begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells import weight_gradients
from framecast.cells.native import native
from framecast.cells.weight_gradients import Kernel
from framecast.errors import OptionError

Memo = dict[Any, Any]
"""What one roll-out has made so far."""
Kernels = Mapping[str, Kernel]
"""Weights of a roll-out by the place of their convolution in the model."""
_memo: ContextVar[Memo | None] = ContextVar("memo", default=None)
# The compiler of torch cannot trace a ContextVar. Only what it traces sets this, and no two traces run at a time.
_traced_kernels: Kernels | None = None


class OneRollout:
    """A context in which weights stay as they are, so that what follows from them alone is made once.

    Args:
        memo: of a roll-out that is to go on; None begins one, or is part of the one around it.
    """

    def __init__(self, memo: Memo | None = None) -> None:
        self.memo = memo
        self._tokens: list[Token[Memo | None]] = []

    def __enter__(self) -> Memo:
        memo = _memo.get() if self.memo is None else self.memo
        memo = {} if memo is None else memo
        self._tokens.append(_memo.set(memo))
        return memo

    def __exit__(self, *error: object) -> None:
        _memo.reset(self._tokens.pop())


class Convolution(Protocol):
    """What has the weights of a convolution.

    Attributes:
        place: its name in the model, where kernels are shared.
    """

    place: str

    def kernel(self) -> Kernel:
        """Return its weights as every step of a roll-out has them."""


@contextmanager
def tracing_with(kernels: Kernels | None) -> Iterator[None]:
    """Have the compiler trace a step with these kernels for inputs, rather than make them anew in every step."""
    global _traced_kernels
    if torch.compiler.is_compiling():
        _traced_kernels = kernels
    try:
        yield
    finally:
        _traced_kernels = None


def share_kernels(model: nn.Module) -> Kernels:
    """Return the kernels of all convolutions of a model by place, made once for the roll-out around."""
    memo, key = _memo.get(), (model, torch.is_grad_enabled())
    assert memo is not None, "kernels are shared within a roll-out"
    if key not in memo:
        device = next(model.parameters()).device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        owners = {name: module for name, module in model.named_modules() if is_convolution(module)}
        for name, owner in owners.items():
            owner.place = name
        memo[key] = weight_gradients.share({name: owner.kernel() for name, owner in owners.items()}, dtype)
        memo |= {(owner, key[1]): memo[key][name] for name, owner in owners.items()}
    result: Kernels = memo[key]
    return result


def is_convolution(module: nn.Module) -> TypeGuard[Any]:
    """Return whether a module is a ``Convolution``."""
    return hasattr(module, "kernel") and hasattr(module, "place")


def kernel_of(owner: Convolution) -> Kernel:
    """Return the weights of a convolution: made once in a roll-out, or else each time."""
    if torch.compiler.is_compiling():
        shared = _traced_kernels or {}
        return shared[owner.place] if owner.place in shared else owner.kernel()
    if (memo := _memo.get()) is None:
        return owner.kernel()
    key = owner, torch.is_grad_enabled()
    if key not in memo:
        memo[key] = owner.kernel()
    result: Kernel = memo[key]
    return result


def conv_same(x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """Convolve x (B, C, H, W) with an odd kernel (O, C, k, k), zeros around it, and add ``plus`` (B, O, H, W)."""
    if not x.is_cpu or (parts := native()) is None or not parts.convolution.suits(x, weight, plus):
        result = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    elif torch.compiler.is_compiling():
        result = parts.convolution.operation(x, weight, bias)
    else:
        return parts.convolution.convolve(x, weight, bias, plus, _memo.get())  # type: ignore[no-any-return]
    return result if plus is None else plus + result


def convolve(owner: Convolution, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """Convolve x (B, C, H, W) with the weights of ``owner``, and add ``plus`` (B, O, H, W)."""
    kernel = kernel_of(owner)
    if not weight_gradients.pays(x, kernel):
        return conv_same(x, kernel.weight, kernel.bias, plus)
    result = weight_gradients.convolve(x, kernel)
    return result if plus is None else plus + result


class SameConv2d(nn.Conv2d):
    """A convolution that keeps the size of a frame.

    Args:
        inputs: channels of what it takes.
        outputs: channels of what it gives.
        kernel: side of the kernel, odd.
        bias: whether it has one.
    """

    place = ""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Convolve x (B, C, H, W), and add ``plus`` (B, O, H, W)."""
        return convolve(self, x, plus)

    def kernel(self) -> Kernel:
        """Return weight and bias."""
        return Kernel(self.weight, self.bias)


class JointConv2d(nn.Conv2d):
    """One "same" convolution over several concatenated inputs of equal width.

    It computes W₁ ∗ x₁ + W₂ ∗ x₂ + … + b, for which the released code has one convolution per input.
    It starts from the same random distribution as those: every input's kernel is drawn as if it stood
    alone, and the bias as the sum of their biases.
    """

    place = ""

    def __init__(self, sources: int, channels: int, outputs: int, kernel: int, bias: bool = True) -> None:
        self.sources = sources
        super().__init__(sources * channels, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """Convolve the inputs side by side, x (B, sources x C, H, W), and add ``plus`` (B, O, H, W)."""
        return convolve(self, x, plus)

    def kernel(self) -> Kernel:
        """Return weight and bias."""
        return Kernel(self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Draw kernels and bias anew from torch's random state."""
        fan_in = self.weight[0].numel() // self.sources
        bound = 1 / math.sqrt(fan_in)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            with torch.no_grad():
                draws = torch.empty(self.sources, *self.bias.shape).uniform_(-bound, bound)
                self.bias.copy_(draws.sum(0))


def check_kernel(kernel: int) -> None:
    """Refuse a kernel that cannot keep the size of a frame.

    Raises:
        ValueError: the kernel is even or below 1; the message names the nearest odd sizes.
    """
    if kernel < 1 or kernel % 2 == 0:
        near = max(1, kernel - 1), max(1, kernel + 1)
        sizes = str(near[0]) if near[0] == near[1] else f"{near[0]} or {near[1]}"
        raise OptionError(f"kernel is {kernel} and must be odd and at least 1 to keep the frame size: use {sizes}")
