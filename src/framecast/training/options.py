"""The options of a training, with the paper's values as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from framecast.compute.compiling import MODES, Mode
from framecast.errors import OptionError, UnknownNameError, check_count, check_finite, check_number
from framecast.models.forecaster import Recompute, segment_length
from framecast.registry import Training
from framecast.training.order import DRAWS

ON_NONFINITE = ("raise", "skip")
# What may differ when a run continues: where and how it is computed, never what is computed.
FREE_ON_RESUME = frozenset(
    {"minutes", "threads", "workers", "accelerator", "devices", "strategy", "trainer", "progress", "recompute",
     "on_nonfinite", "skip_limit"}
)  # fmt: skip


@dataclass(frozen=True)
class TrainingOptions:
    """Options of ``framecast train``.

    Args:
        epochs: passes over the training split; 1 where neither epochs nor steps are given.
        steps: optimiser steps instead of epochs.
        minutes: stop early after so many minutes; schedules follow steps all the same.
        batch: clips per batch, over all devices together.
        accumulate: batches per optimiser step.
        optimizer: "adam" or "adamw"; None takes the model's recipe.
        lr: learning rate; None takes the model's recipe (3e-4 for recurrent models).
        weight_decay: weight decay; None takes the model's recipe.
        schedule: "constant", "one-cycle" or "warmup-cosine"; None takes the model's recipe.
        loss: "l1+l2" (summed over a frame), "mse", "l2+edges", "l2+pooled"; of rain rates also "balanced",
            "balanced+edges" and "balanced+pooled"; of models with noise "crps", "crps+pooled", "balanced-crps",
            "energy" and "energy+mse" (see ``training/losses.py``); None takes the model's recipe, and "crps" for a
            model with noise.
        sampling: "none", "scheduled" or "reverse-scheduled"; None takes the model's recipe.
        penalty_weight: weight of the model's own penalty; None takes the model's recipe.
        clip_norm: largest norm of the gradient, 0 for no limit; None takes the model's recipe.
        members: forecasts of each clip that a model with noise makes in a step, for its loss to compare; None takes 4.
        select: the score of the validation clips by which the kept weights are chosen, such as "csi_2" or "ssim"; None
            takes their MSE. A model with noise has "crps" too.
        draw: "uniform" takes every clip once in an epoch; "rain" draws as many, each the more often the more its frames
            hold. Validation and test stay as they are.
        ema: keep a moving average of the weights, of which this share stays at each step, such as 0.999: it is what is
            validated and kept; None keeps the weights themselves.
        augment: turn clips about at random: "flips", "flips+turns" for square frames, or "none". For data without a
            special direction, such as rain; not for digits or people.
        seed: of initial weights, order of the clips and sampling masks.
        validate_every: batches between validations; None validates after each epoch and at the end.
        validate_clips: use only so many clips of the validation split.
        patience: stop after so many validations without a better one, by the score of ``select``.
        save_every: batches between training checkpoints; None saves after each validation.
        log_every: batches per row of the log.
        init_from: a run folder or weights file to start from (fine-tuning).
        recompute: what is computed again in backward to save memory: "none", "lean" (about √steps at a time), or a
            number of steps; for recurrent models, gradients stay the same.
        compile: "none"; "step" compiles a time step when it first runs, which takes a minute or two and a C++ compiler
            on processors; "graph", on CUDA, also launches the kernels of a step together; "auto" takes "graph" on CUDA,
            compiled where the training has 500 steps or more, and nothing elsewhere.
        layout: order in memory, "channels-first", "channels-last", or "auto" for the faster one on the device.
        precision: of Lightning's Trainer, e.g. "32-true", "bf16-mixed" or "64-true".
        tf32: let GPUs round float32 factors of products and convolutions to 10 bits (TF32); not by default.
        accelerator: of Lightning's Trainer, e.g. "auto", "cpu" or "gpu".
        devices: of Lightning's Trainer, a number of processes, a list or "auto": all GPUs or one processor, or as
            many as torchrun started.
        strategy: of Lightning's Trainer, e.g. "auto" or "ddp".
        workers: processes that prepare clips; 0 prepares them in the main one.
        threads: threads of the processor to compute with; None leaves torch's choice.
        on_nonfinite: what follows a step whose loss or gradient is NaN or infinite, which never reaches the weights:
            "raise" ends the training, "skip" goes on with the next batch.
        skip_limit: how many such steps in a row "skip" leaves out before it ends the training too.
        progress: show a progress bar.
        trainer: any further option of Lightning's Trainer.

    Raises:
        ValueError: epochs and steps both given, or a number that is not finite or below its least value.
        UnknownNameError: no such policy on_nonfinite.
    """

    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    batch: int = 4
    accumulate: int = 1
    optimizer: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    loss: str | None = None
    sampling: str | None = None
    penalty_weight: float | None = None
    clip_norm: float | None = None
    members: int | None = None
    select: str | None = None
    draw: str = "uniform"
    ema: float | None = None
    augment: str = "none"
    seed: int = 0
    validate_every: int | None = None
    validate_clips: int | None = None
    patience: int | None = None
    save_every: int | None = None
    log_every: int = 10
    init_from: str | None = None
    recompute: Recompute = "none"
    compile: Mode = "auto"
    layout: str = "auto"
    precision: str = "32-true"
    tf32: bool = False
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    strategy: str = "auto"
    workers: int = 0
    threads: int | None = None
    on_nonfinite: str = "raise"
    skip_limit: int = 10
    progress: bool = True
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise OptionError(f"epochs={self.epochs} and steps={self.steps} are both given: choose one")
        for name in ("epochs", "steps", "batch", "accumulate", "validate_every", "validate_clips", "patience",
                     "save_every", "log_every", "threads", "skip_limit"):  # fmt: skip
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("workers", self.workers, least=0)
        if self.members is not None:
            check_count("members", self.members, least=2)
        if self.draw not in DRAWS:
            raise UnknownNameError("way to draw", self.draw, DRAWS)
        check_count("seed", self.seed, least=0)
        if self.compile not in MODES:
            raise UnknownNameError("mode of compile", str(self.compile), MODES)
        if self.on_nonfinite not in ON_NONFINITE:
            raise UnknownNameError("policy on_nonfinite", self.on_nonfinite, ON_NONFINITE)
        segment_length(1, self.recompute)
        for option in fields(self):
            check_finite(option.name, getattr(self, option.name))
        for name in ("lr", "minutes"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0)
        for name in ("weight_decay", "penalty_weight", "clip_norm"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least=0)
        if self.ema is not None and not 0 < self.ema < 1:
            raise OptionError(f"ema is {self.ema} and must be between 0 and 1, such as 0.999")

    def recipe(self, defaults: Training) -> Training:
        """Return the model's recipe with the options that were given."""
        values = {name: getattr(self, name) for name in asdict(defaults)}
        recipe = replace(defaults, **{name: value for name, value in values.items() if value is not None})
        return replace(recipe, clip_norm=recipe.clip_norm or None)

    def total_batches(self, per_epoch: int) -> int:
        """Return the batches of the whole training."""
        if self.steps is not None:
            return self.steps * self.accumulate
        return (self.epochs or 1) * per_epoch

    def validation_interval(self, per_epoch: int) -> int:
        """Return the batches between validations."""
        if self.validate_every is not None:
            return self.validate_every
        return min(per_epoch, self.total_batches(per_epoch))


