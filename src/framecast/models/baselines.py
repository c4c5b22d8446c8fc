"""Forecasts that need no training, which every model must beat: persistence, mean and blank frames.

A baseline takes the past (B, T, C, H, W) in [0, 1], the number of frames to forecast and, where there are gaps, a mask
(B, T, 1 or C, H, W) of valid data. That of rain which moves is in ``models/extrapolation.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from framecast.data.clips import ClipSpec
from framecast.data.scaling import Scaling


class Baseline(ABC):
    """A forecast that needs no training.

    Args:
        scaling: between physical values and the numbers it is called with.

    Attributes:
        fallbacks: clips so far that got persistence instead; None for a baseline that can forecast every clip.
        frames: how many of the last frames it uses; 0 for all.
        extrapolates: whether what moves in from outside the map is unknown to it.
        members: of the ensemble (B, M, horizon, C, H, W) that it forecasts; 0 for a single forecast.
        clips: the facts of the clips, where they are known.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """

    fallbacks: int | None = None
    frames: int = 0
    extrapolates: bool = False
    members: int = 0
    clips: ClipSpec | None = None

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling

    @abstractmethod
    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return the forecast (B, horizon, C, H, W) of the past (B, T, C, H, W), which is valid where ``valid`` is."""

    def with_mask(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the same, and booleans (B, horizon, 1, H, W) of where it is known: where all that it uses has data."""
        forecast = self(past, horizon, valid)
        known = torch.ones_like(past[:, :1, :1], dtype=torch.bool)
        if valid is not None:
            known = valid[:, -self.frames :].all(1, keepdim=True).all(2, keepdim=True)
        return forecast, known.expand_as(forecast[:, :, :1])


class Persistence(Baseline):
    """Repeats the last frame of the past."""

    frames = 1

    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return the last frame, (B, horizon, C, H, W)."""
        del valid
        return past[:, -1:].expand(-1, horizon, -1, -1, -1)


class MeanFrame(Baseline):
    """Repeats the mean frame of the past."""

    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return the mean frame, (B, horizon, C, H, W)."""
        del valid
        return past.mean(1, keepdim=True).expand(-1, horizon, -1, -1, -1)


class BlankFrame(Baseline):
    """Forecasts zeros."""

    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return zeros, (B, horizon, C, H, W)."""
        del valid
        return past.new_zeros(1).expand(past.shape[0], horizon, *past.shape[2:])
