"""Extrapolation: rain that goes on moving as it did, as a baseline and as what a model adds to.

    v = dense Lucas-Kanade motion of the last frames, in dB        R(x, t + k) = R(x - k v, t), semi-Lagrangian

The motion is that of ``pysteps`` (extra ``nowcast``), of at most four frames; the step is ``cells/warp.py``, in batches
and on any device. What comes from outside the map is unknown, and 0. Extrapolation keeps the sharpness of the last
frame, while a model trained on errors smooths: compare them at thresholds, not by MSE alone.

A motion is remembered by what its frames hold, so that a clip that is seen again costs none.

Reference: Pulkkinen et al., "Pysteps: an open-source Python library for probabilistic precipitation nowcasting
(v1.0)", Geosci. Model Dev. 12, 2019, doi:10.5194/gmd-12-4185-2019.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from abc import abstractmethod
from collections import OrderedDict
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.cells.warp import advect
from framecast.data.scaling import Scaling
from framecast.errors import MissingExtraError
from framecast.models.baselines import Baseline

MOTION_FRAMES = 4
"""Last frames that a motion is taken from."""
# Rates below this, in mm/h, are dry for the motion; dry is set 5 dB below.
LEAST_RAIN, DRY_DECIBELS = 0.1, -15.0
REMEMBERED_BYTES = 2**28
"""Motions that are remembered."""


class Motions:
    """Motions of frames, remembered by what the frames hold.

    Args:
        purpose: what needs them, for the error.

    Raises:
        MissingExtraError: pysteps is not installed.
    """

    remembered: ClassVar[OrderedDict[bytes, NDArray[Any] | None]] = OrderedDict()

    def __init__(self, purpose: str) -> None:
        try:
            # pysteps tells on the standard output where its configuration is.
            with contextlib.redirect_stdout(io.StringIO()):
                from pysteps.motion.lucaskanade import dense_lucaskanade
        except ImportError as error:
            raise MissingExtraError("pysteps", "nowcast", purpose) from error
        self.estimate = dense_lucaskanade

    def __call__(self, rates: NDArray[np.float64]) -> NDArray[Any] | None:
        """Return the motion (2, H, W) in pixels a step of rates (T, H, W) in mm/h, or None where there is none."""
        rates = rates[-MOTION_FRAMES:]
        key = hashlib.blake2b(f"{rates.shape} {rates.dtype}".encode() + rates.tobytes(), digest_size=16).digest()
        if key not in self.remembered:
            motion = self._estimated(rates)
            self.remembered[key] = motion
            while len(self.remembered) * 2 * rates[0].nbytes > REMEMBERED_BYTES:
                self.remembered.popitem(last=False)
        self.remembered.move_to_end(key)
        return self.remembered[key]

    def _estimated(self, rates: NDArray[np.float64]) -> NDArray[Any] | None:
        if len(rates) < 2 or not (rates[-1] >= LEAST_RAIN).any():
            return None
        decibels = np.where(rates >= LEAST_RAIN, 10 * np.log10(np.maximum(rates, LEAST_RAIN)), DRY_DECIBELS)
        frames = np.ma.masked_array(decibels, np.isnan(rates))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                motion: NDArray[Any] = self.estimate(frames)
        except (ValueError, IndexError, RuntimeError):
            return None
        return motion if motion.any() and np.isfinite(motion).all() else None


class Extrapolated(NamedTuple):
    """Frames that have moved on.

    Attributes:
        frames: (B, steps, C, H, W) in the model's numbers; those of a clip without motion stay as the last one.
        known: booleans (B, steps, 1, H, W), False where they come from outside the map or from no data.
        still: clips without motion, such as dry ones.
    """

    frames: Tensor
    known: Tensor
    still: int


def extrapolate(motions: Motions, scaling: Scaling, past: Tensor, steps: int, valid: Tensor | None) -> Extrapolated:
    """Move the last frame of each clip on.

    Args:
        motions: of frames.
        scaling: between rates in mm/h and the model's numbers.
        past: (B, T, C, H, W) in the model's numbers.
        steps: how far.
        valid: booleans (B, T, 1 or C, H, W) of where the past has data; None for all of it.
    """
    past = past[:, -MOTION_FRAMES:]
    rates = scaling.unscale(past.double())
    seen = torch.ones_like(past[:, -1:, :1], dtype=torch.bool)
    if valid is not None:
        valid = valid[:, -MOTION_FRAMES:]
        rates, seen = rates.where(valid, torch.nan), valid[:, -1:].all(2, keepdim=True)
    # One motion per clip: channels are maps of the same rain.
    velocity_of_clip = [motions(clip) for clip in rates[:, :, 0].cpu().numpy()]
    motion = {number: velocity for number, velocity in enumerate(velocity_of_clip) if velocity is not None}
    frames = past[:, -1:].repeat(1, steps, 1, 1, 1)
    known = seen.repeat(1, steps, 1, 1, 1)
    if motion:
        moving = list(motion)
        velocities = torch.from_numpy(np.stack(list(motion.values()))).to(rates)
        last = torch.cat([rates[moving, -1].nan_to_num(0.0), seen[moving, 0].to(rates)], 1)
        moved, inside = advect(last, velocities, steps)
        frames[moving] = scaling.scale(moved[:, :, :-1].to(frames))
        # A pixel that is read from one without data, in part, is not known.
        known[moving] = inside & (moved[:, :, -1:] > 1 - 1e-6)
    return Extrapolated(frames, known, len(past) - len(motion))


class MovingRain(Baseline):
    """A forecast of rain rates in mm/h that moves the last frame along."""

    frames = MOTION_FRAMES
    extrapolates = True

    def __init__(self, scaling: Scaling) -> None:
        super().__init__(scaling)
        self.motions = Motions(f"the {type(self).__name__.lower()} baseline")
        self.fallbacks: int = 0

    def __call__(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> Tensor:
        """Return the forecast of the past (B, T, C, H, W) in [0, 1], dry where it comes from outside."""
        return self.with_mask(past, horizon, valid)[0]

    @abstractmethod
    def with_mask(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the same, and booleans (B, horizon, 1, H, W), False where it comes from outside or from no data."""


class Extrapolation(MovingRain):
    """Extrapolates rain; a clip without motion, such as a dry one, gets persistence instead."""

    def with_mask(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return frames (B, horizon, C, H, W) and where they are known, (B, horizon, 1, H, W)."""
        forecast = extrapolate(self.motions, self.scaling, past, horizon, valid)
        self.fallbacks += forecast.still
        return forecast.frames, forecast.known
