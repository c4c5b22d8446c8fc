"""What is learned of rain: losses by rate and of members, clips drawn by content, weights kept by a score."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import framecast as fc
from framecast.data.clips import ClipSpec
from framecast.data.scaling import DbzPixel, MinMax
from framecast.data.sources import ArraySource
from framecast.data.windows import WindowedClips
from framecast.errors import FramecastError, OptionError
from framecast.scores.ensemble import crps_counts
from framecast.scores.family import Compared
from framecast.training.losses import ALMOST, ENERGY_WINDOWS, LOSSES, rate_weights
from framecast.training.order import DRY_SHARE, ShuffledBatches, weights_by_content
from framecast.training.task import SelectedScore


def test_weights_by_rate() -> None:
    rates = torch.tensor([0.0, 1.99, 2, 4.99, 5, 9.99, 10, 29.9, 30, 99])
    assert rate_weights(rates).tolist() == [1, 1, 2, 2, 5, 5, 10, 10, 30, 30]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 200), st.integers(2, 6))
def test_the_loss_of_members_lies_between_both_scores(seed: int, members: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    forecast = torch.rand(2, members, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    truth = torch.rand(2, 3, 1, 4, 4, generator=generator, dtype=torch.float64)
    counts = crps_counts(forecast, truth, torch.ones_like(truth, dtype=torch.bool))
    error, plain, fair = (
        counts[name].sum().item() for name in ("member_error", "member_difference", "member_difference_fair")
    )
    expected = error - (1 - ALMOST / members) * fair
    assert LOSSES["crps"].total(forecast, truth, None, None).item() == pytest.approx(expected, rel=1e-9)
    assert error - fair <= expected <= error - plain + 1e-12


def test_energy_by_hand() -> None:
    forecast, truth = torch.rand(2, 3, 2, 1, 20, 16).double(), torch.rand(2, 2, 1, 20, 16).double()
    expected = 0.0
    for sample, frame in itertools.product(range(2), range(2)):
        for scale in ENERGY_WINDOWS:
            for row, column in itertools.product(range(0, 20, scale), range(0, 16, scale)):
                window = (slice(row, row + scale), slice(column, column + scale))
                members = [forecast[sample, j, frame, 0][window] for j in range(3)]
                seen = truth[sample, frame, 0][window]
                errors = sum((x - seen).square().mean().sqrt() for x in members) / 3
                apart = sum((a - b).square().mean().sqrt() for a, b in itertools.permutations(members, 2))
                expected += scale * float(errors - (1 - ALMOST / 3) / (2 * 3 * 2) * apart)
    assert LOSSES["energy"].total(forecast, truth, None, None).item() == pytest.approx(expected, rel=1e-3)


def test_energy_is_least_for_members_drawn_as_the_truth_is() -> None:
    """Of digits that lie left or right, members that do so too cost less than all in the middle, and than black."""
    places = torch.randint(0, 2, (400, 5), generator=torch.Generator().manual_seed(0)).bool()
    left, right = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    left[..., :4], right[..., 12:] = 1, 1
    frames = torch.where(places[..., None, None, None, None], left, right)
    truth, drawn = frames[:, 0], frames[:, 1:]
    middle = ((left + right) / 2).expand_as(drawn)
    for name in ("energy", "energy+mse"):
        costs = [LOSSES[name](members, truth) for members in (drawn, middle, torch.zeros_like(drawn))]
        assert costs[0] < costs[1] < costs[2]


def test_the_error_of_the_mean_is_that_of_many_members() -> None:
    """All groups of three of seven members cost in the mean what the squared error of many like them is."""
    members, truth = torch.rand(1, 7, 2, 1, 8, 8).double(), torch.rand(1, 2, 1, 8, 8).double()
    groups = torch.cat([members[:, list(three)] for three in itertools.combinations(range(7), 3)])
    truths = truth.expand(len(groups), -1, -1, -1, -1)
    squares = LOSSES["energy+mse"](groups, truths) - LOSSES["energy"](groups, truths)
    mean, spread = members.mean(1), members.var(1)
    expected = ((mean - truth).square() - spread / 7).sum() / 2
    assert squares.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("name", sorted(name for name, loss in LOSSES.items() if loss.members))
def test_members_that_are_the_truth_cost_nothing_and_others_do(name: str) -> None:
    truth = torch.rand(2, 3, 1, 16, 16)
    same = truth[:, None].expand(-1, 4, -1, -1, -1, -1)
    assert LOSSES[name](same, truth).item() == pytest.approx(0, abs=1e-4)
    assert LOSSES[name](same + 0.1, truth) > LOSSES[name](same + 0.05, truth) > 1
    valid = torch.rand(2, 3, 1, 16, 16) > 0.5
    masked = truth.where(valid, torch.tensor(float("nan")))
    assert LOSSES[name](same, masked, valid).isfinite()


@pytest.mark.parametrize("name", sorted(name for name, loss in LOSSES.items() if not loss.members))
def test_a_weight_counts(name: str) -> None:
    forecast, truth = torch.rand(2, 3, 1, 8, 8), torch.rand(2, 3, 1, 8, 8)
    loss, ones = LOSSES[name], torch.ones(2, 3, 1, 8, 8)
    plain = loss(forecast, truth)
    torch.testing.assert_close(loss(forecast, truth, None, ones), plain)
    assert loss(forecast, truth, None, 2 * ones) > plain


def test_losses_that_do_not_suit(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 16, 16)).astype(np.float32))

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(FramecastError, match=match):
            fc.train("convlstm", tmp_path / "a.npy", out=tmp_path / "run", progress=False, steps=1, **options)

    small: dict[str, Any] = {"hidden": 4, "layers": 1}
    refused("weighs errors by rain rates in mm/h and the data is in 1", loss="balanced", model_options=small)
    refused("compares the members of an ensemble.*noise=4", loss="crps", model_options=small)
    refused("single forecasts.*take crps", loss="mse", model_options={**small, "noise": 2})
    refused("members", members=1, model_options={**small, "noise": 2})
    refused(r"members is 3 and .* single forecast", members=3, model_options=small)
    refused("score of 1 'csi_2'", select="csi_2", model_options=small)
    refused("way to draw 'heavy'", draw="heavy", model_options=small)


def rainy(frames: int = 20) -> WindowedClips:
    """Clips of two frames of which few hold rain."""
    rates = np.zeros((frames, 1, 4, 4), np.float32)
    rates[5:8] = 10.0
    windows = np.stack([np.arange(frames - 1), np.arange(1, frames)], 1)
    return WindowedClips(ArraySource(rates), windows, DbzPixel())


def test_clips_are_drawn_by_what_they_hold() -> None:
    clips = rainy()
    weights = weights_by_content(clips)
    assert weights.sum() == pytest.approx(1)
    dry = DRY_SHARE / len(clips)
    assert weights[[0, 10, 18]] == pytest.approx(dry)
    assert weights[5] == pytest.approx(2 * (weights[4] - dry) + dry)
    batches = ShuffledBatches(len(clips), 4, 400, 3)
    batches.weights = weights
    drawn = list(batches)
    assert drawn == list(batches)
    shares = np.bincount(np.concatenate(drawn), minlength=len(clips)) / (400 * 4)
    # Five standard deviations of a share of 1,600 draws.
    np.testing.assert_allclose(shares, weights, atol=5 * (0.25 / 1600) ** 0.5)
    batches.start = 17
    assert list(batches) == drawn[17:]
    ranks = [ShuffledBatches(len(clips), 4, 400, 3, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.weights = weights
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == [sorted(batch) for batch in drawn]
    same = weights_by_content(
        WindowedClips(ArraySource(np.zeros((9, 1, 4, 4), np.float32)), np.eye(8, 2, dtype=np.int64), DbzPixel())
    )
    assert (same == 1 / 8).all()
    with pytest.raises(OptionError, match="these are made"):
        weights_by_content(fc.data("moving-mnist", clips=15)["train"])


def test_a_selected_score_is_that_of_all_clips_together() -> None:
    spec = ClipSpec(8, 8, 1, 1, 2, "mm/h", MinMax(0, 10))
    score = SelectedScore("csi_2", spec)

    class Alone:
        def reduce(self, values: torch.Tensor, reduce_op: str) -> torch.Tensor:
            return values

    forecast, truth = torch.rand(4, 2, 1, 8, 8), torch.rand(4, 2, 1, 8, 8)
    for part in (slice(0, 1), slice(1, 4)):
        score.add(Compared(forecast[part], truth[part], None, spec.scaling.unscale))
    hits = ((forecast >= 0.2) & (truth >= 0.2)).sum()
    assert score.value(Alone()) == pytest.approx((hits / ((forecast >= 0.2) | (truth >= 0.2)).sum()).item())
    assert score.cost(0.3) < score.cost(0.2)
    assert SelectedScore("mse", spec).cost(0.3) > SelectedScore("mse", spec).cost(0.2)
    assert SelectedScore("bias_2", spec).cost(1.5) > SelectedScore("bias_2", spec).cost(0.9)


def test_the_kept_weights_are_those_of_the_selected_score(tmp_path: Path) -> None:
    pytest.importorskip("pysteps")
    options = {"size": 40, "crop": [185, 585, 160, 560], "method": "mean", "interval": 5, "context": 4, "horizon": 2}
    settings: dict[str, Any] = {
        "model_options": {"hidden": 4, "layers": 2, "residual": "extrapolation"}, "data_options": options,
        "batch": 2, "validate_every": 2, "progress": False, "threads": 1, "lr": 0.03, "draw": "rain",
        "augment": "flips+turns", "loss": "balanced+pooled", "select": "csi_2",
    }  # fmt: skip
    run = fc.train("ms-lstm", "knmi-sample", out=tmp_path / "run", steps=6, **settings)
    rows = list(csv.DictReader((run.path / "log/validation.csv").read_text().splitlines()))
    best = max(float(row["validation_csi_2"]) for row in rows)
    scores = fc.evaluate(run, split="validation", progress=False, bootstrap=0, examples=0)
    assert scores["forecasts"]["ms-lstm"]["mean"]["csi_2"] == pytest.approx(best, abs=2e-3)
    assert 0 < scores["unknown_share"] < 0.5
    assert "enter no score" in scores["notes"][0]


def test_a_run_that_was_stopped_goes_on_the_same(tmp_path: Path) -> None:
    """With members, drawn clips and turned ones: the weights after six steps, in one go and in two."""
    pytest.importorskip("pysteps")
    options = {"size": 40, "crop": [185, 585, 160, 560], "method": "mean", "interval": 5, "context": 4, "horizon": 2}
    settings: dict[str, Any] = {
        "model_options": {"hidden": 4, "layers": 2, "residual": "extrapolation", "noise": 2}, "data_options": options,
        "batch": 2, "steps": 6, "progress": False, "threads": 1, "draw": "rain", "augment": "flips", "members": 2,
        "save_every": 3,
    }  # fmt: skip
    whole = fc.train("convlstm", "knmi-sample", out=tmp_path / "whole", **settings)
    fc.train("convlstm", "knmi-sample", out=tmp_path / "parts", **{**settings, "trainer": {"max_steps": 3}})
    parts = fc.train(out=tmp_path / "parts", resume=True, progress=False, threads=1)
    first, second = (fc.load(run).state_dict() for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
