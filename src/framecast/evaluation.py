"""Score a forecaster beside the baselines, clip by clip, in memory that does not grow with the test set.

Protocols, by name:

- ``forecast``: the frames after the context, which is what a user gets. Scores over all lead times are those of their
  pooled counts.
- ``as-published``: also the convention of the code released with MS-LSTM, which averages over all frames the model
  yields, the warm-up inside the context included, takes undefined rain scores as 0, and adds 1e-5 under the logarithm
  of the PSNR.

Masked values enter neither the past nor any score. Nor does, in ``forecast``, what any of the forecasts can know
nothing of, as it would have come from outside the map: all are compared where all of them have something to say.

Confidence intervals come from a Poisson bootstrap over clips: replicate r counts clip i w_ri times, w_ri drawn from a
Poisson distribution of mean 1 by (seed, i) alone. Replicates of counts are sums that grow batch by batch, on any rank
and in any order, and are the same for all forecasts of an evaluation; no clip's counts need to be stored. Intervals are
percentiles of the replicates' scores. Clips that overlap in time are not independent draws, so where clips have times,
blocks of time of the length of a clip are drawn, each with all clips that begin in it; of fewer than three there is no
interval. The same replicates give the interval of the difference between the model and each baseline.

Reference: Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies", Comput.
Methods Programs Biomed. 83, 2006, doi:10.1016/j.cmpb.2006.04.006.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framecast.compute.precision import autocast
from framecast.data.clips import ClipSpec, Sample
from framecast.errors import OptionError, UnknownNameError, check_count
from framecast.models.forecaster import Forecaster
from framecast.models.members import MEMBERS, Mean, check_mean, check_members, ensemble_mean, forecast_members
from framecast.registry import make_baselines, score_families
from framecast.scores.family import Compared, Counts, ScoreFamily, add_counts, masked, plain_values, pool_counts

LOW, HIGH = 0.025, 0.975
LEAST_BLOCKS = 3
"""Independent clips or blocks of time below which no interval is given: of one, all replicates are alike."""


def poisson_weights(clips: Sequence[int], replicates: int, seed: int = 0) -> Tensor:
    """Return how often each replicate counts each clip, (replicates, clips) float64."""
    weights = [np.random.default_rng([seed, clip]).poisson(1.0, replicates) for clip in clips]
    return torch.from_numpy(np.stack(weights, 1).astype(np.float64))


def weigh_counts(counts: Counts, weights: Tensor) -> Counts:
    """Return replicates (R, T) of counts (B, T), exact while they are below 2^53."""
    return {name: weights @ values.double() for name, values in counts.items()}


def interval(replicates: Tensor) -> Tensor:
    """Return the 95 % interval of scores (R, ...), (..., 2), from the replicates where they are defined."""
    bounds = torch.tensor([LOW, HIGH], dtype=replicates.dtype)
    return replicates.nanquantile(bounds, dim=0).movedim(0, -1)


class ScoreAccumulator:
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

    def merge(self, other: ScoreAccumulator) -> None:
        """Add the counts of other clips."""
        for name in self.families:
            self.counts[name] = add_counts(self.counts[name], other.counts[name])
            self.replicates[name] = add_counts(self.replicates[name], other.replicates[name])
            self.each[name] += other.each[name]
        self.clips += other.clips

    def results(self) -> dict[str, Any]:
        """Return scores per lead time and of all lead times pooled, their counts and 95 % intervals."""
        results: dict[str, Any] = {"mean": {}, "per_lead": {}, "counts": {}, "interval": {"mean": {}, "per_lead": {}}}
        for name, family in self.families.items():
            counts, replicates = self.counts[name], self.replicates[name]
            results["mean"] |= _plain(family.scores(pool_counts(counts, -1)))
            results["per_lead"] |= _plain(family.scores(counts))
            results["counts"] |= _plain(counts)
            if replicates:
                pooled = family.scores(pool_counts(replicates, -1))
                results["interval"]["mean"] |= _plain({key: interval(values) for key, values in pooled.items()})
                each = family.scores(replicates)
                results["interval"]["per_lead"] |= _plain({key: interval(values) for key, values in each.items()})
        if self.clips:
            results["per_clip"] = self._per_clip()
        return results

    def difference(self, other: ScoreAccumulator) -> dict[str, Any]:
        """Return the scores of all lead times minus another forecast's, with 95 % intervals by the same replicates."""
        difference: dict[str, Any] = {"mean": {}, "interval": {}}
        for name, family in self.families.items():
            pairs = [
                [family.scores(pool_counts(one, -1)) for one in (mine.counts[name], mine.replicates[name])]
                for mine in (self, other)
            ]
            (scores, replicates), (its, its_replicates) = pairs
            difference["mean"] |= _plain({key: values - its[key] for key, values in scores.items()})
            difference["interval"] |= _plain(
                {key: interval(values - its_replicates[key]) for key, values in replicates.items()}
            )
        return difference

    def _per_clip(self) -> dict[str, Any]:
        """Return the main scores of each clip, all lead times pooled, in the order of their numbers."""
        order = sorted(range(len(self.clips)), key=self.clips.__getitem__)
        columns: dict[str, Any] = {"clip": [self.clips[place] for place in order]}
        for name, family in self.families.items():
            parts = self.each[name]
            scores = family.scores({key: torch.cat([part[key] for part in parts])[order] for key in parts[0]})
            main = {key: values for key, values in scores.items() if family.info()[key].main}
            columns |= _plain(main)
        return columns


