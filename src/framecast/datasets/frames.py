"""The past frames that a forecast starts from, of any file that ``own`` reads, brought to (N, T, C, H, W)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.datasets.formats.arrays import check_numbers, load_array, load_only_array
from framecast.datasets.formats.joined import JoinedSource
from framecast.datasets.formats.layout import Layout
from framecast.datasets.opening import open_parts
from framecast.errors import DataError, DatasetNotFoundError

Frames = NDArray[Any]


def read_frames(path: str | Path, channels: int) -> Frames:
    """Read frames as (N, T, C, H, W).

    Args:
        path: an .npy or .npz file of (T, H, W), (T, C, H, W), (N, T, H, W) or (N, T, C, H, W), in the values of the
            file; or anything else that ``own`` reads, in physical units: clips of one length.
        channels: 1 turns pictures and videos to grey, 3 to colour; arrays must have them.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or no picture in the folder.
        DataError: the file is damaged, holds no numbers, or its axes cannot be told apart.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetNotFoundError(f"there is nothing at {path}: give an .npy, .npz or .gif file or a folder of PNGs")
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        load = load_array if path.suffix.lower() == ".npy" else load_only_array
        return arrange_frames(load(path), channels, str(path))
    source = open_frames(path, channels)
    lengths = {len(sequence) for sequence in source.sequences}
    if len(lengths) > 1:
        raise DataError(f"{path} holds clips of {min(lengths)} to {max(lengths)} frames: forecast each by itself")
    if source.shape[0] != channels:
        raise DataError(f"{path} has {source.shape[0]} channels and the model takes {channels}")
    frames = source.read(np.arange(source.count, dtype=np.int64))
    source.close()
    return frames.reshape(len(source.sequences), -1, *source.shape)


def open_frames(path: Path, channels: int) -> JoinedSource:
    """Open anything that ``own`` reads, pictures and videos in grey or colour as the model has one channel or three."""
    return JoinedSource(open_parts(path, Layout(channels=channels if channels in (1, 3) else None)))


def arrange_frames(array: Frames, channels: int, where: str) -> Frames:
    """Bring an array of frames to (N, T, C, H, W) by its number of dimensions and the channel count.

    Raises:
        DataError: not numbers, not three to five dimensions, or no axis of that many channels where one must be.
    """
    check_numbers(array.dtype, where)
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
