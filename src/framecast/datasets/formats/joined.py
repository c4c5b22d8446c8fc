"""Several sources of frames as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framecast.datasets.formats.layout import FileSource
from framecast.datasets.windows import FrameSource, Numbers, Values
from framecast.errors import DataError

MOST_OPEN = 64
"""Files that are kept open at a time."""


class JoinedSource(FrameSource):
    """Sources one after the other: one sequence where their times go on, else each its own.

    Args:
        parts: the sources.
        crop: first row, one after the last, first column, one after the last; None keeps all.

    Raises:
        DataError: the crop lies outside; frames differ in size, channels or unit; some have time stamps and some not.
    """

    def __init__(self, parts: Sequence[FileSource], crop: tuple[int, int, int, int] | None = None) -> None:
        if not parts:
            raise DataError("there are no frames to join")
        for part in parts[1:]:
            check_alike(parts[0], part)
        # By their first time stamp; a stable sort leaves the order of those without.
        self.parts = sorted(parts, key=lambda part: part.times[0] if part.times is not None and part.count else 0)
        self.unit = parts[0].unit
        self.complete = all(part.complete for part in parts)
        channels, height, width = parts[0].shape
        top, bottom, left, right = crop or (0, height, 0, width)
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(f"crop {crop} (rows from, to, columns from, to) lies outside of {height}x{width}")
        self.inside = (..., slice(top, bottom), slice(left, right))
        self.shape = (channels, bottom - top, right - left)
        self.starts = np.cumsum([0, *(part.count for part in self.parts)])
        self.count = int(self.starts[-1])
        stamps = [part.times for part in self.parts if part.times is not None]
        self.times = np.concatenate(stamps) if stamps else None
        self._open: list[FileSource] = []

    @property
    def sequences(self) -> list[range]:
        """One sequence where time goes on over all parts, else those of the parts."""
        if self.times is not None and bool((np.diff(self.times) > 0).all()):
            return [range(self.count)]
        return [
            range(start + frames.start, start + frames.stop)
            for start, part in zip(self.starts.tolist(), self.parts, strict=False)
            for frames in part.sequences
        ]

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers, with few files open at a time."""
        frames = np.empty((len(numbers), *self.shape), np.float32)
        owners = np.searchsorted(self.starts, numbers, side="right") - 1
        for owner in np.unique(owners).tolist():
            chosen = owners == owner
            frames[chosen] = self.parts[owner].read(numbers[chosen] - self.starts[owner])[self.inside]
            self._keep_open(self.parts[owner])
        return frames

    def _keep_open(self, part: FileSource) -> None:
        self._open = [*(other for other in self._open if other is not part), part]
        if len(self._open) > MOST_OPEN:
            self._open.pop(0).close()

    def close(self) -> None:
        """Close every part."""
        for part in self._open:
            part.close()
        self._open = []


def check_alike(first: FileSource, other: FileSource) -> None:
    """Refuse to join frames of different size, channels or unit, or timed with untimed ones.

    Raises:
        DataError: they differ.
    """
    if other.shape != first.shape:
        mine, theirs = (f"{channels} x {height}x{width}" for channels, height, width in (first.shape, other.shape))
        raise DataError(
            f"{first.where} has frames of {mine} and {other.where} of {theirs}: frames of a data set have one size; "
            "pictures and videos are resized with size="
        )
    if other.unit != first.unit:
        raise DataError(f"{first.where} is in {first.unit} and {other.where} in {other.unit}: convert one of them")
    if (other.times is None) != (first.times is None):
        timed, untimed = (first, other) if other.times is None else (other, first)
        raise DataError(f"{timed.where} has time stamps and {untimed.where} has none: give time='none' to ignore them")
