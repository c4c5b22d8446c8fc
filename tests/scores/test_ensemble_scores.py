"""Scores of ensembles and spectra: against ``scores`` and ``pysteps``, by hand, and as laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from scores.probability import (
    brier_score,
    brier_score_for_ensemble,
    crps_for_ensemble,
    rank_histogram,
    roc_auc,
)

from framecast.errors import OptionError
from framecast.scores.ensemble import EnsembleScores, probability_scores
from framecast.scores.family import Compared, ScoreFamily, pool_counts
from framecast.scores.image import ImageScores
from framecast.scores.sharpness import Sharpness
from framecast.scores.spectrum import SpectrumScores, radial_power, spectrum_of


def identity(values: torch.Tensor) -> torch.Tensor:
    return values


def ensemble(seed: int = 0, members: int = 7, spread: float = 1.0, bias: float = 0.0, side: int = 24) -> Compared:
    """Return truths and members that are drawn alike about a common signal, where spread is 1 and bias 0."""
    generator = torch.Generator().manual_seed(seed)
    signal = 2 * torch.randn(2, 1, 3, 1, side, side, generator=generator)
    drawn = signal + torch.randn(2, members + 1, 3, 1, side, side, generator=generator) * torch.tensor(
        [1.0] + [spread] * members
    ).view(1, -1, 1, 1, 1, 1)
    truth, parts = drawn[:, 0], drawn[:, 1:] + bias
    return Compared(parts.mean(1), truth, None, identity, parts)


def pooled(family: ScoreFamily, pair: Compared) -> dict[str, float]:
    counts = pool_counts(pool_counts(family.counts(pair), 0), -1)
    return {name: value.item() for name, value in family.scores(counts).items()}


def arrays(pair: Compared) -> tuple[xarray.DataArray, xarray.DataArray]:
    assert pair.members is not None
    axes = ("clip", "member", "time", "channel", "y", "x")
    return (
        xarray.DataArray(pair.members.double().numpy(), dims=axes),
        xarray.DataArray(pair.truth.double().numpy(), dims=[axis for axis in axes if axis != "member"]),
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 50), st.integers(2, 9), st.floats(0.2, 2), st.floats(-1, 1))
def test_they_are_those_of_another_library(seed: int, members: int, spread: float, bias: float) -> None:
    pair = ensemble(seed, members, spread, bias, side=8)
    ours = pooled(EnsembleScores("K", thresholds=[1.0]), pair)
    forecast, truth = arrays(pair)
    for name, method in (("crps", "ecdf"), ("crps_fair", "fair")):
        theirs = crps_for_ensemble(forecast, truth, "member", method=method)
        assert ours[name] == pytest.approx(float(theirs), abs=1e-6)
    theirs = brier_score_for_ensemble(forecast, truth, "member", 1.0, fair_correction=False).squeeze()
    assert ours["brier_1"] == pytest.approx(float(theirs), abs=1e-6)
    chance, event = (forecast >= 1).mean("member"), (truth >= 1).astype(float)
    assert ours["brier_1"] == pytest.approx(float(brier_score(chance, event)), abs=1e-6)
    if 0 < event.mean() < 1:
        assert ours["roc_1"] == pytest.approx(float(roc_auc(chance, event)), abs=1e-6)
    histogram = rank_histogram(forecast, truth, "member").values
    counts = pool_counts(pool_counts(EnsembleScores("K").counts(pair), 0), -1)
    ranks = np.array([float(counts[f"rank_{rank}"]) for rank in range(members + 1)])
    np.testing.assert_allclose(ranks / ranks.sum(), histogram, atol=1e-6)


def test_a_calibrated_ensemble_is_flat_and_a_biased_one_is_not() -> None:
    family, pixels = EnsembleScores("K", thresholds=[0.5]), 2 * 3 * 64 * 64
    good = pooled(family, ensemble(side=64))
    # Each of M + 1 = 8 shares errs by √(p (1 - p) / n); five times the sum of these is far beyond chance.
    assert good["rank_error"] < 5 * 8 * (1 / 8 * 7 / 8 / pixels) ** 0.5
    assert good["spread"] == pytest.approx(1, abs=0.03)
    for wrong in ({"bias": 0.5}, {"spread": 0.5}, {"spread": 2.0}):
        bad = pooled(family, ensemble(side=64, **wrong))
        assert bad["rank_error"] > 5 * good["rank_error"]
        assert bad["crps_fair"] > good["crps_fair"]
    assert pooled(family, ensemble(side=64, spread=0.5))["spread"] < 0.6


def test_reliability_by_hand() -> None:
    forecast, observed = torch.tensor([10.0, 10, 10]), torch.tensor([0.0, 5, 10])
    scores = probability_scores(forecast, observed)
    assert scores["slope"] == 1
    assert scores["brier"] == pytest.approx(10 * 0.25 / 30)
    assert scores["roc"] == pytest.approx(1 - 0.5 * (5 / 15) ** 2)
    overconfident = probability_scores(forecast, torch.tensor([2.5, 5, 7.5]))
    assert overconfident["slope"] == 0.5
    never = probability_scores(forecast, torch.zeros(3))
    assert never["roc"].isnan()


def test_ties_share_their_ranks() -> None:
    members = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1, 1, 1)
    pair = Compared(members.mean(1), torch.zeros(1, 1, 1, 1, 1), None, identity, members)
    counts = EnsembleScores("K").counts(pair)
    assert [counts[f"rank_{rank}"].item() for rank in range(4)] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("family", [EnsembleScores("mm/h"), SpectrumScores()])
def test_what_is_masked_changes_nothing(family: EnsembleScores | SpectrumScores) -> None:
    pair = ensemble(side=16)
    assert pair.members is not None
    valid = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.4
    other = pair._replace(
        truth=pair.truth.where(valid, torch.tensor(9.0)),
        forecast=pair.forecast.where(valid, torch.tensor(9.0)),
        members=pair.members.where(valid[:, None], torch.tensor(9.0)),
        valid=valid,
    )
    expected, changed = family.counts(pair._replace(valid=valid)), family.counts(other)
    for name, values in expected.items():
        torch.testing.assert_close(changed[name], values, msg=name)
    if isinstance(family, EnsembleScores):
        assert torch.equal(changed["pixels"], valid.sum((2, 3, 4)))


def test_a_single_forecast_has_its_absolute_error() -> None:
    pair = ensemble()._replace(members=None)
    scores = pooled(EnsembleScores("K"), pair)
    assert scores["crps"] == pytest.approx((pair.forecast - pair.truth).abs().mean().item(), rel=1e-5)
    assert scores["crps_fair"] == scores["crps"]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (33, 33), (40, 64), (31, 50)])
def test_the_spectrum_is_that_of_pysteps(height: int, width: int) -> None:
    spectral = pytest.importorskip("pysteps.utils.spectral")
    frame = torch.rand(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theirs = spectral.rapsd(frame.numpy(), fft_method=np.fft)
    np.testing.assert_allclose(radial_power(frame).numpy(), theirs, rtol=1e-6, atol=1e-12)


def test_power_tells_blur_at_short_waves() -> None:
    frames = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    blurred = torch.nn.functional.avg_pool2d(frames.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(frames)
    scores = pooled(SpectrumScores(), Compared(blurred, frames, None, identity))
    assert scores["power_4"] < scores["power_8"] < scores["power_16"] < 1
    assert pooled(SpectrumScores(), Compared(frames, frames, None, identity))["power_4"] == 1
    members = torch.stack([frames.flip(-1), frames.flip(-2)], 1)
    pair = Compared(members.mean(1), frames, None, identity, members)
    assert pooled(SpectrumScores(), pair)["power_4"] == pytest.approx(1)
    counts = SpectrumScores().counts(pair)
    assert (spectrum_of(counts, "mean")[..., 4:].sum() < spectrum_of(counts, "forecast")[..., 4:].sum()).item()


def test_what_is_of_a_member_is_the_mean_over_members() -> None:
    generator = torch.Generator().manual_seed(4)
    truth, members = (
        torch.rand(2, 2, 1, 16, 16, generator=generator),
        torch.rand(2, 3, 2, 1, 16, 16, generator=generator),
    )
    scores = pooled(EnsembleScores("1"), Compared(members.mean(1), truth, None, identity, members))
    each = [Compared(one, truth, None, identity) for one in members.unbind(1)]
    for name, family, score in (("member_ssim", ImageScores(), "ssim"), ("member_sharpness", Sharpness(), "sharpness")):
        expected = sum(pooled(family, one)[score] for one in each) / 3
        assert scores[name] == pytest.approx(expected, rel=1e-5)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(OptionError, match="above 0 mm/h"):
        EnsembleScores("mm/h", thresholds=[0.0])
    with pytest.raises(OptionError, match="wavelength"):
        SpectrumScores(wavelengths=[1.0])
    with pytest.raises(OptionError, match="none"):
        SpectrumScores(wavelengths=[])
