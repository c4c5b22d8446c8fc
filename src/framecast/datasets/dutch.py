"""Rain over the Netherlands in mm/h: KNMI's 5-minute radar composites, 765 x 700 pixels of 1 km.

The frames of a folder are dealt to the three splits in consecutive blocks, so no clip spans a border.

Source: Royal Netherlands Meteorological Institute (KNMI), https://dataplatform.knmi.nl. Licence: CC BY 4.0; name KNMI
as the source. Reference: Overeem, Holleman and Buishand, J. Appl. Meteorol. Climatol. 48, 2009,
doi:10.1175/2009JAMC1954.1. The files' format: see ``framecast.datasets.radar.knmi``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from framecast.datasets.clip import SPLITS, ClipData, Split
from framecast.datasets.formats.zarrays import is_zarr
from framecast.datasets.grid import Method, Space
from framecast.datasets.places import data_root, missing_files
from framecast.datasets.radar.clips import Crop, cut_clips, make_grid, prepare_source, rain_scaling
from framecast.datasets.radar.files import radar_archive
from framecast.datasets.radar.knmi import knmi_time, read_knmi
from framecast.datasets.sources.folder import FolderSource
from framecast.datasets.windows import FrameSource, Numbers
from framecast.errors import DataError

SOURCE = "https://dataplatform.knmi.nl (5-minute precipitation accumulations)"
LAYOUT = "  knmi/**/RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5"


def dutch_radar(
    *,
    root: str | Path | None = None,
    size: int | Sequence[int] | None = None,
    crop: Crop | None = None,
    method: Method = "decimate",
    space: Space = "rain",
    interval: int = 10,
    every: int = 5,
    context: int = 4,
    horizon: int = 4,
    blocks: Sequence[float] = (0.4, 0.25, 0.35),
    scaling: str = "dbz-pixel",
    nodata: Literal["masked", "dry"] = "masked",
) -> ClipData:
    """Open a folder of KNMI composites.

    Args:
        root: the folder of files, or the Zarr that framecast data convert makes of it; None looks for knmi in
            $FRAMECAST_DATA or in data.
        size: side, or height and width, of the model's frames in pixels; None keeps the crop's.
        crop: rows from and to, columns from and to, before resizing.
        method: "decimate" or "mean", see ``framecast.datasets.grid``.
        space: "rain" or "pixel", where the mean is taken.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        blocks: shares of the frames, or numbers of frames, that train, validation and test get, one after another
            in time; of 60 frames 24, 15 and 21 by default.
        scaling: "dbz-pixel" or "log".
        nodata: "masked", or "dry" to take it as no rain.

    Raises:
        DatasetNotFoundError: there are no files at ``root``.
        DataError: damaged files, or options that they do not allow.
        UnknownNameError: no such scaling, method, space or nodata.
    """
    rules = make_grid(size, crop, method, space), rain_scaling(scaling)
    source = prepare_source(_frames(data_root("knmi", root)), *rules, nodata)
    parts = _blocks(source.count, blocks)
    return cut_clips("knmi", source, parts, rules, (context, horizon), interval, every)


def _frames(root: Path) -> FrameSource:
    if is_zarr(root):
        return radar_archive(root)
    files = sorted(root.rglob("RAD_NL*.h5")) if root.is_dir() else []
    if not files:
        raise missing_files(["KNMI radar files"], root, SOURCE, LAYOUT)
    return FolderSource(files, read_knmi, knmi_time)


def _blocks(count: int, blocks: Sequence[float]) -> dict[Split, Numbers]:
    """Deal frames to the splits in their order."""
    total = sum(blocks)
    if len(blocks) != len(SPLITS) or min(blocks) < 0 or not total:
        raise DataError(f"blocks are three shares or three numbers of frames and got {list(blocks)}")
    counts = np.asarray(blocks, np.float64) * (count if total <= 1 + 1e-9 else 1)
    edges = np.concatenate([[0], counts.cumsum()]).round().astype(int)
    if edges[-1] > count:
        raise DataError(f"blocks {list(blocks)} ask for {edges[-1]} frames and there are {count}: lower them")
    return {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(SPLITS)}
