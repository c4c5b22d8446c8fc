"""NetCDF and Zarr through xarray (extra ``geo``): variable and axes are named, or recognised by CF conventions.

An axis is known by its coordinate's attributes ``axis`` or ``standard_name``, else by its name. Where the two
axes of a map are not known, they are the last two. An axis of length 1 that is none of these is dropped, another
one is the channels. So (time, y, x) archives, mlcast's among them, work as they are.

Reference: CF conventions, chapter 4, https://cfconventions.org.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from framecast.data.cache import file_facts, kept_index
from framecast.data.formats.arrays import (
    check_numbers,
    check_seal,
    choose_variable,
    has_named_axes,
    is_zarr,
    open_zarr_array,
    pixel_packing,
)
from framecast.data.formats.hdf5 import check_self_contained, open_hdf5
from framecast.data.formats.times import TIME_NAMES, read_times
from framecast.data.packing import Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions, check_times, read_in_runs
from framecast.data.units import check_unit
from framecast.errors import DataError, MissingExtraError
from framecast.untrusted import check_frames, check_size, reading

if TYPE_CHECKING:
    import xarray

AXES = {
    "time": ("T", ("time", "forecast_reference_time"), (*TIME_NAMES, "t")),
    "y": ("Y", ("projection_y_coordinate", "latitude", "grid_latitude"),
          ("y", "lat", "latitude", "row", "rows", "height", "northing", "south_north", "rlat", "nj")),
    "x": ("X", ("projection_x_coordinate", "longitude", "grid_longitude"),
          ("x", "lon", "longitude", "col", "cols", "column", "columns", "width", "easting", "west_east", "rlon", "ni")),
}  # fmt: skip
CHANNELS = ("channel", "channels", "band", "bands", "c")


def open_dataset(path: Path) -> xarray.Dataset:
    """Open a NetCDF file or Zarr store without decoding its values or times.

    Raises:
        MissingExtraError: xarray or the engine is not installed.
        DataError: it cannot be read.
    """
    try:
        import h5netcdf  # noqa: F401
        import xarray
        import zarr  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "xarray", "geo", "reading NetCDF and Zarr") from error
    # Without chunks there is no dask: worker processes read what they need, and nothing more.
    # Without indexes the coordinates, perhaps in thousands of chunks, are read only when they are asked for.
    common: dict[str, Any] = {"mask_and_scale": False, "decode_times": False, "chunks": None, "cache": False}
    common["create_default_indexes"] = False
    with reading(path):
        if is_zarr(path):
            check_seal(path)
            consolidated = (path / ".zmetadata").is_file()
            return xarray.open_dataset(path, engine="zarr", consolidated=consolidated, **common)
        with path.open("rb") as file:
            if file.read(3) == b"CDF":
                raise ValueError("it is NetCDF 3; make it NetCDF 4, e.g. by nccopy -k nc4")
        with open_hdf5(path) as file:  # what h5netcdf cannot open, it leaves half open
            check_self_contained(file, path)
        return xarray.open_dataset(path, engine="h5netcdf", **common)


class CFSource(FrameSource):
    """Frames of a variable of a NetCDF file or Zarr store.

    Raises:
        DataError: the variable or an axis cannot be found, it holds no numbers, or its unit contradicts its name.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._dataset: PerProcess[xarray.Dataset] = PerProcess(partial(open_dataset, path))
        dataset = self._dataset.get()
        ranks = {str(name): len(variable.dims) for name, variable in dataset.data_vars.items()}
        self.path, self.variable = path, choose_variable(ranks, options, str(path))
        self.where = f"{path}, variable {self.variable!r}"
        variable = dataset[self.variable]
        check_numbers(variable.dtype, self.where)
        self.axes = _find_axes(variable, options, self.where)
        sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
        if not all(sizes.values()):
            raise DataError(f"{self.where} is {variable.shape}: it holds no frames")
        self.count = sizes[self.axes["time"]]
        channel = self.axes.get("channel")
        self.shape = (sizes[channel] if channel else 1, sizes[self.axes["y"]], sizes[self.axes["x"]])
        check_frames(self.where, self.count, self.shape, max(4, variable.dtype.itemsize))
        check_size(
            f"{self.where}, a piece of which",
            *variable.encoding.get("chunks", ()) or (),
            itemsize=variable.dtype.itemsize,
        )
        self.packing, self.pixels, self.unit = pixel_packing(variable.dtype, variable.attrs, options, self.where)
        if options.unit is None:
            check_unit(str(variable.attrs.get("standard_name", self.variable)), self.unit, self.where)
        self.complete = not self.packing.masks(variable.dtype)
        self.times = None if options.time == "none" else self._times(dataset)
        self.notes = [f"axes {tuple(variable.dims)} are read as {self._read_as()}", *self.packing.notes(),
                      *self._row_note(dataset)]  # fmt: skip

    def _read_as(self) -> str:
        return ", ".join(f"{name} = {axis!r}" for name, axis in self.axes.items())

    def _times(self, dataset: xarray.Dataset) -> Indices | None:
        name = self.axes["time"]
        if name not in dataset.coords:
            return None
        stamps = dataset[name]
        check_size(f"{self.path}, coordinate {name!r}", *stamps.shape, itemsize=8)
        cached = kept_index(
            f"times of {name} in {_facts(self.path, name)}",
            lambda: {"times": read_times(stamps.values, stamps.attrs, f"{self.path}, coordinate {name!r}")},
        )
        return check_times(cached["times"], f"{self.path}, coordinate {name!r}")

    def _row_note(self, dataset: xarray.Dataset) -> list[str]:
        if self.axes["y"] not in dataset.coords:
            return []
        rows = dataset.coords[self.axes["y"]]
        if rows.ndim != 1 or rows.size < 2 or rows.dtype.kind not in "uif":
            return []
        first, last = float(rows[0]), float(rows[-1])
        return ["row 0 is the southernmost: maps are shown upside down"] if first < last else []

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return read_in_runs(numbers, self._run, self.count)

    def _run(self, sequence: int, frames: slice) -> Values:
        del sequence
        order = [self.axes["time"], *([self.axes["channel"]] if "channel" in self.axes else []), self.axes["y"],
                  self.axes["x"]]  # fmt: skip
        variable = self._dataset.get()[self.variable]
        where = f"{self.where}, {self._named(frames)}"
        check_size(where, len(range(*frames.indices(self.count))), *self.shape, itemsize=4)
        with reading(where, remedy="the file is damaged"):
            chosen = variable.isel({self.axes["time"]: frames})
            dropped = {dim: 0 for dim in chosen.dims if dim not in order}
            stored = chosen.isel(dropped).transpose(*order).values
        return self.packing.unpack(stored if "channel" in self.axes else stored[:, None])

    def _named(self, frames: slice) -> str:
        """Name the first frame of a slice, by its time if it has one."""
        if self.times is None:
            return f"frames from {frames.start} on"
        return f"frames from {np.datetime64(int(self.times[frames.start]), 's')} on"

    def coordinates(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Return the coordinates of the axes y and x, with their attributes, where the file has them."""
        dataset = self._dataset.get()
        axis_coordinates = {
            axis: dataset.coords[self.axes[axis]] for axis in ("y", "x") if self.axes[axis] in dataset.coords
        }
        return {
            axis: (coordinate.values, {key: value for key, value in coordinate.attrs.items() if isinstance(value, str)})
            for axis, coordinate in axis_coordinates.items()
            if coordinate.ndim == 1 and coordinate.dtype.kind in "uif"
        }

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()


def open_cf(path: Path, options: ReadOptions) -> FrameSource:
    """Open a NetCDF file or Zarr store, see ``CFSource``; a Zarr without named axes as plain arrays."""
    with reading(path):
        return CFSource(path, options) if not is_zarr(path) or has_named_axes(path) else open_zarr_array(path, options)


def _facts(path: Path, name: str) -> str:
    """Return what time stamps follow from; of a Zarr, the files of their array."""
    if not path.is_dir():
        return file_facts(path)
    parts = [path / name, path / name / "c", path / name / "zarr.json", path / name / ".zarray", path / "zarr.json"]
    return " ".join(file_facts(part) for part in parts if part.exists())


def _find_axes(variable: xarray.DataArray, options: ReadOptions, where: str) -> dict[str, str]:
    """Return the names of the axes time, y, x and, if there is one, channel."""
    dims = [str(dim) for dim in variable.dims]
    named: Mapping[str, str | None] = {"time": None if options.time == "none" else options.time, "y": options.y,
                                       "x": options.x, "channel": options.channel}  # fmt: skip
    for option, name in named.items():
        if name is not None and name not in dims:
            raise DataError(f"{where} has no axis {name!r} for {option}=: its axes are {', '.join(dims)}")
    axes = {option: name for option, name in named.items() if name is not None}
    for option in AXES:
        if option not in axes:
            free = [dim for dim in dims if dim not in axes.values() and _is_axis(variable, dim, option)]
            if len(free) == 1:
                axes[option] = free[0]
    rest = [dim for dim in dims if dim not in axes.values()]
    for option in ("x", "y"):
        if option not in axes and rest and rest[-1] == dims[-1 if option == "x" else -2]:
            axes[option] = rest.pop()
    if "time" not in axes and rest and (len(rest) == 1 or options.time == "none"):
        axes["time"] = rest.pop(0)
    missing = [option for option in ("time", "y", "x") if option not in axes]
    if missing:
        raise DataError(f"{where} has axes {', '.join(dims)}: which is {missing[0]}? Name it with {missing[0]}=")
    long = [dim for dim in rest if variable.sizes[dim] > 1]
    if "channel" not in axes and long:
        likely = [dim for dim in long if dim.lower() in CHANNELS] or long
        axes["channel"] = likely[0]
        long.remove(likely[0])
    if [dim for dim in long if dim not in axes.values()]:
        raise DataError(f"{where} has axes {', '.join(dims)}, more than time, channel, y and x: select one of {long}")
    return axes


def _is_axis(variable: xarray.DataArray, dim: str, option: str) -> bool:
    letter, standard, names = AXES[option]
    attributes = variable.coords[dim].attrs if dim in variable.coords else {}
    if "axis" in attributes or "standard_name" in attributes:
        return attributes.get("axis") == letter or attributes.get("standard_name") in standard
    return dim.lower() in names
