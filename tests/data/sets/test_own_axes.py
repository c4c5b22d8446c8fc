"""Axes of one's own arrays, NetCDF and Zarr files: named, by convention, or guessed; and their units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from samples.own import SHORT, lengths, pixels, rain_dataset, save, stamps, zarr_of

import framecast as fc
from framecast.data.sets.own import open_own
from framecast.errors import DataError


@pytest.mark.parametrize(
    ("shape", "axes", "guessed", "expected"),
    [
        ((20, 6, 8), None, "THW", (4, 1, 6, 8)),
        ((20, 3, 6, 8), None, "TCHW", (4, 3, 6, 8)),
        ((20, 6, 8, 3), None, "THWC", (4, 3, 6, 8)),
        ((12, 20, 6, 8), None, "NTHW", (4, 1, 6, 8)),
        ((12, 20, 2, 6, 8), None, "NTCHW", (4, 2, 6, 8)),
        ((12, 20, 6, 8, 2), None, "NTHWC", (4, 2, 6, 8)),
        ((6, 8, 20), "HWT", "", (4, 1, 6, 8)),
        ((20, 12, 1, 6, 8), "TNCHW", "", (4, 1, 6, 8)),
        ((3, 20, 8, 6), "CTWH", "", (4, 3, 6, 8)),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "h5"])
def test_axes(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None, guessed: str, expected: Any, suffix: str
) -> None:
    array = np.random.default_rng(0).random(shape)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        save(path, array)
    else:
        with h5py.File(path, "w") as file:
            file["frames"] = array
    data = open_own(path, axes=axes, scaling="none", **SHORT)
    frames = data["train"][0]["frames"].numpy()
    assert frames.shape == expected
    letters = axes or guessed
    chosen = array[tuple(0 if a == "N" else slice(0, 4) if a == "T" else slice(None) for a in letters)]
    kept = letters.replace("N", "")
    whole = chosen if "C" in kept else chosen[..., None]
    kept = kept if "C" in kept else kept + "C"
    np.testing.assert_allclose(frames, np.transpose(whole, [kept.index(a) for a in "TCHW"]), rtol=1e-6)
    assert bool(axes) or any("are taken as" in note for note in data.notes)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros(20), {}, "two to five axes"),
        (np.zeros((20, 6, 8)), {"axes": "THC"}, "name each axis once"),
        (np.zeros((20, 6, 8)), {"axes": "TTW"}, "name each axis once"),
        (np.zeros((20, 6, 8)), {"axes": "TCHW"}, "name each axis once"),
        (np.zeros((0, 6, 8)), {}, "holds no frames"),
        (np.array([[["a"]]]), {}, "frames are numbers"),
        (np.zeros((20, 6, 8), complex), {}, "frames are numbers"),
        (np.zeros((3, 6, 8)), {}, "no clip of 4 frames fits"),
        (np.full((20, 6, 8), np.nan), {}, "no data at all"),
        (np.full((20, 6, 8), 200.0), {"scaling": "none"}, r"values in \[200, 200\] and scaling 'none'"),
        (np.zeros((20, 6, 8)), {"interval": 300}, "no time stamps: give step"),
        (np.zeros((20, 6, 8)), {"scaling": "minmax"}, "Did you mean 'min-max'"),
        (np.zeros((20, 6, 8)), {"shares": (1, 2, 3)}, "add up to 1"),
        (np.zeros((20, 6, 8)), {"stride": 0}, "stride is 0"),
        (np.zeros((20, 6, 8)), {"context": 0}, "context is 0"),
        (np.zeros((20, 6, 8)), {"size": (1, 2, 3)}, "size is"),
    ],
)
def test_arrays_and_options_that_cannot_be_used(
    tmp_path: Path, array: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_own(save(tmp_path / "a.npy", array), **{**SHORT, **options})


def test_archives_of_several_arrays(tmp_path: Path) -> None:
    frames = pixels().astype(np.float32)
    np.savez(tmp_path / "a.npz", rain=frames, time=stamps(40), mask=np.zeros((6, 8)))
    data = open_own(tmp_path / "a.npz", **SHORT)
    assert data["train"][0]["times"].diff().tolist() == [300] * 3
    np.savez(tmp_path / "b.npz", rain=frames, more=frames)
    with pytest.raises(DataError, match=r"several arrays of frames \(rain, more\).*variable="):
        open_own(tmp_path / "b.npz", **SHORT)
    assert lengths(open_own(tmp_path / "b.npz", variable="more", **SHORT)) == [25, 1, 5]
    with pytest.raises(DataError, match="has no 'snow': it has rain, more"):
        open_own(tmp_path / "b.npz", variable="snow", **SHORT)
    np.savez(tmp_path / "c.npz", rain=frames, time=stamps(39))
    with pytest.raises(DataError, match="40 frames and 39 time stamps"):
        open_own(tmp_path / "c.npz", **SHORT)
    assert lengths(open_own(tmp_path / "c.npz", time="none", **SHORT)) == [25, 1, 5]


def test_an_mlcast_zarr_works_as_it_is(tmp_path: Path) -> None:
    dataset = rain_dataset()
    data = fc.data(zarr_of(tmp_path / "radar.zarr", dataset), **SHORT)
    assert (data.spec.unit, data.spec.interval, data.spec.scaling.kind) == ("mm/h", 300, "dbz-pixel")
    sample = data["train"][3]
    assert torch.equal(sample["valid"][0, 0, 0], torch.tensor([False] * 3 + [True] * 5))
    assert sample["times"][0] == dataset.time.values[3].astype("datetime64[s]").astype(int)
    back = data.spec.scaling.unscale(sample["frames"])[:, 0].numpy()
    truth = dataset.rainfall_rate.values[3:7]
    seen = np.isfinite(truth) & (truth > 0.01)
    np.testing.assert_allclose(back[seen], truth[seen], rtol=1e-4)
    assert not any("upside down" in note for note in data.notes)


def test_packed_integers_are_unpacked_and_told(tmp_path: Path) -> None:
    dataset = rain_dataset()
    packed = {"dtype": "uint16", "scale_factor": 0.01, "add_offset": -1.0, "_FillValue": 65535}
    for name in ("a.nc", "a.zarr"):
        path = tmp_path / name
        if name.endswith("nc"):
            dataset.to_netcdf(path, engine="h5netcdf", encoding={"rainfall_rate": packed})
        else:
            zarr_of(path, dataset, encoding={"rainfall_rate": packed})
        data = fc.data(path, scaling={"kind": "min-max", "low": 0, "high": 50}, **SHORT)
        sample = data["train"][3]
        truth = dataset.rainfall_rate.values[3:7]
        assert np.array_equal(sample["valid"][:, 0].numpy(), np.isfinite(truth))
        values = data.spec.scaling.unscale(sample["frames"])[:, 0].numpy()
        np.testing.assert_allclose(values[np.isfinite(truth)], truth[np.isfinite(truth)], atol=0.006)
        assert any("0.01 x number + -1" in note for note in data.notes)
        assert any("65535 means no data" in note for note in data.notes)


@pytest.mark.parametrize(
    ("dims", "shape", "options", "expected"),
    [
        (("t", "lat", "lon"), (20, 6, 8), {}, (1, 6, 8)),
        (("lon", "lat", "time"), (8, 6, 20), {}, (1, 6, 8)),
        (("time", "a", "b"), (20, 6, 8), {}, (1, 6, 8)),
        (("frame", "a", "b"), (20, 6, 8), {}, (1, 6, 8)),
        (("time", "level", "y", "x"), (20, 1, 6, 8), {}, (1, 6, 8)),
        (("time", "channel", "y", "x"), (20, 3, 6, 8), {}, (3, 6, 8)),
        (("time", "y", "x", "band"), (20, 6, 8, 2), {}, (2, 6, 8)),
        (("step", "north", "east"), (20, 6, 8), {"time": "step", "y": "north", "x": "east"}, (1, 6, 8)),
        (("b", "a", "c"), (6, 20, 8), {"time": "a", "y": "b", "x": "c"}, (1, 6, 8)),
    ],
)
def test_axes_by_name_and_convention(
    tmp_path: Path, dims: tuple[str, ...], shape: tuple[int, ...], options: Any, expected: Any
) -> None:
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    dataset = xr.Dataset({"v": (dims, values)})
    data = open_own(zarr_of(tmp_path / "a.zarr", dataset), **SHORT, **options)
    assert data["train"][0]["frames"].shape[1:] == expected
    time = next(d for d in dims if d in ("t", "time", "frame", "step", "a") and shape[dims.index(d)] == 20)
    first = dataset["v"].isel({time: 0})
    found = data["train"][0]["frames"][0].numpy()
    np.testing.assert_allclose(np.sort(found.ravel()), np.sort(first.values.ravel()), rtol=1e-6)
    if dims[0] == "lon":
        np.testing.assert_allclose(found[0], values[:, :, 0].T, rtol=1e-6)


def test_axes_by_attributes(tmp_path: Path) -> None:
    dataset = xr.Dataset(
        {"v": (("p", "q", "r"), np.random.default_rng(0).random((6, 20, 8)))},
        coords={"q": ("q", stamps(20).astype("datetime64[ns]"), {"axis": "T"}),
                "p": ("p", np.arange(6.0), {"axis": "Y"}), "r": ("r", np.arange(8.0), {"standard_name": "longitude"})},
    )  # fmt: skip
    data = open_own(zarr_of(tmp_path / "a.zarr", dataset), **SHORT)
    assert (data.spec.height, data.spec.width, data.spec.interval) == (6, 8, 300)
    assert any("upside down" in note for note in data.notes), "rows run from south to north"


@pytest.mark.parametrize(
    ("dims", "shape", "options", "message"),
    [
        (("x",), (8,), {}, "no array of frames"),
        (("a", "b", "c", "d"), (2, 3, 6, 8), {}, "which is time"),
        (("time", "a", "b", "y", "x"), (20, 2, 2, 6, 8), {}, "is neither time nor y, x or channel"),
        (("time", "y", "x"), (20, 6, 8), {"time": "when"}, "no axis 'when' for time="),
        (("time", "y", "x"), (20, 6, 8), {"variable": "w"}, "has no 'w': it has v"),
    ],
)
def test_axes_that_cannot_be_told(
    tmp_path: Path, dims: tuple[str, ...], shape: tuple[int, ...], options: Any, message: str
) -> None:
    path = zarr_of(tmp_path / "a.zarr", xr.Dataset({"v": (dims, np.zeros(shape))}))
    with pytest.raises(DataError, match=message):
        open_own(path, **SHORT, **options)


def test_a_zarr_without_time_is_taken_as_equally_spaced_and_told(tmp_path: Path) -> None:
    data = open_own(zarr_of(tmp_path / "a.zarr", rain_dataset().drop_vars("time")), **SHORT)
    assert "times" not in data["train"][0]
    assert any("no time stamps" in note for note in data.notes)


def test_zarr_arrays_without_names(tmp_path: Path) -> None:
    frames = pixels()
    zarr.save_array(tmp_path / "array.zarr", frames)
    zarr.save_group(tmp_path / "group.zarr", frames=frames, mask=np.zeros((6, 8)))
    for name in ("array.zarr", "group.zarr"):
        data = open_own(tmp_path / name, **SHORT)
        assert np.array_equal(data["train"][0]["frames"][:, 0].numpy(), frames[:4].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("name", "unit", "fine"),
    [
        ("rainfall_rate", "dBZ", False),
        ("reflectivity", "mm/h", False),
        ("precipitation_amount", "mm h-1", False),
        ("rainfall_rate", "kg m-2 s-1", True),
        ("dbz", "dBZ", True),
        ("temperature", "dBZ", False),
        ("temperature", "K", True),
        ("rainfall_rate", "K", False),
        ("rainfall_rate", "hPa", False),
        ("rainfall_rate", "furlong", True),
    ],
)
def test_units_that_contradict_the_name(tmp_path: Path, name: str, unit: str, fine: bool) -> None:
    dataset = xr.Dataset({name: (("time", "y", "x"), np.random.default_rng(0).random((20, 6, 8)), {"units": unit})})
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[name] = dataset[name].values
        file[name].attrs["units"] = unit
    for path in (tmp_path / "a.nc", tmp_path / "a.h5"):
        if fine:
            open_own(path, **SHORT)
            continue
        with pytest.raises(DataError, match=rf"the name '{name}' says .* its unit .* says .*unit="):
            open_own(path, **SHORT)
        assert open_own(path, unit="mm/h", **SHORT).spec.unit == "mm/h"


def test_crop(tmp_path: Path) -> None:
    frames = pixels(20, 10, 12)
    save(tmp_path / "a.npy", frames)
    data = open_own(tmp_path / "a.npy", crop=(2, 8, 1, 11), **SHORT)
    assert (data.spec.height, data.spec.width) == (6, 10)
    assert np.array_equal(data["train"][0]["frames"][:, 0].numpy(), frames[:4, 2:8, 1:11].astype(np.float32) / 255)
    for crop, message in (((2, 8, 1, 13), "lies outside of 10x12"), ((2, 8), "rows from, to, columns from, to")):
        with pytest.raises(DataError, match=message):
            open_own(tmp_path / "a.npy", crop=crop, **SHORT)
