"""A folder of radar files as frames of one's own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from framecast.datasets.formats.layout import FileSource
from framecast.datasets.radar.files import radar_folder, radar_time
from framecast.datasets.windows import Numbers, Values
from framecast.errors import DataError
from framecast.registry import frame_reader

LOOKED_AT = 16


class RadarFolder(FileSource):
    """Radar files of one frame each, in the order of their times."""

    def __init__(self, folder: Path) -> None:
        self._source = radar_folder(folder)
        self.where, self.unit = str(folder), self._source.unit
        self.times, self.count, self.shape = self._source.times, self._source.count, self._source.shape
        self.notes = [f"{self.count} radar files: framecast data convert makes one archive of them, which reads faster"]

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return self._source.read(numbers)

    def close(self) -> None:
        """Close what was opened in this process."""
        self._source.close()


def holds_radar(folder: Path) -> bool:
    """Return whether a folder holds radar files, by their names and, as .h5 may be anything, by a look at some."""
    named = (path for path in sorted(folder.iterdir()) if path.is_file() and frame_reader(path.name))
    # More than one, for the first may be damaged; not all, for they may be many and no radar.
    return any(is_radar(path) for path in islice(named, LOOKED_AT))


def is_radar(file: Path) -> bool:
    """Return whether a file is a radar file, by its name and, as .h5 may be anything, by a look at it."""
    if frame_reader(file.name) is None:
        return False
    try:
        radar_time(file)
    except DataError:
        return file.suffix.lower() not in (".h5", ".hdf5", ".hdf")
    return True
