"""The past frames a forecast starts from: an array, a file, or the latest frames of a series with time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.data.catalogue import open_parts
from framecast.data.clips import ClipSpec
from framecast.data.formats.arrays import ARRAY_OPTIONS, array_source
from framecast.data.georeference import Georeference
from framecast.data.joined import FolderSource, JoinedSource
from framecast.data.packing import Values
from framecast.data.scaling import MinMax
from framecast.data.sources import FrameSource, Indices, ReadOptions, TurnedSource
from framecast.data.units import duration_text
from framecast.errors import DataError, DatasetNotFoundError
from framecast.untrusted import check_read

MOST_BEYOND = 1.0
"""How far, in widths of the training's range, values may lie beyond it and still be taken."""
CONTEXT = 4
"""Past frames from which a forecast without training begins."""
SAME_PACE = 0.02
"""By which share of it the time between frames may be another than in the training."""


class Past(NamedTuple):
    """Frames a forecast starts from.

    Attributes:
        frames: (N, T, C, H, W) in the model's range, 0 where there is no data.
        valid: booleans of that shape, False where there is no data; None where all is data.
        times: (T,) int64 seconds since 1970 UTC, or None.
        note: what the user should know, such as the share without data, or "".
        georeference: where the pixels are, or None.
        pace: seconds between the frames of a film, or None where they are no film.
        facts: how the frames were read, a line each.
    """

    frames: Tensor
    valid: Tensor | None
    times: Indices | None
    note: str
    georeference: Georeference | None = None
    pace: float | None = None
    facts: Sequence[str] = ()


def read_past(
    frames: str | Path | NDArray[Any] | Tensor,
    channels: int,
    spec: ClipSpec | None,
    options: ReadOptions | None = None,
    context: int | None = None,
) -> Past:
    """Return frames as the model's numbers.

    Args:
        frames: an array or a path; of a folder of radar files, or of anything else with time stamps, the last ones at
            the model's interval are taken, cut and resized as for its training. Of a masked array, what is masked is
            no data.
        channels: of the model.
        spec: the facts of the clips it was trained on, or None where they are not known.
        options: how files are to be read.
        context: past frames to take; None takes as many as in the training, or all where that is not known.

    Raises:
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, have other axes, are of another product or place, lie outside the range the
            model knows, have gaps in time, or hold NaN where it was trained on pictures.
    """
    where, source = _open_frames(frames, replace(options or ReadOptions(), channels=channels, skip_damaged=True))
    times, notes = None, [note for note in source.notes if "left out" in note]
    if spec is not None:
        source = as_in_training(source, spec, notes)
    length = context or (spec.context if spec else None)
    if spec is not None and _goes_on_in_time(source, spec):
        values, times = last_frames(source, where, replace(spec, context=length or spec.context))
    else:
        values = all_clips(source, where, channels, length)
        if spec is not None and spec.grid is not None and values.shape[-2:] != (spec.height, spec.width):
            values = spec.grid.apply(values, spec.scaling)
    source.close()
    if spec is not None:
        notes += _differences(source, values, spec, where)
    channels_and_size = " x ".join(map(str, source.shape))
    facts = [*source.notes, f"the past is the last {values.shape[1]} of {len(source.sequences[-1])} frames of "
             f"{channels_and_size} (channels x rows x columns)"
             + (f", of {len(values)} clips each" if len(values) > 1 else "")]  # fmt: skip
    if source.pixels and not source.packing.plain and spec is not None and spec.scaling.limits != (0.0, 1.0):
        # It was trained on numbers as they are stored, not on intensities.
        values = np.rint(values / source.packing.scale)
    past = _scaled(values, spec, times, where)
    place = source.georeference
    if place is not None and place.size != past.frames.shape[-2:]:
        place = place.on(spec.grid) if spec else None
    if place is None and spec is not None and spec.georeference and times is not None:
        place = spec.georeference
    note = "; ".join([*notes, *([past.note] if past.note else [])])
    return past._replace(note=note, georeference=place, pace=source.interval, facts=facts)


