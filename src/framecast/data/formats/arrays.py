"""Frames in one array on disk: .npy, .npz, HDF5 and Zarr arrays without named axes, read lazily.

The axes are given by letters (T time, C channels, H rows, W columns, N clips) or guessed from the shape: two are HW, a
single frame; three are THW; four are TCHW where the second is at most 4, THWC where the last is, NHWT where the middle
two are equal and the last is not, else NTHW; five are NCTHW where the second is at most 4 and the third is not,
NTHWC or NHWTC where the last is, else NTCHW. What was guessed is always told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from framecast.data.formats.hdf5 import check_own, check_self_contained, hdf5_fill, members, open_hdf5
from framecast.data.formats.times import TIME_NAMES, doubts_about_times, read_times
from framecast.data.packing import Packing, Values, meaningful_fill, packing_from_attributes
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions, check_times, read_in_runs
from framecast.data.units import check_unit, one_spelling
from framecast.errors import DataError, MissingExtraError
from framecast.untrusted import check_frames, check_npz, check_read, check_size, reading


class StoredArray(FrameSource):
    """Frames of one array.

    Args:
        where: the file and array, for messages.
        opener: opens the array; anything with shape, dtype and numpy's indexing.
        axes: its axes by letters: H, W, and perhaps T, N and C.
        packing: how its numbers are stored.
    """

    def __init__(self, where: str, opener: Callable[[], Any], axes: str, packing: Packing) -> None:
        self.where, self.axes, self.packing = where, axes, packing
        self.times: Indices | None = None
        self._array: PerProcess[Any] = PerProcess(opener)
        array = self._array.get()
        sizes = dict(zip(axes, array.shape, strict=True))
        check_size(f"{where}, a piece of which", *(getattr(array, "chunks", None) or ()), itemsize=array.dtype.itemsize)
        chunks = dict(zip(axes, getattr(array, "chunks", None) or (), strict=False))
        self.unpacked = chunks.get("T", 1) * chunks.get("N", 1)
        self.length, self.clips = sizes.get("T", 1), sizes.get("N", 1)
        self.count = self.length * self.clips
        self.shape = (sizes.get("C", 1), sizes["H"], sizes["W"])
        check_frames(where, self.count, self.shape, max(4, array.dtype.itemsize))
        self.complete = not packing.masks(array.dtype)

    @property
    def sequences(self) -> list[range]:
        """The frames of each clip of the array."""
        return [range(start, start + self.length) for start in range(0, self.count, self.length)]

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return read_in_runs(numbers, self._run, self.length)

    def _run(self, clip: int, frames: slice) -> Values:
        chosen: dict[str, Any] = {"N": clip, "T": frames}
        where = f"{self.where}, frames from {frames.start} on"
        check_read(where, len(range(*frames.indices(self.length))), *self.shape)
        with reading(where, remedy="the file is damaged"):
            stored = np.asarray(self._array.get()[tuple(chosen.get(axis, slice(None)) for axis in self.axes)])
        axes = self.axes.replace("N", "")
        for absent in sorted(set("TC") - set(axes)):
            stored, axes = stored[..., None], axes + absent
        return self.packing.unpack(np.transpose(stored, [axes.index(axis) for axis in "TCHW"]))

    def close(self) -> None:
        """Close the file."""
        self._array.close()


ARRAY_OPTIONS = ("axes", "nodata", "unit")
MOST_CHANNELS = 4
COLOURS = (3, 4)
"""Channels of pictures in colour, without and with transparency."""
OBJECTS = "it is truncated, damaged or holds objects"


def open_npy(path: Path, options: ReadOptions) -> FrameSource:
    """Open an .npy file without reading it into memory.

    Raises:
        DataError: it is cut, damaged, holds objects or no numbers, or its axes cannot be told apart.
    """
    options.refuse_all_but(ARRAY_OPTIONS, str(path))
    return array_source(str(path), partial(load_array, path), options, {}, None)


def open_npz(path: Path, options: ReadOptions) -> FrameSource:
    """Open an .npz archive of frames and, perhaps, an array of their time stamps.

    Raises:
        DataError: as ``open_npy``, or the array of frames cannot be told from others.
    """
    options.refuse_all_but(("variable", "time", *ARRAY_OPTIONS), str(path))
    shapes = {name: array.shape for name, array in _members(path).items()}
    name = choose_variable({key: len(shape) for key, shape in shapes.items()}, options, str(path))
    times = None
    stamps = _time_name(shapes, options, str(path))
    if stamps:
        times = read_times(np.atleast_1d(_members(path)[stamps]), {}, f"{path}, array {stamps!r}", options.tolerance)
    return array_source(f"{path}, array {name!r}", partial(_member, path, name), options, {}, times)


def open_hdf5_array(path: Path, options: ReadOptions) -> FrameSource:
    """Open a dataset of an HDF5 file, its CF attributes and, perhaps, the dataset of its time stamps.

    Raises:
        DataError: the file is cut or damaged, has no such dataset, or one that holds no numbers.
    """
    with open_hdf5(path) as file:
        check_self_contained(file, path)
        arrays: dict[str, Any] = {name: item for name, item in members(file, path) if isinstance(item, h5py.Dataset)}
        name = choose_variable({key: item.ndim for key, item in arrays.items()}, options, str(path))
        attributes, declared = dict(arrays[name].attrs), hdf5_fill(arrays[name])
        times, attributes_of_time = None, dict[str, Any]()
        shapes = {key: item.shape for key, item in arrays.items()}
        by_names = options.axes is None and any(len(dimension) for dimension in arrays[name].dims)
        stamps = None if by_names else _time_name(shapes, options, str(path))
        if stamps:
            check_size(f"{path}, dataset {stamps!r}", *arrays[stamps].shape, itemsize=arrays[stamps].dtype.itemsize)
            stored, attributes_of_time = np.atleast_1d(arrays[stamps][()]), dict(arrays[stamps].attrs)
            times = read_times(stored, attributes_of_time, f"{path}, dataset {stamps!r}", options.tolerance)
    if by_names:
        from framecast.data.formats.netcdf import open_cf  # the axes' names are there, so it need not be guessed

        return open_cf(path, replace(options, variable=name))
    options.refuse_all_but(("variable", "time", *ARRAY_OPTIONS), str(path))
    where = f"{path}, dataset {name!r}"
    if options.unit is None:
        check_unit(name, one_spelling(attributes.get("units", "")), where)
    return array_source(where, partial(_dataset, path, name), options, attributes, times, declared, attributes_of_time)


def array_source(
    where: str,
    opener: Callable[[], Any],
    options: ReadOptions,
    attributes: Mapping[str, Any],
    times: Indices | None,
    declared: float | None = None,
    time_attributes: Mapping[str, Any] | None = None,
) -> StoredArray:
    """Make a source of an array, its axes named by the options or guessed.

    Args:
        where: the file and array, for messages.
        opener: opens the array; anything with shape, dtype and numpy's indexing.
        options: how it is to be read.
        attributes: its CF attributes.
        times: the time stamps of its frames, or None.
        declared: the fill value that the file declares for what was not written, if it means no data.
        time_attributes: attributes of the time stamps.

    Raises:
        DataError: it holds no numbers, its axes cannot be told apart, or the times do not fit.
    """
    array = opener()
    check_numbers(array.dtype, where)
    # Those of a training's files need not fit: a forecast may start from a single clip of them.
    given = None if "axes" in options.assumed and len(options.axes or "") != len(array.shape) else options.axes
    axes = given or guess_axes(array.shape, options.channels, where)
    check_axes(axes, array.shape, where)
    channels = dict(zip(axes, array.shape, strict=True)).get("C", 1)
    if options.channels not in (None, channels):
        mend = "make it grey, e.g. frames.mean(-1)" if options.channels == 1 else "convert it"
        raise DataError(
            f"{where} is {array.shape}, taken as {axes}, so it has {channels} channels and not {options.channels}: "
            f"{mend}, or name the axes with axes="
        )
    packing, pixels, unit = pixel_packing(array.dtype, attributes, options, where, declared)
    source = StoredArray(where, opener, axes, packing)
    source.unit, source.pixels = unit, pixels
    source.notes = [*([] if options.axes else [f"axes {array.shape} are taken as {axes}"]), *packing.notes()]
    if times is not None and options.time != "none":
        source.notes += doubts_about_times(times, time_attributes or {})
    if times is not None and options.time != "none":
        if len(times) != source.count:
            raise DataError(f"{where} has {source.count} frames and {len(times)} time stamps: give one for each frame")
        source.times = check_times(times, where)
    return source


def pixel_packing(
    dtype: np.dtype[Any], attributes: Mapping[str, Any], options: ReadOptions, where: str, declared: float | None = None
) -> tuple[Packing, bool, str]:
    """Return how numbers are stored, whether they are pixels, and their unit.

    8-bit whole numbers without a unit and without packing attributes are pixels, so divided by 255.
    """
    packing = packing_from_attributes(attributes, dtype, options.nodata, where, declared)
    unit = options.unit or one_spelling(attributes.get("units", ""))
    pixels = dtype == np.uint8 and packing.plain and unit == "1"
    if pixels:
        packing = replace(packing, scale=1 / 255)
    return packing, pixels, unit


def check_numbers(dtype: np.dtype[Any], where: str) -> None:
    """Refuse what is not a number.

    Raises:
        DataError: text, objects, complex numbers or records.
    """
    if dtype.kind not in "uifb":
        raise DataError(f"{where} holds {dtype} and frames are numbers: convert them to float32 or uint8")


def guess_axes(shape: tuple[int, ...], channels: int | None, where: str) -> str:
    """Guess the axes of an array by its shape, see the module.

    Args:
        shape: of the array.
        channels: how many there must be, where that is known; then the axis of channels is one of this length, and
            what could be either time or channels is refused.
        where: the file and array, for messages.

    Raises:
        DataError: it has fewer than three or more than five axes, none of so many channels, or it is doubtful.
    """
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3:
        return "THW"
    if len(shape) == 4:
        return _guess_four(shape, channels, where)
    if len(shape) == 5:
        least, most = channels or 1, channels or MOST_CHANNELS
        if least <= shape[1] <= most and shape[2] > most:
            return "NCTHW"
        if least <= shape[4] <= most and shape[2] != least:
            return "NHWTC" if shape[1] == shape[2] != shape[3] else "NTHWC"
        return "NTCHW"
    raise DataError(f"{where} is {shape} and frames have two to five axes, such as HW, THW or NTCHW: reshape it")


def _guess_four(shape: tuple[int, ...], channels: int | None, where: str) -> str:
    if channels is None:
        if shape[1] <= MOST_CHANNELS:
            return "TCHW"
        if shape[3] <= MOST_CHANNELS:
            return "THWC"
        return "NHWT" if shape[1] == shape[2] != shape[3] else "NTHW"
    if shape[1] == channels:
        return "TCHW"
    if shape[3] == channels:
        return "THWC"
    if channels > 1:
        raise DataError(f"{where} is {shape} and no axis has {channels} channels: reorder it, e.g. with numpy.moveaxis")
    if shape[3] <= MOST_CHANNELS:
        return "THWC"
    if shape[1] in COLOURS:
        raise DataError(
            f"{where} is {shape}, which may be {shape[0]} frames of {shape[1]} channels or {shape[0]} clips of "
            f"{shape[1]} frames: give five axes, (clips, time, channels, rows, columns)"
        )
    return "NTHW"


def check_axes(axes: str, shape: tuple[int, ...], where: str) -> None:
    """Refuse axes that do not describe the shape.

    Raises:
        DataError: unknown, doubled, missing or too many letters, or an empty axis.
    """
    if len(set(axes)) != len(axes) or not {"H", "W"} <= set(axes) <= set("NTCHW") or len(axes) != len(shape):
        raise DataError(
            f"{where} is {shape} and axes is {axes!r}: name each axis once by H, W, and where there are, T, C and N"
        )
    if not all(shape):
        raise DataError(f"{where} is {shape}: it holds no frames")


def choose_variable(axes: Mapping[str, int], options: ReadOptions, where: str) -> str:
    """Return the name of the array of frames: the one asked for, or the only one of most axes, at least two.

    Raises:
        DataError: there is none, or several and none is asked for.
    """
    if options.variable is not None:
        named = [name for name in axes if options.variable in (name, name.rpartition("/")[2])]
        if options.variable not in axes and len(named) != 1:
            raise DataError(f"{where} has no {options.variable!r}: it has {', '.join(axes) or 'nothing'}")
        return options.variable if options.variable in axes else named[0]
    most = max(axes.values(), default=0)
    candidates = [name for name, count in axes.items() if count >= 3] or [
        name for name, count in axes.items() if count == most >= 2
    ]
    if len(candidates) != 1:
        names = ", ".join(candidates or list(axes)[:20]) or "nothing"
        problem = "several arrays of frames" if candidates else "no array of two or more axes"
        x, y = (next((name for name in candidates if name.lower().startswith(letter)), None) for letter in "xy")
        join = (
            f"; past and future are joined first, np.save('clips.npy', np.concatenate([{x}, {y}], 1))"
            if x and y
            else ""
        )
        raise DataError(f"{where} holds {problem} ({names}): name one with variable={join}")
    return candidates[0]


def _time_name(shapes: Mapping[str, tuple[int, ...]], options: ReadOptions, where: str) -> str | None:
    """Return the name of the array of time stamps, or None.

    Raises:
        DataError: there is none of the name that is asked for.
    """
    if options.time is not None:
        if options.time not in shapes and options.time != "none" and "%" not in options.time:
            raise DataError(f"{where} has no array {options.time!r} for time=: it has {', '.join(shapes)}")
        return options.time if options.time in shapes else None
    names = [name for name, shape in shapes.items() if len(shape) <= 1 and name.split("/")[-1].lower() in TIME_NAMES]
    return names[0] if names else None


def load_array(path: Path) -> NDArray[Any]:
    """Memory-map an .npy file.

    Raises:
        DataError: it is cut, damaged, or holds objects, which are never unpickled.
    """
    with reading(path, remedy=OBJECTS):
        content = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(content, np.ndarray):
        content.close()
        raise DataError(f"{path} is an archive and named .npy: rename it to .npz")
    return content


def _members(path: Path) -> dict[str, NDArray[Any]]:
    with reading(path, remedy=OBJECTS):
        check_npz(path)
        with np.load(path, allow_pickle=False) as content:
            return {name: np.asarray(content[name]) for name in content.files}


def _member(path: Path, name: str) -> NDArray[Any]:
    return _members(path)[name]


class _Dataset:
    """A dataset and the file it belongs to, closed together."""

    def __init__(self, path: Path, name: str) -> None:
        # HDF5 remembers 1 MB of chunks; frames are read once, so less would do and more is no use.
        with reading(f"{path}, dataset {name!r}"):
            self.file = h5py.File(path, "r")
            self.dataset = check_own(self.file[name], path)
        self.shape, self.dtype, self.chunks = self.dataset.shape, self.dataset.dtype, self.dataset.chunks

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self.dataset[key])

    def close(self) -> None:
        self.file.close()


def _dataset(path: Path, name: str) -> _Dataset:
    return _Dataset(path, name)


SEAL = "framecast_sha256_of_metadata"
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in MARKS)


def zarr_metadata(path: Path) -> list[Path]:
    """Return the metadata files of a store's arrays and groups, those of groups within groups included."""
    # Not every folder: those of the chunks may be millions.
    return [file for depth in ("*", "*/*") for mark in MARKS for file in sorted(path.glob(f"{depth}/{mark}"))]


