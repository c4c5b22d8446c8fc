"""MNIST digits: the packaged pools, and a user's own idx files.

The idx format: a big-endian header of four int32 (magic 2051, count, rows, columns), then uint8 pixels row
by row; gzip-packed or raw.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from framecast.datasets.clip import Split
from framecast.errors import DataError, DatasetNotFoundError

Digits = NDArray[np.uint8]

_MAGIC = 0x803
_HEADER = struct.Struct(">IIII")
_POOL_ENDS = {"train": 0.7, "validation": 0.8, "test": 1.0}


def packaged_digits(split: Split) -> Digits:
    """Return the packaged digits of one split, (N, 28, 28) uint8; the splits share none."""
    with (
        files("framecast.datasets").joinpath("digits/digits.npz").open("rb") as file,
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
