"""Frame sources: frames by index, whatever the format, in physical units, NaN where there is no data.

A source opens its files on first use in each process, so that worker processes never share a handle.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from framecast.data.georeference import Georeference
from framecast.data.grid import Grid
from framecast.data.packing import Packing, Values
from framecast.data.scaling import Scaling
from framecast.errors import DataError

Indices = NDArray[np.int64]


class FrameHeader(NamedTuple):
    """What is known of one frame of one file without its values.

    Attributes:
        time: seconds since 1970 UTC for which the frame holds; of an accumulation, its end.
        unit: physical unit of the values, such as "mm/h".
        product: what was measured, and over how long where that matters, such as "ACRR 3600 s"; frames of different
            products are never mixed. "" where the file does not say.
        georeference: where the pixels are, or None where the file does not say.
    """

    time: int
    unit: str
    product: str = ""
    georeference: Georeference | None = None

    @property
    def kind(self) -> str:
        """All but the time, as text: equal for frames that belong together."""
        place = self.georeference.to_dict() if self.georeference else None
        return json.dumps({"unit": self.unit, "product": self.product, "georeference": place})


class Frame(NamedTuple):
    """One frame of one file, as the readers of ``framecast.registry.FORMATS`` return it.

    Attributes:
        values: (C, H, W) float32 in the header's unit, NaN where there is no data.
        header: all else that is known of it.
    """

    values: Values
    header: FrameHeader


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
        product: what was measured, see ``FrameHeader``.
        georeference: where the pixels are, or None where the files do not say.
        unpacked: how many frames' worth of numbers are unpacked to read one, as the file is cut into pieces.
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
    product: str = ""
    georeference: Georeference | None = None
    unpacked: int = 1

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


def check_some_data(source: FrameSource, numbers: Indices, where: str) -> None:
    """Refuse frames without a single value: it is looked for in more and more of them.

    Raises:
        DataError: all of them are NaN.
    """
    if source.complete or not len(numbers):
        return
    stride = 4 * len(numbers)
    while stride > 1:
        stride = max(1, stride // 4)
        for number in numbers[stride // 2 :: stride]:
            if np.isfinite(source.read(np.array([number]))).any():
                return
    raise DataError(f"{where}: the training part has no data at all, only NaN or numbers that mean no data")


@dataclass(frozen=True)
class ReadOptions:
    """How files are to be read, where they do not say it themselves.

    Attributes:
        variable: name of the array in a file of several.
        time: name of the time axis or of the array of time stamps; a pattern of file names with % such as
            "radar_%Y%m%d%H%M"; "none" takes frames as equally spaced.
        y: name of the axis of rows.
        x: name of the axis of columns.
        channel: name of the axis of channels.
        axes: the axes of an array by letters, such as "NTCHW" or "THWC".
        channels: 1 for grey, 3 for colour; None as the file has them.
        size: (H, W) to which pictures and videos are resized, or None.
        nodata: a stored number that means no data.
        unit: unit of the values, instead of the one the file gives.
        tolerance: seconds by which a time stamp may be wrong.
        select: axis -> the value of its coordinate, or its number where it has none; takes one of several.
        product: which of several products in a folder, such as "RATE".
        reader: an importer of pysteps such as "pysteps:bom_rf3", instead of the reader for the file's name.
        reader_options: arguments of that importer.
        skip_damaged: leave files of a folder out that cannot be read, with a note that names them, instead of refusing
            the folder.
        assumed: which of these were not asked for but are those of a training, and so are left out by readers that
            have no use for them.
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
    tolerance: int = 0
    select: Mapping[str, Any] | None = None
    product: str | None = None
    reader: str | None = None
    reader_options: Mapping[str, Any] | None = None
    skip_damaged: bool = False
    assumed: frozenset[str] = frozenset()

    def refuse_all_but(self, used: Sequence[str], where: str) -> None:
        """Refuse options that a reader has no use for, rather than to ignore them.

        Args:
            used: the options that it follows; "time" where it may name an axis or array, as "none" and patterns of file
                names do their part for every reader. So do those of ``EVERYWHERE``.
            where: the file, for the message.

        Raises:
            DataError: one that is given is neither.
        """
        present = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        unused = [name for name in present if name not in (*used, *EVERYWHERE, *self.assumed)]
        if self.time is not None and (self.time == "none" or "%" in self.time):
            unused = [name for name in unused if name != "time"]
        if unused:
            follows = ", ".join(f"{name}=" for name in used) or "none of them"
            raise DataError(
                f"{where} is read without {', '.join(f'{name}=' for name in unused)}: leave that out. Of what says how "
                f"a file is read, files of this kind follow {follows}"
            )


EVERYWHERE = ("assumed", "channels", "product", "reader", "skip_damaged", "tolerance")
"""Options that do their part whatever reads the file."""


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
        opened: what it returned, where that is at hand.
    """

    def __init__(self, opener: Callable[[], T], opened: T | None = None) -> None:
        self._opener = opener
        self._content = opened
        self._owner: int | None = os.getpid()

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
        self.product, self.georeference, self.unpacked = source.product, source.georeference, source.unpacked

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
        self.georeference = source.georeference.on(grid) if source.georeference else None

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return self.grid.apply(self.source.read(numbers), self.scaling)


class TurnedSource(DerivedSource):
    """Frames of another source with the rows in the other order."""

    def __init__(self, source: FrameSource) -> None:
        super().__init__(source)
        self.georeference = source.georeference.turned() if source.georeference else None

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.ascontiguousarray(self.source.read(numbers)[..., ::-1, :])


def placed_like(source: FrameSource, expected: Georeference | None, where: str) -> FrameSource:
    """Return a source whose pixels are where they are expected, with its rows turned if need be.

    Args:
        source: the source.
        expected: where its pixels should be; None expects nothing.
        where: what is expected there, for the message.

    Raises:
        DataError: its pixels are elsewhere; the message names both.
    """
    place = source.georeference
    difference = place.differs(expected) if place and expected else ""
    if not place or not expected or not difference:
        return source
    if not place.turned().differs(expected):
        return TurnedSource(source)
    raise DataError(f"{source.where} is elsewhere than {where}: {difference}. Give files of one grid")


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