def spec_of_past(
    frames: str | Path | NDArray[Any] | Tensor, options: ReadOptions | None = None, context: int | None = None
) -> ClipSpec:
    """Return the facts of frames that are to be continued without a trained model, scaled by what they hold.

    Args:
        frames: an array or a path, as for ``read_past``.
        options: how files are to be read.
        context: past frames to take; None takes the last ``CONTEXT``, or as many as there are.

    Raises:
        DatasetNotFoundError: there are no frames at the path.
        DataError: the frames are damaged, have gaps in time, or hold no number.
    """
    where, source = _open_frames(frames, replace(options or ReadOptions(), skip_damaged=True))
    channels, height, width = source.shape
    length = context or min(CONTEXT, *map(len, source.sequences))
    in_time = source.times is not None and len(source.sequences) == 1 and source.count > 1
    interval = float(np.diff(source.times).min()) if in_time and source.times is not None else None
    facts = ClipSpec(height, width, channels, length, 1, source.unit, interval=interval,
                     georeference=source.georeference, product=source.product)  # fmt: skip
    values = last_frames(source, where, facts)[0] if in_time else all_clips(source, where, channels, length)
    source.close()
    numbers = values[np.isfinite(values)]
    if not len(numbers):
        raise DataError(f"{where} holds no data in its last {length} frames: there is nothing to continue")
    if source.unit == "1":
        return facts
    low, high = min(0.0, float(numbers.min())), float(numbers.max())
    return replace(facts, scaling=MinMax(low, max(high, low + 1)))


def _open_frames(frames: Any, options: ReadOptions) -> tuple[str, FrameSource]:
    """Return what frames are called in messages, and their source."""
    if isinstance(frames, str | Path):
        return str(frames), open_past(Path(frames), options)
    array = plain_array(frames)
    options.refuse_all_but(ARRAY_OPTIONS, "the frames")
    return "the frames", array_source("the frames", lambda: array, options, {}, None)


def _differences(source: FrameSource, values: Values, spec: ClipSpec, where: str) -> list[str]:
    """Say in what frames are other than those of the training, where a model takes both."""
    notes = []
    if values.shape[-2:] != (spec.height, spec.width):
        size, usual = (f"{height}x{width}" for height, width in (values.shape[-2:], (spec.height, spec.width)))
        notes.append(f"{where} has frames of {size} and the model was trained on {usual}")
    if source.interval and spec.interval and abs(source.interval / spec.interval - 1) > SAME_PACE:
        paces = f"{duration_text(source.interval)} apart and those of the training {duration_text(spec.interval)}"
        notes.append(f"{where} has frames {paces}: the model forecasts at the pace it has learnt")
    if values.shape[1] < spec.context:
        notes.append(f"{where} has {values.shape[1]} frames and the model was trained on {spec.context} of the past")
    return notes


def plain_array(frames: Any) -> NDArray[Any]:
    """Return an array of numbers, NaN where a masked array is masked, of anything that holds one."""
    if isinstance(frames, Tensor):
        tensor = frames.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    values = frames if isinstance(frames, np.ma.MaskedArray) else getattr(frames, "values", frames)
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        return np.ma.filled(values.astype(np.float32), np.nan)
    return np.asarray(values)


def as_in_training(source: FrameSource, spec: ClipSpec, notes: list[str]) -> FrameSource:
    """Return a source of the product and the place that a model was trained on, with its rows turned if need be.

    Args:
        source: frames as their files have them.
        spec: of the training.
        notes: what could not be compared is added to them.

    Raises:
        DataError: it is another product, or elsewhere.
    """
    if spec.product and source.product and source.product != spec.product:
        raise DataError(
            f"{source.where} is {source.product} and the model was trained on {spec.product}: give that product"
        )
    if spec.georeference is None or source.georeference is None:
        if spec.georeference is not None and source.times is not None:
            notes.append(f"{source.where} does not say where its pixels are: they are taken as those of the training")
        return source
    whole = source.shape[1:] != spec.georeference.size and spec.grid is not None
    place = source.georeference.on(spec.grid) if whole else source.georeference
    difference = place.differs(spec.georeference)
    if not difference:
        return source
    turned = source.georeference.turned()
    if not (turned.on(spec.grid) if whole else turned).differs(spec.georeference):
        notes.append(f"the rows of {source.where} are turned, as they were in the training")
        return TurnedSource(source)
    raise DataError(
        f"{source.where} is elsewhere than what the model was trained on: {difference}. Give frames of its grid"
    )


