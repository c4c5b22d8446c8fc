"""Check data before training: find what would harm it and say how to mend it.

Levels: an *error* makes a training useless or impossible, a *warning* probably hurts, a *note* is good to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framecast.data.catalogue import open_data, summary
from framecast.data.clips import ClipData, ClipSet, Split
from framecast.data.formats.times import step_statistics
from framecast.data.units import unit_facts
from framecast.data.windows import WindowedClips
from framecast.errors import DataError, check_count

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

MOST_CHANNELS = 4
MOST_UNPACKED = 100
HUGE = 1e15
PIXELS = 100
REGULAR = 0.9
MUCH = 0.5
LOST = 0.2
REPEATED = 0.1


class Finding(NamedTuple):
    """One thing that was found."""

    level: Level
    text: str


@dataclass
class DataReport:
    """What was found.

    Attributes:
        name: what was looked at.
        facts: sizes, splits and scaling in words, or "" where it cannot be opened.
        findings: all that was found.
    """

    name: str
    facts: str = ""
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(finding.level == "error" for finding in self.findings)

    def add(self, level: Level, text: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, text))

    def text(self) -> str:
        """Say all of it, the worst first."""
        counts = {level: sum(finding.level == level for finding in self.findings) for level in LEVELS}
        lines = [f"{finding.level + ':':<9} {finding.text}" for level in LEVELS for finding in self.findings
                if finding.level == level]  # fmt: skip
        verdict = ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())
        return "\n".join([self.name, *([self.facts] if self.facts else []), *lines, verdict])


class _Look(NamedTuple):
    """What a look at some clips of a split has found: counts of values and frames."""

    values: int
    missing: int
    infinite: int
    outside: int
    low: float
    high: float
    frames: int
    empty: int
    constant: int
    repeated: int


def check(name: str | Path, *, frames: int = 600, **options: Any) -> DataReport:
    """Check a data set, or frames of your own, for what would hurt a training.

    Args:
        name: a data set's name or a path, as ``framecast.data`` takes it.
        frames: about how many frames of each split are looked at, evenly over it.
        options: the data set's options.

    Returns:
        The report; ``report.ok`` is False where there are errors, ``report.text()`` says all.
    """
    check_count("frames", frames)
    report = DataReport(str(name))
    try:
        data = open_data(name, **options)
    except (ValueError, OSError, ImportError) as error:
        report.add("error", str(error))
        return report
    notes, data.notes = data.notes, []
    report.facts = summary(data)
    for note in notes:
        report.add("note", note)
    if data.name == "own":
        _check_axes(report, data)
    for split, clips in data.splits.items():
        if not len(clips):
            report.add("warning", f"the {split} split has no clip: use shorter clips or another share")
            continue
        if isinstance(clips, WindowedClips):
            _check_time(report, split, clips)
            if split == "train":
                _check_storage(report, clips)
                _check_last_frame(report, clips)
        look = _look_at(report, data, split, clips, frames)
        if look is not None and look.values:
            _check_values(report, data, split, look)
    return report


def _check_axes(report: DataReport, data: ClipData) -> None:
    spec, clips = data.spec, data.splits["train"]
    if spec.channels > MOST_CHANNELS:
        report.add("warning", f"{spec.channels} channels: is this axis time? Name the axes with axes= or channel=")
    if min(spec.height, spec.width) <= MOST_CHANNELS:
        report.add("warning", f"frames of {spec.height}x{spec.width}: is one of these the axis of channels? See axes=")
    if isinstance(clips, WindowedClips) and clips.source.count > spec.height * spec.width:
        report.add(
            "warning",
            f"{clips.source.count} frames of {spec.height}x{spec.width}: more frames than pixels in each. If the axes "
            "are in another order, name them with axes= or time=",
        )
    if isinstance(clips, WindowedClips) and clips.source.times is None and clips.source.count == spec.height:
        report.add(
            "warning",
            f"as many frames as rows, {spec.height}: if these are {spec.width} frames of {spec.height}x{spec.height} "
            "with time as the last axis, name the axes with axes=",
        )


def _check_time(report: DataReport, split: Split, clips: WindowedClips) -> None:
    source, length = clips.source, clips.windows.shape[1]
    if split != "train":
        return
    short = sum(len(sequence) < length for sequence in source.sequences)
    if short:
        report.add(
            "warning", f"{short} of {len(source.sequences)} sequences are shorter than a clip of {length} frames"
        )
    if source.times is None:
        return
    first = source.sequences[0]
    steps = step_statistics(source.times[first.start : first.stop])
    if steps.share < REGULAR:
        report.add(
            "warning",
            f"only {steps.share:.0%} of the steps in time are {steps.interval} s ({steps.gaps} longer, up to "
            f"{steps.longest} s, {steps.shorter} shorter): give interval=, and tolerance= if the stamps jitter",
        )
    # Stamps between those of a longer interval are left out on purpose, so look at whole clips only.
    span = np.zeros(source.count + 1, np.int64)
    np.add.at(span, clips.windows[:, 0], 1)
    np.add.at(span, clips.windows[:, -1] + 1, -1)
    covered = np.cumsum(span)[:-1] > 0
    inside = slice(int(clips.windows.min()), int(clips.windows.max()) + 1)
    share_lost = 1 - float(covered[inside].mean())
    if share_lost > LOST:
        report.add(
            "warning", f"{share_lost:.0%} of the {split} frames are in no clip, for gaps in time: use shorter clips"
        )


def _check_storage(report: DataReport, clips: WindowedClips) -> None:
    unpacked = clips.source.unpacked
    if unpacked > MOST_UNPACKED:
        report.add(
            "warning",
            f"{unpacked} frames are unpacked to read one, as the pieces of the file hold so many times of few pixels: "
            "framecast data convert makes an archive of one piece a frame",
        )


def _check_last_frame(report: DataReport, clips: WindowedClips) -> None:
    """Say where the very last frame is dead, as it is when a file was copied while it was written."""
    source = clips.source
    if source.count < 2:
        return
    try:
        before, last = source.read(np.array([source.count - 2, source.count - 1]))
    except (DataError, OSError):
        return  # what cannot be read is reported with the clips
    alive = [np.unique(frame[np.isfinite(frame)][:]).size > 1 for frame in (before, last)]
    if alive == [True, False]:
        report.add("warning", "the last frame has no data or one value only, unlike the one before: is the file whole?")


def _look_at(report: DataReport, data: ClipData, split: Split, clips: ClipSet, frames: int) -> _Look | None:
    """Look at clips evenly over a split; report what cannot be read."""
    low, high = data.spec.scaling.limits
    looks, unreadable = [], list[str]()
    for number in np.unique(np.linspace(0, len(clips) - 1, max(1, frames // data.spec.length)).astype(int)):
        try:
            values = _physical(clips, int(number))
        except (DataError, OSError) as error:
            unreadable.append(str(error))
            continue
        looks.append(_look(values, low, high))
    if unreadable:
        report.add("error", f"{len(unreadable)} of {len(looks) + len(unreadable)} {split} clips cannot be read: "
                            f"{unreadable[0]}")  # fmt: skip
    if not looks:
        return None
    columns = list(zip(*looks, strict=True))
    sums = [sum(column) for column in columns]
    sums[4], sums[5] = min(columns[4]), max(columns[5])
    return _Look(*sums)


def _physical(clips: ClipSet, number: int) -> NDArray[np.float32]:
    """Return clip (T, C, H, W) in physical units, NaN for no data; of a generator, as the model sees it."""
    if isinstance(clips, WindowedClips):
        return clips.source.read(clips.windows[number])
    return clips[number]["frames"].numpy()


def _look(values: NDArray[np.float32], low: float, high: float) -> _Look:
    present = ~np.isnan(values)
    finite = np.isfinite(values)
    some = bool(finite.any())
    flat = [frame[np.isfinite(frame)] for frame in values]
    constant = [bool(len(frame)) and frame.min() == frame.max() for frame in flat]
    repeated = [
        not constant[place] and np.array_equal(values[place], values[place - 1], equal_nan=True)
        for place in range(1, len(values))
    ]
    tolerance = 1e-6 * (high - low)
    return _Look(
        values.size,
        int((~present).sum()),
        int((present & ~finite).sum()),
        int(((values < low - tolerance) | (values > high + tolerance)).sum()),
        float(values[finite].min()) if some else np.inf,
        float(values[finite].max()) if some else -np.inf,
        len(values),
        sum(not len(frame) for frame in flat),
        sum(constant),
        sum(repeated),
    )


def _check_values(report: DataReport, data: ClipData, split: Split, look: _Look) -> None:
    for level, text in _value_findings(data, split, look):
        report.add(level, text)


def _value_findings(data: ClipData, split: Split, look: _Look) -> Iterator[Finding]:
    low, high = data.spec.scaling.limits
    missing, valid = look.missing / look.values, look.values - look.missing
    if missing:
        level: Level = "error" if not valid else "warning" if missing > MUCH else "note"
        yield Finding(level, f"{missing:.1%} of the {split} values are no data; they count in no loss and no score")
    if look.empty:
        yield Finding("warning", f"{look.empty} of {look.frames} {split} frames seen have no data at all")
    if look.infinite:
        yield Finding("warning", f"{look.infinite} {split} values are infinite: they become the limits of the scaling")
    if look.constant:
        share = look.constant / look.frames
        level = "error" if share == 1 else "warning" if share > MUCH else "note"
        yield Finding(
            level, f"{share:.0%} of the {split} frames seen have one value only, such as all dry or all black"
        )
    if look.repeated > REPEATED * look.frames:
        share = look.repeated / look.frames
        yield Finding("warning", f"{share:.0%} of the {split} frames seen repeat the one before: is a sensor stuck?")
    if not valid or not np.isfinite(look.low):
        return
    possible = unit_facts(data.spec.unit).possible
    if max(abs(look.low), abs(look.high)) > HUGE:
        extreme = look.low if abs(look.low) > abs(look.high) else look.high
        yield Finding("error", f"{split} values reach {extreme:g}: name the number that means no data with nodata=")
    elif possible and not possible[0] <= look.low <= look.high <= possible[1]:
        yield Finding(
            "error",
            f"{split} values reach from {look.low:g} to {look.high:g} {data.spec.unit}, and only {possible[0]:g} to "
            f"{possible[1]:g} can be: correct the unit with unit=, or name the number that means no data with nodata=",
        )
    outside, unscaled = look.outside / valid, (low, high) == (0.0, 1.0)
    like_pixels = data.spec.unit == "1" and look.low >= 0 and PIXELS < look.high <= 255
    if like_pixels and split == "train":
        hint = "they look like 0-255 pixels: save them as uint8, or divide by 255"
        cut = " and everything above 1 is cut" if unscaled else ""
        yield Finding("error" if unscaled else "warning", f"{split} values reach {look.high:g}{cut}: {hint}")
    if outside and not _cuts(data, split):
        yield Finding("note", f"{outside:.2%} of the {split} values lie outside [{low:g}, {high:g}], which the scaling "
                              f"was fitted to: they reach from {look.low:g} to {look.high:g} and are kept")  # fmt: skip
    elif outside and not (like_pixels and unscaled):
        level = "error" if outside > MUCH else "warning" if not _saturates(data) else "note"
        yield Finding(
            level,
            f"{outside:.2%} of the {split} values lie outside [{low:g}, {high:g}], which the scaling cuts: they reach "
            f"from {look.low:g} to {look.high:g}; give wider limits with scaling={{kind: ..., low: ..., high: ...}}",
        )
    if data.name == "own" and unscaled and 0 < look.high <= 2 / 255 and look.low == 0:
        yield Finding(
            "warning", f"{split} pixels reach {round(look.high * 255)} of 255: are they 0 and 1? Save as float"
        )


def _cuts(data: ClipData, split: Split) -> bool:
    clips = data.splits[split]
    return not isinstance(clips, WindowedClips) or clips.cut


def _saturates(data: ClipData) -> bool:
    return bool(getattr(data.spec.scaling, "saturates", False))
