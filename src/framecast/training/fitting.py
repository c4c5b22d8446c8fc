"""Fit a forecaster: from a resolved configuration to a finished run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from torch.utils.data import DataLoader, Subset

from framecast.datasets.clip import ClipData
from framecast.models.forecaster import Forecaster
from framecast.registry import Training
from framecast.training.callbacks import CheckedCheckpoints, Keeper, Log, best_score
from framecast.training.options import TrainingOptions
from framecast.training.order import EveryClipOnce, ShuffledBatches
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask

QUIET = (
    ".*does not have many workers.*",
    ".*dataloader is not resumable.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
)


class Run(NamedTuple):
    """A training that has ended.

    Attributes:
        path: the run folder.
        batches: batches it has learned from.
        finished: whether it did all that were asked for, or stopped early.
        validation_mse: squared error of the kept weights (summed over a frame), or None.
    """

    path: Path
    batches: int
    finished: bool
    validation_mse: float | None


def fit(
    model: Forecaster,
    data: ClipData,
    folder: RunFolder,
    options: TrainingOptions,
    recipe: Training,
    start: Mapping[str, Any] | Path,
) -> Run:
    """Train a model on a data set.

    Args:
        model: the forecaster to train.
        data: the clips to learn from and to validate with.
        folder: the run folder.
        options: all a training can be told.
        recipe: optimiser, schedule, loss and sampling, the options already in it.
        start: the configuration of a new run, whose folder is made once all else is found right; or the training
            state to continue from.

    Raises:
        DataError: the data set is too small for one batch.
        RunFolderError: the folder of a new run is not empty.
        UnknownNameError: a name in the recipe that does not exist.
        KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    probe = ShuffledBatches(len(data["train"]), options.batch, 1, options.seed)
    total, interval = options.total_batches(probe.per_epoch), options.validation_interval(probe.per_epoch)
    task = ForecastTask(
        model, data.spec, recipe, seed=options.seed, per_epoch=probe.per_epoch, total=total,
        accumulate=options.accumulate,
    )  # fmt: skip
    if isinstance(start, Mapping):
        folder.start(dict(start), data.fingerprint())
    with _quiet():
        trainer = _trainer(options, recipe, folder, interval)
        batches = ShuffledBatches(
            len(data["train"]), options.batch, total, options.seed, trainer.global_rank, trainer.world_size
        )
        keeper = Keeper(
            folder,
            batches,
            save_every=options.save_every or interval,
            validate_every=interval,
            accumulate=options.accumulate,
            minutes=options.minutes,
        )
        trainer.callbacks += [  # type: ignore[attr-defined]
            Log(folder, options.log_every, probe.per_epoch),
            keeper,
        ]
        train, validation = _loaders(data, options, batches)
        trainer.fit(task, train, validation, ckpt_path=start if isinstance(start, Path) else None)
        if len(validation) and keeper.validated != keeper.done and not keeper.interrupted:
            trainer.validate(task, validation, verbose=False)
        if not folder.weights.exists() and trainer.is_global_zero:
            keeper.keep_weights(task, None)
    if keeper.interrupted:
        raise KeyboardInterrupt(
            f"stopped after batch {keeper.done} of {total}: go on with --resume --out {folder.path}"
        )
    return Run(folder.path, keeper.done, keeper.done == total, best_score(folder))


def _trainer(options: TrainingOptions, recipe: Training, folder: RunFolder, interval: int) -> lightning.Trainer:
    callbacks: list[lightning.Callback] = []
    if options.patience:
        callbacks.append(EarlyStopping("validation_mse", patience=options.patience))
    if options.progress:
        callbacks.append(TQDMProgressBar())
    settings: dict[str, Any] = {
        "accelerator": options.accelerator,
        "devices": options.devices,
        "strategy": options.strategy,
        "precision": options.precision,
        "max_epochs": 1,
        "accumulate_grad_batches": options.accumulate,
        "gradient_clip_val": recipe.clip_norm,
        "val_check_interval": interval,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": options.log_every,
        "logger": _tensorboard(folder),
        "callbacks": callbacks,
        "enable_progress_bar": options.progress,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "plugins": [CheckedCheckpoints()],
    }
    return lightning.Trainer(**{**settings, **options.trainer})


def _loaders(
    data: ClipData, options: TrainingOptions, batches: ShuffledBatches
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    common: dict[str, Any] = {
        "num_workers": options.workers,
        "pin_memory": torch.cuda.is_available(),
        "persistent_workers": options.workers > 0,
    }
    train = DataLoader(
        data["train"], batch_sampler=batches, generator=torch.Generator().manual_seed(options.seed), **common
    )
    clips = data["validation"]
    if options.validate_clips and options.validate_clips < len(clips):
        clips = Subset(clips, range(options.validate_clips))  # type: ignore[assignment]
    own = EveryClipOnce(len(clips), batches.rank, batches.ranks)
    share = max(1, options.batch // batches.ranks)
    validation = DataLoader(
        clips, batch_size=share, sampler=own, generator=torch.Generator().manual_seed(options.seed), **common
    )
    return train, validation


def _tensorboard(folder: RunFolder) -> Any:
    if find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder.path, name="", version="tensorboard")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about things we have decided: workers, sanity checks, the resumed loader."""
    names = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in QUIET:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
