"""Write a forecast: an array, an animation and, if its times are known, NetCDF by CF conventions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framecast.data.scaling import Scaling
from framecast.data.units import unit_facts
from framecast.files import write_atomically
from framecast.reporting.clips import clip_style, time_labels
from framecast.reporting.pictures import animation


class Forecast(NamedTuple):
    """A forecast and what it started from, in physical units, NaN where there is no data.

    Attributes:
        past: (N, T, C, H, W).
        frames: (N, horizon, C, H, W).
        unit: of the values.
        scaling: between physical values and the model's numbers.
        times: (T + horizon,) int64 seconds since 1970 UTC, or None.
    """

    past: NDArray[np.float32]
    frames: NDArray[np.float32]
    unit: str
    scaling: Scaling
    times: NDArray[np.int64] | None


def write_forecast(forecast: Forecast, folder: Path) -> list[Path]:
    """Write forecast.npy and forecast.gif and, with times and xarray, forecast.nc; return their paths.

    Raises:
        OSError: the folder cannot be written.
    """
    saved = io.BytesIO()
    np.save(saved, forecast.frames)
    files = {"forecast.npy": saved.getvalue(), "forecast.gif": _animation(forecast)}
    if forecast.times is not None and len(forecast.frames) == 1:
        content = netcdf(forecast.frames[0], forecast.times[-forecast.frames.shape[1] :], forecast.unit)
        if content:
            files["forecast.nc"] = content
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _animation(forecast: Forecast) -> bytes:
    style = clip_style(forecast.unit, forecast.scaling)
    both = np.concatenate([forecast.past[0], forecast.frames[0]])
    captions = time_labels(forecast.times) if forecast.times is not None else []
    return animation({"": (both, forecast.past.shape[1])}, paint=style.paint, captions=captions, **style.animate)


def netcdf(frames: NDArray[np.float32], times: NDArray[np.int64], unit: str) -> bytes | None:
    """Return frames (T, C, H, W) as a NetCDF 4 file, or None where xarray or h5netcdf is not installed."""
    try:
        import h5netcdf  # noqa: F401
        import xarray
    except ImportError:
        return None
    unit_names = unit_facts(unit)
    name = unit_names.variable if unit_names.standard_name else "forecast"
    facts: dict[str, Any] = {"units": unit_names.cf or unit}
    if unit_names.standard_name:
        facts["standard_name"] = unit_names.standard_name
    stamps = times.astype("datetime64[s]").astype("datetime64[ns]")
    variable = xarray.DataArray(frames, dims=("time", "channel", "y", "x"), coords={"time": stamps}, attrs=facts)
    if frames.shape[1] == 1:
        variable = variable[:, 0]
    data = variable.to_dataset(name=name).assign_attrs(Conventions="CF-1.7", source="framecast")
    packed: dict[Any, dict[str, Any]] = {
        name: {"zlib": True, "_FillValue": np.float32(np.nan)},
        "time": {"units": "seconds since 1970-01-01"},
    }
    return bytes(data.to_netcdf(engine="h5netcdf", encoding=packed))
