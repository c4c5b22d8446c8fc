"""Covariates: files beside the frames, what of them is known when, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray

import framecast as fc
from framecast.data.clips import spec_from_dict
from framecast.errors import DataError, FramecastError, OptionError

START = np.datetime64("2024-01-01T00:00", "ns")
FRAMES, SIDE = 60, 16


def write(path: Path, values: np.ndarray, first: int = 0, minutes: int = 60, rows: Any = None) -> Path:
    """Write frames (T, H, W) with hourly times."""
    times = START + (first + np.arange(len(values))) * np.timedelta64(minutes, "m")
    y = np.arange(values.shape[1]) * 1000.0 if rows is None else rows
    coordinates = {"time": times, "y": ("y", y, {"units": "m"}), "x": ("x", np.arange(values.shape[2]) * 1000.0)}
    xarray.Dataset({"v": (("time", "y", "x"), values.astype("float32"), {"units": "K"})}, coordinates).to_netcdf(path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Frames, and what stands beside them: frame t holds t, 10 t and 100 t."""
    number = np.arange(FRAMES)[:, None, None] * np.ones((1, SIDE, SIDE))
    (tmp_path / "hill.npy").write_bytes(b"")
    np.save(tmp_path / "hill.npy", np.tile(np.linspace(0, 900, SIDE), (1, SIDE, 1)).astype(np.float32))
    return {
        "frames": write(tmp_path / "frames.nc", number),
        "sensor": write(tmp_path / "sensor.nc", 10 * number),
        "forecast": write(tmp_path / "forecast.nc", 100 * number),
        "hill": tmp_path / "hill.npy",
    }


def opened(files: dict[str, Path], **options: Any) -> Any:
    covariates = {
        "sensor": str(files["sensor"]),
        "model": {"path": str(files["forecast"]), "known": "future"},
        "hill": str(files["hill"]),
        "hour": True,
    }
    return fc.data(files["frames"], context=3, horizon=4, covariates=covariates, **options)


def test_what_is_known_when(files: dict[str, Path]) -> None:
    data = opened(files)
    assert [covariate.name for covariate in data.spec.covariates] == [
        "sensor", "model", "hill", "hour:sine", "hour:cosine"
    ]  # fmt: skip
    sample = data["test"][1]
    rows = sample["covariates"]
    assert rows.shape == (7, 5, SIDE, SIDE)
    times = sample["times"].numpy()
    hour = (times - START.astype("datetime64[s]").astype(np.int64)) // 3600
    sensor, model = (data.spec.covariates[number].scaling.unscale(rows[:, number, 0, 0]) for number in (0, 1))
    # The range of the training part; what lies beyond it is cut.
    last = data.spec.covariates[0].scaling.limits[1]
    known = 10.0 * hour[[0, 0, 1, 2, 2, 2, 2]]
    np.testing.assert_allclose(sensor, np.minimum(known, last), rtol=1e-5)
    np.testing.assert_allclose(model, np.minimum(100.0 * hour, 10 * last), rtol=1e-5)
    np.testing.assert_allclose(rows[2, 2, 0].numpy(), np.linspace(0, 1, SIDE), atol=1e-6)
    angle = 2 * np.pi * (hour % 24) / 24
    np.testing.assert_allclose(rows[:, 3, 0, 0].numpy(), np.sin(angle) / 2 + 0.5, atol=1e-6)
    assert spec_from_dict(data.spec.to_dict()) == data.spec


def test_a_model_learns_what_only_a_covariate_tells(tmp_path: Path) -> None:
    """Frames are noise, and a covariate says what they will be: the error falls by nine tenths."""
    generator = np.random.default_rng(0)
    coarse = generator.random((120, 4, 4))
    values = coarse.repeat(4, 1).repeat(4, 2)
    write(tmp_path / "frames.nc", values)
    write(tmp_path / "told.nc", values)
    errors = {}
    for name, covariates in {
        "with": {"told": {"path": str(tmp_path / "told.nc"), "known": "future"}},
        "without": {},
    }.items():
        data = fc.data(tmp_path / "frames.nc", context=2, horizon=3, covariates=covariates)
        run = fc.train("convlstm", data, out=tmp_path / name, model_options={"hidden": 8, "layers": 1}, steps=150,
                       batch=4, lr=5e-3, schedule="one-cycle", progress=False, threads=1)  # fmt: skip
        results = fc.evaluate(run, progress=False, bootstrap=0, examples=0)
        errors[name] = results["forecasts"]["convlstm"]["mean"]["mse"]
    assert errors["with"] < 0.1 * errors["without"], errors


