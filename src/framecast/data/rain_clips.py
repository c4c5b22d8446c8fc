"""Clips of rain: grid, scaling, missing data, splits and covariates, which the radar data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framecast.data.clips import SPLITS, ClipData, ClipSet, ClipSpec, Split, check_lengths
from framecast.data.covariates import fit_covariates, open_covariates
from framecast.data.grid import Grid, Method, Space
from framecast.data.scaling import DbzPixel, Log, Scaling
from framecast.data.sources import CachedSource, DrySource, FrameSource, GriddedSource, Indices, check_some_data
from framecast.data.windows import WindowedClips, windows_by_time
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


def split_in_time(count: int, blocks: Sequence[float]) -> dict[Split, Indices]:
    """Deal frames to the splits in their order.

    Args:
        count: of the frames.
        blocks: shares of them, or numbers of frames, that train, validation and test get.

    Raises:
        DataError: blocks are not three, negative, or more than there are.
    """
    total = sum(blocks)
    if len(blocks) != len(SPLITS) or min(blocks) < 0 or not total:
        raise DataError(f"blocks are three shares or three numbers of frames and got {list(blocks)}")
    counts = np.asarray(blocks, np.float64) * (count if total <= 1 + 1e-9 else 1)
    edges = np.concatenate([[0], counts.cumsum()]).round().astype(int)
    if edges[-1] > count:
        raise DataError(f"blocks {list(blocks)} ask for {edges[-1]} frames and there are {count}: lower them")
    return {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(SPLITS)}


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
    parts: Mapping[Split, Indices],
    rules: tuple[Grid, Scaling],
    lengths: tuple[int, int],
    interval: int,
    every: int,
    covariates: Mapping[str, Any] | None = None,
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
        covariates: channels to see and not to forecast, see ``data/covariates.py``.

    Raises:
        DataError: no split has a single clip, or a length is below 1, or a covariate does not fit.
    """
    check_lengths(*lengths)
    check_count("interval", interval)
    check_count("every", every)
    assert source.times is not None
    step = int(np.diff(source.times).min()) if source.count > 1 else 60 * every
    stride = max(1, 60 * every // step)
    windows = {
        split: numbers[windows_by_time(source.times[numbers], sum(lengths), 60 * interval, stride)]
        for split, numbers in parts.items()
    }
    if not any(len(of_split) for of_split in windows.values()):
        raise DataError(
            f"{name}: {source.count} frames at steps of {step / 60:g} minutes hold no clip of {sum(lengths)} frames at "
            f"{interval} minutes: choose another interval, fewer frames, or other parts"
        )
    check_some_data(source, parts["train"], source.where)
    channels, height, width = source.shape
    grid, scaling = rules
    rows = None
    if covariates:
        rows = open_covariates(covariates, source.shape, source.georeference, grid, lengths[0])
        numbers = np.unique(windows["train"] if len(windows["train"]) else parts["train"])
        rows = fit_covariates(rows, source.times[numbers], numbers)
    spec = ClipSpec(
        height, width, channels, *lengths, RAIN_RATE, scaling, 60 * interval, grid, source.georeference, source.product,
        rows.facts if rows else (),
    )  # fmt: skip
    splits: dict[Split, ClipSet] = {
        split: WindowedClips(source, of_split, scaling, covariates=rows) for split, of_split in windows.items()
    }
    return ClipData(name, {}, spec, splits)
