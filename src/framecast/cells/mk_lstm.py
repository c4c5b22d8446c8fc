"""MK-LSTM: two cell memories, one with a 3x3 and one with a 5x5 kernel (the cell of MS-LSTM).

    (i₃, f₃, g₃, o₃) = W₃ ∗ [x, h]            3x3
    (i₅, f₅, g₅, o₅) = W₅ ∗ [x, h]            5x5
    c₃' = σ(f₃) ⊙ c₃ + σ(i₃) ⊙ tanh(g₃)
    c₅' = σ(f₅) ⊙ c₅ + σ(i₅) ⊙ tanh(g₅)
    o   = σ(o₃ + o₅ + V₃ ∗ c₃' + V₅ ∗ c₅')    V₃ 3x3, V₅ 5x5
    h'  = o ⊙ tanh(U ∗ [c₃', c₅'])            U 1x1

Every convolution has a bias; those of the output gate are only ever added and stored as one.

Reference: Ma et al., "MS-LSTM: Exploring Spatiotemporal Multiscale Representations in Video Prediction
Domain", Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731.

Differs from the released code: x and h share one convolution per kernel size, and o₃ + o₅ is computed
by one 5x5 convolution whose kernel is the sum of both (the 3x3 one padded with zeros).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, side_by_side, update
from framecast.cells.weight_gradients import Kernel


class MKLSTM(Cell):
    """One multi-kernel LSTM layer; state (h, c₃, c₅)."""

    place = ""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gates3 = SameConv2d(2 * channels, 3 * channels, 3, sources=2)
        self.gates5 = SameConv2d(2 * channels, 4 * channels, 5, sources=2)
        self.output3 = SameConv2d(2 * channels, channels, 3, bias=False, sources=2)
        self.memory3 = SameConv2d(channels, channels, 3, bias=False)
        self.memory5 = SameConv2d(channels, channels, 5, bias=False)
        self.project = SameConv2d(2 * channels, channels, 1)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h, c₃ and c₅."""
        return zeros(x), zeros(x), zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; the zigzag memory is handed on untouched."""
        h, c3, c5 = state
        c3, c5, o = self._update(side_by_side(x, h), c3, c5)
        o = self.memory5(c5, plus=self.memory3(c3, plus=o))
        h = self.project.expose(o, c3, c5)
        return h, (h, c3, c5), memory

    def _update(self, xh: tuple[Tensor, ...], c3: Tensor, c5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return both new memories and o₃ + o₅; a forecast holds the gates of one kernel at a time."""
        (c3,) = self.gates3.update(c3, *xh)
        c5, o = update(self, c5, xh, parts=4)
        return c3, c5, o

    def kernel(self) -> Kernel:
        """Return the 5x5 kernels, to whose output gate the 3x3 one is added, padded with zeros."""
        folded = self.gates5.weight + F.pad(self.output3.weight, (1, 1, 1, 1, 0, 0, 3 * self.channels, 0))
        return Kernel(folded, self.gates5.bias)


def column(channels: int, depth: int) -> list[Cell]:
    """Return ``depth`` MK-LSTM layers of ``channels`` channels, from the bottom up."""
    return [MKLSTM(channels) for _ in range(depth)]
