"""Radially averaged power spectra: how much of the truth's variability a forecast keeps at each scale.

For a frame a of H x W pixels with the Fourier transform A,

    P(r) = mean of |A|² / (H W) over the wave numbers whose distance from zero rounds to r        r = 0 … max(H, W) / 2

as ``pysteps.utils.spectral.rapsd`` has it. The score at a wavelength λ is Σ P(r) of the forecast over that of the
truth, of all r whose wavelength max(H, W) / r is within a factor √2 of λ. A forecast that blurs falls below 1 at short
waves. Of an ensemble, P is the mean over its members; that of their mean is kept beside it. The frames are in the
model's range [0, 1], which for rain is a logarithm of the rate, and 0 where nothing counts.

Reference: Ruzanski and Chandrasekar, "Scale Filtering for Improved Nowcasting Performance in a High-Resolution X-Band
Radar Network", IEEE TGRS 49, 2011, doi:10.1109/TGRS.2010.2103946.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.errors import OptionError, check_number
from framecast.scores.family import Compared, Counts, ScoreFamily, ScoreInfo, masked

WAVELENGTHS = (4.0, 8.0, 16.0)


def radial_power(frames: Tensor) -> Tensor:
    """Return P(r) (..., R) of frames (..., H, W) in float64."""
    height, width = frames.shape[-2:]
    power: Tensor = torch.fft.fft2(frames.double()).abs().square() / (height * width)
    rows, columns = (torch.fft.fftfreq(side, 1 / side, dtype=torch.float64) for side in (height, width))
    # The sides' wave numbers as they are, as in pysteps; halves round to even ones, as there.
    distance = (rows[:, None].square() + columns.square()).sqrt().round().long().to(frames.device)
    longest = max(height, width)
    kept = longest // 2 + longest % 2
    sums = power.new_zeros(*power.shape[:-2], int(distance.max()) + 1)
    sums.index_add_(-1, distance.flatten(), power.flatten(-2))
    numbers: Tensor = torch.bincount(distance.flatten())[:kept]
    return sums[..., :kept] / numbers


class SpectrumScores(ScoreFamily):
    """The share of the truth's power that a forecast has at wavelengths.

    Args:
        wavelengths: in pixels, at least 2.

    Raises:
        ValueError: a wavelength below 2 pixels, which no frame holds.
    """

    note = (
        "Power: the variability of the forecast at a wavelength as a share of the truth's, of frames in the model's "
        "range; below 1 is blur, 1 is best. Of ensembles it is that of the members."
    )

    def __init__(self, wavelengths: Sequence[float] = WAVELENGTHS) -> None:
        if not wavelengths:
            raise OptionError("wavelengths are none: give some, in pixels")
        for wavelength in wavelengths:
            check_number("a wavelength", wavelength, least=2)
        self.wavelengths = tuple(wavelengths)

    @staticmethod
    def suits(unit: str) -> bool:
        """Return True: any frames have a spectrum."""
        del unit
        return True

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the scores are shown."""
        return {
            f"power_{wavelength:g}": ScoreInfo(f"power at {wavelength:g} px", "one", "Power", False)
            for wavelength in self.wavelengths
        }

    def counts(self, pair: Compared) -> Counts:
        """Return the power of forecast, members and truth at each wave number, per clip and lead time."""
        mean, truth = (masked(frames.float().clamp(0, 1), pair.valid) for frames in (pair.forecast, pair.truth))
        power = {"truth": _of_frames(truth), "mean": _of_frames(mean)}
        power["forecast"] = power["mean"]
        if pair.members is not None:
            parts = [masked(one.float().clamp(0, 1), pair.valid) for one in pair.members.unbind(1)]
            power["forecast"] = torch.stack([_of_frames(part) for part in parts]).mean(0)
        return {
            f"power_{name}_{number}": values[..., number]
            for name, values in power.items()
            for number in range(values.shape[-1])
        }

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the shares, NaN where the truth has no power or the frames no such wavelength."""
        forecast, truth = (spectrum_of(counts, name) for name in ("forecast", "truth"))
        longest = 2 * truth.shape[-1]
        wavelength = longest / torch.arange(1, truth.shape[-1], dtype=torch.float64)
        scores = {}
        for wanted in self.wavelengths:
            near = (wavelength >= wanted / 2**0.5) & (wavelength < wanted * 2**0.5)
            share = forecast[..., 1:][..., near].sum(-1) / truth[..., 1:][..., near].sum(-1)
            scores[f"power_{wanted:g}"] = share.where(share.isfinite(), torch.nan)
        return scores


def spectrum_of(counts: Counts, name: str) -> Tensor:
    """Return the power (..., R) of the counts of "truth", "forecast" or "mean"."""
    start = f"power_{name}_"
    numbers = sorted(int(key.removeprefix(start)) for key in counts if key.startswith(start))
    return torch.stack([counts[f"{start}{number}"] for number in numbers], -1)


def _of_frames(frames: Tensor) -> Tensor:
    """Return the power (B, T, R) of frames (B, T, C, H, W), added over channels."""
    return radial_power(frames).sum(2)
