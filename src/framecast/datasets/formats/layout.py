"""Frames in files of one's own: how they are to be read, and what every source of them tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from framecast.datasets.formats.packing import Packing
from framecast.datasets.windows import FrameSource, Numbers, Values


@dataclass(frozen=True)
class Layout:
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


class FileSource(FrameSource):
    """Frames of a file or folder of one's own.

    Attributes:
        where: the file and variable, for messages.
        unit: physical unit of the values; "1" for pixels, whose 0 to 255 become 0 to 1.
        interval: seconds between frames that have no time stamps, such as a video's; None where unknown.
        packing: how the numbers are stored.
        pixels: whether the values are intensities divided by the largest of their type.
        notes: what was decided while opening that the user should know.
    """

    where: str
    unit: str = "1"
    interval: float | None = None
    packing: Packing = Packing()
    pixels: bool = False
    notes: Sequence[str] = ()


def read_in_runs(numbers: Numbers, read: Callable[[int, slice], Values], length: int) -> Values:
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
