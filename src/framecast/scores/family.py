"""The contract of a family of scores: additive counts, then scores of the counts.

A family turns a batch of forecasts and truths into counts per clip and lead time. Counts of clips, batches and
ranks add up, and so do counts of lead times; the scores of a sum are the pooled scores. One file with a family and
one line in ``framecast.registry.SCORES`` make a new score: it is then computed in every evaluation whose unit it
suits, written to results.json and shown in tables, curves and the report.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from framecast.errors import OptionError

Counts = dict[str, Tensor]
Best = Literal["low", "high", "one"]


class Compared(NamedTuple):
    """Forecasts and truths of a batch, (B, T, C, H, W) each.

    Attributes:
        forecast: in the model's range [0, 1].
        truth: in the model's range [0, 1].
        valid: booleans (B, T, 1 or C, H, W), False where nothing is to be compared; None where all is.
        unscale: turns the model's numbers into physical values.
        members: of an ensemble, (B, M, T, C, H, W) in the model's range, of which the forecast is the mean; or None.
    """

    forecast: Tensor
    truth: Tensor
    valid: Tensor | None
    unscale: Callable[[Tensor], Tensor]
    members: Tensor | None = None


class ScoreInfo(NamedTuple):
    """How a score is shown.

    Attributes:
        label: with its unit or threshold.
        best: "low", "high", or "one" where 1 is best.
        table: title of the table it stands in.
        main: whether it belongs to the few that a small table and the curves show.
        curve: whether the curves show it though the small table does not.
    """

    label: str
    best: Best
    table: str
    main: bool
    curve: bool = False


class ScoreFamily(ABC):
    """Scores that share their counts; options are the arguments of the constructor.

    Attributes:
        note: what a reader of the report must know about the scores.
        of_ensembles: whether the family is computed only where some forecast has members.
    """

    note: ClassVar[str] = ""
    of_ensembles: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def suits(unit: str) -> bool:
        """Return whether the family is computed for data of that unit without being asked for."""

    @abstractmethod
    def info(self) -> dict[str, ScoreInfo]:
        """Return name -> how it is shown, of every score."""

    @abstractmethod
    def counts(self, pair: Compared) -> Counts:
        """Return counts per clip and lead time, (B, T) each, integers as int64 and sums as float64."""

    @abstractmethod
    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores of counts of any shape, element by element; NaN where a score is undefined."""

    def published_counts(self, pair: Compared) -> Counts:
        """Return counts as the code released with MS-LSTM takes them, where it differs."""
        return self.counts(pair)

    def published_scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return scores (T,) as the released code takes them, where it differs; their mean is its result."""
        return self.scores(counts)


def add_counts(total: Counts, more: Counts) -> Counts:
    """Return the counts of two disjoint parts together; an empty dict stands for no part."""
    if not total or not more:
        return more or total
    if total.keys() != more.keys():
        raise OptionError(f"counts {sorted(total)} and {sorted(more)} are of different scores and cannot be added")
    return {name: total[name] + values for name, values in more.items()}


def pool_counts(counts: Counts, dim: int) -> Counts:
    """Return counts summed over a dimension: 0 for clips, -1 for lead times."""
    return {name: values.sum(dim) for name, values in counts.items()}


def masked(values: Tensor, valid: Tensor | None) -> Tensor:
    """Return values with zeros wherever they do not count, so that what stands there cannot matter."""
    return values if valid is None else torch.where(valid, values, values.new_zeros(()))


def plain_values(values: Tensor) -> list[Any]:
    """Return a tensor as nested lists for a file, None where it is not a number or infinite."""
    values_list = values.tolist()

    def clean(item: Any) -> Any:
        if isinstance(item, list):
            return [clean(one) for one in item]
        return item if isinstance(item, int) or (item == item and abs(item) != float("inf")) else None

    return clean(values_list)  # type: ignore[no-any-return]
