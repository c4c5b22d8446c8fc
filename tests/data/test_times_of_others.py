"""When a frame was: dates, zones, calendars and clocks as other people's files have them, and their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cftime
import netCDF4
import numpy as np
import pytest
import xarray
from PIL import Image
from samples.own import video

import framecast as fc
from framecast.data.catalogue import open_parts
from framecast.data.formats.times import read_times, time_in_name
from framecast.data.joined import JoinedSource
from framecast.data.sources import ReadOptions
from framecast.errors import DataError

SHORT: dict[str, Any] = {"context": 3, "horizon": 3}
COUNT = 40


def joined(path: Path, **options: Any) -> JoinedSource:
    return JoinedSource(open_parts(path, ReadOptions(**options)))


def seconds(stamp: str) -> int:
    return int(np.datetime64(stamp, "s").astype(np.int64))


@pytest.mark.parametrize(
    ("zone", "hours"),
    [("", 0), ("Z", 0), ("UTC", 0), ("GMT", 0), ("+00:00", 0), ("+2", 2), ("+02", 2), ("+0200", 2), ("+200", 2),
     ("+2:00", 2), ("+02:00", 2), ("-0600", -6), ("-06", -6), ("+0530", 5.5), ("-0930", -9.5), ("-930", -9.5),
     ("-00:30", -0.5), ("+1145", 11.75)],
)  # fmt: skip
@pytest.mark.parametrize("glue", [" ", ""])
def test_zones(zone: str, hours: float, glue: str) -> None:
    units = f"hours since 2024-01-01 00:00:00{glue if zone[:1] in ('+', '-', '') else ' '}{zone}"
    times = read_times(np.arange(3), {"units": units}, "the file")
    assert times[0] == seconds("2024-01-01") - 3600 * hours
    assert (np.diff(times) == 3600).all()


@pytest.mark.parametrize("zone", ["CET", "+25x", "+1:2:3", "+2400", "Europe/Berlin"])
def test_zones_that_are_not_known_are_refused(zone: str) -> None:
    with pytest.raises(DataError, match=r"start at no date.*time='none'"):
        read_times(np.arange(3), {"units": f"hours since 2024-01-01 00:00:00 {zone}"}, "the file")


@pytest.mark.parametrize("calendar", ["standard", "gregorian", "proleptic_gregorian", "noleap", "360_day", "all_leap"])
@pytest.mark.parametrize("units", ["days since 1850-01-01", "hours since 1-1-1", "minutes since 2000-02-28 12:00"])
def test_calendars_as_cftime_counts_them(calendar: str, units: str) -> None:
    stored = np.array([0, 1, 59, 60, 61, 366, 100_000])
    dates = cftime.num2date(stored, units, calendar)
    expected = cftime.date2num(dates, "seconds since 1970-01-01", calendar)
    assert np.array_equal(read_times(stored, {"units": units, "calendar": calendar}, "the file"), expected)


@pytest.mark.parametrize(("unit", "factor"), [("microseconds", 10**6), ("nanoseconds", 10**9), ("milliseconds", 1000)])
def test_parts_of_seconds_are_exact(unit: str, factor: int) -> None:
    stored = (1_704_067_200 + 300 * np.arange(COUNT)) * factor
    times = read_times(stored, {"units": f"{unit} since 1970-01-01"}, "the file")
    assert np.array_equal(times, 1_704_067_200 + 300 * np.arange(COUNT))


@pytest.mark.parametrize(("form", "step"), [("%Y%m%d", 24), ("%Y%m%d%H", 1), ("%Y%m%d%H%M", 1), ("%Y%m%d%H%M%S", 1)])
@pytest.mark.parametrize("kind", ["numbers", "text", "bytes"])
def test_dates_as_digits(form: str, step: int, kind: str) -> None:
    moments = np.datetime64("2017-06-28T00", "h") + step * np.arange(COUNT)
    words = [moment.astype(object).strftime(form) for moment in moments]
    stored = {"numbers": np.array(list(map(int, words))), "text": np.array(words), "bytes": np.array(words, "S14")}
    assert np.array_equal(read_times(stored[kind], {}, "the file"), moments.astype("datetime64[s]").astype(np.int64))


def test_seconds_that_look_like_digits_stay_seconds() -> None:
    for start in (1_700_000_000, 1_900_010_100 + 77, 20_240_101 + 30):
        stamps = start + 61 * np.arange(COUNT)
        assert np.array_equal(read_times(stamps, {}, "the file"), stamps)


@pytest.mark.parametrize(
    ("stored", "units", "enough"),
    [
        ((11_352 + np.arange(COUNT) / 24).astype("f4"), "days since 1992-01-01", 300),
        ((8760 + np.arange(COUNT) / 12).astype("f4"), "hours since 2023-01-01", 30),
        ((8000 + np.arange(COUNT) / 144).round(5), "days since 2000-01-01", 10),
        ((1.7e9 + 300 * np.arange(COUNT)).astype("f4"), "seconds since 1970-01-01", 140),
    ],
)
def test_coarse_clocks_are_told_and_read_with_a_tolerance(stored: Any, units: str, enough: int) -> None:
    with pytest.raises(DataError, match="give interval= and tolerance="):
        read_times(stored, {"units": units}, "the file")
    assert len(read_times(stored, {"units": units}, "the file", enough)) == COUNT


def test_a_fraction_that_all_share_is_left_out() -> None:
    times = read_times(300 * np.arange(COUNT) + 0.5, {"units": "seconds since 1970-01-01"}, "the file")
    assert (np.diff(times) == 300).all()


def wrf(path: Path, hours: Any, **variables: bool) -> Path:
    stamps = [str(np.datetime64("2024-01-01T00:00:00") + np.timedelta64(int(h), "h")).replace("T", "_") for h in hours]
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("Time", None), ("DateStrLen", 19), ("south_north", 6), ("west_east", 8)):
            file.createDimension(name, size)
        if variables.get("characters", True):
            chars = netCDF4.stringtochar(np.array(stamps, "S19"))
            file.createVariable("Times", "S1", ("Time", "DateStrLen"))[:] = chars
        if variables.get("minutes", True):
            minutes = file.createVariable("XTIME", "f4", ("Time",))
            minutes.units, minutes[:] = "minutes since 2024-01-01 00:00:00", 60 * np.asarray(hours)
        rain = file.createVariable("RAINNC", "f4", ("Time", "south_north", "west_east"))
        rain.units, rain[:] = "mm", np.random.default_rng(0).random((len(hours), 6, 8))
    return path


@pytest.mark.parametrize(
    ("variables", "time"),
    [({}, None), ({}, "Times"), ({}, "XTIME"), ({"minutes": False}, None), ({"characters": False}, None)],
)
def test_stamps_of_any_name_along_the_time_axis(tmp_path: Path, variables: Any, time: str | None) -> None:
    hours = np.r_[0:20, 30:50]
    data = fc.data(wrf(tmp_path / "a.nc", hours, **variables), time=time, **SHORT)
    source = data["train"].source
    assert np.array_equal(source.times, seconds("2024-01-01") + 3600 * hours)
    assert all(np.diff(hours[window]).max() == 1 for split in data.splits.values() for window in split.windows)


@pytest.mark.parametrize("form", ["auxiliary", "variable", "steps"])
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_auxiliary_coordinates_of_time(tmp_path: Path, form: str, suffix: str) -> None:
    hours, frames = np.r_[0:20, 30:50], np.random.default_rng(0).random((COUNT, 6, 8)).astype("f4")
    dated = {"units": "hours since 2024-01-01"}
    if form == "auxiliary":
        data = xarray.Dataset({"v": (("t", "y", "x"), frames)}, {"time": ("t", hours, dated)})
    elif form == "variable":
        data = xarray.Dataset({"v": (("nt", "ny", "nx"), frames), "time": ("nt", hours, dated)})
    else:
        data = xarray.Dataset(
            {"v": (("step", "y", "x"), frames)},
            {"step": ("step", hours, {"units": "hours"}), "time": ((), 0, dated),
             "valid_time": ("step", hours, {**dated, "standard_name": "time"})},
        )  # fmt: skip
    path = tmp_path / f"a.{suffix}"
    data.to_netcdf(path, engine="h5netcdf") if suffix == "nc" else data.to_zarr(path, consolidated=False)
    assert np.array_equal(joined(path).times, seconds("2024-01-01") + 3600 * hours)


def test_one_map_a_file(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((COUNT, 6, 8)).astype("f4")
    for number, frame in enumerate(frames):
        moment = {"units": "seconds since 1970-01-01", "standard_name": "time"}
        data = xarray.Dataset(
            {"rain": (("y", "x"), frame, {"units": "mm h-1"}), "flags": (("y", "x", "n"), np.zeros((6, 8, 2), "S1")),
             "start_time": ((), 600 * number - 600, moment), "valid_time": ((), 600 * number, moment)},
        )  # fmt: skip
        data.to_netcdf(tmp_path / f"{COUNT - number}.nc", engine="h5netcdf")
    source = joined(tmp_path)
    assert np.array_equal(source.times, 600 * np.arange(COUNT))
    np.testing.assert_array_equal(source.read(np.arange(COUNT))[:, 0], frames)


def test_maps_without_times_are_one_sequence_in_the_order_of_their_names(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((COUNT, 6, 8))
    for number, frame in enumerate(frames):
        np.save(tmp_path / f"map_{number}.npy", frame)
    source = joined(tmp_path)
    assert source.sequences == [range(COUNT)]
    np.testing.assert_array_equal(source.read(np.arange(COUNT))[:, 0], frames.astype("f4"))


@pytest.mark.parametrize("suffix", ["png", "npy"])
@pytest.mark.parametrize("time", [None, "radar_%Y%m%d%H%M", "none"])
def test_times_in_names(tmp_path: Path, suffix: str, time: str | None) -> None:
    minutes = np.r_[0:20, 30:50] * 5
    for number, minute in enumerate(minutes):
        stamp = (np.datetime64("2024-01-01T00:00") + minute).astype(object).strftime("%Y%m%d%H%M")
        path = tmp_path / f"radar_{stamp}.{suffix}"
        frame = np.full((6, 8), number, np.uint8)
        Image.fromarray(frame).save(path) if suffix == "png" else np.save(path, frame)
    source = joined(tmp_path, time=time)
    expected = None if time == "none" else seconds("2024-01-01") + 60 * minutes
    assert source.times is None if expected is None else np.array_equal(source.times, expected)
    with pytest.raises(DataError, match="does not fit time='other_%Y'"):
        joined(tmp_path, time="other_%Y")
    np.save(tmp_path / "radar_202401010000.npy", np.zeros((5, 6, 8)))
    if suffix == "npy":
        with pytest.raises(DataError, match="holds 5 frames: time='radar_%Y' is for files of one frame"):
            joined(tmp_path, time="radar_%Y")


def test_patterns_of_names() -> None:
    assert time_in_name("AQC151351545F_00005.801.gif", "AQC%y%j%H%M?_00005.801") == seconds("2015-05-15T15:45")
    assert time_in_name("2_20180616_100000.prcp-cscn.nc", "2_%Y%m%d_%H%M00.prcp-cscn") == seconds("2018-06-16T10:00")
    assert time_in_name("AQC159991545F_00005.801.gif", "AQC%y%j%H%M?_00005.801") is None
    assert time_in_name("other.gif", "AQC%y%j%H%M?_00005.801") is None


@pytest.mark.parametrize(
    "pieces",
    [
        [range(60), [30]],
        [range(24 * day, 24 * day + 25) for day in range(4)],
        [range(100), range(150), range(150, 200)],
        [range(6 * day, 6 * day + 24) for day in range(12)],
        [range(100), range(100)],
    ],
)
def test_doubled_stamps_are_named_and_never_in_two_splits(tmp_path: Path, pieces: Any) -> None:
    for number, hours in enumerate(pieces):
        values = np.random.default_rng(number).random((len(hours), 6, 8)).astype("f4")
        time = ("time", np.array(hours), {"units": "hours since 2024-01-01"})
        data = xarray.Dataset({"v": (("time", "y", "x"), values)}, {"time": time})
        data.to_netcdf(tmp_path / f"{number:02}.nc", engine="h5netcdf")
    data = fc.data(tmp_path, **SHORT)
    source = data["train"].source
    assert np.array_equal(np.unique(source.times), source.times)
    assert set(source.times) == {seconds("2024-01-01") + 3600 * hour for hours in pieces for hour in hours}
    assert any("stand in two files" in note for note in data.notes)
    used = [set(source.times[split.windows].ravel()) for split in data.splits.values()]
    assert sum(map(len, used)) == len(used[0] | used[1] | used[2])


def test_one_stamp_in_the_folders_of_two_splits_is_refused(tmp_path: Path) -> None:
    for split, hours in (("train", range(40)), ("test", range(30, 60))):
        (tmp_path / split).mkdir()
        time = ("time", np.array(hours), {"units": "hours since 2024-01-01"})
        values = np.random.default_rng(0).random((len(hours), 6, 8)).astype("f4")
        data = xarray.Dataset({"v": (("time", "y", "x"), values)}, {"time": time})
        data.to_netcdf(tmp_path / split / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="10 time stamps, first 2024-01-02T06:00:00, stand in both splits"):
        fc.data(tmp_path, **SHORT)


@pytest.mark.parametrize(
    ("shown", "longest"), [(np.r_[0:30] / 25, 30), (np.r_[0:30, 280:310] / 25, 30), (np.r_[0:150, 150:200:5] / 25, 151)]
)
def test_no_clip_of_a_video_spans_a_pause_or_a_change_of_pace(tmp_path: Path, shown: Any, longest: int) -> None:
    data = fc.data(video(tmp_path / "a.mp4", shown), channels=1, **SHORT)
    source = data["train"].source
    assert data.spec.interval == pytest.approx(0.04)
    assert max(map(len, source.sequences)) == longest
    assert sum(map(len, source.sequences)) == len(shown)
    assert any("by another step" in note for note in data.notes) == (len(source.sequences) > 1)


def test_videos_of_two_rates_are_told(tmp_path: Path) -> None:
    video(tmp_path / "a.mp4", np.arange(40) / 25)
    video(tmp_path / "b.mp4", np.arange(40) / 5, rate=5)
    data = fc.data(tmp_path, channels=1, **SHORT)
    assert data.spec.interval is None
    assert any("0.04 to 0.2 s apart" in note for note in data.notes)
