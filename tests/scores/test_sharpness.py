"""The share of gradient energy that a forecast keeps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from framecast.scores.family import Compared, pool_counts
from framecast.scores.sharpness import Sharpness, gradient_energy


def score(forecast: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor | None = None) -> float:
    counts = Sharpness().counts(Compared(forecast, truth, valid, lambda x: x))
    return float(Sharpness().scores(pool_counts(pool_counts(counts, 0), -1))["sharpness"])


def test_energy_by_hand() -> None:
    frame = torch.tensor([[0.0, 1.0], [0.5, 0.5]])[None, None, None]
    assert gradient_energy(frame).item() == pytest.approx(1.0 + 0.0 + 0.25 + 0.25)


def test_shares() -> None:
    truth = torch.rand(2, 3, 1, 16, 16)
    assert score(truth, truth) == 1
    assert score(truth / 2, truth) == pytest.approx(0.25)
    blurred = F.avg_pool2d(truth.flatten(0, 1), 3, 1, 1).view_as(truth)
    assert score(blurred, truth) < 0.3


def test_what_is_masked_changes_nothing() -> None:
    truth, forecast = torch.rand(1, 2, 1, 8, 8), torch.rand(1, 2, 1, 8, 8)
    valid = torch.rand(1, 2, 1, 8, 8) > 0.3
    changed = torch.where(valid, truth, torch.nan), torch.where(valid, forecast, 1e9)
    assert score(changed[1], changed[0], valid) == score(forecast, truth, valid)


def test_a_flat_truth_has_no_sharpness() -> None:
    assert torch.tensor(score(torch.rand(1, 1, 1, 4, 4), torch.ones(1, 1, 1, 4, 4))).isnan()
