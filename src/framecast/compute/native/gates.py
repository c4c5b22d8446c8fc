"""The native gates: a cell's update and output in one pass over memory, with their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from framecast.compute.native.library import Library, all_plain, arrays, pixel_step, to_channels_last

LEAST = 4096
"""Numbers of an array from which on the native gates are faster, with all that is around them."""


def _run(library: Library, name: str, *tensors: Tensor) -> None:
    batch, channels, height, width = tensors[0].shape
    library.call(name, arrays(*tensors), batch * height * width, channels)


def _like(x: Tensor) -> Tensor:
    """Return a new array of the size of x, channels last."""
    return torch.empty_like(x, memory_format=torch.channels_last)


def update(library: Library, c: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
    """Return σ(f) ⊙ c + σ(i) ⊙ tanh(g), without a gradient."""
    new = _like(c)
    _run(library, "update", c, i, f, g, new)
    return new


def expose(library: Library, o: Tensor, u: Tensor) -> Tensor:
    """Return σ(o) ⊙ tanh(u), without a gradient."""
    h = _like(o)
    _run(library, "expose", o, u, h)
    return h


class _Update(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, c: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
        ctx.library = library
        ctx.save_for_backward(c, i, f, g)
        return update(library, c, i, f, g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        c, i, f, g = ctx.saved_tensors
        by_c, by_i, by_f, by_g = _like(c), _like(i), _like(f), _like(g)
        gradient = to_channels_last(gradient)
        _run(ctx.library, "update_gradients", c, i, f, g, gradient, by_c, by_i, by_f, by_g)
        return None, by_c, by_i, by_f, by_g


class _Expose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, library: Library, o: Tensor, u: Tensor) -> Tensor:
        ctx.library = library
        ctx.save_for_backward(o, u)
        return expose(library, o, u)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        o, u = ctx.saved_tensors
        by_o, by_u = _like(o), _like(u)
        gradient = to_channels_last(gradient)
        _run(ctx.library, "expose_gradients", o, u, gradient, by_o, by_u)
        return None, by_o, by_u


class Gates:
    """The native gates, and when to use them.

    Args:
        library: the compiled functions.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    @staticmethod
    def suits(*tensors: Tensor) -> bool:
        """Return whether arrays are such as they take, and faster than torch would be."""
        first = tensors[0]
        return (
            first.numel() >= LEAST
            and all_plain(*tensors)
            and all(x.shape == first.shape and pixel_step(x) for x in tensors)
        )

    def update(self, c: Tensor, i: Tensor, f: Tensor, g: Tensor) -> Tensor:
        """Return σ(f) ⊙ c + σ(i) ⊙ tanh(g)."""
        run = _Update.apply if torch.is_grad_enabled() else update
        return run(self.library, c, i, f, g)

    def expose(self, o: Tensor, u: Tensor) -> Tensor:
        """Return σ(o) ⊙ tanh(u)."""
        run = _Expose.apply if torch.is_grad_enabled() else expose
        return run(self.library, o, u)
