"""Forecasts that need no training, which every model must beat: persistence, the mean frame, a blank."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Baseline = Callable[[Tensor, int], Tensor]


def persistence(past: Tensor, horizon: int) -> Tensor:
    """Repeat the last frame of the past (B, T, C, H, W) to (B, horizon, C, H, W)."""
    return past[:, -1:].expand(-1, horizon, -1, -1, -1)


def mean_frame(past: Tensor, horizon: int) -> Tensor:
    """Repeat the mean frame of the past (B, T, C, H, W) to (B, horizon, C, H, W)."""
    return past.mean(1, keepdim=True).expand(-1, horizon, -1, -1, -1)


def blank(past: Tensor, horizon: int) -> Tensor:
    """Forecast zeros, (B, horizon, C, H, W)."""
    return past.new_zeros(1).expand(past.shape[0], horizon, *past.shape[2:])


BASELINES: dict[str, Baseline] = {"persistence": persistence, "mean frame": mean_frame, "blank frame": blank}
