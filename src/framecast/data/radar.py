"""Rain radar: folders with one map per file, and what the radar data sets share.

Files are read in any format of ``framecast.registry.FORMATS`` that holds one frame. Data sets share the grid, the
scaling, the treatment of missing data and clips by time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from framecast.data.clips import SPLITS, ClipData, ClipSet, ClipSpec, Split, check_lengths
from framecast.data.formats.netcdf import open_cf
from framecast.data.formats.odim import is_odim
from framecast.data.grid import Grid, Method, Space
from framecast.data.joined import FolderSource
from framecast.data.scaling import DbzPixel, Log, Scaling
from framecast.data.sources import (
    CachedSource,
    DrySource,
    Frame,
    FrameHeader,
    FrameSource,
    GriddedSource,
    Indices,
    ReadOptions,
    check_some_data,
)
from framecast.data.windows import WindowedClips, windows_by_time
from framecast.errors import DataError, DatasetNotFoundError, UnknownNameError, check_count
from framecast.registry import RAIN_RATE, frame_header_reader, frame_reader


def find_radar_files(folder: str | Path) -> list[Path]:
    """Return the files in a folder, and below it, that have a reader, by name."""
    return sorted(
        path
        for path in Path(folder).rglob("*")
        if frame_reader(path.name) and path.is_file() and not path.name.startswith(".")
    )


def radar_folder(folder: str | Path, product: str | None = None, skip_damaged: bool = False) -> FolderSource:
    """Return the frames of a folder in the order of their times, of the product asked for where it holds several.

    Raises:
        DatasetNotFoundError: it holds no file that has a reader.
        DataError: a file cannot be read, two have one time, or products, units or grids differ.
    """
    files = find_radar_files(folder)
    if not files:
        raise DatasetNotFoundError(
            f"{folder} holds no radar file: give a folder of RADOLAN, ODIM HDF5 or KNMI HDF5 composites with their "
            "official names"
        )
    source = FolderSource(files, read_radar, radar_header, product, skip_damaged)
    source.where = str(folder)
    source.notes = [
        *source.notes,
        f"{source.count} radar files: framecast data convert makes one archive of them, which reads faster",
    ]
    return source


def radar_archive(path: str | Path) -> FrameSource:
    """Return the frames of a Zarr that ``framecast data convert`` made of radar files.

    Raises:
        DataError: it holds no rain rates with times.
        MissingExtraError: xarray or zarr is not installed.
    """
    source = open_cf(Path(path), ReadOptions())
    if source.unit != RAIN_RATE or source.times is None:
        raise DataError(f"{path} holds {source.unit} and no rain rates in {RAIN_RATE} with times: convert radar files")
    return source


def read_radar(path: Path) -> Frame:
    """Read a file by the reader that its name asks for."""
    reader = frame_reader(path.name)
    assert reader is not None, path
    frame: Frame = reader(path)
    return frame


def radar_header(path: Path) -> FrameHeader:
    """Return what a file says without its values, from its header where its format allows."""
    reader = frame_header_reader(path.name)
    header: FrameHeader = reader(path) if reader is not None else read_radar(path).header
    return header


LOOKED_AT = 16


def holds_radar(folder: Path) -> bool:
    """Return whether a folder holds radar files, by their names and, as .h5 may be anything, by a look at some."""
    named = (
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and frame_reader(path.name) and not path.name.startswith(".")
    )
    # More than one, for the first may be damaged; not all, for they may be many and no radar.
    return any(is_radar(path) for path in islice(named, LOOKED_AT))


def is_radar(file: Path) -> bool:
    """Return whether a file is a radar file, by its name and, as .h5 may be anything, by a look at it."""
    if frame_reader(file.name) is None:
        return False
    try:
        radar_header(file)
    except DataError:
        return file.suffix.lower() not in (".h5", ".hdf5", ".hdf") or is_odim(file)
    return True


Crop = Sequence[int]

SCALINGS: dict[str, type[Scaling]] = {"dbz-pixel": DbzPixel, "log": Log}
NODATA = ("masked", "dry")


def make_grid(size: int | Sequence[int] | None, crop: Crop | None, method: Method, space: Space) -> Grid:
    """Return the grid of options.

    Raises:
        DataError: size or crop are not one or two, or four numbers.
        UnknownNameError: there is no such method or space.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if size else None
    edges = tuple(crop) if crop else None
    if (sides and len(sides) != 2) or (edges and len(edges) != 4):
        raise DataError(f"size {size} must be one or two numbers, crop {crop} four (rows from, to, columns from, to)")
    return Grid(edges, sides, method, space)  # type: ignore[arg-type]


