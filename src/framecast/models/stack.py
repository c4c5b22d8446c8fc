"""A stack places cells at scales and is itself a cell; its topology is data, not a class.

``scales`` names the resolution of each layer as a power of two: ``(0, 0, 0, 0, 0, 0)`` is the plain
column, ``(0, 1, 2, 2, 1, 0)`` the mirrored pyramid of MS-LSTM. Between layers

    one scale down:  x ← MaxPool₂(h)
    one scale up:    x ← Bilinear₂(h) + h_e      h_e: the encoder's output at that scale (the skip)

and the zigzag memory is resampled the same way but never takes part in a skip.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.cell import Cell, State
from framecast.errors import OptionError

Skip = Literal["add", "none"]


def pyramid_scales(layers: int) -> tuple[int, ...]:
    """Return the mirrored pyramid of an even number of layers, e.g. (0, 1, 2, 2, 1, 0) for six.

    Raises:
        ValueError: the number of layers is odd or below two.
    """
    if layers < 2 or layers % 2:
        near = f"{max(2, layers - 1)} or {layers + 1}" if layers > 1 else "2"
        raise OptionError(f"a pyramid mirrors its layers, so it needs an even number >= 2 and got {layers}: use {near}")
    down = range(layers // 2)
    return (*down, *reversed(down))


class Stack(Cell):
    """Cells at scales, from the bottom up, with or without the pyramid's skips.

    Raises:
        ValueError: cells and scales differ in number, widths differ, two neighbouring scales differ by
            more than one, or ``skip`` is neither "add" nor "none".
    """

    def __init__(self, cells: Sequence[Cell], scales: Sequence[int], skip: Skip = "add") -> None:
        super().__init__()
        if len(cells) != len(scales) or not cells:
            raise OptionError(f"a stack needs one scale per cell and got {len(cells)} cells, {len(scales)} scales")
        if any(abs(a - b) > 1 for a, b in pairwise(scales)) or scales[0] or min(scales):
            raise OptionError(f"scales start at 0 and move by at most one from layer to layer; got {tuple(scales)}")
        if len({cell.channels for cell in cells}) > 1:
            raise OptionError("all cells of a stack have one width; got " + str([cell.channels for cell in cells]))
        if skip not in ("add", "none"):
            raise OptionError(f"skip is {skip!r} and must be 'add' or 'none'")
        self.cells = nn.ModuleList(cells)
        self.scales = tuple(scales)
        self.skip = skip
        self.channels = cells[0].channels
        self.multiple = math.lcm(*(cell.multiple * 2**scale for cell, scale in zip(cells, scales, strict=True)))
        probe = torch.empty(1, self.channels, self.multiple, self.multiple)
        self._widths = [len(cell.init_state(self._view(probe, scale))) for cell, scale in self._layers()]

    def _layers(self) -> list[tuple[Cell, int]]:
        return list(zip(self.cells, self.scales, strict=True))  # type: ignore[arg-type]

    @staticmethod
    def _view(x: Tensor, scale: int) -> Tensor:
        return x[..., :: 2**scale, :: 2**scale]

    def _per_cell(self, state: State) -> list[State]:
        parts, start = [], 0
        for width in self._widths:
            parts.append(state[start : start + width])
            start += width
        return parts

    def init_state(self, x: Tensor) -> State:
        """Return the states of all cells, from the bottom up, as one flat tuple."""
        return tuple(t for cell, scale in self._layers() for t in cell.init_state(self._view(x, scale)))

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return the zigzag memory of the bottom cell; it starts at full size."""
        return self._layers()[0][0].init_memory(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step through all layers: x (B, C, H, W) in, the top layer's h (B, C, H, W) out."""
        states: list[Tensor] = []
        encoded: dict[int, Tensor] = {}
        current = 0
        for (cell, scale), cell_state in zip(self._layers(), self._per_cell(state), strict=True):
            if scale > current:
                encoded[current] = x
                x, memory = _down(x), _resample(_down, memory)
            elif scale < current:
                x, memory = _up(x), _resample(_up, memory)
                if self.skip == "add":
                    x = x + encoded[scale]
            x, cell_state, memory = cell(x, cell_state, memory)
            states += cell_state
            current = scale
        for _ in range(current):
            memory = _resample(_up, memory)
        return x, tuple(states), memory

    def penalty(self, state: State) -> Tensor | None:
        """Return the sum of the cells' penalties (B,), or None where no cell has one."""
        parts = [cell.penalty(part) for (cell, _), part in zip(self._layers(), self._per_cell(state), strict=True)]
        present = [part for part in parts if part is not None]
        return torch.stack(present).sum(0) if present else None


def _down(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def _up(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _resample(to_scale: Callable[[Tensor], Tensor], memory: Tensor | None) -> Tensor | None:
    return None if memory is None else to_scale(memory)
