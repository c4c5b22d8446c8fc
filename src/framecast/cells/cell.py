"""The contract of a cell: one recurrent layer's single time step, and nothing else.

A cell knows its input, its own state and, in the zigzag family, the memory that wanders through all
layers. It does not know its place in a stack, the time step, or how it is trained.

Letters, as in the papers' equations (σ is the logistic function, ∗ a convolution, ⊙ the product by
element; every convolution is "same" padded with zeros):

======  ==========================================================================================
x       input of the layer, (B, C, H, W)
h       hidden state, which is also the output, (B, C, H, W)
c       cell memory, one per layer, recurrent in time
m       zigzag memory: up through the layers within a step, from the top to the bottom between steps
i f g   input gate, forget gate, candidate ("modulation")
o       output gate
n, s    MIM's non-stationary and stationary memories
F, D    MotionRNN's transient flow and its trend
z       PredRNN++'s gradient highway; the update gate of TrajGRU
======  ==========================================================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Cell(nn.Module, ABC):
    """One recurrent layer's single step, from (x, state, memory) to (h, state, memory).

    Attributes:
        channels: the width C of input, hidden state and output.
        multiple: height and width must be divisible by this.
    """

    channels: int
    multiple: int = 1

    @abstractmethod
    def init_state(self, x: Tensor) -> State:
        """Return the state before the first step, zeros with batch, size and device of x (B, C, H, W)."""

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return the zigzag memory before the first step, or None for a cell that has none."""
        del x
        return None

    @abstractmethod
    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step: x (B, C, H, W) in, the hidden state h (B, C, H, W) and the new memories out."""

    def penalty(self, state: State) -> Tensor | None:
        """Return the cell's own training penalty (B,), unweighted, averaged over the steps so far."""
        del state
        return None


def zeros(x: Tensor, channels: int | None = None) -> Tensor:
    """Return zeros like x (B, C, H, W) to start a memory from, with another channel count if given.

    Memories add up over many steps, so under autocast they are kept in float32; otherwise they follow x.
    """
    device = x.device.type
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.float32 if mixed and x.dtype != torch.float64 else x.dtype
    if channels is None or channels == x.shape[1]:
        return torch.zeros_like(x, dtype=dtype)
    return x.new_zeros((x.shape[0], channels, *x.shape[2:]), dtype=dtype)
