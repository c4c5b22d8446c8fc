"""Training losses of forecasts (B, T, C, H, W) against truths of the same shape.

``valid`` is a boolean mask, broadcast over channels, of the elements that count; None means all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def absolute_plus_squared(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return Σ (|ŷ - y| + (ŷ - y)²) over C, H, W, averaged over samples and frames: the paper's loss."""
    error = _error(forecast, truth, valid)
    return (error.abs() + error.square()).sum((2, 3, 4)).mean()


def mean_squared(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean of (ŷ - y)² over all elements that count; zero where none does."""
    squared = _error(forecast, truth, valid).square()
    if valid is None:
        return squared.mean()
    return squared.sum() / valid.expand_as(squared).sum().clamp(min=1)


def _error(forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    error = forecast - truth
    # where, not a product: a NaN under the mask must not spread.
    return error if valid is None else error.where(valid, error.new_zeros(()))


LOSSES: dict[str, Loss] = {"l1+l2": absolute_plus_squared, "mse": mean_squared}
