"""Radar composites of KNMI as HDF5: rain in 5 minutes over the Netherlands, 765 x 700 pixels of 1 km.

    image1/image_data            (765, 700) uint16, row 0 in the north
    image1/calibration           calibration_formulas "GEO=0.01*PV+0.0", mm; 65535 is no data
    overview                     product_datetime_start and _end, such as "26-AUG-2010;00:05:00.000"

Files are named RAD_NL25_RAP_5min_YYYYMMDDHHMM.h5. We return mm/h.

Source: Royal Netherlands Meteorological Institute (KNMI), https://dataplatform.knmi.nl. Licence: CC BY 4.0.
Reference: Overeem, Holleman and Buishand, "Derivation of a 10-Year Radar-Based Climatology of Rainfall",
J. Appl. Meteorol. Climatol. 48, 2009, doi:10.1175/2009JAMC1954.1.
"""

from __future__ import annotations

import re
from calendar import timegm
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from framecast.datasets.formats.hdf5 import check_pixels, number, open_hdf5, text
from framecast.datasets.windows import Frame
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
            raise DataError(f"{path} has no image1/image_data with its calibration: it is no KNMI radar composite")
        calibration = file["image1/calibration"].attrs
        formula = FORMULA.fullmatch(text(calibration, "calibration_formulas", path))
        if not formula:
            raise DataError(
                f"{path} has the calibration {text(calibration, 'calibration_formulas', path)!r}: not known"
            )
        slope, start_value = float(formula[1]), float(formula[2] or 0)
        start, end = _times(file, path)
        if end <= start:
            raise DataError(f"{path} adds up rain from {start} to {end} s, which is no time: its overview is damaged")
        pixels = check_pixels(file["image1/image_data"], path)
        empty = {number(calibration, key, path) for key in ("calibration_missing_data", "calibration_out_of_image")}
    amounts = pixels.astype(np.float64) * slope + start_value
    rates = (amounts * (3600 / (end - start))).astype(np.float32)
    rates[np.isin(pixels, list(empty))] = np.nan
    return Frame(rates[None], end, "mm/h")


def knmi_time(path: str | Path) -> int:
    """Return the end of the accumulation without reading the values, in seconds since 1970 UTC.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged or its times cannot be understood.
    """
    with open_hdf5(path) as file:
        return _times(file, path)[1]


def _times(file: h5py.File, path: Any) -> tuple[int, int]:
    if "overview" not in file:
        raise DataError(f"{path} has no overview: it is no KNMI radar composite")
    attributes = file["overview"].attrs
    start, end = (_seconds(text(attributes, f"product_datetime_{edge}", path), path) for edge in ("start", "end"))
    return start, end


def _seconds(stamp: str, path: Any) -> int:
    # Month names by hand: strptime would follow the machine's language.
    found = STAMP.fullmatch(stamp)
    if not found or found[2] not in MONTHS:
        raise DataError(f"{path} has the time {stamp!r} and it should be like 26-AUG-2010;00:05:00.000")
    day, year, hour, minute, second = (int(found[group]) for group in (1, 3, 4, 5, 6))
    try:
        return timegm(datetime(year, MONTHS.index(found[2]) + 1, day, hour, minute, second).timetuple())
    except ValueError as error:
        raise DataError(f"{path} has the time {stamp!r}: {error}") from error
