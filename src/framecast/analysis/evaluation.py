"""Evaluate a forecaster beside its baselines, clip by clip, in memory that does not grow with the test set.

Protocols, by name:

- ``forecast``: the frames after the context, which is what a user gets. Scores of all lead times together are
  those of their pooled counts.
- ``as-published``: also the convention of the code released with MS-LSTM, which averages over all frames the
  model yields, the warm-up inside the context included, takes undefined rain scores as 0, and adds 1e-5 under
  the logarithm of the PSNR.

What is masked enters neither the past nor any score.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framecast.analysis.bootstrap import poisson_weights
from framecast.analysis.tally import PublishedTally, Tally
from framecast.datasets.clip import ClipSpec, Sample
from framecast.errors import UnknownNameError, check_count
from framecast.models.forecaster import Forecaster
from framecast.registry import make_baselines, score_families
from framecast.scores.family import Compared, masked

Protocol = Literal["forecast", "as-published"]
PROTOCOLS = ("forecast", "as-published")
LARGEST_HALF = 60_000.0


class Part(NamedTuple):
    """The sums of an evaluation of some of the clips, such as one process takes to another.

    Attributes:
        clips: how many.
        seconds: the model took.
        tallies: counts by forecast.
        published: counts as the released code takes them.
        fallbacks: clips that a baseline could not treat, by baseline.
        numbers: of the clips kept for the report, in their split.
        examples: these clips.
    """

    clips: int
    seconds: float
    tallies: dict[str, Tally]
    published: PublishedTally
    fallbacks: dict[str, int]
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
    ) -> None:
        if protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", protocol, PROTOCOLS)
        check_count("bootstrap", bootstrap, least=0)
        self.model, self.name, self.spec, self.protocol = model, name, spec, protocol
        self.wanted, self.replicates, self.per_clip = examples, bootstrap, per_clip
        self.clips = 0
        self.seconds = 0.0
        self.families = score_families(spec.unit, scores, score_options)
        self.baselines = make_baselines(spec.unit, spec.scaling.scale, spec.scaling.unscale, baselines)
        self.tallies = {forecast: Tally(self.families) for forecast in (name, *self.baselines)}
        self.published = PublishedTally(self.families)
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
        began = time.perf_counter()
        forecasts = {self.name: self._forecast(frames, valid)}
        if frames.device.type != "cpu":
            torch.accelerator.synchronize(frames.device)
        self.seconds += time.perf_counter() - began
        forecasts |= {name: make(past, self.spec.horizon, past_valid) for name, make in self.baselines.items()}
        clips = torch.as_tensor(batch["index"]).tolist()
        weights = poisson_weights(clips, self.replicates) if self.replicates else None
        for name, forecast in forecasts.items():
            self.tallies[name].add(
                self._compared(forecast, truth, truth_valid), weights, clips if self.per_clip else ()
            )
        self._keep(batch, {"past": past, "truth": truth, **forecasts})
        self.clips += len(frames)

    def _compared(self, forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Compared:
        return Compared(forecast, truth, valid, self.spec.scaling.unscale)

    def _forecast(self, frames: Tensor, valid: Tensor | None) -> Tensor:
        context, horizon = self.spec.context, self.spec.horizon
        if self.protocol == "forecast":
            return self.model(frames[:, :context], horizon).float()  # type: ignore[no-any-return]
        rollout = self.model.rollout(frames[:, :context], context, horizon)
        if rollout.first != 1:
            raise ValueError(
                f"protocol 'as-published' averages over warm-up frames, and {self.name} forecasts none: "
                "use protocol='forecast'"
            )
        later = slice(1, context + horizon)
        yielded = rollout.frames.float()
        self.published.add(self._compared(yielded, frames[:, later], None if valid is None else valid[:, later]))
        return yielded[:, context - 1 :]

    def _keep(self, batch: Sample, shown: Mapping[str, Tensor]) -> None:
        """Keep the first clips for the report, in physical units, with mask and times."""
        kept = self.wanted - min(self.wanted, self.clips)
        if not kept:
            return
        self.numbers += torch.as_tensor(batch["index"])[:kept].tolist()
        for name, frames in shown.items():
            values = self.spec.scaling.unscale(frames[:kept].float().clamp(0, 1))
            self.examples.setdefault(name, []).append(values.cpu())
        for extra in ("valid", "times"):
            if extra in batch:
                self.examples.setdefault(extra, []).append(batch[extra][:kept].cpu())

    def part(self) -> Part:
        """Return the sums so far."""
        fallbacks = {name: made.fallbacks for name, made in self.baselines.items() if hasattr(made, "fallbacks")}
        return Part(self.clips, self.seconds, self.tallies, self.published, fallbacks, self.numbers, self.examples)

    def unite(self, parts: Sequence[Part]) -> None:
        """Take the sums of all parts, one's own among them, for one's own; the first clips of the split are shown."""
        first, *others = parts
        self.clips, self.seconds = sum(part.clips for part in parts), sum(part.seconds for part in parts)
        self.tallies, self.published = first.tallies, first.published
        for other in others:
            self.published.unite(other.published)
            for name, tally in self.tallies.items():
                tally.unite(other.tallies[name])
        for name in first.fallbacks:
            self.baselines[name].fallbacks = sum(part.fallbacks[name] for part in parts)  # type: ignore[attr-defined]
        numbers = [number for part in parts for number in part.numbers]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)[: self.wanted]
        shown = {name for part in parts for name in part.examples}
        clips = {name: [one for part in parts for one in part.examples.get(name, [])] for name in sorted(shown)}
        self.numbers = [numbers[place] for place in order]
        self.examples = {name: [torch.cat(several)[order]] for name, several in clips.items()}

    def results(self) -> dict[str, Any]:
        """Return scores per lead time and of all together, with the counts they come from, as plain values."""
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "clips": self.clips,
            "context": self.spec.context,
            "horizon": self.spec.horizon,
            "seconds_per_clip": self.seconds / max(1, self.clips),
            "bootstrap": self.replicates,
            "scores": {
                name: info._asdict() for family in self.families.values() for name, info in family.info().items()
            },
            "notes": [family.note for family in self.families.values() if family.note],
            "forecasts": {name: tally.results() for name, tally in self.tallies.items()},
        }
        for name, baseline in self.baselines.items():
            if hasattr(baseline, "fallbacks"):
                found["forecasts"][name]["fallbacks"] = baseline.fallbacks
        if self.protocol == "as-published":
            found["as_published"] = {self.name: self.published.results()}
        return found

    def shown(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the example clips: past, truth and each forecast (N, T, C, H, W) in physical units, valid, times."""
        low, high = self.spec.scaling.limits
        small = max(abs(low), abs(high)) < LARGEST_HALF
        arrays = {name: torch.cat(parts).numpy() for name, parts in self.examples.items()}
        return {
            name: array.astype(np.float16) if small and array.dtype == np.float32 else array
            for name, array in arrays.items()
        }


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
        moved = {name: move(value) if isinstance(value, Tensor) else value for name, value in batch.items()}
        evaluation.add(moved)  # type: ignore[arg-type]
