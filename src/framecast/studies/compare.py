"""Compare the records of a study: means and spreads over seeds, and paired differences between models.

For a score x of model a, its reference b, seed s and test clip i the difference is d_si = x_a,si - x_b,si: both
forecast the same clip after trainings of the same seed, so what makes a clip hard cancels. Its interval comes from
replicates that draw the seeds and the clips anew, one less than there are of each, which makes the spread of the
replicates that of the mean without the bias of the plain bootstrap (Rao and Wu, "Resampling inference with complex
survey data", J. Am. Stat. Assoc. 83, 1988, doi:10.1080/01621459.1988.10478591).

Two or three seeds do not show how far trainings vary, so replicates of them alone reach too short. The interval is
therefore the wider one of those and of Student's t over the n means by seed,

    d ± t · s / √n        t: the 97.5 % point at n - 1 degrees of freedom, s: their standard deviation

One seed shows nothing of it: then the interval is over clips alone.

A rank is claimed from three seeds on, where the p-value of a difference, the larger one of the two ways, is below 5 %
after Holm's adjustment for all differences of the study (Holm, "A simple sequentially rejective multiple test
procedure", Scand. J. Stat. 6, 1979): intervals are of one difference each and allow for nothing.
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
LEVEL = 0.05
"""The chance, at most, of a verdict in a study of models that do not differ."""
FEWEST_SEEDS = 3
"""Seeds below which no verdict is given."""


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
        p: chance of such a difference between models that do not differ.
        adjusted: the same, allowing for all differences of the study; nan where there are too few seeds to tell.
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
    p: float = math.nan
    adjusted: float = math.nan

    @property
    def differs(self) -> str:
        """Return "lower" or "higher" where the adjusted p-value is small, "cannot tell" elsewhere."""
        if not self.adjusted < LEVEL:
            return "cannot tell"
        return "lower" if self.mean < 0 else "higher"


def spread(values: Sequence[float | None]) -> Spread:
    """Return mean and standard deviation (n - 1) of values over seeds; those that are undefined do not count."""
    defined = [value for value in values if value is not None]
    if not defined:
        return Spread(math.nan, math.nan)
    return Spread(float(np.mean(defined)), float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan)


class PairedTest(NamedTuple):
    """What differences (seeds, clips) say of their mean: its 95 % interval, and how likely they are by chance."""

    low: float
    high: float
    p: float


def paired_test(differences: NDArray[np.float64], seed: int = 0) -> PairedTest:
    """Return the 95 % interval of the mean of differences (seeds, clips) and the p-value of zero; see the module.

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
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (int(beyond) + 1) / (len(means) + 1))
    if seeds > 1:
        trainings = differences.mean(1)
        mean, error = float(trainings.mean()), float(trainings.std(ddof=1)) / math.sqrt(seeds)
        half = student_quantile(1 - LEVEL / 2, seeds - 1) * error
        low, high = min(low, mean - half), max(high, mean + half)
        p = max(p, 2 * student_tail(abs(mean) / error, seeds - 1) if error else 0.0)
    return PairedTest(low, high, p)


def student_tail(t: float, freedom: int) -> float:
    """Return the chance that Student's t, of whole degrees of freedom, is above ``t``, which is at least 0.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = 0.0
    if freedom > 1:
        term = total = cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, (1 - inside) / 2)


def student_quantile(share: float, freedom: int) -> float:
    """Return the t below which Student's t lies with a chance of ``share``, at least one half."""
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > 1 - share:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, freedom) > 1 - share else (low, middle)
    return high


def adjust(paired: Sequence[Difference]) -> list[Difference]:
    """Return the differences of a study with p-values that allow for all of them, by Holm's method.

    Those of too few seeds do not count, and have none.
    """
    testable = [one for one in paired if one.seeds >= FEWEST_SEEDS]
    order = sorted(range(len(testable)), key=lambda number: testable[number].p)
    adjusted, largest = dict[Difference, float](), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(testable) - rank) * testable[number].p))
        adjusted[testable[number]] = largest
    return [one._replace(adjusted=adjusted.get(one, math.nan)) for one in paired]


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
        low, high, p = paired_test(gaps)
        base = float(reference_values[:, defined].mean())
        facts = float(gaps.mean()), low, high, base, len(pairs), int(defined.sum()), p
        rows.append(Difference(model.label, model.reference, score, *facts))
    return rows


def _clips(record: Record, score: str) -> NDArray[np.float64]:
    per_clip = record["forecast"]["per_clip"]
    values = per_clip.get(score) or [None] * len(per_clip["clip"])
    return np.array([math.nan if value is None else value for value in values], np.float64)
