"""Sources of frames in files: a folder with one frame a file, another grid, and a cache of the frames last read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from framecast.datasets.grid import Grid
from framecast.datasets.index import kept_index
from framecast.datasets.scaling import Scaling
from framecast.datasets.windows import Frame, FrameSource, Numbers, Values
from framecast.errors import DataError

CACHE_BYTES = 512 * 1024 * 1024


class FolderSource(FrameSource):
    """Files of one frame each, in the order of their times, read when they are asked for.

    Args:
        files: the files, in any order.
        read: reads a file.
        when: returns a file's time without its values; kept in an index between runs.

    Raises:
        DataError: two files have one time, or the first file cannot be read.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[Path], Frame], when: Callable[[Path], int]) -> None:
        ordered = sorted(files)
        names = hashlib.sha256("\n".join(str(file.resolve().name) for file in ordered).encode()).hexdigest()
        folder = ordered[0].parent
        index = kept_index(
            f"{folder.resolve()} {folder.stat().st_mtime_ns} {names}",
            lambda: {"times": np.array([when(file) for file in ordered], np.int64)},
        )
        order = np.argsort(index["times"], kind="stable")
        self.files, self.read_file = [ordered[number] for number in order], read
        times: Numbers = index["times"][order]
        double = np.flatnonzero(np.diff(times) == 0)
        if len(double):
            pair = self.files[double[0]].name, self.files[double[0] + 1].name
            raise DataError(
                f"{folder}: {len(double)} time stamps are doubled, first in {pair[0]} and {pair[1]}: keep one of each"
            )
        self.times, self.count = times, len(times)
        first = self.read_file(self.files[0])
        self.shape, self.unit = first.values.shape, first.unit

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return np.stack([self._frame(int(number)) for number in numbers])

    def _frame(self, number: int) -> Values:
        frame, path = self.read_file(self.files[number]), self.files[number]
        assert self.times is not None
        if frame.values.shape != self.shape or frame.unit != self.unit:
            raise DataError(
                f"{path} is {frame.values.shape} in {frame.unit} and {self.files[0].name} is {self.shape} in "
                f"{self.unit}: frames of one data set have one size and unit"
            )
        if frame.time != self.times[number]:
            raise DataError(
                f"{path} holds for {np.datetime64(frame.time, 's')} and the index says "
                f"{np.datetime64(int(self.times[number]), 's')}: it was changed in place, touch its folder"
            )
        return frame.values


class GriddedSource(FrameSource):
    """Frames of another source on another grid."""

    def __init__(self, source: FrameSource, grid: Grid, scaling: Scaling) -> None:
        self.source, self.grid, self.scaling = source, grid, scaling
        self.times, self.count = source.times, source.count
        channels, height, width = source.shape
        self.shape = (channels, *grid.shape(height, width))

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return self.grid.apply(self.source.read(numbers), self.scaling)

    def close(self) -> None:
        """Close what was opened in this process."""
        self.source.close()


class DrySource(FrameSource):
    """Frames of another source with zeros where there is no data, as the released code takes them."""

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.times, self.count, self.shape = source.times, source.count, source.shape

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return np.nan_to_num(self.source.read(numbers))

    def close(self) -> None:
        """Close what was opened in this process."""
        self.source.close()


class CachedSource(FrameSource):
    """Frames of another source, the last read ones kept in memory up to a limit in bytes, per process."""

    def __init__(self, source: FrameSource, limit: int = CACHE_BYTES) -> None:
        self.source, self.limit = source, limit
        self.times, self.count, self.shape = source.times, source.count, source.shape
        self.kept: OrderedDict[int, Values] = OrderedDict()

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        for number in (int(number) for number in numbers):
            if number not in self.kept:
                self.kept[number] = self.source.read(np.array([number]))[0]
            self.kept.move_to_end(number)
        frames = np.stack([self.kept[int(number)] for number in numbers])
        while len(self.kept) * frames[0].nbytes > self.limit:
            self.kept.popitem(last=False)
        return frames

    def close(self) -> None:
        """Forget the frames and close what was opened in this process."""
        self.kept.clear()
        self.source.close()