def training_options(values: Mapping[str, Any]) -> TrainingOptions:
    """Make options from keyword arguments.

    Raises:
        UnknownNameError: there is no such option; the message has the nearest spelling.
        ValueError: an impossible value.
    """
    names = {option.name for option in fields(TrainingOptions)}
    for name in values:
        if name not in names:
            raise UnknownNameError("training option", name, names)
    if isinstance(values.get("compile"), bool):  # as runs of earlier versions have it
        values = {**values, "compile": "step" if values["compile"] else "none"}
    return TrainingOptions(**values)


def resumed_options(saved: Mapping[str, Any], options: TrainingOptions) -> TrainingOptions:
    """Return the options of a run that continues: the saved ones, but computed where and how ``options`` say.

    Raises:
        ValueError: ``options`` ask for another training than the saved one.
    """
    before, default = training_options(saved), TrainingOptions()
    for option in fields(TrainingOptions):
        new = getattr(options, option.name)
        changed = new not in (getattr(default, option.name), getattr(before, option.name))
        if changed and option.name not in FREE_ON_RESUME:
            raise OptionError(
                f"a resumed run keeps {option.name}={getattr(before, option.name)} and got {new}: leave it out, or "
                "start another run with init_from=<this one>"
            )
    return replace(before, **{name: getattr(options, name) for name in FREE_ON_RESUME})
