"""Training losses of forecasts (B, T, C, H, W) against truths of the same shape.

Each is a sum over a number of elements, so that it can be averaged over parts of a batch of unequal weight.
``valid`` is a boolean mask, broadcast over channels, of the elements that count; None means all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Total = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Count = Callable[[Tensor, Tensor | None], Tensor | int]


@dataclass(frozen=True)
class Loss:
    """A loss: total / count; zero where nothing counts.

    Attributes:
        total: sum over a batch, of (forecast, truth, valid).
        count: by how many it is divided, of (forecast, valid): a plain number where the shape alone decides.
    """

    total: Total
    count: Count

    def __call__(self, forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        count = self.count(forecast, valid)
        return self.total(forecast, truth, valid) / (count if isinstance(count, int) else count.clamp(min=1))


def absolute_plus_squared(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return Σ (|ŷ - y| + (ŷ - y)²) over all that counts: the paper's loss, to be averaged over samples and frames."""
    error = _error(forecast, truth, valid)
    return (error.abs() + error.square()).sum((2, 3, 4)).sum()


def squared(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return Σ (ŷ - y)² over all that counts."""
    return _error(forecast, truth, valid).square().sum((2, 3, 4)).sum()


def all_frames(forecast: Tensor, valid: Tensor | None = None) -> int:
    """Return the number of samples times frames, whatever is masked."""
    del valid
    return forecast.shape[0] * forecast.shape[1]


def valid_elements(forecast: Tensor, valid: Tensor | None = None) -> Tensor | int:
    """Return the number of elements that count."""
    return forecast.numel() if valid is None else valid.expand_as(forecast).sum()


def _error(forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    error = forecast - truth
    # where, not a product: a NaN under the mask must not spread.
    return error if valid is None else error.where(valid, error.new_zeros(()))


LOSSES: dict[str, Loss] = {
    "l1+l2": Loss(absolute_plus_squared, all_frames),
    "mse": Loss(squared, valid_elements),
}
