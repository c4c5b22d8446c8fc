"""What the rain radar data sets share: grid, scaling, what is done with nodata, and clips by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from framecast.datasets.clip import ClipData, ClipSet, ClipSpec, Split, check_lengths
from framecast.datasets.grid import Grid, Method, Space
from framecast.datasets.scaling import DbzPixel, Log, Scaling
from framecast.datasets.sources.derived import CachedSource, DrySource, GriddedSource
from framecast.datasets.windows import FrameSource, Numbers, WindowedClips, windows_by_time
from framecast.errors import DataError, UnknownNameError, check_count
from framecast.registry import RAIN_RATE

Crop = Sequence[int]

SCALINGS: dict[str, type[Scaling]] = {"dbz-pixel": DbzPixel, "log": Log}
NODATA = ("masked", "dry")


def make_grid(size: int | Sequence[int] | None, crop: Crop | None, method: Method, space: Space) -> Grid:
    """Return the grid of options.

    Raises:
        DataError: size or crop are not one or two, or four numbers.
        UnknownNameError: there is no such method or space.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if size else None
    edges = tuple(crop) if crop else None
    if (sides and len(sides) != 2) or (edges and len(edges) != 4):
        raise DataError(f"size {size} must be one or two numbers, crop {crop} four (rows from, to, columns from, to)")
    return Grid(edges, sides, method, space)  # type: ignore[arg-type]


def rain_scaling(name: str) -> Scaling:
    """Return a scaling of rain rates by name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in SCALINGS:
        raise UnknownNameError("scaling of rain", name, SCALINGS)
    return SCALINGS[name]()


def prepare_source(source: FrameSource, grid: Grid, scaling: Scaling, nodata: str) -> FrameSource:
    """Return a source on another grid, nodata treated as asked for, the frames last read kept in memory.

    Raises:
        UnknownNameError: there is no such way with nodata.
        DataError: the grid does not fit the frames.
    """
    if nodata not in NODATA:
        raise UnknownNameError("way with nodata", nodata, NODATA)
    gridded = GriddedSource(source, grid, scaling)
    return CachedSource(DrySource(gridded) if nodata == "dry" else gridded)


def cut_clips(
    name: str,
    source: FrameSource,
    parts: Mapping[Split, Numbers],
    rules: tuple[Grid, Scaling],
    lengths: tuple[int, int],
    interval: int,
    every: int,
) -> ClipData:
    """Cut each split's frames into clips by their times.

    Args:
        name: of the data set.
        source: all frames.
        parts: the numbers of each split's frames.
        rules: grid and scaling.
        lengths: context and horizon.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.

    Raises:
        DataError: no split has a single clip, or a length is below 1.
    """
    check_lengths(*lengths)
    check_count("interval", interval)
    check_count("every", every)
    assert source.times is not None
    step = int(np.diff(source.times).min()) if source.count > 1 else 60 * every
    stride = max(1, 60 * every // step)
    splits: dict[Split, ClipSet] = {}
    for split, numbers in parts.items():
        windows = windows_by_time(source.times[numbers], sum(lengths), 60 * interval, stride)
        splits[split] = WindowedClips(source, numbers[windows], rules[1])
    if not any(len(clips) for clips in splits.values()):
        raise DataError(
            f"{name}: {source.count} frames at steps of {step / 60:g} minutes hold no clip of {sum(lengths)} frames at "
            f"{interval} minutes: choose another interval, fewer frames, or other parts"
        )
    channels, height, width = source.shape
    grid, scaling = rules
    spec = ClipSpec(height, width, channels, *lengths, RAIN_RATE, scaling, 60 * interval, grid)
    return ClipData(name, {}, spec, splits)
