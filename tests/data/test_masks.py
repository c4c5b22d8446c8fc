"""Nodata: what stands under the mask changes neither the loss nor any score, exactly; dry frames are fine."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples.models import small_model

from framecast.data.clips import ClipSpec
from framecast.data.scaling import DbzPixel
from framecast.evaluation import Evaluation
from framecast.registry import SCORES, make_baselines, score_families
from framecast.scores.family import Compared, pool_counts
from framecast.scores.image import image_counts, image_scores, ssim
from framecast.training.losses import LOSSES

SPEC = ClipSpec(16, 20, 1, 3, 2, "mm/h", DbzPixel(), 600)
OTHERS = [float("nan"), float("inf"), 0.0, 1.0, -5.0, 0.3]


def pair_of(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    forecast, truth = (torch.rand(3, 2, 1, 16, 20, generator=generator) for _ in range(2))
    # Mostly data, one frame without any, one clip with all.
    valid = torch.rand(3, 2, 1, 16, 20, generator=generator) > 0.02
    valid[0, 0], valid[1] = False, True
    return forecast, truth, valid


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(OTHERS), st.sampled_from(OTHERS))
def test_masked_values_change_no_loss_and_no_score(seed: int, other: float, another: float) -> None:
    forecast, truth, valid = pair_of(seed)
    changed = forecast.where(valid, other), truth.where(valid, another)
    for loss in LOSSES.values():
        assert torch.equal(loss(forecast, truth, valid), loss(*changed, valid))
    for name, family in score_families(SPEC.unit, list(SCORES)).items():
        counts = family.counts(Compared(forecast, truth, valid, SPEC.scaling.unscale))
        same = family.counts(Compared(*changed, valid, SPEC.scaling.unscale))
        published = family.published_counts(Compared(*changed, valid, SPEC.scaling.unscale))
        for key, values in counts.items():
            assert torch.equal(values, same[key]), (name, key)
            assert published[key].isfinite().all(), (name, key)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_a_mask_of_all_is_no_mask(name: str) -> None:
    forecast, truth, valid = pair_of(0)
    (family,) = score_families(SPEC.unit, [name]).values()
    everything = family.counts(Compared(forecast, truth, torch.ones_like(valid), SPEC.scaling.unscale))
    for key, values in family.counts(Compared(forecast, truth, None, SPEC.scaling.unscale)).items():
        torch.testing.assert_close(everything[key], values, rtol=1e-12, atol=0)


def test_masked_image_scores_by_hand() -> None:
    truth, valid = torch.zeros(1, 2, 1, 12, 12), torch.ones(1, 2, 1, 12, 12, dtype=torch.bool)
    forecast = torch.full_like(truth, 0.5)
    valid[0, 0, :, :, 6:] = False
    valid[0, 1] = False
    counts = image_counts(forecast, truth, valid)
    assert counts["frames"].tolist() == [[1, 0]]
    assert counts["squared"].tolist() == [[72 / 4, 0]]
    assert counts["ssim_frames"].tolist() == [[0, 0]]
    scores = image_scores(pool_counts(counts, -1))
    assert scores["mse"].item() == 18
    assert scores["psnr"].item() == pytest.approx(6.0206, abs=1e-4)
    assert scores["ssim"].isnan()


def test_masked_ssim_is_that_of_the_windows_without_a_gap() -> None:
    forecast, truth, _ = pair_of(1)
    valid = torch.ones(3, 1, 16, 20, dtype=torch.bool)
    valid[..., -3:] = False
    whole = ssim(forecast[:, 0, ..., :-3], truth[:, 0, ..., :-3])
    torch.testing.assert_close(ssim(forecast[:, 0], truth[:, 0], valid), whole, rtol=1e-12, atol=0)


# ---- evaluation


def evaluate(frames: torch.Tensor, valid: torch.Tensor | None, **options: Any) -> dict[str, Any]:
    evaluation = Evaluation(small_model("ms-lstm"), "ms-lstm", SPEC, bootstrap=20, **options)
    batch: dict[str, Any] = {"frames": frames, "index": torch.arange(len(frames))}
    with torch.inference_mode():
        evaluation.add({**batch, "valid": valid} if valid is not None else batch)  # type: ignore[typeddict-item]
    found = evaluation.results()
    del found["seconds_per_clip"]
    return found


def test_masked_values_change_nothing_in_an_evaluation() -> None:
    generator = torch.Generator().manual_seed(3)
    frames = torch.rand(2, 5, 1, 16, 20, generator=generator)
    valid = torch.rand(2, 5, 1, 16, 20, generator=generator) > 0.05
    found = [
        json.dumps(evaluate(frames.where(valid, other), valid, protocol="as-published"))
        for other in (0.0, 0.7, OTHERS[0])
    ]
    assert found[0] == found[1] == found[2]


def test_dry_clips_give_finite_results() -> None:
    for wet in (None, 0, 4):
        frames = torch.zeros(2, 5, 1, 16, 20)
        if wet is not None:
            frames[:, wet, :, 4:9, 4:9] = 0.8
        found = evaluate(frames, None, protocol="as-published")
        text = json.dumps(found, allow_nan=False)
        assert "NaN" not in text
        for name, forecast in found["forecasts"].items():
            assert all(value is not None for score in ("mse", "mae", "psnr", "ssim") for value in
                       forecast["per_lead"][score]), name  # fmt: skip
        # Nothing observed and nothing forecast: undefined, and the counts say so.
        blank = found["forecasts"]["blank frame"]
        if wet != 4:
            assert blank["mean"]["csi_2"] is None
            assert blank["counts"]["correct_negatives_2"] == [2 * 320, 2 * 320]
        assert found["as_published"]["ms-lstm"]["mean"]["csi_2"] is not None


def test_a_baseline_only_where_it_suits() -> None:
    made = {unit: make_baselines(unit, DbzPixel()) for unit in ("1", "mm/h")}
    assert list(made["1"]) == ["persistence", "mean frame", "blank frame"]
    assert list(made["mm/h"]) == [*made["1"], "extrapolation"]
    assert list(make_baselines("1", DbzPixel(), ["blank frame"])) == ["blank frame"]
    with pytest.raises(ValueError, match="Did you mean 'persistence'"):
        make_baselines("1", DbzPixel(), ["persistance"])
