"""KTH: people who walk, jog, run, box, wave and clap, filmed at 25 frames a second, 160x120 pixels, grey.

Official files: ``personPP_action_dD_uncomp.avi``, 599 of them, and ``00sequences.txt``, which names the runs of
frames in which the person is in view, counted from 1, last frame included. The public segment lists (one
``personPP_action_dD start end`` a line) are read as well. Both are dirty: spaces for tabs, commas at the end, a
clip without runs, runs beyond the last frame, which are cut and noted.

As in the paper: walking, jogging and running; clips of 20 frames that start every 10 frames, every 3 for running;
persons 1 to 16 to learn from, 17 to 25 to test. Validation persons are taken from the training ones, so no person
is in two splits. Frames are resized to 128x128 in one bilinear interpolation, anti-aliased (the released code
interpolates twice). Videos are decoded once, into a cache.

Source: https://www.csc.kth.se/cvap/actions/. Licence: none is stated; for research, with citation. Reference:
Schuldt, Laptev and Caputo, "Recognizing Human Actions: A Local SVM Approach", ICPR 2004,
doi:10.1109/ICPR.2004.1334462. Segment lists: Villegas et al., "Decomposing Motion and Content for Natural Video
Sequence Prediction", ICLR 2017, https://github.com/rubenvillegas/iclr2017mcnet.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from framecast.data.clips import SPLITS, ClipData, ClipSet, ClipSpec, Split, check_lengths, data_root, missing_files
from framecast.data.formats.pictures import natural_order
from framecast.data.formats.video import cached_video, decode_into_cache, open_video
from framecast.data.joined import JoinedSource
from framecast.data.scaling import MinMax
from framecast.data.sources import Indices, ReadOptions
from framecast.data.windows import WindowedClips, windows_by_number
from framecast.errors import DataError, DatasetNotFoundError, UnknownNameError, check_count

log = logging.getLogger(__name__)

ACTIONS = ("walking", "jogging", "running", "boxing", "handwaving", "handclapping")
MOVING = ("walking", "jogging", "running")
STRIDES = {"running": 3}
STRIDE = 10
ENDING = "_uncomp.avi"
LEARN, TEST = range(1, 17), range(17, 26)
SOURCE = "https://www.csc.kth.se/cvap/actions/ (walking.zip, jogging.zip, running.zip, ... and 00sequences.txt)"
FOLDER_TREE = """  kth/
    00sequences.txt            or segment lists, given as segments=
    walking/person01_walking_d1_uncomp.avi ...
    jogging/...
    running/..."""

_NAME = r"person(\d\d)_([a-z]+)_d(\d)"
_LINE = re.compile(rf"\s*({_NAME})(?:_uncomp(?:\.avi)?)?[\s,:]*(?:frames)?[\s,:]*(.*?)[\s,]*", re.IGNORECASE)
_RANGES = re.compile(r"\d+\s*-\s*\d+(?:\s*,\s*\d+\s*-\s*\d+)*|\d+\s+\d+")


class Segment(NamedTuple):
    """A run of frames of a video: its name, and its first and last frame, counted from 1, both included."""

    video: str
    first: int
    last: int

    @property
    def person(self) -> int:
        """The number of the person."""
        return int(self.video[6:8])

    @property
    def action(self) -> str:
        """The action."""
        return self.video.split("_")[1]


def open_kth(
    *,
    root: str | Path | None = None,
    segments: str | Path | Sequence[str | Path] | None = None,
    actions: Sequence[str] = MOVING,
    validation_persons: Sequence[int] = (15, 16),
    context: int = 10,
    horizon: int = 10,
    size: int = 128,
    progress: bool = True,
) -> ClipData:
    """Open KTH.

    Args:
        root: the folder of the videos, in sub-folders or not; None takes ``kth`` in $FRAMECAST_DATA or in ``data``.
        segments: a file or files that name the runs of frames; None takes ``00sequences.txt`` in the root, or else
            all lists ``*_data_list*.txt`` there, trimmed ones in place of those they trim.
        actions: any of walking, jogging, running, boxing, handwaving, handclapping.
        validation_persons: persons of 1 to 16 who are kept out of the training.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        size: side to which frames are resized, in pixels.
        progress: show a progress bar while videos are decoded.

    Raises:
        DatasetNotFoundError: there are no videos or no segments.
        MissingExtraError: PyAV is not installed.
        DataError: a list or video is damaged, or nothing is long enough for a clip.
        UnknownNameError: there is no such action.
    """
    check_lengths(context, horizon)
    check_count("size", size)
    for action in actions:
        if action not in ACTIONS:
            raise UnknownNameError("KTH action", action, ACTIONS)
    if not set(validation_persons) <= set(LEARN):
        raise DataError(f"validation_persons are {tuple(validation_persons)} and must be of 1 to 16")
    folder = data_root("kth", root)
    videos = {path.name.removesuffix(ENDING): path for path in folder.rglob(f"person*{ENDING}")}
    if not videos:
        raise missing_files(["personPP_action_dD_uncomp.avi"], folder, SOURCE, FOLDER_TREE)
    runs = [run for run in read_segments(_lists(folder, segments)) if run.action in actions]
    listed_videos = sorted({run.video for run in runs} & videos.keys())
    notes = _absent(runs, videos)
    if not listed_videos:
        raise missing_files([f"videos of {', '.join(actions)} that the lists name"], folder, SOURCE, FOLDER_TREE)
    source = _decode([videos[name] for name in listed_videos], size, progress)
    names = [Path(part.where).name.removesuffix(ENDING) for part in source.parts]
    starts = dict(zip(names, source.starts.tolist(), strict=False))
    counts = {name: part.count for name, part in zip(names, source.parts, strict=True)}
    runs, cut = clamp([run for run in runs if run.video in starts], counts)
    if cut:
        notes.append(f"{len(cut)} runs end beyond the last frame of their video and are cut, first {cut[0].video}")
        log.warning("KTH: %s", notes[-1])
    chosen: dict[Split, list[Indices]] = {split: [np.empty((0, context + horizon), np.int64)] for split in SPLITS}
    for run in runs:
        split = split_of(run.person, validation_persons)
        chosen[split].append(starts[run.video] + windows_of(run, context + horizon))
    splits: dict[Split, ClipSet] = {
        split: WindowedClips(source, np.concatenate(parts), MinMax()) for split, parts in chosen.items()
    }
    if not any(len(clips) for clips in splits.values()):
        raise DataError(f"{folder}: no run is as long as a clip of {context + horizon}: lower context or horizon")
    spec = ClipSpec(size, size, 1, context, horizon, interval=1 / 25)
    return ClipData("kth", {}, spec, splits, notes)


def split_of(person: int, validation_persons: Sequence[int]) -> Split:
    """Return the split a person belongs to."""
    if person in TEST:
        return "test"
    return "validation" if person in validation_persons else "train"


def windows_of(run: Segment, length: int) -> Indices:
    """Return the windows of a run, (K, length) frame numbers of its video counted from 0."""
    stride = STRIDES.get(run.action, STRIDE)
    return run.first - 1 + windows_by_number(run.last - run.first + 1, length, stride)


def clamp(runs: Sequence[Segment], counts: dict[str, int]) -> tuple[list[Segment], list[Segment]]:
    """Cut runs at the last frame of their video; return all that is left, and the runs that were cut."""
    cut = [run for run in runs if run.last > counts[run.video]]
    clamped = [run._replace(last=min(run.last, counts[run.video])) for run in runs]
    return [run for run in clamped if run.first <= run.last], cut


def _lists(folder: Path, paths: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """Return the files that name the runs."""
    if paths is not None:
        files = [Path(paths)] if isinstance(paths, str | Path) else [Path(file) for file in paths]
        files = [file if file.is_file() else folder / file for file in files]
        absent = [str(file) for file in files if not file.is_file()]
        if absent:
            raise missing_files(absent, folder, SOURCE, FOLDER_TREE)
        return files
    official = sorted(folder.rglob("00sequences.txt"))
    lists = sorted(folder.rglob("*_data_list*.txt"))
    chosen = official[:1] or [file for file in lists if file.with_stem(f"{file.stem}_trimmed") not in lists]
    if not chosen:
        raise missing_files(["00sequences.txt"], folder, SOURCE, FOLDER_TREE)
    return chosen


def read_segments(files: Sequence[Path]) -> list[Segment]:
    """Read the runs of frames that files name, each run once; other lines are passed over.

    Raises:
        DatasetNotFoundError: a file is missing.
        DataError: a line names a video and what follows is not a run, or no line names one.
    """
    runs: dict[Segment, None] = {}
    for file in files:
        if not file.is_file():
            raise DatasetNotFoundError(f"there is no list {file}: give 00sequences.txt or segment lists")
        for number, line in enumerate(file.read_text("ascii", "replace").splitlines(), 1):
            match = _LINE.fullmatch(line)
            if match:
                runs |= dict.fromkeys(_runs(match.group(1).lower(), match.group(5), f"{file}, line {number}"))
    if not runs:
        raise DataError(f"{', '.join(map(str, files))}: no line names a run, such as person01_walking_d1 1-75, 152-225")
    return list(runs)


def _runs(video: str, text: str, where: str) -> list[Segment]:
    if not re.search(r"\d", text):  # the clip that does not exist is named with *missing*
        return []
    if not _RANGES.fullmatch(text):
        raise DataError(f"{where}: {text!r} is not a run of frames: write 1-75, 152-225")
    numbers = [int(word) for word in re.findall(r"\d+", text)]
    runs = [Segment(video, first, last) for first, last in zip(numbers[::2], numbers[1::2], strict=True)]
    wrong = [run for run in runs if not 1 <= run.first <= run.last]
    if wrong:
        raise DataError(f"{where}: frames {wrong[0].first} to {wrong[0].last} run backwards or start before 1")
    return runs


def _absent(runs: Sequence[Segment], videos: dict[str, Path]) -> list[str]:
    """Say how many videos the lists name that are not there."""
    names = sorted({run.video for run in runs} - videos.keys())
    return [f"{len(names)} videos that the lists name are not there, first {names[0]}"] if names else []


def _decode(paths: Sequence[Path], size: int, progress: bool) -> JoinedSource:
    """Decode what is not in the cache yet and open all."""
    read_options = ReadOptions(size=(size, size), channels=1)
    fresh = [path for path in paths if not cached_video(path, read_options.size, 1).is_file()]
    for path in tqdm(fresh, desc="decode KTH", disable=not progress or not fresh, leave=False):
        decode_into_cache(path, read_options.size, 1)
    return JoinedSource([open_video(path, read_options) for path in sorted(paths, key=natural_order)])
