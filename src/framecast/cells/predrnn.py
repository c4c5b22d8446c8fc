"""PredRNN: besides its own memory, every layer updates one memory that zigzags through the whole stack.

    (i, f, g, o) = W ∗ [x, h]
    ΔC = σ(i) ⊙ tanh(g)       c' = σ(f) ⊙ c + ΔC
    (ĩ, f̃, g̃) = W̃ ∗ [x, m]
    ΔM = σ(ĩ) ⊙ tanh(g̃)      m' = σ(f̃) ⊙ m + ΔM
    h' = σ(o + V ∗ [c', m']) ⊙ tanh(U ∗ [c', m'])       U 1x1

PredRNN-V2 is the same function trained with a decoupling penalty, which keeps both memories from learning
the same. With one 1x1 convolution A for all layers, and the cosine over the positions of a channel,

    penalty = Σ |cos(A ∗ ΔC, A ∗ ΔM)|       summed over channels and layers, averaged over the steps so far

It is taken in training mode only; in evaluation mode the penalty is zero and costs nothing.

Every convolution has a bias; those of the output gate are only ever added and stored as one.

References: Wang et al., "PredRNN: Recurrent Neural Networks for Predictive Learning using Spatiotemporal
LSTMs", NeurIPS 2017; V2: Wang et al., "PredRNN: A Recurrent Neural Network for Spatiotemporal Predictive
Learning", TPAMI 45(2), 2023, doi:10.1109/TPAMI.2022.3165153.

Differs from the papers' own code: no forget bias, no layer norm, no patches, but biases, as in the code
released with MS-LSTM. Differs from the latter: inputs of one kernel size share a convolution, and the
adapter runs in training only.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel, side_by_side
from framecast.cells.gates import exposed, gated_update
from framecast.errors import OptionError


class SpatiotemporalCell(Cell):
    """What PredRNN and its heirs share: the zigzag memory, and the hidden state from both memories.

    Args:
        channels: the width C.
        kernel: size of all kernels but the 1x1 one.
        gates: how many gates are made of x and h; the last is the output gate.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int, gates: int) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channels = channels
        self.gates = SameConv2d(2 * channels, gates * channels, kernel, sources=2)
        self.zigzag = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.output = SameConv2d(2 * channels, channels, kernel, sources=2)
        self.project = SameConv2d(2 * channels, channels, 1)
        move_bias(self.output, self.gates)

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return zeros for the zigzag memory m."""
        return zeros(x)

    @abstractmethod
    def step(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, Tensor, State, Tensor]:
        """Take one step: h, o before its non-linearity (both B, C, H, W), the state, which starts with h, and m."""

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step."""
        h, _, state, memory = self.step(x, state, memory)
        return h, state, memory

    def wander(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """Return m' (B, C, H, W)."""
        m = zigzag_memory(memory)
        return self.zigzag.update(m, x, m)[0]

    def expose(self, o: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """Return h' and o, before its non-linearity, from its share of x and h and both new memories."""
        memories = side_by_side(c, m)
        o = self.output(*memories, plus=o)
        return self.project.expose(o, *memories), o


class PredRNN(SpatiotemporalCell):
    """One PredRNN layer; state (h, c), and with an adapter (h, c, sum of penalties, number of steps).

    Args:
        channels: the width C.
        kernel: size of all kernels but the 1x1 ones.
        adapter: A of the decoupling penalty, shared by all layers of a stack, or None for no penalty.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(self, channels: int, kernel: int = 3, adapter: nn.Conv2d | None = None) -> None:
        super().__init__(channels, kernel, gates=4)
        self.adapter = adapter

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h and c, and for the sum and number of penalties (B,)."""
        account = () if self.adapter is None else (zeros(x[:, 0, 0, 0]), zeros(x[:, 0, 0, 0]))
        return (zeros(x), zeros(x), *account)

    def step(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, Tensor, State, Tensor]:
        """Take one step."""
        h, c, *account = state
        if account and self.training:
            m = zigzag_memory(memory)
            i, f, g, o = self.gates.split(x, h, parts=4)
            i_m, f_m, g_m = self.zigzag.split(x, m, parts=3)
            c, m = gated_update(c, i, f, g), gated_update(m, i_m, f_m, g_m)
            total, steps = account
            account = [total + self._overlap(exposed(i, g), exposed(i_m, g_m)).to(total.dtype), steps + 1]
        else:
            c, o = self.gates.update(c, x, h, parts=4)
            m = self.wander(x, memory)
        h, o = self.expose(o, c, m)
        return h, o, (h, c, *account), m

    def penalty(self, state: State) -> Tensor | None:
        """Return Σ |cos(A ∗ ΔC, A ∗ ΔM)| over channels, averaged over the steps taken in training mode."""
        if self.adapter is None:
            return None
        total, steps = state[-2:]
        return total / steps.clamp(min=1)

    def _overlap(self, delta: Tensor, wandered: Tensor) -> Tensor:
        assert self.adapter is not None
        maps = [self.adapter(d).flatten(2) for d in (delta, wandered)]
        exact = [m.to(torch.promote_types(m.dtype, torch.float32)) for m in maps]
        increment, memory_increment = (F.normalize(m, dim=2) for m in exact)
        return (increment * memory_increment).sum(2).abs().sum(1)


def zigzag_memory(memory: Tensor | None) -> Tensor:
    """Return the zigzag memory, which a cell of this family cannot do without.

    Raises:
        ValueError: there is none, because the bottom cell of the stack has none.
    """
    if memory is None:
        raise OptionError(
            "this cell needs the zigzag memory and got None: start with cell.init_memory(x), and give a "
            "stack cells that all have one"
        )
    return memory


def move_bias(source: nn.Conv2d, target: nn.Conv2d) -> None:
    """Add the bias of a convolution to the last outputs of another one's, to which its result is added."""
    assert source.bias is not None
    assert target.bias is not None
    with torch.no_grad():
        target.bias[-source.out_channels :] += source.bias
    source.register_parameter("bias", None)


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` PredRNN layers of ``channels`` channels, from the bottom up."""
    return [PredRNN(channels, kernel) for _ in range(depth)]


def column_v2(channels: int, depth: int, *, kernel: int = 3, decoupling: bool = True) -> list[Cell]:
    """Return ``depth`` PredRNN layers that share one adapter, or have none where ``decoupling`` is False."""
    adapter = SameConv2d(channels, channels, 1) if decoupling else None
    return [PredRNN(channels, kernel, adapter) for _ in range(depth)]
