"""MIM: the forget gate gives way to two nested memories, one of the change of the input, one of the rest.

    d = x - p                               p: the cell's previous input, zero at the first step
    (i, f, g) = Wₙ ∗ [d, n]                 n' = σ(f) ⊙ n + σ(i) ⊙ tanh(g)
    D = σ(Vₙ ∗ [d, n']) ⊙ tanh(n')          MIM-N, non-stationary
    (i, f, g, o) = Wₛ ∗ [D, c]              s' = σ(f) ⊙ s + σ(i) ⊙ tanh(g)
    T = σ(o + Vₛ ∗ s') ⊙ tanh(s')           MIM-S, stationary
    (i, g, o) = W ∗ [x, h]                  c' = T + σ(i) ⊙ tanh(g)

and m' and h' of c' as in PredRNN. The first layer has no layer below to take differences of: it is a PredRNN
layer. Every convolution has a bias; those that are only ever added are stored as one.

Reference: Wang et al., "Memory in Memory: A Predictive Neural Network for Learning Higher-Order
Non-Stationarity from Spatiotemporal Dynamics", CVPR 2019, doi:10.48550/arXiv.1811.07490.

Differs from the released code: without the weights that have no effect there (MIM-N and MIM-S of the first
layer, the forget gate above it). That code calls the layer below for p; here p is what the cell itself saw
one step ago. In a plain stack the two are the same; in the pyramid ours includes the skip that x includes,
and the released MS-MIM resamples the lower layer's output without it.
"""

from __future__ import annotations

from torch import Tensor

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d
from framecast.cells.gates import exposed
from framecast.cells.predrnn import PredRNN, SpatiotemporalCell, move_bias


class MIM(SpatiotemporalCell):
    """One MIM layer above the first; state (h, c, n, s, p).

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__(channels, kernel, gates=3)
        self.change = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.change_output = SameConv2d(2 * channels, channels, kernel, sources=2)
        self.steady = SameConv2d(2 * channels, 4 * channels, kernel, sources=2)
        self.steady_output = SameConv2d(channels, channels, kernel)
        move_bias(self.steady_output, self.steady)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h, c, n, s and p."""
        return zeros(x), zeros(x), zeros(x), zeros(x), zeros(x)

    def step(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, Tensor, State, Tensor]:
        """Take one step."""
        h, c, n, s, previous = state
        difference = x - previous
        (n,) = self.change.update(n, difference, n)
        o = self.change_output(difference, n)
        change = exposed(o, n)
        s, o = self.steady.update(s, change, c, parts=4)
        steady = exposed(self.steady_output(s, plus=o), s)
        i, g, o = self.gates.split(x, h, parts=3)
        c = steady + exposed(i, g)
        m = self.wander(x, memory)
        h, o = self.expose(o, c, m)
        return h, o, (h, c, n, s, x.to(previous.dtype)), m


def layers(channels: int, depth: int, kernel: int) -> list[SpatiotemporalCell]:
    """Return a PredRNN layer and ``depth`` - 1 MIM layers, from the bottom up."""
    return [(MIM if layer else PredRNN)(channels, kernel) for layer in range(depth)]


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` layers of ``channels`` channels, from the bottom up; the first is a PredRNN layer."""
    return list(layers(channels, depth, kernel))
