"""Many files as one source: a folder of files of one frame each, and files joined in the order of their times.

What each file says without its values is remembered between runs, so that later starts open no file before its frames
are asked for; few are open at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.data.cache import Index, kept_index
from framecast.data.georeference import georeference_from_dict
from framecast.data.packing import Packing, Values
from framecast.data.sources import (
    Frame,
    FrameHeader,
    FrameSource,
    Indices,
    PerProcess,
    TurnedSource,
    placed_like,
)
from framecast.errors import DataError


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
        numbers = _one_product(ordered, headers, index["kind"], folder, product)
        order = numbers[np.argsort(index["times"][numbers], kind="stable")]
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
        if frame.values.shape != self.shape or frame.header.unit != self.unit:
            raise DataError(
                f"{path} is {frame.values.shape} in {frame.header.unit} and {self.files[0].name} is {self.shape} in "
                f"{self.unit}: frames of one data set have one size and unit"
            )
        if frame.header.time != self.times[number]:
            raise DataError(
                f"{path} holds for {np.datetime64(frame.header.time, 's')} and the index says "
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
            mask = owners == owner
            frames[mask] = self.parts[owner].read(self.places[numbers[mask]])
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
