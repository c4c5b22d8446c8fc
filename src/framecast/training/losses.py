"""Training losses of forecasts (B, T, C, H, W) against truths of the same shape.

Each is a sum over a number of elements, so that it can be averaged over parts of a batch of unequal weight.
``valid`` is a boolean mask, broadcast over channels, of the elements that count; None means all of them. ``weights``,
of the truths' shape, say how much an error counts where.

Losses of ensembles compare all members (B, M, T, C, H, W) with one truth. Of M members x_j and a truth y, the almost
fair continuous ranked probability score is

    1 / (2 M (M - 1)) Σ_{j≠k} (|x_j - y| + |x_k - y| - (1 - ε) |x_j - x_k|)        ε = 0.05 / M

which is least, in the mean over many truths, where the members are drawn as the truth is. With ε = 0 (fair) one member
could lie anywhere at no cost where all others meet the truth.

References: Shi et al., "Deep Learning for Precipitation Nowcasting: A Benchmark and A New Model", NeurIPS 2017,
doi:10.48550/arXiv.1706.03458 (weights by rate). Lang et al., AIFS-CRPS, 2024, doi:10.48550/arXiv.2412.15832. Gneiting
and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 102, 2007,
doi:10.1198/016214506000001437 (energy score).

One training step without a trainer, so that its cost can be counted and measured: the loss of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from framecast.errors import OptionError, UnknownNameError
from framecast.models.forecaster import Forecaster, Recompute
from framecast.registry import RAIN_RATE, Training
from framecast.training.distributed import global_mean

Total = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]
Count = Callable[[Tensor, Tensor | None], Tensor | int]
WINDOWS = (4, 8, 16)
SCALES = (2, 4, 8)
ENERGY_WINDOWS = (8, 32)
ALMOST = 0.05
RATE_STEPS = ((2.0, 1.0), (5.0, 3.0), (10.0, 5.0), (30.0, 20.0))
"""From which rate in mm/h on an error weighs how much more: 1, 2, 5, 10 and 30 in all."""
FAINT = 1e-5  # ε: a difference of 0.3 % of the range, so that the root has a slope where nothing moves


@dataclass(frozen=True)
class Loss:
    """A loss: total / count; zero where nothing counts.

    Attributes:
        total: sum over a batch, of (forecast, truth, valid, weights).
        count: by how many it is divided, of (forecast, valid): a plain number where the shape alone decides.
        by_rate: whether errors weigh more where more rain fell, see ``rate_weights``.
        members: whether it compares the members of an ensemble (B, M, T, C, H, W) with a truth.
    """

    total: Total
    count: Count
    by_rate: bool = False
    members: bool = False

    def __call__(
        self, forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch."""
        count = self.count(forecast, valid)
        total = self.total(forecast, truth, valid, weights)
        return total / (count if isinstance(count, int) else count.clamp(min=1))


def rate_weights(rates: Tensor) -> Tensor:
    """Return the weights of errors where rates in mm/h fell, in steps from 1 below 2 mm/h to 30 from 30 mm/h on."""
    weights = torch.ones_like(rates)
    for least, more in RATE_STEPS:
        weights = weights + more * (rates >= least)
    return weights


