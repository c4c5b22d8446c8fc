"""The counts of one forecast so far, and the results that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from framecast.analysis.bootstrap import interval, weigh_counts
from framecast.scores.family import Compared, Counts, ScoreFamily, add_counts, plain_values, pool_counts


class Tally:
    """Counts of one forecast by family of scores, and their bootstrap replicates."""

    def __init__(self, families: Mapping[str, ScoreFamily]) -> None:
        self.families = families
        self.counts: dict[str, Counts] = {name: {} for name in families}
        self.replicates: dict[str, Counts] = {name: {} for name in families}

    def add(self, pair: Compared, weights: Tensor | None) -> None:
        """Add a batch; ``weights`` (R, B) count its clips in the replicates, None makes none."""
        for name, family in self.families.items():
            counts = {key: values.cpu() for key, values in family.counts(pair).items()}
            self.counts[name] = add_counts(self.counts[name], pool_counts(counts, 0))
            if weights is not None:
                self.replicates[name] = add_counts(self.replicates[name], weigh_counts(counts, weights))

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
