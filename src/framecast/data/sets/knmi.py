"""Rain over the Netherlands in mm/h: KNMI's 5-minute radar composites as HDF5, 765 x 700 pixels of 1 km.

Files are named RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5 (``formats/knmi.py`` reads them). The frames of a folder are divided
among the three splits in consecutive blocks, so no clip spans a border.

Source: Royal Netherlands Meteorological Institute (KNMI), https://dataplatform.knmi.nl. Licence: CC BY 4.0; name KNMI
as the source. Reference: Overeem, Holleman and Buishand, "Derivation of a 10-Year Radar-Based Climatology of
Rainfall", J. Appl. Meteorol. Climatol. 48, 2009, doi:10.1175/2009JAMC1954.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from framecast.data.clips import ClipData, data_root, missing_files
from framecast.data.formats.arrays import is_zarr
from framecast.data.formats.knmi import knmi_header, read_knmi
from framecast.data.grid import Method, Space
from framecast.data.joined import FolderSource
from framecast.data.radar import radar_archive
from framecast.data.rain_clips import Crop, cut_clips, make_grid, prepare_source, rain_scaling, split_in_time
from framecast.data.sources import FrameSource

SOURCE = "https://dataplatform.knmi.nl (5-minute precipitation accumulations)"
FOLDER_TREE = "  knmi/**/RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5"


def open_knmi(
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
    covariates: Mapping[str, Any] | None = None,
) -> ClipData:
    """Open a folder of KNMI composites.

    Args:
        root: the folder of files, or the Zarr that framecast data convert makes of it; None looks for knmi in
            $FRAMECAST_DATA or in data.
        size: side, or height and width, of the model's frames in pixels; None keeps the crop's.
        crop: rows from and to, columns from and to, before resizing.
        method: "decimate" or "mean", see ``framecast.data.grid``.
        space: "rain" or "pixel", where the mean is taken.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        blocks: shares of the frames, or numbers of frames, that train, validation and test get, one after another
            in time; of 60 frames 24, 15 and 21 by default.
        scaling: "dbz-pixel" or "log".
        nodata: "masked", or "dry" to take it as no rain.
        covariates: channels for the model to see and not to forecast, of files on the grid of the composites or of the
            frames, see ``data/covariates.py``.

    Raises:
        DatasetNotFoundError: there are no files at ``root``.
        DataError: damaged files, or options that they do not allow.
        UnknownNameError: no such scaling, method, space or nodata.
    """
    rules = make_grid(size, crop, method, space), rain_scaling(scaling)
    source = prepare_source(_frames(data_root("knmi", root)), *rules, nodata)
    parts = split_in_time(source.count, blocks)
    return cut_clips("knmi", source, parts, rules, (context, horizon), interval, every, covariates)


def _frames(root: Path) -> FrameSource:
    if is_zarr(root):
        return radar_archive(root)
    files = sorted(root.rglob("RAD_NL*.h5")) if root.is_dir() else []
    if not files:
        raise missing_files(["KNMI radar files"], root, SOURCE, FOLDER_TREE)
    return FolderSource(files, read_knmi, knmi_header)
