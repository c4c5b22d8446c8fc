"""Where a frame is: read from every format, kept by crops, compared between files, written with every forecast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import xarray

import framecast as fc
from framecast.data.catalogue import open_parts
from framecast.data.georeference import Georeference, from_corner, georeference_from_dict, same_crs
from framecast.data.grid import Grid
from framecast.data.radar import radar_header
from framecast.data.scaling import MinMax
from framecast.data.sources import ReadOptions
from framecast.errors import DataError

SHORT: dict[str, Any] = {"context": 2, "horizon": 2}
STEREO = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +units=m"
SIDE = 12


def dataset(count: int = 24, start: int = 0, *, projected: bool = False, shift: float = 0) -> Any:
    """Return frames whose every value is the coordinate of its row."""
    rows = np.linspace(59, 48, SIDE) + shift
    y, x = (rows * 1000, np.arange(SIDE) * 1000.0) if projected else (rows, np.linspace(5, 16, SIDE))
    names = ("projection_y_coordinate", "projection_x_coordinate") if projected else ("latitude", "longitude")
    units = ("m", "m") if projected else ("degrees_north", "degrees_east")
    values = np.broadcast_to(rows[:, None], (count, SIDE, SIDE)).astype("f4")
    coordinates: dict[str, Any] = {
        "time": ("time", start + np.arange(count), {"units": "hours since 2024-01-01"}),
        "y": ("y", y, {"standard_name": names[0], "units": units[0]}),
        "x": ("x", x, {"standard_name": names[1], "units": units[1]}),
    }
    data = xarray.Dataset({"v": (("time", "y", "x"), values, {"units": "K"})}, coordinates)
    if projected:
        data["v"].attrs["grid_mapping"] = "crs"
        data["crs"] = ((), np.int32(0), pyproj.CRS(STEREO).to_cf())
    return data


def turned(data: Any) -> Any:
    return data.isel(y=slice(None, None, -1))


def folder_of(path: Path, *days: Any) -> Path:
    path.mkdir()
    for number, day in enumerate(days):
        day.to_netcdf(path / f"{number}.nc", engine="h5netcdf")
    return path


def test_a_place_survives_a_file_and_finds_differences() -> None:
    place = from_corner((-523_462.0, -3_758_645.0), (1000.0, 1000.0), (900, 900), STEREO)
    assert georeference_from_dict(place.to_dict()) == place
    assert georeference_from_dict(place.turned().to_dict()) == place.turned()
    assert place.corner() == pytest.approx((-523_462.0, -3_758_645.0))
    assert not place.differs(Georeference(place.y + 20, place.x, pyproj.CRS(STEREO).to_wkt()))
    assert "y from" in place.differs(Georeference(place.y + 100, place.x, STEREO))
    assert "y from" in place.differs(place.turned())
    assert "projections" in place.differs(Georeference(place.y, place.x, STEREO.replace("lon_0=10", "lon_0=0")))
    assert "pixels" in place.differs(place.on(Grid((0, 100, 0, 900))))
    assert same_crs(STEREO, pyproj.CRS.from_cf(pyproj.CRS(STEREO).to_cf()).to_wkt())


@pytest.mark.parametrize("method", ["decimate", "mean"])
def test_a_crop_and_a_coarser_grid_carry_the_place(method: Any) -> None:
    """The coordinate of a pixel is what the same grid makes of a field of coordinates."""
    place = from_corner((0.0, 40_000.0), (1000.0, 1000.0), (40, 40), STEREO)
    grid = Grid((4, 34, 6, 36), (10, 10), method)
    field = np.broadcast_to(place.y[:, None], (1, 1, 40, 40)).astype("f4")
    np.testing.assert_allclose(place.on(grid).y, grid.apply(field, MinMax())[0, 0, :, 0])


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_coordinates_are_read_and_converted(tmp_path: Path, suffix: str, projected: bool) -> None:
    data, path = dataset(projected=projected), tmp_path / f"a.{suffix}"
    if suffix == "nc":
        data.to_netcdf(path, engine="h5netcdf")
    else:
        data.to_zarr(path, consolidated=False)
    place = fc.data(path, **SHORT).spec.georeference
    assert place is not None
    np.testing.assert_allclose(place.y, data.y.values)
    assert same_crs(place.crs, STEREO if projected else "EPSG:4326")
    fc.convert(path, tmp_path / "made.zarr", workers=1, progress=False)
    made = fc.data(tmp_path / "made.zarr", **SHORT).spec.georeference
    assert made is not None
    assert not made.differs(place)


def test_turned_files_are_turned_and_other_places_refused(tmp_path: Path) -> None:
    days = [dataset(start=24 * day) for day in range(3)]
    folder = folder_of(tmp_path / "turned", days[0], turned(days[1]), days[2])
    data = fc.data(folder, **SHORT)
    source = data["train"].source
    assert (source.read(np.arange(72))[:, 0, 0, 0] == 59).all()
    assert any("are turned" in note and "1.nc" in note for note in data.notes)
    with pytest.raises(DataError, match=r"1\.nc.* is elsewhere than .*0\.nc.*y from 50 to 39 and from 59 to 48"):
        fc.data(folder_of(tmp_path / "other", days[0], dataset(start=24, shift=-9), days[2]), **SHORT)
    report = fc.convert(folder, tmp_path / "made.zarr", workers=1, progress=False)
    assert report.unreadable == []
    converted = fc.data(tmp_path / "made.zarr", **SHORT)["train"].source
    np.testing.assert_allclose(converted.read(np.arange(72))[:, 0, 0, 0], 59, atol=0.01)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places")
    for name, projected in (("degrees", False), ("metres", True)):
        data = dataset(60, projected=projected)
        data["v"] = data.v + np.random.default_rng(0).random(data.v.shape).astype("f4")
        data.v.attrs.update(units="K", **({"grid_mapping": "crs"} if projected else {}))
        data.to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
        fc.train("convlstm", folder / f"{name}.nc", out=folder / name, steps=2, batch=2, progress=False,
                 model_options={"hidden": 2, "layers": 1}, data_options={**SHORT, "crop": [2, 10, 3, 11]})  # fmt: skip
    return folder


def test_what_predict_and_evaluate_get_is_compared_with_the_training(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = xarray.open_dataset(run / "degrees.nc", engine="h5netcdf", decode_times=False)
    turned(data).to_netcdf(tmp_path / "turned.nc", engine="h5netcdf")
    data.assign_coords(y=data.y - 9).to_netcdf(tmp_path / "south.nc", engine="h5netcdf")
    expected = fc.predict(run / "degrees", run / "degrees.nc")
    # The crop counts rows from the other end there.
    options = {**SHORT, "crop": [2, 10, 3, 11]}
    assert np.array_equal(fc.predict(run / "degrees", tmp_path / "turned.nc"), expected)
    assert "are turned" in caplog.text
    with pytest.raises(DataError, match=r"south\.nc.* is elsewhere than what the model was trained on"):
        fc.predict(run / "degrees", tmp_path / "south.nc")
    ours = fc.evaluate(run / "degrees", out=tmp_path / "a", progress=False)
    theirs = fc.evaluate(run / "degrees", data=tmp_path / "turned.nc", data_options=options, out=tmp_path / "b",
                         progress=False)  # fmt: skip
    errors = [side["forecasts"]["convlstm"]["mean"]["mse"] for side in (ours, theirs)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-5)
    caplog.clear()
    fc.evaluate(run / "degrees", data=tmp_path / "south.nc", data_options=options, out=tmp_path / "c", progress=False)
    assert "is elsewhere than what the model was trained on" in caplog.text


@pytest.mark.parametrize("name", ["degrees", "metres"])
def test_forecasts_say_when_and_where(run: Path, tmp_path: Path, name: str) -> None:
    rasterio = pytest.importorskip("rasterio")
    forecast = fc.predict(run / name, run / f"{name}.nc", out=tmp_path)
    with xarray.open_dataset(tmp_path / "forecast.nc", engine="h5netcdf") as written:
        source = xarray.open_dataset(run / f"{name}.nc", engine="h5netcdf")
        np.testing.assert_allclose(written.y, source.y[2:10])
        np.testing.assert_allclose(written.x, source.x[3:11])
        assert written.forecast_reference_time.values == source.time.values[-1]
        assert (written.time.values > source.time.values[-1]).all()
        assert written[written["forecast"].attrs["grid_mapping"]].attrs["grid_mapping_name"]
    down, across = (abs(float(source[axis][1] - source[axis][0])) for axis in "yx")
    corner = float(source.x[3]) - across / 2, float(source.y[2]) + down / 2
    for path in (str(tmp_path / "forecast.tif"), f"netcdf:{tmp_path / 'forecast.nc'}:forecast"):
        with rasterio.open(path) as file:
            assert (file.transform.c, file.transform.f) == pytest.approx(corner, abs=1e-6 if name == "degrees" else 0.5)
            assert same_crs(file.crs.to_wkt(), STEREO if name == "metres" else "EPSG:4326")
            np.testing.assert_allclose(file.read(1), forecast[0, 0, 0], rtol=1e-5)
            assert file.units == ("K", "K")


@pytest.mark.parametrize("name", ["degrees", "metres"])
def test_forecasts_pass_a_checker_of_the_cf_conventions(run: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("compliance_checker")
    fc.predict(run / name, run / f"{name}.nc", out=tmp_path)
    script = Path(sys.executable).with_name("compliance-checker")
    done = subprocess.run(
        [script, "--test", "cf:1.11", tmp_path / "forecast.nc"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "Errors" not in done.stdout, done.stdout


def test_the_places_of_real_radar_files(shared: Path) -> None:
    """KNMI and the German files tell their corners in degrees too."""
    for folder, name, corners in (
        ("knmi", "RAD_NL25_RAP_5min_201008260000.h5", {(0, 0): (0.0, 55.974), (-1, -1): (9.009, 48.895)}),
        ("dwd", "raa01-rw_10000-latest-dwd---bin.hdf5", {(0, 0): (1.46330151, 55.86208711), (-1, -1): (16.58, 45.68)}),
    ):
        paths = sorted((shared / "data" / folder).rglob(name)) or sorted((shared / "data" / folder).rglob("*.h5"))
        place = radar_header(paths[0]).georeference
        assert place is not None
        to_degrees = pyproj.Transformer.from_crs(place.crs, "EPSG:4326", always_xy=True)
        for (row, column), expected in corners.items():
            half = [pixel / 2 for pixel in place.pixel]
            x = place.x[column] + (half[1] if column else -half[1])
            y = place.y[row] - (half[0] if row else -half[0])
            assert to_degrees.transform(x, y) == pytest.approx(expected, abs=0.02), (name, row)


def test_coordinates_of_two_axes_are_told_not_to_be_kept(tmp_path: Path) -> None:
    y, x = np.meshgrid(np.linspace(50, 55, 6), np.linspace(5, 10, 8), indexing="ij")
    places = {"XLAT": (("south_north", "west_east"), y, {"units": "degrees_north"}),
              "XLONG": (("south_north", "west_east"), x, {"units": "degrees_east"})}  # fmt: skip
    frames = ("Time", "south_north", "west_east"), np.random.default_rng(0).random((4, 6, 8))
    xarray.Dataset({"rain": frames}, coords=places).to_netcdf(tmp_path / "wrf.nc")
    source = open_parts(tmp_path / "wrf.nc", ReadOptions())[0]
    assert source.georeference is None
    assert any("XLAT, XLONG" in note and "not compared" in note for note in source.notes)
