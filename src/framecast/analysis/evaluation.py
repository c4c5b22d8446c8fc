"""Evaluate a forecaster beside its baselines, clip by clip, in memory that does not grow with the test set.

Protocols, by name:

- ``forecast``: the frames after the context, which is what a user gets.
- ``as-published``: also the convention of the code released with MS-LSTM, which averages over all frames the
  model yields, the warm-up inside the context included, and adds 1e-5 under the logarithm of the PSNR.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from framecast.datasets.clip import ClipSpec, Sample
from framecast.errors import UnknownNameError
from framecast.models.baselines import BASELINES
from framecast.models.forecaster import Forecaster
from framecast.scores.image import Counts, add_counts, image_counts, image_scores

Protocol = Literal["forecast", "as-published"]
PROTOCOLS = ("forecast", "as-published")


class Evaluation:
    """The sums of an evaluation so far, of one model and the baselines."""

    def __init__(self, model: Forecaster, name: str, spec: ClipSpec, protocol: Protocol, examples: int) -> None:
        if protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", protocol, PROTOCOLS)
        self.model, self.name, self.spec, self.protocol = model, name, spec, protocol
        self.wanted = examples
        self.clips = 0
        self.seconds = 0.0
        self.counts: dict[str, Counts] = {name: {}, **{baseline: {} for baseline in BASELINES}}
        self.published: Counts = {}
        self.examples: dict[str, list[Tensor]] = {}

    def add(self, frames: Tensor) -> None:
        """Add a batch of clips (B, T, C, H, W) in [0, 1].

        Raises:
            ValueError: the protocol needs forecasts of the warm-up frames and the model makes none.
        """
        context, horizon = self.spec.context, self.spec.horizon
        past, truth = frames[:, :context], frames[:, context : context + horizon]
        began = time.perf_counter()
        forecasts = {self.name: self._forecast(frames)}
        self.seconds += time.perf_counter() - began
        forecasts |= {name: baseline(past, horizon) for name, baseline in BASELINES.items()}
        for name, forecast in forecasts.items():
            self.counts[name] = add_counts(self.counts[name], image_counts(forecast, truth))
        kept = self.wanted - min(self.wanted, self.clips)
        if kept:
            for name, shown in {"past": past, "truth": truth, **forecasts}.items():
                self.examples.setdefault(name, []).append(shown[:kept].float().cpu())
        self.clips += len(frames)

    def _forecast(self, frames: Tensor) -> Tensor:
        context, horizon = self.spec.context, self.spec.horizon
        if self.protocol == "forecast":
            return self.model(frames[:, :context], horizon)  # type: ignore[no-any-return]
        rollout = self.model.rollout(frames[:, :context], context, horizon)
        if rollout.first != 1:
            raise ValueError(
                f"protocol 'as-published' averages over warm-up frames, and {self.name} forecasts none: "
                "use protocol='forecast'"
            )
        truth = frames[:, 1 : context + horizon]
        counts = image_counts(rollout.frames, truth)
        mean_squared = (rollout.frames.float().clamp(0, 1) - truth).square().mean((2, 3, 4)).double()
        counts["psnr"] = (-10 * (mean_squared + 1e-5).log10()).sum(0).cpu()
        self.published = add_counts(self.published, counts)
        return rollout.frames[:, context - 1 :]

    def results(self) -> dict[str, Any]:
        """Return scores per lead time and their mean, with the counts they come from, as plain values."""
        found: dict[str, Any] = {
            "protocol": self.protocol,
            "clips": self.clips,
            "context": self.spec.context,
            "horizon": self.spec.horizon,
            "seconds_per_clip": self.seconds / max(1, self.clips),
            "forecasts": {name: _plain(counts) for name, counts in self.counts.items()},
        }
        if self.published:
            found["as_published"] = {self.name: _plain(self.published)}
        return found

    def shown(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the example clips by name: past, truth, and each forecast, (N, T, C, H, W) float16."""
        return {name: torch.cat(parts).numpy().astype(np.float16) for name, parts in self.examples.items()}


def _plain(counts: Counts) -> dict[str, Any]:
    scores = image_scores(counts)
    return {
        "mean": {name: values.mean().item() for name, values in scores.items()},
        "per_lead": {name: values.tolist() for name, values in scores.items()},
        "counts": {name: values.tolist() for name, values in counts.items()},
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
        evaluation.add(move(batch["frames"]))
