"""What a user calls: train, evaluate, predict, report and what they need, each one function."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from framecast.analysis.evaluation import Evaluation, Protocol, evaluate_clips
from framecast.datasets.catalogue import open_data
from framecast.datasets.clip import SPLITS, ClipData, Split, spec_from_dict
from framecast.datasets.past import read_past
from framecast.datasets.scaling import MinMax
from framecast.errors import DataError, RunFolderError, check_count
from framecast.models.forecaster import Forecaster
from framecast.registry import create_model, model_entry, paper_name
from framecast.reporting.forecast import Forecast, write_forecast
from framecast.reporting.page import write_report
from framecast.reporting.tables import score_csv
from framecast.storage import write_atomically
from framecast.training.options import TrainingOptions, resumed_options, training_options
from framecast.training.run_folder import RunFolder
from framecast.weights.fitting import fit_tensors
from framecast.weights.saving import load_weights, read_weights

if TYPE_CHECKING:
    from framecast.training.fitting import Run

log = logging.getLogger(__name__)


def data(name: str | Path, **options: Any) -> ClipData:
    """Open a data set by name, or frames of your own by path.

    Args:
        name: a name of ``framecast.registry.DATASETS``, such as "moving-mnist"; or the path of a file or folder of
            frames, read as ``framecast.datasets.own`` describes.
        options: the data set's own options, see its module or ``framecast data info NAME``.

    Raises:
        UnknownNameError: no such data set and no such path, or no such option of it.
        DatasetNotFoundError: its files are missing.
        DataError: its files or options are not what they should be.
    """
    return open_data(name, **options)


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
        resume: continue the run in ``out`` by its own configuration; model and data are then left out.
        options: see ``framecast.training.options.TrainingOptions``.

    Returns:
        The run: its folder, the batches done, the validation error of its weights.

    Raises:
        UnknownNameError: a name or option that does not exist.
        RunFolderError: the folder is not empty, or, with ``resume``, holds no run.
        DataError: the data cannot be used, or is not the data the run was started with.
        WeightsError: ``init_from`` cannot be read or does not fit.
        KeyboardInterrupt: Ctrl-C was pressed; the state is saved.
    """
    from framecast.training.fitting import fit

    folder, chosen = RunFolder(out), training_options(options)
    if resume:
        return _resume(folder, model, data, chosen)
    if model is None or data is None:
        raise ValueError("train needs a model and a data set, or resume=True to continue the run in out")
    torch.manual_seed(chosen.seed)
    forecaster, clips = _model(model, model_options, chosen), _data(data, data_options)
    spec = forecaster.spec
    if spec is None:
        raise ValueError("this model has no name: register it and make it with create_model, so the run can be loaded")
    _check_fit(forecaster, clips)
    if chosen.init_from:
        _init_from(forecaster, Path(chosen.init_from))
    recipe = chosen.recipe(model_entry(spec.name).training)
    config = {
        "model": spec.name,
        "model_options": spec.options,
        "data": clips.name,
        "data_options": _plain(clips.options),
        "training": {**asdict(chosen), **asdict(recipe), "clip_norm": recipe.clip_norm or 0.0},
    }
    return fit(forecaster, clips, folder, chosen, recipe, config)


def _resume(folder: RunFolder, model: Any, data_given: Any, chosen: Any) -> Run:
    from framecast.training.callbacks import newest_checkpoint
    from framecast.training.fitting import fit

    if model is not None or data_given is not None:
        raise ValueError("resume=True continues the run by its own configuration: leave out model and data")
    config = folder.read_config()
    options = resumed_options(config["training"], chosen)
    clips = data(config["data"], **config["data_options"])
    found, expected = clips.fingerprint(), folder.read_fingerprint()
    if found != expected:
        raise DataError(
            f"the data has fingerprint {found} and {folder.path} was started with {expected}: restore the data, or "
            "start another run with init_from"
        )
    checkpoint, problems = newest_checkpoint(folder)
    for problem in problems:
        log.warning("%s; falling back to %s", problem, checkpoint)
    forecaster = create_model(config["model"], **config["model_options"])
    return fit(forecaster, clips, folder, options, options.recipe(model_entry(config["model"]).training), checkpoint)


def _model(model: str | Forecaster, options: Mapping[str, Any] | None, training: TrainingOptions) -> Forecaster:
    if isinstance(model, str):
        entry = model_entry(model)
        chosen = dict(options or {})
        if entry.cell and entry.cell.penalty_option and not training.recipe(entry.training).penalty_weight:
            # A penalty that weighs nothing needs no weights of its own.
            chosen.setdefault(entry.cell.penalty_option, False)
        return create_model(model, **chosen)
    if options:
        raise ValueError("model_options belong to a model given by name; this one is made already")
    return model


