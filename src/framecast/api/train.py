"""Train: a model and a data set become a run folder, which can be continued."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import yaml

from framecast.api.data import check_channels, plain_options, resolve_data, weights_file
from framecast.data.catalogue import open_data
from framecast.data.clips import ClipData, ClipSpec
from framecast.errors import DataError, OptionError, OutOfMemoryError, RunFolderError, WeightsError, is_out_of_memory
from framecast.models.forecaster import Forecaster, create_model, fitting_options
from framecast.models.members import check_members
from framecast.registry import Training, model_entry
from framecast.training.distributed import process_count
from framecast.training.options import TrainingOptions, resumed_options, training_options
from framecast.training.run_folder import RunFolder
from framecast.untrusted import asked_by, reading
from framecast.weights.saving import fit_tensors, read_weights

if TYPE_CHECKING:
    from framecast.training.loop import Run

log = logging.getLogger(__name__)


def train(
    model: str | Forecaster | None = None,
    data: str | Path | ClipData | None = None,
    *,
    out: str | Path,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    resume: bool = False,
    **options: Any,
) -> Run:
    """Train a model on a data set into a new run folder, or continue one.

    Args:
        model: a model's name, or a forecaster that ``create_model`` made.
        data: a data set's name, the path of frames of your own, or what ``framecast.data`` opened.
        out: the run folder; it is never overwritten.
        model_options: options of the model, where it is given by name.
        data_options: options of the data set, where it is given by name.
        resume: continue the run in ``out`` by its own configuration. With model and data, which must then be the same,
            it is started where there is none yet: one command for the first start and every restart.
        options: see ``framecast.training.options.TrainingOptions``.

    Returns:
        The run: its folder, the batches done, the validation error of its weights.

    Raises:
        UnknownNameError: a name or option that does not exist.
        RunExistsError: the folder is not empty.
        RunNotFoundError: with ``resume``, it holds no run.
        RunFolderError: its files are damaged, or another process trains into it.
        DataError: the data cannot be used, or is not the data the run was started with.
        WeightsError: ``init_from`` cannot be read or does not fit.
        NonFiniteError: a loss or gradient is NaN or infinite; the weights are those before it.
        OutOfMemoryError: the training does not fit into memory; the message says what needs less.
        PeerLostError: another process of this training has ended before its time.
        WorkerLostError: a process that prepares clips has.
        KeyboardInterrupt: Ctrl-C was pressed or SIGTERM received; the state is saved.
    """
    folder, training = RunFolder(out), training_options(options)
    if resume and model is None and data is None:
        return _resume(folder, training)
    if model is None or data is None:
        raise OptionError("train needs a model and a data set, or resume=True to continue the run in out")
    if isinstance(model, str):
        model_entry(model)  # a wrong name is told before the data is read
    clips = _data(data, data_options)
    torch.manual_seed(training.seed)
    forecaster = _model(model, model_options, training, clips.spec)
    spec = forecaster.spec
    if spec is None:
        raise OptionError("this model has no name: register it and make it with create_model, so the run can be loaded")
    check_channels(forecaster, clips)
    if training.init_from:
        _init_from(forecaster, clips, Path(training.init_from))
    check_members(forecaster, training.members)
    forecaster.clips = clips.spec
    recipe = training.recipe(forecaster.recipe())
    config = {
        "model": spec.name,
        "model_options": plain_options(spec.options),
        "data": clips.name,
        "data_options": plain_options(clips.options),
        "training": {
            **asdict(training),
            **asdict(recipe),
            "clip_norm": recipe.clip_norm or 0.0,
            "members": recipe.members if forecaster.noise else None,
        },
    }
    if resume and folder.config.is_file():
        _check_same(folder, config)
        return _resume(folder, training)
    return _run_training(forecaster, clips, folder, training, recipe, config)


def _run_training(
    model: Forecaster,
    clips: ClipData,
    folder: RunFolder,
    options: TrainingOptions,
    recipe: Training,
    start: Mapping[str, Any] | Path,
) -> Run:
    """Train, and where memory does not suffice, add what would have fitted."""
    from framecast.training.loop import run_training

    try:
        return run_training(model, clips, folder, options, recipe, start)
    except OutOfMemoryError as error:
        message = str(error)
    # Out of the handler, which holds all that the step that failed had made.
    return _out_of_memory(message, model, clips, options)


def _out_of_memory(message: str, model: Forecaster, clips: ClipData, options: TrainingOptions) -> NoReturn:
    """Raise the error; only processors' memory is counted, as nobody has tried the others'."""
    if model.spec is not None and (options.accelerator == "cpu" or not torch.accelerator.is_available()):
        from framecast.cost.fit import what_fits

        spec = clips.spec
        fits = what_fits(
            model.spec.name, (spec.length, spec.channels, spec.height, spec.width), spec.context, options.batch,
            options.recompute, processes=process_count(), options=model.spec.options,
        )  # fmt: skip
        message = f"{message} What fits: {fits}." if fits else message
    raise OutOfMemoryError(message)


def _check_same(folder: RunFolder, options: Mapping[str, Any]) -> None:
    """Refuse a model or data set that is not the one of the run in a folder."""
    saved = folder.read_config()
    for name in ("model", "model_options", "data", "data_options"):
        value = yaml.safe_load(yaml.safe_dump(options[name]))
        if value != saved[name]:
            raise OptionError(
                f"{folder.path} holds a run with {name} {saved[name]} and got {value}: leave out model and data to "
                "continue it, or choose another out="
            )


def _resume(folder: RunFolder, training: TrainingOptions) -> Run:
    from framecast.training.callbacks import newest_checkpoint

    config = folder.read_config()
    with reading(folder.config, "cannot be continued", "restore it", RunFolderError):
        training_options(config["training"])
        forecaster = create_model(config["model"], **config["model_options"])
        with asked_by(folder.config):
            clips = open_data(config["data"], **config["data_options"])
    options = resumed_options(config["training"], training)
    fingerprint, expected = clips.fingerprint(), folder.read_provenance()["fingerprint"]
    if fingerprint != expected:
        raise DataError(
            f"the data has fingerprint {fingerprint} and the run was started with {expected}, says "
            f"{folder.provenance}: restore what has changed, or start another run with init_from"
        )
    checkpoint, problems = newest_checkpoint(folder)
    for problem in problems:
        log.warning("%s; falling back to %s", problem, checkpoint)
    forecaster.clips = clips.spec
    return _run_training(forecaster, clips, folder, options, options.recipe(forecaster.recipe()), checkpoint)


def _model(
    model: str | Forecaster, options: Mapping[str, Any] | None, training: TrainingOptions, clips: ClipSpec
) -> Forecaster:
    if isinstance(model, str):
        shape = clips.length, clips.channels, clips.height, clips.width
        fitting = fitting_options(model, shape, clips.context, len(clips.covariates))
        model_options = options_in_training(model, {**fitting, **(options or {})}, training)
        try:
            return create_model(model, **model_options)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemoryError(
            f"out of memory: the weights of {model} with options {model_options} do not fit: use fewer hidden "
            "channels or layers"
        )
    if options:
        raise OptionError("model_options belong to a model given by name; this one is made already")
    return model


def options_in_training(model: str, options: Mapping[str, Any], training: TrainingOptions) -> dict[str, Any]:
    """Return a model's options as ``train`` makes it: a penalty that weighs nothing needs no weights of its own.

    Args:
        model: name of a model.
        options: given for it.
        training: how it is to be trained.

    Raises:
        UnknownNameError: no such model.
    """
    entry, result = model_entry(model), dict(options)
    if entry.cell and entry.cell.penalty_option and not training.recipe(entry.training).penalty_weight:
        result.setdefault(entry.cell.penalty_option, False)
    return result


def _data(data: str | Path | ClipData, options: Mapping[str, Any] | None) -> ClipData:
    try:
        return resolve_data(data, options)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    raise OutOfMemoryError(
        f"out of memory: the data {data} with options {dict(options or {})} does not fit: use smaller frames"
    )


def _init_from(model: Forecaster, clips: ClipData, path: Path) -> None:
    file = weights_file(path)
    header, tensors = read_weights(file)
    with reading(file, "says wrongly of which model it is", "give another", WeightsError):
        tensors = dict(model.with_room(tensors, header["options"]))
    fit_tensors(model, tensors, str(file))
    before, now = (header.get("clips") or {}).get("scaling"), clips.spec.scaling.to_dict()
    if before is not None and before != now:
        log.warning(
            "the weights of %s were trained under the scaling %s and this data has %s: the model begins with frames of "
            "another range", file, before, now,
        )  # fmt: skip
