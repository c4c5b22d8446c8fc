"""Videos: decoded once with PyAV (extra ``video``) into a cache of 8-bit frames, which is then read by number.

The cache is one .npy (F, C, H, W) uint8 a video, and one of the times at which frames are shown, named after the file's
place, size and time of change and after the size and channels asked for. Each is written beside and renamed, so a
decoding that was interrupted leaves nothing that is taken for a video.

Frames are turned as the file says that they are to be shown. Where the pace changes or the video pauses, a new sequence
begins, and no clip spans two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.data.cache import cache_folder, file_facts
from framecast.data.formats.arrays import StoredArray, load_array
from framecast.data.formats.pictures import PICTURE_OPTIONS, resize_frames
from framecast.data.packing import Packing, Values
from framecast.data.sources import DerivedSource, FrameSource, Indices, ReadOptions
from framecast.errors import DataError, MissingExtraError
from framecast.files import replacing
from framecast.untrusted import check_frames, check_no_pipe, check_size, most_bytes, reading

CACHE_FACTOR = 16
"""A decoded video may take so many times the limit, on disk."""
FORMATS = {1: "gray", 3: "rgb24"}
Decoded = NDArray[np.uint8]


def open_video(path: Path, options: ReadOptions) -> FrameSource:
    """Open a video; where it is not in the cache, it is decoded first.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: it holds no video, its codec is unknown, or it is damaged.
    """
    options.refuse_all_but(PICTURE_OPTIONS, str(path))
    cached = decode_into_cache(path, options.size, options.channels)
    packing = Packing(1 / 255, 0.0, () if options.nodata is None else (options.nodata,))
    frames = StoredArray(str(path), partial(load_array, cached), "TCHW", packing)
    frames.pixels = True
    source = Video(frames, load_array(_times_beside(cached)))
    if _deep(path):
        source.notes = [*source.notes, "the video has more than 8 bits a sample, of which 8 are kept"]
    return source


class Video(DerivedSource):
    """Frames of a decoded video, in sequences of one pace.

    Args:
        frames: all of them.
        shown: (F,) seconds at which they are shown, NaN where the file does not say.
    """

    def __init__(self, frames: FrameSource, shown: NDArray[np.float64]) -> None:
        super().__init__(frames)
        self.runs = [range(self.count)]
        steps = np.diff(shown)
        if not len(steps) or not np.isfinite(steps).all() or steps.max() <= 0:
            return
        self.interval = pace = round(float(np.median(steps)), 6)
        borders = [0, *(np.flatnonzero(np.abs(steps - pace) > pace / 2) + 1).tolist(), self.count]
        self.runs = [range(start, stop) for start, stop in pairwise(borders)]
        if len(self.runs) > 1:
            self.notes = [
                *self.notes,
                f"frames are {pace:g} s apart, but {len(self.runs) - 1} times by another step, up to {steps.max():g} "
                "s: no clip spans one",
            ]

    @property
    def sequences(self) -> list[range]:
        """The runs of one pace."""
        return self.runs

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return self.source.read(numbers)


def _times_beside(cached: Path) -> Path:
    return cached.with_suffix(".times.npy")


def cached_video(path: Path, size: tuple[int, int] | None, channels: int | None) -> Path:
    """Return where the decoded frames of a video are kept; the file may not exist yet."""
    key = hashlib.sha256(f"turned {file_facts(path)} {size} {channels}".encode()).hexdigest()[:24]
    return cache_folder() / "video" / f"{path.stem}-{key}.npy"


def decode_into_cache(path: Path, size: tuple[int, int] | None = None, channels: int | None = None) -> Path:
    """Decode a video into the cache, unless it is there already, and return the file (F, C, H, W) uint8.

    Args:
        path: the video.
        size: (H, W) to which frames are resized in one interpolation; None keeps them.
        channels: 1 for grey, 3 for colour; None as the video has them.

    Raises:
        MissingExtraError: PyAV is not installed.
        DataError: it holds no video, its codec is unknown, or it is damaged.
        OSError: the cache cannot be written; the message names it.
    """
    target = cached_video(path, size, channels)
    if _is_whole(target) and _times_beside(target).is_file():
        return target
    shown: list[float] = []
    with replacing(target) as file:
        _write_frames(file, _decoded(path, size, channels, shown), path)
    with replacing(_times_beside(target)) as file:
        np.save(file, np.array(shown))
    return target


def _is_whole(target: Path) -> bool:
    """Return whether a file of the cache is there and as long as its header says; a damaged one is decoded anew."""
    if not target.is_file():
        return False
    try:
        frames = load_array(target)
    except DataError:
        return False
    size = 0 if frames.ndim != 4 else int(getattr(frames, "offset", 0)) + frames.nbytes
    return frames.dtype == np.uint8 and size == target.stat().st_size


def _write_frames(file: Any, frames: Iterator[Decoded], path: Path) -> None:
    """Write frames as .npy one by one; the header is written again when their number is known."""
    count, shape = 0, tuple[int, ...]()
    for frame in frames:
        if not count:
            shape = frame.shape
            _write_header(file, (1, *shape))
        if frame.shape != shape:
            raise DataError(f"{path}: frame {count} is {frame.shape} and those before {shape}: give size=")
        file.write(np.ascontiguousarray(frame).tobytes())
        count += 1
        check_frames(path, count, shape, itemsize=1)
        if count * frame.nbytes > CACHE_FACTOR * most_bytes():
            raise DataError(f"{path} decodes to over {CACHE_FACTOR * most_bytes()} bytes: give size=, or cut it")
    if not count:
        raise DataError(f"{path} holds no frame: it is empty or damaged")
    # numpy pads headers so that the first axis can grow in place.
    file.seek(0)
    _write_header(file, (count, *shape))


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)


def _decoded(path: Path, size: tuple[int, int] | None, channels: int | None, shown: list[float]) -> Iterator[Decoded]:
    """Yield the frames as they are to be shown, and add the times of showing them, in seconds."""
    av = _pyav()
    check_no_pipe(path)
    remedy = "the file is damaged or its codec unknown; convert it, e.g. to H.264"
    with reading(path, "cannot be decoded", remedy), av.open(str(path)) as container:
        if not container.streams.video:
            raise DataError(f"{path} holds no video: give another file")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise ValueError("there is no decoder for it")
        check_size(path, stream.codec_context.height, stream.codec_context.width, 3)
        kind = FORMATS[_channels(stream, channels, path)]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            check_size(path, frame.height, frame.width, 3)
            shown.append(float("nan") if frame.time is None else float(frame.time))
            # The rotation is how far the shown picture is turned counter-clockwise, in degrees.
            pixels = np.rot90(frame.to_ndarray(format=kind), round(frame.rotation / 90))
            yield _sized(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0), size)


def _sized(pixels: Decoded, size: tuple[int, int] | None) -> Decoded:
    if size is None or pixels.shape[-2:] == size:
        return pixels
    return np.rint(resize_frames(pixels.astype(np.float32), size)).clip(0, 255).astype(np.uint8)


def _channels(stream: Any, channels: int | None, path: Path) -> int:
    if channels is None:
        return 1 if str(stream.codec_context.pix_fmt or "").startswith(("gray", "mono")) else 3
    if channels not in FORMATS:
        raise DataError(f"{path}: videos have 1 or 3 channels and {channels} are asked for")
    return channels


def _deep(path: Path) -> bool:
    """Return whether a video has more than 8 bits a sample."""
    with reading(path), _pyav().open(str(path)) as container:
        form = container.streams.video[0].format
        return bool(form and max(component.bits for component in form.components) > 8)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", "reading videos") from error
    return av
