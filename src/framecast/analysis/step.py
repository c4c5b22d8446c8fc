"""One training step without a trainer, so that its cost can be counted and measured: the loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from framecast.models.forecaster import Forecaster
from framecast.models.recomputing import Recompute
from framecast.registry import Training
from framecast.training.losses import LOSSES


def training_loss(
    model: Forecaster, recipe: Training, clip: Tensor, context: int, recompute: Recompute = "none"
) -> Tensor:
    """Return the loss of a batch of clips (B, T, C, H, W) by a model's recipe.

    Where the recipe samples, every step after the context chooses between truth and forecast, as in training; which
    of them it takes does not change the cost.

    Raises:
        ValueError: a shape, context or ``recompute`` the model cannot take.
    """
    horizon = clip.shape[1] - context
    truth = None
    if recipe.sampling != "none":
        truth = torch.zeros(clip.shape[0], clip.shape[1] - 1, dtype=torch.bool, device=clip.device)
    rollout = model.rollout(clip, context, horizon, truth, recompute)
    end = rollout.first + rollout.frames.shape[1]
    loss = LOSSES[recipe.loss](rollout.frames, clip[:, rollout.first : end], None)
    if rollout.penalty is not None and recipe.penalty_weight:
        loss = loss + recipe.penalty_weight * rollout.penalty.mean()
    return loss
