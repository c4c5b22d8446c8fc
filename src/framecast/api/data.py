"""Resolve the arguments of verbs: data by name or path, a model's weights, a device, options."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from framecast.data.cache import cache_folder
from framecast.data.catalogue import OWN, open_data
from framecast.data.clips import ClipData, ClipSpec
from framecast.data.past import plain_array
from framecast.data.sources import ReadOptions
from framecast.errors import DataError, OptionError, RunFolderError, RunNotFoundError, UnknownNameError
from framecast.files import write_atomically
from framecast.models.forecaster import Forecaster
from framecast.registry import paper_name, shipped_runs
from framecast.training.run_folder import RunFolder
from framecast.untrusted import asked_by, reading
from framecast.weights.saving import load_weights

if TYPE_CHECKING:
    from framecast.training.loop import Run

log = logging.getLogger(__name__)


def data(name: Any, **options: Any) -> ClipData:
    """Open a data set by name, or frames of your own by path or in memory.

    Args:
        name: a name of ``framecast.registry.DATASETS``, such as "moving-mnist"; or the path of a file or folder of
            frames, read as ``framecast.data.sets.own`` describes; or an array: of numpy, masked or not, of torch, or of
            xarray with its coordinates. An array is copied into the cache, so that a run can be resumed and evaluated.
        options: the data set's own options, see its module or ``framecast data info NAME``.

    Raises:
        UnknownNameError: no such data set and no such path, or no such option of it.
        DatasetNotFoundError: its files are missing.
        DataError: its files or options are not what they should be.
    """
    if not isinstance(name, str | Path):
        name = _kept_array(name)
    return open_data(name, **options)


def _kept_array(frames: Any) -> Path:
    """Write an array into the cache, under the hash of its content, and return the file.

    Raises:
        OptionError: it is no array.
        OSError: the cache cannot be written.
    """
    if isinstance(frames, list | tuple) and frames and all(isinstance(frame, str | Path) for frame in frames):
        raise OptionError(f"data is a list of {len(frames)} paths: give the folder that holds them")
    if type(frames).__module__.split(".")[0] == "xarray":
        dataset = frames if hasattr(frames, "data_vars") else frames.to_dataset(name=frames.name or "frames")
        content, suffix = bytes(dataset.to_netcdf(engine="h5netcdf")), ".nc"
    else:
        array = plain_array(frames)
        if array.dtype.kind not in "uifb" or array.ndim < 2:
            raise OptionError(f"data is {type(frames).__name__}: give a data set's name, a path, or an array of frames")
        saved = BytesIO()
        np.save(saved, array)
        content, suffix = saved.getvalue(), ".npy"
    path = cache_folder() / "arrays" / f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
    if not path.is_file():
        write_atomically(path, content)
    return path


class Trained(NamedTuple):
    """A forecaster and where it is from.

    Attributes:
        model: the forecaster, in evaluation mode.
        name: of the model, as tables have it.
        options: with which it was created.
        folder: of its run; of a model in memory, one that does not exist.
    """

    model: Forecaster
    name: str
    options: dict[str, Any]
    folder: Path

    @property
    def in_memory(self) -> bool:
        """Whether it has no file."""
        return self.folder == IN_MEMORY


IN_MEMORY = Path("in-memory")
"""The folder that a model in memory does not have; its name stands in results."""


def open_trained(run: Any) -> Trained:
    """Return a forecaster that was given as a run folder, a weights file, a name, what ``train`` returned, or itself.

    Raises:
        RunNotFoundError: there are no weights.
        WeightsError: they are damaged or do not fit the model they name.
        OptionError: it is something else.
    """
    if isinstance(run, Forecaster):
        spec = run.spec
        name = paper_name(spec.name) if spec else type(run).__name__
        # A copy, so that its mode, device and layout stay as they are.
        return Trained(copy.deepcopy(run).eval(), name, dict(spec.options) if spec else {}, IN_MEMORY)
    file = weights_file(_path_of(run))
    model, header = load_weights(file)
    return Trained(model, paper_name(header["model"]), header["options"], file.parent)


def _path_of(run: Any) -> Path:
    place = getattr(run, "path", run)
    if not isinstance(place, str | Path):
        raise OptionError(f"{type(run).__name__} is no run folder, weights file, result of train, or forecaster")
    return Path(place)


def load(run: str | Path | Run) -> Forecaster:
    """Load a trained forecaster, in evaluation mode, from a run folder, a weights file, or by name.

    ``load("ms-lstm-moving-mnist")`` is the one that comes with the package.

    Raises:
        RunNotFoundError: there are no weights.
        WeightsError: they are damaged or do not fit the model they name.
    """
    return open_trained(run).model


def resolve_data(source: Any, options: Mapping[str, Any] | None) -> ClipData:
    """Return data that was given by name, by path, as an array or opened.

    Raises:
        ValueError: options for data that is open already.
    """
    if not isinstance(source, ClipData):
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
    if folder == IN_MEMORY:
        raise OptionError("a model in memory knows no data: give data=")
    if not (folder / "config.yaml").is_file():
        raise RunNotFoundError(f"{folder} has no config.yaml that names the data: give data=...")
    run = RunFolder(folder)
    config = run.read_config()
    with (
        reading(run.config, "names data that cannot be opened", "give data=", RunFolderError),
        asked_by(run.config),
    ):
        return open_data(config["data"], **(config["data_options"] | dict(options or {})))


def read_options(folder: Path, options: Mapping[str, Any] | None) -> ReadOptions:
    """Return how frames are to be read: as those that a run was trained on, and as the options say.

    Args:
        folder: of the run; one without a configuration says nothing.
        options: those of ``framecast.data`` for frames of one's own that are about reading them.

    Raises:
        UnknownNameError: an option that is not about reading.
    """
    names = {field.name for field in fields(ReadOptions)} - {"channels", "skip_damaged", "assumed"}
    for option in options or ():
        if option not in {*names, "covariates"}:
            raise UnknownNameError("option of reading", option, names)
    before: Mapping[str, Any] = {}
    if (folder / "config.yaml").is_file():
        config = RunFolder(folder).read_config()
        before = config["data_options"] if config["data"] == OWN else {}
    values = {name: value for name, value in {**before, **(options or {})}.items() if name in names}
    size = values.get("size")
    if size is not None:
        values["size"] = (size, size) if isinstance(size, int) else tuple(size)
    assumed = frozenset(name for name in values if name not in (options or {}))
    return ReadOptions(**values, assumed=assumed)


def covariate_entries(folder: Path, options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return where covariates are: those that are given, and otherwise those of the training."""
    if options and options.get("covariates"):
        return dict(options["covariates"])
    if not (folder / "config.yaml").is_file():
        return {}
    return dict(RunFolder(folder).read_config()["data_options"].get("covariates") or {})


