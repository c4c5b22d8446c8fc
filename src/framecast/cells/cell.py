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
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from framecast.errors import CellError

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


def check_column(name: str, column: Callable[..., Any]) -> None:
    """Refuse a function that builds cells which do not keep the contract, by building two and taking a step.

    Args:
        name: of the cell, for messages.
        column: ``(channels, depth, *, **options)`` to a list of cells.

    Raises:
        CellError: it, a cell's state or its result is not what it should be.
    """
    channels, depth, side = 4, 2, 16
    with torch.random.fork_rng(devices=[]):
        try:
            cells = column(channels, depth)
        except Exception as error:
            raise CellError(f"{name}: column({channels}, {depth}) fails: {type(error).__name__}: {error}") from error
        if not isinstance(cells, list) or len(cells) != depth or not all(isinstance(cell, nn.Module) for cell in cells):
            raise CellError(f"{name}: column({channels}, {depth}) gives {cells!r}, and should give a list of 2 cells")
        memory: Any = None
        x = torch.rand(1, channels, side, side)
        for cell in cells:
            parts = ("init_state", "init_memory", "channels", "multiple")
            missing = [part for part in parts if not hasattr(cell, part)]
            if missing:
                raise CellError(f"{name}: a cell has no {missing[0]}: derive it from framecast.cells.cell.Cell")
            if cell.channels != channels:
                raise CellError(f"{name}: a cell says channels = {cell.channels} and was built for {channels}")
            state = cell.init_state(x)
            _check_state(name, "init_state(x)", state)
            memory = cell.init_memory(x) if memory is None else memory
            try:
                result = cell(x, state, memory)
            except Exception as error:
                raise CellError(f"{name}: cell(x, state, memory) fails: {type(error).__name__}: {error}") from error
            if not isinstance(result, tuple) or len(result) != 3:
                kind = f"{len(result)} results" if isinstance(result, tuple) else type(result).__name__
                raise CellError(f"{name}: cell(x, state, memory) gives {kind}, and should give (h, state, memory)")
            h, new, memory = result
            if not isinstance(h, Tensor) or h.shape != x.shape:
                raise CellError(f"{name}: h is {_kind(h)}, and should be as x, {_kind(x)}: (B, C, H, W)")
            _check_state(name, "the new state", new)
            if [part.shape for part in new] != [part.shape for part in state]:
                shapes = ", ".join(_kind(part) for part in new), ", ".join(_kind(part) for part in state)
                raise CellError(f"{name}: the new state is ({shapes[0]}), and init_state gave ({shapes[1]})")
            if memory is not None and not isinstance(memory, Tensor):
                raise CellError(f"{name}: the memory is {_kind(memory)}, and should be a tensor, or None as it came in")
            x = h


def _check_state(name: str, what: str, state: Any) -> None:
    if not isinstance(state, tuple) or not all(isinstance(part, Tensor) for part in state):
        parts = ", ".join(map(_kind, state)) if isinstance(state, tuple) else _kind(state)
        raise CellError(f"{name}: {what} is ({parts}), and should be a flat tuple of tensors, such as (h, c) or (h,)")


def _kind(value: Any) -> str:
    return " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else type(value).__name__
