"""Frame sources: frames by index, whatever the format, in physical units, NaN where there is no data.

A source opens its files on first use in each process, so that worker processes never share a handle.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from framecast.data.cache import kept_index
from framecast.data.grid import Grid
from framecast.data.packing import Packing, Values
from framecast.data.scaling import Scaling
from framecast.errors import DataError

Indices = NDArray[np.int64]


class Frame(NamedTuple):
    """One frame of one file, as the readers of ``framecast.registry.FORMATS`` return it.

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
        where: the file and variable, for messages.
        unit: physical unit of the values; "1" for pixels, whose 0 to 255 become 0 to 1.
        interval: seconds between frames that have no time stamps, such as a video's; None where unknown.
        packing: how the numbers are stored.
        pixels: whether the values are intensities divided by the largest of their type.
        notes: what was decided while opening that the user should know.
    """

    times: Indices | None
    shape: tuple[int, int, int]
    count: int
    complete: bool = False
    where: str = "the frames"
    unit: str = "1"
    interval: float | None = None
    packing: Packing = Packing()
    pixels: bool = False
    notes: Sequence[str] = ()

    @property
    def sequences(self) -> list[range]:
        """Runs of frames that belong together, such as one video; no clip spans two of them."""
        return [range(self.count)]

    @abstractmethod
    def read(self, numbers: Indices) -> Values:
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

    def __init__(self, frames: NDArray[Any], times: Indices | None = None) -> None:
        self.frames, self.times = frames, None if times is None else check_times(times, "the array")
        self.count, self.shape = len(frames), frames.shape[1:]

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.asarray(self.frames[numbers], np.float32)


def check_times(times: NDArray[Any], where: str) -> Indices:
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


@dataclass(frozen=True)
class ReadOptions:
    """How files are to be read, where they do not say it themselves.

    Attributes:
        variable: name of the array in a file of several.
        time: name of the time axis or of the array of time stamps; "none" takes frames as equally spaced.
        y: name of the axis of rows.
        x: name of the axis of columns.
        channel: name of the axis of channels.
        axes: the axes of an array by letters, such as "NTCHW" or "THWC".
        channels: 1 for grey, 3 for colour; None as the file has them.
        size: (H, W) to which pictures and videos are resized, or None.
        nodata: a stored number that means no data.
        unit: unit of the values, instead of the one the file gives.
    """

    variable: str | None = None
    time: str | None = None
    y: str | None = None
    x: str | None = None
    channel: str | None = None
    axes: str | None = None
    channels: int | None = None
    size: tuple[int, int] | None = None
    nodata: float | None = None
    unit: str | None = None


def read_in_runs(numbers: Indices, read: Callable[[int, slice], Values], length: int) -> Values:
    """Read frames by as few slices as sense allows.

    Args:
        numbers: the frames, counted over all sequences.
        read: ``(sequence, slice of its frames)`` to frames (T, C, H, W).
        length: frames of each sequence.
    """
    sequences, places = np.divmod(numbers, length)
    steps = np.diff(numbers)
    if len(numbers) and sequences[0] == sequences[-1] and (steps > 0).all() and (steps == steps[:1]).all():
        step = int(steps[0]) if len(steps) else 1
        return read(int(sequences[0]), slice(int(places[0]), int(places[-1]) + 1, step))
    pairs = zip(sequences.tolist(), places.tolist(), strict=True)
    return np.concatenate([read(sequence, slice(place, place + 1)) for sequence, place in pairs])


T = TypeVar("T")


class PerProcess(Generic[T]):
    """What ``opener`` returns, opened once in each process, forked ones included.

    Args:
        opener: opens it; must be picklable where worker processes are spawned.
    """

    def __init__(self, opener: Callable[[], T]) -> None:
        self._opener = opener
        self._content: T | None = None
        self._owner: int | None = None

    def get(self) -> T:
        """Return it, opened in this process."""
        if self._content is None or self._owner != os.getpid():
            self._content, self._owner = self._opener(), os.getpid()
        return self._content

    def close(self) -> None:
        """Close what this process has opened; it is opened again on demand."""
        if self._content is not None and self._owner == os.getpid():
            close = getattr(self._content, "close", None)
            if close is not None:
                close()
        self._content = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handle behind when another process gets a copy."""
        return {"_opener": self._opener, "_content": None, "_owner": None}


CACHE_BYTES = 512 * 1024 * 1024


class DerivedSource(FrameSource):
    """Frames of another source, changed on the way; what is known of that source is known of this one."""

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.times, self.count, self.shape, self.complete = source.times, source.count, source.shape, source.complete
        self.where, self.unit, self.interval = source.where, source.unit, source.interval
        self.packing, self.pixels, self.notes = source.packing, source.pixels, source.notes

    @property
    def sequences(self) -> list[range]:
        """The sequences of the other source."""
        return self.source.sequences

    def close(self) -> None:
        """Close what was opened in this process."""
        self.source.close()


class GriddedSource(DerivedSource):
    """Frames of another source, cropped and brought to another grid."""

    def __init__(self, source: FrameSource, grid: Grid, scaling: Scaling) -> None:
        super().__init__(source)
        self.grid, self.scaling = grid, scaling
        channels, height, width = source.shape
        self.shape = (channels, *grid.shape(height, width))

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return self.grid.apply(self.source.read(numbers), self.scaling)


