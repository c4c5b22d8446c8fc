"""Extrapolation: rain that goes on moving as it did, as a baseline and as what a model adds to.

    v = dense Lucas-Kanade motion of the last frames, in dB        R(x, t + k) = R(x - k v, t), semi-Lagrangian

The motion is that of ``pysteps`` (extra ``nowcast``), of at most four frames; the step is ``cells/warp.py``, in batches
and on any device. What comes from outside the map is unknown, and 0. Extrapolation keeps the sharpness of the last
frame, while a model trained on errors smooths: compare them at thresholds, not by MSE alone.

A motion is remembered by what its frames hold, so that a clip that is seen again costs none.

Members of an ensemble move with errors of their own, along the motion and across it, which grow with the lead time as
those of motions were found to: after t minutes the standard deviations are

    10.88 t^0.23 - 7.68 km/h along        5.76 t^0.31 - 2.72 km/h across

References: Pulkkinen et al., "Pysteps: an open-source Python library for probabilistic precipitation nowcasting
(v1.0)", Geosci. Model Dev. 12, 2019, doi:10.5194/gmd-12-4185-2019. Bowler, Pierce and Seed, "STEPS: A probabilistic
precipitation forecasting scheme which merges an extrapolation nowcast with downscaled NWP", QJRMS 132, 2006,
doi:10.1256/qj.04.100 (errors of the motion).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from abc import abstractmethod
from collections import OrderedDict
from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.cells.warp import advect
from framecast.data.clips import ClipSpec
from framecast.data.scaling import Scaling
from framecast.errors import MissingExtraError
from framecast.models.baselines import Baseline

log = logging.getLogger(__name__)

MOTION_FRAMES = 4
"""Last frames that a motion is taken from."""
# Rates below this, in mm/h, are dry for the motion; dry is set 5 dB below.
LEAST_RAIN, DRY_DECIBELS = 0.1, -15.0
KILOMETRES_OF_DEGREE = 111.2
"""Of latitude."""
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
        frames: (B, steps, C, H, W), or (B · M, steps, C, H, W) of members, in the model's numbers; those of a clip
            without motion stay as the last one.
        known: booleans (B, steps, 1, H, W), False where they come from outside the map or from no data.
        still: clips without motion, such as dry ones.
    """

    frames: Tensor
    known: Tensor
    still: int


def motion_errors(noise: Tensor, steps: int, clips: ClipSpec | None) -> Tensor:
    """Return by how many pixels a step the rain of members moves faster than it seemed, and across: (N, steps, 2).

    Args:
        noise: (N, 2 or more) normal numbers, of which the first two are used.
        steps: how far.
        clips: their grid and interval.
    """
    kilometres, minutes = pixel_and_step(clips)
    lead = minutes * torch.arange(1, steps + 1, dtype=noise.dtype, device=noise.device)
    deviation = torch.stack([10.88 * lead**0.23 - 7.68, 5.76 * lead**0.31 - 2.72], 1).clamp(min=0)
    return noise[:, None, :2] * deviation * (minutes / 60 / kilometres)


def pixel_and_step(clips: ClipSpec | None) -> tuple[float, float]:
    """Return kilometres of a pixel and minutes of a step; 1 and 5, those of most radar networks, where unknown."""
    place, interval = (clips.georeference, clips.interval) if clips else (None, None)
    unit = 0.0
    if place is not None and place.regular and place.crs:
        unit = KILOMETRES_OF_DEGREE if place.geographic else 1e-3
    kilometres = place.pixel[0] * unit if place is not None else 0.0
    if not (kilometres and interval):
        _tell_of_unknown_grid()
    return kilometres or 1.0, interval / 60 if interval else 5.0


@cache
def _tell_of_unknown_grid() -> None:
    log.warning(
        "the data does not say how large its pixels are or how long its steps: where these are unknown, an ensemble of "
        "rain spreads as on pixels of 1 km and in steps of 5 minutes"
    )


def extrapolate(
    motions: Motions,
    scaling: Scaling,
    past: Tensor,
    steps: int,
    valid: Tensor | None = None,
    errors: Tensor | None = None,
) -> Extrapolated:
    """Move the last frame of each clip on.

    Args:
        motions: of frames.
        scaling: between rates in mm/h and the model's numbers.
        past: (B, T, C, H, W) in the model's numbers.
        steps: how far.
        valid: booleans (B, T, 1 or C, H, W) of where the past has data; None for all of it.
        errors: (B · M, steps or more, 2) of the motions of members, a clip's one after another; None for no members.
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
    members = 1 if errors is None else len(errors) // len(past)
    frames = past[:, None, -1:].repeat(1, members, steps, 1, 1, 1)
    known = seen.repeat(1, steps, 1, 1, 1)
    if motion:
        moving = list(motion)
        velocities = torch.from_numpy(np.stack(list(motion.values()))).to(rates)
        last = rates[moving, -1].nan_to_num(0.0)
        moved, inside = advect(torch.cat([last, seen[moving, 0].to(rates)], 1), velocities, steps)
        # A pixel that is read from one without data, in part, is not known.
        known[moving] = inside & (moved[:, :, -1:] > 1 - 1e-6)
        moved = moved[:, :, :-1]
        if errors is not None:
            last, velocities, inside = (part.repeat_interleave(members, 0) for part in (last, velocities, inside))
            errors = errors.reshape(len(past), members, -1, 2)[moving].flatten(0, 1)
            moved, _ = advect(last, velocities, steps, errors)
        moved = scaling.scale(moved.where(inside, 0.0).to(frames))
        frames[moving] = moved.reshape(len(moving), members, *moved.shape[1:])
    return Extrapolated(frames.flatten(0, 1), known, len(past) - len(motion))


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
