"""The order of clips: a function of (seed, epoch, batch), for any number of workers and ranks.

To the loop a training is one long sequence of batches. Batch b belongs to epoch b // per_epoch, whose clips
are shuffled by (seed, epoch); of every global batch, rank r takes the clips r, r + ranks, r + 2 ranks, …, so
the ranks together see what one process would. To continue after batch k is to start the sequence at k.

Where clips have weights, an epoch draws as many clips as there are, each time one by its weight (with replacement).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler
from tqdm import tqdm

from framecast.data.clips import ClipSet
from framecast.data.windows import WindowedClips
from framecast.errors import DataError, OptionError

DRAWS = ("uniform", "rain")
DRY_SHARE = 0.1
"""Share of draws that go to all clips alike where the others go to those that hold much, so that none is left out."""


def weights_by_content(clips: ClipSet) -> NDArray[np.float64]:
    """Return weights (N,) of clips, which add up to 1: the more, the more their frames hold, in the model's numbers.

    Every frame is read once.

    Raises:
        OptionError: the clips are made and not cut from frames, so that nothing is known of them beforehand.
    """
    if not isinstance(clips, WindowedClips):
        raise OptionError("draw='rain' is for clips that are cut from frames; these are made: leave draw out")
    frames, places = np.unique(clips.windows, return_inverse=True)
    frame_content = np.empty(len(frames))
    for place, number in enumerate(tqdm(frames, desc="how much the clips hold", delay=2, leave=False)):
        numbers = clips.scaling.scale(torch.from_numpy(clips.source.read(np.array([number]))))
        frame_content[place] = numbers.nan_to_num(0.0).double().mean().item()
    content = frame_content[places.reshape(clips.windows.shape)].mean(1)
    equal = np.full(len(clips), 1 / len(clips))
    return equal if not content.any() else DRY_SHARE * equal + (1 - DRY_SHARE) * content / content.sum()


class ShuffledBatches(Sampler[list[int]]):
    """The clip numbers of one rank's batches, over all epochs.

    A last batch that would be incomplete is left out; every epoch leaves out other clips. With ``weights`` (N,), which
    add up to 1, clips are drawn by them.

    Raises:
        DataError: the split is smaller than one batch, or the batch does not divide among the ranks.
    """

    def __init__(self, clips: int, batch: int, total: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        if clips < batch:
            raise DataError(f"the training split has {clips} clips, fewer than one batch of {batch}: lower batch")
        if batch % ranks:
            raise DataError(f"a batch of {batch} does not divide among {ranks} processes: use a multiple of {ranks}")
        self.clips, self.batch, self.total, self.seed = clips, batch, total, seed
        self.rank, self.ranks = rank, ranks
        self.start = 0
        self.weights: NDArray[np.float64] | None = None

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.clips // self.batch

    def __len__(self) -> int:
        """Return the number of batches of the whole training, also when it starts in the middle."""
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the clip numbers of each batch from ``start`` on."""
        epoch, order = -1, np.empty(0, np.int64)
        for number in range(self.start, self.total):
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                generator = np.random.default_rng([self.seed, epoch])
                if self.weights is None:
                    order = generator.permutation(self.clips)
                else:
                    order = generator.choice(self.clips, self.clips, p=self.weights)
            place = number % self.per_epoch * self.batch
            yield order[place + self.rank : place + self.batch : self.ranks].tolist()


class EveryClipOnce(Sampler[int]):
    """The clip numbers of one rank's share of a split, each clip on exactly one rank."""

    def __init__(self, clips: int, rank: int = 0, ranks: int = 1) -> None:
        self.numbers = range(rank, clips, ranks)

    def __len__(self) -> int:
        """Return the number of clips of this rank."""
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        """Yield them in order."""
        return iter(self.numbers)
