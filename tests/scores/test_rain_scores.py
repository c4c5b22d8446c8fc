"""Rain scores: literals by hand, two libraries as oracles, additivity, intervals, and the KNMI literal."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import framecast as fc
from framecast.data.scaling import DbzPixel
from framecast.evaluation import ScoreAccumulator, interval, poisson_weights, weigh_counts
from framecast.registry import SCORES, resolve, score_families
from framecast.scores.family import Compared, ScoreFamily, ScoreInfo, add_counts, plain_values, pool_counts
from framecast.scores.image import ImageScores
from framecast.scores.rain import RainScores, contingency_counts, contingency_scores, fraction_counts, window_numbers


def rain(seed: int, batch: int = 2, frames: int = 3, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw smooth fields of rates in mm/h, forecast and truth, alike but not equal."""
    generator = torch.Generator().manual_seed(seed)
    fields = torch.rand(2, batch, frames, 1, side, side, generator=generator)
    fields[0] = 0.5 * fields[0] + 0.5 * fields[1]
    smooth = torch.nn.functional.avg_pool2d(fields.flatten(0, 2), 5, 1, 2).view_as(fields)
    return tuple(((smooth - 0.45) * 40).clamp(min=0).unbind())  # type: ignore[return-value]


def pooled(counts: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: int(values.sum()) for name, values in counts.items()}


# ---- by hand


def test_by_hand() -> None:
    forecast = torch.tensor([[2.0, 2.0, 0.0, 0.0, 1.99, 7.0]]).view(1, 1, 1, 1, 6)
    truth = torch.tensor([[2.0, 0.0, 3.0, 0.0, 0.0, 2.5]]).view(1, 1, 1, 1, 6)
    counts = contingency_counts(forecast, truth, thresholds=[2])
    assert pooled(counts) == {"hits_2": 2, "false_alarms_2": 1, "misses_2": 1, "correct_negatives_2": 2}
    scores = {name: value.item() for name, value in contingency_scores(*counts.values()).items()}
    expected = {"csi": 2 / 4, "hss": 2 * (4 - 1) / (3 * 3 + 3 * 3), "pod": 2 / 3, "far": 1 / 3, "bias": 1}
    assert scores == pytest.approx(expected)


def test_an_event_is_at_least_the_threshold_also_after_scaling() -> None:
    rates = torch.tensor([0.5, 2, 5, 0.499, 1.99, 4.99]).view(1, 1, 1, 1, 6)
    for values in (rates, DbzPixel().unscale(DbzPixel().scale(rates))):
        counts = contingency_counts(values, values)
        assert [pooled(counts)[f"hits_{name}"] for name in ("0.5", "2", "5")] == [5, 3, 1]


def test_undefined_is_undefined() -> None:
    zero, some = torch.tensor(0), torch.tensor(5)
    dry = contingency_scores(zero, zero, zero, some)
    assert all(value.isnan() for value in dry.values())
    only_alarms = contingency_scores(zero, some, zero, some)
    assert [only_alarms[name].item() for name in ("csi", "far")] == [0, 1]
    assert only_alarms["pod"].isnan()
    assert only_alarms["bias"].isnan()
    perfect = contingency_scores(some, zero, zero, zero)
    assert perfect["hss"].isnan()
    assert perfect["csi"] == 1
    assert plain_values(torch.tensor([0.5, torch.nan, torch.inf])) == [0.5, None, None]
    family = RainScores(scales=())
    nothing = family.counts(Compared(*[torch.zeros(1, 2, 1, 4, 4)] * 2, None, DbzPixel().unscale))
    assert family.scores(nothing)["csi_2"].isnan().all()
    assert family.published_scores(nothing)["csi_2"].tolist() == [[0, 0]]


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 30, 201])
def test_windows_count_what_lies_in_them(scale: int) -> None:
    events = torch.rand(2, 9, 7) > 0.5
    counted = window_numbers(events, scale)
    for y in range(9):
        for x in range(7):
            top, left = y - scale // 2, x - scale // 2
            window = events[:, max(0, top) : top + scale, max(0, left) : left + scale]
            assert counted[:, y, x].tolist() == window.sum((1, 2)).tolist()


def test_fss_by_hand() -> None:
    # One event each, a pixel apart: no overlap at scale 1, some at 3 (a frame of one row: edges are dry).
    forecast, truth = torch.zeros(1, 1, 1, 1, 5), torch.zeros(1, 1, 1, 1, 5)
    forecast[..., 1], truth[..., 2] = 3, 3
    family = RainScores([2], [1, 3])
    scores = family.scores(family.counts(Compared(forecast, truth, None, lambda rates: rates)))
    assert scores["fss_2_1"].item() == 0
    assert scores["fss_2_3"].item() == pytest.approx(1 - 2 / 6)