def _data(given: str | Path | ClipData, options: Mapping[str, Any] | None) -> ClipData:
    if isinstance(given, str | Path):
        return data(given, **(options or {}))
    if options:
        raise ValueError("data_options belong to a data set given by name; this one is open already")
    return given


def _check_fit(model: Forecaster, clips: ClipData) -> None:
    if model.in_channels != clips.spec.channels:
        raise ValueError(
            f"the model takes {model.in_channels} channels and {clips.name} has {clips.spec.channels}: create it with "
            f"in_channels={clips.spec.channels}"
        )


def _init_from(model: Forecaster, path: Path) -> None:
    file = _weights_file(path)
    fit_tensors(model, read_weights(file)[1], str(file))


def _weights_file(path: Path) -> Path:
    """Return the weights file of a run folder, or the path itself where it is a file.

    Raises:
        RunFolderError: a folder without weights, or nothing at all.
    """
    if path.is_dir():
        if not RunFolder(path).weights.is_file():
            raise RunFolderError(f"{path} holds no weights.safetensors: train it first, or give another run folder")
        return RunFolder(path).weights
    if not path.is_file():
        raise RunFolderError(f"there is no run folder or weights file {path}: check the path")
    return path


def load(run: str | Path) -> Forecaster:
    """Load a trained forecaster, in evaluation mode, from a run folder or a weights file.

    Raises:
        RunFolderError: there are no weights.
        WeightsError: they are damaged or do not fit the model they name.
    """
    return load_weights(_weights_file(Path(run)))[0]


