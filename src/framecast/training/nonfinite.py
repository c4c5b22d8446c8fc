"""Non-finite numbers: a step whose loss or gradient is NaN or infinite never reaches the weights.

Whether a step is finite is decided on the device, and the optimiser skips a step that is not there too.
The host reads the flag one step later, or before anything is saved or validated, so no step waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from framecast.errors import NonFiniteError
from framecast.training.distributed import Peers, in_any_rank

log = logging.getLogger(__name__)


@dataclass
class Step:
    """What one optimiser step learned from in this process, kept until it is known to be finite."""

    number: int
    batches: list[int] = field(default_factory=list)
    clips: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    norm: Tensor | None = None
    nonfinite: Tensor | None = None
    arrived: Any = None


class NonFiniteGuard(lightning.Callback):
    """Leaves out steps with a non-finite loss or gradient, and ends the run at the first or after too many of them.

    Args:
        policy: "raise" ends at the first one; "skip" goes on with the next batch.
        limit: how many in a row "skip" leaves out before it ends the run too.
        accumulate: batches per optimiser step.
    """

    def __init__(self, policy: str, limit: int, accumulate: int) -> None:
        self.limit = 0 if policy == "raise" else limit
        self.accumulate, self.in_a_row = accumulate, 0
        self._step = Step(0)
        self._before: list[Tensor] = []
        self._pending: Step | None = None

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note what is learned from, and the running means that a forecast of NaN would spoil."""
        if batch_idx % self.accumulate == 0:
            self._step = Step(batch_idx // self.accumulate + 1)
            self._before = [buffer.clone() for buffer in _running_means(pl_module)]
        self._step.batches.append(batch_idx + 1)
        self._step.clips.append(batch["index"])

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Note the loss."""
        self._step.losses.append(loss.detach() * self.accumulate)

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Flag a non-finite step on the device for the optimiser, and read the flag of the previous step."""
        step, norms = self._step, []
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        # A gradient scaler (16-bit) tries how far it can go, so there infinite gradients are nothing unusual.
        if gradients and not str(trainer.precision).startswith("16"):
            step.norm = torch.nn.utils.get_total_norm(gradients)
            norms = [step.norm.float()]
        numbers = torch.stack([*(loss.float() for loss in step.losses), *norms])
        step.nonfinite = in_any_rank((~numbers.isfinite()).any().float())
        means = _running_means(pl_module)
        for mean, before in zip(means, self._before, strict=True):
            mean.copy_(torch.where(step.nonfinite > 0, before, mean))
        nonfinite = step.nonfinite
        previous, self._pending = self._pending, _sent_to_host(step)
        if optimizer.param_groups[0].get("fused"):
            optimizer.found_inf = nonfinite  # type: ignore[attr-defined]
            self._read_flag(previous)
        else:
            # Optimisers that cannot leave out a step on the device are not stepped: one wait a step.
            self._read_flag(previous)
            if self.settle():
                optimizer.zero_grad()

    def settle(self) -> bool:
        """Wait for the last step, and return whether it was left out.

        Raises:
            NonFiniteError: it was not finite, and no more may be left out.
        """
        previous, self._pending = self._pending, None
        return self._read_flag(previous)

    def _read_flag(self, step: Step | None) -> bool:
        if step is None or step.nonfinite is None:
            return False
        if step.arrived is not None:
            step.arrived.synchronize()
        if not step.nonfinite.numpy():
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        message = _message(step)
        if self.in_a_row > self.limit:
            again = f" It is number {self.in_a_row} in a row and skip_limit is {self.limit}." if self.limit else ""
            raise NonFiniteError(
                f"{message}, and the weights are those before it.{again} Look at these clips (framecast data check), "
                "lower lr, set clip_norm, or leave such steps out: resume=True, on_nonfinite='skip'"
            )
        log.warning("%s: left out (%d in a row, at most %d)", message, self.in_a_row, self.limit)
        return True

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Read the flag of the last step."""
        self.settle()

    @property
    def state_key(self) -> str:
        """Return the key in checkpoints, the same since the first release."""
        return "FiniteGuard"

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps in a row were left out."""
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.in_a_row = state_dict["in_a_row"]


def _running_means(module: nn.Module) -> list[Tensor]:
    """Return the floating-point buffers that a normalisation changes while it trains."""
    layers: Iterable[Any] = (layer for layer in module.modules() if isinstance(layer, _NormBase))
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False) if buffer.is_floating_point()]


def _sent_to_host(step: Step) -> Step:
    """Start the copy of a step's flag to the host, without waiting for it."""
    assert step.nonfinite is not None
    if step.nonfinite.device.type == "cuda":
        nonfinite, step.nonfinite = step.nonfinite, torch.empty((), pin_memory=True)
        step.nonfinite.copy_(nonfinite, non_blocking=True)
        step.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        step.arrived.record()
    elif step.nonfinite.device.type != "cpu":
        step.nonfinite = step.nonfinite.cpu()
    return step


def _message(step: Step) -> str:
    """Return which step it was and what it learned from, over all processes."""
    clips = [number.tolist() for number in step.clips]
    losses = [float(loss) for loss in step.losses]
    parts = Peers().gather((clips, losses))
    clip_numbers = sorted({clip for part, _ in parts for numbers in part for clip in numbers})
    loss_texts = ", ".join(f"{loss:.6g}" for _, part in parts for loss in part)
    norm = "" if step.norm is None else f" and a gradient of norm {float(step.norm):.6g}"
    batches = f"batch {step.batches[0]}" + (f" to {step.batches[-1]}" if len(step.batches) > 1 else "")
    listed_clips = ", ".join(map(str, clip_numbers))
    return f"step {step.number} ({batches}) has a loss of {loss_texts}{norm} from training clips {listed_clips}"
