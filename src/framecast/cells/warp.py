"""Warping: every pixel of the result is read from where a flow (u, v) points, bilinearly.

Learned flows (``warp_along``), zero outside the map:

    result(x, y) = a(X, Y)      X = (x + u) · W / (W - 1) - ½      Y = (y + v) · H / (H - 1) - ½

Zero flow is not the identity: the released code scales positions for one convention of ``grid_sample``
(``align_corners=True``) and samples with the other, which shrinks the map towards its centre by half a pixel
at each border. The published weights were trained with that, so TrajGRU and MotionRNN keep it.

A known motion (``advect``), semi-Lagrangian with the midpoint rule: the way back from each pixel is followed by steps,

    d ← d - v(x + d - ½ w)      w = v(x + d) of the step before      result(x) = a(x + d)

where zero motion is the identity, motion and map beyond the edge are those of the nearest pixel, and what comes from
outside the map is not known. Reference: Germann and Zawadzki, "Scale-Dependence of the Predictability of Precipitation
from Continental Radar Images", Mon. Weather Rev. 130, 2002, doi:10.1175/1520-0493(2002)130<2859:SDOTPO>2.0.CO;2.
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


def advect(a: Tensor, motion: Tensor, steps: int, errors: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Carry maps along a motion that stays as it is, or that errs.

    Args:
        a: (B, C, H, W).
        motion: (B, 2, H, W) in pixels a step, ``motion[:, 0]`` to the right and ``motion[:, 1]`` downwards.
        steps: how far.
        errors: (B, steps, 2), by how many pixels a step the map moves faster than the motion, and across it to the
            right; None for not at all.

    Returns:
        (B, steps, C, H, W), the maps after 1, 2, ... steps; and booleans (B, steps, 1, H, W), False where they come
        from outside.
    """
    height, width = a.shape[-2:]
    x = torch.arange(width, dtype=motion.dtype, device=a.device).expand(height, width)
    y = torch.arange(height, dtype=motion.dtype, device=a.device)[:, None].expand(height, width)
    places = torch.stack([x, y])
    ahead = F.normalize(motion, dim=1)
    across = torch.stack([-ahead[:, 1], ahead[:, 0]], 1)
    back, before, velocity = torch.zeros_like(motion), motion, motion
    frames, known = [], []
    for step in range(steps):
        if errors is not None:
            faster, aside = errors[:, step, :, None, None, None].to(motion).unbind(1)
            velocity = motion + faster * ahead + aside * across
            before = before if step else velocity
        back = back - _read(velocity, places + back - before / 2)
        before = _read(velocity, places + back)
        source = places + back
        column, row = source.unbind(1)
        inside = ((column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1))[:, None]
        frames.append(_read(a, source.to(a.dtype)))
        known.append(inside)
    return torch.stack(frames, 1), torch.stack(known, 1)


def _read(a: Tensor, places: Tensor) -> Tensor:
    """Return a map (B, C, H, W) at places (B, 2, H, W) in pixels, beyond the edge that of the nearest pixel."""
    height, width = a.shape[-2:]
    column, row = places.unbind(1)
    grid = torch.stack([2 * column / max(width - 1, 1) - 1, 2 * row / max(height - 1, 1) - 1], -1)
    return F.grid_sample(a, grid, padding_mode="border", align_corners=True)
