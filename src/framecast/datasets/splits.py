"""Who learns from what: sequences of frames dealt to training, validation and test.

Frames are dealt, never windows, so no frame is in two splits and no clip spans a border. Several sequences of
their own, such as videos, are dealt whole where there are at least ten; fewer are each cut in time, the earliest
part to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from framecast.datasets.clip import SPLITS, Split
from framecast.datasets.windows import Numbers, windows_by_number, windows_by_time
from framecast.errors import DataError

Blocks = dict[Split, list[range]]
Shares = tuple[float, float, float]

WHOLE_FROM = 10
"""Sequences from which on they are dealt whole."""


def check_shares(shares: Sequence[float]) -> Shares:
    """Return the shares of train, validation and test.

    Raises:
        DataError: they are not three numbers of at least 0 that add up to 1, or training gets none.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise DataError(f"shares are {tuple(shares)}: give three for train, validation and test that add up to 1")
    return shares[0], shares[1], shares[2]


def deal(sequences: Sequence[range], shares: Shares) -> Blocks:
    """Deal sequences of frame numbers to the splits, see the module."""
    blocks: Blocks = {split: [] for split in SPLITS}
    if len(sequences) >= WHOLE_FROM:
        for split, chosen in zip(SPLITS, _borders(len(sequences), shares), strict=True):
            blocks[split] = [sequences[number] for number in chosen]
        return blocks
    for sequence in sequences:
        for split, chosen in zip(SPLITS, _borders(len(sequence), shares), strict=True):
            if chosen:
                blocks[split].append(sequence[chosen.start : chosen.stop])
    return blocks


def _borders(count: int, shares: Shares) -> list[range]:
    """Cut ``count`` into three ranges in proportion."""
    ends = [round(end * count) for end in accumulate(shares)]
    ends[-1] = count
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def windows_in(
    blocks: Sequence[range], times: Numbers | None, length: int, interval: int, stride: int, step: int = 1
) -> Numbers:
    """Return the windows of ``length`` frames that lie within one of the blocks, (K, length) frame numbers.

    Args:
        blocks: runs of frame numbers.
        times: of all frames, in seconds; None takes frames as equally spaced.
        length: frames of a clip.
        interval: seconds between the frames of a clip, where there are times.
        stride: take every so many of the possible starts.
        step: take every so many frames, where there are no times.
    """
    found = [np.empty((0, length), np.int64)]
    for block in blocks:
        if times is None:
            found.append(block.start + windows_by_number(len(block), length, stride, step))
        else:
            found.append(block.start + windows_by_time(times[block.start : block.stop], length, interval, stride))
    return np.concatenate(found)
