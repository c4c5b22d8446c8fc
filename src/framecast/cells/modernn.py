"""MoDeRNN: a ConvLSTM whose input and hidden state first weigh each other through 3x3, 5x5 and 7x7 kernels.

The gating ("detail context block") brings the two to the same fine-grained context before they are joined.

    G_h(h) = (H₃ ∗ h + H₅ ∗ h + H₇ ∗ h) / 3 + e
    G_x(x) = (X₃ ∗ x + X₅ ∗ x + X₇ ∗ x) / 3 + d
    x, h ← mutual_gating(x, h; G_h, G_x)             five rounds, see ``gating.py``
    (i, f, g, o) = W ∗ [x, h] + b
    c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h' = σ(o) ⊙ tanh(c')

Reference: Chai et al., "MoDeRNN: Towards Fine-Grained Motion Details for Spatiotemporal Predictive
Learning", ICASSP 2022, doi:10.48550/arXiv.2110.12978.

Differs from the released code: the three kernels are parameters, but their mean is taken first (padded to
7x7) and applied once; their biases are only ever averaged and stored as one; x and h share one convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.gates import exposed
from framecast.cells.gating import mutual_gating


class MeanConv2d(nn.Module):
    """The mean of a 3x3, a 5x5 and a 7x7 convolution of one input, drawn as three default convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        three, five, seven = (nn.Conv2d(channels, channels, kernel) for kernel in (3, 5, 7))
        self.weight3, self.weight5, self.weight7 = three.weight, five.weight, seven.weight
        biases = [conv.bias.detach() for conv in (three, five, seven) if conv.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases).mean(0))

    def folded(self) -> Callable[[Tensor], Tensor]:
        """Return the one 7x7 convolution that it is, to be applied several times."""
        kernel = (F.pad(self.weight3, (2,) * 4) + F.pad(self.weight5, (1,) * 4) + self.weight7) / 3
        return partial(F.conv2d, weight=kernel, bias=self.bias, padding=3)


class MoDeRNN(Cell):
    """One MoDeRNN layer; state (h, c).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channels = channels
        self.gate_x = MeanConv2d(channels)
        self.gate_h = MeanConv2d(channels)
        self.gates = SameConv2d(2 * channels, 4 * channels, kernel, sources=2)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h and c."""
        return zeros(x), zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; the zigzag memory is handed on untouched."""
        h, c = state
        x, h = mutual_gating(x, h, self.gate_x.folded(), self.gate_h.folded())
        c, o = self.gates.update(c, x, h, parts=4)
        h = exposed(o, c)
        return h, (h, c), memory


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` MoDeRNN layers of ``channels`` channels, from the bottom up."""
    return [MoDeRNN(channels, kernel) for _ in range(depth)]
