"""Callbacks: the log, checkpoints and best weights, and an orderly stop.

Training states are checksummed, written atomically, and the newest intact one is found again.
"""

from __future__ import annotations

import csv
import io
import math
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from framecast.errors import RunFolderError, WeightsError
from framecast.files import read_checked, write_atomically, write_checked
from framecast.training.averaging import AveragedWeights
from framecast.training.distributed import (
    Peers,
    is_first_process,
    launched_shape,
    mean_over_ranks,
    random_states,
    restore_random_states,
)
from framecast.training.nonfinite import NonFiniteGuard
from framecast.training.order import ShuffledBatches
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask
from framecast.untrusted import check_stored, reading
from framecast.weights.saving import read_weights, save_weights

KIND = "checkpoint"
PIECE_BYTES = 12 * 1024 * 1024
"""Bytes of a file of a training state: few enough for what carries files from one machine to another."""


class CheckedCheckpoints(CheckpointIO):
    """Training states with a checksum, written atomically and read without running code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a training state."""
        del storage_options
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_checked(Path(path), KIND, content.getbuffer(), PIECE_BYTES)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a training state.

        Raises:
            WeightsError: it is missing or damaged.
        """
        del weights_only
        content = io.BytesIO(read_checked(Path(path), KIND, PIECE_BYTES))
        with reading(path, remedy="use the previous one", kind=WeightsError):
            check_stored(content)
            return torch.load(content, map_location=map_location or "cpu", weights_only=True)  # type: ignore[no-any-return]

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a training state."""
        Path(path).unlink(missing_ok=True)


def newest_checkpoint(folder: RunFolder) -> tuple[Path, list[str]]:
    """Return the newest training state that is whole, or else the initial weights, and what was wrong with newer ones.

    Raises:
        WeightsError: there is neither.
    """
    problems: list[str] = []
    for path in folder.saved_checkpoints():
        try:
            read_checked(path, KIND, PIECE_BYTES)
        except WeightsError as error:
            problems.append(str(error))
        else:
            return path, problems
    if folder.initial.is_file():
        return folder.initial, problems
    detail = ": " + "; ".join(problems) if problems else ""
    raise WeightsError(f"{folder.checkpoints} holds no training state to resume from{detail}")


class CsvLog(lightning.Callback):
    """Writes the log as CSV: what repeats exactly in train.csv and validation.csv, the clock in timing.csv."""

    TRAIN = ("batch", "epoch", "loss", "lr")
    VALIDATION: tuple[str, ...] = ("batch", "epoch", "validation_loss", "validation_mse")
    TIMING = ("batch", "seconds", "seconds_per_batch", "waiting_per_batch")

    def __init__(self, folder: RunFolder, every: int, per_epoch: int, select: str | None = None) -> None:
        if select:
            self.VALIDATION = (*self.VALIDATION, f"validation_{select}")
        self.folder, self.every, self.per_epoch = folder, every, per_epoch
        self.losses: list[torch.Tensor] = []
        self.means: list[torch.Tensor] = []
        self.done = self.validated = 0
        self._mark = (0, 0.0)
        self._ended = self._waited = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin the files, or cut the rows that a resumed run will write again, if only that of the last validation."""
        self._began = time.monotonic()
        self._mark, self._ended = (self.done, self._began), self._began
        if trainer.is_global_zero:
            self.folder.logs.mkdir(parents=True, exist_ok=True)
            _cut(self.folder.logs / "train.csv", self.TRAIN, self.done)
            _cut(self.folder.logs / "validation.csv", self.VALIDATION, self.validated)
            _cut(self.folder.logs / "timing.csv", self.TIMING, self.done)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add up what was spent waiting for clips: since the last batch ended, validations left out."""
        self._waited += time.monotonic() - self._ended

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every so many batches; the loss stays on its device until then."""
        self.done = batch_idx + 1
        self.losses.append(outputs["loss"].detach())
        if self.done % self.every == 0 or self.done == trainer.num_training_batches:
            self._write(trainer, batch_idx)
        self._ended = time.monotonic()

    def _write(self, trainer: lightning.Trainer, batch_idx: int) -> None:
        self._share()
        loss = torch.cat([part.cpu() for part in self.means]).mean().item()
        self.means.clear()
        if trainer.is_global_zero:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            _add(self.folder.logs / "train.csv", (self.done, batch_idx // self.per_epoch, repr(loss), repr(float(lr))))
            now = time.monotonic()
            batches = self.done - self._mark[0]
            pace, waiting = (now - self._mark[1]) / batches, self._waited / batches
            self._mark, self._waited = (self.done, now), 0.0
            row = (self.done, f"{now - self._began:.3f}", f"{pace:.4f}", f"{waiting:.4f}")
            _add(self.folder.logs / "timing.csv", row)

    def _share(self) -> None:
        """Turn this process's losses not yet written into means over all processes."""
        if self.losses:
            self.means.append(mean_over_ranks(torch.stack(self.losses)))
            self.losses.clear()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a row per validation."""
        self._ended = time.monotonic()
        self.validated = self.done
        if trainer.is_global_zero:
            scores = [repr(float(trainer.callback_metrics[name])) for name in self.VALIDATION[2:]]
            _add(self.folder.logs / "validation.csv", (self.done, max(0, self.done - 1) // self.per_epoch, *scores))

    @property
    def state_key(self) -> str:
        """Return the key in checkpoints, the same since the first release."""
        return "Log"

    def state_dict(self) -> dict[str, Any]:
        """Return the losses not yet written and how far the log is."""
        self._share()
        return {"losses": [part.cpu() for part in self.means], "done": self.done, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a saved run was."""
        self.means, self.done, self.validated = (state_dict[name] for name in ("losses", "done", "validated"))


