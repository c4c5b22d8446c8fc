"""Arithmetic that every gated cell shares: the gated update and the output gate.

    update(i, f, g; c) = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    exposed(o; u)      = σ(o) ⊙ tanh(u)

No cell here adds a forget bias, a peephole or a normalisation layer; the released code has none either.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from framecast.cells.native import native


def gated_update(memory: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Return σ(f) ⊙ memory + σ(i) ⊙ tanh(g), all (B, C, H, W), gates given before their non-linearity."""
    parts = native() if memory.is_cpu and not torch.compiler.is_compiling() else None
    if parts is not None and parts.gates.suits(memory, i, f, g):
        return parts.gates.update(memory, i, f, g)  # type: ignore[no-any-return]
    return torch.sigmoid(f) * memory + torch.sigmoid(i) * tanh(g)


def exposed(o: Tensor, u: Tensor) -> Tensor:
    """Return σ(o) ⊙ tanh(u), all (B, C, H, W): what an output gate lets through."""
    parts = native() if o.is_cpu and not torch.compiler.is_compiling() else None
    if parts is not None and parts.gates.suits(o, u):
        return parts.gates.expose(o, u)  # type: ignore[no-any-return]
    return torch.sigmoid(o) * tanh(u)


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