def is_zarr_array(path: Path) -> bool:
    """Return whether a folder is a Zarr array, not a group."""
    return (path / ".zarray").is_file() or _metadata(path / "zarr.json").get("node_type") == "array"


def has_named_axes(path: Path) -> bool:
    """Return whether all arrays of a Zarr group name their axes, as xarray needs it.

    Raises:
        DataError: its metadata cannot be read.
    """
    if is_zarr_array(path):
        return False
    arrays = [file for file in zarr_metadata(path) if file.name in ("zarr.json", ".zarray")]
    return all(_axes_named(array) for array in arrays)


def _axes_named(array: Path) -> bool:
    facts = _metadata(array)
    if array.name == ".zarray":
        return "_ARRAY_DIMENSIONS" in _metadata(array.with_name(".zattrs"))
    names = facts.get("dimension_names")
    return facts.get("node_type") != "array" or not facts.get("shape") or bool(names and all(names))


def _metadata(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    with reading(file, "is not JSON", "the Zarr is damaged"):
        facts = json.loads(file.read_bytes())
    return facts if isinstance(facts, dict) else {}


def metadata_digest(path: Path) -> str:
    """Return a hash of the metadata of a Zarr's arrays, which has no checksum of its own."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*/zarr.json")):
        digest.update(file.parent.name.encode() + file.read_bytes())
    return digest.hexdigest()


def check_seal(path: Path) -> None:
    """Refuse a Zarr that was made here and whose arrays are described otherwise than then.

    Raises:
        DataError: it is, or its metadata cannot be read.
    """
    attributes = _metadata(path / "zarr.json").get("attributes")
    seal = attributes.get(SEAL) if isinstance(attributes, dict) else None
    if seal is not None and seal != metadata_digest(path):
        raise DataError(
            f"{path}: the metadata of its arrays has changed since it was made: make it again, or, if you changed it "
            f"on purpose, delete the attribute {SEAL} of its zarr.json"
        )


def open_zarr_array(path: Path, options: ReadOptions) -> FrameSource:
    """Open a Zarr array, or one of a group, by the letters of its axes.

    Raises:
        MissingExtraError: zarr is not installed.
        DataError: it is damaged, or there is no such array.
    """
    try:
        import zarr

        from framecast.data.formats.zarr_store import CheckedStore
    except ImportError as error:
        raise MissingExtraError("zarr", "geo", "reading Zarr") from error
    options.refuse_all_but(("variable", "time", *ARRAY_OPTIONS), str(path))
    with reading(path, remedy="the Zarr is damaged or of another version"):
        store = CheckedStore(path)
        node = zarr.open(store, mode="r")
        if isinstance(node, zarr.Array):
            opener = partial(zarr.open_array, store, mode="r")
            return array_source(str(path), opener, options, node.attrs.asdict(), None, zarr_fill(path))
        arrays = dict(node.arrays())
    name = choose_variable({key: array.ndim for key, array in arrays.items()}, options, str(path))
    opener, attributes = partial(zarr.open_array, store, path=name, mode="r"), arrays[name].attrs.asdict()
    times, attributes_of_time = None, dict[str, Any]()
    stamps = _time_name({key: array.shape for key, array in arrays.items()}, options, str(path))
    if stamps:
        where = f"{path}, array {stamps!r}"
        check_size(where, *arrays[stamps].shape, itemsize=arrays[stamps].dtype.itemsize)
        attributes_of_time = arrays[stamps].attrs.asdict()
        times = read_times(np.atleast_1d(arrays[stamps][...]), attributes_of_time, where, options.tolerance)
    where = f"{path}, array {name!r}"
    return array_source(where, opener, options, attributes, times, zarr_fill(path / name), attributes_of_time)


def is_zarr_2(array: Path) -> bool:
    """Return whether an array is of Zarr format 2."""
    return (array / ".zarray").is_file()


def zarr_2_fill(array: Path) -> dict[str, Any]:
    """Return the attribute ``_FillValue`` of an array in Zarr format 2, or nothing where it has none."""
    attributes = _metadata(array / ".zattrs")
    return {name: value for name, value in attributes.items() if name == "_FillValue"}


def zarr_fill(array: Path) -> float | None:
    """Return the fill value of an array in Zarr format 2 if it can only mean no data, else None.

    In format 2 xarray writes ``_FillValue`` nowhere else; zarr-python's own default is 0.
    """
    facts = _metadata(array / ".zarray")
    declared = facts.get("fill_value")
    return meaningful_fill(declared, facts["dtype"]) if isinstance(declared, int | float) else None
