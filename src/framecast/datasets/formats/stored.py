"""Frames of one array on disk, memory-mapped or HDF5, with axes in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from framecast.boundary import check_frames, check_size, reading
from framecast.datasets.formats.layout import FileSource, read_in_runs
from framecast.datasets.formats.packing import Packing
from framecast.datasets.sources.perprocess import PerProcess
from framecast.datasets.windows import Numbers, Values


class StoredArray(FileSource):
    """Frames of one array.

    Args:
        where: the file and array, for messages.
        opener: opens the array; anything with shape, dtype and numpy's indexing.
        axes: its axes by letters: T, H, W, and perhaps N and C.
        packing: how its numbers are stored.
    """

    def __init__(self, where: str, opener: Callable[[], Any], axes: str, packing: Packing) -> None:
        self.where, self.axes, self.packing = where, axes, packing
        self.times: Numbers | None = None
        self._array: PerProcess[Any] = PerProcess(opener)
        array = self._array.get()
        sizes = dict(zip(axes, array.shape, strict=True))
        check_size(f"{where}, a piece of which", *(getattr(array, "chunks", None) or ()), itemsize=array.dtype.itemsize)
        self.length, self.clips = sizes["T"], sizes.get("N", 1)
        self.count = self.length * self.clips
        self.shape = (sizes.get("C", 1), sizes["H"], sizes["W"])
        check_frames(where, self.count, self.shape, max(4, array.dtype.itemsize))
        self.complete = not packing.masks(array.dtype)

    @property
    def sequences(self) -> list[range]:
        """The frames of each clip of the array."""
        return [range(start, start + self.length) for start in range(0, self.count, self.length)]

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return read_in_runs(numbers, self._run, self.length)

    def _run(self, clip: int, frames: slice) -> Values:
        chosen: dict[str, Any] = {"N": clip, "T": frames}
        where = f"{self.where}, frames from {frames.start} on"
        check_size(where, len(range(*frames.indices(self.length))), *self.shape, itemsize=4)
        with reading(where, remedy="the file is damaged"):
            stored = np.asarray(self._array.get()[tuple(chosen.get(axis, slice(None)) for axis in self.axes)])
        kept = self.axes.replace("N", "")
        if "C" not in kept:
            stored, kept = stored[..., None], kept + "C"
        return self.packing.unpack(np.transpose(stored, [kept.index(axis) for axis in "TCHW"]))

    def close(self) -> None:
        """Close the file."""
        self._array.close()
