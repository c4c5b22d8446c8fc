"""The catalogue: list, describe and open data sets by name and files by path."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from framecast.data.cache import file_facts
from framecast.data.clips import ClipData
from framecast.data.formats.arrays import is_zarr
from framecast.data.formats.netcdf import open_cf
from framecast.data.formats.pictures import PictureFolder, natural_order
from framecast.data.radar import holds_radar, is_radar, radar_folder
from framecast.data.sources import FrameSource, ReadOptions
from framecast.errors import DataError, DatasetNotFoundError, UnknownNameError
from framecast.registry import DATASETS, canonical_name, dataset_builder, sequence_endings, sequence_opener


def open_parts(path: Path, options: ReadOptions) -> list[FrameSource]:
    """Open a file, a Zarr, a folder of PNG frames or radar files, or one of clips, each a file or folder of these.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or nothing in the folder that can be read.
        DataError: a file is damaged or not what its name says.
        MissingExtraError: a reader needs a package that is not installed.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"there is nothing at {path}: check the path")
    if path.is_file() or is_zarr(path):
        return [_open_one(path, options)]
    pictures = list(path.glob("*.png"))
    if pictures:
        return [PictureFolder(pictures, options)]
    if holds_radar(path):
        return [radar_folder(path)]
    parts: list[FrameSource] = []
    for inner in sorted(path.iterdir(), key=natural_order):
        if inner.name.startswith("."):
            continue
        if inner.is_dir() and not is_zarr(inner):
            parts += open_parts(inner, options) if _holds_frames(inner) else []
        elif sequence_opener(inner.name) is not None:
            parts.append(_open_one(inner, options))
    if not parts:
        endings = ", ".join(sequence_endings())
        raise DatasetNotFoundError(f"{path} holds no .png file and nothing else that is read as frames ({endings})")
    return parts


def _holds_frames(folder: Path) -> bool:
    return any(
        inner.suffix.lower() == ".png"
        or sequence_opener(inner.name) is not None
        or (inner.is_dir() and _holds_frames(inner))
        for inner in folder.iterdir()
    )


def _open_one(path: Path, options: ReadOptions) -> FrameSource:
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is an empty file of 0 bytes: fetch or make it again")
    if path.is_file() and is_radar(path):
        raise DataError(f"{path} is one radar frame: give its folder, or make an archive with framecast data convert")
    opener = open_cf if is_zarr(path) else sequence_opener(path.name)
    if opener is None:
        endings = ", ".join(sequence_endings())
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}: frames are read from {endings} or a folder; of archives of "
            "radar files framecast data convert makes a .zarr"
        )
    source: FrameSource = opener(path, options)
    return source


def describe_files(path: Path) -> str:
    """Return what the values at a path follow from: its files, their sizes and dates of change."""
    if path.is_file():
        return file_facts(path)
    if is_zarr(path):  # the folders of its chunks, for these may be millions
        arrays = sorted(path.iterdir())
        inner = [part for folder in arrays for part in (folder, folder / "c", folder / "zarr.json") if part.exists()]
    else:
        inner = sorted(path.rglob("*"))
    return " ".join(file_facts(part) for part in (path, *inner))


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
    parameters = inspect.signature(build).parameters
    for option in options:
        if option not in parameters:
            raise UnknownNameError(f"option of data set {name}", option, parameters)
    if name == OWN and "path" not in options:
        raise UnknownNameError("data set", "own without a path", ())
    opened: ClipData = build(**options)
    opened.options = options
    return opened


def resolve_name(name: str | Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the registry's name and the options, with the path of user-supplied frames made absolute.

    Raises:
        UnknownNameError: neither a name nor an existing path.
    """
    key = canonical_name(str(name))
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
    canonical, options = resolve_name(name, options)
    if canonical == OWN and "path" in options:
        return summary(open_data(OWN, **options))
    build = dataset_builder(canonical)
    lines = [f"{canonical}: {_module_text(canonical)}", "", "Options:"]
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
