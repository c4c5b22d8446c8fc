"""Image scores per lead time: MSE, MAE, PSNR and SSIM of forecasts in the model's range [0, 1].

For forecasts ŷ and truths y of N frames of a lead time (sums over channels and pixels of a frame):

    MSE  = 1/N Σ ‖ŷ - y‖²          MAE = 1/N Σ |ŷ - y|₁
    PSNR = 1/N Σ 10 log₁₀ (1 / mean squared error of the frame)
    SSIM = 1/N Σ mean over the valid region of the structural similarity, Gaussian 11, σ 1.5

Forecasts are clipped to [0, 1] first. A frame without error has an infinite PSNR; it counts as 100 dB.

What is masked changes nothing: MSE and MAE sum over the pixels that count, PSNR takes their mean error, and SSIM the
windows all of whose pixels count. A frame without any such pixel, or any such window, is left out of N.

References: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from framecast.scores.family import Compared, Counts, ScoreFamily, ScoreInfo, masked

WINDOW, SIGMA = 11, 1.5
BEST_PSNR = 100.0
PUBLISHED_FLOOR = 1e-5


def ssim(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the structural similarity (N,) of frames (N, C, H, W) in [0, 1], averaged over the valid region.

    Population covariances, as in the paper; equals skimage's ``structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``. Frames smaller than the
    11 pixel window have no valid region and give NaN, and so do frames where every window holds a masked pixel.
    """
    if min(forecast.shape[-2:]) < WINDOW:
        return torch.full(forecast.shape[:1], torch.nan, dtype=forecast.dtype, device=forecast.device)
    x, y = (masked(frames.double(), valid) for frames in (forecast, truth))
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = 0.01**2, 0.03**2
    variance = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    similarity: Tensor = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance + c2))
    if valid is None:
        return similarity.mean((1, 2, 3))
    gaps = F.max_pool2d((~valid).float(), WINDOW, stride=1)
    complete = (gaps == 0).expand_as(similarity)
    return masked(similarity, complete).sum((1, 2, 3)) / complete.sum((1, 2, 3))


def _blur(maps: Tensor) -> Tensor:
    """Blur maps (K, N, C, H, W) with the Gaussian window, keeping the region where it fits."""
    steps = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    window = torch.exp(-(steps**2) / (2 * SIGMA**2))
    window = window / window.sum()
    flat = maps.flatten(0, 2)[:, None]
    flat = F.conv2d(F.conv2d(flat, window[None, None, :, None]), window[None, None, None, :])
    return flat[:, 0].view(*maps.shape[:3], *flat.shape[-2:])


def image_counts(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Counts:
    """Return the additive sums per clip and lead time, (B, T) each, of forecasts and truths (B, T, C, H, W)."""
    forecast, truth = masked(forecast.float().clamp(0, 1), valid), masked(truth.float(), valid)
    error = forecast - truth
    squared = error.square().double().sum((2, 3, 4))
    absolute = error.abs().double().sum((2, 3, 4))
    pixels = _pixels(error, valid)
    decibels = (-10 * (squared / pixels).log10()).clamp(max=BEST_PSNR)
    similar = ssim(forecast.flatten(0, 1), truth.flatten(0, 1), None if valid is None else valid.flatten(0, 1))
    similar = similar.double().view_as(squared)
    some, windows = pixels > 0, ~similar.isnan()
    return {
        "frames": some.long(),
        "squared": squared,
        "absolute": absolute,
        "psnr": masked(decibels, some),
        "ssim": masked(similar, windows),
        "ssim_frames": windows.long(),
    }


def _pixels(error: Tensor, valid: Tensor | None) -> Tensor:
    """Return how many elements of each frame count, (B, T)."""
    if valid is None:
        return torch.full(error.shape[:2], error[0, 0].numel(), device=error.device)
    return valid.expand_as(error).sum((2, 3, 4))


def image_scores(counts: Counts) -> dict[str, Tensor]:
    """Return the scores of ``image_counts`` or of sums of them; NaN where no frame counts."""
    frames = counts["frames"]
    return {
        "mse": counts["squared"] / frames,
        "mae": counts["absolute"] / frames,
        "psnr": counts["psnr"] / frames,
        "ssim": counts["ssim"] / counts["ssim_frames"],
    }


class ImageScores(ScoreFamily):
    """MSE, MAE, PSNR and SSIM."""

    note = (
        "MSE and MAE are summed over the pixels of a frame, then averaged over frames and clips, on values in [0, 1]. "
        "PSNR is averaged over frames. SSIM uses an 11-pixel Gaussian window (σ 1.5) and its valid region."
    )

    @staticmethod
    def suits(unit: str) -> bool:
        """Return True: they are computed for all data."""
        del unit
        return True

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the scores are shown."""
        table = "Frames in [0, 1]"
        return {
            "mse": ScoreInfo("MSE", "low", table, True),
            "mae": ScoreInfo("MAE", "low", table, True),
            "psnr": ScoreInfo("PSNR (dB)", "high", table, True),
            "ssim": ScoreInfo("SSIM", "high", table, True),
        }

    def counts(self, pair: Compared) -> Counts:
        """Return the sums per clip and lead time."""
        return image_counts(pair.forecast, pair.truth, pair.valid)

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores of sums."""
        return image_scores(counts)

    def published_counts(self, pair: Compared) -> Counts:
        """Return the sums with 1e-5 added under the logarithm of the PSNR, as the released code does."""
        counts = self.counts(pair)
        error = masked(pair.forecast.float().clamp(0, 1), pair.valid) - masked(pair.truth.float(), pair.valid)
        pixels = _pixels(error, pair.valid)
        mean_squared = counts["squared"] / pixels
        counts["psnr"] = masked(-10 * (mean_squared + PUBLISHED_FLOOR).log10(), pixels > 0)
        return counts