def absolute_plus_squared(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return Σ w (|ŷ - y| + (ŷ - y)²) over all that counts: the paper's loss, averaged over samples and frames."""
    error = _error(forecast, truth, valid)
    return _weighed(error.abs() + error.square(), weights).sum((2, 3, 4)).sum()


def squared(forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Return Σ w (ŷ - y)² over all that counts."""
    return _weighed(_error(forecast, truth, valid).square(), weights).sum((2, 3, 4)).sum()


def squared_and_pooled(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return squared error at several scales, to be averaged over samples and frames.

        Σ w (ŷ - y)² + Σ_s s² Σ_i w_i (mean of ŷ - y in window i)²        windows of s x s pixels, s = 2, 4, 8

    An amount that is right in a window but a few pixels off costs less than one that is missing; w_i is a mean weight.
    """
    error = _error(forecast, truth, valid)
    total = _weighed(error.square(), weights).sum((2, 3, 4)).sum()
    for scale in SCALES:
        pooled = _pooled(error, scale).square()
        total = total + scale**2 * _weighed(pooled, None if weights is None else _pooled(weights, scale)).sum()
    return total


def _pooled(values: Tensor, scale: int) -> Tensor:
    pooled = F.avg_pool2d(values.flatten(0, -4), scale, ceil_mode=True)
    return pooled.reshape(*values.shape[:-3], *pooled.shape[1:])


def _weighed(values: Tensor, weights: Tensor | None) -> Tensor:
    return values if weights is None else values * weights


def almost_fair_crps(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return Σ w CRPS of members (B, M, T, C, H, W) over all that counts, to be averaged over samples and frames.

    A forecast (B, T, C, H, W) is an ensemble of one, whose CRPS is its absolute error.
    """
    return _crps(_member_errors(forecast, truth, valid), weights)


def pooled_crps(forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Return the same at several scales: of pixels and of means over windows of 4 x 4 and 16 x 16 pixels.

    A score of pixels alone does not see whether neighbours belong together; what a window gets tells that.
    """
    error = _member_errors(forecast, truth, valid)
    total = _crps(error, weights)
    for scale in (4, 16):
        total = total + scale**2 * _crps(_pooled(error, scale), None if weights is None else _pooled(weights, scale))
    return total


def almost_fair_energy(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the almost fair energy score of members (B, M, T, C, H, W), to be averaged over samples and frames.

        Σ_s s Σ_i (mean_j ‖x_j - y‖ - (1 - ε) / (2 M (M - 1)) Σ_{j≠k} ‖x_j - x_k‖)       windows i of s x s pixels

    The norm is the root mean square over a window. It is the CRPS of many pixels at once, and least where they go
    together as those of the truth. Where most pixels are black the median of each is black too, and CRPS of pixels
    leaves that late or never; a window with a digit somewhere has no such median.
    """
    error = _member_errors(forecast, truth, valid)
    members, total = error.shape[1], error.new_zeros(())
    first, second = torch.triu_indices(members, members, 1, device=error.device)
    for scale in ENERGY_WINDOWS:
        score = _norms(error, scale).mean(1)
        if members > 1:
            apart = _norms(error[:, first] - error[:, second], scale).sum(1)
            score = score - (1 - ALMOST / members) / (members * (members - 1)) * apart
        total = total + scale * _weighed(score, None if weights is None else _pooled(weights, scale)).sum()
    return total


def energy_and_mean(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return the same plus the fair squared error of the members' mean, to be averaged over samples and frames.

        ... + Σ w ((mean_j x_j - y)² - s² / M)        s²: variance of the members

    The mean of M members errs by s² / M more than that of many would, which is no fault of theirs. The energy score
    alone learns the mean slowly, as it is content with members of which some are near.
    """
    error = _member_errors(forecast, truth, valid)
    members = error.shape[1]
    squares = error.mean(1).square()
    if members > 1:
        squares = squares - error.var(1) / members
    return almost_fair_energy(forecast, truth, valid, weights) + _weighed(squares, weights).sum((2, 3, 4)).sum()


def _norms(values: Tensor, scale: int) -> Tensor:
    """Return the root mean squares (..., 1, h, w) of windows, with a slope at zero too."""
    return (_pooled(values.square(), scale).mean(-3, keepdim=True) + FAINT**2).sqrt() - FAINT


def _member_errors(forecast: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
    """Return the errors (B, M, T, C, H, W) of members, 0 where nothing counts."""
    members = forecast[:, None] if forecast.ndim == truth.ndim else forecast
    return _error(members, truth[:, None], None if valid is None else valid[:, None])


def _crps(error: Tensor, weights: Tensor | None) -> Tensor:
    """Return the sum of the score of members whose errors are these."""
    members = error.shape[1]
    score = error.abs().mean(1)
    if members > 1:
        # Σ_{j≠k} |x_j - x_k| = 2 Σ_j (2 j - (M - 1)) x_(j), of the members in their order.
        ranked = error.sort(1).values
        places = 2 * torch.arange(members, dtype=error.dtype, device=error.device) - (members - 1)
        differences = 2 * (places[:, None, None, None, None] * ranked).sum(1)
        score = score - (1 - ALMOST / members) / (2 * members * (members - 1)) * differences
    return _weighed(score, weights).sum((2, 3, 4)).sum()


def squared_plus_edges(
    forecast: Tensor, truth: Tensor, valid: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Return squared error plus how far edges are too weak or too strong, to be averaged over samples and frames.

        Σ w (ŷ - y)² + Σ_s (H W / 2 n_s) Σ_i Σ_d (√(e_s,i,d(ŷ) + ε) - √(e_s,i,d(y) + ε))²        s = 4, 8, 16 pixels

    e_s,i,d is the mean squared difference of pixels that are neighbours in direction d (of four: right, down and both
    diagonals) in the i-th of n_s windows of s x s pixels, s / 2 apart. Squared error alone makes what moves into an
    unsure place fade; here an edge that is a few pixels off costs less than one that is missing, so that late frames
    keep their contrast at the price of some error.
    """
    if valid is not None:
        forecast, truth = (frames.where(valid, frames.new_zeros(())) for frames in (forecast, truth))
    total = squared(forecast, truth, None, weights)
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
    """Return the number of samples times frames, whatever is masked; of members together."""
    del valid
    return forecast.shape[0] * forecast.shape[-4]


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
    "l2+pooled": Loss(squared_and_pooled, all_frames),
    "mse": Loss(squared, valid_elements),
    "balanced": Loss(absolute_plus_squared, all_frames, by_rate=True),
    "balanced+edges": Loss(squared_plus_edges, all_frames, by_rate=True),
    "balanced+pooled": Loss(squared_and_pooled, all_frames, by_rate=True),
    "crps": Loss(almost_fair_crps, all_frames, members=True),
    "crps+pooled": Loss(pooled_crps, all_frames, members=True),
    "energy": Loss(almost_fair_energy, all_frames, members=True),
    "energy+mse": Loss(energy_and_mean, all_frames, members=True),
    "balanced-crps": Loss(almost_fair_crps, all_frames, by_rate=True, members=True),
}


def check_loss(name: str, model: Forecaster, unit: str) -> None:
    """Refuse a loss that does not suit a model or its clips.

    Raises:
        UnknownNameError: there is no such loss.
        OptionError: a loss of members for a model without noise, one of single forecasts for a model with noise, or one
            that weighs by rain rates for other data.
    """
    if name not in LOSSES:
        raise UnknownNameError("loss", name, LOSSES)
    loss = LOSSES[name]
    if loss.members and not model.noise:
        raise OptionError(f"loss {name} compares the members of an ensemble: create the model with noise=4, or so")
    if model.noise and not loss.members:
        fitting = ", ".join(other for other, entry in LOSSES.items() if entry.members)
        raise OptionError(
            f"loss {name} compares single forecasts and the model has noise={model.noise}: take {fitting}"
        )
    if loss.by_rate and unit != RAIN_RATE:
        raise OptionError(f"loss {name} weighs errors by rain rates in {RAIN_RATE} and the data is in {unit}")


def training_loss(
    model: Forecaster,
    recipe: Training,
    clip: Tensor,
    context: int,
    truth: Tensor | None,
    *,
    valid: Tensor | None = None,
    recompute: Recompute = "none",
    rows: Tensor | None = None,
    known: Tensor | None = None,
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
        rows: what the model sees beside the frames, see ``Forecaster.conditions``; with as many times the batch, those
            of the members of an ensemble, one after another for each clip.
        known: (B, T, 1, H, W) booleans, False where the model can know nothing.

    Raises:
        OptionError: a shape, context or ``recompute`` that the model cannot take, or a loss by rain rates for a model
            that does not know its clips.
    """
    loss, count = LOSSES[recipe.loss], len(clip)
    members = 1 if rows is None else len(rows) // count
    seen, steps = (None if part is None else part.repeat_interleave(members, 0) for part in (clip, truth))
    assert seen is not None
    rollout = model.rollout(seen, context, clip.shape[1] - context, steps, recompute, rows)
    frames = slice(rollout.first, rollout.first + rollout.frames.shape[1])
    target, mask = clip[:, frames], None if valid is None else valid[:, frames]
    if known is not None:
        mask = known[:, frames] if mask is None else mask & known[:, frames]
    weights = None
    if loss.by_rate:
        if model.clips is None:
            raise OptionError(f"loss {recipe.loss} weighs errors by rain rates: set model.clips = data.spec")
        weights = rate_weights(model.clips.scaling.unscale(target))
    forecast = rollout.frames
    if loss.members:
        forecast = forecast.reshape(count, members, *forecast.shape[1:])
    mean = global_mean(loss.total(forecast, target, mask, weights), loss.count(forecast, mask))
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
