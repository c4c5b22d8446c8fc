"""MotionRNN: the output of each MIM layer but the last is warped along learnt flows.

MotionGRU works at half the resolution, on E = W_e ∗ h̃ (2x2, stride 2, C/4 channels) of the MIM layer's h̃,
with nine flows F (transient, 18 channels) and their trend D; its other kernels are 1x1:

    u = σ(W_u ∗ [E, F])     r = σ(W_r ∗ [E, F])     z = tanh(W_z ∗ [E, r ⊙ F])
    D' = D + ½ (F - D)      F' = u ⊙ z + (1 - u) ⊙ F + D'
    V_j = σ(W_m ∗ E)_j ⊙ warp(E, F'_j)              j = 1 … 9
    H = W_h ∗ᵀ (W_d ∗ scramble(V))                  ∗ᵀ: transposed, 4x4, stride 2, to C channels
    g = σ(W_g ∗ [H, h̃])     X = g ⊙ h̃ + (1 - g) ⊙ H
    h' = X + (1 - o) ⊙ x                            motion highway; o: the MIM layer's output gate

The released code reads V, stored as (C/4, height, width, 9), as if it were (9C/4, height, width). This
scrambles channels, flows and places, but its weights were trained on it: it is part of the function.

Reference: Wu et al., "MotionRNN: A Flexible Model for Video Prediction with Spacetime-Varying Motions",
CVPR 2021, doi:10.48550/arXiv.2103.02243.

Differs from the released code: that hands flows to the wrong samples when a batch has more than one, which
is mended here (for a single sample the two agree). The last layer, where MotionGRU has no effect, is a plain
MIM layer. The previous input of MIM is the cell's own, see ``mim.py``, so MS-MotionRNN differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from framecast.cells import mim
from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d
from framecast.cells.gates import tanh
from framecast.cells.predrnn import SpatiotemporalCell
from framecast.cells.warp import warp_along
from framecast.errors import OptionError

FLOWS = 9
TREND_STEP = 0.5


class MotionGRU(nn.Module):
    """Nine flows at half the resolution, and the map moved along them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, flow = channels // 4, 2 * FLOWS
        self.encode = nn.Conv2d(channels, quarter, 2, stride=2)
        self.gates = SameConv2d(quarter + flow, 2 * flow, 1)
        self.candidate = SameConv2d(quarter + flow, flow, 1)
        self.mask = SameConv2d(quarter, FLOWS, 1)
        self.decode = SameConv2d(FLOWS * quarter, quarter, 1)
        self.enlarge = nn.ConvTranspose2d(quarter, channels, 4, stride=2, padding=1)
        self.fuse = SameConv2d(2 * channels, channels, 1)

    def forward(self, h: Tensor, flow: Tensor, trend: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return X (B, C, H, W) and the new F and D (B, 18, H/2, W/2) of h (B, C, H, W) and the old."""
        encoded = self.encode(h)
        u, r = torch.sigmoid(self.gates(encoded, flow)).chunk(2, 1)
        z = tanh(self.candidate(encoded, r * flow))
        trend = trend + TREND_STEP * (flow - trend)
        flow = u * z + (1 - u) * flow + trend
        warped = warp_along(encoded, flow.reshape(-1, FLOWS, 2, *flow.shape[-2:]))
        warped = warped * torch.sigmoid(self.mask(encoded))[:, None]
        scrambled = warped.movedim(2, -1).reshape(-1, warped.shape[1] * FLOWS, *encoded.shape[-2:])
        decoded = self.enlarge(self.decode(scrambled))
        g = torch.sigmoid(self.fuse(decoded, h))
        return g * h + (1 - g) * decoded, flow, trend


class MotionRNN(Cell):
    """A layer with MotionGRU and motion highway behind it; state (that layer's, with h' for h, F, D).

    Args:
        layer: a MIM layer, or a PredRNN layer at the bottom.

    Raises:
        ValueError: the layer's channels are not a multiple of four.
    """

    multiple = 2

    def __init__(self, layer: SpatiotemporalCell) -> None:
        super().__init__()
        check_quarters(layer.channels)
        self.channels = layer.channels
        self.layer = layer
        self.motion = MotionGRU(layer.channels)

    def init_state(self, x: Tensor) -> State:
        """Return the layer's zeros, and zeros for F and D at half the resolution."""
        half = x[..., ::2, ::2]
        return (*self.layer.init_state(x), zeros(half, 2 * FLOWS), zeros(half, 2 * FLOWS))

    def init_memory(self, x: Tensor) -> Tensor | None:
        """Return zeros for the zigzag memory m."""
        return self.layer.init_memory(x)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step."""
        *inner, flow, trend = state
        h, o, after, memory = self.layer.step(x, tuple(inner), memory)
        warped, flow, trend = self.motion(h, flow, trend)
        h = warped + (1 - torch.sigmoid(o)) * x
        return h, (h, *after[1:], flow, trend), memory


def check_quarters(channels: int) -> None:
    """Refuse a width that cannot be quartered.

    Raises:
        ValueError: the channels are not a multiple of four; the message names the nearest that are.
    """
    if channels % 4:
        below, above = channels // 4 * 4, (channels // 4 + 1) * 4
        near = f"{below} or {above}" if below else str(above)
        raise OptionError(f"hidden is {channels} and MotionRNN needs a multiple of 4: use {near}")


def column(channels: int, depth: int, *, kernel: int = 3) -> list[Cell]:
    """Return MIM's layers from the bottom up, each but the last with motion.

    Raises:
        ValueError: the kernel is even, or the channels are not a multiple of four.
    """
    check_quarters(channels)
    *moving, last = mim.layers(channels, depth, kernel)
    return [*(MotionRNN(layer) for layer in moving), last]
