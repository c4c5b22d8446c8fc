"""Radar pixels that are converted into one archive, and what must stand in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from framecast.data.convert import ConversionReport, convert
from samples.radar import seconds

START = seconds("2010-08-26T01:00")


def converted(source: Path, target: Path, **options: Any) -> ConversionReport:
    return convert(source, target, **{"workers": 1, "progress": False, **options})


def raw(count: int = 20, seed: int = 0) -> Any:
    """Draw KNMI pixels of 0.01 mm in 5 minutes, some of them no data."""
    values = np.random.default_rng(seed).integers(0, 300, (count, 6, 8), np.uint16)
    values[:, 0, :2] = 65535
    return values


def expected(values: Any) -> Any:
    return np.where(values == 65535, np.nan, values * 0.12).astype(np.float32)


def values_of(path: Path) -> Any:
    return xr.open_zarr(path, consolidated=False, chunks=None)
