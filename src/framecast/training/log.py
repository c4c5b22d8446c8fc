"""What a training tells as it goes: the log as CSV, and a progress bar."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

from framecast.boundary import reading
from framecast.errors import RunFolderError
from framecast.storage import write_atomically
from framecast.training.ranks import mean_over_ranks
from framecast.training.run_folder import RunFolder


class Log(lightning.Callback):
    """Writes the log as CSV: what repeats exactly in train.csv and validation.csv, the clock in timing.csv."""

    TRAIN = ("batch", "epoch", "loss", "lr")
    VALIDATION = ("batch", "epoch", "validation_loss", "validation_mse")
    TIMING = ("batch", "seconds", "seconds_per_batch")

    def __init__(self, folder: RunFolder, every: int, per_epoch: int) -> None:
        self.folder, self.every, self.per_epoch = folder, every, per_epoch
        self.losses: list[torch.Tensor] = []
        self.means: list[torch.Tensor] = []
        self.done = self.validated = 0
        self._mark = (0, 0.0)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin the files, or cut the rows that a resumed run will write again, if only that of the last validation."""
        self._began = time.monotonic()
        self._mark = (self.done, self._began)
        if trainer.is_global_zero:
            self.folder.logs.mkdir(parents=True, exist_ok=True)
            _cut(self.folder.logs / "train.csv", self.TRAIN, self.done)
            _cut(self.folder.logs / "validation.csv", self.VALIDATION, self.validated)
            _cut(self.folder.logs / "timing.csv", self.TIMING, self.done)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row every so many batches; the loss stays on its device until then."""
        self.done = batch_idx + 1
        self.losses.append(outputs["loss"].detach())
        if self.done % self.every and self.done != trainer.num_training_batches:
            return
        self._share()
        loss = torch.cat([part.cpu() for part in self.means]).mean().item()
        self.means.clear()
        if trainer.is_global_zero:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            _add(self.folder.logs / "train.csv", (self.done, batch_idx // self.per_epoch, repr(loss), repr(float(lr))))
            now = time.monotonic()
            pace = (now - self._mark[1]) / (self.done - self._mark[0])
            self._mark = (self.done, now)
            _add(self.folder.logs / "timing.csv", (self.done, f"{now - self._began:.3f}", f"{pace:.4f}"))

    def _share(self) -> None:
        """Turn this process's losses not yet written into means over all processes."""
        if self.losses:
            self.means.append(mean_over_ranks(torch.stack(self.losses)))
            self.losses.clear()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a row per validation."""
        self.validated = self.done
        if trainer.is_global_zero:
            scores = [repr(float(trainer.callback_metrics[name])) for name in self.VALIDATION[2:]]
            _add(self.folder.logs / "validation.csv", (self.done, max(0, self.done - 1) // self.per_epoch, *scores))

    def state_dict(self) -> dict[str, Any]:
        """Return the losses not yet written and how far the log is."""
        self._share()
        return {"losses": [part.cpu() for part in self.means], "done": self.done, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where a saved run was."""
        self.means, self.done, self.validated = (state_dict[name] for name in ("losses", "done", "validated"))


class Progress(TQDMProgressBar):
    """A progress bar that asks for the loss when it is redrawn only, as the device must be waited for."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Return what stands behind the bar."""
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        loss = trainer.callback_metrics.get("loss")
        return shown if loss is None else {"loss": f"{float(loss):.4g}", **shown}


def _add(path: Path, row: tuple[Any, ...]) -> None:
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(row)


def _cut(path: Path, columns: tuple[str, ...], done: int) -> None:
    """Keep the header and the rows up to the last batch done."""
    rows: list[list[str]] = []
    if done and path.exists():
        with reading(path, "is no log of a training", "restore it, or delete it", RunFolderError):
            # A row may be torn if the writer was killed within it; it is after the checkpoint anyway.
            written = list(csv.reader(path.read_text().splitlines()))[1:]
            rows = [row for row in written if len(row) == len(columns) and int(row[0]) <= done]
    kept = io.StringIO()
    csv.writer(kept, lineterminator="\n").writerows([columns, *rows])
    # Whole or not there: the next resume needs these rows if this one is killed.
    write_atomically(path, kept.getvalue().encode())
