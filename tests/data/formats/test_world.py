"""Real files of weather archives of the world, against pysteps' own importers; they are read, never copied."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import framecast as fc
from framecast.data.catalogue import describe_data, open_parts
from framecast.data.georeference import same_crs
from framecast.data.joined import JoinedSource
from framecast.data.sources import ReadOptions
from framecast.errors import DataError, UnknownNameError

ARCHIVES = ("bom-c10", "bom-cscn", "fmi-geotiff", "fmi-pgm", "mch-gif", "mrms-grib2", "opera-2018", "opera-cirrus",
            "opera-nimbus", "rmi-odim")  # fmt: skip
FIRST = {
    "bom-c10": "2020-10-31T00:00", "bom-cscn": "2018-06-16T10:00", "fmi-geotiff": "2017-05-09T10:45",
    "fmi-pgm": "2016-09-28T14:45", "mch-gif": "2015-05-15T15:45", "mrms-grib2": "2019-06-10T00:00",
    "opera-2018": "2018-08-24T18:00", "opera-cirrus": "2024-11-26T01:00", "opera-nimbus": "2024-11-26T01:00",
    "rmi-odim": "2021-07-04T15:50",
}  # fmt: skip
STEPS = {"bom-c10": 600, "bom-cscn": 360, "mrms-grib2": 120, "opera-2018": 900}
UNITS = {"bom-c10": "mm", "bom-cscn": "mm", "fmi-geotiff": "dBZ", "fmi-pgm": "dBZ", "mch-gif": "mm"}


@pytest.fixture(scope="module")
def importers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pysteps.io.importers")


def opened(shared: Path, name: str) -> JoinedSource:
    product = "RATE" if name == "opera-nimbus" else None
    return JoinedSource(open_parts(shared / "data/world" / name, ReadOptions(product=product)))


@pytest.mark.parametrize("name", ARCHIVES)
def test_units_times_and_place(shared: Path, importers: Any, name: str) -> None:
    source = opened(shared, name)
    assert source.unit == UNITS.get(name, "mm/h")
    assert source.times is not None
    assert source.times[0] == np.datetime64(FIRST[name], "s").astype(np.int64)
    assert set(np.diff(source.times).tolist()) <= {STEPS.get(name, 300)}
    assert source.georeference is not None
    assert source.georeference.size == source.shape[1:]
    assert source.georeference.north_up
    source.close()


ORACLES: dict[str, tuple[str, dict[str, Any]]] = {
    "bom-c10": ("bom_rf3", {}),
    "bom-cscn": ("bom_rf3", {}),
    "fmi-pgm": ("fmi_pgm", {"gzipped": True}),
    "mch-gif": ("mch_gif", {"product": "AQC", "unit": "mm", "accutime": 5.0}),
    "opera-2018": ("opera_hdf5", {}),
    "opera-nimbus": ("odim_hdf5", {}),
    "rmi-odim": ("odim_hdf5", {}),
}


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_values_and_corners_are_those_of_pysteps(shared: Path, importers: Any, name: str) -> None:
    source, (importer, options) = opened(shared, name), ORACLES[name]
    files = sorted((shared / "data/world" / name).iterdir())[: source.count]
    for number, file in enumerate(files[:2]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected, _, facts = getattr(importers, f"import_{importer}")(str(file), **options)
        found = source.read(np.array([number]))[0, 0]
        assert np.array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        place = source.georeference
        assert place is not None
        assert same_crs(place.crs, facts["projection"]) or name.startswith("bom"), "BoM's is rounded by pysteps"
        # pysteps takes the middle of the outermost pixels of BoM's maps for their corner where no bounds are given.
        slack = 500 if name == "bom-cscn" else 1
        assert place.corner() == pytest.approx((facts["x1"], facts["y2"]), abs=slack if name != "bom-c10" else 251)


def test_reflectivity_is_turned_into_rain_by_name(shared: Path, importers: Any) -> None:
    source = opened(shared, "opera-cirrus")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = next((shared / "data/world/opera-cirrus").iterdir())
        dbz, _, _ = importers.import_odim_hdf5(str(path), qty="DBZH")
    rain = source.read(np.array([0]))[0, 0]
    strong = np.isfinite(rain) & (dbz > 20) & (dbz < 60)
    np.testing.assert_allclose(10 * np.log10(256 * rain[strong] ** 1.42), dbz[strong], atol=1e-3)
    assert source.product == "DBZH"


def test_geotiff_and_grib_by_their_tags(shared: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    source, folder = opened(shared, "fmi-geotiff"), shared / "data/world/fmi-geotiff"
    with rasterio.open(sorted(folder.iterdir())[0]) as file:
        stored = file.read(1)
        assert source.georeference is not None
        assert source.georeference.corner() == pytest.approx((file.transform.c, file.transform.f), abs=1e-3)
    expected = np.where(stored == 255, np.nan, 0.5 * stored - 32).astype("f4")
    np.testing.assert_array_equal(source.read(np.array([0]))[0, 0], expected)
    source, folder = opened(shared, "mrms-grib2"), shared / "data/world/mrms-grib2"
    with rasterio.open(sorted(folder.iterdir())[1]) as file:
        stored = file.read(1)
    np.testing.assert_array_equal(source.read(np.array([1]))[0, 0], np.where(stored < 0, np.nan, stored).astype("f4"))


def test_two_products_in_a_folder_are_told_apart(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/world/opera-nimbus"
    with pytest.raises(DataError, match=r"2 products.*ACRR 3600 s \(T_PASH22.*RATE \(T_PAAH22.*product="):
        describe_data(folder)
    with pytest.raises(DataError, match="2 products"):
        fc.convert(folder, tmp_path / "a.zarr", workers=1, progress=False)
    hourly = JoinedSource(open_parts(folder, ReadOptions(product="ACRR")))
    assert hourly.product == "ACRR 3600 s"
    with pytest.raises(DataError, match="has no product 'RAIN'"):
        open_parts(folder, ReadOptions(product="RAIN"))


def test_info_says_when_and_where(shared: Path, importers: Any) -> None:
    words = describe_data(shared / "data/world/bom-c10", context=1, horizon=1)
    for part in ("1 x 512x512 in units of mm", "10 min apart", "2020-10-31 00:00", "500 x 500 m"):
        assert part in words, words


def test_any_importer_of_pysteps_by_name(shared: Path, importers: Any) -> None:
    folder = shared / "data/world/bom-c10"
    ours, theirs = (
        JoinedSource(open_parts(folder, ReadOptions(reader=reader, time=time)))
        for reader, time in ((None, None), ("pysteps:bom_rf3", "66_%Y%m%d_%H%M%S"))
    )
    assert np.array_equal(ours.times, theirs.times)
    np.testing.assert_allclose(ours.read(np.arange(2)), theirs.read(np.arange(2)), atol=1e-6)
    with pytest.raises((UnknownNameError, DataError), match="importer of pysteps"):
        open_parts(folder, ReadOptions(reader="pysteps:bom_rf9"))


def test_a_product_is_chosen_in_folders_of_every_format(shared: Path, importers: Any) -> None:
    assert JoinedSource(open_parts(shared / "data/world/mch-gif", ReadOptions(product="AQC"))).count == 4
    with pytest.raises(DataError, match="has no product 'RZC': it has AQC over 5 min"):
        open_parts(shared / "data/world/mch-gif", ReadOptions(product="RZC"))
