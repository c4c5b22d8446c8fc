"""PrecipLSTM: PredRNN with a memory of space, a memory of change in time, and attention to the surroundings.

Each pixel first attends to the 30x30 pixels around it; then four memories, two of them new, each take what
they need from the result: s looks at the attended input, t at what changed since the step before.

    q, k, v = Q ∗ x                              1x1, no bias
    x̂ = x + A ∗ attend(q, k, v) + a              over the window, see ``attention.py``
    (i, f, g) = W_c ∗ [x̂, h] + b_c               c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    (i, f, g) = W_m ∗ [x̂, m] + b_m               m' likewise, zigzag
    (i, f, g) = W_s ∗ [x̂, s] + b_s               s' likewise
    (i, f, g) = W_t ∗ [x - x₋₁, t] + b_t         t' likewise; x₋₁ is the layer's input a step earlier
    o  = σ(V ∗ [x̂, h, c', s', t', m'] + d)
    h' = o ⊙ tanh(U ∗ [c', s', t', m'] + u)      U 1x1

The difference takes the input before the attention, and x₋₁ is zero before the first step.

Reference: Ma, Zhang and Liu, "PrecipLSTM: A Meteorological Spatiotemporal LSTM for Precipitation
Nowcasting", IEEE Transactions on Geoscience and Remote Sensing 60, 2022, doi:10.1109/TGRS.2022.3198222.

Differs from the released code: the attention needs no CUDA extension and is computed again in the backward
pass; convolutions whose results are only added are one, with one bias, the output gate's included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.cells.attention import local_attention
from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.predrnn import zigzag_memory
from framecast.errors import check_count


class PrecipLSTM(Cell):
    """One PrecipLSTM layer; state (h, c, s, t, x₋₁), zigzag memory m.

    Raises:
        ValueError: the kernel is even, or the window is below 1.
    """

    def __init__(self, channels: int, kernel: int = 3, window: int = 30) -> None:
        super().__init__()
        check_kernel(kernel)
        check_count("window", window)
        self.channels = channels
        self.window = window
        self.tokens = SameConv2d(channels, 3 * channels, 1, bias=False)
        self.attended = SameConv2d(channels, channels, kernel)
        self.gates_c = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.gates_m = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.gates_s = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.gates_t = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)
        self.output = SameConv2d(6 * channels, channels, kernel, sources=6)
        self.project = SameConv2d(4 * channels, channels, 1)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h, c, s, t and the previous input."""
        return zeros(x), zeros(x), zeros(x), zeros(x), zeros(x)

    def init_memory(self, x: Tensor) -> Tensor:
        """Return zeros for m."""
        return zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; m comes from the layer below and goes to the layer above."""
        m = zigzag_memory(memory)
        h, c, s, t, previous = state
        query, key, value = self.tokens.split(x, parts=3)
        near = x + self.attended(local_attention(query, key, value, self.window))
        (c,) = self.gates_c.update(c, near, h)
        (m,) = self.gates_m.update(m, near, m)
        (s,) = self.gates_s.update(s, near, s)
        (t,) = self.gates_t.update(t, x - previous, t)
        everything = torch.cat([near, h, c, s, t, m], 1)
        memories = everything[:, 2 * self.channels :]
        h = self.project.expose(self.output(everything), memories)
        return h, (h, c, s, t, x.to(previous.dtype)), m


def column(channels: int, depth: int, *, kernel: int = 3, window: int = 30) -> list[Cell]:
    """Return ``depth`` PrecipLSTM layers of ``channels`` channels, from the bottom up."""
    return [PrecipLSTM(channels, kernel, window) for _ in range(depth)]
