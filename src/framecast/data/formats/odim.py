"""Radar composites in ODIM HDF5, the format of OPERA and, since 2025, of the German Weather Service.

    value = gain * pixel + offset,   nodata: outside of what the radar sees,   undetect: seen, and nothing there

``what`` with quantity, gain, offset, nodata and undetect stands at the data (dataset1/data1/what) or, where it is
shared, at the dataset (dataset1/what); row 0 is in the north. Where gain or offset is not given, it is 1 or 0. Only
maps are read, objects COMP and IMAGE; polar volumes are none. Quantities we turn into mm/h, the first that is there:
RATE as it is; ACRR, an accumulation in mm, by its start and end; DBZH and TH by Z = 256 R^1.42, cut to -10 to 60 dBZ.
Undetected is no rain, nodata is NaN. A frame holds for the nominal time of the file.

Reference: Michelson et al., "EUMETNET OPERA weather radar information model for implementation with the HDF5 file
format", version 2.3, 2019. Source of German files: https://opendata.dwd.de; licence CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from framecast.data.formats.hdf5 import check_pixels, number, open_hdf5, text
from framecast.data.georeference import Georeference, from_corner
from framecast.data.scaling import rain_from_reflectivity
from framecast.data.sources import Frame, FrameHeader
from framecast.errors import DataError

QUANTITIES = ("RATE", "ACRR", "DBZH", "TH")
MAPS = ("COMP", "IMAGE")


def read_odim(path: str | Path, *, dataset: str = "dataset1") -> Frame:
    """Read a composite of rain.

    Args:
        path: the file.
        dataset: which of its data sets.

    Returns:
        Rain rate (1, H, W) in mm/h, row 0 in the north, NaN for no data, at the nominal time of the composite.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged, no ODIM composite, or holds no quantity of rain.
    """
    with open_hdf5(path) as file:
        data, facts = _facts(file, dataset, path)
        header, seconds = _header(file, facts, path)
        pixels = check_pixels(file[f"{data}/data"], path)
        gain = number(facts, "gain", path) if "gain" in facts else 1.0
        offset = number(facts, "offset", path) if "offset" in facts else 0.0
        marks = {name: number(facts, name, path) for name in ("nodata", "undetect") if name in facts}
    if pixels.dtype.kind != "f" and len(marks) < 2:
        absent = "undetect" if "nodata" in marks else "nodata"
        raise DataError(
            f"{path} lacks the attribute {absent}, so that dry is not to be told from no data: correct the file"
        )
    if len(marks) == 2 and marks["nodata"] == marks["undetect"]:
        raise DataError(
            f"{path} has {marks['nodata']:g} as nodata and as undetect, so that dry is not to be told from no data: "
            "correct the file"
        )
    values = pixels.astype(np.float64) * gain + offset
    quantity = text(facts, "quantity", path)
    rates = values * (3600 / seconds) if quantity in ("RATE", "ACRR") else rain_from_reflectivity(values)
    rates[pixels == marks.get("undetect", np.nan)] = 0
    rates[(pixels == marks.get("nodata", np.nan)) | np.isnan(values)] = np.nan
    return Frame(rates.astype(np.float32)[None], header)


def is_odim(path: str | Path) -> bool:
    """Return whether an HDF5 file says that it is ODIM, of whatever object."""
    try:
        with open_hdf5(path) as file:
            return "ODIM" in str(file.attrs.get("Conventions", "")) or (
                "what" in file and "object" in file["what"].attrs
            )
    except DataError:
        return False


def odim_header(path: str | Path, *, dataset: str = "dataset1") -> FrameHeader:
    """Return what a composite says without its values.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged, no ODIM composite, or holds no quantity of rain.
    """
    with open_hdf5(path) as file:
        return _header(file, _facts(file, dataset, path)[1], path)[0]


def _header(file: h5py.File, facts: Mapping[str, Any], path: Any) -> tuple[FrameHeader, int]:
    """Return the header, and the seconds over which an accumulation adds up, 3600 of others."""
    quantity, seconds = text(facts, "quantity", path), 3600
    product = quantity
    if quantity == "ACRR":
        seconds = _moment(facts, "end", path) - _moment(facts, "start", path)
        product = f"ACRR {seconds} s"
    if seconds <= 0:
        raise DataError(f"{path} adds up rain over {seconds} s: its start and end are wrong")
    time = _moment(facts, "" if "date" in facts else "end", path)
    return FrameHeader(time, "mm/h", product, _georeference(file, path)), seconds


def _facts(file: h5py.File, dataset: str, path: Any) -> tuple[str, dict[str, Any]]:
    """Return the data to read and the attributes of ``what``, those at the data over those above it."""
    kind = text(file["what"].attrs, "object", path) if "what" in file and "object" in file["what"].attrs else "COMP"
    if kind not in MAPS:
        raise DataError(f"{path} is an ODIM {kind}, not a map: give composites (objects COMP or IMAGE)")
    by_quantity: dict[str, tuple[str, dict[str, Any]]] = {}
    for number_of_data in range(1, 100):
        data = f"{dataset}/data{number_of_data}"
        if f"{data}/data" not in file:
            break
        facts: dict[str, Any] = {}
        for place in ("what", f"{dataset}/what", f"{data}/what"):
            if place in file:
                facts.update(file[place].attrs)
        by_quantity.setdefault(text(facts, "quantity", path), (data, facts))
    if not by_quantity:
        raise DataError(f"{path} has no {dataset}/data1/data: it is not an ODIM HDF5 composite")
    best = next((quantity for quantity in QUANTITIES if quantity in by_quantity), None)
    if best is None:
        raise DataError(f"{path} holds {', '.join(by_quantity)} and rain is read from {', '.join(QUANTITIES)}")
    return by_quantity[best]


def _moment(facts: Mapping[str, Any], edge: str, path: Any) -> int:
    """Return the start or end of the measurement, or the nominal time."""
    date, time = text(facts, f"{edge}date", path), text(facts, f"{edge}time", path).split(".")[0]
    try:
        if len(date) != 8 or len(time) not in (4, 6):
            raise ValueError(time)
        return int(datetime.strptime(date + time.ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise DataError(f"{path} has the time {date + time!r} and it should be YYYYMMDDHHMMSS") from error


def _georeference(file: h5py.File, path: Any) -> Georeference | None:
    """Return where the pixels are by ``where``; its corners are the outer ones of the corner pixels."""
    facts = {k: v for place in ("where", "dataset1/where") if place in file for k, v in file[place].attrs.items()}
    needed = ("projdef", "xsize", "ysize", "xscale", "yscale", "UL_lon", "UL_lat")
    if not all(name in facts for name in needed):
        return None
    numbers = {name: number(facts, name, path) for name in needed[1:]}
    projection = text(facts, "projdef", path)
    corner = _projected(projection, numbers["UL_lon"], numbers["UL_lat"])
    if corner is None or min(numbers["xsize"], numbers["ysize"]) < 1:
        return None
    # A corner written in degrees is a little beside the whole metres that it means.
    exact = [round(value) if abs(value - round(value)) < 0.01 else value for value in corner]
    steps = numbers["xscale"], numbers["yscale"]
    return from_corner(exact, steps, (int(numbers["ysize"]), int(numbers["xsize"])), projection)


@lru_cache(maxsize=64)
def _projected(projection: str, longitude: float, latitude: float) -> tuple[float, float] | None:
    """Return a place in a projection, or None where pyproj is not installed or does not know it."""
    try:
        from pyproj import Transformer
        from pyproj.exceptions import CRSError
    except ImportError:
        return None
    try:
        x, y = Transformer.from_crs("EPSG:4326", projection, always_xy=True).transform(longitude, latitude)
    except CRSError:
        return None
    return (float(x), float(y)) if np.isfinite([x, y]).all() else None