def evaluate(
    run: str | Path,
    *,
    data: str | Path | ClipData | None = None,
    data_options: Mapping[str, Any] | None = None,
    split: Split = "test",
    protocol: Protocol = "forecast",
    batch: int = 16,
    limit: int | None = None,
    scores: list[str] | None = None,
    score_options: dict[str, Any] | None = None,
    baselines: list[str] | None = None,
    bootstrap: int = 1000,
    examples: int = 8,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Score a trained model on a split of its data set, beside the baselines.

    Args:
        run: a run folder or weights file.
        data: another data set than the one it was trained on, by name or opened.
        data_options: options of the data set, in place of those it was trained with.
        split: "train", "validation" or "test".
        protocol: "forecast", or "as-published" to add the published average over warm-up frames.
        batch: clips forecast at a time.
        limit: only the first so many clips.
        scores: families of scores, "image" or "rain"; None takes all that suit the data's unit.
        score_options: options of families, such as {"thresholds": [0.5, 2, 5], "scales": [5, 11]} of "rain".
        baselines: forecasts to compare with; None takes all that suit the unit and are installed.
        bootstrap: replicates for 95 % confidence intervals over clips; 0 for none.
        examples: clips to keep as pictures for the report.
        out: folder for results.json, results.csv and examples.npz; None writes into the run folder.
        device: "auto", "cpu", "cuda", ...
        workers: processes that prepare clips.
        threads: threads of the processor; None leaves torch's choice.
        progress: show a progress bar.

    Returns:
        What results.json holds: scores per lead time and of all together, with counts and intervals, of the model
        and each baseline; None where a score is undefined.

    Raises:
        RunFolderError: there are no weights, or weights alone and no data.
        DataError: there is no such split, or it is empty.
        UnknownNameError: no such protocol, score, option of it, or baseline.
        MissingExtraError: a baseline that was asked for needs a package that is not installed.
    """
    check_count("batch", batch)
    check_count("examples", examples, least=0)
    if limit is not None:
        check_count("limit", limit)
    if threads:
        torch.set_num_threads(threads)
    file = _weights_file(Path(run))
    model, header = load_weights(file)
    clips = _as_trained(_evaluation_data(file.parent, data, data_options), header["clips"])
    _check_fit(model, clips)
    chosen = clips[split]
    count = min(len(chosen), limit or len(chosen))
    if not count:
        raise DataError(f"the {split} split of {clips.name} is empty: choose one of {', '.join(SPLITS)}")
    subset = torch.utils.data.Subset(chosen, range(count))
    loader: DataLoader[Any] = DataLoader(subset, batch, num_workers=workers)
    where = _device(device)
    model.to(where)
    name = paper_name(header["model"])
    evaluation = Evaluation(
        model, name, clips.spec, protocol, examples, scores=scores, score_options=score_options, baselines=baselines,
        bootstrap=bootstrap,
    )  # fmt: skip
    evaluate_clips(evaluation, loader, len(loader), lambda tensor: tensor.to(where), progress)
    results = {
        "run": file.parent.name,
        "model": name,
        "model_options": header["options"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": clips.name,
        "data_options": _plain(clips.options),
        "split": split,
        "fingerprint": clips.fingerprint(),
        "clip_spec": clips.spec.to_dict(),
        **evaluation.results(),
    }
    folder = Path(out) if out is not None else file.parent
    write_atomically(folder / "results.json", json.dumps(results, indent=1).encode())
    write_atomically(folder / "results.csv", score_csv(results).encode())
    write_atomically(folder / "examples.npz", _packed(evaluation.shown()))
    return results


def _evaluation_data(folder: Path, given: str | Path | ClipData | None, options: Mapping[str, Any] | None) -> ClipData:
    if given is not None:
        return _data(given, options)
    if not (folder / "config.yaml").is_file():
        raise RunFolderError(f"{folder} has no config.yaml that names the data: give data=...")
    config = RunFolder(folder).read_config()
    return data(config["data"], **(config["data_options"] | dict(options or {})))


def _as_trained(clips: ClipData, trained: Mapping[str, Any] | None) -> ClipData:
    """Return clips under the scaling the model was trained with, whatever theirs would be.

    Raises:
        DataError: they are in another unit.
    """
    if trained is None:
        return clips
    spec = spec_from_dict(dict(trained))
    if clips.spec.unit != spec.unit:
        raise DataError(f"{clips.name} is in {clips.spec.unit} and the model was trained on {spec.unit}: convert it")
    return clips.scaled_by(spec.scaling)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return (
        torch.accelerator.current_accelerator() or torch.device("cpu")
        if torch.accelerator.is_available()
        else (torch.device("cpu"))
    )


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make options fit for YAML: paths as text, tuples as lists."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def predict(
    run: str | Path,
    frames: str | Path | NDArray[Any] | Tensor,
    *,
    horizon: int | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Forecast the frames that follow.

    Args:
        run: a run folder or weights file.
        frames: the past, an array or the path of an .npy, .npz or .gif file, a folder of PNG files, or a folder of
            radar files (KNMI, ODIM, RADOLAN), of which the last ones at the model's interval are taken; one clip
            (T, H, W) or (T, C, H, W), or many (N, T, H, W) or (N, T, C, H, W). Whole numbers of 8 bits are pictures
            and divided by 255 where the model was trained on intensities in [0, 1]. NaN, in physical units, is no
            data: the model takes it as 0, and where the whole past is NaN, so is the forecast.
        horizon: frames to forecast; None takes the horizon it was trained with.
        out: a folder for forecast.npy, forecast.gif and, where the times are known, forecast.nc.
        device: "auto", "cpu", "cuda", ...
        threads: threads of the processor; None leaves torch's choice.

    Returns:
        The forecast in physical units, (horizon, C, H, W) for one clip, (N, horizon, C, H, W) for many.

    Raises:
        RunFolderError: there are no weights.
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, lie outside the range the model knows, have other axes or gaps in time, or
            hold NaN where the model was trained on pictures.
        ValueError: ``horizon`` is below 1, or the frames are too small or too few for the model.
    """
    if threads:
        torch.set_num_threads(threads)
    model, header = load_weights(_weights_file(Path(run)))
    spec = spec_from_dict(header["clips"]) if header["clips"] else None
    past = read_past(frames, model.in_channels, spec)
    if past.note:
        log.warning(past.note)
    steps = horizon if horizon is not None else (spec.horizon if spec else 1)
    where = _device(device)
    model.to(where)
    with torch.inference_mode():
        numbers = torch.cat([model(clip[None].to(where), steps).float().cpu() for clip in past.frames])
    unscale = spec.scaling.unscale if spec else torch.nn.Identity()
    result = unscale(numbers)
    if past.valid is not None:
        # Where the whole past has no data, neither has the forecast.
        result = result.where(past.valid.any(1, keepdim=True), torch.nan)
    if out is not None:
        seen = unscale(past.frames)
        before = seen if past.valid is None else seen.where(past.valid, torch.nan)
        times = None
        if past.times is not None and spec is not None and spec.interval:
            ahead = past.times[-1] + np.arange(1, steps + 1) * int(spec.interval)
            times = np.concatenate([past.times, ahead])
        unit, scaling = (spec.unit, spec.scaling) if spec else ("1", MinMax())
        write_forecast(Forecast(before.numpy(), result.numpy(), unit, scaling, times), Path(out))
    found: NDArray[np.float32] = result.numpy()
    return found if len(found) > 1 else found[0]


def report(results: str | Path | Sequence[str | Path], *, out: str | Path = "report.html") -> Path:
    """Write one HTML page of one or several result folders: table, curves, training, clips.

    Args:
        results: folders that ``evaluate`` wrote into.
        out: the page; it holds all it shows and opens from disk.

    Returns:
        The path of the page.

    Raises:
        RunFolderError: a folder holds no results.json.
    """
    folders = [results] if isinstance(results, str | Path) else list(results)
    return write_report([Path(folder) for folder in folders], Path(out))
