"""TaxiBJ: taxis that enter and leave each of 32x32 regions of Beijing, per half hour; and other files of its format.

Four files, one a season (BJ13 to BJ16), with the datasets

    data   (N, 2, 32, 32) float, vehicles per slot, channel 0 entering ("in") and 1 leaving ("out")
    date   (N,) bytes yyyymmddSS, slots SS = 01 to 48, local time

Days that lack a slot are dropped and negative counts become 0. Clips are cut by time stamp within a file, never
across a gap. The last four weeks of clips (1,344 at 48 slots a day) are the test set, and no frame of theirs is
learned from. The scaling is fitted to the training part; later counts above its largest stay above 1. BikeNYC
(16x8 regions, hourly) and others of this format are read by ``files``.

``as_published=True`` gives the clips of the released code instead: counts cut to 8 bits, test clips that share
frames with the last training clips, and every clip newest frame first, for that code lists t - 1, t - 2, ...
t - 8: its models forecast the past from the future.

Source: https://1drv.ms/f/s!Akh6N7xv3uVmhOhDKwx3bm5zpHkDOQ, linked by the authors' repository DeepST (lucktroy).
Licence: none is stated; for research, with citation. Reference: Zhang, Zheng and Qi, "Deep Spatio-Temporal
Residual Networks for Citywide Crowd Flows Prediction", AAAI 2017, doi:10.1609/aaai.v31i1.10735. The split is that
of MIM, Wang et al., CVPR 2019, doi:10.48550/arXiv.1811.07490.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.data.clips import ClipData, ClipSpec, Split, check_lengths, data_root, missing_files
from framecast.data.formats.hdf5 import check_own, check_small, open_hdf5
from framecast.data.packing import Values
from framecast.data.scaling import MinMax
from framecast.data.sources import ArraySource, Indices, check_times
from framecast.data.windows import WindowedClips, windows_by_time
from framecast.errors import DataError, UnknownNameError, check_count

DAY = 86_400
# MD5 as published in DeepST's md5sum.txt.
FILES = {
    "BJ13_M32x32_T30_InOut.h5": "24cec8a5310d4982ffcee43c7aa3ad70",
    "BJ14_M32x32_T30_InOut.h5": "bfe5144413e950207cad50999b3910ab",
    "BJ15_M32x32_T30_InOut.h5": "70fa80fcb4441f2df18d3dde246dc5fb",
    "BJ16_M32x32_T30_InOut.h5": "6592f29581f0ed5fc930d2c7f40f8e6f",
}
SOURCE = "https://1drv.ms/f/s!Akh6N7xv3uVmhOhDKwx3bm5zpHkDOQ (linked by github.com/lucktroy/DeepST)"
FOLDER_TREE = "  taxibj/\n" + "\n".join(f"    {name}" for name in FILES)
CHANNELS = {"in": slice(0, 1), "out": slice(1, 2), "both": slice(0, 2)}


class Flow(NamedTuple):
    """The whole days of one file: frames (N, 2, H, W), times, slots a day, and days that were dropped."""

    frames: Values
    times: Indices
    slots: int
    dropped: int


def open_taxibj(
    *,
    root: str | Path | None = None,
    files: Sequence[str] | None = None,
    context: int = 4,
    horizon: int = 4,
    channels: Literal["in", "out", "both"] = "in",
    test_days: int = 28,
    validation: float | None = None,
    as_published: bool = False,
) -> ClipData:
    """Open TaxiBJ, or other files of its format.

    Args:
        root: the folder of the files; None takes ``taxibj`` in $FRAMECAST_DATA or in ``data``.
        files: their names in the order of time; None takes the four of TaxiBJ.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        channels: "in", "out" or "both", which makes two channels.
        test_days: clips of the last so many days, a clip a slot, are the test set.
        validation: share of the training part, taken from its end; None takes 0.1, or as published none, for the
            authors validated on the test set.
        as_published: see the module.

    Raises:
        DatasetNotFoundError: a file is missing.
        DataError: a file is damaged or of another format, or there are too few whole days.
        UnknownNameError: there are no such channels.
    """
    check_lengths(context, horizon)
    check_count("test_days", test_days)
    if channels not in CHANNELS:
        raise UnknownNameError("choice of channels", channels, CHANNELS)
    share = (0.0 if as_published else 0.1) if validation is None else validation
    if not 0 <= share < 1:
        raise DataError(f"validation is {share} and must be at least 0 and below 1")
    folder, names = data_root("taxibj", root), list(files or FILES)
    flows = _read_all(folder, names)
    frames = np.concatenate([flow.frames for flow in flows])[:, CHANNELS[channels]]
    times = np.concatenate([flow.times for flow in flows])
    slots, length = flows[0].slots, context + horizon
    ends = np.cumsum([len(flow.times) for flow in flows])
    parts = [range(int(end) - len(flow.times), int(end)) for flow, end in zip(flows, ends, strict=True)]
    # The released code needs a frame after each clip, which it never uses.
    windows = np.concatenate(
        [part.start + windows_by_time(times[part.start : part.stop], length + as_published, DAY // slots)[:, :length]
         for part in parts]
    )  # fmt: skip
    tests = test_days * slots
    if len(windows) <= tests:
        raise DataError(
            f"{folder}: {len(windows)} clips of {length} frames on whole days are too few for {tests} test clips: give "
            "all files, or lower test_days"
        )
    train, held_out = _learning(windows[:-tests], int(windows[-tests, 0]), share, gap=not as_published)
    fitted = frames[:-tests] if as_published else frames[: int(train.max()) + 1]
    scaling = _fit_scaling(fitted, folder)
    chosen: dict[Split, Indices] = {"train": train, "validation": held_out, "test": windows[-tests:]}
    if as_published:
        frames = _eight_bits(frames, scaling)
        chosen = {split: numbers[:, ::-1] for split, numbers in chosen.items()}
    source = ArraySource(frames, times)
    source.complete = True
    _, layers, height, width = frames.shape
    spec = ClipSpec(height, width, layers, context, horizon, "vehicles per slot", scaling, float(DAY // slots))
    notes = _notes(flows, names, folder, as_published)
    return ClipData(
        "taxibj",
        {},
        spec,
        {split: WindowedClips(source, numbers, scaling, cut=as_published) for split, numbers in chosen.items()},
        notes,
    )


def _learning(windows: Indices, border: int, share: float, *, gap: bool) -> tuple[Indices, Indices]:
    """Split the clips before the test set into training and validation; with a gap no two splits share a frame."""
    if gap:
        windows = windows[windows[:, -1] < border]
    held_out = round(share * len(windows))
    train, validation = (windows[:-held_out], windows[-held_out:]) if held_out else (windows, windows[:0])
    if gap and held_out:
        train = train[train[:, -1] < validation[0, 0]]
    if not len(train):
        raise DataError("no clip is left to learn from: lower test_days or validation, or give more files")
    return train, validation


def _fit_scaling(frames: Values, folder: Path) -> MinMax:
    low, high = float(frames.min()), float(frames.max())
    if low == high:
        raise DataError(f"{folder}: all counts to learn from are {low:g}: the files hold no flow")
    return MinMax(low, high)


def _eight_bits(frames: Values, scaling: MinMax) -> Values:
    """Return counts as the released code sees them: 0 to 1 in 255 steps, cut downwards."""
    scaled = scaling.scale(torch.from_numpy(frames)).numpy()
    levels = np.clip(np.floor(scaled * 255), 0, 255)
    return scaling.unscale(torch.from_numpy(levels / 255)).numpy()


def _notes(flows: Sequence[Flow], names: Sequence[str], folder: Path, as_published: bool) -> list[str]:
    notes = [
        f"{name}: {len(flow.times) // flow.slots} whole days, {flow.dropped} dropped that lack a slot"
        for name, flow in zip(names, flows, strict=True)
    ]
    for name in names:
        checksum = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False).hexdigest()
        if name in FILES and checksum != FILES[name]:
            notes.append(f"{name} has md5 {checksum}, and the published file {FILES[name]}")
    if as_published:
        notes.append("as published: newest frame first, 8 bits, test clips share frames with training clips")
    return notes


def _read_all(folder: Path, names: Sequence[str]) -> list[Flow]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise missing_files(missing, folder, SOURCE, FOLDER_TREE)
    flows = [read_flow(folder / name) for name in names]
    for name, flow in zip(names, flows, strict=True):
        if flow.frames.shape[1:] != flows[0].frames.shape[1:] or flow.slots != flows[0].slots:
            raise DataError(
                f"{folder / name} has {flow.slots} slots a day on {flow.frames.shape[2:]} cells and {names[0]} has "
                f"{flows[0].slots} on {flows[0].frames.shape[2:]}: give files of one city"
            )
    check_times(np.concatenate([flow.times for flow in flows]), f"{folder}, files in the order {', '.join(names)}")
    return flows


def read_flow(path: Path) -> Flow:
    """Read the whole days of a file of TaxiBJ's format, negative counts as 0.

    Raises:
        DataError: damaged, other keys or shapes, dates that are none or do not rise, or no whole day.
    """
    with open_hdf5(path) as file:
        if not {"data", "date"} <= set(file):
            raise DataError(f"{path} has {', '.join(file) or 'nothing'} and needs the datasets data and date")
        data, dates = check_own(file["data"], path), check_small(check_own(file["date"], path), path)[()]
        if data.ndim != 4 or data.shape[1] != 2 or data.dtype.kind not in "fiu" or len(dates) != len(data):
            raise DataError(
                f"{path}: data is {data.dtype} {data.shape} with {len(dates)} dates, and must be (N, 2, H, W) numbers "
                "with N dates"
            )
        frames = np.asarray(check_small(data, path)[()], np.float32)
    if not np.isfinite(frames).all():
        raise DataError(f"{path}: {int((~np.isfinite(frames)).sum())} counts are NaN or infinite: fetch it again")
    days, slots = _dates(dates, path)
    per_day = int(slots.max(initial=0))
    if slots.min(initial=1) < 1 or not per_day or DAY % per_day:
        raise DataError(f"{path}: slots run from {slots.min(initial=0)} to {per_day} and must divide a day from 1 on")
    times = check_times(days * DAY + (slots - 1) * (DAY // per_day), str(path))
    names, counts = np.unique(days, return_counts=True)
    complete = np.isin(days, names[counts == per_day])
    if not complete.any():
        raise DataError(f"{path}: no day has all of its {per_day} slots")
    return Flow(np.maximum(frames[complete], 0), times[complete], per_day, int((counts != per_day).sum()))


def _dates(dates: NDArray[Any], path: Path) -> tuple[Indices, Indices]:
    """Return days since 1970 and slots of dates yyyymmddSS."""
    words = [date.decode("ascii", "replace") if isinstance(date, bytes) else str(date) for date in dates.tolist()]
    wrong = [word for word in words if len(word) != 10 or not word.isdecimal()]
    if wrong or not words:
        raise DataError(f"{path}: {wrong[0]!r} is not a date yyyymmddSS" if wrong else f"{path} holds no frames")
    try:
        days = np.array([f"{word[:4]}-{word[4:6]}-{word[6:8]}" for word in words], "datetime64[D]").astype(np.int64)
    except ValueError as error:
        raise DataError(f"{path}: a date is none: {error}") from error
    return days, np.array([int(word[8:]) for word in words], np.int64)
