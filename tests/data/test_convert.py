"""Conversion into one Zarr: exact values, order, and damage that is listed."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from samples.conversion import START, converted, expected, raw, values_of
from samples.kth import moving_bar, video_file
from samples.own import pixels, png_folder, rain_dataset
from samples.radar import knmi_file, knmi_folder, odim_file

import framecast as fc
from framecast.errors import DataError, DatasetNotFoundError, MissingExtraError


def test_radar_files_become_one_archive(tmp_path: Path) -> None:
    values = raw(40)
    knmi_folder(tmp_path / "in", values, START)
    report = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert (report.frames, report.unreadable, report.doubled, report.cut) == (40, [], [], 0)
    data = values_of(tmp_path / "out.zarr")
    rain = data["rainfall_rate"]
    assert rain.dims == ("time", "y", "x")
    kind = {"units": "mm h-1", "standard_name": "rainfall_rate", "framecast_product": "KNMI 300 s"}
    assert rain.attrs == kind
    assert rain.encoding["scale_factor"] == 0.01
    assert rain.encoding["_FillValue"] == 65535
    assert rain.encoding["dtype"] == np.uint16
    assert rain.encoding["chunks"] == (1, 6, 8)
    np.testing.assert_allclose(rain.values, expected(values), atol=1e-6)
    assert (np.diff(data.time.values) == np.timedelta64(300, "s")).all()
    assert data.attrs["Conventions"].startswith("CF-")
    array = zarr.open_group(tmp_path / "out.zarr", mode="r")["rainfall_rate"]
    assert any(isinstance(codec, zarr.codecs.Crc32cCodec) for codec in array.compressors), "chunks have checksums"
    again = fc.data(tmp_path / "out.zarr", context=2, horizon=2)
    folder = fc.data(tmp_path / "in", context=2, horizon=2)
    for index in (0, 7):
        assert np.allclose(again["train"][index]["frames"], folder["train"][index]["frames"], atol=1e-6)
        assert np.array_equal(again["train"][index]["valid"], folder["train"][index]["valid"])
    assert not (tmp_path / "out.zarr.part").exists()


def test_the_real_sequence(shared: Path, tmp_path: Path) -> None:
    small = tmp_path / "in"
    small.mkdir()
    for path in sorted((shared / "data/knmi").glob("*.h5"))[:6]:
        (small / path.name).symlink_to(path)
    assert converted(small, tmp_path / "out.zarr").frames == 6
    archive, files = fc.data(tmp_path / "out.zarr", context=1, horizon=1), fc.data(small, context=1, horizon=1)
    numbers = np.arange(6)
    assert np.array_equal(archive["train"].source.read(numbers), files["train"].source.read(numbers), equal_nan=True), (
        "hundredths of a millimetre an hour lose nothing"
    )


def tar_of(path: Path, members: dict[str, bytes], kind: str = "w") -> bytes:
    with tarfile.open(path, kind) as archive:
        for name, content in members.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(content)
            archive.addfile(facts, io.BytesIO(content))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2"])
def test_archives_and_archives_of_archives(tmp_path: Path, kind: str) -> None:
    values = raw(12)
    knmi_folder(tmp_path / "in", values, START)
    files = sorted((tmp_path / "in").iterdir())
    mode = "w:" + kind.removeprefix("tar").removeprefix(".")
    days = {}
    for day, chosen in enumerate((files[:4], files[4:8])):
        name = f"day{day}.tar.gz"
        days[name] = tar_of(tmp_path / name, {f"./deep/{f.name}": f.read_bytes() for f in chosen}, "w:gz")
    loose = {f"loose/{file.name}": file.read_bytes() for file in files[8:]}
    source = tmp_path / f"month.{kind}"
    tar_of(source, {**days, **loose, "readme.txt": b"text"}, mode)
    report = converted(source, tmp_path / "out.zarr")
    assert (report.frames, report.unreadable) == (12, [])
    np.testing.assert_allclose(values_of(tmp_path / "out.zarr")["rainfall_rate"].values, expected(values), atol=1e-6)


def test_members_that_would_break_out_are_not_written(tmp_path: Path) -> None:
    knmi_folder(tmp_path / "in", raw(2), START)
    first, second = sorted((tmp_path / "in").iterdir())
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as archive:
        archive.add(first, f"../../{first.name}")
        archive.add(second, f"/{second.name}")
        link = tarfile.TarInfo("RAD_NL25_link.h5")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        device = tarfile.TarInfo("RAD_NL25_device.h5")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    report = converted(source, tmp_path / "out.zarr")
    assert (report.frames, report.unreadable) == (2, []), "plain files by their bare name, nothing else"
    assert not list(tmp_path.parent.glob("RAD*"))


def test_damage_is_listed_and_the_rest_convert(tmp_path: Path) -> None:
    values = raw(6)
    knmi_folder(tmp_path / "in", values, START)
    files = sorted((tmp_path / "in").iterdir())
    files[1].write_bytes(b"")
    files[3].write_bytes(files[3].read_bytes()[:700])
    knmi_file(tmp_path / "in", np.zeros((5, 5), np.uint16), START + 3600)
    (tmp_path / "in/copy").mkdir()
    (tmp_path / "in/copy" / files[0].name).write_bytes(files[0].read_bytes())
    (tmp_path / "in/broken.tar.gz").write_bytes(b"\x1f\x8b nonsense")
    report = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert report.frames == 4
    problems = {Path(label).name: problem for label, problem in report.unreadable}
    assert set(problems) == {files[1].name, files[3].name, "RAD_NL25_RAP_5min_201008260200.h5", "broken.tar.gz"}
    assert "most are (1, 6, 8)" in problems["RAD_NL25_RAP_5min_201008260200.h5"]
    assert "archive is damaged" in problems["broken.tar.gz"]
    assert len(report.doubled) == 1
    for part in ("4 frames", "4 not readable:", "1 left out, another frame has their time:", files[1].name):
        assert part in report.text()
    data = values_of(tmp_path / "out.zarr")
    np.testing.assert_allclose(data["rainfall_rate"].values, expected(values[[0, 2, 4, 5]]), atol=1e-6)
    assert (np.diff(data.time.values) > np.timedelta64(0)).all()
    assert converted(tmp_path / "in", tmp_path / "out.zarr").unreadable == report.unreadable, "told again"


def test_a_damaged_first_file_hides_no_others(tmp_path: Path) -> None:
    values = raw(4)
    knmi_folder(tmp_path / "in", values, START)
    first = sorted((tmp_path / "in").iterdir())[0]
    first.write_bytes(first.read_bytes()[:700])
    report = converted(tmp_path / "in", tmp_path / "out.zarr")
    assert (report.frames, [Path(label).name for label, _ in report.unreadable]) == (3, [first.name])
    np.testing.assert_allclose(
        values_of(tmp_path / "out.zarr")["rainfall_rate"].values, expected(values[1:]), atol=1e-6
    )


def test_in_parallel(tmp_path: Path) -> None:
    values = raw(40)
    knmi_folder(tmp_path / "in", values, START)
    report = converted(tmp_path / "in", tmp_path / "out.zarr", workers=2)
    assert (report.frames, report.written) == (40, 3)
    np.testing.assert_allclose(values_of(tmp_path / "out.zarr")["rainfall_rate"].values, expected(values), atol=1e-6)


def test_odim_and_a_single_file(tmp_path: Path) -> None:
    path = odim_file(tmp_path / "rate.hdf5", np.arange(48, dtype=np.uint16).reshape(6, 8))
    assert converted(path, tmp_path / "out.zarr").frames == 1


@pytest.mark.parametrize("name", ["array.npy", "video.avi", "pictures", "rain.nc", "rain.zarr"])
def test_anything_readable(tmp_path: Path, name: str) -> None:
    frames, rain = pixels(20), rain_dataset(20)
    source = tmp_path / name
    if name == "array.npy":
        np.save(source, frames)
    elif name == "video.avi":
        video_file(source, frames)
    elif name == "pictures":
        png_folder(source, frames)
    elif name == "rain.nc":
        rain.to_netcdf(source, engine="h5netcdf")
    else:
        rain.to_zarr(source, consolidated=False)
    report = converted(source, tmp_path / "out.zarr")
    data = values_of(tmp_path / "out.zarr")
    assert report.frames == 20
    if name.startswith("rain"):
        np.testing.assert_allclose(data["rainfall_rate"].values, rain["rainfall_rate"].values, atol=0.0051)
        assert np.array_equal(data.time.values, rain.time.values)
        assert np.array_equal(data.y.values, rain.y.values)
        assert data.y.attrs["standard_name"] == "projection_y_coordinate"
        return
    np.testing.assert_allclose(data["frames"].values, frames / 255, atol=1e-7)
    assert "time" not in data.coords
    clip = fc.data(tmp_path / "out.zarr", context=2, horizon=2)["train"][0]["frames"]
    np.testing.assert_allclose(clip[:, 0], frames[:4] / 255, atol=1e-7)


def test_channels_and_other_units(tmp_path: Path) -> None:
    winds = np.random.default_rng(0).normal(0, 30, (12, 2, 6, 8)).astype(np.float32)
    winds[3, 1, 2, 2] = np.nan
    dataset = xr.Dataset({"wind": (("time", "channel", "y", "x"), winds, {"units": "m/s"})})
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    report = converted(tmp_path / "a.nc", tmp_path / "out.zarr")
    found = values_of(tmp_path / "out.zarr")["frames"]
    assert found.dims == ("time", "channel", "y", "x")
    np.testing.assert_allclose(found.values, winds, atol=report.step / 2 * 1.001)
    assert report.step == pytest.approx((np.nanmax(winds) - np.nanmin(winds)) / 65534)


def test_what_does_not_fit_is_cut_and_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([0, 5, 700_000.0]).repeat(16).reshape(3, 4, 4))
    report = converted(tmp_path / "a.npy", tmp_path / "out.zarr", scale_factor=1.0)
    assert report.cut == 16
    assert "16 values were cut" in report.text()
    assert values_of(tmp_path / "out.zarr")["frames"].max() == 65534, "and is not taken for no data"
    np.save(tmp_path / "b.npy", np.full((3, 4, 4), 7.0))
    assert converted(tmp_path / "b.npy", tmp_path / "b.zarr").cut == 0
    assert (values_of(tmp_path / "b.zarr")["frames"] == 7).all()


def test_nothing_to_convert(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nothing at"):
        converted(tmp_path / "nowhere", tmp_path / "out.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetNotFoundError, match="nothing that is read"):
        converted(tmp_path / "empty", tmp_path / "out.zarr")
    (tmp_path / "bad.tar").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"nothing to convert: .*bad\.tar: the archive is damaged"):
        converted(tmp_path / "bad.tar", tmp_path / "out.zarr")
    tar_of(tmp_path / "none.tar", {"readme.txt": b"text"})
    with pytest.raises(DataError, match="nothing to convert: no file has a reader"):
        converted(tmp_path / "none.tar", tmp_path / "out.zarr")
    for number in range(2):
        video_file(tmp_path / f"clips/{number}.avi", moving_bar(5))
    with pytest.raises(DataError, match="several sequences without time stamps"):
        converted(tmp_path / "clips", tmp_path / "out.zarr")
    with pytest.raises(ValueError, match="workers is 0"):
        converted(tmp_path / "clips", tmp_path / "out.zarr", workers=0)


def test_frames_that_cannot_be_read_within_a_file(tmp_path: Path) -> None:
    frames = pixels(20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, 6, 8), fletcher32=True)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[content.find(frames[5].tobytes())] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    report = converted(tmp_path / "a.h5", tmp_path / "out.zarr")
    assert report.frames == 19
    assert [label.split(", ")[-1] for label, _ in report.unreadable] == ["frame 5"]


@pytest.mark.parametrize("package", ["dask", "zarr", "h5netcdf"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    knmi_folder(tmp_path / "in", raw(2), START)
    rain_dataset(8).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs {package}.*framecast\[geo\]"):
        converted(tmp_path / ("a.nc" if package == "h5netcdf" else "in"), tmp_path / "out.zarr")


def test_progress_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    knmi_folder(tmp_path / "in", raw(20), START)
    converted(tmp_path / "in", tmp_path / "out.zarr", progress=True)
    assert "2/2" in capsys.readouterr().err
    kept = json.loads((tmp_path / "out.zarr/zarr.json").read_bytes())["attributes"]["framecast_conversion"]
    assert kept["frames"] == 20