def test_train_evaluate_predict_and_resume(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    covariates = {"sensor": str(files["sensor"]), "model": {"path": str(files["forecast"]), "known": "future"}}
    options = {"context": 3, "horizon": 4, "covariates": covariates}
    settings = {"model_options": {"hidden": 4, "layers": 2}, "batch": 2, "progress": False, "threads": 1}
    run = fc.train("ms-lstm", str(files["frames"]), data_options=options, out=out, steps=2, **settings)
    results = fc.evaluate(run, progress=False, bootstrap=0, examples=1)
    assert results["clip_spec"]["covariates"][0]["name"] == "sensor"
    # The future of the past ends with the files, so what is known for it must reach further.
    with pytest.raises(DataError, match=r"covariate model.*has no frame at 2024-01-03T12:00"):
        fc.predict(run, str(files["frames"]))
    further = write(tmp_path / "further.nc", 100 * np.arange(FRAMES + 4)[:, None, None] * np.ones((1, SIDE, SIDE)))
    longer = {"sensor": str(files["sensor"]), "model": {"path": str(further), "known": "future"}}
    forecast = fc.predict(run, str(files["frames"]), data_options={"covariates": longer})
    assert forecast.shape == (1, 4, 1, SIDE, SIDE)
    clip = opened_clip = fc.data(files["frames"], **options)["test"][0]
    del opened_clip
    assert fc.predict(run, clip).shape == (1, 4, 1, SIDE, SIDE)
    with pytest.raises(OptionError, match="trained with covariates sensor, model: say where"):
        fc.predict(fc.load(run), np.zeros((3, SIDE, SIDE), np.float32))
    with pytest.raises(DataError, match="trained with covariates sensor, model and these are missing sensor"):
        fc.predict(run, str(files["frames"]), data_options={"covariates": {"model": str(further)}})
    with pytest.raises(DataError, match="has covariates none and the model was trained with sensor, model"):
        fc.evaluate(run, data=files["frames"], data_options={"context": 3, "horizon": 4}, progress=False)


def test_what_does_not_fit_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    def refused(match: str, **covariates: Any) -> None:
        with pytest.raises(FramecastError, match=match):
            fc.data(files["frames"], context=3, horizon=4, covariates=covariates)

    values = np.ones((FRAMES, SIDE, SIDE))
    refused("covariate sensor has no path", sensor={"known": "past"})
    refused("option of covariate sensor 'variabel'.*variable", sensor={"path": "a", "variabel": "v"})
    refused(r"'tomorrow'.*Known: future, past", sensor={"path": str(files["sensor"]), "known": "tomorrow"})
    refused("nothing at", sensor=str(tmp_path / "nothing.nc"))
    refused("frames of 8x16 and the frames are 16x16", sensor=str(write(tmp_path / "s.nc", values[:, :8])))
    refused("no frame at", sensor=str(write(tmp_path / "late.nc", values, first=30)))
    refused("no frame at", sensor=str(write(tmp_path / "slow.nc", values, minutes=120)))
    refused("elsewhere", sensor=str(write(tmp_path / "e.nc", values, rows=np.arange(SIDE) * 1000.0 + 5e5)))
    refused("no data at all", sensor=str(write(tmp_path / "n.nc", np.full_like(values, np.nan))))
    refused("say hour: true", hour="yes")
    np.save(tmp_path / "timeless.npy", values.astype(np.float32))
    with pytest.raises(OptionError, match="hour needs time stamps"):
        fc.data(tmp_path / "timeless.npy", context=3, horizon=4, covariates={"hour": True})


def test_channels_of_a_covariate_have_a_scaling_each(files: dict[str, Path], tmp_path: Path) -> None:
    number = np.arange(FRAMES, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, SIDE, SIDE), np.float32)
    np.save(tmp_path / "both.npy", number * np.float32([1, 50])[:, None, None])
    np.save(tmp_path / "frames.npy", number[:, 0])
    both = {"path": str(tmp_path / "both.npy"), "axes": "TCHW", "known": "future"}
    data = fc.data(tmp_path / "frames.npy", context=3, horizon=4, covariates={"both": both})
    assert [covariate.name for covariate in data.spec.covariates] == ["both:0", "both:1"]
    rows = data["train"][2]["covariates"]
    torch.testing.assert_close(rows[:, 0], rows[:, 1])
    assert 0 < rows[0].mean() < rows[-1].mean() < 1


def test_rows_turn_with_the_frames(files: dict[str, Path]) -> None:
    data = opened(files)
    upright, turned = data["train"][0], data.turned()["train"][0]
    assert torch.equal(upright["covariates"].flip(-2), turned["covariates"])


def test_rain_takes_covariates_of_its_maps_and_of_its_frames(tmp_path: Path) -> None:
    hill = np.linspace(0, 900, 765, dtype=np.float32)[:, None].repeat(700, 1)
    np.save(tmp_path / "maps.npy", hill[None])
    # Rows 185 to 585 of the map, averaged to 80.
    np.save(tmp_path / "frames.npy", hill[185:585, 160:560].reshape(80, 5, 80, 5).mean((1, 3))[None])
    data = fc.data("knmi-sample", covariates={"hour": True, **{n: tmp_path / f"{n}.npy" for n in ("maps", "frames")}})
    sample = data["test"][0]
    rows = sample["covariates"]
    assert rows.shape == (16, 4, 80, 80)
    torch.testing.assert_close(rows[:, 2], rows[:, 3], atol=1e-6, rtol=0)
    torch.testing.assert_close(rows[5, 2, :, 0], torch.linspace(0, 1, 80), atol=1e-6, rtol=0)
    hours = sample["times"].numpy() % 86400 / 3600
    np.testing.assert_allclose(rows[:, 0, 0, 0], np.sin(2 * np.pi * hours / 24) / 2 + 0.5, atol=1e-6)
    np.save(tmp_path / "frames.npy", hill[None, :50, :50])
    with pytest.raises(DataError, match=r"covariate frames: .*50x50 and the frames are 80x80"):
        fc.data("knmi-sample", covariates={"frames": tmp_path / "frames.npy"})
