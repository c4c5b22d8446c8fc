"""TrajGRU: a GRU whose recurrent connections are not neighbourhoods but learnt links that follow the motion.

    φ = W_φ ∗ leaky(W_f ∗ [x, h])               L flows of two channels (right, down)
    q = W_q ∗ [warp(h, -φ₁), …, warp(h, -φ_L)]  1x1
    (z_x, r_x, n_x) = W ∗ x,  (z_h, r_h, n_h) = q
    z = σ(z_x + z_h)        r = σ(r_x + r_h)    n = leaky(n_x + r ⊙ (n_h + b))
    h' = (1 - z) ⊙ n + z ⊙ h                    leaky: slope 0.2 below zero

Every convolution has a bias; those of z and of r are only ever added and stored as one, so b, inside the
reset gate, is all that is left of the bias of W_q. For the warp see ``warp.py``.

Reference: Shi et al., "Deep Learning for Precipitation Nowcasting: A Benchmark and a New Model", NeurIPS
2017, doi:10.48550/arXiv.1706.03458.

Differs from the paper: a stack of equal layers and kernels, not an encoder-forecaster, as in the code
released with MS-LSTM. Differs from the latter: x and h share a convolution, and W_q takes its inputs channel
by channel instead of link by link, which saves a copy of all warped maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framecast.cells.cell import Cell, State, zeros
from framecast.cells.convolution import SameConv2d, check_kernel
from framecast.cells.warp import warp_along
from framecast.errors import check_count

SLOPE = 0.2


class TrajGRU(Cell):
    """One TrajGRU layer; state (h,).

    Args:
        channels: the width C.
        kernel: size of all kernels but the 1x1 one.
        links: the number L of recurrent links.

    Raises:
        ValueError: the kernel is even or ``links`` below one.
    """

    def __init__(self, channels: int, kernel: int = 3, links: int = 10) -> None:
        super().__init__()
        check_kernel(kernel)
        check_count("links", links)
        self.channels, self.links = channels, links
        self.features = SameConv2d(2 * channels, channels, kernel, sources=2)
        self.flow = SameConv2d(channels, 2 * links, kernel)
        self.gates = SameConv2d(channels, 3 * channels, kernel)
        project = SameConv2d(links * channels, 3 * channels, 1)
        assert project.bias is not None
        assert self.gates.bias is not None
        *added, candidate = project.bias.detach()[:, None, None].chunk(3)
        with torch.no_grad():
            self.gates.bias[: 2 * channels] += torch.cat(added).flatten()
        project.register_parameter("bias", None)
        self.project = project
        self.candidate_bias = nn.Parameter(candidate.clone())

    def init_state(self, x: Tensor) -> State:
        """Return zeros for h."""
        return (zeros(x),)

    def forward(self, x: Tensor, state: State, memory: Tensor | None) -> tuple[Tensor, State, Tensor | None]:
        """Take one step; the zigzag memory is handed on untouched."""
        (h,) = state
        features = F.leaky_relu(self.features(x, h), SLOPE)
        flow = self.flow(features).reshape(-1, self.links, 2, *x.shape[-2:])
        linked = self.project(warp_along(h, -flow).flatten(1, 2))
        zx, rx, nx = self.gates.split(x, parts=3)
        zh, rh, nh = linked.chunk(3, 1)
        z, r = torch.sigmoid(zx + zh), torch.sigmoid(rx + rh)
        n = F.leaky_relu(nx + r * (nh + self.candidate_bias), SLOPE)
        h = (1 - z) * n + z * h
        return h, (h,), memory


def column(channels: int, depth: int, *, kernel: int = 3, links: int = 10) -> list[Cell]:
    """Return ``depth`` TrajGRU layers of ``channels`` channels, from the bottom up."""
    return [TrajGRU(channels, kernel, links) for _ in range(depth)]
