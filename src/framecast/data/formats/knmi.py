"""KNMI's radar composites as HDF5: rain added up over a few minutes.

    image1/image_data            (765, 700) uint16, row 0 in the north
    image1/calibration           calibration_formulas "GEO=0.01*PV+0.0", mm; 65535 is no data
    overview                     product_datetime_start and _end, such as "26-AUG-2010;00:05:00.000"
    geographic                   the projection, and offset and size of the pixels in kilometres

Files are named RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from framecast.data.formats.hdf5 import check_pixels, number, open_hdf5, text
from framecast.data.georeference import Georeference, from_corner
from framecast.data.sources import Frame, FrameHeader
from framecast.errors import DataError
from framecast.registry import RAIN_RATE

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
        header, calibration = _header(file, path), file_calibration(file, path)
        pixels = check_pixels(file["image1/image_data"], path)
    return Frame(calibration.rates(pixels)[None], header)


class Calibration(NamedTuple):
    """How pixels become rain rates.

    Attributes:
        slope: millimetres a count.
        start: millimetres of the count 0.
        empty: counts that are no data.
        seconds: over which rain is added up.
    """

    slope: float
    start: float
    empty: tuple[float, ...]
    seconds: int

    def rates(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return rain rates in mm/h, NaN for no data."""
        amounts = pixels.astype(np.float64) * self.slope + self.start
        rates = (amounts * (3600 / self.seconds)).astype(np.float32)
        rates[np.isin(pixels, self.empty)] = np.nan
        return rates


def file_calibration(file: h5py.File, path: Any) -> Calibration:
    """Return how the pixels of an open file become rain rates.

    Raises:
        DataError: its formula or its times cannot be understood.
    """
    facts = file["image1/calibration"].attrs
    formula = FORMULA.fullmatch(text(facts, "calibration_formulas", path))
    if not formula:
        raise DataError(f"{path} has the calibration {text(facts, 'calibration_formulas', path)!r}: not known")
    start, end = _times(file, path)
    if end <= start:
        raise DataError(f"{path} adds up rain from {start} to {end} s, which is not a time: its overview is damaged")
    empty = (number(facts, key, path) for key in ("calibration_missing_data", "calibration_out_of_image"))
    return Calibration(float(formula[1]), float(formula[2] or 0), tuple(empty), end - start)


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
    return FrameHeader(end, RAIN_RATE, product_name(end - start), file_georeference(file, path))


def product_name(seconds: int) -> str:
    """Return what rain that is added up over so many seconds is called."""
    return f"KNMI {seconds} s"


def file_georeference(file: h5py.File, path: Any) -> Georeference | None:
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
