"""Rain radar: folders with one map per file, of any format of ``framecast.registry.FORMATS`` that holds one frame."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from framecast.data.formats.netcdf import open_cf
from framecast.data.formats.odim import is_odim
from framecast.data.joined import FolderSource
from framecast.data.sources import Frame, FrameHeader, FrameSource, ReadOptions
from framecast.errors import DataError, DatasetNotFoundError
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
