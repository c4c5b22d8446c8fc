"""CMS-LSTM: a ConvLSTM between a mutual gating of its inputs and an attention over patches of three sizes.

The gating ("context embedding") lets x and h weigh each other; the attention ("spatiotemporal expression")
lets pixels of h and c find one another inside the whole map, its quarters and its sixteenths.

    x, h ← mutual_gating(x, h; Q ∗ h, R ∗ x)        five rounds, see ``gating.py``
    (i, f, g, o) = W ∗ [x, h] + b
    c̃ = σ(f) ⊙ c + σ(i) ⊙ tanh(g)
    h̃ = σ(o) ⊙ tanh(c̃)

    p  = [h̃ | c̃]                                    side by side, (B, C, H, 2W)
    pₙ = p + patch_attention(qₙ, kₙ, vₙ)             n = 1, 2, 4: n x n patches, each of h̃ and c̃ together
    [y_h | y_c] = M ∗ [p₁, p₂, p₄] + d
    z  = Z ∗ [y_h, y_c] + a                          1x1
    (i, g, o) = U ∗ [h̃, z] + u
    c' = (1 - σ(i)) ⊙ c̃ + σ(i) ⊙ tanh(g)
    h' = σ(o) ⊙ c'                                   no tanh

qₙ, kₙ and vₙ are 1x1 convolutions of p; M is a k x k convolution that also sees across the seam.

Reference: Chai et al., "CMS-LSTM: Context Embedding and Multi-Scale Spatiotemporal Expression LSTM for
Predictive Learning", ICME 2022, doi:10.48550/arXiv.2102.03586.

Differs from the paper: no layer normalisation, as in the code released with MS-LSTM.
Differs from the released code: non-square frames work; the attention's weights are never held all at once;
keys have no bias, which a softmax over the keys cannot see; x and h share one convolution, h̃ and z too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.cells.attention import patch_attention
from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.gates import exposed, tanh
from framecast.cells.gating import mutual_gating

BANDS = (1, 2, 4)


class CMSLSTM(Cell):
    """One CMS-LSTM layer; state (h, c).

    Raises:
        ValueError: the kernel is even.
    """

    multiple = max(BANDS)

    def __init__(self, channels: int, kernel: int = 3) -> None:
        super().__init__()
        check_kernel(kernel)
        self.channels = channels
        scales = len(BANDS)
        self.gate_x = SameConv2d(channels, channels, kernel)
        self.gate_h = SameConv2d(channels, channels, kernel)
        self.gates = SameConv2d(2 * channels, 4 * channels, kernel, sources=2)
        self.query = SameConv2d(channels, scales * channels, 1)
        self.key = SameConv2d(channels, scales * channels, 1, bias=False)
        self.value = SameConv2d(channels, scales * channels, 1)
        self.merge = SameConv2d(scales * channels, channels, kernel)
        self.mix = SameConv2d(2 * channels, channels, 1)
        self.update = SameConv2d(2 * channels, 3 * channels, kernel, sources=2)

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h and c."""
        return zeros(x), zeros(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; the zigzag memory is handed on untouched."""
        h, c = state
        x, h = mutual_gating(x, h, self.gate_x, self.gate_h)
        c, o = self.gates.update(c, x, h, parts=4)
        h = exposed(o, c)
        i, g, o = self.update.split(h, self._express(h, c), parts=3)
        i = torch.sigmoid(i)
        c = (1 - i) * c + i * tanh(g)
        h = torch.sigmoid(o) * c
        return h, (h, c), memory

    def _express(self, h: Tensor, c: Tensor) -> Tensor:
        """Return z (B, C, H, W): what the pixels of h and c find in one another."""
        pair = torch.cat([h, c], 3)
        tokens = (conv(pair).chunk(len(BANDS), 1) for conv in (self.query, self.key, self.value))
        blocks = [
            pair + patch_attention(query, key, value, bands, maps=2)
            for bands, query, key, value in zip(BANDS, *tokens, strict=True)
        ]
        merged: Tensor = self.merge(torch.cat(blocks, 1))
        z: Tensor = self.mix(torch.cat(merged.chunk(2, 3), 1))
        return z


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return ``depth`` CMS-LSTM layers of ``channels`` channels, from the bottom up."""
    return [CMSLSTM(channels, kernel) for _ in range(depth)]
