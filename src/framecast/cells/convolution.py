"""Convolutions that keep the size of a frame, which all cells share.

On a processor they take fewer multiplications where that is faster (``framecast.compute.native``). What is the same in
every step of a roll-out, such as a kernel made of two, is made once where the roll-out says where it begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells import weight_gradients
from framecast.cells.gates import exposed, gated_update
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


def side_by_side(*maps: Tensor) -> tuple[Tensor, ...]:
    """Return maps (B, C, H, W) that several convolutions take: joined once, where these cannot read them one by one."""
    code = native() if maps[0].is_cpu and not torch.compiler.is_compiling() else None
    return maps if code is not None and code.convolution.reads(maps) else (torch.cat(maps, 1),)


def conv_same(x: Tensor, weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None) -> Tensor:
    """Convolve x (B, C, H, W) with an odd kernel (O, C, k, k), zeros around it, and add ``plus`` (B, O, H, W)."""
    return conv_parts([x], weight, bias, plus)[0]


def conv_parts(
    maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None = None, plus: Tensor | None = None, parts: int = 1
) -> tuple[Tensor, ...]:
    """Convolve maps with an odd kernel, zeros around them, and return the result in equal parts of its channels.

    Args:
        maps: (B, C, H, W) each, taken as one of all their channels.
        weight: (O, C of all, k, k).
        bias: (O,), or None.
        plus: (B, O, H, W) to be added, or None.
        parts: how many there are to be.
    """
    code = native() if maps[0].is_cpu else None
    if code is None or not code.convolution.suits(maps, weight, bias, plus):
        result = F.conv2d(_join(maps), weight, bias, padding=weight.shape[-1] // 2)
    elif torch.compiler.is_compiling():
        result = code.convolution.operation(_join(maps), weight, bias)
    else:
        return code.convolution.convolve(maps, weight, bias, plus, _memo.get(), parts)  # type: ignore[no-any-return]
    return _add_and_split(result, plus, parts)


def convolve(
    owner: Convolution, maps: Sequence[Tensor], plus: Tensor | None = None, parts: int = 1
) -> tuple[Tensor, ...]:
    """Convolve maps with the weights of ``owner``, as ``conv_parts`` does."""
    kernel = kernel_of(owner)
    if not weight_gradients.pays(maps[0], kernel):
        return conv_parts(maps, kernel.weight, kernel.bias, plus, parts)
    return _add_and_split(weight_gradients.convolve(_join(maps), kernel), plus, parts)


def update(owner: Convolution, c: Tensor, maps: Sequence[Tensor], parts: int = 3) -> tuple[Tensor, ...]:
    """Return σ(f) ⊙ c + σ(i) ⊙ tanh(g) of the first parts i, f and g of a convolution, and its other parts.

    A forecast on a processor uses gates as soon as they are computed and holds none.

    Args:
        owner: of the weights.
        c: a cell's memory (B, C, H, W).
        maps: (B, C, H, W) each.
        parts: how many there are, C channels each.
    """
    code = _code_of_forecasts(c)
    if code is not None:
        kernel = kernel_of(owner)
        if code.convolution.suits_update(maps, kernel.weight, kernel.bias, c, parts):
            return code.convolution.update(c, maps, kernel.weight, kernel.bias, _memo.get(), parts)  # type: ignore[no-any-return]
    i, f, g, *others = convolve(owner, maps, parts=parts)
    return gated_update(c, i, f, g), *others


def expose(owner: Convolution, o: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """Return σ(o) ⊙ tanh of a convolution of maps, all (B, C, H, W): what an output gate lets through."""
    code = _code_of_forecasts(o)
    if code is not None:
        kernel = kernel_of(owner)
        if code.convolution.suits_expose(maps, kernel.weight, kernel.bias, o):
            return code.convolution.expose(o, maps, kernel.weight, kernel.bias, _memo.get())  # type: ignore[no-any-return]
    return exposed(o, convolve(owner, maps)[0])


def _code_of_forecasts(x: Tensor) -> Any:
    """Return the native code where it may take several operations at once, for which it has no gradients."""
    if torch.is_grad_enabled() or not x.is_cpu or torch.compiler.is_compiling():
        return None
    return native()


def _join(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.cat([*maps], -3)


def _add_and_split(result: Tensor, plus: Tensor | None, parts: int) -> tuple[Tensor, ...]:
    result = result if plus is None else plus + result
    return (result,) if parts == 1 else result.chunk(parts, -3)


class SameConv2d(nn.Conv2d):
    """A convolution that keeps the size of a frame.

    Of several sources side by side it computes W₁ ∗ x₁ + W₂ ∗ x₂ + … + b, for which the released code has one
    convolution per source. It starts from the same random distribution as those: the kernel of each is drawn as if it
    stood alone, and the bias as the sum of their biases.

    Args:
        inputs: channels of what it takes, of all sources together.
        outputs: channels of what it gives.
        kernel: side of the kernel, odd.
        bias: whether it has one.
        sources: of equal width, for which the released code has a convolution each.
    """

    place = ""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True, sources: int = 1) -> None:
        self.sources = sources
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)

    def forward(self, *maps: Tensor, plus: Tensor | None = None) -> Tensor:
        """Convolve maps (B, C, H, W), taken as one of all their channels, and add ``plus`` (B, O, H, W)."""
        return convolve(self, maps, plus)[0]

    def split(self, *maps: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Convolve maps and return the result in equal parts (B, O / parts, H, W), such as the gates of a cell."""
        return convolve(self, maps, parts=parts)

    def update(self, c: Tensor, *maps: Tensor, parts: int = 3) -> tuple[Tensor, ...]:
        """Convolve maps to gates i, f, g, and others; return a memory c updated by them, and the others."""
        return update(self, c, maps, parts)

    def expose(self, o: Tensor, *maps: Tensor) -> Tensor:
        """Return σ(o) ⊙ tanh of the convolution of maps, all (B, C, H, W)."""
        return expose(self, o, maps)

    def kernel(self) -> Kernel:
        """Return weight and bias."""
        return Kernel(self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Draw kernels and bias anew from torch's random state."""
        if self.sources == 1:
            super().reset_parameters()
            return
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
