"""Image scores: literals by hand, scikit-image as an oracle, and additivity."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from framecast.data.scaling import MinMax
from framecast.registry import make_baselines
from framecast.scores.family import add_counts, pool_counts
from framecast.scores.image import image_counts, image_scores, ssim


def clips(seed: int, batch: int = 3, frames: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(batch, frames, 1, 16, 20, generator=generator)
    return (truth + 0.3 * torch.randn(truth.shape, generator=generator)), truth


def test_by_hand() -> None:
    truth = torch.zeros(1, 1, 1, 12, 12)
    forecast = truth.clone()
    forecast[..., 0, 0], forecast[..., 0, 1] = 0.5, 7.0  # the second is clipped to 1
    scores = image_scores(image_counts(forecast, truth))
    assert scores["mse"].item() == 1.25
    assert scores["mae"].item() == 1.5
    assert scores["psnr"].item() == pytest.approx(10 * math.log10(144 / 1.25), abs=1e-6)


def test_psnr_is_the_mean_of_frames_not_of_errors() -> None:
    truth = torch.zeros(2, 1, 1, 1, 1)
    forecast = torch.tensor([0.1, 1.0]).view(2, 1, 1, 1, 1)
    scores = image_scores(pool_counts(image_counts(forecast, truth), 0))
    assert scores["psnr"].item() == pytest.approx((20 + 0) / 2, abs=1e-5)


def test_a_perfect_forecast() -> None:
    _, truth = clips(0)
    scores = image_scores(image_counts(truth, truth))
    assert scores["mse"].eq(0).all()
    assert scores["psnr"].eq(100).all()
    torch.testing.assert_close(scores["ssim"], torch.ones(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(3))
def test_ssim_equals_scikit_image(seed: int) -> None:
    forecast, truth = (frames.clamp(0, 1)[:, 0] for frames in clips(seed))
    expected = [
        structural_similarity(
            a[0].double().numpy(),
            b[0].double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        for a, b in zip(forecast, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(forecast, truth), expected, rtol=0, atol=1e-12)


def test_ssim_of_frames_smaller_than_its_window_is_undefined() -> None:
    assert ssim(torch.zeros(2, 1, 10, 30), torch.zeros(2, 1, 10, 30)).isnan().all()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_scores_of_a_sum_are_the_sum_of_scores(seed: int, cut: int) -> None:
    forecast, truth = clips(seed, batch=6)
    whole, first, second = (
        pool_counts(image_counts(forecast[part], truth[part]), 0)
        for part in (slice(None), slice(cut), slice(cut, None))
    )
    parts = add_counts(first, second)
    for name, values in whole.items():
        torch.testing.assert_close(parts[name], values, rtol=1e-12, atol=1e-12)
    assert add_counts({}, whole) == whole


def test_counts_of_different_scores_do_not_add() -> None:
    whole = image_counts(*clips(0))
    with pytest.raises(ValueError, match="different scores"):
        add_counts(whole, {"frames": whole["frames"]})


def test_baselines_by_hand() -> None:
    past = torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1, 1)
    baselines = make_baselines("1", MinMax())
    forecasts = {name: baseline(past, 2, None).flatten().tolist() for name, baseline in baselines.items()}
    assert forecasts == {"persistence": [6, 6], "mean frame": [3, 3], "blank frame": [0, 0]}
