"""Moving MNIST: handwritten digits that drift and bounce within a frame.

Rules of motion, by name:

- ``authors`` (the set of the MS-LSTM paper): uniform direction, one of five speeds from 2 to 6 pixels a frame
  at 64 pixels, uniform start; a digit turns back when the next step would take it more than 2 pixels outside;
  where digits overlap their intensities add up, cut at white. The final rotation of the released script,
  which loses a row and a column, is left out.
- ``srivastava`` (Srivastava et al. 2015, OpenSTL): one constant speed of a tenth of the free range a frame,
  stopping at the walls before it bounces; the brighter of overlapping digits shows.

Clip i of a split is a function of (seed, i) alone, and the three splits share no digit. The digits are the packaged
ones or those of an idx file: a big-endian header of four int32 (magic 2051, count, rows, columns), then uint8 pixels
row by row, gzip-packed or raw.

Reference: Srivastava, Mansimov and Salakhutdinov, "Unsupervised Learning of Video Representations using
LSTMs", ICML 2015, doi:10.48550/arXiv.1502.04681. Digits: see ``digits/README.md``.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from framecast.data.clips import SPLITS, ClipData, ClipSet, ClipSpec, Sample, Split, check_lengths
from framecast.errors import DataError, DatasetNotFoundError, UnknownNameError, check_count
from framecast.untrusted import check_size, reading

Digits = NDArray[np.uint8]

_MAGIC = 0x803
_HEADER = struct.Struct(">IIII")
_POOL_ENDS = {"train": 0.7, "validation": 0.8, "test": 1.0}


def packaged_digits(split: Split) -> Digits:
    """Return the packaged digits of one split, (N, 28, 28) uint8; the splits share none."""
    with (
        files("framecast.data.sets").joinpath("digits/digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as pools,
    ):
        return np.asarray(pools[split], dtype=np.uint8)


def own_digits(path: Path, split: Split) -> Digits:
    """Return the digits of one split of an idx file, (N, H, W) uint8: 70 % train, 10 % validation, 20 % test."""
    digits = read_idx(path)
    ends = {name: round(share * len(digits)) for name, share in _POOL_ENDS.items()}
    start = {"train": 0, "validation": ends["train"], "test": ends["validation"]}[split]
    if start == ends[split]:
        raise DataError(f"{path} holds {len(digits)} digits, too few for three splits: give at least 10")
    return digits[start : ends[split]]


PASTED = 16
"""Bytes that a pixel of a digit takes while all are resized."""


def read_idx(path: Path) -> Digits:
    """Read an idx file of images, (N, H, W) uint8, gzip-packed or raw.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: wrong magic number, damaged archive, or another size than the header declares.
    """
    if not path.is_file():
        raise DatasetNotFoundError(
            f"there is no idx file {path}: MNIST's are named train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz"
        )
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else path.open("rb") as content:
            head = content.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise DataError(f"{path} ends within its 16-byte header: it is truncated, fetch it again")
            magic, count, rows, columns = _HEADER.unpack(head)
            if magic != _MAGIC:
                raise DataError(
                    f"{path} begins with {magic:#010x} and an idx image file with {_MAGIC:#010x}: "
                    "is it the label file, or not MNIST at all?"
                )
            size = count * rows * columns
            check_size(path, count, rows, columns, itemsize=PASTED)
            # One byte more than declared, never the whole of a file that claims little and unpacks to much.
            pixels = content.read(min(size, _largest(path, packed)) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}: fetch it again") from error
    if len(pixels) != size:
        raise DataError(
            f"{path} declares {count} images of {rows}x{columns}, {size} bytes, and holds "
            f"{'more' if len(pixels) > size else len(pixels)}: it is truncated or damaged, fetch it again"
        )
    if not size:
        raise DataError(f"{path} holds no images")
    return np.frombuffer(pixels, np.uint8).reshape(count, rows, columns)


def _largest(path: Path, packed: bool) -> int:
    # Deflate shrinks at most about 1032 times, so a header cannot make us read more than that.
    return path.stat().st_size * (1032 if packed else 1)


def resize_digits(digits: Digits, size: int) -> Digits:
    """Return digits (N, H, W) uint8 resized to (N, size, size) with an antialiased bilinear filter."""
    if digits.shape[1:] == (size, size):
        return digits
    pixels = torch.from_numpy(digits.astype(np.float32))[:, None]
    small = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(small[:, 0].round().clamp(0, 255).byte().numpy())


ByteFrames = NDArray[np.uint8]
Path2d = list[tuple[float, float]]
RuleName = Literal["authors", "srivastava"]

PAPER_SIZE, PAPER_DIGIT = 64, 28


@dataclass(frozen=True)
class Motion:
    """The numbers a rule of motion needs: pixels from side to side, frames, and speeds in pixels a frame."""

    free: float
    length: int
    slow: float
    fast: float
    margin: float


def _authors_path(rng: np.random.Generator, motion: Motion) -> Path2d:
    angle = rng.uniform(-math.pi, math.pi)
    speed = motion.slow + rng.integers(5) * (motion.fast - motion.slow) / 4
    velocity = [speed * math.cos(angle), speed * math.sin(angle)]
    position = rng.uniform(0, motion.free, 2).tolist()
    path = []
    for _ in range(motion.length):
        path.append((position[0], position[1]))
        for axis in (0, 1):
            if not -motion.margin <= position[axis] + velocity[axis] <= motion.free + motion.margin:
                velocity[axis] = -velocity[axis]
            position[axis] += velocity[axis]
    return path


def _srivastava_path(rng: np.random.Generator, motion: Motion) -> Path2d:
    angle = rng.uniform(0, 2 * math.pi)
    velocity = [motion.fast * math.sin(angle), motion.fast * math.cos(angle)]
    position = rng.uniform(0, motion.free, 2).tolist()
    path = []
    for _ in range(motion.length):
        for axis in (0, 1):
            position[axis] += velocity[axis]
            if not 0 <= position[axis] <= motion.free:
                position[axis] = min(max(position[axis], 0), motion.free)
                velocity[axis] = -velocity[axis]
        path.append((position[0], position[1]))
    return path


@dataclass(frozen=True)
class Rule:
    """How digits move and how they overlap."""

    path: Callable[[np.random.Generator, Motion], Path2d]
    overlap: Callable[..., Any]


RULES: dict[str, Rule] = {
    "authors": Rule(_authors_path, np.add),
    "srivastava": Rule(_srivastava_path, np.maximum),
}


class GeneratedClips(ClipSet):
    """Clips made on the fly from a pool of digits (N, S, S) uint8."""

    def __init__(
        self, digits: Digits, rule: Rule, motion: Motion, size: int, per_frame: int, count: int, seed: list[int]
    ) -> None:
        self.digits, self.rule, self.motion = digits, rule, motion
        self.size, self.per_frame, self.count, self.seed = size, per_frame, count, seed

    def __len__(self) -> int:
        """Return the number of clips."""
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index``, drawn from (seed, index)."""
        if not 0 <= index < self.count:
            raise IndexError(f"clip {index} of {self.count}")
        return _sample(self.draw(index), index)

    def draw(self, index: int) -> ByteFrames:
        """Return the frames of clip ``index``, (T, H, W) uint8."""
        rng = np.random.default_rng([*self.seed, index])
        side, edge = self.digits.shape[-1], math.ceil(self.motion.margin) + 1
        # Digits may leave the frame by the margin: they are pasted on a wider canvas, which is then cut.
        wide = self.size + 2 * edge
        canvas = np.zeros((self.motion.length, wide, wide), np.uint16)
        for _ in range(self.per_frame):
            digit = self.digits[rng.integers(len(self.digits))]
            for frame, (y, x) in zip(canvas, self.rule.path(rng, self.motion), strict=True):
                patch = frame[edge + int(y) : edge + int(y) + side, edge + int(x) : edge + int(x) + side]
                self.rule.overlap(patch, digit, out=patch)
        return np.minimum(canvas[:, edge:-edge, edge:-edge], 255).astype(np.uint8)


