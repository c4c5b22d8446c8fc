"""Averaged weights: a moving average of what the optimiser makes of them, which is validated and kept.

    θ̄ ← d θ̄ + (1 - d) θ        d = min(decay, (1 + n) / (10 + n)) at the n-th step

The average follows closely at first, so that short trainings gain too. Reference: Polyak and Juditsky, "Acceleration
of Stochastic Approximation by Averaging", SIAM J. Control Optim. 30, 1992, doi:10.1137/0330046.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The moving average of a model's weights.

    Args:
        decay: share of the average that stays at each step, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.tensors: list[Tensor] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after an optimiser step."""
        weights = [weight.detach() for weight in model.parameters()]
        if not self.tensors:
            self.tensors = [weight.clone() for weight in weights]
        self.tensors = [tensor.to(weight.device) for tensor, weight in zip(self.tensors, weights, strict=True)]
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.tensors, weights, 1 - decay)
        self.steps += 1

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange average and weights, which stay where they are in memory; before the first step nothing happens."""
        for tensor, weight in zip(self.tensors, model.parameters(), strict=False):
            kept = weight.detach().clone()
            weight.copy_(tensor)
            tensor.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return what a training state holds of it."""
        return {"steps": self.steps, "tensors": [tensor.cpu() for tensor in self.tensors]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a training state."""
        self.steps, self.tensors = state["steps"], list(state["tensors"])
