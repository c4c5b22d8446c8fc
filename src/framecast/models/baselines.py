"""Forecasts that need no training, which every model must beat: persistence, mean, blank and extrapolation.

A baseline takes the past (B, T, C, H, W) in [0, 1], the number of frames to forecast and, where there are gaps, a mask
(B, T, 1 or C, H, W) of valid data. Extrapolation carries rain along by its own motion:

    v = dense Lucas-Kanade motion of the past frames, in dB        R(x, t + k) = R(x - k v, t), semi-Lagrangian

with the motion of ``pysteps`` (extra ``nowcast``). What enters from outside the frame is dry. Extrapolation keeps the
sharpness of the last frame, while a model trained on errors smooths: compare them at thresholds, not by MSE alone.

Reference: Pulkkinen et al., "Pysteps: an open-source Python library for probabilistic precipitation nowcasting
(v1.0)", Geosci. Model Dev. 12, 2019, doi:10.5194/gmd-12-4185-2019.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.cells.warp import advect
from framecast.data.scaling import Scaling
from framecast.errors import MissingExtraError


class Baseline(ABC):
    """A forecast that needs no training.

    Args:
        scaling: between physical values and the numbers it is called with.

    Attributes:
        fallbacks: clips so far that got persistence instead; None for a baseline that can forecast every clip.
        frames: how many of the last frames it uses; 0 for all.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """

    fallbacks: int | None = None
    frames: int = 0

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


# Rates below this, in mm/h, are dry for the motion; dry is set 5 dB below.
LEAST_RAIN, DRY_DECIBELS = 0.1, -15.0


class Extrapolation(Baseline):
    """Extrapolates rain rates in mm/h; a clip without motion, such as a dry one, gets persistence instead."""

    def __init__(self, scaling: Scaling) -> None:
        super().__init__(scaling)
        try:
            # pysteps tells on the standard output where its configuration is.
            with contextlib.redirect_stdout(io.StringIO()):
                from pysteps.motion.lucaskanade import dense_lucaskanade
        except ImportError as error:
            raise MissingExtraError("pysteps", "nowcast", "the extrapolation baseline") from error
        self.motion = dense_lucaskanade
        self.fallbacks: int = 0

    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return (B, horizon, C, H, W) of the past (B, T, C, H, W) in [0, 1], dry where it comes from outside."""
        return self.with_mask(past, horizon, valid)[0]

    def with_mask(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the same, and booleans (B, horizon, 1, H, W), False where it comes from outside or from no data."""
        persistence = Persistence(self.scaling)
        forecast, known = (part.clone() for part in persistence.with_mask(past, horizon, valid))
        rates = self.scaling.unscale(past.double())
        if valid is not None:
            rates = rates.where(valid, torch.nan)
        # One motion per clip: channels are maps of the same rain.
        found = {number: self._velocity(clip[:, 0].cpu().numpy()) for number, clip in enumerate(rates)}
        motions = {number: velocity for number, velocity in found.items() if velocity is not None}
        self.fallbacks += len(rates) - len(motions)
        if motions:
            moving = list(motions)
            motion = torch.from_numpy(np.stack(list(motions.values()))).to(rates)
            frames, inside = advect(rates[moving, -1].nan_to_num(0.0), motion, horizon)
            forecast[moving] = self.scaling.scale(frames.to(forecast))
            known[moving] = inside
            if valid is not None:
                seen = valid[moving, -1].all(1, keepdim=True).to(rates)
                known[moving] &= advect(seen, motion, horizon)[0] > 1 - 1e-6
        return forecast, known

    def _velocity(self, rates: NDArray[np.float64]) -> NDArray[Any] | None:
        """Return the motion (2, H, W) in pixels a step of frames (T, H, W), or None where none can be found."""
        if len(rates) < 2 or not (rates[-1] >= LEAST_RAIN).any():
            return None
        decibels = np.where(rates >= LEAST_RAIN, 10 * np.log10(np.maximum(rates, LEAST_RAIN)), DRY_DECIBELS)
        frames = np.ma.masked_array(decibels, np.isnan(rates))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                velocity: NDArray[Any] = self.motion(frames)
        except (ValueError, IndexError, RuntimeError):
            return None
        return velocity if velocity.any() and np.isfinite(velocity).all() else None
