"""What keeps a training: when its states and best weights are saved, and an orderly stop."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from framecast.training.finite import FiniteGuard
from framecast.training.order import ShuffledBatches
from framecast.training.ranks import Peers, random_states, restore_random_states
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask
from framecast.weights.saving import read_weights, save_weights


class Keeper(lightning.Callback):
    """Saves training states, keeps the best weights, and ends the run in order on Ctrl-C and SIGTERM.

    A training state is written after a batch, or after the validation that follows it, always between two
    optimiser steps. It holds the number of batches done and each process's random state, so that a resumed run
    continues with the very next batch. Whether to stop is decided by all processes together.
    """

    def __init__(
        self, folder: RunFolder, batches: ShuffledBatches, guard: FiniteGuard, *, save_every: int,
        validate_every: int, accumulate: int, minutes: float | None,
    ) -> None:  # fmt: skip
        self.folder, self.batches, self.guard = folder, batches, guard
        self.save_every, self.validate_every, self.accumulate = save_every, validate_every, accumulate
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.best = math.inf
        self.done = 0
        self.validated = -1
        self.interrupted = False
        self._asked = False
        self._random: list[list[torch.Tensor]] = []
        self._handlers: dict[int, Any] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock, and note who handles Ctrl-C and SIGTERM."""
        self._peers = Peers()
        self._began = time.monotonic()
        if _main_thread():
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        # The first Ctrl-C ends the run in order; a second one is the usual KeyboardInterrupt. SIGTERM may come twice,
        # to a group of processes and from the one that started them.
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the signals, after Lightning; set the random state, after the loaders have drawn from it."""
        for signal_number in self._handlers:
            signal.signal(signal_number, self._ask_to_stop)
        number = self._peers.number
        if number < len(self._random):
            restore_random_states(self._random[number], pl_module.device)
        else:
            # Every process has another clip to drop units for, and a run begun again drops the same ones.
            torch.manual_seed(int(np.random.SeedSequence([self.batches.seed, number, self.done]).generate_state(1)[0]))
        if isinstance(trainer.model, DistributedDataParallel):
            # Once before each validation is enough, and there the numbers of batches may differ.
            trainer.model.broadcast_buffers = False

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save or stop where it is time and no gradient is half accumulated."""
        self.done = batch_idx + 1
        if self.done % self.accumulate:
            return
        late = time.monotonic() - self._began > self.seconds
        self.interrupted, late = self._peers.any_of(self._asked, late)
        if self.interrupted or late:
            trainer.should_stop = True
        validation_follows = self.done % self.validate_every == 0
        if self.interrupted and not validation_follows:
            # Lightning validates where it stops; a run without the stop would not, and might keep other weights.
            trainer.limit_val_batches = 0
        last = self.done == self.batches.total or trainer.should_stop
        if last or validation_follows or self.done % self.save_every == 0:
            self.guard.settle()
            if not validation_follows:
                self.save(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate with the buffers of the first process, whose weights are kept."""
        if self._peers.count > 1:
            for buffer in pl_module.buffers():
                distributed.broadcast(buffer, 0)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the weights where they are the best so far, then save the training state."""
        self.validated = self.done
        score = float(trainer.callback_metrics["validation_mse"])
        if math.isfinite(score) and score <= self.best:
            self.best = score
            if trainer.is_global_zero:
                assert isinstance(pl_module, ForecastTask)
                self.keep_weights(pl_module, score)
        if trainer.state.fn == "fit" and self.done % self.accumulate == 0:
            self.save(trainer)

    def keep_weights(self, task: ForecastTask, score: float | None) -> None:
        """Write the run's weights."""
        save_weights(
            task.model, self.folder.weights, clips=task.clips.to_dict(), batches=self.done, validation_mse=score
        )

    def save(self, trainer: lightning.Trainer) -> None:
        """Write a training state and forget old ones."""
        trainer.save_checkpoint(self.folder.checkpoint(self.done))
        if trainer.is_global_zero:
            self.folder.forget_old_checkpoints()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Give the signals back, and hear of one that came after the last batch."""
        self._give_back()
        (self.interrupted,) = self._peers.any_of(self._asked)

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not keep."""
        random = self._peers.gathered(random_states(pl_module.device))
        checkpoint["framecast"] = {
            "batches": self.done, "validated": self.validated, "best": self.best, "random": random,
        }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue with the batch after the last one done."""
        kept = checkpoint["framecast"]
        self.done = self.batches.start = kept["batches"]
        self.validated, self.best, self._random = kept["validated"], kept["best"], kept["random"]


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def best_score(folder: RunFolder) -> float | None:
    """Return the validation MSE that the run's weights have, or None where nothing was validated."""
    score = read_weights(folder.weights)[0]["facts"].get("validation_mse")
    return None if score is None else float(score)
