"""The one Lightning task: trains any forecaster by the recipe of its registry entry."""

from __future__ import annotations

import logging
import math
import time
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from framecast.compute.compiling import Way
from framecast.compute.graphs import CapturedLoss
from framecast.data.clips import ClipSpec, Sample
from framecast.errors import UnknownNameError, is_out_of_memory
from framecast.models.conditions import Conditions
from framecast.models.forecaster import Forecaster, Recompute
from framecast.models.members import draw_noise, ensemble_mean, forecast_members
from framecast.models.sampling import policy_named, truth_mask
from framecast.registry import Training, score_families
from framecast.scores.family import Compared, Counts, add_counts
from framecast.training.augmentation import augment_clips, check_augmentation
from framecast.training.losses import LOSSES, check_loss, rate_weights, training_loss

log = logging.getLogger(__name__)

WARMUP_SHARE = 0.2
COSINE_FLOOR = 1e-3


class ForecastTask(lightning.LightningModule):
    """Roll-out, loss, optimiser and schedule of one training.

    Args:
        model: the forecaster to train.
        clips: the facts of the clips it learns from.
        recipe: optimiser, schedule, loss, sampling and their numbers.
        seed: of the sampling masks.
        per_epoch: batches of one epoch.
        total: batches of the whole training; schedules and sampling follow the share of these that is done.
        accumulate: batches per optimiser step.
        recompute: what is computed again in backward, see ``Forecaster.rollout``.
        augment: how clips are turned about, see ``training/augmentation.py``.
        select: the score of the validation clips by which weights are chosen; None for their MSE.
        way: how its steps are run.
        example: a sample of the batches of this process and how many it has, to record their shape; None where nothing
            is recorded.

    Raises:
        UnknownNameError: a name in the recipe that does not exist.
    """

    def __init__(
        self,
        model: Forecaster,
        clips: ClipSpec,
        recipe: Training,
        *,
        seed: int,
        per_epoch: int,
        total: int,
        accumulate: int = 1,
        recompute: Recompute = "none",
        augment: str = "none",
        select: str | None = None,
        way: Way | None = None,
        example: tuple[Sample, int] | None = None,
    ) -> None:
        super().__init__()
        check_loss(recipe.loss, model, clips.unit)
        for kind, name, table in (
            ("optimizer", recipe.optimizer, OPTIMIZERS),
            ("schedule", recipe.schedule, SCHEDULES),
        ):
            if name not in table:
                raise UnknownNameError(kind, name, table)
        policy_named(recipe.sampling)
        check_augmentation(augment, clips.height, clips.width)
        self.model, self.clips, self.recipe = model, clips, recipe
        self.seed, self.per_epoch, self.total, self.accumulate = seed, per_epoch, total, accumulate
        self.loss, self.recompute, self.augment = LOSSES[recipe.loss], recompute, augment
        self.way, self.example = way or Way(False, False), example
        self.select = None if select is None else SelectedScore(select, clips, ensembles=bool(model.noise))
        self._captured: CapturedLoss | None = None
        self._passes, self._began = 0, 0.0

    def on_fit_start(self) -> None:
        """Record the kernels of a step, where they are to be; the model is where and as it will be trained."""
        self._began = time.perf_counter()
        if self.way.captured and self.example is not None:
            self._record(*self.example)
        if self._captured or (self.way.reason and not self.way.compiled):
            self._tell()

    def _record(self, sample: Sample, count: int) -> None:
        """Record the kernels of a step of a batch of so many samples like this one."""
        frames = sample["frames"].new_zeros(count, *sample["frames"].shape)
        example = {"frames": frames}
        if self.recipe.sampling != "none":
            example["truth"] = torch.zeros(count, frames.shape[1] - 1, dtype=torch.bool)
        if "valid" in sample:
            example["valid"] = sample["valid"].new_ones(count, *sample["valid"].shape)
        rows = self.model.blank_rows(frames, self.recipe.members)
        if rows is not None:
            example["rows"] = rows
        if self.model.residual != "none":
            example["known"] = torch.ones_like(frames[:, :, :1], dtype=torch.bool)
        example = {name: tensor.to(self.device) for name, tensor in example.items()}
        example = self.trainer.precision_plugin.convert_input(example)
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(self.trainer.precision))
        try:
            self._captured = CapturedLoss(self.model, self._batch_loss, example, dtype, self.accumulate > 1)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = f"it could not be recorded: {(str(error).splitlines() or ['no reason given'])[0]}"
            self.way = self.way._replace(captured=False, reason=reason)

    def teardown(self, stage: str) -> None:
        """Leave the model as it was."""
        if stage == "fit" and self._captured:
            self._captured.close()

    def _tell(self) -> None:
        """Say once how steps are run, and how long it took to prepare that."""
        if self.trainer.is_global_zero:
            log.warning("%s; to prepare that took %.0f s", self.way.text(), time.perf_counter() - self._began)
        self._began = 0.0

    def _batch_loss(
        self,
        frames: Tensor,
        truth: Tensor | None = None,
        valid: Tensor | None = None,
        rows: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        return training_loss(
            self.model, self.recipe, frames, self.clips.context, truth, valid=valid, recompute=self.recompute,
            rows=rows, known=known,
        )  # fmt: skip

    def _conditions(
        self, frames: Tensor, valid: Tensor | None, covariates: Tensor | None, noise: Tensor | None
    ) -> Conditions:
        """Return what the model sees beside the frames (B, T, C, H, W) of whole clips, of which it sees the past."""
        context = self.clips.context
        return self.model.conditions(frames[:, :context], frames.shape[1] - context, covariates, noise, valid)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """Return the loss of one batch: of every forecast the roll-out yields, plus the weighted penalty."""
        tensors, samples = {"frames": batch["frames"]}, cast(Tensor, batch["index"])
        epoch = batch_idx // self.per_epoch
        if self.recipe.sampling != "none":
            tensors["truth"] = truth_mask(
                self.recipe.sampling,
                batch_idx / self.total,
                seed=self.seed,
                epoch=epoch,
                samples=samples,
                context=self.clips.context,
                horizon=self.clips.horizon,
            )
        if "valid" in batch:
            tensors["valid"] = batch["valid"]
        if "covariates" in batch and self.model.covariates:
            tensors["covariates"] = batch["covariates"]
        clips = [name for name in ("frames", "valid", "covariates") if name in tensors]
        turned = augment_clips(
            [tensors[name] for name in clips], self.augment, seed=self.seed, epoch=epoch, samples=samples
        )
        tensors |= zip(clips, turned, strict=True)
        noise = None
        if self.model.noise:
            noise = draw_noise(self.model.noise, samples, self.recipe.members, seed=self.seed, epoch=epoch)
        conditions = self._conditions(tensors["frames"], tensors.get("valid"), tensors.pop("covariates", None), noise)
        tensors |= {name: part for name, part in conditions._asdict().items() if part is not None}
        loss = self._captured(tensors) if self._captured else self._batch_loss(**tensors)
        self.log("loss", loss)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Sample, batch_idx: int) -> None:
        """Log the learning rate, and the passes over the clips; to Lightning a whole training is one epoch."""
        if self._began and self.way.compiled:
            self._tell()
        self._passes = batch_idx // self.per_epoch
        facts = {"lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]), "epoch": float(self._passes)}
        # Filled on the device: a number sent there would wait for all that it has yet to compute.
        self.log_dict({name: outputs["loss"].new_full((), value, dtype=torch.float32) for name, value in facts.items()})

    def on_validation_epoch_start(self) -> None:
        """Start the sums of a validation."""
        self._sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        if self.select:
            self.select.reset()

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        """Add up loss and squared error of the forecast frames, the model seeing the context only."""
        frames, context = batch["frames"], self.clips.context
        covariates = batch.get("covariates") if self.model.covariates else None
        conditions = self._conditions(frames, batch.get("valid"), covariates, None)
        past, truth = frames[:, :context], frames[:, context:]
        valid = batch["valid"][:, context:] if "valid" in batch else None
        if conditions.known is not None:
            known = conditions.known[:, context:]
            valid = known if valid is None else valid & known
        if self.model.noise:
            members = forecast_members(
                self.model, past, self.clips.horizon, self.recipe.members, samples=cast(Tensor, batch["index"]),
                seed=self.seed, covariates=covariates, valid=batch.get("valid"),
            )  # fmt: skip
            forecast = ensemble_mean(members, self.clips.scaling)
        else:
            members = forecast = self.model.continue_past(past, self.clips.horizon, conditions.rows)
        weights = rate_weights(self.clips.scaling.unscale(truth)) if self.loss.by_rate else None
        values = forecast.clamp(0, 1)
        self._sums[0] += self.loss.total(members, truth, valid, weights)
        self._sums[1] += self.loss.count(members, valid)
        self._sums[2] += LOSSES["mse"].total(values, truth, valid, None)
        self._sums[3] += LOSSES["mse"].count(values, valid)
        if self.select:
            several = members if self.model.noise else None
            self.select.add(Compared(forecast, truth, valid, self.clips.scaling.unscale, several))
        self._frame = truth[0, 0].numel()
        if batch_idx == 0:
            self._show(frames[0], forecast[0])

    def _show(self, clip: Tensor, forecast: Tensor) -> None:
        """Give loggers that take pictures a strip of one clip (T, C, H, W), truth over forecast."""
        truth, forecast = clip[:, :1], forecast[:, :1]
        rows = [truth, torch.cat([torch.zeros_like(truth[: len(truth) - len(forecast)]), forecast])]
        strip = torch.cat([torch.cat(list(row), -1) for row in rows], -2)
        for logger in self.loggers:
            add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
            if add_image is not None:
                add_image("truth over forecast", strip.clamp(0, 1), self.global_step)

    def on_validation_epoch_end(self) -> None:
        """Log ``validation_loss`` and ``validation_mse`` (summed over a frame, averaged over frames and clips).

        ``validation_cost``, which is low for the weights to keep, is logged for the callbacks alone.
        """
        sums = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        loss, squared = (sums[::2] / sums[1::2].clamp(min=1)).float()
        self.log("epoch", float(self._passes))
        self.log("validation_loss", loss)
        mse = cost = squared * self._frame
        self.log("validation_mse", mse, prog_bar=True)
        if self.select:
            score = self.select.value(self.trainer.strategy)
            cost = self.select.cost(score)
            self.log(f"validation_{self.select.name}", score, prog_bar=True)
            if not cost.isfinite() and self.trainer.is_global_zero:
                log.warning("%s of the validation clips is undefined: no weights are kept by it", self.select.name)
        self.log("validation_cost", cost, logger=False)

    def configure_optimizers(self) -> Any:
        """Return the optimiser and, where the recipe has one, the schedule by steps."""
        optimizer = OPTIMIZERS[self.recipe.optimizer](self.model, self.recipe, self._fused())
        schedule = SCHEDULES[self.recipe.schedule]
        if schedule is None:
            return optimizer
        steps = max(1, self.total // self.accumulate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule(optimizer, self.recipe, steps), "interval": "step"},
        }

    def _fused(self) -> bool:
        # A gradient scaler (16-bit) unscales before clipping, which the fused form cannot.
        return not str(self.trainer.precision).startswith("16") and self.device.type in ("cpu", "cuda")


class SelectedScore:
    """One score of the validation clips, pooled over lead times, by which weights are chosen.

    Args:
        name: of a score, such as "csi_2", at the thresholds that ``evaluate`` has without options.
        clips: the facts of the clips.
        ensembles: whether the forecasts are ensembles, which have scores of their own.

    Raises:
        UnknownNameError: no family that suits the unit has such a score.
    """

    def __init__(self, name: str, clips: ClipSpec, *, ensembles: bool = False) -> None:
        families = score_families(clips.unit, ensembles=ensembles)
        known = {score: family for family in families.values() for score in family.info()}
        if name not in known:
            raise UnknownNameError(f"score of {clips.unit}", name, known)
        self.name, self.family = name, known[name]
        self.best = self.family.info()[name].best
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.counts: Counts = {}

    def add(self, pair: Compared) -> None:
        """Add a batch."""
        counts = self.family.counts(pair)
        self.counts = add_counts(self.counts, {name: values.sum().double() for name, values in counts.items()})

    def value(self, strategy: Any) -> Tensor:
        """Return the score of all processes together, NaN where it is undefined."""
        counts = {name: strategy.reduce(values, reduce_op="sum") for name, values in self.counts.items()}
        return cast(Tensor, self.family.scores(counts)[self.name]).float()

    def cost(self, value: Tensor) -> Tensor:
        """Return a number that is the lower the better the score is."""
        return {"low": value, "high": -value, "one": abs(value - 1)}[self.best]


def _adam(model: nn.Module, recipe: Training, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=fused)


def _adamw(model: nn.Module, recipe: Training, fused: bool) -> torch.optim.Optimizer:
    # Norms and biases are one-dimensional, and decaying them only hurts.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, recipe.lr, fused=fused)


def _one_cycle(optimizer: torch.optim.Optimizer, recipe: Training, steps: int) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)


def _warmup_cosine(optimizer: torch.optim.Optimizer, recipe: Training, steps: int) -> Any:
    del recipe
    warmup = max(1, round(WARMUP_SHARE * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return COSINE_FLOOR + (1 - COSINE_FLOOR) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


OPTIMIZERS = {"adam": _adam, "adamw": _adamw}
SCHEDULES = {"constant": None, "one-cycle": _one_cycle, "warmup-cosine": _warmup_cosine}