class StoredClips(ClipSet):
    """Ready clips of a memory-mapped array (T, N, H, W) uint8, time first as published."""

    def __init__(self, path: Path, start: int, stop: int, length: int) -> None:
        self.path, self.start, self.stop, self.length = path, start, stop, length
        self._clips: ByteFrames | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return self.stop - self.start

    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index`` of the split."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        if self._clips is None:
            self._clips = open_stored(self.path)
        return _sample(np.array(self._clips[: self.length, self.start + index]), index)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: every worker process opens its own."""
        return {**self.__dict__, "_clips": None}


def _sample(frames: ByteFrames, index: int) -> Sample:
    return {"frames": torch.from_numpy(frames)[:, None].float().div_(255), "index": index}


def open_stored(path: Path) -> ByteFrames:
    """Open an npy file of clips (T, N, H, W) uint8 without reading it into memory.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: not an npy file, truncated, not uint8, not four dimensions, or time is not the first.
    """
    if not path.is_file():
        raise DatasetNotFoundError(
            f"there is no file {path}: expected Moving MNIST clips as npy, e.g. mnist_test_seq.npy from "
            "http://www.cs.toronto.edu/~nitish/unsupervised_video/mnist_test_seq.npy"
        )
    with reading(path, "cannot be read as npy", "it is truncated or another format"):
        clips = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(clips, np.ndarray) or clips.ndim != 4 or clips.dtype != np.uint8:
        content = f"{clips.dtype} {clips.shape}" if isinstance(clips, np.ndarray) else "an archive"
        raise DataError(f"{path} holds {content}; Moving MNIST files hold uint8 (time, clip, height, width)")
    if clips.shape[0] > clips.shape[1]:
        raise DataError(
            f"{path} is {clips.shape} and must be (time, clip, height, width): more frames than clips looks like "
            "clips first; save clips.swapaxes(0, 1) instead"
        )
    return clips


def open_moving_mnist(
    *,
    size: int = PAPER_SIZE,
    context: int = 10,
    horizon: int = 10,
    clips: int = 15_000,
    rule: RuleName = "authors",
    digits_per_frame: int = 2,
    digit_size: int | None = None,
    speed: tuple[float, float] | None = None,
    seed: int = 0,
    digits: str | Path | None = None,
    file: str | Path | None = None,
    test_file: str | Path | None = None,
) -> ClipData:
    """Open Moving MNIST.

    Args:
        size: height and width of a frame in pixels.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        clips: clips in all: 70 % to learn from, a fifteenth of all taken from these for validation, 30 % to test.
        rule: "authors" or "srivastava", see the module.
        digits_per_frame: digits in a clip.
        digit_size: side of a digit in pixels; None keeps the proportion 28 to 64.
        speed: slowest and fastest speed in pixels a frame; None takes the rule's own in proportion to the size.
        seed: of the generator.
        digits: your own MNIST idx file of digits, gzip-packed or raw, instead of the packaged ones.
        file: ready clips (T, N, H, W) uint8 as npy, split 7:3 in their order, instead of generated ones.
        test_file: ready clips of that form for the test split only, such as mnist_test_seq.npy.

    Raises:
        UnknownNameError: there is no such rule.
        DataError: an impossible option, or a file that is not what it should be.
        DatasetNotFoundError: a file is missing.
    """
    check_lengths(context, horizon)
    for name, value in {"size": size, "clips": clips, "digits_per_frame": digits_per_frame}.items():
        check_count(name, value)
    if rule not in RULES:
        raise UnknownNameError("Moving MNIST rule", rule, RULES)
    length = context + horizon
    splits: dict[Split, ClipSet] = {}
    if file is not None:
        size, splits = _stored_splits(Path(file), length)
    else:
        side = digit_size or round(size * PAPER_DIGIT / PAPER_SIZE)
        motion = _motion(rule, size, side, length, speed)
        counts = _share(clips)
        for number, split in enumerate(SPLITS):
            pool = own_digits(Path(digits), split) if digits else packaged_digits(split)
            pool = resize_digits(pool, side)
            splits[split] = GeneratedClips(
                pool, RULES[rule], motion, size, digits_per_frame, counts[split], [seed, number]
            )
    if test_file is not None:
        stored = open_stored(Path(test_file))
        check_lengths(context, horizon, stored.shape[0], str(test_file))
        if stored.shape[2:] != (size, size):
            raise DataError(f"{test_file} holds frames of {stored.shape[2:]} and size is {size}: set size to match")
        splits["test"] = StoredClips(Path(test_file), 0, stored.shape[1], length)
    return ClipData("moving-mnist", {}, ClipSpec(size, size, 1, context, horizon), splits)


def _share(clips: int) -> dict[Split, int]:
    """Deal clips 7:3, validation coming out of the 7."""
    learn = round(clips * 0.7)
    validation = clips // 15
    if not validation:
        raise DataError(f"clips is {clips}, too few to share among three splits: ask for at least 15")
    return {"train": learn - validation, "validation": validation, "test": clips - learn}


def _motion(rule: str, size: int, side: int, length: int, speed: tuple[float, float] | None) -> Motion:
    free = size - side
    if side < 1 or free < 1:
        raise DataError(f"digit_size is {side} and must be between 1 and {size - 1} to move in a frame of {size}")
    scale = size / PAPER_SIZE
    slow, fast = speed or ((2 * scale, 6 * scale) if rule == "authors" else (free / 10, free / 10))
    margin = 2 * scale if rule == "authors" else 0.0
    if not 0 <= slow <= fast <= free:
        raise DataError(f"speed is {slow} to {fast} pixels a frame and must rise from at least 0 to at most {free}")
    if rule == "srivastava" and slow != fast:
        raise DataError(f"rule 'srivastava' has one speed and got {slow} to {fast}: give the same number twice")
    return Motion(free, length, slow, fast, margin)


def _stored_splits(path: Path, length: int) -> tuple[int, dict[Split, ClipSet]]:
    clips = open_stored(path)
    frames, count, height, width = clips.shape
    if height != width:
        raise DataError(f"{path} holds frames of {height}x{width}; Moving MNIST frames are square")
    check_lengths(length - 1, 1, frames, str(path))
    counts, start = _share(count), 0
    splits: dict[Split, ClipSet] = {}
    for split in SPLITS:
        splits[split] = StoredClips(path, start, start + counts[split], length)
        start += counts[split]
    return height, splits
