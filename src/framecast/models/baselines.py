"""Forecasts that need no training, which every model must beat: persistence, the mean frame, a blank.

A baseline takes the past (B, T, C, H, W) in [0, 1], the number of frames to forecast and, where there are gaps, a
mask (B, T, 1 or C, H, W) of what is data. ``framecast.registry.BASELINES`` names all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Baseline = Callable[[Tensor, int, Tensor | None], Tensor]


def persistence(past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
    """Repeat the last frame of the past (B, T, C, H, W) to (B, horizon, C, H, W)."""
    del valid
    return past[:, -1:].expand(-1, horizon, -1, -1, -1)


def mean_frame(past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
    """Repeat the mean frame of the past (B, T, C, H, W) to (B, horizon, C, H, W)."""
    del valid
    return past.mean(1, keepdim=True).expand(-1, horizon, -1, -1, -1)


def blank(past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
    """Forecast zeros, (B, horizon, C, H, W)."""
    del valid
    return past.new_zeros(1).expand(past.shape[0], horizon, *past.shape[2:])