def open_past(path: Path, options: ReadOptions) -> FrameSource:
    """Open anything that ``framecast.data`` reads.

    Raises:
        DatasetNotFoundError: there is nothing at the path.
        DataError: a file is damaged, or its axes cannot be told apart.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"there is nothing at {path}: check the path")
    parts = open_parts(path, options)
    return parts[0] if len(parts) == 1 else JoinedSource(parts)


def _goes_on_in_time(source: FrameSource, spec: ClipSpec) -> bool:
    """Return whether the last frames of a source can be found by their times; others are taken as they are."""
    return (
        source.times is not None
        and len(source.sequences) == 1
        and bool(spec.interval or isinstance(source, FolderSource))
    )


def all_clips(source: FrameSource, where: str, channels: int, length: int | None = None) -> Values:
    """Return the last ``length`` frames of each clip of a source, or all of them, (N, T, C, H, W).

    Raises:
        DataError: its clips differ in length, or it has another number of channels.
    """
    sequences = [range(max(s.start, s.stop - (length or len(s))), s.stop) for s in source.sequences]
    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) > 1:
        raise DataError(f"{where} holds clips of {min(lengths)} to {max(lengths)} frames: forecast each by itself")
    if source.shape[0] != channels:
        raise DataError(f"{where} has {source.shape[0]} channels and the model takes {channels}")
    check_read(f"{where}, its {len(sequences)} clips together", len(sequences), *set(lengths), *source.shape)
    frames = [source.read(np.array(sequence, np.int64)) for sequence in sequences]
    return np.stack(frames)


def last_frames(source: FrameSource, where: str, spec: ClipSpec) -> tuple[Values, Indices]:
    """Return the last frames of a source at the model's interval, (1, context, C, H, W) in physical units, and times.

    Raises:
        DataError: a frame is missing, or the files have another unit or size than the model was trained on.
    """
    if source.unit not in (spec.unit, "1"):
        raise DataError(f"{where} holds {source.unit} and the model was trained on {spec.unit}: give {spec.unit}")
    assert source.times is not None
    step = int(spec.interval or np.diff(source.times).min(initial=1))
    times = source.times[-1] - step * np.arange(spec.context)[::-1]
    numbers = np.searchsorted(source.times, times)
    missing = times[source.times[numbers] != times]
    if len(missing):
        stamp = np.datetime64(int(missing[0]), "s")
        raise DataError(
            f"{where} ends at {np.datetime64(int(source.times[-1]), 's')} and the model needs {spec.context} frames "
            f"at steps of {step / 60:g} minutes up to there: {stamp} is missing; add it or leave out the last ones"
        )
    frames = source.read(numbers)
    if frames.shape[-2:] != (spec.height, spec.width) and spec.grid is not None:
        frames = spec.grid.apply(frames, spec.scaling)
    if frames.shape[1:] != (spec.channels, spec.height, spec.width):
        raise DataError(
            f"{where} gives frames of {frames.shape[1:]} and the model was trained on "
            f"{(spec.channels, spec.height, spec.width)}: give files of the same product"
        )
    return frames[None], times


def _scaled(frames: NDArray[Any], spec: ClipSpec | None, times: Indices | None, where: str) -> Past:
    values = torch.from_numpy(np.array(frames, np.float32))
    low, high = spec.scaling.limits if spec else (0.0, 1.0)
    valid, note = None, ""
    if not values.isfinite().all():
        bad = int((~values.isfinite()).sum())
        gaps = spec is not None and spec.unit != "1" and not values.isinf().any() and bad < values.numel()
        if not gaps:
            raise DataError(f"{where} holds {bad} values that are NaN or infinite: fill or mask them first")
        valid = ~values.isnan()
        note = f"{where}: {bad / values.numel():.1%} of the past holds no data"
        values = values.where(valid, torch.tensor(low))
    least, most = values.min().item(), values.max().item()
    saturates = spec is not None and spec.scaling.saturates
    if least < low or (most > high and not saturates):
        # Later values may go a little beyond those of the training; far beyond, they are another unit or a fill value.
        physical = (spec is not None and spec.unit != "1") or (low, high) != (0.0, 1.0)
        reach = (high - low) * (MOST_BEYOND if physical and not saturates else 0)
        if least < low - reach or (most > high + reach and not saturates):
            pixels = 1 < most <= 255 and high == 1
            hint = " These look like 0-255 pixels: divide by 255, or pass uint8." if pixels else ""
            raise DataError(f"{where} lies in [{least:g}, {most:g}] and the model knows [{low:g}, {high:g}].{hint}")
        beyond = f"{where} lies in [{least:g}, {most:g}], beyond [{low:g}, {high:g}] of the training"
        note = f"{note}; {beyond}" if note else beyond
    numbers = spec.scaling.scale(values) if spec else values
    return Past(numbers if valid is None else numbers.where(valid, torch.tensor(0.0)), valid, times, note)
