"""Looking names up: from a name to what it builds, with errors that list what exists."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from framecast.errors import UnknownNameError
from framecast.registry.entries import CellEntry, ModelEntry, ModelSpec, resolve
from framecast.registry.tables import ALIASES, BASELINES, CELLS, DATASETS, FRAME_READERS, ONE_SHOT, SCORES

if TYPE_CHECKING:
    from framecast.models.forecaster import Forecaster


def list_models(*, aliases: bool = False) -> list[str]:
    """Return the names of all models, the paper's aliases too if asked for."""
    names = [*CELLS, *(f"ms-{name}" for name in CELLS), *ONE_SHOT]
    return sorted([*names, *ALIASES] if aliases else names)


def model_entry(name: str) -> ModelEntry:
    """Return the facts of a model's name or alias.

    Raises:
        UnknownNameError: there is no such model; the message lists all and the nearest spelling.
    """
    key = name.lower().replace("_", "-")
    key = ALIASES.get(key, key)
    if key in ONE_SHOT:
        return ONE_SHOT[key]
    plain = key.removeprefix("ms-")
    if plain not in CELLS:
        raise UnknownNameError("model", name, list_models(aliases=True))
    cell, pyramid = CELLS[plain], plain != key
    return ModelEntry(
        name=key,
        build="framecast.models.recurrent:" + ("build_pyramid" if pyramid else "build_plain"),
        title=f"MS-{cell.title}" if pyramid else cell.title,
        paper=cell.paper,
        doi=cell.doi,
        training=cell.training,
        no_export=cell.no_export,
        cell=cell,
    )


def paper_name(name: str) -> str:
    """Return the name the MS-LSTM paper uses for a model, where it has one of its own."""
    return next((alias for alias, target in ALIASES.items() if target == name), name)


def register_cell(name: str, entry: CellEntry) -> None:
    """Add a cell, and with it the models ``name`` and ``ms-name``.

    Raises:
        ValueError: the name is taken.
    """
    key = name.lower().replace("_", "-")
    if key in CELLS or key in ONE_SHOT or key in ALIASES:
        raise ValueError(f"the name {key!r} is taken: choose another or remove the existing entry first")
    CELLS[key] = entry


def create_model(name: str, **options: Any) -> Forecaster:
    """Create a forecaster by name, with untrained weights drawn from torch's random state.

    Args:
        name: any of ``list_models(aliases=True)``.
        options: the model's options, such as ``in_channels``, ``hidden``, ``layers``, ``kernel``; see
            ``framecast models NAME``.

    Raises:
        UnknownNameError: no such model, or no such option of it.
        ValueError: an option's value that the model refuses.
    """
    entry = model_entry(name)
    known = entry.options()
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of model {entry.name}", option, known)
    model = entry.builder()(**options)
    model.spec = ModelSpec(entry.name, dict(options))
    return model


def frame_reader(file_name: str) -> Callable[..., Any] | None:
    """Return the reader of one-frame files for a file of that name, or None where no pattern matches."""
    for pattern, target in FRAME_READERS.items():
        if fnmatchcase(file_name.lower(), pattern):
            return resolve(target)
    return None


def score_families(
    unit: str, names: Sequence[str] | None = None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the families of scores by name.

    Args:
        unit: physical unit of the data.
        names: of the families; None takes all that suit the unit.
        options: arguments of families; each goes to those that know it.

    Raises:
        UnknownNameError: no such family, or an option that none of them knows.
        ValueError: a family refuses an option's value.
    """
    for name in names or ():
        if name not in SCORES:
            raise UnknownNameError("score family", name, SCORES)
    kinds = {name: resolve(SCORES[name]) for name in (SCORES if names is None else names)}
    chosen = {name: kind for name, kind in kinds.items() if names is not None or kind.suits(unit)}  # type: ignore[attr-defined]
    known = {name: set(inspect.signature(kind).parameters) for name, kind in chosen.items()}
    for option in options or ():
        if not any(option in parameters for parameters in known.values()):
            raise UnknownNameError("score option", option, set().union(*known.values()))
    return {
        name: kind(**{key: value for key, value in (options or {}).items() if key in known[name]})
        for name, kind in chosen.items()
    }


def make_baselines(
    unit: str, scale: Callable[..., Any], unscale: Callable[..., Any], names: Sequence[str] | None = None
) -> dict[str, Callable[..., Any]]:
    """Return the baselines by name, ready to be called ``(past, horizon, valid)``.

    Args:
        unit: physical unit of the data.
        scale: turns physical values into the model's numbers.
        unscale: turns the model's numbers into physical values.
        names: of the baselines; None takes all that suit the unit and are installed.

    Raises:
        UnknownNameError: there is no such baseline.
        MissingExtraError: one that was asked for needs a package that is not installed.
    """
    for name in names or ():
        if name not in BASELINES:
            raise UnknownNameError("baseline", name, BASELINES)
    chosen = [name for name, entry in BASELINES.items() if entry.suits(unit)] if names is None else names
    made = {name: resolve(BASELINES[name].forecast) for name in chosen}
    return {name: made[name](scale, unscale) if BASELINES[name].unit else made[name] for name in chosen}


def dataset_builder(name: str) -> Callable[..., Any]:
    """Return the function that makes the data set of that name.

    Raises:
        UnknownNameError: there is no such data set.
    """
    key = name.lower().replace("_", "-")
    if key not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    return resolve(DATASETS[key])