def _add(path: Path, row: tuple[Any, ...]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _cut(path: Path, columns: tuple[str, ...], done: int) -> None:
    """Keep the header and the rows up to the last batch done."""
    rows: list[list[str]] = []
    if done and path.exists():
        with reading(path, "is no log of a training", "restore it, or delete it", RunFolderError):
            # A row may be torn if the writer was killed within it; it is after the checkpoint anyway.
            lines = list(csv.reader(path.read_text().splitlines()))[1:]
            rows = [row for row in lines if len(row) == len(columns) and int(row[0]) <= done]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    # Whole or not there: the next resume needs these rows if this one is killed.
    write_atomically(path, buffer.getvalue().encode())


class Checkpointer(lightning.Callback):
    """Saves training states, keeps the best weights, and ends the run in order on Ctrl-C and SIGTERM.

    A training state is written after a batch, or after the validation that follows it, always between two
    optimiser steps. It holds the number of batches done and each process's random state, so that a resumed run
    continues with the very next batch. Whether to stop is decided by all processes together.
    """

    def __init__(
        self, folder: RunFolder, batches: ShuffledBatches, guard: NonFiniteGuard, *, save_every: int,
        validate_every: int, accumulate: int, minutes: float | None, average: AveragedWeights | None,
    ) -> None:  # fmt: skip
        self.folder, self.batches, self.guard = folder, batches, guard
        self.save_every, self.validate_every, self.accumulate = save_every, validate_every, accumulate
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.average = average
        self.best = math.inf
        self.done = 0
        self.validated = -1
        self.interrupted = self.broken_off = False
        self._stop_requested = False
        self._random: list[list[torch.Tensor]] = []
        self._handlers: dict[int, Any] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock, and note who handles Ctrl-C and SIGTERM."""
        self._peers = Peers()
        self._began, self._parent = time.monotonic(), os.getppid()
        if _main_thread():
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def _is_orphaned(self) -> bool:
        """Return whether torchrun, which started this process, has gone; nobody would end it or start it again."""
        return launched_shape() is not None and os.getppid() != self._parent

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        # The first Ctrl-C ends the run in order; a second one is the usual KeyboardInterrupt. SIGTERM may come twice,
        # to a group of processes and from the one that started them.
        self._stop_requested = True
        if number == signal.SIGINT:
            if is_first_process():
                # Not by print, in which this handler may have been called.
                os.write(2, b"\nstopping after this batch; Ctrl-C again stops at once\n")
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
        if self.average:
            self.average.update(pl_module)
        late = time.monotonic() - self._began > self.seconds
        self._stop_requested |= self._is_orphaned()
        self.interrupted, late = self._peers.any_of(self._stop_requested, late)
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
        """Validate with what would be kept: averaged weights, if asked for, and the buffers of the first process."""
        if self.average:
            self.average.swap(pl_module)
        if self._peers.count > 1:
            for buffer in pl_module.buffers():
                distributed.broadcast(buffer, 0)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the weights where they are the best so far, then save the training state."""
        self.validated = self.done
        assert isinstance(pl_module, ForecastTask)
        score, cost = (float(trainer.callback_metrics[f"validation_{name}"]) for name in ("mse", "cost"))
        if math.isfinite(score) and math.isfinite(cost) and cost <= self.best:
            self.best = cost
            if trainer.is_global_zero:
                self.keep_weights(pl_module, score)
        if self.average:
            self.average.swap(pl_module)
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
        """Restore the signal handlers, and raise a signal that came after the last batch."""
        self._give_back()
        (self.interrupted,) = self._peers.any_of(self._stop_requested)

    def _give_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back, and remember whether it was a second Ctrl-C."""
        self.broken_off = isinstance(exception, KeyboardInterrupt)
        self._give_back()

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not keep."""
        random = self._peers.gather(random_states(pl_module.device))
        checkpoint["framecast"] = {
            "batches": self.done, "validated": self.validated, "best": self.best, "random": random,
            "average": self.average.state_dict() if self.average else None,
        }  # fmt: skip

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue with the batch after the last one done."""
        saved = checkpoint["framecast"]
        self.done = self.batches.start = saved["batches"]
        self.validated, self.best, self._random = saved["validated"], saved["best"], saved["random"]
        if self.average:
            self.average.load_state_dict(saved["average"])


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def best_score(folder: RunFolder) -> float | None:
    """Return the validation MSE that the run's weights have, or None where nothing was validated."""
    score = read_weights(folder.weights)[0]["facts"].get("validation_mse")
    return None if score is None else float(score)
