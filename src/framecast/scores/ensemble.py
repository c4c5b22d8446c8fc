"""Scores of ensembles and of the probabilities that follow from them: CRPS, spread, ranks, reliability, Brier, ROC.

For members x_1 … x_M, a truth y, and an event (a value of at least a threshold) that k of the members forecast:

    CRPS      = 1/M Σ |x_j - y| - 1/(2 M²) Σ_jk |x_j - x_k|                fair: 1/(2 M (M - 1)) instead of 1/(2 M²)
    spread    = √(Σ (M + 1)/M s²  /  Σ (x̄ - y)²)                           s² the members' variance; 1 is best
    ranks     n_r, r = 0 … M: how often r members lie below the truth; a truth that equals t of them counts 1/(t + 1) to
              each of t + 1 ranks. Flat where the truth could be one of the members.
    rank error = Σ_r |n_r / n - 1/(M + 1)|
    Brier     = 1/n Σ (k/M - o)²                                           o = 1 where the event was observed, else 0
    slope     of observed frequency on forecast probability k/M, weighted by how often it was forecast; 1 is best
    ROC area  of hit rate over false alarm rate, the event forecast where k/M is at least some probability
    SSIM and sharpness of a member, in the mean over members: of frames in the model's range, where the mean is blurred

All are sums over the pixels that count, so those of clips, lead times and processes add up. A single forecast is an
ensemble of one: its CRPS is its mean absolute error.

References: Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 102, 2007,
doi:10.1198/016214506000001437. Ferro, "Fair scores for ensemble forecasts", QJRMS 140, 2014, doi:10.1002/qj.2270.
Fortin et al., "Why Should Ensemble Spread Match the RMSE of the Ensemble Mean?", J. Hydrometeorol. 15, 2014,
doi:10.1175/JHM-D-14-0008.1. Hamill, "Interpretation of Rank Histograms for Verifying Ensemble Forecasts", Mon. Weather
Rev. 129, 2001, doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from framecast.errors import OptionError
from framecast.registry import RAIN_RATE
from framecast.scores.family import Compared, Counts, ScoreFamily, ScoreInfo, masked
from framecast.scores.image import image_counts
from framecast.scores.rain import ROUNDING, THRESHOLDS
from framecast.scores.sharpness import gradient_energy


class EnsembleScores(ScoreFamily):
    """CRPS, spread against error, rank histogram, and at thresholds Brier score, reliability and ROC.

    Args:
        unit: physical unit of the data.
        thresholds: of events, in that unit; None takes those of rain, and none for other data.

    Raises:
        ValueError: a threshold of rain that is not above 0.
    """

    of_ensembles = True
    note = (
        "Ensembles: CRPS is in the unit of the data, and of a single forecast its mean absolute error; a spread of 1 "
        "means that members differ from their mean as the truth does. Ranks, reliability and ROC count pixels, which "
        "are not independent."
    )

    def __init__(self, unit: str, thresholds: Sequence[float] | None = None) -> None:
        if thresholds is None:
            thresholds = THRESHOLDS if unit == RAIN_RATE else ()
        if unit == RAIN_RATE and thresholds and min(thresholds) <= 0:
            raise OptionError(f"thresholds are {list(thresholds)} and must be rain rates above 0 mm/h")
        self.unit, self.thresholds = unit, tuple(thresholds)

    @staticmethod
    def suits(unit: str) -> bool:
        """Return True: it is for ensembles of anything."""
        del unit
        return True

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the scores are shown."""
        unit = "" if self.unit == "1" else f" ({self.unit})"
        table = "Ensemble"
        infos = {
            "crps": ScoreInfo(f"CRPS{unit}", "low", table, True),
            "crps_fair": ScoreInfo(f"fair CRPS{unit}", "low", table, False),
            "spread": ScoreInfo("spread / error", "one", table, True),
            "rank_error": ScoreInfo("rank error", "low", table, False),
            "member_ssim": ScoreInfo("SSIM of a member", "high", table, False),
            "member_sharpness": ScoreInfo("sharpness of a member", "one", table, False),
        }
        event = f" {self.unit}" if unit else ""
        for threshold in self.thresholds:
            text, table = f"≥ {threshold:g}{event}", "Probabilities"
            infos |= {
                f"brier_{threshold:g}": ScoreInfo(f"Brier {text}", "low", table, False),
                f"slope_{threshold:g}": ScoreInfo(f"reliability slope {text}", "one", table, False),
                f"roc_{threshold:g}": ScoreInfo(f"ROC area {text}", "high", table, False),
            }
        return infos

    def counts(self, pair: Compared) -> Counts:
        """Return the counts per clip and lead time."""
        members = pair.forecast[:, None] if pair.members is None else pair.members
        valid = pair.valid
        values = pair.unscale(masked(members.float(), None if valid is None else valid[:, None])).double()
        truth = pair.unscale(masked(pair.truth.float(), valid)).double()
        in_domain = torch.ones_like(truth, dtype=torch.bool) if valid is None else valid.expand_as(truth)
        return {
            **crps_counts(values, truth, in_domain),
            **rank_counts(values, truth, in_domain),
            **probability_counts(values, truth, in_domain, thresholds=self.thresholds),
            **member_counts(members.float().clamp(0, 1), pair.truth.float(), valid),
        }

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores of counts, NaN where undefined."""
        pixels = counts["pixels"].double()
        error = counts["member_error"] / pixels
        ranks = torch.stack([counts[name] for name in _numbered(counts, "rank_")], -1)
        scores = {
            "crps": error - counts["member_difference"] / pixels,
            "crps_fair": error - counts["member_difference_fair"] / pixels,
            "spread": (counts["member_variance"] / counts["mean_squared_error"]).sqrt(),
            "rank_error": (ranks / pixels[..., None] - 1 / ranks.shape[-1]).abs().sum(-1),
            "member_ssim": counts["member_ssim"] / counts["member_frames"],
            "member_sharpness": counts["member_energy"] / counts["true_energy"],
        }
        for threshold in self.thresholds:
            forecast = torch.stack([counts[name] for name in _numbered(counts, f"forecast_{threshold:g}_")], -1)
            observed = torch.stack([counts[name] for name in _numbered(counts, f"observed_{threshold:g}_")], -1)
            forecast, observed = forecast.double(), observed.double()
            scores |= {
                f"{name}_{threshold:g}": values for name, values in probability_scores(forecast, observed).items()
            }
        return {name: scores[name] for name in self.info()}


def crps_counts(members: Tensor, truth: Tensor, in_domain: Tensor) -> Counts:
    """Return sums for CRPS and spread, (B, T) each, of members (B, M, T, C, H, W) and truth (B, T, C, H, W)."""
    count = members.shape[1]
    ranked = members.sort(1).values
    places = 2 * torch.arange(count, dtype=members.dtype, device=members.device) - (count - 1)
    # Σ_jk |x_j - x_k| = 2 Σ_j (2 j - (M - 1)) x_(j), of the members in their order.
    differences = (places[:, None, None, None, None] * ranked).sum(1)
    mean = members.mean(1)
    sums = {
        "member_error": (members - truth[:, None]).abs().mean(1),
        "member_difference": differences / count**2,
        "member_difference_fair": differences / (count * max(1, count - 1)),
        "member_variance": (members - mean[:, None]).square().sum(1) * (count + 1) / (count * max(1, count - 1)),
        "mean_squared_error": (mean - truth).square(),
    }
    counts = {name: masked(values, in_domain).sum((2, 3, 4)) for name, values in sums.items()}
    return {"pixels": in_domain.sum((2, 3, 4)), **counts}


def rank_counts(members: Tensor, truth: Tensor, in_domain: Tensor) -> Counts:
    """Return how often the truth has each rank among the members, (B, T) float64 each, ties shared among ranks."""
    count = members.shape[1]
    below = (members < truth[:, None]).sum(1).flatten(2)
    equal = (members == truth[:, None]).sum(1).flatten(2)
    share = masked(1 / (equal + 1.0).double(), in_domain.flatten(2))
    # A share is added from its first rank on and taken off after its last one.
    steps = share.new_zeros(*share.shape[:2], count + 2)
    steps.scatter_add_(2, below, share).scatter_add_(2, below + equal + 1, -share)
    ranks = steps.cumsum(2)
    return {f"rank_{rank}": ranks[..., rank] for rank in range(count + 1)}


def member_counts(members: Tensor, truth: Tensor, valid: Tensor | None) -> Counts:
    """Return SSIM and gradient energy of members (B, M, T, C, H, W), in the mean over them, (B, T) float64 each."""
    similar = [image_counts(one, truth, valid) for one in members.unbind(1)]
    return {
        "member_ssim": torch.stack([counts["ssim"] for counts in similar]).mean(0),
        "member_frames": similar[0]["ssim_frames"],
        "member_energy": torch.stack([gradient_energy(one, valid) for one in members.unbind(1)]).mean(0),
        "true_energy": gradient_energy(truth, valid),
    }


def probability_counts(members: Tensor, truth: Tensor, in_domain: Tensor, *, thresholds: Sequence[float]) -> Counts:
    """Return how often k of M members forecast an event, and how often it then was observed, (B, T) int64 each."""
    counts: Counts = {}
    count = members.shape[1]
    for threshold in thresholds:
        limit = threshold * (1 - ROUNDING)
        votes = (members >= limit).sum(1).flatten(2)
        event = ((truth >= limit) & in_domain).flatten(2)
        forecast = torch.zeros(*votes.shape[:2], count + 1, dtype=torch.int64, device=votes.device)
        observed = forecast.clone()
        forecast.scatter_add_(2, votes, in_domain.flatten(2).long())
        observed.scatter_add_(2, votes, event.long())
        for number in range(count + 1):
            counts[f"forecast_{threshold:g}_{number}"] = forecast[..., number]
            counts[f"observed_{threshold:g}_{number}"] = observed[..., number]
    return counts


def probability_scores(forecast: Tensor, observed: Tensor) -> dict[str, Tensor]:
    """Return Brier score, slope of reliability and ROC area, NaN where undefined.

    Args:
        forecast: (..., M + 1) how often k = 0 … M of M members forecast the event.
        observed: (..., M + 1) how often it then was observed.
    """
    members = forecast.shape[-1] - 1
    chance = torch.arange(members + 1, dtype=torch.float64, device=forecast.device) / members
    total = forecast.sum(-1)
    brier = ((forecast - observed) * chance.square() + observed * (1 - chance).square()).sum(-1) / total
    mean_chance, frequency = (forecast * chance).sum(-1) / total, observed.sum(-1) / total
    centred = chance - mean_chance[..., None]
    together = (centred * (observed - forecast * frequency[..., None])).sum(-1)
    slope = together / (forecast * centred.square()).sum(-1)
    hits = observed.flip(-1).cumsum(-1) / observed.sum(-1, keepdim=True)
    missed = forecast - observed
    alarms = missed.flip(-1).cumsum(-1) / missed.sum(-1, keepdim=True)
    zero = torch.zeros_like(hits[..., :1])
    area = torch.trapezoid(torch.cat([zero, hits], -1), torch.cat([zero, alarms], -1))
    return {"brier": brier, "slope": slope, "roc": area}


def _numbered(counts: Counts, start: str) -> list[str]:
    """Return the names that begin so, in the order of the numbers they end with."""
    names = [name for name in counts if name.startswith(start)]
    return sorted(names, key=lambda name: int(name.removeprefix(start)))