# ---- oracles


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.5, 2, 5])
def test_contingency_scores_equal_pysteps_and_scores(seed: int, threshold: float) -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    import xarray
    from pysteps.verification.detcatscores import det_cat_fct
    from scores.categorical import ThresholdEventOperator

    forecast, truth = rain(seed)
    ours = contingency_scores(*pool(contingency_counts(forecast, truth, thresholds=[threshold])))
    theirs = det_cat_fct(forecast.numpy(), truth.numpy(), threshold * (1 - 1.001e-5))
    for mine, name in {"csi": "CSI", "hss": "HSS", "pod": "POD", "far": "FAR", "bias": "BIAS"}.items():
        assert ours[mine].item() == pytest.approx(theirs[name], rel=1e-9), name
    dims = ("clip", "lead", "channel", "y", "x")
    manager = ThresholdEventOperator(default_event_threshold=threshold).make_contingency_manager(
        xarray.DataArray(forecast.numpy(), dims=dims), xarray.DataArray(truth.numpy(), dims=dims)
    )
    table = manager.transform()
    names = {
        "csi": "critical_success_index",
        "hss": "heidke_skill_score",
        "pod": "probability_of_detection",
        "far": "false_alarm_ratio",
        "bias": "frequency_bias",
    }
    for mine, name in names.items():
        assert ours[mine].item() == pytest.approx(float(getattr(table, name)()), rel=1e-9), name


