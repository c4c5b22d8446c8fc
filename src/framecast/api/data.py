"""Resolve the arguments of verbs: data by name or path, a model's weights, a device, options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framecast.data.catalogue import open_data
from framecast.data.clips import ClipData
from framecast.errors import DataError, OptionError, RunFolderError, RunNotFoundError
from framecast.models.forecaster import Forecaster
from framecast.training.run_folder import RunFolder
from framecast.untrusted import asked_by, reading
from framecast.weights.saving import load_weights, shipped_runs


def data(name: str | Path, **options: Any) -> ClipData:
    """Open a data set by name, or frames of your own by path.

    Args:
        name: a name of ``framecast.registry.DATASETS``, such as "moving-mnist"; or the path of a file or folder of
            frames, read as ``framecast.data.sets.own`` describes.
        options: the data set's own options, see its module or ``framecast data info NAME``.

    Raises:
        UnknownNameError: no such data set and no such path, or no such option of it.
        DatasetNotFoundError: its files are missing.
        DataError: its files or options are not what they should be.
    """
    return open_data(name, **options)


def load(run: str | Path) -> Forecaster:
    """Load a trained forecaster, in evaluation mode, from a run folder, a weights file, or by name.

    ``load("ms-lstm-moving-mnist")`` is the one that comes with the package.

    Raises:
        RunNotFoundError: there are no weights.
        WeightsError: they are damaged or do not fit the model they name.
    """
    return load_weights(weights_file(Path(run)))[0]


def resolve_data(source: str | Path | ClipData, options: Mapping[str, Any] | None) -> ClipData:
    """Return data that was given by name, by path or opened.

    Raises:
        ValueError: options for data that is open already.
    """
    if isinstance(source, str | Path):
        return data(source, **(options or {}))
    if options:
        raise OptionError("data_options belong to a data set given by name; this one is open already")
    return source


def run_data(folder: Path, data: str | Path | ClipData | None, options: Mapping[str, Any] | None) -> ClipData:
    """Return data that was given, or else what a run was trained on, with other options where some are given.

    Raises:
        RunNotFoundError: none was given, and the folder does not say what it was trained on.
        ValueError: options for data that is open already.
    """
    if data is not None:
        return resolve_data(data, options)
    if not (folder / "config.yaml").is_file():
        raise RunNotFoundError(f"{folder} has no config.yaml that names the data: give data=...")
    run = RunFolder(folder)
    config = run.read_config()
    with (
        reading(run.config, "names data that cannot be opened", "give data=", RunFolderError),
        asked_by(run.config),
    ):
        return open_data(config["data"], **(config["data_options"] | dict(options or {})))


def as_trained(clips: ClipData, model: Forecaster) -> ClipData:
    """Return clips under the scaling the model was trained with, whatever theirs would be.

    Raises:
        DataError: they are in another unit.
    """
    spec = model.clips
    if spec is None:
        return clips
    if clips.spec.unit != spec.unit:
        raise DataError(f"{clips.name} is in {clips.spec.unit} and the model was trained on {spec.unit}: convert it")
    return clips.scaled_by(spec.scaling)


def check_channels(model: Forecaster, clips: ClipData) -> None:
    """Raise ValueError where the model takes another number of channels than the clips have."""
    if model.in_channels != clips.spec.channels:
        raise OptionError(
            f"the model takes {model.in_channels} channels and {clips.name} has {clips.spec.channels}: create it with "
            f"in_channels={clips.spec.channels}"
        )


def weights_file(path: Path) -> Path:
    """Return the weights file of a run folder, the path itself where it is a file, or that of a shipped model.

    Raises:
        RunNotFoundError: a folder without weights, or nothing at all.
    """
    shipped = shipped_runs()
    if str(path) in shipped and not path.exists():
        path = shipped[str(path)]
    if path.is_dir():
        if not RunFolder(path).weights.is_file():
            raise RunNotFoundError(f"{path} holds no weights.safetensors: train it first, or give another run folder")
        return RunFolder(path).weights
    if not path.is_file():
        raise RunNotFoundError(
            f"there is no run folder or weights file {path}: check the path, or take a model that comes trained: "
            + ", ".join(shipped)
        )
    return path


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Make options fit for YAML: paths as text, tuples as lists."""
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
