"""ConvLSTM: an LSTM whose matrix products are convolutions, the parent of all cells here.

    (i, f, g, o) = W ∗ [x, h] + b
    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h' = σ(o) ⊙ tanh(c')

Reference: Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation
Nowcasting", NeurIPS 2015, doi:10.48550/arXiv.1506.04214.

Differs from the paper: no peephole terms, as in the code released with MS-LSTM.
Differs from the released code: one convolution over [x, h] and one bias where that has two of each.
"""

from __future__ import annotations

from torch import Tensor

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.gates import exposed


class ConvLSTM(Cell):
    """One ConvLSTM layer; state (h, c).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channels = channels
        self.gates = SameConv2d(2 * channels, 4 * channels, kernel, sources=2)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h and c."""
        return zeros(x), zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; the zigzag memory is handed on untouched."""
        h, c = state
        c, o = self.gates.update(c, x, h, parts=4)
        h = exposed(o, c)
        return h, (h, c), memory


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` ConvLSTM layers of ``channels`` channels, from the bottom up."""
    return [ConvLSTM(channels, kernel) for _ in range(depth)]
