"""Radar composites in ODIM HDF5, the format of OPERA and, since 2025, of the German Weather Service.

    value = gain * pixel + offset,   nodata: outside of what the radar sees,   undetect: seen, and nothing there

``what`` with quantity, gain, offset, nodata and undetect stands at the data (dataset1/data1/what) or, where it is
shared, at the dataset (dataset1/what); row 0 is in the north. Quantities we turn into mm/h: RATE as it is; ACRR, an
accumulation in mm, by its start and end; DBZH and TH by Z = 256 R^1.42, cut to -10 to
60 dBZ. Undetected is no rain, nodata is NaN.

Reference: Michelson et al., "EUMETNET OPERA weather radar information model for implementation with the HDF5 file
format", version 2.3, 2019. Source of German files: https://opendata.dwd.de; licence CC BY 4.0.
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from framecast.data.formats.hdf5 import check_pixels, number, open_hdf5, text
from framecast.data.scaling import DbzPixel
from framecast.data.sources import Frame
from framecast.errors import DataError

QUANTITIES = ("RATE", "ACRR", "DBZH", "TH")


def read_odim(path: str | Path, *, dataset: str = "dataset1") -> Frame:
    """Read a composite of rain.

    Args:
        path: the file.
        dataset: which of its data sets.

    Returns:
        Rain rate (1, H, W) in mm/h, row 0 in the north, NaN for no data, at the end of the measurement.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged, no ODIM composite, or holds another quantity.
    """
    with open_hdf5(path) as file:
        facts = _facts(file, dataset, path)
        pixels = check_pixels(file[f"{dataset}/data1/data"], path)
        quantity = text(facts, "quantity", path)
        if quantity not in QUANTITIES:
            raise DataError(f"{path} holds {quantity} and rain is read from {', '.join(QUANTITIES)}")
        gain, offset = number(facts, "gain", path), number(facts, "offset", path)
        nodata, undetect = number(facts, "nodata", path), number(facts, "undetect", path)
        end = _moment(facts, "end", path)
        seconds = end - _moment(facts, "start", path) if quantity == "ACRR" else 3600
    if seconds <= 0:
        raise DataError(f"{path} adds up rain over {seconds} s: its start and end are wrong")
    values = pixels.astype(np.float64) * gain + offset
    rates = _rates(values, quantity) * (3600 / seconds)
    rates[pixels == undetect] = 0
    rates[(pixels == nodata) | np.isnan(values)] = np.nan
    return Frame(rates.astype(np.float32)[None], end, "mm/h")


def odim_time(path: str | Path, *, dataset: str = "dataset1") -> int:
    """Return the end of the measurement without reading the values, in seconds since 1970 UTC.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is damaged or no ODIM composite.
    """
    with open_hdf5(path) as file:
        return _moment(_facts(file, dataset, path), "end", path)


def _rates(values: NDArray[np.float64], quantity: str) -> NDArray[np.float64]:
    if quantity in ("RATE", "ACRR"):
        return values
    relation = DbzPixel()
    pixels = (values - relation.low_dbz) / (relation.high_dbz - relation.low_dbz)
    return relation.unscale(torch.from_numpy(pixels)).numpy()


def _facts(file: h5py.File, dataset: str, path: Any) -> dict[str, Any]:
    """Return the attributes of ``what``, those at the data over those at the data set over those of the file."""
    if f"{dataset}/data1/data" not in file:
        raise DataError(f"{path} has no {dataset}/data1/data: it is not an ODIM HDF5 composite")
    facts: dict[str, Any] = {}
    for place in ("what", f"{dataset}/what", f"{dataset}/data1/what"):
        if place in file:
            facts.update(file[place].attrs)
    return facts


def _moment(facts: Mapping[str, Any], edge: str, path: Any) -> int:
    """Return the start or end of the measurement; a file without them holds for its nominal time."""
    prefix = edge if f"{edge}date" in facts else ""
    stamp = text(facts, f"{prefix}date", path) + text(facts, f"{prefix}time", path)
    try:
        return timegm(datetime.strptime(stamp, "%Y%m%d%H%M%S").timetuple())
    except ValueError as error:
        raise DataError(f"{path} has the time {stamp!r} and it should be YYYYMMDDHHMMSS") from error
