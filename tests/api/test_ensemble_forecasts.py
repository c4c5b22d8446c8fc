"""Ensembles from end to end: trained, forecast, written, scored beside STEPS, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import framecast as fc
from framecast.errors import OptionError, UnknownNameError
from framecast.models.members import matched_mean
from framecast.models.steps import Steps
from framecast.reporting.diagrams import ensemble_diagrams

pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")

RAIN = {"size": 40, "interval": 5, "context": 4, "horizon": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small ensemble of rain, trained for two steps."""
    out = tmp_path_factory.mktemp("ensemble") / "run"
    fc.train("convlstm", "knmi-sample", out=out, data_options=RAIN, steps=2, batch=2, members=2, progress=False,
             model_options={"hidden": 4, "layers": 1, "residual": "extrapolation", "noise": 2}, threads=1,
             select="crps", lr=0.05)  # fmt: skip
    return out


@pytest.fixture(scope="module")
def clip() -> Any:
    return fc.data("knmi-sample", **RAIN)["test"][0]


def test_members_mean_and_probability(run: Path, clip: Any, tmp_path: Path) -> None:
    forecast = fc.predict(run, clip, members=5, thresholds=[1.0, 4.0], out=tmp_path)
    assert forecast.shape == (1, 3, 1, 40, 40)
    members, probability = forecast.members, forecast.probability
    assert members.shape == (1, 5, 3, 1, 40, 40)
    assert probability.shape == (1, 2, 3, 1, 40, 40)
    known = ~np.isnan(np.asarray(forecast))
    assert 0.5 < known.mean() < 1
    np.testing.assert_allclose(np.asarray(forecast)[known], members.mean(1)[known], rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(probability).all(1), ~known)
    np.testing.assert_allclose(probability[:, 1][known], (members >= 4).mean(1)[known], atol=1e-6)
    assert np.nanmax(np.ptp(members, 1)) > 0
    np.testing.assert_array_equal(np.load(tmp_path / "members.npy", allow_pickle=False), members)
    np.testing.assert_array_equal(np.load(tmp_path / "probability.npy", allow_pickle=False), probability)
    # A single forecast in its place leaves nothing of the ensemble behind.
    fc.predict("persistence", clip["frames"].numpy(), horizon=2, out=tmp_path, overwrite=True)
    assert not (tmp_path / "members.npy").exists()


def test_the_matched_mean_is_written_and_scored(run: Path, clip: Any, tmp_path: Path) -> None:
    plain = fc.predict(run, clip, members=5)
    matched = fc.predict(run, clip, members=5, mean="matched")
    np.testing.assert_array_equal(plain.members, matched.members)
    known = ~np.isnan(np.asarray(plain))
    np.testing.assert_array_equal(known, ~np.isnan(np.asarray(matched)))
    expected = matched_mean(torch.from_numpy(plain.members)).numpy()
    np.testing.assert_array_equal(np.asarray(matched), expected)
    assert np.asarray(matched)[known].max() > np.asarray(plain)[known].max()
    results = {mean: fc.evaluate(run, out=tmp_path / mean, members=4, baselines=["steps"], progress=False, mean=mean)
               for mean in ("plain", "matched")}  # fmt: skip
    for name in ("convlstm", "steps"):
        of = {mean: result["forecasts"][name]["mean"] for mean, result in results.items()}
        assert of["plain"]["crps"] == of["matched"]["crps"]
        assert of["plain"]["mse"] != of["matched"]["mse"]
    assert results["matched"]["mean"] == "matched"
    assert "probability-matched mean" in " ".join(results["matched"]["notes"])


