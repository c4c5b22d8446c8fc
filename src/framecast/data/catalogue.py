"""The catalogue: list, describe and open data sets by name and files by path."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from framecast.data.cache import file_facts, kept_index
from framecast.data.clips import ClipData
from framecast.data.formats.arrays import is_zarr
from framecast.data.formats.netcdf import open_cf
from framecast.data.formats.pictures import PICTURES, PictureFolder, natural_order
from framecast.data.formats.pysteps import open_by_pysteps
from framecast.data.formats.times import times_in_names
from framecast.data.joined import FileSource, JoinedSource, damaged, left_out, source_facts
from framecast.data.radar import holds_radar, is_radar, radar_folder
from framecast.data.sources import FrameSource, ReadOptions
from framecast.data.units import duration_text
from framecast.errors import DataError, DatasetNotFoundError, OptionError, UnknownNameError, check_finite
from framecast.files import check_name
from framecast.registry import DATASETS, canonical_name, dataset_builder, sequence_endings, sequence_opener
from framecast.untrusted import check_no_pipe


def open_parts(path: Path, options: ReadOptions) -> list[FrameSource]:
    """Open a file, a Zarr, a folder of pictures or radar files, or one of clips, each a file or folder of these.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or nothing in the folder that can be read.
        DataError: files are damaged or not what their names say, of which all are named, or none is of the product that
            the options ask for.
        MissingExtraError: a reader needs a package that is not installed.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"there is nothing at {path}: check the path")
    check_name(path, DataError)
    check_no_pipe(path)
    if path.is_file() or is_zarr(path):
        return _of_product(_with_times_of_names([_open_one(path, options)], [path], options), path, options.product)
    inner = [entry for entry in sorted(path.iterdir(), key=natural_order) if not is_stray(entry)]
    for entry in inner:
        check_name(entry, DataError)
    if options.reader is None and holds_radar(path):
        options.refuse_all_but((), str(path))
        return [_of_channels(radar_folder(path, options.product, options.skip_damaged), options.channels)]
    pictures = [entry for entry in inner if entry.suffix.lower() in PICTURES and not entry.is_dir()]
    folders = [entry for entry in inner if entry.is_dir() and not is_zarr(entry) and _holds_frames(entry)]
    files = [
        entry
        for entry in inner
        if entry not in folders and (sequence_opener(entry.name) is not None or (options.reader and entry.is_file()))
    ]
    if pictures and not files and not folders:
        return [PictureFolder(pictures, options)]
    if pictures and len(pictures) > max(len(files), len(folders)):
        source = PictureFolder(pictures, options)
        source.notes = [*source.notes, f"beside the pictures, {_named(files + folders)} left out"]
        return [source]
    parts = [part for folder in folders for part in open_parts(folder, options)] + _open_files(path, files, options)
    if not parts:
        endings = ", ".join(sequence_endings())
        raise DatasetNotFoundError(
            f"{path} holds nothing that is read as frames ({', '.join(PICTURES)}, {endings}, radar files)"
        )
    parts = _of_product(parts, path, options.product)
    if pictures:
        parts[0].notes = [*parts[0].notes, f"beside the clips, {_named(pictures)} left out"]
    return parts


def _of_product(parts: list[FrameSource], path: Path, product: str | None) -> list[FrameSource]:
    """Return the parts of a product, or all where none is asked for.

    Raises:
        DataError: there is none of that product.
    """
    chosen = [part for part in parts if product in (None, part.product, part.product.split(" ")[0])]
    if not chosen:
        names = sorted({part.product or "unnamed" for part in parts})
        raise DataError(f"{path} has no product {product!r}: it has {', '.join(names)}")
    return chosen


def _named(entries: list[Path]) -> str:
    first = entries[0].name
    return f"{first} is" if len(entries) == 1 else f"{len(entries)} files or folders such as {first} are"


def is_stray(entry: Path) -> bool:
    """Return whether a file or folder is hidden, or half written by a download, and so is no data."""
    return entry.name.startswith((".", "~")) or entry.suffix.lower() in (".part", ".tmp", ".crdownload", ".partial")


