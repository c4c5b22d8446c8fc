"""The registry: every name that exists, the facts that belong to it, and where it is built.

One line registers a cell, a data set, a score, a baseline or a file format. One entry in ``CELLS`` gives two models,
the plain column and the mirrored pyramid ``ms-<name>``; both then appear on the command line, in the tests and in the
docs. Functions are named as "module:function" and imported when they are first needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from framecast.errors import OptionError, UnknownNameError, check_finite


def resolve(target: str | Callable[..., Any]) -> Callable[..., Any]:
    """Import and return what "module:name" names; a function is returned as it is."""
    if callable(target):
        return target
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def canonical_name(name: str) -> str:
    """Return the spelling of a name in the tables: "MS_LSTM" is "ms-lstm"."""
    return name.lower().replace("_", "-")


CONDITION = "framecast.models.forecaster:condition"
"""The function whose options every model has."""


class ModelSpec(NamedTuple):
    """What it takes to create a model again: its name and the options it was created with."""

    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """Training defaults of a model; the paper's for every recurrent one.

    Attributes:
        optimizer: "adam" or "adamw".
        lr: learning rate (for a one-cycle schedule, its peak).
        weight_decay: of "adam" added to the gradient, of "adamw" decoupled and not on norms and biases.
        schedule: "constant", "one-cycle" or "warmup-cosine"; all follow steps.
        loss: name of the loss, see ``training/losses.py``.
        sampling: name of the sampling policy, see ``models/sampling.py``.
        penalty_weight: factor of the model's own penalty.
        clip_norm: largest norm of the gradient, or None.
        members: of an ensemble, in each step; for models with noise.
    """

    optimizer: str = "adam"
    lr: float = 3e-4
    weight_decay: float = 0.0
    schedule: str = "constant"
    loss: str = "l1+l2"
    sampling: str = "scheduled"
    penalty_weight: float = 0.0
    clip_norm: float | None = None
    members: int = 4


@dataclass(frozen=True)
class CellEntry:
    """A recurrent cell.

    Attributes:
        column: "module:function" that builds the cells of a stack, ``(channels, depth, *, **options)``.
        title: the name as the paper writes it.
        paper: authors, venue, year.
        doi: identifier of the paper.
        training: training defaults.
        penalty_option: the option that, when False, builds the cell without its penalty, or "".
        capturable: whether its kernels can be recorded as a CUDA graph: nothing in it waits for the device, depends on
            values, or is made on the processor.
    """

    column: str | Callable[..., Any]
    title: str
    paper: str
    doi: str
    training: Training = field(default_factory=Training)
    penalty_option: str = ""
    capturable: bool = True


@dataclass(frozen=True)
class ModelEntry:
    """A forecaster: a builder and the facts of its name (see ``CellEntry`` and ``Training``).

    Attributes:
        cell: of a recurrent model, its cell, and ``cell_name`` the name of that.
        pyramid: whether its cells stand in the mirrored pyramid.
        capturable: see ``CellEntry``.
    """

    name: str
    build: str | Callable[..., Any]
    title: str
    paper: str
    doi: str
    training: Training = field(default_factory=Training)
    cell: CellEntry | None = None
    cell_name: str = ""
    pyramid: bool = False
    capturable: bool = True

    def builder(self) -> Callable[..., Any]:
        """Import and return the function that builds the model from its options."""
        build = resolve(self.build)
        return partial(build, resolve(self.cell.column)) if self.cell else build

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the options of the model by name, those of its cell and those that every model has included."""
        functions = [self.builder(), *([resolve(self.cell.column)] if self.cell else []), resolve(CONDITION)]
        parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
        return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "extra"}


