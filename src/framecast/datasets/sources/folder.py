"""Files of one frame each as one source: listed once, their times kept in an index, read when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from framecast.datasets.sources.index import kept_index
from framecast.datasets.windows import Frame, FrameSource, Numbers, Values
from framecast.errors import DataError


class FolderSource(FrameSource):
    """Files of one frame each, in the order of their times, read when they are asked for.

    Args:
        files: the files, in any order.
        read: reads a file.
        when: returns a file's time without its values; kept in an index between runs.

    Raises:
        DataError: files cannot be read, of which all are named, or two have one time.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[Path], Frame], when: Callable[[Path], int]) -> None:
        ordered = sorted(files)
        names = hashlib.sha256("\n".join(str(file.resolve().name) for file in ordered).encode()).hexdigest()
        folder = ordered[0].parent
        index = kept_index(
            f"{folder.resolve()} {folder.stat().st_mtime_ns} {names}",
            lambda: {"times": _times_of(ordered, when)},
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


def _times_of(files: Sequence[Path], when: Callable[[Path], int]) -> Numbers:
    times, failures = list[int](), dict[Path, DataError]()
    for file in files:
        try:
            times.append(when(file))
        except DataError as error:
            failures[file] = error
    if failures:
        first, *others = failures
        also = f"; nor can {', '.join(file.name for file in others)}" if others else ""
        raise DataError(
            f"{failures[first]}{also}: fetch or remove what is damaged ({len(failures)} of {len(files)} files), or "
            "leave it out with framecast data convert"
        ) from failures[first]
    return np.array(times, np.int64)