def _open_files(folder: Path, files: list[Path], options: ReadOptions) -> list[FrameSource]:
    """Open files one after another, to remember what each says; later starts read the index and open none.

    Raises:
        DataError: some are damaged; all are named.
    """
    if len(files) < 2:
        return _with_times_of_names([_open_one(file, options) for file in files], files, options)

    def learn() -> dict[str, Any]:
        facts, times, failures = list[str](), list[Any](), dict[Path, DataError]()
        for file in tqdm(files, desc=f"headers in {folder.name}", delay=2, leave=False):
            try:
                source = _open_one(file, options)
            except DataError as error:
                failures[file] = error
                continue
            facts.append(json.dumps({**source_facts(source), "timed": source.times is not None}))
            times.append(np.empty(0, np.int64) if source.times is None else source.times)
            source.close()
        if failures and not (options.skip_damaged and facts):
            raise damaged(failures, len(files)) from next(iter(failures.values()))
        readable = np.array([number for number, file in enumerate(files) if file not in failures], np.int64)
        notes = np.array(left_out(failures) if failures else [], str)
        counts = np.array([len(t) for t in times])
        stamps = np.concatenate(times)
        return {"facts": np.array(facts), "times": stamps, "counts": counts, "readable": readable, "notes": notes}

    index = kept_index(f"parts by {options} of {' '.join(map(file_facts, files))}", learn)
    files = [files[number] for number in index["readable"].tolist()]
    ends = index["counts"].cumsum()
    parts: list[FrameSource] = []
    for file, words, end, count in zip(files, index["facts"].tolist(), ends, index["counts"], strict=True):
        known = json.loads(words)
        times = index["times"][end - count : end] if known["timed"] else None
        parts.append(FileSource(partial(_open_one, file, options), known, times))
    parts[0].notes = [*parts[0].notes, *index["notes"].tolist()]
    return _with_times_of_names(parts, files, options)


def _with_times_of_names(parts: list[FrameSource], files: list[Path], options: ReadOptions) -> list[FrameSource]:
    """Give files of one frame the time that their names tell: by a pattern, or where they have none, if all tell one.

    Raises:
        DataError: there is a pattern, and files of several frames, or a name that does not fit it.
    """
    pattern = options.time if options.time is not None and "%" in options.time else None
    several = next((part for part in parts if part.count != 1), None)
    if pattern is not None and several is not None:
        raise DataError(f"{several.where} holds {several.count} frames: time={pattern!r} is for files of one frame")
    if options.time == "none" or several is not None or (pattern is None and any(p.times is not None for p in parts)):
        return parts
    times = times_in_names([file.name for file in files], pattern)
    for part, time in zip(parts, [] if times is None else times, strict=times is not None):
        part.times = np.array([time], np.int64)
        part.notes = [*part.notes, "times are those in the names of the files"]
    return parts


def _holds_frames(folder: Path) -> bool:
    return any(
        inner.suffix.lower() in PICTURES
        or sequence_opener(inner.name) is not None
        or (inner.is_dir() and _holds_frames(inner))
        for inner in folder.iterdir()
        if not is_stray(inner)
    )


def _open_one(path: Path, options: ReadOptions) -> FrameSource:
    check_no_pipe(path)
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is an empty file of 0 bytes: fetch or make it again")
    if options.reader is not None:
        return _of_channels(open_by_pysteps(path, options), options.channels)
    if path.is_file() and is_radar(path):
        raise DataError(f"{path} is one radar frame: give its folder, or make an archive with framecast data convert")
    opener = open_cf if is_zarr(path) else sequence_opener(path.name)
    if opener is None:
        endings = ", ".join(sequence_endings())
        raise DataError(
            f"{path} ends in {path.suffix or 'nothing'}: frames are read from {endings} or a folder, and by pysteps "
            "with reader=, such as reader='pysteps:bom_rf3'"
        )
    return _of_channels(opener(path, options), options.channels)


