"""NetCDF and Zarr through xarray (extra ``geo``): variable and axes are named, or recognised by CF conventions.

An axis is known by the attributes of its coordinate (``axis``, ``standard_name``, units such as degrees_north), as
cf_xarray reads them, else by its name. Where the two axes of a map are not known, they are the last two. An axis of
length 1 that is none of these is dropped; one of a usual name is the channels; of any other, one has to be selected.

Time stamps are those of any coordinate or variable along the time axis that holds dates, by whatever name. A variable
without a time axis is one frame, and a scalar time is its stamp. Where pixels are follows from the coordinates of the
two axes and from the grid mapping.

Reference: CF conventions, chapters 4, 5 and 5.6, https://cfconventions.org.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from framecast.data.cache import file_facts, kept_index
from framecast.data.formats.arrays import (
    check_numbers,
    check_seal,
    has_named_axes,
    is_zarr,
    is_zarr_2,
    is_zarr_array,
    open_zarr_array,
    pixel_packing,
    zarr_2_fill,
    zarr_fill,
    zarr_metadata,
)
from framecast.data.formats.hdf5 import check_self_contained, hdf5_fill, members, open_hdf5
from framecast.data.formats.times import TIME_NAMES, doubts_about_times, holds_dates, read_times
from framecast.data.georeference import WGS84, Georeference
from framecast.data.packing import NETCDF_FILLS, Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions, check_times, read_in_runs
from framecast.data.units import check_unit
from framecast.errors import DataError, MissingExtraError
from framecast.untrusted import check_frames, check_read, check_size, reading

if TYPE_CHECKING:
    import xarray

NAMES = {
    "time": (*TIME_NAMES, "t", "step"),
    "y": ("y", "lat", "latitude", "row", "rows", "height", "northing", "south_north", "rlat", "nj", "ny"),
    "x": ("x", "lon", "longitude", "col", "cols", "column", "columns", "width", "easting", "west_east", "rlon", "ni",
          "nx"),
}  # fmt: skip
CF_KEYS = {"time": ("T", "time"), "y": ("Y", "latitude"), "x": ("X", "longitude")}
CHANNELS = ("channel", "channels", "band", "bands", "c")
NAMED = ("variable", "time", "y", "x", "channel", "select")
"""Options that name what a file holds."""
PRODUCT = "framecast_product"
"""The attribute that says of archives of ours what was measured."""
KILOMETRES = ("km", "kilometer", "kilometre", "kilometers", "kilometres")


def open_dataset(path: Path, group: str = "") -> xarray.Dataset:
    """Open a group of a NetCDF file or Zarr store without decoding its values or times.

    Raises:
        MissingExtraError: xarray or the engine is not installed.
        DataError: it cannot be read.
    """
    try:
        import cf_xarray
        import h5netcdf
        import scipy
        import xarray
        import zarr
    except ImportError as error:
        raise MissingExtraError(error.name or "xarray", "geo", "reading NetCDF and Zarr") from error
    if not hasattr(h5netcdf.File, "_writable"):
        h5netcdf.File._writable = False  # which closing asks for, also where opening has failed before it was set
    del cf_xarray, h5netcdf, scipy, zarr  # engines and accessors that xarray finds by itself
    # Without chunks there is no dask: worker processes read what they need, and nothing more.
    # Without indexes the coordinates, perhaps in thousands of chunks, are read only when they are asked for.
    common: dict[str, Any] = {"mask_and_scale": False, "decode_times": False, "chunks": None, "cache": False}
    common |= {"create_default_indexes": False, "decode_coords": "all"}
    with reading(path):
        if is_zarr(path):
            check_seal(path)
            consolidated = (path / ".zmetadata").is_file()
            common |= {"consolidated": consolidated, "group": group or None}
            from framecast.data.formats.zarr_store import CheckedStore

            store: Any = CheckedStore(path)
            return xarray.open_dataset(store, engine="zarr", **common)
        if is_classic(path):
            return xarray.open_dataset(path, engine="scipy", **common)
        with open_hdf5(path) as file:  # what h5netcdf cannot open, it leaves half open
            check_self_contained(file, path)
        dataset = xarray.open_dataset(path, engine="h5netcdf", group=group or None, phony_dims="sort", **common)
        return dataset if not group else _with_coordinates_above(dataset, path, group)


def _with_coordinates_above(dataset: xarray.Dataset, path: Path, group: str) -> xarray.Dataset:
    """Return a group's variables with the coordinates of the groups that it lies in, as NetCDF 4 scopes them."""
    above = open_dataset(path, group.rpartition("/")[0])
    inherited = {
        name: variable
        for name, variable in above.variables.items()
        if name not in dataset.variables and all(dataset.sizes.get(d) == above.sizes[d] for d in variable.dims)
    }
    return dataset.assign_coords({name: above[name].variable for name in inherited})