class PublishedAccumulator:
    """Counts of one forecast as the released code takes them, over all frames its model yields."""

    def __init__(self, families: Mapping[str, ScoreFamily]) -> None:
        self.families = families
        self.counts: dict[str, Counts] = {name: {} for name in families}

    def add(self, pair: Compared) -> None:
        """Add a batch."""
        for name, family in self.families.items():
            counts = {key: values.cpu() for key, values in family.published_counts(pair).items()}
            self.counts[name] = add_counts(self.counts[name], pool_counts(counts, 0))

    def merge(self, other: PublishedAccumulator) -> None:
        """Add the counts of other clips."""
        for name in self.families:
            self.counts[name] = add_counts(self.counts[name], other.counts[name])

    def results(self) -> dict[str, Any]:
        """Return scores per frame, and their mean over frames."""
        results: dict[str, Any] = {"mean": {}, "per_lead": {}, "counts": {}}
        for name, family in self.families.items():
            scores = family.published_scores(self.counts[name])
            results["mean"] |= _plain({key: values.mean() for key, values in scores.items()})
            results["per_lead"] |= _plain(scores)
            results["counts"] |= _plain(self.counts[name])
        return results


def _plain(values: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: plain_values(tensor) for name, tensor in values.items()}


Protocol = Literal["forecast", "as-published"]
PROTOCOLS = ("forecast", "as-published")
LARGEST_HALF = 60_000.0


class PartialSums(NamedTuple):
    """The sums of an evaluation of some of the clips, such as one process takes to another.

    Attributes:
        clips: how many.
        seconds: the model took.
        pixels: that are data, and those of them that no forecast could know.
        blocks: what is drawn as one for intervals: clips, or blocks of time.
        accumulators: counts by forecast.
        published: counts as the released code takes them.
        fallbacks: clips that a baseline could not treat, by baseline; None for those that treat all.
        period: the time of the first and of the last frame, or None where they have none.
        numbers: of the clips kept for the report, in their split.
        examples: these clips.
    """

    clips: int
    seconds: float
    pixels: tuple[int, int]
    blocks: set[int]
    accumulators: dict[str, ScoreAccumulator]
    published: PublishedAccumulator
    fallbacks: dict[str, int | None]
    period: tuple[int, int] | None
    numbers: list[int]
    examples: dict[str, list[Tensor]]


