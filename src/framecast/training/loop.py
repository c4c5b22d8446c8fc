"""The training loop: from a resolved configuration to a finished run folder."""

from __future__ import annotations

import logging
import math
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.utils.data import DataLoader, Subset

from framecast.compute.compiling import choose_way, on_its_way
from framecast.compute.placement import arithmetic, arrange
from framecast.data.clips import ClipData, ClipSpec, Sample
from framecast.errors import (
    DataError,
    OptionError,
    OutOfMemoryError,
    PeerLostError,
    WorkerLostError,
    is_out_of_memory,
    is_worker_lost,
)
from framecast.models.forecaster import Forecaster
from framecast.registry import Training, resolve
from framecast.training.averaging import AveragedWeights
from framecast.training.callbacks import CheckedCheckpoints, Checkpointer, CsvLog, best_score, newest_checkpoint
from framecast.training.distributed import is_first_process, launched_shape, meet_peers, peer_is_lost
from framecast.training.nonfinite import NonFiniteGuard
from framecast.training.options import TrainingOptions
from framecast.training.order import EveryClipOnce, ShuffledBatches, weights_by_content
from framecast.training.progress import Progress
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask
from framecast.weights.saving import fit_tensors, read_weights


def memory_advice(error: BaseException, model: Forecaster, clips: ClipSpec, options: TrainingOptions) -> str:
    """Return what was tried and what needs less memory, most effective first."""
    name = model.spec.name if model.spec else type(model).__name__
    shape = f"{clips.context + clips.horizon}x{clips.channels}x{clips.height}x{clips.width}"
    tried = (
        f"{name} with batch {options.batch}, clips of {shape} (time, channels, height, width), "
        f"accumulate {options.accumulate}, recompute {options.recompute}, precision {options.precision}"
    )
    advice = []
    if options.batch > 1:
        # An odd batch can only be cut into single clips without changing how many a step has.
        parts = 2 if options.batch % 2 == 0 else options.batch
        advice.append(
            f"batch={options.batch // parts} and accumulate={options.accumulate * parts} in a new run "
            "(as many clips for each step)"
        )
    if options.recompute == "none":
        advice.append("recompute='lean' (recurrent models; slower, the same gradients), also with resume=True")
    if options.precision == "32-true" and options.accelerator != "cpu":
        advice.append("precision='bf16-mixed' on a GPU")
    advice.append("smaller frames, a shorter clip or fewer hidden channels")
    size = " ".join(map(str, (clips.context + clips.horizon, clips.channels, clips.height, clips.width)))
    advice.append(f"framecast cost {name} --shape {size} --context {clips.context} --fit 8GB finds what fits")
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return f"out of memory: tried {tried}. What needs less: {'; '.join(advice)}. ({reason})"


log = logging.getLogger(__name__)

QUIET = (
    ".*does not have many workers.*",
    ".*dataloader is not resumable.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    # What is logged has been summed over the processes already.
    ".*sync_dist=True.*",
    # It has been said in clearer words.
    ".*Total length of `DataLoader`.*",
)


class Run(NamedTuple):
    """A training that has ended.

    Attributes:
        path: the run folder.
        batches: batches it has learned from.
        finished: whether it did all that were asked for, or stopped early.
        validation_mse: squared error of the kept weights (summed over a frame), or None.
        test_clips: clips that are left to evaluate it on.
    """

    path: Path
    batches: int
    finished: bool
    validation_mse: float | None
    test_clips: int = 0

    def _repr_html_(self) -> str:
        return str(resolve("framecast.api.show:show")(self).html)


