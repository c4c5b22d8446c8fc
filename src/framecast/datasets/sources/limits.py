"""The range of the frames to learn from, found by reading them once, in pieces."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from framecast.datasets.sources.index import kept_index
from framecast.datasets.windows import FrameSource, Numbers

PIECE_BYTES = 32 * 1024 * 1024


class Limits(NamedTuple):
    """The least and the largest finite value; NaN where there is none."""

    low: float
    high: float


def find_limits(source: FrameSource, blocks: Sequence[range], facts: str | None = None) -> Limits:
    """Return the limits of the frames in the blocks.

    Args:
        source: of the frames.
        blocks: the frames that count.
        facts: what the source's values follow from, such as its files' sizes and dates; with it the limits are
            kept, and found again without reading.
    """

    def limits() -> dict[str, Numbers]:
        return {"limits": np.array(_limits(source, blocks))}

    if facts is None:
        return Limits(*limits()["limits"].tolist())
    # A chunk that was written anew in its place may leave all dates as they were: so look at some frames, too.
    frames = [number for block in blocks[:1] for number in sorted({block[0], block[len(block) // 2], block[-1]})]
    seen = zlib.crc32(source.read(np.array(frames, np.int64)).tobytes()) if frames else 0
    numbers = " ".join(f"{block.start}-{block.stop}" for block in blocks) + f" {seen}"
    return Limits(*kept_index(f"limits of {facts} in {numbers}", limits)["limits"].tolist())


def _limits(source: FrameSource, blocks: Sequence[range]) -> Limits:
    low, high = np.inf, -np.inf
    pieces = list(pieces_of(source, blocks))
    for numbers in tqdm(pieces, desc="range of the training frames", delay=2, leave=False):
        values = source.read(numbers)
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return Limits(low, high) if low <= high else Limits(np.nan, np.nan)


def pieces_of(source: FrameSource, blocks: Sequence[range]) -> Iterator[Numbers]:
    """Yield the frame numbers of the blocks in pieces of few bytes, none over a border of sequences."""
    most = max(1, PIECE_BYTES // (4 * int(np.prod(source.shape))))
    for block in blocks:
        for start in range(block.start, block.stop, most):
            yield np.arange(start, min(start + most, block.stop), dtype=np.int64)