class DrySource(DerivedSource):
    """Frames of another source with zeros where there is no data, as the released code takes them."""

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.nan_to_num(self.source.read(numbers))


class CachedSource(DerivedSource):
    """Frames of another source, the last read ones kept in memory up to a limit in bytes, per process."""

    def __init__(self, source: FrameSource, limit: int = CACHE_BYTES) -> None:
        super().__init__(source)
        self.limit = limit
        self.frames: OrderedDict[int, Values] = OrderedDict()

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        for number in (int(number) for number in numbers):
            if number not in self.frames:
                self.frames[number] = self.source.read(np.array([number]))[0]
            self.frames.move_to_end(number)
        frames = np.stack([self.frames[int(number)] for number in numbers])
        while len(self.frames) * frames[0].nbytes > self.limit:
            self.frames.popitem(last=False)
        return frames

    def close(self) -> None:
        """Forget the frames and close what was opened in this process."""
        self.frames.clear()
        self.source.close()


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
        times: Indices = index["times"][order]
        double = np.flatnonzero(np.diff(times) == 0)
        if len(double):
            pair = self.files[double[0]].name, self.files[double[0] + 1].name
            raise DataError(
                f"{folder}: {len(double)} time stamps are doubled, first in {pair[0]} and {pair[1]}: keep one of each"
            )
        self.times, self.count = times, len(times)
        first = self.read_file(self.files[0])
        self.shape, self.unit, self.where = first.values.shape, first.unit, str(folder)

    def read(self, numbers: Indices) -> Values:
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


def _times_of(files: Sequence[Path], when: Callable[[Path], int]) -> Indices:
    times, failures = list[int](), dict[Path, DataError]()
    for file in files:
        try:
            times.append(when(file))
        except DataError as error:
            failures[file] = error
    if failures:
        first, *more_failures = failures
        suffix = f"; nor can {', '.join(file.name for file in more_failures)}" if more_failures else ""
        raise DataError(
            f"{failures[first]}{suffix}: fetch or remove what is damaged ({len(failures)} of {len(files)} files), or "
            "leave it out with framecast data convert"
        ) from failures[first]
    return np.array(times, np.int64)


MOST_OPEN = 64
"""Files that are kept open at a time."""
NOTED = 20


class JoinedSource(FrameSource):
    """Sources joined in order: one sequence where their times continue, otherwise one each.

    Args:
        parts: the sources.

    Raises:
        DataError: frames differ in size, channels or unit; some have time stamps and some not.
    """

    def __init__(self, parts: Sequence[FrameSource]) -> None:
        if not parts:
            raise DataError("there are no frames to join")
        for part in parts[1:]:
            check_alike(parts[0], part)
        # By their first time stamp; a stable sort leaves the order of those without.
        self.parts = sorted(parts, key=lambda part: part.times[0] if part.times is not None and part.count else 0)
        first = self.parts[0]
        self.where, self.unit, self.interval, self.packing = first.where, first.unit, first.interval, first.packing
        self.pixels, self.shape = first.pixels, first.shape
        self.complete = all(part.complete for part in parts)
        # What the first files say stands for all that say the same.
        self.notes = list(dict.fromkeys(note for part in self.parts[:NOTED] for note in part.notes))
        self.starts = np.cumsum([0, *(part.count for part in self.parts)])
        self.count = int(self.starts[-1])
        stamps = [part.times for part in self.parts if part.times is not None]
        self.times = np.concatenate(stamps) if stamps else None
        self._open: list[FrameSource] = []

    @property
    def sequences(self) -> list[range]:
        """One sequence if time continues over all parts, otherwise those of the parts."""
        if self.times is not None and bool((np.diff(self.times) > 0).all()):
            return [range(self.count)]
        return [
            range(start + frames.start, start + frames.stop)
            for start, part in zip(self.starts.tolist(), self.parts, strict=False)
            for frames in part.sequences
        ]

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers, with few files open at a time."""
        frames = np.empty((len(numbers), *self.shape), np.float32)
        owners = np.searchsorted(self.starts, numbers, side="right") - 1
        for owner in np.unique(owners).tolist():
            chosen = owners == owner
            frames[chosen] = self.parts[owner].read(numbers[chosen] - self.starts[owner])
            self._keep_open(self.parts[owner])
        return frames

    def _keep_open(self, part: FrameSource) -> None:
        self._open = [*(other for other in self._open if other is not part), part]
        if len(self._open) > MOST_OPEN:
            self._open.pop(0).close()

    def close(self) -> None:
        """Close every part."""
        for part in self._open:
            part.close()
        self._open = []


def check_alike(first: FrameSource, other: FrameSource) -> None:
    """Refuse to join frames of different size, channels or unit, or timed with untimed ones.

    Raises:
        DataError: they differ.
    """
    if other.shape != first.shape:
        expected, actual = (f"{channels} x {height}x{width}" for channels, height, width in (first.shape, other.shape))
        raise DataError(
            f"{first.where} has frames of {expected} and {other.where} of {actual}: frames of a data set have one "
            "size; pictures and videos are resized with size="
        )
    if other.unit != first.unit:
        raise DataError(f"{first.where} is in {first.unit} and {other.where} in {other.unit}: convert one of them")
    if (other.times is None) != (first.times is None):
        timed, untimed = (first, other) if other.times is None else (other, first)
        raise DataError(f"{timed.where} has time stamps and {untimed.where} has none: give time='none' to ignore them")
