"""Data sets by name or path: what there is, what a name means, and opening it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from framecast.datasets.clip import ClipData
from framecast.errors import UnknownNameError
from framecast.registry import DATASETS, dataset_builder

OWN = "own"


def open_data(name: str | Path, **options: Any) -> ClipData:
    """Open a data set by name, or one's own frames by path; a name of the registry comes first.

    Raises:
        UnknownNameError: neither a name nor an existing path, or an option that the data set does not have.
        DatasetNotFoundError: its files are missing.
        DataError: its files or options are not what they should be.
    """
    name, options = resolve_name(name, options)
    build = dataset_builder(name)
    known = inspect.signature(build).parameters
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of data set {name}", option, known)
    if name == OWN and "path" not in options:
        raise UnknownNameError("data set", "own without a path", ())
    opened: ClipData = build(**options)
    opened.options = options
    return opened


def resolve_name(name: str | Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the registry's name and the options, the absolute path of one's own frames among them.

    Raises:
        UnknownNameError: neither a name nor an existing path.
    """
    key = str(name).lower().replace("_", "-")
    if isinstance(name, str) and key in DATASETS:
        # A run is to be found again from another folder.
        places = {name: options[name] for name in ("path", "root") if isinstance(options.get(name), str | Path)}
        options = {**options, **{name: str(Path(place).expanduser().resolve()) for name, place in places.items()}}
        return key, options
    path = Path(name).expanduser()
    if path.exists():
        return OWN, {**options, "path": str(path.resolve())}
    missing = UnknownNameError("data set", str(name), DATASETS)
    missing.args = (f"{missing} And there is no file or folder {path.absolute()}.",)
    raise missing


def list_data() -> dict[str, str]:
    """Return the names of all data sets and what each is, in one line."""
    return {name: _module_text(name).splitlines()[0] for name in DATASETS}


def describe_data(name: str | Path, **options: Any) -> str:
    """Say in words what a data set is: provenance, licence and options of a name, sizes and splits of a path.

    Raises:
        UnknownNameError: neither a name nor an existing path.
        DataError: the frames at a path cannot be used.
    """
    found, options = resolve_name(name, options)
    if found == OWN and "path" in options:
        return summary(open_data(OWN, **options))
    build = dataset_builder(found)
    lines = [f"{found}: {_module_text(found)}", "", "Options:"]
    for option in inspect.signature(build).parameters.values():
        default = "" if option.default is option.empty else f" = {option.default!r}"
        lines.append(f"  {option.name}: {option.annotation}{default}")
    return "\n".join([*lines, "", inspect.getdoc(build) or ""])


def summary(data: ClipData) -> str:
    """Say in words what an opened data set has: its clips, their size, unit and scaling, and the notes."""
    spec = data.spec
    low, high = spec.scaling.limits
    pace = "" if spec.interval is None else f", {spec.interval:g} s apart"
    lines = [
        f"frames:   {spec.channels} x {spec.height}x{spec.width} in units of {spec.unit}",
        f"clips:    {spec.context} -> {spec.horizon} frames{pace}",
        f"scaling:  {spec.scaling.kind} from [{low:g}, {high:g}]",
        "splits:   " + ", ".join(f"{split} {len(clips)}" for split, clips in data.splits.items()),
    ]
    return "\n".join([*lines, *(f"note:     {note}" for note in data.notes)])


def _module_text(name: str) -> str:
    module = inspect.getmodule(dataset_builder(name))
    return inspect.getdoc(module) or name