def run_training(
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
        options: of the training.
        recipe: optimiser, schedule, loss and sampling, the options already in it.
        start: the configuration of a new run, whose folder is made once all else is found right; or the training
            state, or the initial weights, to continue from.

    Raises:
        DataError: the data set is too small for one batch, the batch does not divide among the processes, or there
            are fewer clips to validate with than processes.
        RunExistsError: the folder of a new run is not empty.
        RunFolderError: another process trains into the folder.
        UnknownNameError: a name in the recipe that does not exist.
        WeightsError: the initial weights to continue from are damaged.
        NonFiniteError: a loss or gradient is NaN or infinite; the weights are those before it.
        OutOfMemoryError: it does not fit into memory.
        PeerLostError: another process of this training has ended before its time.
        WorkerLostError: a process that prepares clips has.
        KeyboardInterrupt: Ctrl-C was pressed or SIGTERM received; the state is saved.
    """
    _check_splits(data, options)
    probe = ShuffledBatches(len(data["train"]), options.batch, 1, options.seed)
    total, interval = options.total_batches(probe.per_epoch), options.validation_interval(probe.per_epoch)
    with arithmetic(options.threads, options.tf32), _quiet():
        trainer = _trainer(options, recipe, folder, interval)
        if trainer.world_size > 1:
            meet_peers()
        device = trainer.strategy.root_device
        # Lightning does so after it has restored weights, which would round those of 64-true to float32.
        trainer.precision_plugin.convert_module(model)
        arrange(model, options.layout, device)
        example = data["train"][0]
        way = choose_way(
            options.compile, model, device, steps=total // options.accumulate,
            obstacle=_obstacle_to_capture(options, trainer, example),
        )  # fmt: skip
        task = ForecastTask(
            model, data.spec, recipe, seed=options.seed, per_epoch=probe.per_epoch, total=total,
            accumulate=options.accumulate, recompute=options.recompute, augment=options.augment, select=options.select,
            way=way,
            example=(example, options.batch // trainer.world_size),
        )  # fmt: skip
        batches = ShuffledBatches(
            len(data["train"]), options.batch, total, options.seed, trainer.global_rank, trainer.world_size
        )
        if options.draw == "rain":
            batches.weights = weights_by_content(data["train"])
        guard = NonFiniteGuard(options.on_nonfinite, options.skip_limit, options.accumulate)
        checkpointer = Checkpointer(
            folder,
            batches,
            guard,
            save_every=options.save_every or interval,
            validate_every=interval,
            accumulate=options.accumulate,
            minutes=options.minutes,
            average=AveragedWeights(options.ema) if options.ema else None,
        )
        trainer.callbacks += [  # type: ignore[attr-defined]
            guard,
            CsvLog(folder, options.log_every, probe.per_epoch, options.select),
            checkpointer,
        ]
        train, validation = training_loaders(data, options, batches, pin=device.type == "cuda")
        with _exclusively(start, folder, trainer.is_global_zero), on_its_way(model, way):
            if isinstance(start, Path) and _is_finished(start, folder, total, len(data["validation"])):
                log.warning("%s is finished: there is nothing to go on with", folder.path)
                return Run(folder.path, total, True, best_score(folder), len(data["test"]))
            failed = None
            try:
                state = _begin(start, folder, data, model, trainer.is_global_zero)
                trainer.fit(task, train, validation, ckpt_path=state)
                if len(validation) and checkpointer.validated != checkpointer.done and not checkpointer.interrupted:
                    trainer.validate(task, validation, verbose=False)
            except SystemExit:
                # Lightning turns a KeyboardInterrupt, which a second Ctrl-C raises, into an exit with code 1.
                if checkpointer.broken_off:
                    raise KeyboardInterrupt(_broken_off(folder)) from None
                raise
            except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
                failed = _explained(error, model, data, options, folder)
                if failed is None:
                    raise
            # Raised here and not above, so that nothing holds the memory of the step that failed.
            if failed is not None:
                raise failed
            if trainer.is_global_zero and not (math.isfinite(checkpointer.best) and folder.weights.exists()):
                if checkpointer.average:
                    checkpointer.average.swap(task)
                checkpointer.keep_weights(task, None)
            score = trainer.strategy.broadcast(best_score(folder) if trainer.is_global_zero else None)
    if checkpointer.interrupted:
        raise KeyboardInterrupt(f"stopped after batch {checkpointer.done} of {total}: {_go_on(folder)}")
    return Run(folder.path, checkpointer.done, checkpointer.done == total, score, len(data["test"]))


def _obstacle_to_capture(options: TrainingOptions, trainer: lightning.Trainer, example: Sample) -> str:
    """Return why the kernels of this training's steps cannot be recorded, or ""."""
    if options.recompute != "none":
        return "what is recomputed in backward cannot be recorded"
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        return f"strategy {options.strategy} moves weights between steps"
    if "valid" in example and trainer.world_size > 1:
        return "processes count together what is masked, which cannot be recorded"
    return ""


def _is_finished(state: Path, folder: RunFolder, total: int, validation: int) -> bool:
    """Return whether a run has learned from all its batches and has kept its weights."""
    if state == folder.initial or not folder.weights.is_file():
        return False
    saved = CheckedCheckpoints().load_checkpoint(state)["framecast"]
    return bool(saved["batches"] == total and (saved["validated"] == total or not validation))


def _go_on(folder: RunFolder) -> str:
    return f"go on with resume=True, out={str(folder.path)!r}"


def _broken_off(folder: RunFolder) -> str:
    """Say what there is of a training that was stopped within a batch."""
    saved, _ = newest_checkpoint(folder)
    kept = "nothing had been saved, so it begins anew" if saved == folder.initial else f"{saved} is kept"
    return f"stopped at once; {kept}: {_go_on(folder)}"


def _check_splits(data: ClipData, options: TrainingOptions) -> None:
    """Say before the training which of the splits have no clip.

    Raises:
        OptionError: it is to stop by a score of which there is none.
    """
    mend = "raise their part in shares, lower context, horizon or stride, or use longer recordings"
    if not len(data["validation"]) and options.patience:
        raise OptionError(f"patience is {options.patience} and there is no clip to validate with: {mend}")
    if not is_first_process():
        return
    if not len(data["validation"]):
        log.warning("there is no clip to validate with, so the last weights are kept, whatever they score: %s", mend)
    if not len(data["test"]):
        log.warning("there is no clip to test with, so the run can be evaluated on other data only: %s", mend)


def _exclusively(start: Mapping[str, Any] | Path, folder: RunFolder, first: bool) -> AbstractContextManager[None]:
    """Hold the folder, by the first process for all of this training; a folder of something else stays as it is."""
    if not first:
        return nullcontext()
    if isinstance(start, Mapping):
        folder.check_free()
    return folder.locked()


def _begin(
    start: Mapping[str, Any] | Path, folder: RunFolder, data: ClipData, model: Forecaster, first: bool
) -> Path | None:
    """Make the folder of a new run, or clean that of an old one, and return the training state to continue from."""
    if isinstance(start, Mapping):
        if first:
            folder.start(dict(start), data.fingerprint(), model)
        return None
    if first:
        folder.remove_leftovers()
    if start != folder.initial:
        return start
    fit_tensors(model, read_weights(start)[1], str(start))
    return None


def _explained(
    error: BaseException, model: Forecaster, data: ClipData, options: TrainingOptions, folder: RunFolder
) -> Exception | None:
    """Return the error to raise instead of one that a user cannot read, or None."""
    if is_out_of_memory(error):
        return OutOfMemoryError(memory_advice(error, model, data.spec, options))
    if peer_is_lost(error):
        return PeerLostError(f"another process of this training has ended, and says why: {_go_on(folder)}")
    if options.workers and is_worker_lost(error):
        return WorkerLostError(
            f"a process that prepares clips has ended, killed or out of memory: {_go_on(folder)}, perhaps with fewer "
            f"than workers={options.workers}"
        )
    return None


def _trainer(options: TrainingOptions, recipe: Training, folder: RunFolder, interval: int) -> lightning.Trainer:
    callbacks: list[lightning.Callback] = []
    if options.patience:
        # An undefined score is no better one; that a loss is not finite is looked for elsewhere.
        callbacks.append(EarlyStopping("validation_cost", patience=options.patience, check_finite=False))
    if options.progress:
        callbacks.append(Progress())
    settings: dict[str, Any] = {
        "accelerator": options.accelerator,
        **_processes(options),
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


def _processes(options: TrainingOptions) -> dict[str, Any]:
    """Return how many processes on how many machines: as torchrun started them, if it did."""
    launched = launched_shape()
    if launched is None:
        return {"devices": options.devices}
    local, machines = launched
    return {"devices": local if options.devices == "auto" else options.devices, "num_nodes": machines}


def training_loaders(
    data: ClipData, options: TrainingOptions, batches: ShuffledBatches, pin: bool
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return what hands out the clips to learn from, in the order of ``batches``, and those to validate with.

    Raises:
        DataError: there are fewer clips to validate with than processes.
    """
    common: dict[str, Any] = {
        "num_workers": options.workers,
        "pin_memory": pin,
        "persistent_workers": options.workers > 0,
        "worker_init_fn": _leave_stopping_to_the_trainer,
    }
    train = DataLoader(
        data["train"], batch_sampler=batches, generator=torch.Generator().manual_seed(options.seed), **common
    )
    clips = data["validation"]
    if options.validate_clips and options.validate_clips < len(clips):
        clips = Subset(clips, range(options.validate_clips))  # type: ignore[assignment]
    if 0 < len(clips) < batches.ranks:
        raise DataError(
            f"there are {len(clips)} clips to validate with and {batches.ranks} processes, one of which would have "
            "none: use more validation clips or fewer processes"
        )
    validation_share = EveryClipOnce(len(clips), batches.rank, batches.ranks)
    share = max(1, options.batch // batches.ranks)
    validation = DataLoader(
        clips,
        batch_size=share,
        sampler=validation_share,
        generator=torch.Generator().manual_seed(options.seed),
        **common,
    )
    return train, validation


def _leave_stopping_to_the_trainer(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a process that prepares clips.

    Terminals and schedulers send them to all processes of a group; the trainer, which saves first, ends these itself.
    """
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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