class Evaluation:
    """The sums of an evaluation so far, of one model and the baselines.

    Args:
        model: the forecaster.
        name: what it is called in the results.
        spec: the facts of the clips.
        protocol: "forecast" or "as-published".
        examples: clips to keep for the report.
        scores: families of scores by name; None takes those that suit the unit.
        score_options: options of families, such as thresholds.
        baselines: by name; None takes those that suit the unit and are installed.
        bootstrap: replicates for confidence intervals; 0 for none.
        per_clip: keep the scores of every clip.
        precision: in which the model forecasts, see ``framecast.compute.precision.autocast``.
        members: of the ensemble, for a model with noise, whose forecast is their mean; None takes ``MEMBERS``.
        seed: of the members.
        mean: of the members, "plain" or "matched".

    Raises:
        UnknownNameError: a name or option that does not exist.
        MissingExtraError: a baseline that was asked for needs a package that is not installed.
        ValueError: an impossible option.
    """

    def __init__(
        self,
        model: Forecaster,
        name: str,
        spec: ClipSpec,
        protocol: Protocol = "forecast",
        examples: int = 0,
        *,
        scores: Sequence[str] | None = None,
        score_options: Mapping[str, Any] | None = None,
        baselines: Sequence[str] | None = None,
        bootstrap: int = 0,
        per_clip: bool = False,
        precision: str = "32-true",
        members: int | None = None,
        seed: int | None = None,
        mean: Mean = "plain",
    ) -> None:
        autocast(torch.device("cpu"), precision)  # refuses an unknown one
        if protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", protocol, PROTOCOLS)
        check_count("bootstrap", bootstrap, least=0)
        self.model, self.name, self.spec, self.protocol = model, name, spec, protocol
        self.max_examples, self.replicates, self.per_clip, self.precision = examples, bootstrap, per_clip, precision
        self.clips = 0
        self.seconds = 0.0
        self.pixels = (0, 0)
        self.blocks: set[int] = set()
        check_members(model, members, seed)
        self.members, self.seed = (members or MEMBERS) if model.noise else 0, seed or 0
        if self.members and protocol != "forecast":
            raise OptionError("protocol 'as-published' is for single forecasts, and this model makes an ensemble")
        self.period: tuple[int, int] | None = None
        self.baselines = make_baselines(spec.unit, spec.scaling, baselines, spec)
        ensembles = bool(self.members) or any(baseline.members for baseline in self.baselines.values())
        self.mean = check_mean(mean)
        if mean != "plain" and not ensembles:
            raise OptionError(
                f"mean={mean} is of the members of an ensemble, and here are single forecasts: leave it out"
            )
        self.families = score_families(spec.unit, scores, score_options, ensembles=ensembles)
        self.accumulators = {forecast: ScoreAccumulator(self.families) for forecast in (name, *self.baselines)}
        self.published = PublishedAccumulator(self.families)
        self.examples: dict[str, list[Tensor]] = {}
        self.numbers: list[int] = []

    def add(self, batch: Sample) -> None:
        """Add a batch of clips (B, T, C, H, W) in [0, 1], collated.

        Raises:
            ValueError: the protocol needs forecasts of the warm-up frames and the model makes none.
        """
        context, length = self.spec.context, self.spec.length
        valid = batch.get("valid")
        if valid is not None and valid.all():
            valid = None
        frames = masked(batch["frames"], valid)
        past, truth = frames[:, :context], frames[:, context:length]
        past_valid, truth_valid = (None, None) if valid is None else (valid[:, :context], valid[:, context:length])
        covariates = batch.get("covariates") if self.model.covariates else None
        began = time.perf_counter()
        forecast, known = self._forecast(frames, valid, covariates, batch)
        if frames.device.type != "cpu":
            torch.accelerator.synchronize(frames.device)
        self.seconds += time.perf_counter() - began
        forecasts, known_by = {self.name: forecast}, {} if known is None else {self.name: known}
        for name, baseline in self.baselines.items():
            forecasts[name], mask = baseline.with_mask(past, self.spec.horizon, past_valid)
            if baseline.extrapolates:
                known_by[name] = mask
                known = mask if known is None else known & mask
        if known is not None and self.protocol == "forecast":
            everywhere = torch.ones_like(truth, dtype=torch.bool) if truth_valid is None else truth_valid
            truth_valid = everywhere & known
            total = int(everywhere.sum())
            self.pixels = (self.pixels[0] + total, self.pixels[1] + total - int(truth_valid.sum()))
        clips = torch.as_tensor(batch["index"]).tolist()
        blocks = self._blocks(batch)
        self.blocks |= set(blocks)
        weights = poisson_weights(blocks, self.replicates) if self.replicates else None
        pairs = {name: self._compared(forecast, truth, truth_valid) for name, forecast in forecasts.items()}
        for name, pair in pairs.items():
            self.accumulators[name].add(pair, weights, clips if self.per_clip else ())
        singles = {name: pair.forecast for name, pair in pairs.items()}
        self._keep(batch, {"past": past, "truth": truth, **singles}, known_by)
        self.clips += len(frames)
        if "times" in batch:
            times = batch["times"]
            self.period = _joint_period([self.period, (int(times.min()), int(times.max()))])

    def _blocks(self, batch: Sample) -> list[int]:
        """Return what is drawn as one of each clip: the block of time it begins in, or itself."""
        clips: list[int] = torch.as_tensor(batch["index"]).tolist()
        if "times" not in batch or not self.spec.interval:
            return clips
        return (batch["times"][:, 0] // int(self.spec.interval * self.spec.length)).tolist()

    def _compared(self, forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Compared:
        """Return what families of scores take of a forecast (B, T, C, H, W), or of members (B, M, T, C, H, W)."""
        members = forecast if forecast.ndim == 6 else None
        single = forecast if members is None else ensemble_mean(members, self.spec.scaling, self.mean, valid)
        return Compared(single, truth, valid, self.spec.scaling.unscale, members)

    def _forecast(
        self, frames: Tensor, valid: Tensor | None, covariates: Tensor | None, batch: Sample
    ) -> tuple[Tensor, Tensor | None]:
        """Return the model's forecast, or its members, and where it can know something."""
        context, horizon = self.spec.context, self.spec.horizon
        past = frames[:, :context]
        conditions = self.model.conditions(past, horizon, covariates, valid=valid)
        known = None if conditions.known is None else conditions.known[:, context:]
        if self.members:
            samples = torch.as_tensor(batch["index"])
            with autocast(frames.device, self.precision):
                ensemble = forecast_members(
                    self.model, past, horizon, self.members, samples=samples, seed=self.seed,
                    covariates=covariates, valid=valid,
                )  # fmt: skip
            return ensemble.float(), known
        if self.protocol == "forecast":
            with autocast(frames.device, self.precision):
                forecast = self.model.continue_past(past, horizon, conditions.rows)
            return forecast.float(), known
        with autocast(frames.device, self.precision):
            rollout = self.model.rollout(frames[:, :context], context, horizon, rows=conditions.rows)
        if rollout.first != 1:
            raise OptionError(
                f"protocol 'as-published' averages over warm-up frames, and {self.name} forecasts none: "
                "use protocol='forecast'"
            )
        later = slice(1, context + horizon)
        yielded = rollout.frames.float()
        self.published.add(self._compared(yielded, frames[:, later], None if valid is None else valid[:, later]))
        return yielded[:, context - 1 :], known

    def _keep(self, batch: Sample, examples: Mapping[str, Tensor], known_by: Mapping[str, Tensor]) -> None:
        """Keep the first clips for the report, in physical units, with mask and times, NaN where one knows nothing."""
        start = self.max_examples - min(self.max_examples, self.clips)
        if not start:
            return
        self.numbers += torch.as_tensor(batch["index"])[:start].tolist()
        for name, frames in examples.items():
            values = self.spec.scaling.unscale(frames[:start].float().clamp(0, 1))
            if name in known_by:
                values = values.masked_fill(~known_by[name][:start], torch.nan)
            self.examples.setdefault(name, []).append(values.cpu())
        for extra in ("valid", "times"):
            if extra in batch:
                self.examples.setdefault(extra, []).append(batch[extra][:start].cpu())

    def part(self) -> PartialSums:
        """Return the sums so far."""
        fallbacks = {name: baseline.fallbacks for name, baseline in self.baselines.items()}
        return PartialSums(
            self.clips, self.seconds, self.pixels, self.blocks, self.accumulators, self.published, fallbacks,
            self.period, self.numbers, self.examples,
        )  # fmt: skip

    def merge(self, parts: Sequence[PartialSums]) -> None:
        """Take the sums of all parts, one's own among them, for one's own; the first clips of the split are shown."""
        first, *more = parts
        self.clips, self.seconds = sum(part.clips for part in parts), sum(part.seconds for part in parts)
        self.pixels = sum(part.pixels[0] for part in parts), sum(part.pixels[1] for part in parts)
        self.blocks = set().union(*(part.blocks for part in parts))
        self.accumulators, self.published = first.accumulators, first.published
        self.period = _joint_period([part.period for part in parts])
        for other in more:
            self.published.merge(other.published)
            for name, accumulator in self.accumulators.items():
                accumulator.merge(other.accumulators[name])
        for name in first.fallbacks:
            counts = [part.fallbacks[name] for part in parts]
            self.baselines[name].fallbacks = None if None in counts else sum(count or 0 for count in counts)
        numbers = [number for part in parts for number in part.numbers]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)[: self.max_examples]
        names = {name for part in parts for name in part.examples}
        clips = {name: [one for part in parts for one in part.examples.get(name, [])] for name in sorted(names)}
        self.numbers = [numbers[place] for place in order]
        self.examples = {name: [torch.cat(several)[order]] for name, several in clips.items()}

    def results(self) -> dict[str, Any]:
        """Return scores per lead time and of all together, with the counts they come from, as plain values."""
        if len(self.blocks) < LEAST_BLOCKS:
            for accumulator in self.accumulators.values():
                accumulator.replicates = {name: {} for name in self.families}
        results: dict[str, Any] = {
            "protocol": self.protocol,
            "clips": self.clips,
            "context": self.spec.context,
            "horizon": self.spec.horizon,
            "period": list(self.period) if self.period else None,
            "seconds_per_clip": self.seconds / max(1, self.clips),
            "bootstrap": self.replicates if len(self.blocks) >= LEAST_BLOCKS else 0,
            "blocks": len(self.blocks),
            "members": self.members or None,
            "mean": self.mean,
            "unknown_share": self.pixels[1] / self.pixels[0] if self.pixels[0] else None,
            "scores": {
                name: info._asdict() for family in self.families.values() for name, info in family.info().items()
            },
            "notes": [*self._notes(), *(family.note for family in self.families.values() if family.note)],
            "forecasts": {name: accumulator.results() for name, accumulator in self.accumulators.items()},
        }
        for name, baseline in self.baselines.items():
            if baseline.fallbacks is not None:
                results["forecasts"][name]["fallbacks"] = baseline.fallbacks
        model = self.accumulators[self.name]
        results["differences"] = {
            name: model.difference(self.accumulators[name]) for name in self.baselines if results["bootstrap"]
        }
        if self.protocol == "as-published":
            results["as_published"] = {self.name: self.published.results()}
        return results

    def _notes(self) -> list[str]:
        """Say what enters no score."""
        notes = []
        total, unknown = self.pixels
        if unknown:
            notes.append(
                f"{unknown / total:.1%} of the pixels with data enter no score of any forecast: what fell there came "
                "from outside the map, or from where there was no data, so that extrapolation can know nothing of it."
            )
        if self.mean == "matched":
            notes.append(
                "Of an ensemble, scores of one forecast are those of its probability-matched mean: where the mean "
                "says, as much as the members have."
            )
        if self.replicates and len(self.blocks) < LEAST_BLOCKS:
            notes.append(
                f"There are no intervals: the {self.clips} clips overlap in time or are few, so that there are "
                f"{len(self.blocks)} independent of {LEAST_BLOCKS} that it takes."
            )
        return notes

    def example_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the example clips: past, truth and each forecast (N, T, C, H, W) in physical units, valid, times."""
        low, high = self.spec.scaling.limits
        small = max(abs(low), abs(high)) < LARGEST_HALF
        arrays = {name: torch.cat(parts).numpy() for name, parts in self.examples.items()}
        return {
            name: array.astype(np.float16) if small and array.dtype == np.float32 else array
            for name, array in arrays.items()
        }


def _joint_period(periods: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    known = [period for period in periods if period]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


@torch.inference_mode()
def evaluate_clips(
    evaluation: Evaluation, batches: Iterable[Sample], total: int, move: Callable[[Tensor], Tensor], progress: bool
) -> None:
    """Add all batches to an evaluation.

    Args:
        evaluation: takes the sums.
        batches: collated samples.
        total: number of batches, for the progress bar.
        move: puts a tensor on the model's device.
        progress: show a progress bar.
    """
    for batch in tqdm(batches, total=total, desc="evaluate", disable=not progress, leave=False):
        on_device = {name: move(value) if isinstance(value, Tensor) else value for name, value in batch.items()}
        evaluation.add(on_device)  # type: ignore[arg-type]
