"""From a path to frames: which reader opens what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from framecast.datasets.formats.arrays import open_hdf5_array, open_npy, open_npz
from framecast.datasets.formats.cf import open_cf
from framecast.datasets.formats.layout import FileSource, Layout
from framecast.datasets.formats.pictures import PictureFolder, natural_order, open_gif
from framecast.datasets.formats.video import open_video
from framecast.datasets.formats.zarrays import is_zarr
from framecast.datasets.radar.parts import RadarFolder, holds_radar, is_radar
from framecast.datasets.sources.index import file_facts
from framecast.errors import DataError, DatasetNotFoundError

Opener = Callable[[Path, Layout], FileSource]

VIDEOS = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
OPENERS: dict[str, Opener] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".gif": open_gif,
    ".h5": open_hdf5_array,
    ".hdf5": open_hdf5_array,
    ".nc": open_cf,
    ".nc4": open_cf,
    ".zarr": open_cf,
    **dict.fromkeys(VIDEOS, open_video),
}


def open_parts(path: Path, layout: Layout) -> list[FileSource]:
    """Open a file, a Zarr, a folder of PNG frames or radar files, or one of clips, each a file or folder of these.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or nothing in the folder that can be read.
        DataError: a file is damaged or not what its name says.
        MissingExtraError: a reader needs a package that is not installed.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"there is nothing at {path}: check the path")
    if path.is_file() or is_zarr(path):
        return [_open_one(path, layout)]
    pictures = list(path.glob("*.png"))
    if pictures:
        return [PictureFolder(pictures, layout)]
    if holds_radar(path):
        return [RadarFolder(path)]
    parts: list[FileSource] = []
    for inner in sorted(path.iterdir(), key=natural_order):
        if inner.name.startswith("."):
            continue
        if inner.is_dir() and not is_zarr(inner):
            parts += open_parts(inner, layout) if _holds_frames(inner) else []
        elif inner.suffix.lower() in OPENERS:
            parts.append(_open_one(inner, layout))
    if not parts:
        known = ", ".join(OPENERS)
        raise DatasetNotFoundError(f"{path} holds no .png file and nothing else that is read as frames ({known})")
    return parts


def _holds_frames(folder: Path) -> bool:
    return any(
        inner.suffix.lower() in (".png", *OPENERS) or (inner.is_dir() and _holds_frames(inner))
        for inner in folder.iterdir()
    )


def _open_one(path: Path, layout: Layout) -> FileSource:
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is an empty file of 0 bytes: fetch or make it again")
    if path.is_file() and is_radar(path):
        raise DataError(f"{path} is one radar frame: give its folder, or make an archive with framecast data convert")
    opener = open_cf if is_zarr(path) else OPENERS.get(path.suffix.lower())
    if opener is None:
        known = ", ".join(OPENERS)
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}: frames are read from {known} or a folder; of archives of "
            "radar files framecast data convert makes a .zarr"
        )
    return opener(path, layout)


def describe_files(path: Path) -> str:
    """Return what the values at a path follow from: its files, their sizes and dates of change."""
    if path.is_file():
        return file_facts(path)
    if is_zarr(path):  # the folders of its chunks, for these may be millions
        arrays = sorted(path.iterdir())
        inner = [part for folder in arrays for part in (folder, folder / "c", folder / "zarr.json") if part.exists()]
    else:
        inner = sorted(path.rglob("*"))
    return " ".join(file_facts(part) for part in (path, *inner))
