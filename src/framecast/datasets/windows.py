"""Clips cut from a long sequence of frames, by time stamps: no clip ever spans a gap.

A source knows its frames' times and reads frames by number, in physical units with NaN where there is no
data. A window is the numbers of the frames of one clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.datasets.clip import ClipSet, Sample
from framecast.datasets.scaling import Scaling
from framecast.errors import DataError

Numbers = NDArray[np.int64]
Values = NDArray[np.float32]


class Frame(NamedTuple):
    """One frame of one file, as the readers of ``framecast.registry.FRAME_READERS`` return it.

    Attributes:
        values: (C, H, W) float32 in the unit, NaN where there is no data.
        time: seconds since 1970 UTC for which the frame holds; of an accumulation, its end.
        unit: physical unit of the values, such as "mm/h".
    """

    values: Values
    time: int
    unit: str


class FrameSource(ABC):
    """Frames that are read when they are asked for.

    Files are opened on first use in each process, so that worker processes never share a handle.

    Attributes:
        times: (N,) int64 seconds since 1970 UTC, rising; None where the frames have no time.
        shape: (C, H, W) of a frame.
        count: N, the number of frames.
        complete: whether every pixel of every frame is data, so that clips need no mask.
    """

    times: Numbers | None
    shape: tuple[int, int, int]
    count: int
    complete: bool = False

    @property
    def sequences(self) -> list[range]:
        """Runs of frames that belong together, such as one video; no clip spans two of them."""
        return [range(self.count)]

    @abstractmethod
    def read(self, numbers: Numbers) -> Values:
        """Return frames (T, C, H, W) float32 by their numbers, in physical units, NaN where there is no data.

        Raises:
            DataError: a frame cannot be read; the message names file and time.
        """

    def close(self) -> None:  # noqa: B027  # most sources have nothing to close
        """Close what was opened in this process."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind when a worker process gets a copy."""
        self.close()
        return self.__dict__


class ArraySource(FrameSource):
    """Frames of an array (N, C, H, W) in physical units; NaN marks what is no data."""

    def __init__(self, frames: NDArray[Any], times: Numbers | None = None) -> None:
        self.frames, self.times = frames, None if times is None else check_times(times, "the array")
        self.count, self.shape = len(frames), frames.shape[1:]

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return np.asarray(self.frames[numbers], np.float32)


def check_times(times: NDArray[Any], where: str) -> Numbers:
    """Return times as int64 if they rise from frame to frame.

    Raises:
        DataError: a time stamp is doubled or earlier than the one before; the message names both.
    """
    seconds = np.asarray(times, np.int64)
    wrong = np.flatnonzero(np.diff(seconds) <= 0)
    if len(wrong):
        first = int(wrong[0])
        before, after = (np.datetime64(int(seconds[i]), "s") for i in (first, first + 1))
        kind = "doubled" if before == after else "out of order"
        raise DataError(
            f"{where}: {len(wrong)} time stamps are {kind}, first {after} after {before} at frame {first + 1}: sort "
            "the frames by time and keep one of each"
        )
    return seconds


def windows_by_time(times: Numbers, length: int, interval: int, stride: int = 1) -> Numbers:
    """Return all windows of ``length`` frames at exactly ``interval`` seconds, (K, length) frame numbers.

    Args:
        times: (N,) rising seconds.
        length: frames of a clip.
        interval: seconds between the frames of a clip; a multiple of the data's own step thins it out.
        stride: take every so many of the possible starts, counted anew after each gap.

    Raises:
        DataError: ``interval``, ``length`` or ``stride`` is below 1.
    """
    if min(length, interval, stride) < 1:
        raise DataError(f"length {length}, interval {interval} and stride {stride} must all be at least 1")
    wanted = times[:, None] + np.arange(length, dtype=np.int64) * interval
    numbers = np.searchsorted(times, wanted)
    found = numbers < len(times)
    whole = (times[np.where(found, numbers, 0)] == wanted).all(1) & found.all(1)
    starts = np.flatnonzero(whole)
    if stride > 1 and len(starts):
        runs = np.cumsum(np.diff(starts, prepend=starts[0]) != 1)
        first = starts[np.searchsorted(runs, runs)]
        starts = starts[(starts - first) % stride == 0]
    return np.asarray(numbers[starts], np.int64)


def windows_by_number(count: int, length: int, stride: int = 1, step: int = 1) -> Numbers:
    """Return all windows of ``length`` frames, ``step`` apart, of ``count`` frames without gaps, (K, length)."""
    if min(length, stride, step) < 1:
        raise DataError(f"length {length}, stride {stride} and step {step} must all be at least 1")
    starts = np.arange(0, max(0, count - (length - 1) * step), stride, dtype=np.int64)
    return starts[:, None] + np.arange(length, dtype=np.int64) * step


class WindowedClips(ClipSet):
    """The clips of a source at given windows (K, T), scaled to [0, 1]; where there is no data they are 0.

    Attributes:
        cut: whether what lies beyond the limits of the scaling is cut to them. A scaling that was fitted to the
            training part has no say in how large later values may be, and cutting them would forge the truth.
    """

    def __init__(self, source: FrameSource, windows: Numbers, scaling: Scaling, *, cut: bool = True) -> None:
        self.source, self.windows, self.scaling, self.cut = source, windows, scaling, cut

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.windows)

    def scaled_by(self, scaling: Scaling) -> WindowedClips:
        """Return these clips under another scaling."""
        return WindowedClips(self.source, self.windows, scaling, cut=self.cut)

    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index`` with the mask of what is data and, where the source has them, its times."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        numbers = self.windows[index]
        values = torch.from_numpy(self.source.read(numbers))
        valid = None if self.source.complete else ~values.isnan()
        frames = self.scaling.scale(values if valid is None else values.where(valid, torch.tensor(0.0)))
        if self.cut:
            frames = frames.clamp(0, 1)
        if valid is None:
            sample: Sample = {"frames": frames, "index": index}
        else:
            sample = {"frames": frames.where(valid, torch.tensor(0.0)), "index": index, "valid": valid}
        if self.source.times is not None:
            sample["times"] = torch.from_numpy(self.source.times[numbers])
        return sample