def is_classic(path: Path) -> bool:
    """Return whether a file is NetCDF 3, which is not HDF5."""
    with path.open("rb") as file:
        return file.read(3) == b"CDF"


def _groups(path: Path) -> Iterator[str]:
    """Yield the names of the groups of a file or store, "" for the one that holds all others."""
    yield ""
    if is_zarr(path):
        folders = dict.fromkeys(file.parent for file in zarr_metadata(path))
        yield from (str(folder.relative_to(path)) for folder in folders if not is_zarr_array(folder))
    elif not is_classic(path):
        with open_hdf5(path) as file:
            names = [name for name, item in members(file, path) if isinstance(item, h5py.Group)]
        yield from names


def _find_variable(path: Path, options: ReadOptions) -> tuple[str, str, xarray.Dataset]:
    """Return the group and the name of the variable of frames, and the opened group.

    Raises:
        DataError: there is none, or several and none is asked for.
    """
    wanted, candidates, others = options.variable, dict[str, int](), list[str]()
    opened = dict[str, "xarray.Dataset"]()
    try:
        for group in _groups(path):
            if wanted is not None and "/" in wanted and group != wanted.rpartition("/")[0].strip("/"):
                continue
            dataset = opened[group] = open_dataset(path, group)
            prefix = f"{group}/" if group else ""
            if wanted is None:
                candidates |= {prefix + name: count for name, count in _maps(dataset).items()}
            elif (name := wanted.rpartition("/")[2]) in dataset.variables:
                candidates[prefix + name] = 0
            others += [prefix + str(name) for name in dataset.data_vars]
        if wanted is not None and not candidates:
            raise DataError(f"{path} has no {wanted!r}: it has {', '.join(others[:20]) or 'nothing'}")
        most = max(candidates.values(), default=0)
        best = [name for name, count in candidates.items() if count == most or wanted is not None]
        if len(best) != 1:
            names = ", ".join(best or others[:20]) or "nothing"
            problem = "several arrays of frames" if best else "no array of frames, with two axes or more"
            raise DataError(f"{path} holds {problem} ({names}): name one with variable=")
        group, _, name = best[0].rpartition("/")
        return group, name, opened.pop(group)
    finally:
        for dataset in opened.values():
            dataset.close()


def _maps(dataset: xarray.Dataset) -> dict[str, int]:
    """Return the variables that may be frames, with the number of their axes: numbers of two axes or more."""
    sides = {str(variable.attrs.get("bounds", "")) for variable in dataset.variables.values()}
    places = ("latitude", "longitude", "grid_latitude", "grid_longitude", "time")
    return {
        str(name): variable.ndim
        for name, variable in dataset.data_vars.items()
        if variable.ndim >= 2
        and variable.dtype.kind in "uifb"
        and name not in sides
        and not str(name).endswith(("_bnds", "_bounds"))
        and not set(map(str, variable.dims)) & {"bnds", "nv", "bounds"}
        and variable.attrs.get("standard_name") not in places
    }


