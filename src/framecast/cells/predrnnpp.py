"""PredRNN++: both memories are updated in a cascade (Causal LSTM), and a gradient highway bypasses them.

    (i, f, g) = W₁ ∗ [x, h, c]              c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    (ĩ, f̃, g̃) = W₂ ∗ [x, c', m]             m' = σ(f̃) ⊙ tanh(W₃ ∗ m) + σ(ĩ) ⊙ tanh(g̃)        W₃ 1x1
    h' = tanh(W₅ ∗ [x, c', m']) ⊙ tanh(W₆ ∗ [c', m'])                                         W₆ 1x1

The gradient highway stands before the second layer and hands it z' for x:

    (p, s) = W ∗ [x, z]                     z' = σ(s) ⊙ tanh(p) + (1 - σ(s)) ⊙ z

Reference: Wang et al., "PredRNN++: Towards a Resolution of the Deep-in-Time Dilemma in Spatiotemporal
Predictive Learning", ICML 2018, doi:10.48550/arXiv.1804.06300.

Differs from the released code: only the second layer has highway weights, where that has them, unused, in
all other layers too; x and z share a convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.gates import tanh
from framecast.cells.predrnn import zigzag_memory


class CausalLSTM(Cell):
    """One Causal LSTM layer; state (h, c).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channels = channels
        self.gates = SameConv2d(3 * channels, 3 * channels, kernel)
        self.zigzag = SameConv2d(3 * channels, 3 * channels, kernel)
        self.zigzag_project = SameConv2d(channels, channels, 1)
        self.output = SameConv2d(3 * channels, channels, kernel)
        self.project = SameConv2d(2 * channels, channels, 1)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h and c."""
        return zeros(x), zeros(x)

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return zeros for the zigzag memory m."""
        return zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step."""
        h, c = state
        m = zigzag_memory(memory)
        (c,) = self.gates.update(c, x, h, c)
        # No term holds m itself, which would keep the sum in float32 under autocast.
        (m,) = self.zigzag.update(tanh(self.zigzag_project(m)).to(m.dtype), x, c, m)
        o = tanh(self.output(x, c, m))
        h = o * tanh(self.project(c, m))
        return h, (h, c), m


class GradientHighway(Cell):
    """A Causal LSTM layer behind a gradient highway; state (h, c, z).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.channels = channels
        self.cell = CausalLSTM(channels, kernel)
        self.highway = SameConv2d(2 * channels, 2 * channels, kernel, sources=2)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h, c and z."""
        return (*self.cell.init_state(x), zeros(x))

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return zeros for the zigzag memory m."""
        return self.cell.init_memory(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step."""
        *inner, z = state
        p, s = self.highway.split(x, z, parts=2)
        s = torch.sigmoid(s)
        z = s * tanh(p) + (1 - s) * z
        h, after, memory = self.cell(z, tuple(inner), memory)
        return h, (*after, z), memory


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` Causal LSTM layers, from the bottom up; the second has the gradient highway."""
    return [(GradientHighway if layer == 1 else CausalLSTM)(channels, kernel) for layer in range(depth)]
