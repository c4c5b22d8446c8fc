"""Sharpness: the ratio of a forecast's gradient energy to the truth's, which training by squared error loses.

    sharpness = Σ ‖∇ŷ‖² / Σ ‖∇y‖²        sums over pixels, frames and clips

∇ is the difference of neighbouring pixels along both axes. A perfect forecast has 1, a blur less, noise more; it says
nothing about whether things are where they should be. Forecasts are clipped to [0, 1] first, as for the other scores.
Differences to a masked pixel are left out. Where the truth has no gradient at all it is undefined.
"""

from __future__ import annotations

from torch import Tensor

from framecast.scores.family import Compared, Counts, ScoreFamily, ScoreInfo, masked


def gradient_energy(frames: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the sum of squared differences of neighbouring pixels, (B, T), of frames (B, T, C, H, W)."""
    frames = masked(frames.double(), valid)
    energy = frames.new_zeros(frames.shape[:2])
    for axis in (-2, -1):
        difference = frames.diff(dim=axis)
        if valid is not None:
            size = valid.shape[axis] - 1
            both = valid.narrow(axis, 0, size) & valid.narrow(axis, 1, size)
            difference = masked(difference, both)
        energy = energy + difference.square().sum((2, 3, 4))
    return energy


class Sharpness(ScoreFamily):
    """The share of the truth's gradient energy that forecasts keep."""

    note = "Sharpness is the forecast's gradient energy over the truth's: below 1 blurred, above 1 noisy."

    @staticmethod
    def suits(unit: str) -> bool:
        """Return True: it is computed for all data."""
        del unit
        return True

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the score is shown."""
        return {"sharpness": ScoreInfo("Sharpness", "one", "Frames in [0, 1]", True)}

    def counts(self, pair: Compared) -> Counts:
        """Return both energies per clip and lead time."""
        return {
            "forecast_energy": gradient_energy(pair.forecast.float().clamp(0, 1), pair.valid),
            "truth_energy": gradient_energy(pair.truth.float(), pair.valid),
        }

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the score of sums; NaN where the truth has no gradient."""
        share = counts["forecast_energy"] / counts["truth_energy"]
        return {"sharpness": share.where(counts["truth_energy"] > 0, share.new_full((), float("nan")))}
