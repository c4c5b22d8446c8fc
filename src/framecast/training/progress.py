"""The progress of a training as a user sees it: a bar that moves from the first batch, and how long all of it takes."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from framecast.compute.precision import faster_precisions
from framecast.data.units import duration_text

log = logging.getLogger(__name__)
REDRAWN = 0.5
"""Seconds between two looks at the loss, for which the device has to be waited for."""
SHORT = 60.0
"""Seconds that a training may take without a word on how long it takes."""
LONG = 1200.0
"""Seconds from which on it is said how to make it shorter."""


class Progress(ProgressBar):
    """Two bars, of the batches to learn from and of those to validate with, and a line on the whole time."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm[Any] | None = None
        self.validation: tqdm[Any] | None = None
        self._drawn = self._began = 0.0
        self._first = 0

    def disable(self) -> None:
        """Show nothing: Lightning asks it of all processes but the first."""

    def enable(self) -> None:
        """Show the bars again."""

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the bar before the first batch."""
        if self.bar is None and trainer.is_global_zero:
            total = int(trainer.num_training_batches)
            self.bar = tqdm(total=total, initial=batch_idx, desc="training", unit="batch", dynamic_ncols=True)
            self._first = batch_idx

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, the loss beside it; after the second batch say how long the whole takes."""
        if self.bar is None:
            return
        now, done = time.monotonic(), batch_idx + 1
        early = done - self._first <= 2
        if early or now - self._drawn > REDRAWN or done == self.bar.total:
            self.bar.set_postfix_str(f"loss {float(outputs['loss']):.4g}", refresh=False)
            self.bar.n = done
            self.bar.refresh()
            now = self._drawn = time.monotonic()  # the device has done its work by now
        if done - self._first == 1:
            self._began = now
        elif done - self._first == 2:
            exact = str(trainer.precision) == "32-true"
            self._say_how_long(now - self._began, self.bar.total - done, pl_module.device, exact)

    def _say_how_long(self, seconds: float, left: int, device: torch.device, exact: bool) -> None:
        """Say what a batch and the whole take, by the second batch; the first one has warmed up."""
        whole = seconds * left
        if whole < SHORT or self.bar is None:
            return
        text = (
            f"a batch takes {duration_text(seconds)}, the {left:,} that are left about {duration_text(whole)}, "
            "validations not counted"
        )
        if whole > LONG:
            gains = faster_precisions(str(device)) if exact else {}
            faster = "".join(f"{name} (convolutions {gain:.1f} times as fast), " for name, gain in gains.items())
            text += (
                f". Shorter: {faster}fewer steps= or epochs=, an end after minutes=, fewer hidden channels (hidden=), "
                "smaller or fewer frames (size=, context=, horizon=)"
            )
        self.bar.clear()
        log.warning(text)
        self.bar.refresh()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the second bar."""
        if trainer.is_global_zero:
            total = int(sum(trainer.num_val_batches))
            self.validation = tqdm(total=total, desc="validating", unit="batch", leave=False, dynamic_ncols=True)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *batch: Any, **more: Any
    ) -> None:
        """Move the second bar."""
        if self.validation is not None:
            self.validation.update()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the second bar away."""
        if self.validation is not None:
            self.validation.close()
            self.validation = None

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the bar as it is."""
        for bar in (self.validation, self.bar):
            if bar is not None:
                bar.close()
        self.bar = self.validation = None