def pool(counts: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [values.sum() for values in counts.values()]


@pytest.mark.parametrize("scale", [1, 4, 5, 11])
def test_fss_equals_pysteps_and_scores(scale: int) -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    from pysteps.verification.spatialscores import fss
    from scores.spatial import fss_2d_single_field

    forecast, truth = rain(7, batch=1, frames=1)
    error, worst = pool(fraction_counts(forecast, truth, thresholds=[2], scales=[scale]))
    ours = 1 - error.item() / worst.item()
    fields = forecast[0, 0, 0].double().numpy(), truth[0, 0, 0].double().numpy()
    assert ours == pytest.approx(fss(*fields, 2, scale), rel=1e-9)
    if scale % 2:
        padded = fss_2d_single_field(*fields, event_threshold=2, window_size=(scale, scale), zero_padding=True)
        # That library sums over one row and one column of windows beyond the frame too.
        assert ours == pytest.approx(float(padded), abs=1e-4)


# ---- laws


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_counts_add_exactly(seed: int, cut: int) -> None:
    forecast, truth = rain(seed, batch=5, frames=2, side=12)
    family = RainScores()
    unscale = DbzPixel().unscale
    numbers = DbzPixel().scale(forecast), DbzPixel().scale(truth)
    whole, first, second = (
        pool_counts(family.counts(Compared(*(frames[part] for frames in numbers), None, unscale)), 0)
        for part in (slice(None), slice(cut), slice(cut, None))
    )
    together = add_counts(second, first)
    for name, values in whole.items():
        assert values.dtype == torch.int64
        assert torch.equal(values, together[name])
    cells = sum(whole[f"{cell}_2"] for cell in ("hits", "false_alarms", "misses", "correct_negatives"))
    assert (cells == 5 * 144).all()


def test_counts_do_not_overflow_32_bits() -> None:
    large = {name: torch.tensor([2**31], dtype=torch.int64) for name in contingency_counts(*rain(0))}
    assert all(values.item() == 2**32 for values in add_counts(large, large).values())


# ---- intervals


def test_replicates_depend_on_seed_and_clip_alone() -> None:
    weights = poisson_weights([3, 7], 50)
    assert torch.equal(weights[:, 1], poisson_weights([7], 50)[:, 0])
    assert not torch.equal(weights, poisson_weights([3, 7], 50, seed=1))
    assert poisson_weights(range(200), 400).mean().item() == pytest.approx(1, abs=0.02)


def test_intervals_are_those_of_the_bootstrap_with_replacement() -> None:
    generator = np.random.default_rng(0)
    counts = {"a": torch.from_numpy(generator.poisson(5, (300, 1))), "b": torch.full((300, 1), 7)}
    replicates = weigh_counts(counts, poisson_weights(range(300), 2000))
    low, high = interval(replicates["a"] / replicates["b"])[0].tolist()
    draws = generator.integers(0, 300, (2000, 300))
    classic = np.quantile(counts["a"].numpy()[draws, 0].mean(1) / 7, [0.025, 0.975])
    np.testing.assert_allclose([low, high], classic, rtol=0.02)


def test_batches_change_no_interval_and_undefined_replicates_are_left_out() -> None:
    forecast, truth = (DbzPixel().scale(rates) for rates in rain(1, batch=6))
    found = []
    for size in (6, 2):
        accumulator = ScoreAccumulator(score_families("mm/h"))
        for start in range(0, 6, size):
            part = slice(start, start + size)
            clips = range(start, start + size)
            accumulator.add(
                Compared(forecast[part], truth[part], None, DbzPixel().unscale), poisson_weights(clips, 100)
            )
        found.append(accumulator.results())
    for name in ("csi_2", "bias_0.5", "fss_2_5", "mse"):
        np.testing.assert_allclose(found[0]["interval"]["mean"][name], found[1]["interval"]["mean"][name], rtol=1e-9)
        low, high = found[0]["interval"]["mean"][name]
        assert low <= found[0]["mean"][name] <= high
    assert interval(torch.tensor([[torch.nan], [1.0], [3.0]])).tolist() == [[pytest.approx(1.05), pytest.approx(2.95)]]
    assert plain_values(interval(torch.full((5, 1), torch.nan))) == [[None, None]]


# ---- the registry of scores


def test_families_by_unit_name_and_option() -> None:
    for unit in ("1", "mm/h"):
        suiting = {name: resolve(SCORES[name]) for name in SCORES if resolve(SCORES[name]).suits(unit)}
        assert list(score_families(unit, ensembles=True)) == list(suiting)
        assert list(score_families(unit)) == [name for name, kind in suiting.items() if not kind.of_ensembles]
    assert "rain" in score_families("mm/h")
    assert "rain" not in score_families("1")
    family = score_families("1", ["rain"], {"thresholds": [1, 10], "scales": [3]})["rain"]
    assert {"csi_1", "bias_10", "fss_10_3"} <= family.info().keys()
    for options, message in {
        ("scales", (0,)): "scale of the FSS is 0",
        ("thresholds", ()): "thresholds are",
        ("thresholds", (0.0, 1)): "above 0 mm/h",
        ("threshold", (1,)): "Did you mean 'thresholds'",
    }.items():
        with pytest.raises(ValueError, match=message):
            score_families("mm/h", None, {options[0]: options[1]})
    with pytest.raises(ValueError, match="no score family 'rains'"):
        score_families("mm/h", ["rains"])


class Worst(ScoreFamily):
    @staticmethod
    def suits(unit: str) -> bool:
        return unit == "1"

    def info(self) -> dict[str, ScoreInfo]:
        return {"worst": ScoreInfo("worst pixel", "low", "Mine", True)}

    def counts(self, pair: Compared) -> dict[str, torch.Tensor]:
        worst = (pair.forecast - pair.truth).abs().double().amax((2, 3, 4))
        return {"worst_sum": worst, "worst_frames": torch.ones_like(worst)}

    def scores(self, counts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"worst": counts["worst_sum"] / counts["worst_frames"]}


def test_a_new_score_is_one_registration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "worst", Worst)
    options: dict[str, Any] = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
    model = {"hidden": 4, "layers": 2}
    run = fc.train("convlstm", "moving-mnist", out=tmp_path / "run", steps=1, progress=False, model_options=model,
                   data_options=options)  # fmt: skip
    found = fc.evaluate(run.path, progress=False, bootstrap=50)
    assert 0 < found["forecasts"]["convlstm"]["mean"]["worst"] <= found["forecasts"]["blank frame"]["mean"]["worst"] + 1
    assert "worst" in (run.path / "results.csv").read_text().splitlines()[0]
    assert "worst pixel" in fc.report(run.path, out=tmp_path / "page.html", figures=False).read_text()
    assert list(fc.evaluate(run.path, progress=False, scores=["worst"], bootstrap=0)["scores"]) == ["worst"]
    assert ImageScores().info().keys() <= found["scores"].keys()


# ---- the literal


def test_persistence_on_the_real_knmi_frames(shared: Path) -> None:
    data = fc.data("knmi", root=shared / "data/knmi", crop=(185, 585, 160, 560), blocks=(0, 0, 60), interval=30,
                   context=1, horizon=1)  # fmt: skip
    clips, family = data["test"], RainScores(scales=())
    assert len(clips) == 54
    counts: dict[str, torch.Tensor] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(len(clips)):
            clip = clips[number]
            frames, valid = clip["frames"][None], clip["valid"][None]
            pair = Compared(frames[:, :1], frames[:, 1:], valid[:, 1:], data.spec.scaling.unscale)
            counts = add_counts(counts, pool_counts(family.counts(pair), 0))
    scores = family.scores(counts)
    found = [scores[f"csi_{threshold}"].item() for threshold in ("0.5", "2", "5")]
    assert found == pytest.approx([0.290, 0.108, 0.014], abs=0.001)
