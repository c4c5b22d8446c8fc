"""Values of one's own frames: nodata, scaling, and time stamps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from samples.kth import moving_bar, video_file
from samples.own import SHORT, lengths, pixels, png_folder, rain_dataset, save, timed, zarr_of

import framecast as fc
from framecast.data.sets import own
from framecast.data.sets.own import open_own
from framecast.errors import DataError


def test_nodata_values_of_one_s_own(tmp_path: Path) -> None:
    """Another number under the mask gives the very same clips."""
    frames = pixels().astype(np.float32)
    prints = set()
    for code in (-999.0, 9e30, 255.5):
        masked = frames.copy()
        masked[:, 2, 3] = code
        data = open_own(save(tmp_path / f"{code}.npy", masked), nodata=code, scaling="min-max", **SHORT)
        sample = data["test"][0]
        assert not sample["valid"][:, 0, 2, 3].any()
        assert sample["valid"].sum() == 4 * 47
        prints.add((data.fingerprint(), data.spec.scaling.limits))
    assert len(prints) == 1


def test_nodata_of_pixels_and_videos(tmp_path: Path) -> None:
    frames = moving_bar(20)
    video_file(tmp_path / "v.avi", frames)
    png_folder(tmp_path / "p", frames)
    for name in ("v.avi", "p"):
        sample = open_own(tmp_path / name, nodata=220, **SHORT)["train"][0]
        assert np.array_equal(sample["valid"][:, 0].numpy(), frames[:4] != 220)


def test_min_max_is_fitted_on_the_training_frames_only(tmp_path: Path) -> None:
    frames = np.linspace(5, 100, 40)[:, None, None] * np.ones((6, 8))
    data = open_own(save(tmp_path / "a.npy", frames), scaling="min-max", **SHORT)
    assert data.spec.scaling.limits == (5, pytest.approx(frames[27, 0, 0]))
    assert data["test"][0]["frames"].max() == 1
    assert open_own(tmp_path / "a.npy", **SHORT).spec.scaling == data.spec.scaling, "auto does so too"


def test_values_in_the_unit_interval_are_left_as_they_are(tmp_path: Path) -> None:
    data = open_own(save(tmp_path / "a.npy", np.random.default_rng(0).random((40, 6, 8)) / 2), **SHORT)
    assert data.spec.scaling.limits == (0, 1)


def test_limits_are_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.npy", np.linspace(0, 9, 40)[:, None, None] * np.ones((6, 8)))
    first = open_own(path, **SHORT).spec.scaling
    with monkeypatch.context() as patched:
        patched.setattr(own, "_limits", None)
        assert open_own(path, **SHORT).spec.scaling == first
    save(path, np.linspace(0, 90, 40)[:, None, None] * np.ones((6, 8)))
    assert open_own(path, **SHORT).spec.scaling != first


def test_constant_frames(tmp_path: Path) -> None:
    data = open_own(save(tmp_path / "a.npy", np.full((40, 6, 8), 7.0)), **SHORT)
    assert data["train"][0]["frames"].isfinite().all()
    assert data.spec.scaling.unscale(data["train"][0]["frames"]).unique() == 7
    assert any("all values of the training part are 7" in note for note in data.notes)


def test_gaps_are_told_and_never_spanned(tmp_path: Path) -> None:
    times = np.delete(np.arange(60) * 300, [10, 11, 30])
    data = open_own(timed(tmp_path / "a.h5", times, units="seconds since 2000-01-01"), **SHORT)
    for clips in data.splits.values():
        assert all((clips[i]["times"].diff() == 300).all() for i in range(len(clips)))
    assert "2 gaps in time, the longest 900 s: no clip spans one" in data.notes
    assert data["train"][0]["times"][0] == np.datetime64("2000-01-01", "s").astype(int)


def test_a_longer_interval_thins_the_frames_out(tmp_path: Path) -> None:
    path = timed(tmp_path / "a.h5", np.arange(60) * 300)
    for options in ({"interval": 900}, {"step": 3}):
        data = open_own(path, **options, **SHORT)
        assert data.spec.interval == 900
        assert data["train"][0]["times"].tolist() == [0, 900, 1800, 2700]


def test_jitter_needs_a_tolerance(tmp_path: Path) -> None:
    jitter = np.random.default_rng(0).integers(-4, 5, 60)
    path = timed(tmp_path / "a.h5", 1_500_000_000 + np.arange(60) * 300 + jitter)
    with pytest.raises(DataError, match="give another interval= or tolerance="):
        open_own(path, context=5, horizon=5)
    data = open_own(path, interval=300, tolerance=10, context=5, horizon=5)
    assert lengths(data)[0] == 42 - 9
    assert (data["train"][0]["times"].diff() == 300).all()
    with pytest.raises(DataError, match="below half the interval"):
        open_own(path, interval=300, tolerance=150, **SHORT)


@pytest.mark.parametrize(
    ("times", "attributes"),
    [
        (np.arange(20) * 5.0, {"units": "minutes since 2000-01-01T00:00:00Z", "calendar": "proleptic_gregorian"}),
        (np.arange(20) / 288, {"units": "days since 2000-1-1 0:0:0"}),
        (np.arange(20) * 300 + 946_684_800, {}),
        (np.array([str(s)[:16].encode() for s in np.datetime64("2000-01-01", "s") + np.arange(20) * 300]), {}),
        (np.array([b"200001010%d%02d" % (k // 12, k % 12 * 5) for k in range(20)]), {}),
        (np.array([200001010000 + k // 12 * 100 + k % 12 * 5 for k in range(20)]), {}),
        (np.arange(20) * 300_000, {"units": "milliseconds since 2000-01-01 02:00:00 +2:00"}),
    ],
)
def test_time_stamps_of_many_kinds(tmp_path: Path, times: Any, attributes: dict[str, str]) -> None:
    data = open_own(timed(tmp_path / "a.h5", times, **attributes), **SHORT)
    assert data["train"][0]["times"].tolist() == [946_684_800 + 300 * k for k in range(4)]


@pytest.mark.parametrize(
    ("times", "attributes", "message"),
    [
        (np.array([0, 300, 300, 900]), {}, "1 time stamps are doubled.*sort"),
        (np.array([0, 600, 300, 900]), {}, "1 time stamps are out of order"),
        (np.array([0, 1, np.nan, 3]), {}, "1 time stamps are NaN"),
        (np.array([0, 0.04, 0.08, 0.12]), {"units": "seconds since 2000-01-01"}, "finer than a second"),
        (np.arange(4), {"units": "fortnights since 2000-01-01"}, "cannot be read"),
        (np.arange(4), {"units": "months since 2000-01-01"}, "cannot be read.*time='none'"),
        (np.arange(4), {"units": "days since 2000-01-01", "calendar": "lunar"}, "calendar 'lunar'"),
        (np.arange(4), {"units": "days since then"}, "start at no date"),
        (np.arange(4), {"units": "hours since 2000-01-01 00:00 CET"}, "start at no date"),
        (np.array([10**15, 10**15 + 1]), {}, "neither seconds since 1970 nor"),
        (np.array([b"yesterday", b"today"]), {}, "'yesterday' is not a time stamp"),
        (np.array([b"20001301", b"20001302"]), {}, "is not a time stamp"),
        (np.zeros((2, 2)), {}, "time stamps have one axis"),
    ],
)
def test_time_stamps_that_cannot_be_read(tmp_path: Path, times: Any, attributes: Any, message: str) -> None:
    path = timed(tmp_path / "a.h5", times, count=20 if times.ndim > 1 else None, **attributes)
    with pytest.raises(DataError, match=message):
        open_own(path, **SHORT, time="time")
    assert "times" not in open_own(timed(path, times, count=20, **attributes), time="none", **SHORT)["train"][0]


def test_missing_time_stamps(tmp_path: Path) -> None:
    dataset = rain_dataset()
    times = dataset.time.values.copy()
    times[5] = np.datetime64("NaT")
    path = zarr_of(tmp_path / "a.zarr", dataset.assign_coords(time=times))
    with pytest.raises(DataError, match="time stamps are"):
        open_own(path, **SHORT)


def test_other_data_is_scaled_as_the_model_was_trained(tmp_path: Path) -> None:
    ramp = np.linspace(0, 9, 40)[:, None, None] * np.ones((8, 8))
    run = fc.train("convlstm", save(tmp_path / "a.npy", ramp), out=tmp_path / "run", steps=1, batch=2, progress=False,
                   model_options={"hidden": 2, "layers": 1}, data_options=SHORT)  # fmt: skip
    trained = fc.data(tmp_path / "a.npy", **SHORT).spec.scaling
    other = fc.data(save(tmp_path / "b.npy", 3 * ramp), **SHORT)
    assert other.spec.scaling != trained
    results = fc.evaluate(run.path, data=other, progress=False)
    assert results["clip_spec"]["scaling"] == trained.to_dict()
    with pytest.raises(DataError, match=r"is in mm/h and the model was trained on 1"):
        fc.evaluate(run.path, data=tmp_path / "b.npy", data_options={**SHORT, "unit": "mm/h"}, progress=False)


def test_of_files_of_the_same_hours_one_is_taken_and_both_are_named(tmp_path: Path) -> None:
    for name in ("east", "west"):
        timed(tmp_path / f"{name}.h5", np.arange(20) * 300)
    data = open_own(tmp_path, shares=(1, 0, 0), **SHORT)
    assert lengths(data) == [17, 0, 0]
    assert any(re.search("20 time stamps stand in two files.*east.*west", note) for note in data.notes)
    apart = open_own(tmp_path, shares=(1, 0, 0), time="none", **SHORT)
    assert lengths(apart) == [34, 0, 0]
    assert "2 sequences: no clip spans two of them" in apart.notes
    windows = apart["train"].windows
    assert ((windows < 20) == (windows[:, :1] < 20)).all()


def test_predict_takes_the_last_frames_at_the_model_s_interval(tmp_path: Path) -> None:
    whole, later = rain_dataset(60), rain_dataset(60).isel(time=[*range(30), *range(31, 60)])
    whole.to_zarr(tmp_path / "rain.zarr", consolidated=False)
    crop = (0, 6, 2, 8)
    data = fc.data(tmp_path / "rain.zarr", context=3, horizon=2, step=2, crop=crop, shares=(0.6, 0.2, 0.2))
    fc.train("convlstm", data, out=tmp_path / "run", steps=1, batch=2, model_options={"hidden": 2, "layers": 1})
    found = fc.predict(tmp_path / "run", tmp_path / "rain.zarr", out=tmp_path / "forecast")
    past = whole.rainfall_rate.values[[55, 57, 59], :, 2:8]
    np.testing.assert_allclose(found, fc.predict(tmp_path / "run", past), rtol=1e-5, equal_nan=True)
    with xr.open_dataset(tmp_path / "forecast/forecast.nc", engine="h5netcdf") as saved:
        expected = whole.time.values[-1] + np.timedelta64(600, "s") * np.arange(1, 3)
        np.testing.assert_array_equal(saved.time.values, expected)
    later.to_zarr(tmp_path / "gap.zarr", consolidated=False)
    fc.predict(tmp_path / "run", tmp_path / "gap.zarr")  # the frame that is missing is not one of the last three
    later.isel(time=slice(0, 32)).to_zarr(tmp_path / "end.zarr", consolidated=False)
    with pytest.raises(DataError, match=r"end\.zarr ends at .*14:40:00.*steps of 10 minutes.*14:30:00 is missing"):
        fc.predict(tmp_path / "run", tmp_path / "end.zarr")
