"""Rain over the Netherlands in mm/h: KNMI's 5-minute radar composites as HDF5, 765 x 700 pixels of 1 km.

    image1/image_data            (765, 700) uint16, row 0 in the north
    image1/calibration           calibration_formulas "GEO=0.01*PV+0.0", mm; 65535 is no data
    overview                     product_datetime_start and _end, such as "26-AUG-2010;00:05:00.000"

Files are named RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5. The frames of a folder are divided among the three splits in
consecutive blocks, so no clip spans a border.

Source: Royal Netherlands Meteorological Institute (KNMI), https://dataplatform.knmi.nl. Licence: CC BY 4.0; name KNMI
as the source. Reference: Overeem, Holleman and Buishand, "Derivation of a 10-Year Radar-Based Climatology of
Rainfall", J. Appl. Meteorol. Climatol. 48, 2009, doi:10.1175/2009JAMC1954.1.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from framecast.data.clips import SPLITS, ClipData, Split, data_root, missing_files
from framecast.data.formats.arrays import is_zarr
from framecast.data.formats.hdf5 import check_pixels, number, open_hdf5, text
from framecast.data.georeference import Georeference, from_corner
from framecast.data.grid import Method, Space
from framecast.data.joined import FolderSource
from framecast.data.radar import Crop, cut_clips, make_grid, prepare_source, radar_archive, rain_scaling
from framecast.data.sources import Frame, FrameHeader, FrameSource, Indices
from framecast.errors import DataError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
STAMP = re.compile(r"(\d{2})-([A-Z]{3})-(\d{4});(\d{2}):(\d{2}):(\d{2})(?:\.\d+)?")
FORMULA = re.compile(r"GEO\s*=\s*([-+.\deE]+)\s*\*\s*PV\s*(?:([-+][.\deE]+))?")


def read_knmi(path: str | Path) -> Frame:
    """Read a KNMI composite of accumulated rain.

    Returns:
        Rain rate (1, H, W) in mm/h, row 0 in the north, NaN for no data, at the end of the accumulation.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged, lacks a group, or its calibration or times cannot be understood.
    """
    with open_hdf5(path) as file:
        if "image1/image_data" not in file or "image1/calibration" not in file:
            raise DataError(f"{path} has no image1/image_data with its calibration: it is not a KNMI radar composite")
        calibration = file["image1/calibration"].attrs
        formula = FORMULA.fullmatch(text(calibration, "calibration_formulas", path))
        if not formula:
            raise DataError(
                f"{path} has the calibration {text(calibration, 'calibration_formulas', path)!r}: not known"
            )
        slope, start_value = float(formula[1]), float(formula[2] or 0)
        header, (start, end) = _header(file, path), _times(file, path)
        if end <= start:
            raise DataError(
                f"{path} adds up rain from {start} to {end} s, which is not a time: its overview is damaged"
            )
        pixels = check_pixels(file["image1/image_data"], path)
        empty = {number(calibration, key, path) for key in ("calibration_missing_data", "calibration_out_of_image")}
    amounts = pixels.astype(np.float64) * slope + start_value
    rates = (amounts * (3600 / (end - start))).astype(np.float32)
    rates[np.isin(pixels, list(empty))] = np.nan
    return Frame(rates[None], header)


def knmi_header(path: str | Path) -> FrameHeader:
    """Return what a composite says without its values; its time is the end of the accumulation.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged or its times cannot be understood.
    """
    with open_hdf5(path) as file:
        return _header(file, path)


def _header(file: h5py.File, path: Any) -> FrameHeader:
    start, end = _times(file, path)
    return FrameHeader(end, "mm/h", f"KNMI {end - start} s", _georeference(file, path))


def _georeference(file: h5py.File, path: Any) -> Georeference | None:
    """Return where the pixels are by ``geographic``, which counts in kilometres."""
    if "geographic/map_projection" not in file:
        return None
    facts, projection = file["geographic"].attrs, file["geographic/map_projection"].attrs
    names = ("geo_column_offset", "geo_row_offset", "geo_pixel_size_x", "geo_pixel_size_y", "geo_number_columns",
             "geo_number_rows")  # fmt: skip
    if not all(name in facts for name in names) or "projection_proj4_params" not in projection:
        return None
    left, top, across, down, width, height = (number(facts, name, path) for name in names)
    if min(width, height) < 1 or across <= 0 or down >= 0:
        return None
    words = text(projection, "projection_proj4_params", path)
    metres = re.sub(r"\+([ab])=([\d.]+)", lambda axis: f"+{axis[1]}={1000 * float(axis[2]):.10g}", words) + " +units=m"
    corner = 1000 * left * across, 1000 * top * down
    return from_corner(corner, (1000 * across, -1000 * down), (int(height), int(width)), metres)


def _times(file: h5py.File, path: Any) -> tuple[int, int]:
    if "overview" not in file:
        raise DataError(f"{path} has no overview: it is not a KNMI radar composite")
    attributes = file["overview"].attrs
    start, end = (_seconds(text(attributes, f"product_datetime_{edge}", path), path) for edge in ("start", "end"))
    return start, end


def _seconds(stamp: str, path: Any) -> int:
    # Month names by hand: strptime would follow the machine's language.
    match = STAMP.fullmatch(stamp)
    if not match or match[2] not in MONTHS:
        raise DataError(f"{path} has the time {stamp!r} and it should be like 26-AUG-2010;00:05:00.000")
    day, year, hour, minute, second = (int(match[group]) for group in (1, 3, 4, 5, 6))
    try:
        return timegm(datetime(year, MONTHS.index(match[2]) + 1, day, hour, minute, second).timetuple())
    except ValueError as error:
        raise DataError(f"{path} has the time {stamp!r}: {error}") from error


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
        raise missing_files(["KNMI radar files"], root, SOURCE, FOLDER_TREE)
    return FolderSource(files, read_knmi, knmi_header)


def _blocks(count: int, blocks: Sequence[float]) -> dict[Split, Indices]:
    """Deal frames to the splits in their order."""
    total = sum(blocks)
    if len(blocks) != len(SPLITS) or min(blocks) < 0 or not total:
        raise DataError(f"blocks are three shares or three numbers of frames and got {list(blocks)}")
    counts = np.asarray(blocks, np.float64) * (count if total <= 1 + 1e-9 else 1)
    edges = np.concatenate([[0], counts.cumsum()]).round().astype(int)
    if edges[-1] > count:
        raise DataError(f"blocks {list(blocks)} ask for {edges[-1]} frames and there are {count}: lower them")
    return {split: np.arange(edges[i], edges[i + 1]) for i, split in enumerate(SPLITS)}
