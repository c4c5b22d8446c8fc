"""Image scores per lead time: MSE, MAE, PSNR and SSIM of forecasts in the model's range [0, 1].

For forecasts ŷ and truths y of N clips, per lead time (sums over channels and pixels of a frame):

    MSE  = 1/N Σ ‖ŷ - y‖²          MAE = 1/N Σ |ŷ - y|₁
    PSNR = 1/N Σ 10 log₁₀ (1 / mean squared error of the frame)
    SSIM = 1/N Σ mean over the valid region of the structural similarity, Gaussian 11, σ 1.5

Forecasts are clipped to [0, 1] first. A frame without error has an infinite PSNR; it counts as 100 dB.

References: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE TIP 13(4), 2004, doi:10.1109/TIP.2003.819861.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Counts = dict[str, Tensor]

WINDOW, SIGMA = 11, 1.5
BEST_PSNR = 100.0


def ssim(forecast: Tensor, truth: Tensor) -> Tensor:
    """Return the structural similarity (N,) of frames (N, C, H, W) in [0, 1], averaged over the valid region.

    Population covariances, as in the paper; equals skimage's ``structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``. Frames smaller than the
    11 pixel window have no valid region and give NaN.
    """
    if min(forecast.shape[-2:]) < WINDOW:
        return torch.full(forecast.shape[:1], torch.nan, dtype=forecast.dtype, device=forecast.device)
    x, y = forecast.double(), truth.double()
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = 0.01**2, 0.03**2
    variance = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    similarity: Tensor = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity = similarity / ((mean_x**2 + mean_y**2 + c1) * (variance + c2))
    return similarity.mean((1, 2, 3))


def _blur(maps: Tensor) -> Tensor:
    """Blur maps (K, N, C, H, W) with the Gaussian window, keeping the region where it fits."""
    steps = torch.arange(WINDOW, dtype=maps.dtype, device=maps.device) - WINDOW // 2
    window = torch.exp(-(steps**2) / (2 * SIGMA**2))
    window = window / window.sum()
    flat = maps.flatten(0, 2)[:, None]
    flat = F.conv2d(F.conv2d(flat, window[None, None, :, None]), window[None, None, None, :])
    return flat[:, 0].view(*maps.shape[:3], *flat.shape[-2:])


def image_counts(forecast: Tensor, truth: Tensor) -> Counts:
    """Return the additive sums of a batch, (B, T, C, H, W) each, per lead time (T,) in float64."""
    forecast, truth = forecast.float().clamp(0, 1), truth.float()
    error = forecast - truth
    squared = error.square().double().sum((2, 3, 4))
    absolute = error.abs().double().sum((2, 3, 4))
    mean_squared = squared / error[0, 0].numel()
    decibels = (-10 * mean_squared.log10()).clamp(max=BEST_PSNR)
    similar = ssim(forecast.flatten(0, 1), truth.flatten(0, 1)).view_as(squared)
    frames = torch.full_like(squared, 1.0)
    sums = {"frames": frames, "squared": squared, "absolute": absolute, "psnr": decibels, "ssim": similar}
    return {name: values.sum(0).cpu() for name, values in sums.items()}


def add_counts(total: Counts, more: Counts) -> Counts:
    """Return the counts of two disjoint parts together; an empty dict stands for no part."""
    if total and total.keys() != more.keys():
        raise ValueError(f"counts {sorted(total)} and {sorted(more)} are of different scores and cannot be added")
    return {name: total[name] + values if total else values for name, values in more.items()}


def image_scores(counts: Counts) -> dict[str, Tensor]:
    """Return the scores per lead time (T,) of ``image_counts``."""
    frames = counts["frames"]
    return {
        "mse": counts["squared"] / frames,
        "mae": counts["absolute"] / frames,
        "psnr": counts["psnr"] / frames,
        "ssim": counts["ssim"] / frames,
    }