def _of_channels(source: FrameSource, channels: int | None) -> FrameSource:
    """Return a source of the number of channels that is asked for.

    Raises:
        DataError: it has another one, as all have that are not pictures.
    """
    if channels not in (None, source.shape[0]):
        raise DataError(f"{source.where} has {source.shape[0]} channels and not {channels}: leave channels= out")
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
            kind = "option of data" if name == OWN else f"option of data set {name}"
            raise UnknownNameError(kind, option, parameters)
        if parameters[option].annotation == "str | None" and not isinstance(options[option], str | None):
            raise OptionError(f"{option} is {options[option]!r} and must be text: write it in quotes")
        if option != "nodata":  # which NaN may stand for
            check_finite(option, options[option])
    if name == OWN and "path" not in options:
        raise UnknownNameError("data set", "own without a path", ())
    opened: ClipData = build(**options)
    opened.options = options
    return opened


def text_options() -> set[str]:
    """Return the names of the options that are text, of all data sets."""
    parameters = [p for name in DATASETS for p in inspect.signature(dataset_builder(name)).parameters.values()]
    return {parameter.name for parameter in parameters if parameter.annotation == "str | None"}


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
    raise UnknownNameError("data set", str(name), DATASETS).with_remedy(
        f"And there is no file or folder {path.absolute()}."
    )


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
        try:
            return summary(open_data(OWN, **options))
        except DataError as error:
            # What cannot be cut into clips may be fine all the same.
            return f"{_summary_of_files(Path(options['path']), options)}\nclips:    none: {error}"
    build = dataset_builder(canonical)
    lines = [f"{canonical}: {_module_text(canonical)}", "", "Options:"]
    for option in inspect.signature(build).parameters.values():
        default = "" if option.default is option.empty else f" = {option.default!r}"
        lines.append(f"  {option.name}: {option.annotation}{default}")
    return "\n".join([*lines, "", inspect.getdoc(build) or ""])


def _summary_of_files(path: Path, options: Mapping[str, Any]) -> str:
    """Say what the files at a path hold, whether or not clips can be cut from it."""
    known = {field.name for field in fields(ReadOptions)} - {"size"}
    source = JoinedSource(open_parts(path, ReadOptions(**{k: v for k, v in options.items() if k in known})))
    values = source.read(np.array([0]))
    finite = values[np.isfinite(values)]
    reach = f"{finite.min():.4g} to {finite.max():.4g}" if len(finite) else "no data"
    channels, height, width = source.shape
    lines = [
        f"frames:   {source.count} of {channels} x {height}x{width} in units of {source.unit}",
        *_when_and_where(source),
        f"values:   {reach} in the first frame, {1 - len(finite) / values.size:.1%} no data",
        *(f"note:     {note}" for note in source.notes),
    ]
    source.close()
    return "\n".join(lines)


def _when_and_where(source: FrameSource | None) -> list[str]:
    if source is None:
        return []
    lines = []
    if source.times is not None and source.count:
        ends = [str(np.datetime64(int(source.times[place]), "s"))[:16].replace("T", " ") for place in (0, -1)]
        lines.append(f"times:    {ends[0]} to {ends[1]} UTC")
    if source.georeference is not None:
        lines.append(f"place:    {source.georeference.text()}")
    if source.product:
        lines.append(f"product:  {source.product}")
    return lines


def summary(data: ClipData) -> str:
    """Say in words what an opened data set has: its clips, their size, unit and scaling, and the notes."""
    spec = data.spec
    source = next((clips.source for clips in data.splits.values() if hasattr(clips, "source")), None)
    low, high = spec.scaling.limits
    pace = "" if spec.interval is None else f", {duration_text(spec.interval)} apart"
    lines = [
        f"frames:   {spec.channels} x {spec.height}x{spec.width} in units of {spec.unit}",
        *_when_and_where(source),
        f"clips:    {spec.context} -> {spec.horizon} frames{pace}",
        f"scaling:  {spec.scaling.kind} from [{low:g}, {high:g}]",
        "splits:   " + ", ".join(f"{split} {len(clips)}" for split, clips in data.splits.items()),
    ]
    return "\n".join([*lines, *(f"note:     {note}" for note in data.notes)])


def _module_text(name: str) -> str:
    module = inspect.getmodule(dataset_builder(name))
    return inspect.getdoc(module) or name