def test_the_same_seed_gives_the_same_members(run: Path, clip: Any) -> None:
    first, again, other = (fc.predict(run, clip, members=3, seed=seed).members for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.nanmax(np.abs(first - other)) > 0
    assert fc.predict(run, clip).members.shape[1] == 16


def test_netcdf_holds_the_ensemble(run: Path, tmp_path: Path) -> None:
    times = np.datetime64("2024-01-01T00:00", "ns") + np.arange(6) * np.timedelta64(5, "m")
    generator = np.random.default_rng(0)
    field = generator.gamma(0.4, 3.0, (40, 52)).astype(np.float32)
    for _ in range(3):
        field = (field + np.roll(field, 1, 0) + np.roll(field, 1, 1) + np.roll(field, 1, (0, 1))) / 4
    rates = np.stack([4 * field[:, 2 * t : 2 * t + 40] for t in range(6)])
    attributes = {"units": "mm h-1", "standard_name": "rainfall_rate"}
    xarray.Dataset({"rain": (("time", "y", "x"), rates, attributes)}, {"time": times}).to_netcdf(tmp_path / "rain.nc")
    forecast = fc.predict("steps", tmp_path / "rain.nc", horizon=2, thresholds=[0.5], out=tmp_path / "out")
    again = fc.predict("steps", tmp_path / "rain.nc", horizon=2)
    np.testing.assert_array_equal(forecast.members, again.members)
    with xarray.open_dataset(tmp_path / "out/forecast.nc") as written:
        (name,) = (str(one) for one in written if str(one).endswith("_members"))
        assert written[name].dims == ("realization", "time", "y", "x")
        assert written["realization"].attrs["standard_name"] == "realization"
        assert written["probability"].dims == ("threshold", "time", "y", "x")
        np.testing.assert_array_equal(written[name].values, forecast.members[0, :, :, 0])
        assert written[name.removesuffix("_members")].attrs["cell_methods"] == "realization: mean"
    fc.predict("steps", tmp_path / "rain.nc", horizon=2, mean="matched", out=tmp_path / "matched")
    with xarray.open_dataset(tmp_path / "matched/forecast.nc") as written:
        methods = written[name.removesuffix("_members")].attrs["cell_methods"]
    assert methods == "realization: mean (comment: probability-matched)"


def test_a_single_forecast_has_no_members(clip: Any) -> None:
    model = fc.create_model("convlstm", hidden=4, layers=1)
    model.clips = fc.data("knmi-sample", **RAIN).spec
    with pytest.raises(OptionError, match="of an ensemble"):
        fc.predict(model, clip, mean="matched")
    with pytest.raises(OptionError, match="of an ensemble"):
        fc.evaluate(model, data="knmi-sample", data_options=RAIN, progress=False, mean="matched")
    options: list[dict[str, Any]] = [{"members": 4}, {"seed": 4}]
    for option in options:
        with pytest.raises(OptionError, match=r"is 4.*single forecast.*noise=4"):
            fc.predict(model, clip, **option)
        with pytest.raises(OptionError, match="members and seed are for models"):
            fc.predict("steps", clip["frames"].numpy(), horizon=1, **option)
        with pytest.raises(OptionError, match=r"is 4.*single forecast.*noise=4"):
            fc.evaluate(model, data="knmi-sample", data_options=RAIN, progress=False, **option)
    with pytest.raises(OptionError, match="this is a single forecast"):
        fc.predict(model, clip, thresholds=[1.0])
    with pytest.raises(UnknownNameError, match="crps"):
        fc.train("convlstm", "knmi-sample", out="nowhere", data_options=RAIN, select="crps", progress=False,
                 model_options={"hidden": 4, "layers": 1})  # fmt: skip


def test_it_is_scored_beside_steps_and_drawn(run: Path, tmp_path: Path) -> None:
    names = ["persistence", "extrapolation", "steps"]
    results = fc.evaluate(run, baselines=names, limit=2, members=6, bootstrap=20, examples=1, out=tmp_path,
                          progress=False, threads=1)  # fmt: skip
    assert results["members"] == 6
    scores = {name: forecast["mean"] for name, forecast in results["forecasts"].items()}
    assert all(scores[name]["crps"] > 0 for name in ("convlstm", *names))
    assert scores["steps"]["spread"] > 0.2
    assert scores["extrapolation"]["spread"] == 0
    assert scores["steps"]["crps"] < scores["extrapolation"]["crps"]
    assert len([name for name in results["forecasts"]["steps"]["counts"] if name.startswith("rank_")]) == 17
    drawings = ensemble_diagrams(results["forecasts"], results["scores"])
    assert {"Rank histogram", "Power spectrum", "Reliability, ≥ 0.5 mm/h", "ROC, ≥ 0.5 mm/h"} <= drawings.keys()
    page = fc.report(tmp_path, out=tmp_path / "page.html", figures=False).read_text()
    assert "Rank histogram" in page
    assert "reliability slope" in page
    single = {name: results["forecasts"][name] for name in ("persistence", "extrapolation")}
    assert not ensemble_diagrams(single, results["scores"])


def test_steps_where_there_is_little_rain() -> None:
    scaling = fc.data("knmi-sample", **RAIN).spec.scaling
    past = torch.zeros(2, 4, 1, 40, 40)
    past[1, :, :, 3:5, 3:5] = 0.6
    baseline = Steps(scaling)
    members, known = baseline.with_mask(past, 2)
    assert baseline.fallbacks == 2
    assert members.shape == (2, 16, 2, 1, 40, 40)
    assert known.shape == (2, 2, 1, 40, 40)
    assert (members[:, :1] == members).all()
