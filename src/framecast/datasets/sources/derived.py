"""Frames of another source, changed on the way: another grid, zeros where there is no data, a cache in memory."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from framecast.datasets.grid import Grid
from framecast.datasets.scaling import Scaling
from framecast.datasets.windows import FrameSource, Numbers, Values

CACHE_BYTES = 512 * 1024 * 1024


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
