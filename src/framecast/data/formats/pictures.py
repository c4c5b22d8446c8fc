"""Frames as pictures: folders of PNG files in the natural order of their names, and GIFs.

Natural order counts: frame_2 comes before frame_10. Grey and colour pictures of 8 or 16 bits become intensities
in [0, 1]; a resize is bilinear, anti-aliased where it shrinks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch.nn import functional as F

from framecast.data.packing import Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions
from framecast.errors import DataError
from framecast.untrusted import check_size, reading

MODES = {1: "L", 3: "RGB"}
GREY_MODES = ("1", "L", "LA", "I", "F")
MOST_HEADERS = 10_000
MOST_PER_BYTE = 4096
"""Pixels that a byte of a GIF may stand for; a code of 12 bits stands for some 4000 at best."""
SMALL_GIF = 4_000_000


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a sort key by which frame_2 comes before frame_10."""
    return [(int(part or 0), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


class PictureFolder(FrameSource):
    """The PNG files of a folder, each a frame."""

    pixels = True

    def __init__(self, files: Sequence[Path], options: ReadOptions) -> None:
        self.files, self.options, self.where = sorted(files, key=natural_order), options, str(files[0].parent)
        self.count, self.times = len(self.files), None
        first = _opened(self.files[0], _facts)
        channels = options.channels or first[1]
        if channels not in MODES:
            raise DataError(f"{self.where}: pictures have 1 or 3 channels and {channels} are asked for")
        self.channels = channels
        self.shape = (channels, *(options.size or first[0]))
        self.complete = options.nodata is None
        if options.size is None:
            self._check_sizes(first[0])

    def _check_sizes(self, first: tuple[int, int]) -> None:
        sizes = {first}
        for file in self.files[:: len(self.files) // MOST_HEADERS + 1]:
            sizes.add(_opened(file, _facts)[0])
        if len(sizes) > 1:
            listing = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
            raise DataError(f"{self.where} holds pictures of {listing}: frames have one size; resize with size=")

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.stack([self._frame(self.files[number]) for number in numbers.tolist()])

    def _frame(self, file: Path) -> Values:
        frame: Values = _opened(file, partial(_values, channels=self.channels, options=self.options))
        if frame.shape != self.shape:
            raise DataError(f"{file} is {frame.shape} and the first picture {self.shape}: frames have one size")
        return frame


class Gif(FrameSource):
    """The frames of a GIF, which is read into memory whole."""

    pixels = True

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self.where, self.times = str(path), None
        self._frames: PerProcess[Values] = PerProcess(partial(_gif, path, options))
        frames = self._frames.get()
        self.count, self.shape = len(frames), frames.shape[1:]
        self.complete = options.nodata is None

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.asarray(self._frames.get()[numbers])


def open_gif(path: Path, options: ReadOptions) -> FrameSource:
    """Open a GIF.

    Raises:
        DataError: it cannot be read.
    """
    return Gif(path, options)


def _gif(path: Path, options: ReadOptions) -> Values:
    values_of_frames: list[Values] = []
    with reading(path, "cannot be read as a GIF"), Image.open(path, formats=["GIF"]) as image:
        for frame in ImageSequence.Iterator(image):
            _check_gif(path, len(values_of_frames) + 1, frame)
            values_of_frames.append(_values(frame, options.channels or 3, options))
        frames = np.stack(values_of_frames)
    # A GIF has a palette of colours, also where all of them are grey.
    grey = options.channels is None and np.array_equal(frames[:, :1].repeat(3, 1), frames, equal_nan=True)
    return frames[:, :1] if grey else frames


def _check_gif(path: Path, frames: int, frame: Image.Image) -> None:
    """Refuse frames, those read so far and this one, that are larger than the file can hold."""
    check_size(f"{path}, frames read so far:", frames, frame.height, frame.width, 3, itemsize=4)
    pixels = frames * frame.height * frame.width
    if pixels > max(SMALL_GIF, MOST_PER_BYTE * path.stat().st_size):
        raise DataError(
            f"{path} makes {frames} frames of {frame.height}x{frame.width} of {path.stat().st_size} bytes, over "
            f"{MOST_PER_BYTE} pixels a byte: it is damaged; if it is not, save it as PNG files"
        )


def _opened(file: Path, look: Any) -> Any:
    with reading(file, "cannot be read as a picture"):
        with Image.open(file, formats=["PNG"]) as image:
            check_size(file, image.height, image.width, 3, itemsize=4)
            # Pillow looks at checksums here only, and the picture cannot be used after it.
            image.verify()
        with Image.open(file, formats=["PNG"]) as image:
            return look(image)


def _facts(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Return (H, W) and the channels."""
    return (image.height, image.width), 1 if image.mode.split(";")[0] in GREY_MODES else 3


def _values(image: Image.Image, channels: int, options: ReadOptions) -> Values:
    """Return intensities (C, H, W) in [0, 1]."""
    if channels not in MODES:
        raise DataError(f"pictures have 1 or 3 channels and {channels} are asked for: give an array instead")
    if image.mode.startswith("I") and channels == 1:
        # Pillow cuts 16-bit grey at 255 when it converts it.
        stored, top = np.asarray(image), 65_535
    else:
        stored, top = np.asarray(image.convert(MODES[channels])), 255
    stored = stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)
    values = (stored / top).astype(np.float32)
    if options.nodata is not None:
        values[stored == options.nodata] = np.nan
    return resize_frames(values, options.size)


def resize_frames(values: NDArray[np.float32], size: tuple[int, int] | None) -> Values:
    """Return frames (..., C, H, W) resized in one bilinear interpolation, anti-aliased where it shrinks."""
    if size is None or values.shape[-2:] == size:
        return values
    frames = torch.from_numpy(np.ascontiguousarray(values)).reshape(-1, *values.shape[-3:])
    resized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(resized.reshape(*values.shape[:-2], *size).numpy())
