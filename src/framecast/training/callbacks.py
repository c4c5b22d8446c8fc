"""What happens beside the training steps: logs, checkpoints, best weights, an orderly stop."""

from __future__ import annotations

import csv
import io
import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from framecast.errors import WeightsError
from framecast.storage import read_checked, write_checked
from framecast.training.order import ShuffledBatches
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask
from framecast.weights.saving import read_weights, save_weights

KIND = "checkpoint"


class CheckedCheckpoints(CheckpointIO):
    """Training states with a checksum, written atomically and read without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a training state."""
        del storage_options
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_checked(Path(path), KIND, content.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a training state.

        Raises:
            WeightsError: it is missing or damaged.
        """
        del weights_only
        content = io.BytesIO(read_checked(Path(path), KIND))
        return torch.load(content, map_location=map_location or "cpu", weights_only=True)  # type: ignore[no-any-return]

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a training state."""
        Path(path).unlink(missing_ok=True)


class Keeper(lightning.Callback):
    """Saves training states, keeps the best weights, and ends the run in order on Ctrl-C.

    A training state is written after a batch, or after the validation that follows it, always between two
    optimiser steps. It holds the number of batches done and torch's random state, so that a resumed run
    continues with the very next batch.
    """

    def __init__(
        self, folder: RunFolder, batches: ShuffledBatches, *, save_every: int, validate_every: int, accumulate: int,
        minutes: float | None,
    ) -> None:  # fmt: skip
        self.folder, self.batches = folder, batches
        self.save_every, self.validate_every, self.accumulate = save_every, validate_every, accumulate
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.best = math.inf
        self.done = 0
        self.validated = -1
        self.interrupted = False
        self._random: torch.Tensor | None = None
        self._handler: Any = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock and take over Ctrl-C."""
        self._began = time.monotonic()
        if _main_thread():
            self._handler = signal.signal(signal.SIGINT, self._ask_to_stop)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        # The first Ctrl-C ends the run in order; a second one is the usual KeyboardInterrupt.
        self.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the random state, now that the loaders have drawn from it what they wanted."""
        if self._random is not None:
            torch.set_rng_state(self._random)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save or stop where it is time and no gradient is half accumulated."""
        self.done = batch_idx + 1
        if self.done % self.accumulate:
            return
        if trainer.strategy.broadcast(self.interrupted or time.monotonic() - self._began > self.seconds):
            trainer.should_stop = True
        validation_follows = self.done % self.validate_every == 0
        last = self.done == self.batches.total or trainer.should_stop
        if (last or self.done % self.save_every == 0) and not validation_follows:
            self.save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the weights where they are the best so far, then save the training state."""
        self.validated = self.done
        score = float(trainer.callback_metrics["validation_mse"])
        if trainer.is_global_zero and score <= self.best:
            assert isinstance(pl_module, ForecastTask)
            self.keep_weights(pl_module, score)
        if math.isfinite(score):
            self.best = min(self.best, score)
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
        """Give Ctrl-C back."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C back."""
        self.on_fit_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not keep."""
        checkpoint["framecast"] = {"batches": self.done, "best": self.best, "random": torch.get_rng_state()}

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue with the batch after the last one done."""
        kept = checkpoint["framecast"]
        self.done = self.batches.start = kept["batches"]
        self.best, self._random = kept["best"], kept["random"]


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


class Log(lightning.Callback):
    """Writes the log as CSV: what repeats exactly in train.csv and validation.csv, the clock in timing.csv."""

    TRAIN = ("batch", "epoch", "loss", "lr")
    VALIDATION = ("batch", "epoch", "validation_loss", "validation_mse")
    TIMING = ("batch", "seconds", "seconds_per_batch")

    def __init__(self, folder: RunFolder, every: int, per_epoch: int) -> None:
        self.folder, self.every, self.per_epoch = folder, every, per_epoch
        self.losses: list[torch.Tensor] = []
        self.done = 0
        self._mark = (0, 0.0)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin the files, or cut the rows that a resumed run will write again."""
        self._began = time.monotonic()
        self._mark = (self.done, self._began)
        if trainer.is_global_zero:
            self.folder.logs.mkdir(parents=True, exist_ok=True)
            for name, columns in (("train", self.TRAIN), ("validation", self.VALIDATION), ("timing", self.TIMING)):
                _cut(self.folder.logs / f"{name}.csv", columns, self.done)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every so many batches; the loss stays on its device until then."""
        self.done = batch_idx + 1
        self.losses.append(outputs["loss"].detach())
        if self.done % self.every and self.done != trainer.num_training_batches:
            return
        loss = torch.stack(self.losses).mean().item()
        self.losses.clear()
        if trainer.is_global_zero:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            _add(self.folder.logs / "train.csv", (self.done, batch_idx // self.per_epoch, repr(loss), repr(float(lr))))
            now = time.monotonic()
            pace = (now - self._mark[1]) / (self.done - self._mark[0])
            self._mark = (self.done, now)
            _add(self.folder.logs / "timing.csv", (self.done, f"{now - self._began:.3f}", f"{pace:.4f}"))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a row per validation."""
        if trainer.is_global_zero:
            scores = [repr(float(trainer.callback_metrics[name])) for name in self.VALIDATION[2:]]
            _add(self.folder.logs / "validation.csv", (self.done, max(0, self.done - 1) // self.per_epoch, *scores))

    def state_dict(self) -> dict[str, Any]:
        """Return the losses not yet written and how far the log is."""
        return {"losses": [loss.cpu() for loss in self.losses], "done": self.done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a saved run was."""
        self.losses, self.done = state_dict["losses"], state_dict["done"]


def _add(path: Path, row: tuple[Any, ...]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _cut(path: Path, columns: tuple[str, ...], done: int) -> None:
    """Keep the header and the rows up to the last batch done."""
    rows: list[list[str]] = []
    if done and path.exists():
        with path.open(newline="") as file:
            # A row may be torn if the writer was killed within it; it is after the checkpoint anyway.
            rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(columns) and int(row[0]) <= done]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def newest_checkpoint(folder: RunFolder) -> tuple[Path, list[str]]:
    """Return the newest training state that is whole, and what was wrong with newer ones.

    Raises:
        WeightsError: there is none.
    """
    problems: list[str] = []
    for path in folder.saved_checkpoints():
        try:
            read_checked(path, KIND)
        except WeightsError as error:
            problems.append(str(error))
        else:
            return path, problems
    detail = ": " + "; ".join(problems) if problems else ""
    raise WeightsError(f"{folder.checkpoints} holds no training state to resume from{detail}")


def best_score(folder: RunFolder) -> float | None:
    """Return the validation MSE that the run's weights have, or None where nothing was validated."""
    score = read_weights(folder.weights)[0]["facts"].get("validation_mse")
    return None if score is None else float(score)
