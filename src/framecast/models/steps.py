"""STEPS, the ensemble of extrapolations that others are compared with: its members are as rough as rain.

The last frame is split into scales. Each goes on as an autoregression of its own, so that small scales are forgotten
first and are replaced by noise with the spectrum of rain, while all of it moves along. It is that of ``pysteps`` (extra
``nowcast``); the motion is that of the extrapolation baseline, and is not perturbed.

References: Bowler, Pierce and Seed, "STEPS: A probabilistic precipitation forecasting scheme which merges an
extrapolation nowcast with downscaled NWP", QJRMS 132, 2006, doi:10.1256/qj.04.100. Pulkkinen et al., Geosci. Model
Dev. 12, 2019, doi:10.5194/gmd-12-4185-2019.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.models.extrapolation import DRY_DECIBELS, LEAST_RAIN, MovingRain, extrapolate, pixel_and_step
from framecast.models.members import MEMBERS

LEVELS = 6
ORDER = 2
LEAST_WET = 0.01
"""Share of wet pixels, of those with data, below which there is too little rain to take the spectrum of."""


class Steps(MovingRain):
    """Forecasts an ensemble of rain rates in mm/h; a clip too dry for it gets extrapolation, with equal members."""

    members = MEMBERS

    def with_mask(self, past: Tensor, horizon: int, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return members (B, M, horizon, C, H, W) and where they are known, (B, horizon, 1, H, W)."""
        moved = extrapolate(self.motions, self.scaling, past, horizon, valid)
        rates = self.scaling.unscale(past.double())
        if valid is not None:
            rates = rates.where(valid, torch.nan)
        clips = []
        for number, clip in enumerate(rates):
            members = self._members(clip.cpu().numpy(), horizon)
            self.fallbacks += members is None
            if members is None:
                clips.append(moved.frames[number].expand(MEMBERS, -1, -1, -1, -1))
                continue
            values = torch.from_numpy(members).to(past)
            # Where the noise has no value, as it comes from outside, stands what the mask leaves out.
            clips.append(self.scaling.scale(values.nan_to_num(0.0)))
        return torch.stack(clips), moved.known

    def _members(self, rates: NDArray[np.float64], horizon: int) -> NDArray[np.float64] | None:
        """Return rates (M, horizon, C, H, W) of a clip (T, C, H, W), or None where STEPS cannot forecast it."""
        motion = self.motions(rates[:, 0])
        if motion is None or len(rates) <= ORDER:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            from pysteps.nowcasts import steps
        digest = hashlib.blake2b(rates.tobytes(), digest_size=4).digest()
        kilometres, minutes = pixel_and_step(self.clips)  # by which wet areas may grow
        levels = max(2, min(LEVELS, int(math.log2(min(rates.shape[-2:]))) - 1))
        channels = []
        for channel in range(rates.shape[1]):
            frames = rates[-ORDER - 1 :, channel]
            data = np.isfinite(frames[-1])
            if not data.any() or (frames[-1][data] >= LEAST_RAIN).mean() < LEAST_WET:
                return None
            with np.errstate(divide="ignore"):
                decibels = np.where(frames >= LEAST_RAIN, 10 * np.log10(frames), DRY_DECIBELS)
            try:
                with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                    warnings.simplefilter("ignore")
                    forecast = steps.forecast(
                        decibels, motion, horizon, n_ens_members=MEMBERS, n_cascade_levels=levels,
                        precip_thr=10 * math.log10(LEAST_RAIN), vel_pert_method=None, ar_order=ORDER,
                        kmperpixel=kilometres, timestep=minutes,
                        # The same past has the same members, wherever it stands.
                        seed=int.from_bytes(digest, "big"), num_workers=1,
                    )  # fmt: skip
            except (ValueError, IndexError, RuntimeError, np.linalg.LinAlgError):
                return None
            members = np.where(forecast > DRY_DECIBELS, 10 ** (forecast / 10), 0.0)
            channels.append(np.where(members < LEAST_RAIN, 0.0, members))
        return np.stack(channels, 2)
