"""Arithmetic that every gated cell shares: the gated update and the joint convolution.

    update(i, f, g; c) = σ(f) ⊙ c + σ(i) ⊙ tanh(g)

No cell here adds a forget bias, a peephole or a normalisation layer; the released code has none either.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from framecast.errors import OptionError


def gated_update(memory: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Return σ(f) ⊙ memory + σ(i) ⊙ tanh(g), all (B, C, H, W), gates given before their non-linearity."""
    return torch.sigmoid(f) * memory + torch.sigmoid(i) * tanh(g)


def tanh(x: Tensor) -> Tensor:
    """Return tanh(x), in float32 on a processor as 2 σ(2x) - 1, which torch computes in less than half the time.

    The two differ by at most 3e-7.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return torch.tanh(x)
    if torch.compiler.is_compiling():
        return 2 * torch.sigmoid(2 * x) - 1
    result: Tensor = _TanhBySigmoid.apply(x)  # type: ignore[no-untyped-call]
    return result


class _TanhBySigmoid(torch.autograd.Function):
    """2 σ(2x) - 1 in one piece of memory; it keeps for backward what torch.tanh keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = (2 * x).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(gradient, y)  # type: ignore[no-any-return]


class JointConv2d(nn.Conv2d):
    """One "same" convolution over several concatenated inputs of equal width.

    It computes W₁ ∗ x₁ + W₂ ∗ x₂ + … + b, for which the released code has one convolution per input.
    It starts from the same random distribution as those: every input's kernel is drawn as if it stood
    alone, and the bias as the sum of their biases.
    """

    def __init__(self, sources: int, channels: int, outputs: int, kernel: int, bias: bool = True) -> None:
        self.sources = sources
        super().__init__(sources * channels, outputs, kernel, padding=kernel // 2, bias=bias)

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
