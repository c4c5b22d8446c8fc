"""What a stored number means, for every reader: limits, fills, signs and scales as netCDF4-python reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import xarray
import zarr

import framecast as fc
from framecast.data.catalogue import open_parts
from framecast.data.joined import JoinedSource
from framecast.data.packing import packing_from_attributes
from framecast.data.sources import ReadOptions
from framecast.errors import DataError

COUNT = 30


def frames_of(path: Path, **options: Any) -> Any:
    source = JoinedSource(open_parts(path, ReadOptions(**options)))
    return source.read(np.arange(source.count))[:, 0]


def netcdf(path: Path, stored: Any, fill: Any = None, form: str = "NETCDF4", **attributes: Any) -> Path:
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, size in (("time", len(stored)), ("y", stored.shape[1]), ("x", stored.shape[2])):
            file.createDimension(name, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "minutes since 2024-01-01"
        time[:] = 5 * np.arange(len(stored))
        variable = file.createVariable("v", stored.dtype, ("time", "y", "x"), fill_value=fill)
        variable.set_auto_maskandscale(False)
        for name, value in attributes.items():
            variable.setncattr(name, value)
        variable[:] = stored
    return path


def oracle(path: Path) -> Any:
    with netCDF4.Dataset(path) as file:
        return np.ma.filled(file["v"][:].astype(np.float64), np.nan)


SHORT = np.random.default_rng(0).integers(-32768, 32767, (COUNT, 6, 8)).astype("i2")


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
@pytest.mark.parametrize(
    ("fill", "attributes"),
    [
        (None, {}),
        (np.int16(-1), {"scale_factor": 0.01, "add_offset": 3.0}),
        (np.int16(-1), {"_Unsigned": "true", "scale_factor": 0.5}),
        (np.int16(-1), {"_Unsigned": "true", "valid_range": np.array([0, -6], "i2")}),
        (np.int16(-1), {"_Unsigned": "true", "valid_max": np.int16(-6)}),
        (None, {"valid_range": np.array([-5, 4000], "i2"), "scale_factor": 0.01}),
        (None, {"valid_min": np.int16(0)}),
        (None, {"missing_value": np.int16(7)}),
        (np.int16(5), {"missing_value": np.array([7, 8], "i2")}),
    ],
)
def test_as_netcdf4_python_reads_it(tmp_path: Path, form: str, fill: Any, attributes: Any) -> None:
    stored = SHORT.copy()
    stored[:, :2, :4] = [-1, 5, 7, -32767]
    path = netcdf(tmp_path / "a.nc", stored, fill, form, **attributes)
    np.testing.assert_allclose(frames_of(path, unit="K"), oracle(path), rtol=1e-6)


@pytest.mark.parametrize("suffix", ["nc", "h5"])
@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i4", "u2", "i1", "u1"])
def test_what_the_library_fills_in_is_no_data(tmp_path: Path, kind: str, suffix: str) -> None:
    stored = np.arange(COUNT * 48).reshape(COUNT, 6, 8).astype(kind)
    stored[3:5] = netCDF4.default_fillvals[kind]
    path = netcdf(tmp_path / f"a.{suffix}", stored)
    np.testing.assert_allclose(frames_of(path, unit="K"), oracle(path), rtol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "stored", "expected"),
    [
        ({"scale_factor": 0.01, "valid_range": np.array([0, 300], "f4")}, [-1, 0, 6188, 30000, 30001], [0, 1, 1, 1, 0]),
        ({"scale_factor": -0.5, "valid_min": np.float32(-10), "valid_max": np.float32(10)}, [-21, -20, 20, 21],
         [0, 1, 1, 0]),
        ({"scale_factor": 0.01, "valid_range": np.array([0, 300], "i2")}, [-1, 0, 300, 301], [0, 1, 1, 0]),
    ],
)  # fmt: skip
def test_limits_of_a_floating_type_are_physical(attributes: Any, stored: Any, expected: Any) -> None:
    numbers = np.array(stored, "i2")
    packing = packing_from_attributes(attributes, numbers.dtype, None, "the file")
    assert np.isfinite(packing.unpack(numbers)).tolist() == [bool(valid) for valid in expected]


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(DataError, match=r"no number would be valid.*_Unsigned"):
        packing_from_attributes({"valid_range": np.array([0, -6], "i2")}, np.int16, None, "the file")


@pytest.mark.parametrize("kind", ["f4", "i2", "u1"])
@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("fill", [0, 9])
@pytest.mark.parametrize("named", [True, False])
def test_zarr_s_fill_value_of_zero_is_dry(tmp_path: Path, kind: str, form: Any, fill: int, named: bool) -> None:
    """Only another number than 0 in format 2, where xarray keeps ``_FillValue`` there, means no data."""
    rain = np.random.default_rng(0).integers(0, 3, (COUNT, 6, 8)).astype(kind)
    rain[2, 2] = fill
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=form)
    names = {"dimension_names": ["time", "y", "x"]} if form == 3 and named else {}
    array = group.create_array("rain", shape=rain.shape, chunks=(1, 6, 8), dtype=kind, fill_value=fill, **names)
    array[:] = rain
    array.attrs["units"] = "K"
    if form == 2 and named:
        array.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"]
    expected = np.where((rain == fill) & (form == 2) & (fill != 0), np.nan, rain)
    np.testing.assert_array_equal(frames_of(tmp_path / "a.zarr"), expected)


def test_zarr_written_by_xarray_keeps_its_mask(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).gamma(0.5, 3, (COUNT, 6, 8)).astype("f4").round(1)
    rain[3, 2:4] = np.nan
    data = xarray.Dataset({"rain": (("time", "y", "x"), rain, {"units": "mm h-1"})})
    packed = {"rain": {"dtype": "i2", "scale_factor": 0.1, "_FillValue": -1}}
    for form in (2, 3):
        data.to_zarr(tmp_path / f"{form}.zarr", zarr_format=form, encoding=packed, consolidated=False)
        np.testing.assert_allclose(frames_of(tmp_path / f"{form}.zarr"), rain, atol=1e-4)


def test_hdf5_fills_that_someone_declared_are_no_data(tmp_path: Path) -> None:
    stored = np.ones((COUNT, 6, 8), "f4")
    stored[4] = -9999
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=stored, fillvalue=-9999.0)
    assert np.isnan(frames_of(tmp_path / "a.h5")).all((1, 2)).nonzero()[0].tolist() == [4]


@pytest.mark.parametrize("unit", ["mm h-1", "K", "1"])
@pytest.mark.parametrize("scaling", ["auto", {"kind": "min-max", "low": 0, "high": 1}])
def test_no_data_at_all_is_refused_for_every_scaling(tmp_path: Path, unit: str, scaling: Any) -> None:
    data = xarray.Dataset({"v": (("time", "y", "x"), np.full((COUNT, 6, 8), np.nan, "f4"), {"units": unit})})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="no data at all"):
        fc.data(tmp_path / "a.nc", context=2, horizon=2, scaling=scaling)


@pytest.mark.parametrize("place", range(0, 21, 4))
@pytest.mark.parametrize("count", [21, 30])
def test_a_single_frame_with_data_is_enough(tmp_path: Path, place: int, count: int) -> None:
    frames = np.full((count, 6, 8), np.nan, "f4")
    frames[min(place, round(0.7 * count) - 1), 2, 3] = 5
    np.save(tmp_path / "a.npy", frames)
    assert len(fc.data(tmp_path / "a.npy", context=2, horizon=2, unit="mm/h")["train"])


def test_streaming_refuses_what_is_no_tensor() -> None:
    model = fc.create_model("convlstm", hidden=2, layers=1)
    masked = np.ma.masked_array(np.zeros((1, 2, 1, 8, 8), "f4"), True)
    with pytest.raises(ValueError, match=r"MaskedArray and the model needs a tensor.*fc\.predict"):
        model.observe(masked)


def test_masked_arrays_stay_masked(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).gamma(0.5, 3, (COUNT, 8, 8)).astype("f4")
    rain[:, :2] = np.nan
    masked = np.ma.masked_array(np.where(np.isnan(rain), 120, rain), np.isnan(rain))
    options = {"context": 2, "horizon": 2, "unit": "mm/h", "shares": (0.5, 0.25, 0.25)}
    valid = fc.data(masked, **options)["train"][0]["valid"]
    assert valid.equal(fc.data(rain, **options)["train"][0]["valid"])
    assert not valid[:, :, :2].any()
    run = fc.train("convlstm", masked, out=tmp_path / "run", steps=1, batch=2, progress=False,
                   model_options={"hidden": 2, "layers": 1}, data_options=options)  # fmt: skip
    np.testing.assert_array_equal(fc.predict(run.path, masked[:2]), fc.predict(run.path, rain[:2]))


def test_check_and_convert_find_what_cannot_be(tmp_path: Path) -> None:
    field = 280 + 20 * np.random.default_rng(0).random((COUNT, 8, 8))
    strange = {
        "fill": (np.where(np.arange(COUNT)[:, None, None] == 3, 1e30, field), "K", "1e\\+30"),
        "unit": (np.full_like(field, 7200) + field, "mm h-1", "cannot be|can be"),
        "dead": (np.where(np.arange(COUNT)[:, None, None] == COUNT - 1, 0.0, field), "K", "last frame"),
    }
    for name, (values, unit, message) in strange.items():
        path = tmp_path / f"{name}.nc"
        data = xarray.Dataset({"v": (("time", "y", "x"), values.astype("f4"), {"units": unit})})
        data.to_netcdf(path, engine="h5netcdf")
        report = fc.check(path, context=2, horizon=2, scaling={"kind": "min-max", "low": 0, "high": 1})
        assert any(re.search(message, finding.text) for finding in report.findings), report.text()
        if name != "dead":
            with pytest.raises(DataError, match="nodata="):
                fc.convert(path, tmp_path / f"{name}.zarr", workers=1, progress=False)
