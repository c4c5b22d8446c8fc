"""The counts of one forecast so far, and the results that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from framecast.analysis.bootstrap import interval, weigh_counts
from framecast.scores.family import Compared, Counts, ScoreFamily, add_counts, plain_values, pool_counts


class Tally:
    """Counts of one forecast by family of scores, and their bootstrap replicates."""

    def __init__(self, families: Mapping[str, ScoreFamily]) -> None:
        self.families = families
        self.counts: dict[str, Counts] = {name: {} for name in families}
        self.replicates: dict[str, Counts] = {name: {} for name in families}
        self.clips: list[int] = []
        self.each: dict[str, list[Counts]] = {name: [] for name in families}

    def add(self, pair: Compared, weights: Tensor | None, clips: Sequence[int] = ()) -> None:
        """Add a batch; ``weights`` (R, B) count its clips in the replicates, None makes none.

        Where ``clips`` has their numbers, the counts of each clip are kept too.
        """
        self.clips += clips
        for name, family in self.families.items():
            counts = {key: values.cpu() for key, values in family.counts(pair).items()}
            self.counts[name] = add_counts(self.counts[name], pool_counts(counts, 0))
            if weights is not None:
                self.replicates[name] = add_counts(self.replicates[name], weigh_counts(counts, weights))
            if clips:
                self.each[name].append(pool_counts(counts, -1))

    def unite(self, other: Tally) -> None:
        """Add the counts of other clips."""
        for name in self.families:
            self.counts[name] = add_counts(self.counts[name], other.counts[name])
            self.replicates[name] = add_counts(self.replicates[name], other.replicates[name])
            self.each[name] += other.each[name]
        self.clips += other.clips

    def results(self) -> dict[str, Any]:
        """Return scores per lead time and of all lead times pooled, their counts and 95 % intervals."""
        found: dict[str, Any] = {"mean": {}, "per_lead": {}, "counts": {}, "interval": {"mean": {}, "per_lead": {}}}
        for name, family in self.families.items():
            counts, replicates = self.counts[name], self.replicates[name]
            found["mean"] |= _plain(family.scores(pool_counts(counts, -1)))
            found["per_lead"] |= _plain(family.scores(counts))
            found["counts"] |= _plain(counts)
            if replicates:
                pooled = family.scores(pool_counts(replicates, -1))
                found["interval"]["mean"] |= _plain({key: interval(values) for key, values in pooled.items()})
                each = family.scores(replicates)
                found["interval"]["per_lead"] |= _plain({key: interval(values) for key, values in each.items()})
        if self.clips:
            found["per_clip"] = self._per_clip()
        return found

    def _per_clip(self) -> dict[str, Any]:
        """Return the main scores of each clip, all lead times pooled, in the order of their numbers."""
        order = sorted(range(len(self.clips)), key=self.clips.__getitem__)
        found: dict[str, Any] = {"clip": [self.clips[place] for place in order]}
        for name, family in self.families.items():
            parts = self.each[name]
            scores = family.scores({key: torch.cat([part[key] for part in parts])[order] for key in parts[0]})
            main = {key: values for key, values in scores.items() if family.info()[key].main}
            found |= _plain(main)
        return found


class PublishedTally:
    """Counts of one forecast as the released code takes them, over all frames its model yields."""

    def __init__(self, families: Mapping[str, ScoreFamily]) -> None:
        self.families = families
        self.counts: dict[str, Counts] = {name: {} for name in families}

    def add(self, pair: Compared) -> None:
        """Add a batch."""
        for name, family in self.families.items():
            counts = {key: values.cpu() for key, values in family.published_counts(pair).items()}
            self.counts[name] = add_counts(self.counts[name], pool_counts(counts, 0))

    def unite(self, other: PublishedTally) -> None:
        """Add the counts of other clips."""
        for name in self.families:
            self.counts[name] = add_counts(self.counts[name], other.counts[name])

    def results(self) -> dict[str, Any]:
        """Return scores per frame, and their mean over frames."""
        found: dict[str, Any] = {"mean": {}, "per_lead": {}, "counts": {}}
        for name, family in self.families.items():
            scores = family.published_scores(self.counts[name])
            found["mean"] |= _plain({key: values.mean() for key, values in scores.items()})
            found["per_lead"] |= _plain(scores)
            found["counts"] |= _plain(self.counts[name])
        return found


def _plain(values: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: plain_values(tensor) for name, tensor in values.items()}