class CFSource(FrameSource):
    """Frames of a variable of a NetCDF file or Zarr store.

    Raises:
        DataError: the variable or an axis cannot be found, it holds no numbers, or its unit contradicts its name.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        options.refuse_all_but(
            ("variable", "time", "y", "x", "channel", "channels", "select", "nodata", "unit"), str(path)
        )
        self.path = path
        self.group, self.variable, dataset = _find_variable(path, options)
        self._dataset: PerProcess[xarray.Dataset] = PerProcess(partial(open_dataset, path, self.group), dataset)
        try:
            self._learn(dataset, options)
        except BaseException:
            self.close()
            raise

    def _learn(self, dataset: xarray.Dataset, options: ReadOptions) -> None:
        """Find the axes, the times and the meaning of the numbers."""
        path = self.path
        self.where = f"{path}, variable {self.variable!r}"
        variable = dataset[self.variable]
        check_numbers(variable.dtype, self.where)
        self.selected = _selection(dataset, variable, options, self.where)
        chosen = variable.isel(self.selected)
        self.stamps = _time_variable(dataset, chosen, options)
        self.axes = _find_axes(chosen, options, self.stamps, self.where)
        sizes = dict(zip(map(str, variable.dims), variable.shape, strict=True))
        if not all(sizes.values()):
            raise DataError(f"{self.where} is {variable.shape}: it holds no frames")
        self.count = sizes[self.axes["time"]] if "time" in self.axes else 1
        channel = self.axes.get("channel")
        self.shape = (sizes[channel] if channel else 1, sizes[self.axes["y"]], sizes[self.axes["x"]])
        check_frames(self.where, self.count, self.shape, max(4, variable.dtype.itemsize))
        chunks = variable.encoding.get("chunks") or variable.encoding.get("chunksizes") or ()
        check_size(f"{self.where}, a piece of which", *chunks, itemsize=variable.dtype.itemsize)
        self.unpacked = dict(zip(map(str, variable.dims), chunks, strict=False)).get(self.axes.get("time", ""), 1)
        self.packing, self.pixels, self.unit = pixel_packing(
            variable.dtype, self._attributes(variable), options, self.where, self._declared_fill(variable.dtype)
        )
        if options.unit is None:
            check_unit(str(variable.attrs.get("standard_name", self.variable)), self.unit, self.where)
        self.complete = not self.packing.masks(variable.dtype)
        doubts: list[str] = []
        self.times = None if options.time == "none" else self._times(dataset, options.tolerance, doubts)
        self.georeference = _georeference(dataset, variable, self.axes)
        self.product = str(variable.attrs.get(PRODUCT, ""))
        self.notes = [f"axes {tuple(variable.dims)} are read as {self._read_as()}", *self.packing.notes(), *doubts,
                      *self._row_note(dataset), *self._place_note(variable)]  # fmt: skip

    def _attributes(self, variable: xarray.DataArray) -> dict[str, Any]:
        """Return the attributes, without a ``_FillValue`` that xarray makes of what Zarr 2 holds where nothing is."""
        attributes = dict(variable.attrs)
        if is_zarr(self.path) and is_zarr_2(self.path / self.group / self.variable):
            attributes.pop("_FillValue", None)
            attributes |= zarr_2_fill(self.path / self.group / self.variable)
        return attributes

    def _declared_fill(self, dtype: np.dtype[Any]) -> float | None:
        """Return the fill value that the file declares besides its attributes, if it means no data."""
        if is_zarr(self.path):
            return zarr_fill(self.path / self.group / self.variable)
        if is_classic(self.path):
            return NETCDF_FILLS.get(dtype.str[1:])
        with open_hdf5(self.path) as file:
            return hdf5_fill(file[f"{self.group}/{self.variable}"])

    def _read_as(self) -> str:
        parts = [f"{name} = {axis!r}" for name, axis in self.axes.items()]
        return ", ".join([*parts, *(f"{axis!r} at {place}" for axis, place in self.selected.items())])

    def _times(self, dataset: xarray.Dataset, tolerance: int, doubts: list[str]) -> Indices | None:
        name = self.stamps
        if name is None:
            return None
        stamps, where = dataset[name], f"{self.path}, coordinate {name!r}"
        check_size(where, *stamps.shape, itemsize=8)
        cached = kept_index(
            f"times of {self.group}/{name} by {tolerance} in {_facts(self.path, self.group, name)}",
            lambda: {"times": read_times(np.atleast_1d(stamps.values), stamps.attrs, where, tolerance)},
        )
        doubts += doubts_about_times(cached["times"], stamps.attrs)
        if name != self.axes.get("time"):
            doubts.append(f"time stamps are those of {name!r}")
        return check_times(cached["times"], where)

    def _place_note(self, variable: xarray.DataArray) -> list[str]:
        """Say where a place that the file tells is not kept."""
        names = [name for names in variable.cf.coordinates.values() for name in names]
        if self.georeference is not None or not any(variable[name].ndim == 2 for name in names):
            return []
        return [f"coordinates of two axes ({', '.join(sorted(names))}) are not kept: places are not compared"]

    def _row_note(self, dataset: xarray.Dataset) -> list[str]:
        if self.axes["y"] not in dataset.variables:
            return []
        rows = dataset[self.axes["y"]]
        if rows.ndim != 1 or rows.size < 2 or rows.dtype.kind not in "uif":
            return []
        first, last = float(rows[0]), float(rows[-1])
        return ["row 0 is the southernmost: maps are shown upside down"] if first < last else []

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return read_in_runs(numbers, self._run, self.count)

    def _run(self, sequence: int, frames: slice) -> Values:
        del sequence
        variable = self._dataset.get().variables[self.variable]  # without its coordinates, which would be cut too
        where = f"{self.where}, {self._named(frames)}"
        check_read(where, len(range(*frames.indices(self.count))), *self.shape)
        with reading(where, remedy="the file is damaged"):
            order = [self.axes[axis] for axis in ("time", "channel", "y", "x") if axis in self.axes]
            chosen = variable.isel({**self.selected, **({self.axes["time"]: frames} if "time" in self.axes else {})})
            dropped = {dim: 0 for dim in chosen.dims if dim not in order}
            stored = chosen.isel(dropped).transpose(*order).values
        stored = stored if "time" in self.axes else stored[None]
        return self.packing.unpack(stored if "channel" in self.axes else stored[:, None])

    def _named(self, frames: slice) -> str:
        """Name the first frame of a slice, by its time if it has one."""
        if self.times is None:
            return f"frames from {frames.start} on"
        return f"frames from {np.datetime64(int(self.times[frames.start]), 's')} on"

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()


def open_cf(path: Path, options: ReadOptions) -> FrameSource:
    """Open a NetCDF file or Zarr store, see ``CFSource``; a Zarr without named axes as plain arrays."""
    with reading(path):
        return CFSource(path, options) if not is_zarr(path) or has_named_axes(path) else open_zarr_array(path, options)


def _facts(path: Path, group: str, name: str) -> str:
    """Return what time stamps follow from; of a Zarr, the files of their array, or of one in a group above it."""
    if not path.is_dir():
        return file_facts(path)
    array = path / group / name
    parts = [array, array / "c", array / "zarr.json", array / ".zarray", path / "zarr.json"]
    return " ".join(file_facts(part) for part in parts if part.exists())


def _selection(dataset: xarray.Dataset, variable: xarray.DataArray, options: ReadOptions, where: str) -> dict[str, int]:
    """Return axis -> the place on it that is selected.

    Raises:
        DataError: there is no such axis or value.
    """
    places: dict[str, int] = {}
    for axis, value in (options.select or {}).items():
        if axis not in variable.dims:
            dims = ", ".join(map(str, variable.dims))
            raise DataError(f"{where} has no axis {axis!r} to select from: its axes are {dims}")
        values = dataset[axis].values.tolist() if axis in dataset.variables else list(range(variable.sizes[axis]))
        if value not in values:
            raise DataError(f"{where}: {axis} is one of {values[:20]} and not {value!r}")
        places[axis] = values.index(value)
    return places


def _time_variable(dataset: xarray.Dataset, variable: xarray.DataArray, options: ReadOptions) -> str | None:
    """Return the name of the coordinate or variable with the dates of the frames, or None where there is none.

    Its one axis is one of the frames', or it has none and the frames are one. Best is what is named by the options,
    then what calls itself ``time``, then the coordinate of its own axis.
    """
    if options.time == "none":
        return None
    dims = set(map(str, variable.dims))
    spatial = {axis for axis in dims if axis.lower() in (*NAMES["y"], *NAMES["x"])}
    dated = [
        str(name)
        for name, stamps in dataset.variables.items()
        if name != variable.name
        and stamps.ndim <= 1
        and set(map(str, stamps.dims)) <= dims - spatial
        and (holds_dates(stamps) or str(name) == options.time or str(name).lower() in TIME_NAMES)
        and stamps.attrs.get("standard_name") != "forecast_reference_time"
    ]
    along = [name for name in dated if dataset[name].ndim] or dated
    if options.time in dated:
        return options.time
    if options.time is not None:
        along = [name for name in along if dataset[name].dims == (options.time,)]

    def rank(name: str) -> tuple[bool, ...]:
        stamps = dataset[name]
        lowered = name.lower()
        return (
            not holds_dates(stamps.variable),
            stamps.attrs.get("standard_name") != "time" and stamps.attrs.get("axis") != "T",
            (name,) != stamps.dims,
            "start" in lowered,
            lowered not in ("time", "valid_time"),
            lowered not in TIME_NAMES,
        )

    return min(along, key=rank, default=None)


def _find_axes(variable: xarray.DataArray, options: ReadOptions, stamps: str | None, where: str) -> dict[str, str]:
    """Return the names of the axes y, x and, where there are, time and channel."""
    dims = [str(dim) for dim in variable.dims]
    time = options.time if options.time in dims else None
    if options.time not in (None, "none", stamps, time) and "%" not in str(options.time):
        raise DataError(
            f"{where} has no axis {options.time!r} for time=, and no time stamps of that name: its axes are "
            f"{', '.join(dims)}"
        )
    named: Mapping[str, str | None] = {"time": time, "y": options.y, "x": options.x, "channel": options.channel}
    for option, name in named.items():
        if name is not None and name not in dims:
            raise DataError(f"{where} has no axis {name!r} for {option}=: its axes are {', '.join(dims)}")
    axes = {option: name for option, name in named.items() if name is not None}
    if stamps is not None and stamps in variable.dims:
        axes.setdefault("time", stamps)
    for option in NAMES:
        if option not in axes:
            free = [dim for dim in dims if dim not in axes.values() and _is_axis(variable, dim, option)]
            if len(free) == 1:
                axes[option] = free[0]
    rest = [dim for dim in dims if dim not in axes.values()]
    for option in ("x", "y"):
        if option not in axes and rest and rest[-1] == dims[-1 if option == "x" else -2]:
            axes[option] = rest.pop()
    missing = [option for option in ("y", "x") if option not in axes]
    if missing:
        raise DataError(f"{where} has axes {', '.join(dims)}: which is {missing[0]}? Name it with {missing[0]}=")
    likely = [dim for dim in rest if dim.lower() in CHANNELS and variable.sizes[dim] > 1]
    if "channel" not in axes and len(likely) == 1:
        axes["channel"] = likely[0]
        rest.remove(likely[0])
    if "time" not in axes and rest:
        along = [dim for dim in rest if variable.sizes[dim] > 1] or rest
        if len(rest) > 1 and len(along) > 1 and options.time != "none":
            raise DataError(f"{where} has axes {', '.join(dims)}: which is time? Name it with time=")
        axes["time"] = along[0]
        rest.remove(along[0])
    unknown = [dim for dim in rest if variable.sizes[dim] > 1]
    if unknown:
        raise DataError(
            f"{where} has axes {', '.join(dims)}, and {unknown[0]!r} of length {variable.sizes[unknown[0]]} is neither "
            f"time nor y, x or channel: take one of them with select={{{unknown[0]!r}: ...}}, name the axis with "
            "channel=, or combine them beforehand"
        )
    return axes


def _is_axis(variable: xarray.DataArray, dim: str, option: str) -> bool:
    """Return whether an axis is time, y or x, by the attributes of its coordinate or, without any, by its name."""
    if dim in variable.coords:
        coordinate = variable.coords[dim]
        keys = {
            key
            for table in (coordinate.cf.axes, coordinate.cf.coordinates)
            for key, names in table.items()
            if dim in names
        } - {"vertical", "Z"}
        if keys:
            return bool(keys & set(CF_KEYS[option]))
    return dim.lower() in NAMES[option]


def _georeference(dataset: xarray.Dataset, variable: xarray.DataArray, axes: Mapping[str, str]) -> Georeference | None:
    """Return where the pixels are, or None where the axes y and x have no coordinates."""
    ends = [dataset[axes[axis]] if axes[axis] in dataset.variables else None for axis in ("y", "x")]
    if any(end is None or end.ndim != 1 or end.dtype.kind not in "uif" for end in ends):
        return None
    units = [str(end.attrs.get("units", "")).lower() for end in ends if end is not None]
    crs = _crs(dataset, variable, axes, units)
    scale = 1000.0 if units[0] in KILOMETRES else 1.0
    y, x = (np.asarray(end.values, np.float64) * scale for end in ends if end is not None)
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        return None
    return Georeference(y, x, crs)


def _crs(dataset: xarray.Dataset, variable: xarray.DataArray, axes: Mapping[str, str], units: list[str]) -> str:
    """Return the projection of the coordinates: of the grid mapping, or degrees by their units or names."""
    mapping = variable.attrs.get("grid_mapping", variable.encoding.get("grid_mapping", ""))
    name = str(mapping).split(":")[0].strip()
    if name and name in dataset.variables:
        facts = dict(dataset[name].attrs)
        try:
            from pyproj import CRS

            text = facts.get("crs_wkt") or facts.get("spatial_ref") or facts.get("proj4")
            crs = CRS(text) if text else CRS.from_cf(facts)
        except (ImportError, ValueError, KeyError, TypeError):
            return str(facts.get("crs_wkt") or facts.get("grid_mapping_name", ""))
        rotated = "rotated" in str(facts.get("grid_mapping_name"))
        return WGS84 if crs.is_geographic and not rotated else str(crs.to_wkt())
    degrees = all("degree" in unit for unit in units) or (axes["y"].lower() in ("lat", "latitude") and not any(units))
    return WGS84 if degrees and not axes["y"].lower().startswith("r") else ""
