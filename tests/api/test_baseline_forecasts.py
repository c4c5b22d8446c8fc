"""Forecasts without a trained model: what ``predict`` makes of the baselines."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from numpy.typing import NDArray
from samples.radar import knmi_folder

import framecast as fc
from framecast.data.scaling import MinMax
from framecast.errors import DataError
from framecast.registry import BASELINES, make_baselines

START = 1_464_739_200
RAIN = {"unit": "mm/h"}


def moving_rain(frames: int = 6, side: int = 40, pixels: int = 1) -> NDArray[np.float32]:
    """Return a shower (T, H, W) in mm/h that moves right by so many pixels a frame."""
    rain = np.zeros((frames, side, side), np.float32)
    for step in range(frames):
        rain[step, 10:22, 5 + pixels * step : 20 + pixels * step] = np.linspace(1, 8, 15)
    return rain


@pytest.mark.parametrize("name", [name for name, entry in BASELINES.items() if not entry.unit])
def test_they_are_the_baselines_of_evaluate(name: str) -> None:
    values = 250 + 40 * np.random.default_rng(0).random((3, 6, 2, 9, 11), np.float32)
    ours = fc.predict(name, values, horizon=5, context=3, data_options={"unit": "K"})
    scaling = MinMax(0, float(values[:, -3:].max()))
    theirs = make_baselines("K", scaling, [name])[name](scaling.scale(torch.from_numpy(values[:, -3:])), 5)
    np.testing.assert_allclose(ours, scaling.unscale(theirs), rtol=1e-6, atol=1e-4)


def test_the_past_is_the_last_four_frames_or_what_there_is() -> None:
    frames = np.random.default_rng(0).random((9, 8, 8), np.float32)
    for part in (frames, frames[-4:], frames[-1:]):
        np.testing.assert_array_equal(fc.predict("persistence", part, horizon=2)[0, :, 0], frames[[-1, -1]])
    np.testing.assert_allclose(fc.predict("mean frame", frames, horizon=1)[0, 0, 0], frames[-4:].mean(0), atol=1e-6)


def test_extrapolation_is_nothing_where_it_comes_from_outside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    rain = moving_rain()
    forecast = fc.predict("extrapolation", rain, horizon=6, data_options=RAIN, out=tmp_path)[0, :, 0]
    assert np.isnan(forecast[5, :, :4]).all(), "from the left nothing is known"
    assert np.isfinite(forecast[:, 5:35, 20:]).all()
    assert f"{np.isnan(forecast).mean():.1%} of the forecast is no data" in caplog.text
    expected = moving_rain(frames=12)[6:]
    inside = np.isfinite(forecast) & (np.arange(40) >= 20)
    assert np.abs(forecast - expected)[inside].mean() < 0.5 * np.abs(rain[-1] - expected)[inside].mean()
    np.testing.assert_array_equal(np.load(tmp_path / "forecast.npy", allow_pickle=False)[0, :, 0], forecast)
    assert (tmp_path / "forecast.gif").is_file()


def test_what_had_no_data_is_carried_along_as_such() -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    rain = moving_rain()
    rain[:, 30:, 20:] = np.nan
    forecast = fc.predict("extrapolation", rain, horizon=3, data_options=RAIN)[0, :, 0]
    assert np.isnan(forecast[:, 33:, 26:]).all()
    assert np.isfinite(forecast[:, 12:20, 20:38]).all()


def test_what_the_last_frame_does_not_know_is_not_taken_as_zero() -> None:
    frames = np.full((3, 4, 4), 5.0, np.float32)
    frames[0, 0, 0] = frames[-1, 2, 2] = np.nan
    options = {"unit": "K"}
    persistence, mean = (
        fc.predict(name, frames, horizon=2, data_options=options) for name in ("persistence", "mean frame")
    )
    assert np.isnan(persistence[0, :, 0, 2, 2]).all()
    assert np.isnan(persistence).sum() == 2
    assert np.isnan(mean[0, :, 0, [0, 2], [0, 2]]).all()
    assert np.isnan(mean).sum() == 4


def test_without_motion_it_is_persistence_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    forecast = fc.predict("extrapolation", np.zeros((4, 20, 20), np.float32), horizon=2, data_options=RAIN)
    assert not forecast.any()
    assert "1 of 1 clips have no motion that could be found: persistence" in caplog.text


def test_files_of_a_radar_go_on_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")
    stored = np.rint(moving_rain() / 12 * 100)  # hundredths of a millimetre in five minutes
    folder = knmi_folder(tmp_path / "knmi", stored, START)
    with caplog.at_level(logging.WARNING):
        forecast = fc.predict("extrapolation", folder, horizon=3, out=tmp_path / "out")
    assert forecast.shape == (1, 3, 1, 40, 40)
    assert 6 < np.nanmax(forecast) < 9
    with xarray.open_dataset(tmp_path / "out/forecast.nc", engine="h5netcdf") as saved:
        times = saved.time.values.astype("datetime64[s]").astype(int)
    np.testing.assert_array_equal(times, START + 300 * np.arange(6, 9))
    sorted(folder.iterdir())[-2].unlink()
    with pytest.raises(DataError, match="is missing"):
        fc.predict("extrapolation", folder, horizon=3)
    nothing = knmi_folder(tmp_path / "nothing", np.full((4, 20, 20), 65535), START)
    with pytest.raises(DataError, match="no data in its last 4 frames: there is nothing to continue"):
        fc.predict("extrapolation", nothing, horizon=3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("persistence", {}, "say how many frames, such as horizon=12"),
        ("persistence", {"horizon": 0}, "horizon is 0"),
        (
            "persistence",
            {"horizon": 2, "precision": "bf16-mixed"},
            "compile, members and seed are for models",
        ),
        ("persistence", {"horizon": 2, "compile": "step"}, "compile, members and seed are for models"),
        ("persistence", {"horizon": 2, "data_options": {"horizon": 3}}, "option of reading"),
        ("extrapolation", {"horizon": 2}, r"is for mm/h and these frames are in '1': if they are mm/h, say so"),
    ],
    ids=str,
)
def test_what_they_refuse(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fc.predict(name, np.zeros((4, 8, 8), np.float32), **options)


def test_numbers_of_a_model_are_refused() -> None:
    clip = fc.data("moving-mnist", size=16, context=2, horizon=2, clips=20)["test"][0]
    with pytest.raises(ValueError, match="scaled for models: give persistence the files or values"):
        fc.predict("persistence", clip, horizon=2)


def test_a_run_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = fc.train("convlstm", "moving-mnist", out="persistence", steps=1, batch=2, progress=False,
                   data_options={"size": 16, "context": 2, "horizon": 3, "clips": 20},
                   model_options={"hidden": 4, "layers": 1})  # fmt: skip
    frames = np.random.default_rng(0).random((2, 16, 16), np.float32)
    np.testing.assert_array_equal(fc.predict("persistence", frames), fc.predict(run, frames))
