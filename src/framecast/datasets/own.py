"""Read frames of your own: .npy, .npz, GIF, or a folder of PNG pictures."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence, UnidentifiedImageError

from framecast.errors import DataError, DatasetNotFoundError

Frames = NDArray[Any]

MOST_UNPACKED = 200


def read_frames(path: str | Path, channels: int) -> Frames:
    """Read frames as (N, T, C, H, W), in the values of the file.

    Args:
        path: an .npy or .npz file of (T, H, W), (T, C, H, W), (N, T, H, W) or (N, T, C, H, W); a GIF; or a folder
            of PNG files that sort by name into time.
        channels: 1 turns pictures to grey, 3 to colour; arrays must have them.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or no picture in the folder.
        DataError: the file is damaged, holds no numbers, or its axes cannot be told apart.
    """
    path = Path(path)
    if path.is_dir():
        return _pictures(path, channels)
    if not path.is_file():
        raise DatasetNotFoundError(f"there is nothing at {path}: give an .npy, .npz or .gif file or a folder of PNGs")
    suffix = path.suffix.lower()
    if suffix == ".gif":
        return _gif(path, channels)
    if suffix not in (".npy", ".npz"):
        raise DataError(f"{path} ends in {suffix or 'nothing'}: frames are read from .npy, .npz, .gif or a folder")
    return arrange_frames(_array(path), channels, str(path))


def arrange_frames(array: Frames, channels: int, where: str) -> Frames:
    """Bring an array of frames to (N, T, C, H, W) by its number of dimensions and the channel count.

    Raises:
        DataError: not numbers, not three to five dimensions, or no axis of that many channels where one must be.
    """
    if array.dtype.kind not in "uifb":
        raise DataError(f"{where} holds {array.dtype} and frames are numbers: convert them to float32 or uint8")
    if array.ndim == 3 and channels == 1:
        arranged = array[None, :, None]
    elif array.ndim == 4 and array.shape[1] == channels:
        arranged = array[None]
    elif array.ndim == 4 and channels == 1:
        arranged = array[:, :, None]
    elif array.ndim == 5 and array.shape[2] == channels:
        arranged = array
    else:
        raise DataError(
            f"{where} is {array.shape} and must be (T, H, W), (T, C, H, W), (N, T, H, W) or (N, T, C, H, W) with "
            f"C = {channels}: reorder it, e.g. with numpy.moveaxis"
        )
    if not all(arranged.shape):
        raise DataError(f"{where} is {array.shape}: it holds no frames")
    return arranged


def _array(path: Path) -> Frames:
    try:
        if path.suffix.lower() == ".npz":
            _check_archive(path)
        content = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
        if isinstance(content, np.ndarray):
            return content
        with content:
            if len(content.files) != 1:
                names = ", ".join(content.files) or "none"
                raise DataError(f"{path} holds {len(content.files)} arrays ({names}): save exactly one")
            return np.asarray(content[content.files[0]])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}: it is truncated, damaged or holds objects") from error


def _check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to far more than its size before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MOST_UNPACKED * path.stat().st_size:
        raise DataError(
            f"{path} would unpack to {unpacked} bytes, over {MOST_UNPACKED} times its size: save it as .npy instead"
        )


def _pictures(folder: Path, channels: int) -> Frames:
    files = sorted(folder.glob("*.png"))
    if not files:
        raise DatasetNotFoundError(f"{folder} holds no .png file: give a folder of frames that sort by name into time")
    pictures = [_picture(file, channels) for file in files]
    if len({picture.shape for picture in pictures}) > 1:
        sizes = sorted({f"{p.shape[1]}x{p.shape[2]}" for p in pictures})
        raise DataError(f"{folder} holds pictures of {', '.join(sizes)}: frames of a clip have one size")
    return np.stack(pictures)[None]


def _picture(file: Path, channels: int) -> Frames:
    try:
        with Image.open(file) as image:
            return _pixels(image, channels)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as a picture: {error}") from error


def _gif(path: Path, channels: int) -> Frames:
    try:
        with Image.open(path) as image:
            frames = [_pixels(frame, channels) for frame in ImageSequence.Iterator(image)]
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a GIF: {error}") from error
    return np.stack(frames)[None]


def _pixels(image: Image.Image, channels: int) -> Frames:
    modes = {1: "L", 3: "RGB"}
    if channels not in modes:
        raise DataError(f"pictures have 1 or 3 channels and the model takes {channels}: give an array instead")
    pixels = np.asarray(image.convert(modes[channels]))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
