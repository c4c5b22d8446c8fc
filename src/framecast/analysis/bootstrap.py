"""Confidence intervals over clips, in memory that does not grow with their number.

Poisson bootstrap: replicate r counts clip i w_ri times, w_ri drawn from a Poisson distribution of mean 1 and from
(seed, i) alone. Replicates of counts are therefore sums that are added to batch by batch, on any rank and in any
order, and equal for all forecasts of an evaluation; no clip's counts are kept. Intervals are percentiles of the
scores of the replicates. Clips that overlap in time are no independent draws: then the intervals are too narrow.

Reference: Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", Comput.
Methods Programs Biomed. 83, 2006, doi:10.1016/j.cmpb.2006.04.006.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from framecast.scores.family import Counts

LOW, HIGH = 0.025, 0.975


def poisson_weights(clips: Sequence[int], replicates: int, seed: int = 0) -> Tensor:
    """Return how often each replicate counts each clip, (replicates, clips) float64."""
    drawn = [np.random.default_rng([seed, clip]).poisson(1.0, replicates) for clip in clips]
    return torch.from_numpy(np.stack(drawn, 1).astype(np.float64))


def weigh_counts(counts: Counts, weights: Tensor) -> Counts:
    """Return replicates (R, T) of counts (B, T), exact while they are below 2^53."""
    return {name: weights @ values.double() for name, values in counts.items()}


def interval(replicates: Tensor) -> Tensor:
    """Return the 95 % interval of scores (R, ...), (..., 2), from the replicates where they are defined."""
    bounds = torch.tensor([LOW, HIGH], dtype=replicates.dtype)
    return replicates.nanquantile(bounds, dim=0).movedim(0, -1)