@dataclass(frozen=True)
class BaselineEntry:
    """A forecast that needs no training.

    Attributes:
        build: "module:class" of a ``framecast.models.baselines.Baseline``.
        unit: the unit it is meant for, or "" for all.
        package: what must be installed for it to be taken without being asked for.
        on_request: whether it is never taken without being asked for, as it takes long.
    """

    build: str | Callable[..., Any]
    unit: str = ""
    package: str = ""
    on_request: bool = False

    def suits(self, unit: str) -> bool:
        """Return whether it is computed for data of that unit without being asked for."""
        installed = not self.package or importlib.util.find_spec(self.package) is not None
        return installed and self.unit in ("", unit) and not self.on_request


@dataclass(frozen=True)
class FileFormat:
    """A file format, recognised by the file's name.

    Attributes:
        pattern: of a file's name in lower case, as ``fnmatch`` takes it; of several that fit, the first one counts.
        open: "module:function" ``(path, options)`` that returns the source of a file of many frames, or "".
        read: "module:function" ``(path)`` that returns the ``data.sources.Frame`` of a file of one frame, or "".
        header: "module:function" ``(path)`` that returns the ``data.sources.FrameHeader`` of such a file without its
            values; "" where all of it must be read.
    """

    pattern: str
    open: str | Callable[..., Any] = ""
    read: str | Callable[..., Any] = ""
    header: str | Callable[..., Any] = ""


CELLS: dict[str, CellEntry] = {
    "convlstm": CellEntry(
        "framecast.cells.convlstm:column",
        "ConvLSTM",
        "Shi et al., NeurIPS 2015",
        "10.48550/arXiv.1506.04214",
    ),
    "trajgru": CellEntry(
        "framecast.cells.trajgru:column",
        "TrajGRU",
        "Shi et al., NeurIPS 2017",
        "10.48550/arXiv.1706.03458",
    ),
    "predrnn": CellEntry(
        "framecast.cells.predrnn:column",
        "PredRNN",
        "Wang et al., IEEE TPAMI 2023",
        "10.1109/TPAMI.2022.3165153",
    ),
    "predrnn-v2": CellEntry(
        "framecast.cells.predrnn:column_v2",
        "PredRNN-V2",
        "Wang et al., IEEE TPAMI 2023",
        "10.1109/TPAMI.2022.3165153",
        Training(sampling="reverse-scheduled", penalty_weight=0.01),
        penalty_option="decoupling",
    ),
    "predrnn++": CellEntry(
        "framecast.cells.predrnnpp:column",
        "PredRNN++",
        "Wang et al., ICML 2018",
        "10.48550/arXiv.1804.06300",
    ),
    "mim": CellEntry(
        "framecast.cells.mim:column",
        "MIM",
        "Wang et al., CVPR 2019",
        "10.48550/arXiv.1811.07490",
    ),
    "motionrnn": CellEntry(
        "framecast.cells.motionrnn:column",
        "MotionRNN",
        "Wu et al., CVPR 2021",
        "10.48550/arXiv.2103.02243",
    ),
    "mk-lstm": CellEntry(
        "framecast.cells.mk_lstm:column",
        "MK-LSTM",
        "Ma et al., MS-LSTM, Applied Soft Computing 2023",
        "10.1016/j.asoc.2023.110731",
    ),
    "preciplstm": CellEntry(
        "framecast.cells.preciplstm:column",
        "PrecipLSTM",
        "Ma, Zhang and Liu, IEEE TGRS 2022",
        "10.1109/TGRS.2022.3198222",
    ),
    "cms-lstm": CellEntry(
        "framecast.cells.cms_lstm:column",
        "CMS-LSTM",
        "Chai et al., ICME 2022",
        "10.48550/arXiv.2102.03586",
    ),
    "modernn": CellEntry(
        "framecast.cells.modernn:column",
        "MoDeRNN",
        "Chai et al., ICASSP 2022",
        "10.48550/arXiv.2110.12978",
    ),
}

