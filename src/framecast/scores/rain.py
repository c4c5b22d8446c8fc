"""Scores of rain rates at thresholds: from contingency counts, per lead time and pooled.

An event is a rate of at least the threshold. Over all pixels that count, with hits a (forecast and observed), false
alarms b (forecast only), misses c (observed only) and correct negatives d:

    CSI = a / (a + b + c)       POD = a / (a + c)       FAR = b / (a + b)       bias = (a + b) / (a + c)
    HSS = 2 (a d - b c) / ((a + c) (c + d) + (a + b) (b + d))

    FSS = 1 - Σ (Pf - Po)² / (Σ Pf² + Σ Po²)      at a scale of n pixels

where Pf and Po are the shares of events in the n x n window around a pixel, taken as zero outside of the frame and
where nothing counts (zero padding, as in pysteps); the sums run over the pixels that count. An even window reaches
one pixel further up and left. With counts in place of shares all sums are whole numbers, so everything adds exactly.

A score whose denominator is zero is undefined: NaN, never 0; the counts tell why. The released code sets it to 0
and averages scores of single lead times over all frames: that is ``published_scores``.

References: Donaldson, Dyer and Kraus 1975 and Gilbert 1884 (CSI); Heidke 1926 (HSS); Roberts and Lean, "Scale-
selective verification of rainfall accumulations", Mon. Weather Rev. 136, 2008, doi:10.1175/2007MWR2123.1 (FSS).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from framecast.errors import OptionError, check_count
from framecast.registry import RAIN_RATE
from framecast.scores.family import Best, Compared, Counts, ScoreFamily, ScoreInfo, masked

THRESHOLDS = (0.5, 2.0, 5.0)
SCALES = (5, 11)
# A rate that the scaling's float32 rounding takes below its threshold is an event all the same.
ROUNDING = 1e-5

# Kind of score -> label, what is best, table, whether it is one of the main ones.
KINDS: dict[str, tuple[str, Best, str, bool]] = {
    "csi": ("CSI", "high", "Rain, skill", True),
    "hss": ("HSS", "high", "Rain, skill", True),
    "pod": ("POD", "high", "Rain, hits and false alarms", False),
    "far": ("FAR", "low", "Rain, hits and false alarms", False),
    "bias": ("bias", "one", "Rain, how much of it", False),
}
LARGEST_32_BIT = 200

CELLS = ("hits", "false_alarms", "misses", "correct_negatives")


def contingency_counts(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, *, thresholds: Sequence[float] = THRESHOLDS
) -> Counts:
    """Return hits, false alarms, misses and correct negatives at each threshold, (B, T) int64 each.

    Args:
        forecast: (B, T, C, H, W) in mm/h.
        truth: (B, T, C, H, W) in mm/h.
        valid: booleans (B, T, 1 or C, H, W) of what counts.
        thresholds: in mm/h.
    """
    counts: Counts = {}
    in_domain = torch.ones_like(truth, dtype=torch.bool) if valid is None else valid.expand_as(truth)
    pixels = in_domain.sum((2, 3, 4))
    for threshold in thresholds:
        forecast_event, event = (_events(rates, threshold) & in_domain for rates in (forecast, truth))
        hits = (forecast_event & event).sum((2, 3, 4))
        false_alarms, misses = forecast_event.sum((2, 3, 4)) - hits, event.sum((2, 3, 4)) - hits
        cells = hits, false_alarms, misses, pixels - hits - false_alarms - misses
        counts |= {f"{name}_{threshold:g}": cell for name, cell in zip(CELLS, cells, strict=True)}
    return counts


def contingency_scores(hits: Tensor, false_alarms: Tensor, misses: Tensor, correct_negatives: Tensor) -> Counts:
    """Return CSI, HSS, POD, FAR and frequency bias of counts of any shape, NaN where undefined."""
    a, b, c, d = (cell.double() for cell in (hits, false_alarms, misses, correct_negatives))
    return {
        "csi": a / (a + b + c),
        "hss": 2 * (a * d - b * c) / ((a + c) * (c + d) + (a + b) * (b + d)),
        "pod": a / (a + c),
        "far": b / (a + b),
        "bias": torch.where(a + c > 0, (a + b) / (a + c), torch.nan),
    }


def fraction_counts(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, *, thresholds: Sequence[float], scales: Sequence[int]
) -> Counts:
    """Return Σ (Nf - No)² and Σ Nf² + Σ No² of event numbers in windows, (B, T) int64 each; see the module."""
    counts: Counts = {}
    in_domain = torch.ones_like(truth, dtype=torch.bool) if valid is None else valid.expand_as(truth)
    for threshold in thresholds:
        events = torch.stack([_events(rates, threshold) & in_domain for rates in (forecast, truth)])
        for scale in scales:
            forecast_fraction, truth_fraction = (
                masked(numbers, in_domain) for numbers in window_numbers(events, scale)
            )
            name = f"{threshold:g}_{scale}"
            error, *worst = (
                _total(numbers.square())
                for numbers in (forecast_fraction - truth_fraction, forecast_fraction, truth_fraction)
            )
            counts[f"fss_error_{name}"], counts[f"fss_worst_{name}"] = error, worst[0] + worst[1]
    return counts


def window_numbers(events: Tensor, scale: int) -> Tensor:
    """Return how many events lie in the ``scale`` x ``scale`` window around each pixel of (..., H, W), as integers."""
    before, after = scale // 2, (scale - 1) // 2
    # Half the memory, half the time; squares of numbers in larger windows would not fit.
    kind = torch.int32 if scale <= LARGEST_32_BIT else torch.int64
    padded = F.pad(events.to(kind), (before + 1, after, before + 1, after))
    sums = padded.cumsum(-1, dtype=kind).cumsum(-2, dtype=kind)
    return (
        sums[..., scale:, scale:]
        - sums[..., :-scale, scale:]
        - sums[..., scale:, :-scale]
        + (sums[..., :-scale, :-scale])
    )


def _total(numbers: Tensor) -> Tensor:
    return numbers.sum((2, 3, 4), dtype=torch.int64)


def _events(rates: Tensor, threshold: float) -> Tensor:
    return rates >= threshold * (1 - ROUNDING)


class RainScores(ScoreFamily):
    """CSI, HSS, POD, FAR, frequency bias and FSS.

    Args:
        thresholds: in mm/h.
        scales: windows of the FSS in pixels.

    Raises:
        ValueError: no thresholds, one not above 0, or a scale below 1.
    """

    note = (
        "Rain: an event is a rate of at least the threshold; hits, false alarms, misses and correct negatives are "
        "summed over all pixels with data, clips and lead times before a score is made of them. A bias of 1 is best. "
        "FSS compares shares of events in square windows, zero beyond the edge. Models trained on errors smooth, "
        "extrapolation does not: judge by thresholds and bias together."
    )

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, scales: Sequence[int] = SCALES) -> None:
        if not thresholds or min(thresholds) <= 0:
            raise OptionError(f"thresholds are {list(thresholds)} and must be rain rates above 0 mm/h")
        for scale in scales:
            check_count("a scale of the FSS", scale)
        self.thresholds, self.scales = tuple(thresholds), tuple(scales)

    @staticmethod
    def suits(unit: str) -> bool:
        """Return whether the unit is that of rain rates."""
        return unit == RAIN_RATE

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the scores are shown."""
        infos = {}
        for kind, (label, best, table, main) in KINDS.items():
            for threshold in self.thresholds:
                title = f"{label} ≥ {threshold:g} mm/h"
                infos[f"{kind}_{threshold:g}"] = ScoreInfo(title, best, table, main)
        for threshold in self.thresholds:
            for scale in self.scales:
                title = f"FSS ≥ {threshold:g}, {scale} px"
                middle = scale == self.scales[len(self.scales) // 2]
                infos[f"fss_{threshold:g}_{scale}"] = ScoreInfo(title, "high", "Rain in windows, mm/h", False, middle)
        return infos

    def counts(self, pair: Compared) -> Counts:
        """Return the counts per clip and lead time."""
        forecast, truth = (pair.unscale(masked(frames.float(), pair.valid)) for frames in (pair.forecast, pair.truth))
        return {
            **contingency_counts(forecast, truth, pair.valid, thresholds=self.thresholds),
            **fraction_counts(forecast, truth, pair.valid, thresholds=self.thresholds, scales=self.scales),
        }

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores of counts, NaN where undefined."""
        scores: dict[str, Tensor] = {}
        for threshold in self.thresholds:
            named = contingency_scores(*(counts[f"{cell}_{threshold:g}"] for cell in CELLS))
            scores |= {f"{name}_{threshold:g}": values for name, values in named.items()}
            for scale in self.scales:
                name = f"{threshold:g}_{scale}"
                error, worst = counts[f"fss_error_{name}"].double(), counts[f"fss_worst_{name}"].double()
                scores[f"fss_{name}"] = 1 - error / worst
        return {name: scores[name] for name in self.info()}

    def published_scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores with 0 where they are undefined, as the released code has them."""
        return {name: values.nan_to_num(0.0) for name, values in self.scores(counts).items()}
