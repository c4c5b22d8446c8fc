"""Training losses of forecasts (B, T, C, H, W) against truths of the same shape.

Each is a sum over a number of elements, so that it can be averaged over parts of a batch of unequal weight.
``valid`` is a boolean mask, broadcast over channels, of the elements that count; None means all of them.

One training step without a trainer, so that its cost can be counted and measured: the loss of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from framecast.models.forecaster import Forecaster, Recompute
from framecast.registry import Training
from framecast.training.distributed import global_mean

Total = Callable[[Tensor, Tensor, Tensor | None], Tensor]
Count = Callable[[Tensor, Tensor | None], Tensor | int]
WINDOWS = (4, 8, 16)
FAINT = 1e-5  # ε: a difference of 0.3 % of the range, so that the root has a slope where nothing moves


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


def squared_plus_edges(forecast: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return squared error plus how far edges are too weak or too strong, to be averaged over samples and frames.

        Σ (ŷ - y)² + Σ_s (H W / 2 n_s) Σ_i Σ_d (√(e_s,i,d(ŷ) + ε) - √(e_s,i,d(y) + ε))²        s = 4, 8, 16 pixels

    e_s,i,d is the mean squared difference of pixels that are neighbours in direction d (of four: right, down and both
    diagonals) in the i-th of n_s windows of s x s pixels, s / 2 apart. Squared error alone makes what moves into an
    unsure place fade; here an edge that is a few pixels off costs less than one that is missing, so that late frames
    keep their contrast at the price of some error.
    """
    if valid is not None:
        forecast, truth = (frames.where(valid, frames.new_zeros(())) for frames in (forecast, truth))
    total = squared(forecast, truth)
    steps = _steps(torch.cat([forecast, truth]).flatten(0, 1)).square()
    for side in WINDOWS:
        strength = (F.avg_pool2d(steps, side, side // 2, padding=side // 2) + FAINT).sqrt()
        forecast_edges, truth_edges = strength.chunk(2)
        share = steps[0, 0].numel() / (2 * strength[0, 0].numel())
        total = total + share * (forecast_edges - truth_edges).square().sum((1, 2, 3)).sum()
    return total


def _steps(frames: Tensor) -> Tensor:
    """Return the differences of neighbouring pixels (N, 4 C, H, W) of frames (N, C, H, W), 0 beyond their end."""
    right, down = frames.diff(dim=-1), frames.diff(dim=-2)
    falling = frames[..., 1:, 1:] - frames[..., :-1, :-1]
    rising = frames[..., :-1, 1:] - frames[..., 1:, :-1]
    corner = (0, 1, 0, 1)
    return torch.cat(
        [F.pad(right, (0, 1)), F.pad(down, (0, 0, 0, 1)), F.pad(falling, corner), F.pad(rising, corner)], 1
    )


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
    "l2+edges": Loss(squared_plus_edges, all_frames),
    "mse": Loss(squared, valid_elements),
}


def training_loss(
    model: Forecaster,
    recipe: Training,
    clip: Tensor,
    context: int,
    truth: Tensor | None,
    *,
    valid: Tensor | None = None,
    recompute: Recompute = "none",
) -> Tensor:
    """Return the loss of a batch: of every forecast that the roll-out yields, plus the weighted penalty.

    This is the loss that trainings minimise and whose cost is counted and measured. Where several processes train
    together, its mean over them is the loss of the whole batch.

    Args:
        model: the forecaster.
        recipe: loss, sampling and penalty.
        clip: (B, T, C, H, W).
        context: number of past frames.
        truth: (B, T - 1) booleans, True where a step sees the true frame; None for a recipe without sampling.
        valid: (B, T, 1 or C, H, W) booleans, False where there is no data; None where all is data.
        recompute: see ``Forecaster.rollout``.

    Raises:
        OptionError: a shape, context or ``recompute`` that the model cannot take.
    """
    loss, rollout = LOSSES[recipe.loss], model.rollout(clip, context, clip.shape[1] - context, truth, recompute)
    end = rollout.first + rollout.frames.shape[1]
    mask = None if valid is None else valid[:, rollout.first : end]
    total = loss.total(rollout.frames, clip[:, rollout.first : end], mask)
    mean = global_mean(total, loss.count(rollout.frames, mask))
    if rollout.penalty is not None and recipe.penalty_weight:
        mean = mean + recipe.penalty_weight * rollout.penalty.mean()
    return mean


def sampled_steps(recipe: Training, clip: Tensor) -> Tensor | None:
    """Return the ``truth`` of ``training_loss`` for a clip (B, T, C, H, W) when only the cost matters.

    Where the recipe samples, every step chooses between truth and forecast; which of them it takes costs the same.
    """
    if recipe.sampling == "none":
        return None
    return torch.zeros(clip.shape[0], clip.shape[1] - 1, dtype=torch.bool, device=clip.device)