ONE_SHOT: dict[str, ModelEntry] = {
    "earthformer": ModelEntry(
        "earthformer",
        "framecast.models.earthformer.model:build_earthformer",
        "Earthformer",
        "Gao et al., NeurIPS 2022",
        "10.48550/arXiv.2207.05833",
        training=Training(
            optimizer="adamw",
            lr=1e-3,
            weight_decay=1e-5,
            schedule="warmup-cosine",
            loss="mse",
            sampling="none",
            clip_norm=1.0,
        ),
    ),
    "simvp": ModelEntry(
        "simvp",
        "framecast.models.simvp:build_simvp",
        "SimVP",
        "Gao et al., CVPR 2022",
        "10.1109/CVPR52688.2022.00317",
        training=Training(lr=1e-3, schedule="one-cycle", loss="mse", sampling="none"),
    ),
    "simvp-v2": ModelEntry(
        "simvp-v2",
        "framecast.models.simvp:build_simvp_v2",
        "SimVPv2",
        "Tan et al., 2022",
        "10.48550/arXiv.2211.12509",
        training=Training(lr=1e-3, schedule="one-cycle", loss="mse", sampling="none"),
    ),
}

ALIASES = {"sms-lstm": "ms-convlstm", "tms-lstm": "mk-lstm", "ms-lstm": "ms-mk-lstm"}

DATASETS: dict[str, str | Callable[..., Any]] = {
    "moving-mnist": "framecast.data.sets.moving_mnist:open_moving_mnist",
    "taxibj": "framecast.data.sets.taxibj:open_taxibj",
    "kth": "framecast.data.sets.kth:open_kth",
    "own": "framecast.data.sets.own:open_own",
    "german-radar": "framecast.data.sets.german_radar:open_german_radar",
    "knmi": "framecast.data.sets.knmi:open_knmi",
    "knmi-sample": "framecast.data.sets.knmi_sample:open_knmi_sample",
}

# The unit of rain rates, as every reader spells it.
RAIN_RATE = "mm/h"

# Families of scores, classes that derive from framecast.scores.family.ScoreFamily.
SCORES: dict[str, str | Callable[..., Any]] = {
    "rain": "framecast.scores.rain:RainScores",
    "image": "framecast.scores.image:ImageScores",
    "sharpness": "framecast.scores.sharpness:Sharpness",
    "physical": "framecast.scores.physical:PhysicalErrors",
    "ensemble": "framecast.scores.ensemble:EnsembleScores",
    "spectrum": "framecast.scores.spectrum:SpectrumScores",
}

BASELINES: dict[str, BaselineEntry] = {
    "persistence": BaselineEntry("framecast.models.baselines:Persistence"),
    "mean frame": BaselineEntry("framecast.models.baselines:MeanFrame"),
    "blank frame": BaselineEntry("framecast.models.baselines:BlankFrame"),
    "extrapolation": BaselineEntry("framecast.models.extrapolation:Extrapolation", RAIN_RATE, package="pysteps"),
    "steps": BaselineEntry("framecast.models.steps:Steps", RAIN_RATE, package="pysteps", on_request=True),
}

_ARRAYS, _NETCDF = "framecast.data.formats.arrays", "framecast.data.formats.netcdf:open_cf"
_HDF5 = f"{_ARRAYS}:open_hdf5_array"
_VIDEO = "framecast.data.formats.video:open_video"
_ODIM = {"read": "framecast.data.formats.odim:read_odim", "header": "framecast.data.formats.odim:odim_header"}
_KNMI = {"read": "framecast.data.formats.knmi:read_knmi", "header": "framecast.data.formats.knmi:knmi_header"}
_RADOLAN = {
    "read": "framecast.data.formats.radolan:read_radolan",
    "header": "framecast.data.formats.radolan:radolan_header",
}

_PYSTEPS, _RASTER = "framecast.data.formats.pysteps", "framecast.data.formats.raster:open_raster"

