"""Frame sources: frames by index, whatever the format, in physical units, NaN where there is no data.

A source opens its files on first use in each process, so that worker processes never share a handle.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from framecast.data.cache import Index, kept_index
from framecast.data.georeference import Georeference, georeference_from_dict
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
        values: (C, H, W) float32 in the unit, NaN where there is no data.
        time: seconds since 1970 UTC for which the frame holds; of an accumulation, its end.
        unit: physical unit of the values, such as "mm/h".
        product: see ``FrameHeader``.
        georeference: see ``FrameHeader``.
    """

    values: Values
    time: int
    unit: str
    product: str = ""
    georeference: Georeference | None = None

    @property
    def header(self) -> FrameHeader:
        """All but the values."""
        return FrameHeader(self.time, self.unit, self.product, self.georeference)


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


class FolderSource(FrameSource):
    """Files of one frame each, in the order of their times, read when they are asked for.

    Args:
        files: the files, in any order.
        read: reads a file.
        header: returns what a file says without its values; kept in an index between runs.
        product: the only product to take; None if there should be one.
        skip_damaged: leave out files that cannot be read, if some can, with a note that names them.

    Raises:
        DataError: files cannot be read, of which all are named; two have one time; or they hold several products, units
            or grids.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], Frame],
        header: Callable[[Path], FrameHeader],
        product: str | None = None,
        skip_damaged: bool = False,
    ) -> None:
        ordered = sorted(files)
        names = hashlib.sha256("\n".join(str(file.resolve().name) for file in ordered).encode()).hexdigest()
        folder = ordered[0].parent
        facts_of_folder = f"headers {folder.resolve()} {folder.stat().st_mtime_ns} {names} {skip_damaged}"
        index = kept_index(facts_of_folder, lambda: _headers_of(ordered, header, skip_damaged))
        ordered = [ordered[number] for number in index["readable"].tolist()]
        self.notes = index["notes"].tolist()
        headers = [json.loads(kind) for kind in index["kinds"].tolist()]
        chosen = _one_product(ordered, headers, index["kind"], folder, product)
        order = chosen[np.argsort(index["times"][chosen], kind="stable")]
        self.files, self.read_file = [ordered[number] for number in order], read
        times: Indices = index["times"][order]
        double = np.flatnonzero(np.diff(times) == 0)
        if len(double):
            pair = self.files[double[0]].name, self.files[double[0] + 1].name
            raise DataError(
                f"{folder}: {len(double)} time stamps are doubled, first in {pair[0]} and {pair[1]}: keep one of each"
            )
        self.times, self.count = times, len(times)
        facts = headers[int(index["kind"][order[0]])]
        self.unit, self.product, self.where = facts["unit"], facts["product"], str(folder)
        self.georeference = georeference_from_dict(facts["georeference"]) if facts["georeference"] else None
        self.turned = self._compare(headers, index["kind"][order])
        self.shape = self.read_file(self.files[0]).values.shape

    def _compare(self, headers: Sequence[Mapping[str, Any]], kinds: Indices) -> NDArray[np.bool_]:
        """Return which files have their rows in the other order than the first; refuse other units and grids."""
        turned = np.zeros(self.count, bool)
        for kind in np.unique(kinds).tolist():
            numbers = np.flatnonzero(kinds == kind)
            facts, path = headers[kind], self.files[numbers[0]]
            if facts["unit"] != self.unit:
                raise DataError(
                    f"{path} is in {facts['unit']} and {self.files[0].name} in {self.unit}: frames of one data set "
                    "have one unit"
                )
            place = georeference_from_dict(facts["georeference"]) if facts["georeference"] else None
            difference = place.differs(self.georeference) if place and self.georeference else ""
            if place and self.georeference and difference:
                if place.turned().differs(self.georeference):
                    raise DataError(
                        f"{path} is elsewhere than {self.files[0].name}: {difference}. Frames of one data set have "
                        "one grid"
                    )
                turned[numbers] = True
        return turned

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
        return frame.values[:, ::-1] if self.turned[number] else frame.values


def _headers_of(files: Sequence[Path], header: Callable[[Path], FrameHeader], skip_damaged: bool) -> Index:
    headers, failures = list[FrameHeader](), dict[Path, DataError]()
    for file in files:
        try:
            headers.append(header(file))
        except DataError as error:
            failures[file] = error
    if failures and not (skip_damaged and headers):
        raise damaged(failures, len(files)) from next(iter(failures.values()))
    readable = np.array([number for number, file in enumerate(files) if file not in failures], np.int64)
    kinds, kind = np.unique([header.kind for header in headers], return_inverse=True)
    times = np.array([header.time for header in headers], np.int64)
    notes = np.array(left_out(failures) if failures else [], str)
    return {"times": times, "kinds": kinds, "kind": kind, "readable": readable, "notes": notes}


def left_out(failures: Mapping[Path, DataError]) -> list[str]:
    """Return the note on files that were left out because they cannot be read."""
    first, *more = failures
    suffix = f"; so are {', '.join(file.name for file in more)}" if more else ""
    return [f"{first.name} is left out, as it cannot be read: {failures[first]}{suffix}"]


def damaged(failures: Mapping[Path, DataError], count: int) -> DataError:
    """Return one error for all files that cannot be read.

    Args:
        failures: file -> what is wrong with it.
        count: of all files.
    """
    first, *more_failures = failures
    suffix = f"; nor can {', '.join(file.name for file in more_failures)}" if more_failures else ""
    return DataError(
        f"{failures[first]}{suffix}: fetch or remove what is damaged ({len(failures)} of {count} files), or leave it "
        "out with framecast data convert"
    )


def _one_product(
    files: Sequence[Path], headers: Sequence[Mapping[str, Any]], kinds: Indices, folder: Path, product: str | None
) -> Indices:
    """Return the numbers of the files of the product asked for, or of the only one.

    Raises:
        DataError: there are several and none is asked for, or none of that name.
    """
    products = np.array([headers[kind]["product"] for kind in kinds.tolist()])
    examples = {str(name): files[int(np.flatnonzero(products == name)[0])].name for name in np.unique(products)}
    listing = ", ".join(f"{name or 'unnamed'} ({example})" for name, example in examples.items())
    if product is not None:
        matching = [name for name in examples if name == product] or [n for n in examples if n.split(" ")[0] == product]
        if len(matching) != 1:
            raise DataError(f"{folder} has no product {product!r}: it has {listing}")
        return np.flatnonzero(products == matching[0])
    if len(examples) > 1:
        raise DataError(f"{folder} holds {len(examples)} products, which do not mix: {listing}. Choose one: product=")
    return np.arange(len(files), dtype=np.int64)


class FileSource(FrameSource):
    """The frames of one file: what is known of them comes from an index, and the file is opened to read frames.

    Args:
        opener: opens the file.
        facts: what ``source_facts`` returned of it.
        times: of its frames, or None.
    """

    def __init__(self, opener: Callable[[], FrameSource], facts: Mapping[str, Any], times: Indices | None) -> None:
        self._source: PerProcess[FrameSource] = PerProcess(opener)
        self.times, self.count, self.shape = times, facts["count"], tuple(facts["shape"])
        self.complete, self.where, self.unit = facts["complete"], facts["where"], facts["unit"]
        self.interval, self.pixels, self.notes = facts["interval"], facts["pixels"], facts["notes"]
        self.packing = Packing(**{**facts["packing"], "missing": tuple(facts["packing"]["missing"])})
        self.product, self.unpacked = facts["product"], facts["unpacked"]
        self.georeference = georeference_from_dict(facts["georeference"]) if facts["georeference"] else None
        self._sequences = [range(*ends) for ends in facts["sequences"]]

    @property
    def sequences(self) -> list[range]:
        """The sequences of the file."""
        return self._sequences

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return self._source.get().read(numbers)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def source_facts(source: FrameSource) -> dict[str, Any]:
    """Return all that is known of a source but its times, as plain values for ``FileSource``."""
    names = ("count", "shape", "complete", "where", "unit", "interval", "pixels", "product", "unpacked")
    return {
        **{name: getattr(source, name) for name in names},
        "notes": list(source.notes),
        "packing": asdict(source.packing),
        "georeference": source.georeference.to_dict() if source.georeference else None,
        "sequences": [(frames.start, frames.stop) for frames in source.sequences],
    }


MOST_OPEN = 64
"""Files that are kept open at a time."""
NOTED = 20


class JoinedSource(FrameSource):
    """Sources joined: in the order of time one sequence, without time stamps one each.

    Of frames with one time stamp in several parts, the first part's is kept. Parts of a single frame without a time
    are one sequence in the order given.

    Args:
        parts: the sources.

    Raises:
        DataError: frames differ in size, channels, unit, product or place; some have time stamps and some not.
    """

    def __init__(self, parts: Sequence[FrameSource]) -> None:
        if not parts:
            raise DataError("there are no frames to join")
        # By their first time stamp; a stable sort leaves the order of those without.
        ordered = sorted(parts, key=lambda part: part.times[0] if part.times is not None and part.count else 0)
        first = ordered[0]
        self.parts = [first, *(check_alike(first, part) for part in ordered[1:])]
        self.where, self.unit, self.packing, self.pixels = first.where, first.unit, first.packing, first.pixels
        self.shape, self.product, self.georeference = first.shape, first.product, first.georeference
        self.complete = all(part.complete for part in parts)
        self.unpacked = max(part.unpacked for part in parts)
        # What the first files say stands for all that say the same.
        self.notes = list(dict.fromkeys(note for part in self.parts[:NOTED] for note in part.notes))
        self.starts = np.cumsum([0, *(part.count for part in self.parts)])
        self.owners = np.repeat(np.arange(len(parts)), [part.count for part in self.parts])
        self.places = np.concatenate([np.arange(part.count, dtype=np.int64) for part in self.parts])
        stamps = [part.times for part in self.parts if part.times is not None]
        self.times = np.concatenate(stamps) if stamps else None
        if self.times is not None:
            self._sort_by_time()
        turned = [part.where for part in self.parts if isinstance(part, TurnedSource)]
        if turned:
            note = f"the rows of {len(turned)} files, first {turned[0]}, are turned as in {first.where}"
            self.notes = [*self.notes, note]
        self.count = len(self.owners)
        self.interval = self._common_interval()
        self._open: list[FrameSource] = []

    def _sort_by_time(self) -> None:
        assert self.times is not None
        order = np.argsort(self.times, kind="stable")
        double = np.flatnonzero(np.diff(self.times[order]) == 0)
        if len(double):
            pair = [self.parts[self.owners[order[double[0] + n]]].where for n in (0, 1)]
            stamp = np.datetime64(int(self.times[order[double[0]]]), "s")
            self.notes = [
                *self.notes,
                f"{len(double)} time stamps stand in two files, first {stamp} in {pair[0]} and {pair[1]}: the frame of "
                "the first file is taken; time='none' takes files as recordings of their own",
            ]
            order = np.delete(order, double + 1)
        self.owners, self.places, self.times = self.owners[order], self.places[order], self.times[order]

    def _common_interval(self) -> float | None:
        intervals = sorted({part.interval for part in self.parts if part.interval is not None})
        if not intervals or intervals[-1] < 1.01 * intervals[0]:
            return self.parts[0].interval
        note = f"files have frames {intervals[0]:g} to {intervals[-1]:g} s apart: a model learns all paces as one"
        self.notes = [*self.notes, note]
        return None

    @property
    def sequences(self) -> list[range]:
        """One sequence if there is time, or one frame a part; otherwise those of the parts."""
        if self.times is not None or all(part.count == 1 for part in self.parts):
            return [range(self.count)]
        return [
            range(start + frames.start, start + frames.stop)
            for start, part in zip(self.starts.tolist(), self.parts, strict=False)
            for frames in part.sequences
        ]

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers, with few files open at a time."""
        frames = np.empty((len(numbers), *self.shape), np.float32)
        owners = self.owners[numbers]
        for owner in np.unique(owners).tolist():
            chosen = owners == owner
            frames[chosen] = self.parts[owner].read(self.places[numbers[chosen]])
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


def check_alike(first: FrameSource, other: FrameSource) -> FrameSource:
    """Return ``other`` such that it may be joined to ``first``: with its rows turned if need be.

    Raises:
        DataError: they differ in size, channels, unit, product or place, or one has times and one has not.
    """
    if other.shape != first.shape:
        expected, actual = (f"{channels} x {height}x{width}" for channels, height, width in (first.shape, other.shape))
        raise DataError(
            f"{first.where} has frames of {expected} and {other.where} of {actual}: frames of a data set have one "
            "size; pictures and videos are resized with size="
        )
    if other.unit != first.unit:
        raise DataError(f"{first.where} is in {first.unit} and {other.where} in {other.unit}: convert one of them")
    if other.product != first.product:
        raise DataError(
            f"{first.where} is {first.product or 'of no named product'} and {other.where} "
            f"{other.product or 'of no named product'}: products do not mix, choose one with product="
        )
    if (other.times is None) != (first.times is None):
        timed, untimed = (first, other) if other.times is None else (other, first)
        raise DataError(f"{timed.where} has time stamps and {untimed.where} has none: give time='none' to ignore them")
    return placed_like(other, first.georeference, first.where)