def past_of_clip(frames: Any, spec: ClipSpec | None) -> Any:
    """Return the past of a clip of a data set in physical units, NaN where there is no data; all else as it is.

    Raises:
        OptionError: it is a whole data set.
    """
    if isinstance(frames, ClipData):
        raise OptionError(
            "predict continues one clip, such as data['test'][0]; evaluate takes a whole data set, as data="
        )
    if not isinstance(frames, Mapping) or "frames" not in frames:
        return frames
    length = spec.context if spec else len(frames["frames"])
    past = frames["frames"][:length]
    values = spec.scaling.unscale(past) if spec else past
    return values if "valid" not in frames else values.where(frames["valid"][:length], torch.nan)


def as_trained(clips: ClipData, model: Forecaster) -> ClipData:
    """Return clips under the scaling the model was trained with, whatever theirs would be.

    Raises:
        DataError: they are in another unit.
    """
    spec = model.clips
    if spec is None:
        return clips
    facts = clips.spec
    if facts.unit != spec.unit:
        raise DataError(f"{clips.title} is in {facts.unit} and the model was trained on {spec.unit}: convert it")
    if facts.product and spec.product and facts.product != spec.product:
        raise DataError(
            f"{clips.title} is {facts.product} and the model was trained on {spec.product}: give that product"
        )
    place, expected = facts.georeference, spec.georeference
    difference = place.differs(expected) if place and expected else ""
    if place and expected and difference and not place.turned().differs(expected):
        log.warning("%s has its rows in the other order than in the training: they are turned", clips.title)
        clips = clips.turned()
    elif difference:
        log.warning("%s is elsewhere than what the model was trained on: %s", clips.title, difference)
    return clips.scaled_by(spec.scaling).with_covariates(spec.covariates)


def check_channels(model: Forecaster, clips: ClipData) -> None:
    """Raise ValueError where the model takes another number of channels than the clips have."""
    if model.in_channels != clips.spec.channels:
        grey = " or turn pictures and videos to grey with channels=1" if model.in_channels == 1 else ""
        raise OptionError(
            f"the model takes {model.in_channels} channels and the data has {clips.spec.channels}: create it with "
            f"in_channels={clips.spec.channels}{grey}"
        )
    if model.covariates != len(clips.spec.covariates):
        raise OptionError(
            f"the model takes {model.covariates} channels of covariates and the data has "
            f"{len(clips.spec.covariates)}: create it with covariates={len(clips.spec.covariates)}"
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
