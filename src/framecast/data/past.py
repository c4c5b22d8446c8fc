"""The past that a forecast starts from: arrays, files, or the latest frames of a source with time stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.data.catalogue import open_parts
from framecast.data.clips import ClipSpec
from framecast.data.formats.arrays import check_numbers, load_array, load_only_array
from framecast.data.radar import holds_radar, radar_folder
from framecast.data.sources import FolderSource, JoinedSource, Layout, Numbers, Values
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


class Past(NamedTuple):
    """Frames a forecast starts from.

    Attributes:
        frames: (N, T, C, H, W) in the model's range, 0 where there is no data.
        valid: booleans of that shape, False where there is no data; None where all is data.
        times: (T,) int64 seconds since 1970 UTC, or None.
        note: what the user should know, such as the share without data, or "".
    """

    frames: Tensor
    valid: Tensor | None
    times: Numbers | None
    note: str


def read_past(frames: str | Path | NDArray[Any] | Tensor, channels: int, spec: ClipSpec | None) -> Past:
    """Return frames as the model's numbers.

    Args:
        frames: an array or a path; of a folder of radar files, or of anything else with time stamps, the last ones at
            the model's interval are taken, cut and resized as for its training.
        channels: of the model.
        spec: the facts of the clips it was trained on, or None where they are not known.

    Raises:
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, have other axes, lie outside the range the model knows, have gaps in time,
            or hold NaN where it was trained on pictures.
    """
    times = None
    if isinstance(frames, str | Path):
        where, path = str(frames), Path(frames)
        source = None if spec is None else _timed(path, channels, spec)
        if source is None or spec is None:
            array = read_frames(path, channels)
        else:
            array, times = last_frames(source, where, spec)
            source.close()
    else:
        where = "the frames"
        array = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
        array = arrange_frames(array, channels, "frames")
    return _scaled(array, spec, times, where)


def _timed(path: Path, channels: int, spec: ClipSpec) -> FolderSource | JoinedSource | None:
    """Return what has time stamps and goes on in time; None for all else, which is taken as it is."""
    if path.is_dir() and holds_radar(path):
        return radar_folder(path)
    if not path.exists() or path.suffix.lower() in (".npy", ".npz") or not spec.interval:
        return None
    source = open_frames(path, channels)
    if source.times is not None and len(source.sequences) == 1:
        return source
    source.close()
    return None


def last_frames(source: FolderSource | JoinedSource, where: str, spec: ClipSpec) -> tuple[Values, Numbers]:
    """Return the last frames of a source at the model's interval, (1, context, C, H, W) in physical units, and times.

    Raises:
        DataError: a frame is missing, or the files have another unit or size than the model was trained on.
    """
    if source.unit not in (spec.unit, "1"):
        raise DataError(f"{where} holds {source.unit} and the model was trained on {spec.unit}: give {spec.unit}")
    assert source.times is not None
    step = int(spec.interval or np.diff(source.times).min(initial=1))
    wanted = source.times[-1] - step * np.arange(spec.context)[::-1]
    numbers = np.searchsorted(source.times, wanted)
    missing = wanted[source.times[numbers] != wanted]
    if len(missing):
        stamp = np.datetime64(int(missing[0]), "s")
        raise DataError(
            f"{where} ends at {np.datetime64(int(source.times[-1]), 's')} and the model needs {spec.context} frames "
            f"at steps of {step / 60:g} minutes up to there: {stamp} is missing; add it or leave out the last ones"
        )
    frames = source.read(numbers)
    if frames.shape[-2:] != (spec.height, spec.width) and spec.grid is not None:
        frames = spec.grid.apply(frames, spec.scaling)
    if frames.shape[1:] != (spec.channels, spec.height, spec.width):
        raise DataError(
            f"{where} gives frames of {frames.shape[1:]} and the model was trained on "
            f"{(spec.channels, spec.height, spec.width)}: give files of the same product"
        )
    return frames[None], wanted


def _scaled(frames: NDArray[Any], spec: ClipSpec | None, times: Numbers | None, where: str) -> Past:
    values = torch.from_numpy(np.array(frames, np.float32))
    low, high = spec.scaling.limits if spec else (0.0, 1.0)
    if frames.dtype == np.uint8 and (low, high) == (0.0, 1.0):
        values = values / 255
    valid, note = None, ""
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        gaps = spec is not None and spec.unit != "1" and not values.isinf().any() and bad < values.numel()
        if not gaps:
            raise DataError(f"{where} holds {bad} values that are NaN or infinite: fill or mask them first")
        valid = ~values.isnan()
        note = f"{where}: {bad / values.numel():.1%} of the past holds no data and is taken as 0 by the model"
        values = values.where(valid, torch.tensor(low))
    least, most = values.min().item(), values.max().item()
    saturates = spec is not None and spec.scaling.saturates
    if least < low or (most > high and not saturates):
        hint = " These look like 0-255 pixels: divide by 255, or pass uint8." if 1 < most <= 255 and high == 1 else ""
        raise DataError(f"{where} lies in [{least:g}, {most:g}] and the model knows [{low:g}, {high:g}].{hint}")
    numbers = spec.scaling.scale(values) if spec else values
    return Past(numbers if valid is None else numbers.where(valid, torch.tensor(0.0)), valid, times, note)
