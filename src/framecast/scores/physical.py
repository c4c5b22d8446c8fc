"""Errors in physical units, such as mm/h, beside those in the model's range, which depend on its scaling.

    MAE = Σ |ŷ - y| / n,   RMSE = √(Σ (ŷ - y)² / n)        sums over pixels with data

Forecasts are clipped to the range of the model first, as for the other scores, and both are turned back to their unit.
"""

from __future__ import annotations

from torch import Tensor

from framecast.scores.family import Compared, Counts, ScoreFamily, ScoreInfo, masked


class PhysicalErrors(ScoreFamily):
    """Mean errors in the unit of the data.

    Args:
        unit: of the data.
    """

    note = "Errors in physical units compare models of any scaling; those of frames in [0, 1] only models of one."

    def __init__(self, unit: str = "1") -> None:
        self.unit = unit

    @staticmethod
    def suits(unit: str) -> bool:
        """Return whether the data has a unit."""
        return unit != "1"

    def info(self) -> dict[str, ScoreInfo]:
        """Return how the scores are shown."""
        table = f"Errors in {self.unit}"
        return {
            "physical_mae": ScoreInfo(f"MAE, {self.unit}", "low", table, False),
            "physical_rmse": ScoreInfo(f"RMSE, {self.unit}", "low", table, False),
        }

    def counts(self, pair: Compared) -> Counts:
        """Return sums of absolute and squared errors, and the number of values, per clip and lead time."""
        forecast = pair.unscale(pair.forecast.float().clamp(0, 1)).double()
        error = masked(forecast - pair.unscale(pair.truth.float()).double(), pair.valid)
        present = error.new_ones(error.shape) if pair.valid is None else pair.valid.expand_as(error).double()
        sums = {"physical_absolute": error.abs(), "physical_squared": error.square(), "physical_values": present}
        return {name: values.sum((2, 3, 4)) for name, values in sums.items()}

    def scores(self, counts: Counts) -> dict[str, Tensor]:
        """Return the scores of sums; NaN where there is no value."""
        values = counts["physical_values"]
        return {
            "physical_mae": counts["physical_absolute"] / values,
            "physical_rmse": (counts["physical_squared"] / values).sqrt(),
        }
