"""Readers of radar files in HDF5: literal values of miniature files, the real files, and every kind of damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from samples.radar import knmi_file, odim_file, rydl_file, seconds

from framecast.data.formats.knmi import knmi_header, read_knmi
from framecast.data.formats.odim import odim_header, read_odim
from framecast.data.sets.german_radar import RydlSource
from framecast.errors import DataError, DatasetNotFoundError

NAN = np.nan


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# ---- ODIM


@pytest.mark.parametrize("where", ["data", "dataset"])
@pytest.mark.parametrize("text", [False, True])
def test_odim_by_hand(tmp_path: Path, where: str, text: bool) -> None:
    pixels = np.array([[0, 5, 65535], [20, 50, 1]], np.uint16)
    path = odim_file(tmp_path / "a.hdf5", pixels, where=where, text=text)
    frame = read_odim(path)
    np.testing.assert_allclose(frame.values, [[[0, 0.5, NAN], [2, 5, 0.1]]], rtol=1e-6)
    assert (
        (frame.header.time, frame.header.unit)
        == (seconds("2025-09-22T05:40"), "mm/h")
        == (odim_header(path).time, "mm/h")
    )


def test_odim_quantities(tmp_path: Path) -> None:
    pixels = np.array([[0, 6]], np.uint16)
    quarter = odim_file(tmp_path / "a.h5", pixels, start="20250922 0530")
    assert read_odim(quarter).values[0, 0, 1] == pytest.approx(0.6 * 6)
    rate = odim_file(tmp_path / "b.h5", pixels, quantity="RATE", start="20250922 0540")
    assert read_odim(rate).values[0, 0, 1] == pytest.approx(0.6)
    echo = odim_file(tmp_path / "c.h5", np.array([[0, 300]], np.uint16), quantity="DBZH")
    # 30 dBZ: (10^3 / 256)^(1 / 1.42)
    assert read_odim(echo).values[0, 0].tolist() == [0, pytest.approx((1000 / 256) ** (1 / 1.42), rel=1e-5)]
    opera = odim_file(tmp_path / "d.h5", np.array([[-9999000, 1.5]], np.float32), quantity="RATE", gain=1,
                      nodata=-9999000)  # fmt: skip
    assert np.isnan(read_odim(opera).values[0, 0, 0])


def test_damaged_odim_files(tmp_path: Path) -> None:
    pixels = np.zeros((2, 3), np.uint16)
    with pytest.raises(DataError, match="holds VRAD and rain is read from RATE"):
        read_odim(odim_file(tmp_path / "a.h5", pixels, quantity="VRAD"))
    with pytest.raises(DataError, match=r"adds up rain over 0 s"):
        read_odim(odim_file(tmp_path / "b.h5", pixels, start="20250922 0540"))
    with pytest.raises(DataError, match=r"20251322.*should be YYYYMMDDHHMMSS"):
        read_odim(odim_file(tmp_path / "c.h5", pixels, end="20251322 0540"))
    with pytest.raises(DataError, match=r"where a map \(rows, columns\)"):
        read_odim(odim_file(tmp_path / "d.h5", pixels[0]))
    with pytest.raises(DataError, match="not an ODIM HDF5 composite"):
        read_odim(odim_file(tmp_path / "e.h5", pixels), dataset="dataset2")
    path = odim_file(tmp_path / "f.h5", pixels)
    with h5py.File(path, "a") as file:
        del file["dataset1/data1/what"].attrs["gain"]
    assert np.array_equal(read_odim(path).values, np.zeros((1, 2, 3))), "gain is 1 where it is not given"
    with h5py.File(path, "a") as file:
        del file["dataset1/data1/what"].attrs["nodata"]
    with pytest.raises(DataError, match="lacks the attribute nodata, so that dry"):
        read_odim(path)
    with h5py.File(path, "a") as file:
        file["dataset1/data1/what"].attrs["nodata"] = file["dataset1/data1/what"].attrs["undetect"]
    with pytest.raises(DataError, match="as nodata and as undetect"):
        read_odim(path)
    with h5py.File(path, "a") as file:
        file["dataset1/data1/what"].attrs["nodata"] = 65535.0
    with h5py.File(path, "a") as file:
        file["dataset1/data1/what"].attrs["gain"] = b"much"
    with pytest.raises(DataError, match="gain = much, which is not a number"):
        read_odim(path)
    with h5py.File(path, "a") as file:
        file["dataset1/data1/what"].attrs["gain"] = [1.0, 2.0]
    with pytest.raises(DataError, match="2 values in the attribute gain"):
        read_odim(path)


def test_the_real_odim_file(shared: Path) -> None:
    frame = read_odim(shared / "data/dwd/raa01-rw_10000-latest-dwd---bin.hdf5")
    assert frame.values.shape == (1, 1200, 1100)
    assert frame.header.time == seconds("2025-09-22T05:40")
    assert np.nanmax(frame.values) == pytest.approx(15.8)
    assert np.isnan(frame.values).mean() == pytest.approx(0.4353, abs=1e-4)


# ---- KNMI


def test_knmi_by_hand(tmp_path: Path) -> None:
    when = seconds("2010-08-26T00:05")
    path = knmi_file(tmp_path, [[0, 100], [65535, 1]], when)
    frame = read_knmi(path)
    np.testing.assert_allclose(frame.values, [[[0, 12], [NAN, 0.12]]], rtol=1e-6)
    assert (frame.header.time, frame.header.unit) == (when, "mm/h") == (knmi_header(path).time, "mm/h")
    hourly = knmi_file(tmp_path / "hour", [[100]], when, minutes=60, formula=b"GEO=0.010000*PV+0.500000")
    assert read_knmi(hourly).values[0, 0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"formula": b"GEO=exp(PV)"}, r"calibration 'GEO=exp\(PV\)'"),
        ({"end": b"26-AOU-2010;00:05:00.000"}, "26-AOU-2010.*should be like"),
        ({"end": b"32-AUG-2010;00:05:00.000"}, "32-AUG-2010"),
        ({"end": b"25-AUG-2010;00:05:00.000"}, "which is not a time"),
    ],
)
def test_damaged_knmi_files(tmp_path: Path, facts: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_knmi(knmi_file(tmp_path, [[0]], seconds("2010-08-26T00:05"), **facts))


def test_the_real_knmi_files(shared: Path) -> None:
    path = shared / "data/knmi/RAD_NL25_RAP_5min_201008260100.h5"
    frame = read_knmi(path)
    assert frame.header.time == seconds("2010-08-26T01:00")
    with h5py.File(path) as file:
        pixels = file["image1/image_data"][()]
    np.testing.assert_allclose(frame.values[0], np.where(pixels == 65535, np.nan, pixels * 0.12), rtol=1e-6)


# ---- any HDF5


@pytest.mark.parametrize("read", [read_knmi, read_odim, knmi_header, odim_header], ids=lambda read: read.__name__)
def test_files_that_are_no_hdf5(tmp_path: Path, read: Any) -> None:
    with pytest.raises(DatasetNotFoundError, match="no file"):
        read(tmp_path / "nowhere.h5")
    for content in (b"", b"not HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 200):
        with pytest.raises(DataError, match="cannot be read as HDF5"):
            read(write(tmp_path / "a.h5", content))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(DataError, match="it is no"):
        read(tmp_path / "b.h5")


def test_cut_and_flipped_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    pixels = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    odim_file(path, pixels)
    with h5py.File(path, "a") as file:
        del file["dataset1/data1/data"]
        file.create_dataset("dataset1/data1/data", data=pixels, compression="gzip", fletcher32=True)
    whole = path.read_bytes()
    expected = read_odim(path).values
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        read_odim(write(path, whole[: len(whole) // 2]))
    generator = np.random.default_rng(0)
    caught = 0
    for position in generator.integers(len(whole) // 2, len(whole), 60):
        try:
            values = read_odim(write(path, whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :]))
        except DataError:
            caught += 1
        else:
            assert np.array_equal(values.values, expected, equal_nan=True)
    assert caught


# ---- RYDL


def test_rydl_by_hand(tmp_path: Path) -> None:
    maps = {"201606010005": [[0, 0.01], [1, -1]], "201606010000": [[NAN, np.inf], [0, 2]]}
    source = RydlSource(rydl_file(tmp_path / "RYDL.hdf5", maps))
    assert (source.count, source.shape) == (2, (1, 2, 2))
    assert source.times.tolist() == [seconds("2016-06-01T00:00"), seconds("2016-06-01T00:05")]
    expected = [[[[NAN, NAN], [0, 24]]], [[[0, 0.12], [12, NAN]]]]
    np.testing.assert_allclose(source.read(np.array([0, 1])), expected, rtol=1e-6)
    source.close()


def test_damaged_rydl(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"RYDL\.hdf5"):
        RydlSource(tmp_path / "RYDL.hdf5")
    for key, message in {"rain": "the key 'rain'", "201613010000": "not a time"}.items():
        with pytest.raises(DataError, match=message):
            RydlSource(rydl_file(tmp_path / f"{key}.hdf5", {key: [[0]]}))
    with pytest.raises(DataError, match="no keys"):
        RydlSource(rydl_file(tmp_path / "empty.hdf5", {}))
    whole = rydl_file(tmp_path / "cut.hdf5", {"201606010000": np.zeros((50, 50))})
    write(whole, whole.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut\.hdf5 cannot be read as HDF5"):
        RydlSource(whole)
    with pytest.raises(DataError, match=r"none\.hdf5 cannot be read as HDF5"):
        RydlSource(write(tmp_path / "none.hdf5", b""))
    mixed = RydlSource(rydl_file(tmp_path / "mixed.hdf5", {"201606010000": [[0]], "201606010005": [[0, 1]]}))
    with pytest.raises(DataError, match=r"201606010005 is \(1, 2\).*sizes are mixed"):
        mixed.read(np.array([1]))
