"""Radar files, one map each, in any format of ``framecast.registry.FRAME_READERS``, and archives made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from framecast.datasets.formats.cf import open_cf
from framecast.datasets.formats.layout import Layout
from framecast.datasets.radar.knmi import knmi_time, read_knmi
from framecast.datasets.radar.odim import odim_time, read_odim
from framecast.datasets.radar.radolan import radolan_time, read_radolan
from framecast.datasets.sources.folder import FolderSource
from framecast.datasets.windows import Frame, FrameSource
from framecast.errors import DataError, DatasetNotFoundError
from framecast.registry import RAIN_RATE, frame_reader

# Reader -> how to get the time of a file without its values; other readers read the whole file for it.
TIMES: dict[Callable[..., Frame], Callable[[Path], int]] = {
    read_knmi: knmi_time,
    read_odim: odim_time,
    read_radolan: radolan_time,
}


def find_radar_files(folder: str | Path) -> list[Path]:
    """Return the files in a folder, and below it, that have a reader, by name."""
    return sorted(path for path in Path(folder).rglob("*") if frame_reader(path.name) and path.is_file())


def radar_folder(folder: str | Path) -> FolderSource:
    """Return the frames of a folder in the order of their times.

    Raises:
        DatasetNotFoundError: it holds no file that has a reader.
        DataError: a file cannot be read, or two have one time.
    """
    files = find_radar_files(folder)
    if not files:
        raise DatasetNotFoundError(
            f"{folder} holds no radar file: give a folder of RADOLAN, ODIM HDF5 or KNMI HDF5 composites with their "
            "official names"
        )
    return FolderSource(files, read_radar, radar_time)


def radar_archive(path: str | Path) -> FrameSource:
    """Return the frames of a Zarr that ``framecast data convert`` made of radar files.

    Raises:
        DataError: it holds no rain rates with times.
        MissingExtraError: xarray or zarr is not installed.
    """
    source = open_cf(Path(path), Layout())
    if source.unit != RAIN_RATE or source.times is None:
        raise DataError(f"{path} holds {source.unit} and no rain rates in {RAIN_RATE} with times: convert radar files")
    return source


def read_radar(path: Path) -> Frame:
    """Read a file by the reader that its name asks for."""
    reader = frame_reader(path.name)
    assert reader is not None, path
    frame: Frame = reader(path)
    return frame


def radar_time(path: Path) -> int:
    """Return the time of a file, from its header where its format allows."""
    reader = frame_reader(path.name)
    assert reader is not None, path
    return TIMES[reader](path) if reader in TIMES else read_radar(path).time
