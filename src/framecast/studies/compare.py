"""Compare the records of a study: means and spreads over seeds, and paired differences between models.

For a score x of model a, its reference b, seed s and test clip i the difference is d_si = x_a,si - x_b,si: both
forecast the same clip after trainings of the same seed, so what makes a clip hard cancels. Its interval comes from
replicates that draw the seeds and the clips anew, one less than there are of each, which makes the spread of the
replicates that of the mean without the bias of the plain bootstrap (Rao and Wu, "Resampling inference with complex
survey data", J. Am. Stat. Assoc. 83, 1988, doi:10.1080/01621459.1988.10478591).

Two or three seeds do not show how far trainings vary, so replicates of them alone reach too short. The interval is
therefore the wider one of those and of Student's t over the n means by seed,

    d ± t · s / √n        t: the 97.5 % point at n - 1 degrees of freedom, s: their standard deviation

One seed shows nothing of it: then the interval is over clips alone, and no rank is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framecast.errors import DataError, OptionError
from framecast.studies.plan import StudyPlan, Trial
from framecast.studies.records import Record, Records

REPLICATES = 2000
BOUNDS = (2.5, 97.5)
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points of Student's t from one degree of freedom on; the last one is taken, a little too wide, beyond."""


class Spread(NamedTuple):
    """Mean and standard deviation over seeds; nan where there is no number, or no second seed."""

    mean: float
    deviation: float


class Difference(NamedTuple):
    """A paired difference to a reference.

    Attributes:
        model: label of the model.
        reference: label of the model it is compared with.
        score: name of the score.
        mean: of the differences, model minus reference.
        low: lower bound of the 95 % interval.
        high: upper bound.
        base: the score of the reference over the same seeds and clips.
        seeds: common to both.
        clips: tested.
    """

    model: str
    reference: str
    score: str
    mean: float
    low: float
    high: float
    base: float
    seeds: int
    clips: int

    @property
    def differs(self) -> str:
        """Return "lower" or "higher" where the interval excludes zero, "cannot tell" elsewhere and with one seed."""
        if self.seeds < 2:
            return "cannot tell"
        if self.high < 0:
            return "lower"
        return "higher" if self.low > 0 else "cannot tell"


def spread(values: Sequence[float | None]) -> Spread:
    """Return mean and standard deviation (n - 1) of values over seeds; those that are undefined do not count."""
    defined = [value for value in values if value is not None]
    if not defined:
        return Spread(math.nan, math.nan)
    return Spread(float(np.mean(defined)), float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan)


def paired_interval(differences: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of differences (seeds, clips); see the module.

    Raises:
        ValueError: there are no differences.
    """
    seeds, clips = differences.shape
    if not seeds or not clips:
        raise OptionError(f"there are {seeds} seeds and {clips} clips: an interval needs one of each at least")
    rng = np.random.default_rng(seed)
    by_seed, by_clip = _weights(rng, seeds), _weights(rng, clips)
    means = np.einsum("rs,sn,rn->r", by_seed, differences, by_clip, optimize=True)
    low, high = (float(bound) for bound in np.percentile(means, BOUNDS))
    if seeds > 1:
        trainings = differences.mean(1)
        half = STUDENT[min(seeds - 1, len(STUDENT)) - 1] * float(trainings.std(ddof=1)) / math.sqrt(seeds)
        low, high = min(low, float(trainings.mean()) - half), max(high, float(trainings.mean()) + half)
    return low, high


def _weights(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return weights (replicates, count) that sum to 1: how often each is among count - 1 drawn with replacement."""
    free = max(1, count - 1)
    return rng.multinomial(free, np.full(count, 1 / count), size=REPLICATES) / free


def check_alike(records: Records) -> None:
    """Refuse records that were not made on the same test clips.

    Raises:
        DataError: two were not.
    """
    first: tuple[Trial, Any] | None = None
    for trial, record in records.items():
        tested = {key: record["evaluation"][key] for key in ("data", "split", "clips", "fingerprint")}
        if first is None:
            first = trial, tested
        elif tested != first[1]:
            raise DataError(
                f"{trial} was tested on {tested} and {first[0]} on {first[1]}: delete the wrong record and run its "
                "trial again"
            )


def differences(plan: StudyPlan, records: Records, score: str) -> list[Difference]:
    """Return the paired difference of every model to its reference, where both have a common seed and the score."""
    rows = []
    for model in plan.models.values():
        if not model.reference:
            continue
        pairs = [
            (_clips(record, score), _clips(other, score))
            for seed in plan.seeds
            if (record := records.get(plan.trial(model.label, seed)))
            and (other := records.get(plan.trial(model.reference, seed)))
        ]
        if not pairs:
            continue
        model_values, reference_values = (np.stack(side) for side in zip(*pairs, strict=True))
        defined = ~(np.isnan(model_values) | np.isnan(reference_values)).any(0)
        if not defined.any():
            continue
        gaps = (model_values - reference_values)[:, defined]
        low, high = paired_interval(gaps)
        base = float(reference_values[:, defined].mean())
        rows.append(
            Difference(
                model.label, model.reference, score, float(gaps.mean()), low, high, base, len(pairs), int(defined.sum())
            )
        )
    return rows


def _clips(record: Record, score: str) -> NDArray[np.float64]:
    per_clip = record["forecast"]["per_clip"]
    values = per_clip.get(score) or [None] * len(per_clip["clip"])
    return np.array([math.nan if value is None else value for value in values], np.float64)
