"""Frames as pictures: folders of PNG or JPEG files in the natural order of their names, and GIFs.

Natural order counts: frame_2 comes before frame_10; where all names tell a time, such as 202401011205, frames have it.
Grey and colour pictures of 8 or 16 bits become intensities in [0, 1]; what is transparent is laid over black, whatever
colour it hides. A resize is bilinear, anti-aliased where it shrinks. Pillow cuts colours of 16 bits to 8, so these are
decoded by PyAV (extra ``video``).
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
from PIL import Image, ImageOps, ImageSequence
from torch.nn import functional as F

from framecast.data.formats.times import times_in_names
from framecast.data.joined import damaged
from framecast.data.packing import Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions, check_times
from framecast.errors import DataError, MissingExtraError
from framecast.untrusted import check_no_pipe, check_read, check_size, reading

PICTURES = (".png", ".jpg", ".jpeg")
PICTURE_OPTIONS = ("size", "nodata")
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
    """The PNG or JPEG files of a folder, each a frame."""

    pixels = True

    def __init__(self, files: Sequence[Path], options: ReadOptions) -> None:
        options.refuse_all_but(PICTURE_OPTIONS, str(files[0].parent))
        self.files, self.options, self.where = sorted(files, key=natural_order), options, str(files[0].parent)
        self.count, self.times = len(self.files), None
        notes = self._read_names()
        first = _opened(self.files[0], _facts)
        if first[2]:
            notes.append("transparent pixels are laid over black")
        self.notes = notes
        channels = options.channels or first[1]
        if channels not in MODES:
            raise DataError(f"{self.where}: pictures have 1 or 3 channels and {channels} are asked for")
        self.channels = channels
        self.shape = (channels, *(options.size or first[0]))
        self.complete = options.nodata is None
        if options.size is None:
            self._check_sizes(first[0])

    def _read_names(self) -> list[str]:
        """Take the times that the names tell, and return a note of it."""
        if self.options.time == "none":
            return []
        pattern = self.options.time if self.options.time and "%" in self.options.time else None
        times = times_in_names([file.name for file in self.files], pattern)
        if times is None or (pattern is None and len(np.unique(times)) < len(times)):
            return []
        order = np.argsort(times, kind="stable")
        self.files, self.times = [self.files[n] for n in order], check_times(times[order], self.where)
        return ["times are those in the names of the pictures; time='none' leaves them out"]

    def _check_sizes(self, first: tuple[int, int]) -> None:
        sizes, failures = {first: self.files[0]}, dict[Path, DataError]()
        for file in self.files[:: len(self.files) // MOST_HEADERS + 1]:
            try:
                sizes.setdefault(_opened(file, _facts)[0], file)
            except DataError as error:
                failures[file] = error
        if failures:
            raise damaged(failures, self.count) from next(iter(failures.values()))
        if len(sizes) > 1:
            listing = ", ".join(f"{height}x{width} ({file})" for (height, width), file in sorted(sizes.items()))
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
        options.refuse_all_but(PICTURE_OPTIONS, str(path))
        self.where, self.times = str(path), None
        self._frames: PerProcess[Values] = PerProcess(partial(_gif, path, options))
        frames = self._frames.get()
        self.count, self.shape = len(frames), frames.shape[1:]
        self.complete = options.nodata is None
        self.interval, self.notes = None, []
        with reading(path), Image.open(path, formats=["GIF"]) as image:
            if "transparency" in image.info:
                self.notes = ["transparent pixels are laid over black"]
            paces = {frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)}
        if len(paces) == 1 and min(paces) > 0:
            self.interval = min(paces) / 1000
        elif len(paces) > 1:
            self.notes.append(
                f"frames are shown for {min(paces):g} to {max(paces):g} ms: they are taken as of one pace"
            )

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
            check_gif(path, len(values_of_frames) + 1, frame.height, frame.width)
            values_of_frames.append(_values(frame, options.channels or 3, options))
        frames = np.stack(values_of_frames)
    # A GIF has a palette of colours, also where all of them are grey.
    grey = options.channels is None and np.array_equal(frames[:, :1].repeat(3, 1), frames, equal_nan=True)
    return frames[:, :1] if grey else frames


def check_gif(path: Path, frames: int, height: int, width: int) -> None:
    """Refuse frames, those read so far and the next one, that are larger than the file can hold.

    Raises:
        DataError: they are.
    """
    check_size(f"{path}, frames read so far:", frames, height, width, 3, itemsize=4)
    pixels = frames * height * width
    if pixels > max(SMALL_GIF, MOST_PER_BYTE * path.stat().st_size):
        raise DataError(
            f"{path} makes {frames} frames of {height}x{width} of {path.stat().st_size} bytes, over "
            f"{MOST_PER_BYTE} pixels a byte: it is damaged; if it is not, save it as PNG files"
        )


def _opened(file: Path, look: Any) -> Any:
    check_no_pipe(file)
    with reading(file, "cannot be read as a picture"):
        with Image.open(file, formats=["PNG", "JPEG"]) as image:
            check_read(file, image.height, image.width, 3)
            # Pillow looks at checksums here only, and the picture cannot be used after it.
            image.verify()
        with Image.open(file, formats=["PNG", "JPEG"]) as image:
            # Cameras say how a picture is to be turned.
            return look(ImageOps.exif_transpose(image) if image.format == "JPEG" else image)


def _facts(image: Image.Image) -> tuple[tuple[int, int], int, bool]:
    """Return (H, W), the channels, and whether pixels may be transparent."""
    grey = image.mode.split(";")[0] in GREY_MODES or _depth_and_kind(image)[1] in (0, 4)
    clear = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    return (image.height, image.width), 1 if grey else 3, clear


def _depth_and_kind(image: Image.Image) -> tuple[int, int]:
    """Return the bits of a sample and the colour type that a PNG declares, (8, -1) of others."""
    name = getattr(image, "filename", "")
    if image.format != "PNG" or not name:
        return 8, -1
    with Path(name).open("rb") as file:
        start = file.read(26)
    return start[24], start[25]


def _deep(image: Image.Image, channels: int) -> NDArray[np.uint16]:
    """Return (C, H, W) of a PNG of 16 bits in colour or with transparency, laid over black."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", f"reading {image.filename}, a PNG of 16 bits in colour") from error  # type: ignore[attr-defined]
    with av.open(image.filename, format="png_pipe") as container:  # type: ignore[attr-defined]
        frame = next(container.decode(video=0))
        pixels = frame.reformat(format="rgba64le").to_ndarray()
    colours = pixels[..., :3] * (pixels[..., 3:] / 65_535)
    if channels == 1:
        weights = (1, 0, 0) if _depth_and_kind(image)[1] in (0, 4) else LUMA
        colours = (colours @ np.array(weights))[..., None]
    return np.rint(np.moveaxis(colours, -1, 0)).astype(np.uint16)


LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, ITU-R BT.601, as Pillow has them."""


def _values(image: Image.Image, channels: int, options: ReadOptions) -> Values:
    """Return intensities (C, H, W) in [0, 1]."""
    if channels not in MODES:
        raise DataError(f"pictures have 1 or 3 channels and {channels} are asked for: give an array instead")
    depth, kind = _depth_and_kind(image)
    if image.mode.startswith("I") and channels == 1:
        # Pillow cuts 16-bit grey at 255 when it converts it.
        stored, top = np.asarray(image), 65_535
    elif depth == 16 and kind in (0, 2, 4, 6):
        stored, top = _deep(image, channels), 65_535
    else:
        stored, top = np.asarray(_over_black(image).convert(MODES[channels])), 255
    if stored.ndim == 2:
        stored = stored[None]
    elif top == 255:
        stored = np.moveaxis(stored, -1, 0)
    values = (stored / top).astype(np.float32)
    if options.nodata is not None:
        values[stored == options.nodata] = np.nan
    return resize_frames(values, options.size)


def _over_black(image: Image.Image) -> Image.Image:
    """Return a picture without transparency: what is clear is black, whatever colour lies under it."""
    if image.mode not in ("LA", "PA", "RGBA", "La", "RGBa") and "transparency" not in image.info:
        return image
    clear = image.convert("RGBA")
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, clear).convert("RGB")


def resize_frames(values: NDArray[np.float32], size: tuple[int, int] | None) -> Values:
    """Return frames (..., C, H, W) resized in one bilinear interpolation, anti-aliased where it shrinks."""
    if size is None or values.shape[-2:] == size:
        return values
    frames = torch.from_numpy(np.ascontiguousarray(values)).reshape(-1, *values.shape[-3:])
    resized = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(resized.reshape(*values.shape[:-2], *size).numpy())
