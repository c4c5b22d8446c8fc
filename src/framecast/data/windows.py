"""Windows: clips cut from a long sequence of frames, by time stamps or by number; no clip ever spans a gap.

A window is the frame numbers of one clip. Frames are divided among the splits before windows are cut, so no frame is in
two splits and no clip spans a border. Independent sequences, such as videos, are assigned whole where there are at
least ten; fewer are each cut in time, the earliest part to train on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from framecast.data.clips import SPLITS, ClipSet, Covariate, Sample, Split
from framecast.data.scaling import Scaling
from framecast.data.sources import FrameSource, Indices, TurnedSource
from framecast.errors import DataError


def windows_by_time(times: Indices, length: int, interval: int, stride: int = 1) -> Indices:
    """Return all windows of ``length`` frames at exactly ``interval`` seconds, (K, length) frame numbers.

    Args:
        times: (N,) rising seconds.
        length: frames of a clip.
        interval: seconds between the frames of a clip; a multiple of the data's own step thins it out.
        stride: take every so many of the possible starts, counted anew after each gap.

    Raises:
        DataError: ``interval``, ``length`` or ``stride`` is below 1.
    """
    if min(length, interval, stride) < 1:
        raise DataError(f"length {length}, interval {interval} and stride {stride} must all be at least 1")
    clip_times = times[:, None] + np.arange(length, dtype=np.int64) * interval
    numbers = np.searchsorted(times, clip_times)
    inside = numbers < len(times)
    complete = (times[np.where(inside, numbers, 0)] == clip_times).all(1) & inside.all(1)
    starts = np.flatnonzero(complete)
    if stride > 1 and len(starts):
        runs = np.cumsum(np.diff(starts, prepend=starts[0]) != 1)
        first = starts[np.searchsorted(runs, runs)]
        starts = starts[(starts - first) % stride == 0]
    return np.asarray(numbers[starts], np.int64)


def windows_by_number(count: int, length: int, stride: int = 1, step: int = 1) -> Indices:
    """Return all windows of ``length`` frames, ``step`` apart, of ``count`` frames without gaps, (K, length)."""
    if min(length, stride, step) < 1:
        raise DataError(f"length {length}, stride {stride} and step {step} must all be at least 1")
    starts = np.arange(0, max(0, count - (length - 1) * step), stride, dtype=np.int64)
    return starts[:, None] + np.arange(length, dtype=np.int64) * step


class CovariateRows(Protocol):
    """What comes with the frames of clips, see ``framecast.data.covariates.CovariateFrames``."""

    def rows(self, times: Indices | None, numbers: Indices) -> Tensor:
        """Return (T, K, H, W) for a clip's frames."""

    def scaled_as(self, facts: Sequence[Covariate]) -> Self:
        """Return the same in the scaling of a training."""

    def upside_down(self) -> Self:
        """Return the same with the rows in the other order."""


class WindowedClips(ClipSet):
    """The clips of a source at given windows (K, T), scaled to [0, 1]; where there is no data they are 0.

    Attributes:
        covariates: what comes with the frames, or None.
        cut: whether what lies beyond the limits of the scaling is cut to them. A scaling that was fitted to the
            training part has no say in how large later values may be, and cutting them would forge the truth.
    """

    def __init__(
        self,
        source: FrameSource,
        windows: Indices,
        scaling: Scaling,
        *,
        cut: bool = True,
        covariates: CovariateRows | None = None,
    ) -> None:
        self.source, self.windows, self.scaling, self.cut = source, windows, scaling, cut
        self.covariates = covariates

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.windows)

    def scaled_by(self, scaling: Scaling) -> WindowedClips:
        """Return these clips under another scaling."""
        return WindowedClips(self.source, self.windows, scaling, cut=self.cut, covariates=self.covariates)

    def with_covariates(self, facts: Sequence[Covariate]) -> WindowedClips:
        """Return these clips with their covariates under another scaling."""
        assert self.covariates is not None
        covariates = self.covariates.scaled_as(facts)
        return WindowedClips(self.source, self.windows, self.scaling, cut=self.cut, covariates=covariates)

    def turned(self) -> WindowedClips:
        """Return these clips with the rows in the other order."""
        covariates = self.covariates.upside_down() if self.covariates else None
        return WindowedClips(TurnedSource(self.source), self.windows, self.scaling, cut=self.cut, covariates=covariates)

    def __getitem__(self, index: int) -> Sample:
        """Return clip ``index`` with the mask of what is data and, where the source has them, its times."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        numbers = self.windows[index]
        values = torch.from_numpy(self.source.read(numbers))
        valid = None if self.source.complete else ~values.isnan()
        frames = self.scaling.scale(values if valid is None else values.where(valid, torch.tensor(0.0)))
        if self.cut:
            frames = frames.clamp(0, 1)
        if valid is None:
            sample: Sample = {"frames": frames, "index": index}
        else:
            sample = {"frames": frames.where(valid, torch.tensor(0.0)), "index": index, "valid": valid}
        times = None if self.source.times is None else self.source.times[numbers]
        if self.covariates:
            sample["covariates"] = self.covariates.rows(times, numbers)
        if times is not None:
            sample["times"] = torch.from_numpy(times)
        return sample


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


def assign_splits(sequences: Sequence[range], shares: Shares) -> Blocks:
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
    blocks: Sequence[range], times: Indices | None, length: int, interval: int, stride: int, step: int = 1
) -> Indices:
    """Return the windows of ``length`` frames that lie within one of the blocks, (K, length) frame numbers.

    Args:
        blocks: runs of frame numbers.
        times: of all frames, in seconds; None takes frames as equally spaced.
        length: frames of a clip.
        interval: seconds between the frames of a clip, where there are times.
        stride: take every so many of the possible starts.
        step: take every so many frames, where there are no times.
    """
    windows = [np.empty((0, length), np.int64)]
    for block in blocks:
        if times is None:
            windows.append(block.start + windows_by_number(len(block), length, stride, step))
        else:
            windows.append(block.start + windows_by_time(times[block.start : block.stop], length, interval, stride))
    return np.concatenate(windows)