FORMATS: list[FileFormat] = [
    FileFormat("*.npy", f"{_ARRAYS}:open_npy"),
    FileFormat("*.npz", f"{_ARRAYS}:open_npz"),
    FileFormat("aqc*_*.gif", f"{_PYSTEPS}:open_mch_gif"),
    FileFormat("*fmi.radar*.pgm", f"{_PYSTEPS}:open_fmi_pgm"),
    FileFormat("*fmi.radar*.pgm.gz", f"{_PYSTEPS}:open_fmi_pgm"),
    *(FileFormat(f"*.{ending}", _RASTER) for ending in ("tif", "tiff", "grib2", "grb2", "grib", "grb")),
    FileFormat("*.gif", "framecast.data.formats.pictures:open_gif"),
    FileFormat("rad_nl*.h5", _HDF5, **_KNMI),
    FileFormat("*.h5", _HDF5, **_ODIM),
    FileFormat("*.hdf5", _HDF5, **_ODIM),
    FileFormat("*.hdf", **_ODIM),
    FileFormat("*.nc", _NETCDF),
    FileFormat("*.nc4", _NETCDF),
    FileFormat("*.zarr", _NETCDF),
    *(FileFormat(f"*.{ending}", _VIDEO) for ending in ("avi", "mp4", "mkv", "mov", "webm", "m4v", "mpg", "mpeg")),
    FileFormat("*-bin", **_RADOLAN),
    FileFormat("*-bin.gz", **_RADOLAN),
    FileFormat("*-bin.bz2", **_RADOLAN),
    FileFormat("yw2017.002_*_[0-9][0-9][0-9][0-9]", **_RADOLAN),
    FileFormat("de1200_*_[0-9][0-9][0-9]", **_RADOLAN),
]


def list_models(*, aliases: bool = False) -> list[str]:
    """Return the names of all models, the paper's aliases too if asked for."""
    names = [*CELLS, *(f"ms-{name}" for name in CELLS), *ONE_SHOT]
    return sorted([*names, *ALIASES] if aliases else names)


def model_entry(name: str) -> ModelEntry:
    """Return the facts of a model's name or alias.

    Raises:
        UnknownNameError: there is no such model; the message lists all and the nearest spelling.
    """
    key = canonical_name(name)
    key = ALIASES.get(key, key)
    if key in ONE_SHOT:
        return ONE_SHOT[key]
    plain = key.removeprefix("ms-")
    if plain not in CELLS:
        raise UnknownNameError("model", name, list_models(aliases=True)).with_remedy(
            "One of your own is known once the module that registers it is imported: fc.import_plugin(MODULE), or "
            "--import MODULE on the command line."
        )
    cell, pyramid = CELLS[plain], plain != key
    return ModelEntry(
        name=key,
        build="framecast.models.recurrent:" + ("build_pyramid" if pyramid else "build_plain"),
        title=f"MS-{cell.title}" if pyramid else cell.title,
        paper=cell.paper,
        doi=cell.doi,
        training=cell.training,
        cell=cell,
        cell_name=plain,
        pyramid=pyramid,
        capturable=cell.capturable,
    )


def paper_name(name: str) -> str:
    """Return the name the MS-LSTM paper uses for a model, where it has one of its own."""
    return next((alias for alias, target in ALIASES.items() if target == name), name)


def shipped_runs() -> dict[str, Path]:
    """Return name -> run folder of all trained models that come with the package."""
    folder = Path(str(files("framecast.weights"))) / "shipped"
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


def register_cell(name: str, entry: CellEntry, *, replace: bool = False) -> None:
    """Add a cell, and with it the models ``name`` and ``ms-name``, once it is seen to keep the contract of cells.

    Args:
        name: of the cell.
        entry: its facts.
        replace: take the place of a cell of that name, for example after a change in a notebook.

    Raises:
        ValueError: the name is taken.
        CellError: its column does not build cells that keep the contract; the message says what a cell gives instead.
    """
    key = canonical_name(name)
    if key in ONE_SHOT or key in ALIASES or (key in CELLS and not replace):
        remedy = "choose another, or pass replace=True" if key in CELLS else "choose another"
        raise OptionError(f"the name {key!r} is taken: {remedy}")
    resolve("framecast.cells.cell:check_column")(key, resolve(entry.column))
    CELLS[key] = entry


