"""Frames supplied by the user: arrays, HDF5, NetCDF, Zarr, videos, folders of pictures or of clips.

What is read:

- ``.npy``, ``.npz``, ``.h5``: one array, its axes named by ``axes`` or guessed (``formats/arrays.py``);
- ``.nc``, ``.zarr``: a variable whose axes are named or recognised by CF conventions (``formats/netcdf.py``);
- ``.avi``, ``.mp4`` and other videos, decoded into a cache (``formats/video.py``); ``.gif``;
- a folder of PNG or JPEG frames, in the natural order of their names (``formats/pictures.py``);
- a folder of radar files of one frame each (``radar.py``);
- a folder of clips, each a file or folder of these; or with folders ``train``, ``test`` and perhaps
  ``validation`` of such clips, which then are the splits.

Stored numbers become physical values, and missing data is masked (``packing.py``). With time stamps, clips have exactly
one interval and never span a gap. Frames are divided among the splits before clips are cut (``windows.py``); the
scaling is fitted on the training frames and on no others.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from framecast.data.cache import kept_index
from framecast.data.catalogue import describe_files, open_parts
from framecast.data.clips import SPLITS, ClipData, ClipSet, ClipSpec, Split, check_lengths
from framecast.data.covariates import HOUR, fit_covariates, open_covariates
from framecast.data.formats.pysteps import PREFIX
from framecast.data.formats.times import snap_times, step_statistics
from framecast.data.grid import Grid
from framecast.data.joined import JoinedSource, check_alike
from framecast.data.scaling import SCALINGS, MinMax, Scaling, scaling_from_dict
from framecast.data.sources import FrameSource, GriddedSource, Indices, ReadOptions, check_some_data, check_times
from framecast.data.units import unit_facts
from framecast.data.windows import Blocks, Shares, WindowedClips, assign_splits, check_shares, windows_in
from framecast.errors import DataError, OptionError, UnknownNameError, check_count

PIECE_BYTES = 32 * 1024 * 1024


class Limits(NamedTuple):
    """The least and the largest finite value; NaN where there is none."""

    low: float
    high: float


def find_limits(source: FrameSource, blocks: Sequence[range], facts: str | None = None) -> Limits:
    """Return the limits of the frames in the blocks.

    Args:
        source: of the frames.
        blocks: the frames that count.
        facts: what the source's values follow from, such as its files' sizes and dates; with it the limits are
            kept, and found again without reading.
    """

    def limits() -> dict[str, Indices]:
        return {"limits": np.array(_limits(source, blocks))}

    if facts is None:
        return Limits(*limits()["limits"].tolist())
    # A chunk that was written anew in its place may leave all dates as they were: so look at some frames, too.
    frames = [number for block in blocks[:1] for number in sorted({block[0], block[len(block) // 2], block[-1]})]
    checksum = zlib.crc32(source.read(np.array(frames, np.int64)).tobytes()) if frames else 0
    numbers = " ".join(f"{block.start}-{block.stop}" for block in blocks) + f" {checksum}"
    return Limits(*kept_index(f"limits of {facts} in {numbers}", limits)["limits"].tolist())


def _limits(source: FrameSource, blocks: Sequence[range]) -> Limits:
    low, high = np.inf, -np.inf
    pieces = list(pieces_of(source, blocks))
    for numbers in tqdm(pieces, desc="range of the training frames", delay=2, leave=False):
        values = source.read(numbers)
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return Limits(low, high) if low <= high else Limits(np.nan, np.nan)


def pieces_of(source: FrameSource, blocks: Sequence[range]) -> Iterator[Indices]:
    """Yield the frame numbers of the blocks in pieces of few bytes, none over a border of sequences."""
    most = max(1, PIECE_BYTES // (4 * int(np.prod(source.shape))))
    for block in blocks:
        for start in range(block.start, block.stop, most):
            yield np.arange(start, min(start + most, block.stop), dtype=np.int64)


SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
Box = tuple[int, int, int, int]


class _Share(NamedTuple):
    """The frames of one split."""

    source: FrameSource
    blocks: list[range]


def open_own(
    path: str | Path,
    *,
    context: int = 10,
    horizon: int = 10,
    stride: int = 1,
    interval: int | None = None,
    step: int = 1,
    tolerance: int = 0,
    shares: Sequence[float] = (0.7, 0.1, 0.2),
    scaling: str | Mapping[str, Any] = "auto",
    variable: str | None = None,
    time: str | None = None,
    y: str | None = None,
    x: str | None = None,
    channel: str | None = None,
    axes: str | None = None,
    channels: int | None = None,
    size: int | Sequence[int] | None = None,
    crop: Sequence[int] | None = None,
    nodata: float | None = None,
    unit: str | None = None,
    select: Mapping[str, Any] | None = None,
    product: str | None = None,
    reader: str | None = None,
    reader_options: Mapping[str, Any] | None = None,
    covariates: Mapping[str, Any] | None = None,
) -> ClipData:
    """Open frames of your own.

    Args:
        path: a file or folder, see the module.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        stride: frames from the start of a clip to the start of the next.
        interval: seconds between frames, where there are time stamps; None takes the most common step.
        step: take every so many frames: a clip's frames are ``step`` intervals apart.
        tolerance: seconds by which a time stamp may be wrong, below half the interval.
        shares: of the frames for training, validation and test, in the order of time.
        scaling: "none" for values in [0, 1]; "min-max", fitted on the training frames; another kind by name, or
            with its numbers, e.g. {"kind": "min-max", "low": 0, "high": 60}; "auto": pixels as they are, rain rates
            as dBZ pixels, others "none" where they lie in [0, 1] and "min-max" where not.
        variable: name of the array, in a file of several.
        time: name of the time axis or array of time stamps; a pattern of file names with %, such as
            "radar_%Y%m%d%H%M"; "none" takes frames as equally spaced.
        y: name of the axis of rows.
        x: name of the axis of columns.
        channel: name of the axis of channels.
        axes: the axes of an array without names, by letters: T, H, W, and where there are, C and N.
        channels: 1 turns pictures and videos to grey, 3 to colour; None leaves them.
        size: side, or height and width, to which pictures and videos are resized.
        crop: first row, one after the last, first column, one after the last, of the frames as read.
        nodata: a stored number that means no data, besides those the file names.
        unit: unit of the values, instead of the one the file gives.
        select: axis -> the value of its coordinate, such as {"number": 0}; takes one of several.
        product: which of several products in a folder of radar files, such as "RATE".
        reader: an importer of pysteps, such as "pysteps:bom_rf3", for files that are not known by their names.
        reader_options: arguments of that importer.
        covariates: channels for the model to see and not to forecast: name -> path of files on the same grid and with
            the same times, or {"path": ..., "known": "past" or "future", "variable": ...}; "hour" -> true for the time
            of day. See ``data/covariates.py``.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or nothing that can be read.
        DataError: a file is damaged or unclear, options do not fit it, or it is too short for one clip.
        MissingExtraError: the files need a package that is not installed.
        UnknownNameError: there is no such scaling.
    """
    check_lengths(context, horizon)
    for name, value in {"stride": stride, "step": step}.items():
        check_count(name, value)
    if reader is not None and not reader.startswith(PREFIX):
        raise OptionError(f"reader is {reader!r}: give an importer of pysteps as in 'pysteps:bom_rf3'")
    read_options = ReadOptions(
        variable, time, y, x, channel, axes, channels, _pair(size), nodata, unit, tolerance, select, product, reader,
        reader_options,
    )  # fmt: skip
    path, notes = Path(path), list[str]()
    box = _box(crop)
    share_of = _assign_shares(path, read_options, box, check_shares(shares), notes)
    seconds = _interval(share_of, interval, tolerance, notes)
    length = context + horizon
    windows = {
        split: windows_in(share.blocks, share.source.times, length, (seconds or 0) * step, stride, step)
        for split, share in share_of.items()
    }
    train = share_of["train"]
    if not len(windows["train"]):
        raise DataError(_too_short(path, train, length, step, seconds))
    chosen = _scaling(scaling, train, path, notes)
    source = train.source
    rows = None
    if covariates:
        if HOUR in covariates and source.times is None:
            raise OptionError(f"covariate hour needs time stamps and {source.where} has none: leave it out")
        rows = open_covariates(covariates, source.shape, source.georeference, Grid(box) if box else None, context)
        numbers = np.unique(windows["train"])
        rows = fit_covariates(rows, None if source.times is None else source.times[numbers], numbers)
    splits: dict[Split, ClipSet] = {
        split: WindowedClips(share.source, windows[split], chosen, covariates=rows) for split, share in share_of.items()
    }
    pace = seconds if seconds is not None else source.interval
    frames, height, width = source.shape
    spec = ClipSpec(
        height, width, frames, context, horizon, source.unit, chosen, None if pace is None else float(pace * step),
        Grid(box) if box else None, source.georeference, source.product, rows.facts if rows else (),
    )  # fmt: skip
    return ClipData("own", {}, spec, splits, notes)


def _pair(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise DataError(f"size is {size}: give a side, or height and width, in pixels")
    return pair[0], pair[1]


def _box(crop: Sequence[int] | None) -> Box | None:
    if crop is None:
        return None
    if len(crop) != 4:
        raise DataError(f"crop is {tuple(crop)}: give rows from, to, columns from, to")
    return crop[0], crop[1], crop[2], crop[3]


def _assign_shares(
    path: Path, read_options: ReadOptions, crop: Box | None, shares: Shares, notes: list[str]
) -> dict[Split, _Share]:
    """Open the files and assign_splits their frames to the splits."""
    folders = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in SPLIT_FOLDERS.items()
    }
    if folders["train"] is None or folders["test"] is None:
        source = _opened(path, read_options, crop)
        notes += _notes_of(source)
        return {split: _Share(source, blocks) for split, blocks in assign_splits(source.sequences, shares).items()}
    sources = {split: _opened(folder, read_options, crop) for split, folder in folders.items() if folder}
    sources = {split: check_alike(sources["train"], source) for split, source in sources.items()}
    _check_apart(sources)
    notes += [f"the folders {', '.join(sources)} are the splits", *_notes_of(sources["train"])]
    shares_by_split = {split: _Share(source, source.sequences) for split, source in sources.items()}
    if "validation" not in shares_by_split:
        learn = shares[0] + shares[1]
        parts: Blocks = assign_splits(sources["train"].sequences, (shares[0] / learn, shares[1] / learn, 0.0))
        shares_by_split["train"] = _Share(sources["train"], parts["train"])
        shares_by_split["validation"] = _Share(sources["train"], parts["validation"])
        notes.append("there is no folder validation: these clips are taken from the training ones")
    return {split: shares_by_split[split] for split in SPLITS}


def _check_apart(sources: Mapping[Split, FrameSource]) -> None:
    """Refuse a frame that stands in two splits by its time stamp.

    Raises:
        DataError: one does.
    """
    for first, second in combinations(sources, 2):
        one, other = sources[first].times, sources[second].times
        both = np.intersect1d(one, other).tolist() if one is not None and other is not None else []
        if both:
            raise DataError(
                f"{len(both)} time stamps, first {np.datetime64(both[0], 's')}, stand in both splits "
                f"{sources[first].where} and {sources[second].where}: keep each in one of them"
            )


def _opened(path: Path, read_options: ReadOptions, crop: Box | None) -> FrameSource:
    source = JoinedSource(open_parts(path, read_options))
    return GriddedSource(source, Grid(crop), MinMax()) if crop else source


def _notes_of(source: FrameSource) -> list[str]:
    """Return the notes of the files, and how many sequences there are."""
    clips = len(source.sequences)
    return [*source.notes, *([f"{clips} sequences: no clip spans two of them"] if clips > 1 else [])]


def _interval(share_of: dict[Split, _Share], interval: int | None, tolerance: int, notes: list[str]) -> int | None:
    """Return the seconds between frames, or None where there are no time stamps; snap the stamps if asked."""
    sources = list({id(share.source): share.source for share in share_of.values()}.values())
    if sources[0].times is None:
        if interval is not None:
            raise DataError(f"interval is {interval} s and the frames have no time stamps: give step instead")
        if tolerance:
            raise DataError(f"tolerance is {tolerance} s and the frames have no time stamps: leave it out")
        if sources[0].interval is None:
            notes.append("there are no time stamps: frames are taken as equally spaced, and gaps cannot be seen")
        return None
    steps = step_statistics(_stamps(sources[0]))
    seconds = interval or steps.interval
    if seconds is None:
        raise DataError("there is one frame only: a clip needs several")
    check_count("interval", seconds)
    for source in sources if tolerance else []:
        assert source.times is not None
        source.times = check_times(
            snap_times(source.times, seconds, tolerance), f"{source.where}, by tolerance={tolerance}"
        )
        steps = step_statistics(_stamps(source))
    notes.append(f"{steps.share:.1%} of the steps in time are {steps.interval} s")
    if steps.gaps:
        notes.append(f"{steps.gaps} gaps in time, the longest {steps.longest} s: no clip spans one")
    return seconds


def _stamps(source: FrameSource) -> Any:
    """Return the time stamps of the first sequence, of which others are expected to have the steps."""
    assert source.times is not None
    first = source.sequences[0]
    return source.times[first.start : first.stop]


def _too_short(path: Path, train: _Share, length: int, step: int, seconds: int | None) -> str:
    longest = max((len(block) for block in train.blocks), default=0)
    message = f"{path}: no clip of {length} frames fits the training part, whose longest run has {longest} frames"
    if seconds is not None and longest >= length:
        steps = step_statistics(_stamps(train.source))
        message += (
            f" but none of {length} at {seconds * step} s without a gap, {steps.interval} s being the commonest of "
            f"{steps.shorter + steps.gaps} other steps up to {steps.longest} s: give another interval= or tolerance="
        )
    return f"{message}: lower context, horizon or step, or use longer recordings"


def _scaling(option: str | Mapping[str, Any], train: _Share, path: Path, notes: list[str]) -> Scaling:
    """Return the scaling asked for, fitted where it must be."""
    first = train.source
    frames = [np.arange(block.start, block.stop, dtype=np.int64) for block in train.blocks]
    check_some_data(first, np.concatenate([np.empty(0, np.int64), *frames]), str(path))
    if isinstance(option, Mapping):
        return scaling_from_dict(dict(option))
    if option not in ("auto", "none", *SCALINGS):
        raise UnknownNameError("scaling", option, ("auto", "none", *SCALINGS))
    unit_scaling = unit_facts(first.unit).scaling
    if option == "auto" and unit_scaling in SCALINGS:
        notes.append(f"scaling {unit_scaling}, for values in {first.unit}")
        return SCALINGS[unit_scaling]()
    if option not in ("auto", "none", "min-max"):
        return SCALINGS[option]()
    if option == "auto" and first.pixels:
        return MinMax()
    if option == "none":
        _check_unit_range(train, first.where)
        return MinMax()
    grid = first.grid if isinstance(first, GriddedSource) else None
    facts = f"{describe_files(path)} {first.where} {first.packing} {grid}"
    low, high = find_limits(train.source, train.blocks, facts)
    if np.isnan(low):
        raise DataError(f"{first.where}: the training part has no data at all, only NaN or nodata")
    if option == "auto" and low >= 0 and high <= 1:
        notes.append(f"values of the training part lie in [{low:g}, {high:g}] and are taken as they are")
        return MinMax()
    if low == high:
        notes.append(f"all values of the training part are {low:g}")
        high = low + 1
    notes.append(f"scaling min-max from [{low:g}, {high:g}], the range of the training part")
    return MinMax(low, high)


def _check_unit_range(train: _Share, where: str) -> None:
    """Refuse values outside [0, 1] where no scaling is wanted, by a look at three frames of each block."""
    for block in train.blocks[:20]:
        values = train.source.read(np.array(sorted({block[0], block[len(block) // 2], block[-1]})))
        finite = values[np.isfinite(values)]
        if len(finite) and (finite.min() < 0 or finite.max() > 1):
            raise DataError(
                f"{where} has values in [{finite.min():g}, {finite.max():g}] and scaling 'none' takes [0, 1]: use "
                "scaling='min-max', or divide 0-255 pixels by 255"
            )