def rain_scaling(name: str) -> Scaling:
    """Return a scaling of rain rates by name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in SCALINGS:
        raise UnknownNameError("scaling of rain", name, SCALINGS)
    return SCALINGS[name]()


def split_in_time(count: int, blocks: Sequence[float]) -> dict[Split, Indices]:
    """Deal frames to the splits in their order.

    Args:
        count: of the frames.
        blocks: shares of them, or numbers of frames, that train, validation and test get.

    Raises:
        DataError: blocks are not three, negative, or more than there are.
    """
    total = sum(blocks)
    if len(blocks) != len(SPLITS) or min(blocks) < 0 or not total:
        raise DataError(f"blocks are three shares or three numbers of frames and got {list(blocks)}")
    counts = np.asarray(blocks, np.float64) * (count if total <= 1 + 1e-9 else 1)
    edges = np.concatenate([[0], counts.cumsum()]).round().astype(int)
    if edges[-1] > count:
        raise DataError(f"blocks {list(blocks)} ask for {edges[-1]} frames and there are {count}: lower them")
    return {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(SPLITS)}


def prepare_source(source: FrameSource, grid: Grid, scaling: Scaling, nodata: str) -> FrameSource:
    """Return a source on another grid, nodata treated as asked for, the frames last read kept in memory.

    Raises:
        UnknownNameError: there is no such way with nodata.
        DataError: the grid does not fit the frames.
    """
    if nodata not in NODATA:
        raise UnknownNameError("way with nodata", nodata, NODATA)
    gridded = GriddedSource(source, grid, scaling)
    return CachedSource(DrySource(gridded) if nodata == "dry" else gridded)


def cut_clips(
    name: str,
    source: FrameSource,
    parts: Mapping[Split, Indices],
    rules: tuple[Grid, Scaling],
    lengths: tuple[int, int],
    interval: int,
    every: int,
) -> ClipData:
    """Cut each split's frames into clips by their times.

    Args:
        name: of the data set.
        source: all frames.
        parts: the numbers of each split's frames.
        rules: grid and scaling.
        lengths: context and horizon.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.

    Raises:
        DataError: no split has a single clip, or a length is below 1.
    """
    check_lengths(*lengths)
    check_count("interval", interval)
    check_count("every", every)
    assert source.times is not None
    step = int(np.diff(source.times).min()) if source.count > 1 else 60 * every
    stride = max(1, 60 * every // step)
    splits: dict[Split, ClipSet] = {}
    for split, numbers in parts.items():
        windows = windows_by_time(source.times[numbers], sum(lengths), 60 * interval, stride)
        splits[split] = WindowedClips(source, numbers[windows], rules[1])
    if not any(len(clips) for clips in splits.values()):
        raise DataError(
            f"{name}: {source.count} frames at steps of {step / 60:g} minutes hold no clip of {sum(lengths)} frames at "
            f"{interval} minutes: choose another interval, fewer frames, or other parts"
        )
    check_some_data(source, parts["train"], source.where)
    channels, height, width = source.shape
    grid, scaling = rules
    spec = ClipSpec(
        height, width, channels, *lengths, RAIN_RATE, scaling, 60 * interval, grid, source.georeference, source.product
    )
    return ClipData(name, {}, spec, splits)