def _by_name(file_name: str, part: Literal["open", "read", "header"]) -> Callable[..., Any] | None:
    """Return a function of the first format that has one and whose pattern fits the name of a file."""
    for file_format in FORMATS:
        target = getattr(file_format, part)
        if target and fnmatchcase(file_name.lower(), file_format.pattern):
            return resolve(target)
    return None


def sequence_opener(file_name: str) -> Callable[..., Any] | None:
    """Return what opens a file of many frames of that name, or None where no format fits."""
    return _by_name(file_name, "open")


def frame_reader(file_name: str) -> Callable[..., Any] | None:
    """Return what reads a file of one frame of that name, or None where no format fits."""
    return _by_name(file_name, "read")


def frame_header_reader(file_name: str) -> Callable[..., Any] | None:
    """Return what reads a file of one frame of that name without its values, or None where no format can."""
    return _by_name(file_name, "header")


def sequence_endings() -> list[str]:
    """Return the endings of files of many frames, such as ".npy"."""
    endings = [
        file_format.pattern[1:] for file_format in FORMATS if file_format.open and file_format.pattern.startswith("*.")
    ]
    return list(dict.fromkeys(endings))


def score_families(
    unit: str,
    names: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    ensembles: bool = False,
) -> dict[str, Any]:
    """Return the families of scores by name.

    Args:
        unit: physical unit of the data.
        names: of the families; None takes all that suit the unit.
        options: arguments of families; each goes to those that know it.
        ensembles: whether there are ensembles to score; otherwise families for them are left out unless asked for.

    Raises:
        UnknownNameError: no such family, or an option that none of them knows.
        ValueError: a family refuses an option's value.
    """
    for name in names or ():
        if name not in SCORES:
            raise UnknownNameError("score family", name, SCORES)
    kinds = {name: resolve(SCORES[name]) for name in (SCORES if names is None else names)}
    families: dict[str, Any] = {
        name: kind
        for name, kind in kinds.items()
        if names is not None or (kind.suits(unit) and (ensembles or not kind.of_ensembles))  # type: ignore[attr-defined]
    }
    accepted = {name: set(inspect.signature(kind).parameters) for name, kind in families.items()}
    for option in options or ():
        if not any(option in parameters for parameters in accepted.values()):
            raise UnknownNameError("score option", option, set().union(*accepted.values()))
        check_finite(option, (options or {})[option])
    arguments = {**(options or {}), "unit": unit}
    return {
        name: kind(**{key: value for key, value in arguments.items() if key in accepted[name]})
        for name, kind in families.items()
    }


def make_baselines(unit: str, scaling: Any, names: Sequence[str] | None = None, clips: Any = None) -> dict[str, Any]:
    """Return the baselines by name, each a ``framecast.models.baselines.Baseline``.

    Args:
        unit: physical unit of the data.
        scaling: between physical values and the model's numbers.
        names: of the baselines; None takes all that suit the unit, are installed, and do not take long.
        clips: the ``framecast.data.clips.ClipSpec`` of the data, or None where that is unknown.

    Raises:
        UnknownNameError: there is no such baseline.
        MissingExtraError: one that was asked for needs a package that is not installed.
    """
    for name in names or ():
        if name not in BASELINES:
            raise UnknownNameError("baseline", name, BASELINES)
    names = [name for name, entry in BASELINES.items() if entry.suits(unit)] if names is None else names
    baselines = {name: resolve(BASELINES[name].build)(scaling) for name in names}
    for baseline in baselines.values():
        baseline.clips = clips
    return baselines


def dataset_builder(name: str) -> Callable[..., Any]:
    """Return the function that makes the data set of that name.

    Raises:
        UnknownNameError: there is no such data set.
    """
    key = canonical_name(name)
    if key not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return resolve(DATASETS[key])
