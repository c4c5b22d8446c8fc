"""Warping: every pixel of the result is read from where its flow (u, v) points, bilinearly, zero outside.

    result(x, y) = a(X, Y)      X = (x + u) · W / (W - 1) - ½      Y = (y + v) · H / (H - 1) - ½

Zero flow is not the identity: the released code scales positions for one convention of ``grid_sample``
(``align_corners=True``) and samples with the other, which shrinks the map towards its centre by half a pixel
at each border. The published weights were trained with that, so TrajGRU and MotionRNN keep it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def warp_along(a: Tensor, flow: Tensor) -> Tensor:
    """Read a map along several flows.

    Positions and samples are computed in at least float32, also under autocast.

    Args:
        a: (B, C, H, W).
        flow: (B, N, 2, H, W) in pixels, ``flow[:, :, 0]`` to the right and ``flow[:, :, 1]`` downwards.

    Returns:
        (B, C, N, H, W), the map read along each of the N flows.
    """
    height, width = a.shape[-2:]
    dtype = torch.promote_types(torch.promote_types(a.dtype, flow.dtype), torch.float32)
    u, v = flow.to(dtype).unbind(2)
    x = torch.arange(width, dtype=dtype, device=a.device)
    y = torch.arange(height, dtype=dtype, device=a.device)[:, None]
    grid = torch.stack([2 * (x + u) / max(width - 1, 1) - 1, 2 * (y + v) / max(height - 1, 1) - 1], -1)
    # The flows stand below one another in a single grid, so the map itself is never copied.
    read = F.grid_sample(a.to(dtype), grid.flatten(1, 2), padding_mode="zeros", align_corners=False)
    return read.reshape(*a.shape[:2], flow.shape[1], height, width)
