"""Write a forecast: an array, an animation and, where it is known when and where it holds, NetCDF and GeoTIFF.

NetCDF follows the CF conventions 1.11: ``time`` is when a frame holds, ``forecast_reference_time`` the last frame seen,
and coordinates with a grid mapping say where the pixels are. The GeoTIFF has a band for each lead time.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framecast.data.georeference import Georeference, cf_coordinates
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
        georeference: where the pixels are, or None.
        pace: seconds between frames of a film, which is then shown at its own pace; or None.
        facts: how the past was read, a line each.
        files: what was written of it.
        members: of an ensemble, (N, M, horizon, C, H, W), of which the frames are a mean; or None.
        mean: which one, "plain" or "matched".
        thresholds: of the probabilities.
        probability: (N, K, horizon, C, H, W) shares of the members that reach the thresholds, or None.
    """

    past: NDArray[np.float32]
    frames: NDArray[np.float32]
    unit: str
    scaling: Scaling
    times: NDArray[np.int64] | None
    georeference: Georeference | None = None
    pace: float | None = None
    facts: Sequence[str] = ()
    files: Sequence[Path] = ()
    members: NDArray[np.float32] | None = None
    mean: str = "plain"
    thresholds: Sequence[float] = ()
    probability: NDArray[np.float32] | None = None


NAMES = (*(f"forecast.{ending}" for ending in ("npy", "gif", "mp4", "nc", "tif")), "members.npy", "probability.npy")
"""Files of a forecast."""
SLOWEST_FILM = 2.0
"""Seconds between frames up to which they are shown at their own pace."""


def write_forecast(forecast: Forecast, folder: Path) -> list[Path]:
    """Write forecast.npy and forecast.gif and, with times and xarray, forecast.nc; return their paths.

    Where the place is known and rasterio is installed, forecast.tif too; of a film, with PyAV, forecast.mp4. Files of a
    forecast that was there before are gone.

    Raises:
        OSError: the folder cannot be written.
    """
    files = {"forecast.npy": _saved(forecast.frames), "forecast.gif": _animation(forecast)}
    if forecast.members is not None:
        files["members.npy"] = _saved(forecast.members)
    if forecast.probability is not None and forecast.thresholds:
        files["probability.npy"] = _saved(forecast.probability)
    if forecast.pace and forecast.pace <= SLOWEST_FILM:
        film = _animation(forecast, "MP4")
        if film:
            files["forecast.mp4"] = film
    if forecast.times is not None and len(forecast.frames) == 1:
        content = netcdf(
            forecast.frames[0], forecast.times[-forecast.frames.shape[1] :], forecast.unit, forecast.georeference,
            int(forecast.times[forecast.past.shape[1] - 1]), forecast,
        )  # fmt: skip
        if content:
            files["forecast.nc"] = content
    if forecast.georeference is not None and forecast.frames.shape[0] == forecast.frames.shape[2] == 1:
        picture = geotiff(forecast)
        if picture:
            files["forecast.tif"] = picture
    for name in set(NAMES) - set(files):
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _saved(values: NDArray[np.float32]) -> bytes:
    saved = io.BytesIO()
    np.save(saved, values, allow_pickle=False)
    return saved.getvalue()


def _animation(forecast: Forecast, kind: Literal["GIF", "MP4"] = "GIF") -> bytes:
    """Return past and forecast as a moving picture, a film's at its own pace; of no bytes where it cannot be made."""
    style = clip_style(forecast.unit, forecast.scaling, forecast.georeference)
    both = np.concatenate([forecast.past[0], forecast.frames[0]])
    captions = time_labels(forecast.times) if forecast.times is not None else []
    options = dict(style.animate)
    if forecast.pace and forecast.pace <= SLOWEST_FILM:
        options["milliseconds"] = 1000 * forecast.pace
    panels = {"": (both, forecast.past.shape[1])}
    return animation(panels, paint=style.paint, captions=captions, kind=kind, **options)


def netcdf(
    frames: NDArray[np.float32],
    times: NDArray[np.int64],
    unit: str,
    place: Georeference | None = None,
    reference: int | None = None,
    ensemble: Forecast | None = None,
) -> bytes | None:
    """Return frames (T, C, H, W) as a NetCDF 4 file, or None where xarray or h5netcdf is not installed.

    Args:
        frames: in physical units, NaN where there is no data.
        times: (T,) seconds since 1970 UTC.
        unit: of the values.
        place: where the pixels are, or None.
        reference: seconds since 1970 UTC of the last frame that the forecast has seen, or None.
        ensemble: whose members and probabilities are added, where it has some.
    """
    try:
        import h5netcdf  # noqa: F401
        import xarray
    except ImportError:
        return None
    unit_names = unit_facts(unit)
    name = unit_names.variable if unit_names.standard_name else "forecast"
    facts: dict[str, Any] = {"units": unit_names.cf or unit, "long_name": f"forecast in {unit}"}
    if unit_names.standard_name:
        facts["standard_name"] = unit_names.standard_name
    stamps = times.astype("datetime64[s]").astype("datetime64[ns]")
    variable = xarray.DataArray(frames, dims=("time", "channel", "y", "x"), coords={"time": stamps}, attrs=facts)
    if frames.shape[1] == 1:
        variable = variable[:, 0]
    variable["time"].attrs = {"standard_name": "time", "axis": "T", "long_name": "time for which the frame holds"}
    variable["time"].attrs["units_metadata"] = "leap_seconds: none"
    data = variable.to_dataset(name=name).assign_attrs(
        Conventions="CF-1.11",
        title=f"Forecast of {len(frames)} frames",
        source="framecast",
        history="framecast predict",
    )
    clock = {
        "units": "seconds since 1970-01-01 00:00:00",
        "calendar": "standard",
        "dtype": "int64",
        "_FillValue": None,
    }
    packed: dict[Any, dict[str, Any]] = {name: {"zlib": True, "_FillValue": np.float32(np.nan)}, "time": clock}
    if ensemble is not None and ensemble.members is not None:
        comment = " (comment: probability-matched)" if ensemble.mean == "matched" else ""
        data[name].attrs["cell_methods"] = f"realization: mean{comment}"
        _add_members(data, name, ensemble, packed)
    if reference is not None:
        stamp = np.array(reference, "datetime64[s]").astype("datetime64[ns]")
        facts = {"standard_name": "forecast_reference_time", "long_name": "time of the last frame seen",
                 "units_metadata": "leap_seconds: none"}  # fmt: skip
        data["forecast_reference_time"] = ((), stamp, facts)
        packed["forecast_reference_time"] = clock
    if place is not None:
        coordinates, mapping = cf_coordinates(place)
        data = data.assign_coords({axis: (axis, values, facts) for axis, (values, facts) in coordinates.items()})
        packed |= {axis: {"_FillValue": None} for axis in coordinates}
        if mapping:
            data["crs"] = ((), np.int32(0), mapping)
            for variable_name in (name, f"{name}_members", "probability"):
                if variable_name in data:
                    data[variable_name].attrs["grid_mapping"] = "crs"
    return bytes(data.to_netcdf(engine="h5netcdf", encoding=packed))


def _add_members(data: Any, name: str, forecast: Forecast, packed: dict[Any, dict[str, Any]]) -> None:
    """Add members and probabilities of the one clip of a forecast to a data set."""
    members = forecast.members
    assert members is not None
    axes = ("time", "channel", "y", "x") if members.shape[3] > 1 else ("time", "y", "x")

    def one(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values[0] if len(axes) == 4 else values[0, :, :, 0]

    numbers = np.arange(members.shape[1], dtype=np.int32)
    data["realization"] = ("realization", numbers, {"standard_name": "realization", "long_name": "member"})
    facts = {key: value for key, value in data[name].attrs.items() if key != "cell_methods"}
    data[f"{name}_members"] = (("realization", *axes), one(members), facts)
    packing = {"zlib": True, "_FillValue": np.float32(np.nan)}
    packed |= {f"{name}_members": packing, "realization": {"_FillValue": None}}
    if forecast.probability is None or not forecast.thresholds:
        return
    values = np.asarray(forecast.thresholds, np.float64)
    data["threshold"] = ("threshold", values, {"units": data[name].attrs["units"], "long_name": "threshold"})
    text = "share of the members that reach the threshold"
    data["probability"] = (("threshold", *axes), one(forecast.probability), {"units": "1", "long_name": text})
    packed |= {"probability": packing, "threshold": {"_FillValue": None}}


def geotiff(forecast: Forecast) -> bytes | None:
    """Return a forecast of one clip and channel as a cloud-optimised GeoTIFF, a band for each lead time.

    None where rasterio is not installed, or the projection is not known or the pixels are not of one size.
    """
    place, frames = forecast.georeference, forecast.frames[0, :, 0]
    try:
        from rasterio.crs import CRS
        from rasterio.errors import CRSError
        from rasterio.io import MemoryFile
        from rasterio.transform import Affine
    except ImportError:
        return None
    if place is None or not place.crs or not place.regular:
        return None
    if not place.north_up:
        place, frames = place.turned(), frames[:, ::-1]
    (left, top), (down, across) = place.corner(), place.pixel
    try:
        crs = CRS.from_user_input(place.crs)
    except CRSError:
        return None
    height, width = place.size
    with MemoryFile() as memory:
        with memory.open(
            driver="COG", width=width, height=height, count=len(frames), dtype="float32", nodata=np.nan, crs=crs,
            transform=Affine(across, 0, left, 0, -down, top),
        ) as file:  # fmt: skip
            file.write(frames)
            file.units = [forecast.unit] * len(frames)
            if forecast.times is not None:
                labels = time_labels(forecast.times[-len(frames) :])
                for band, label in enumerate(labels, 1):
                    file.set_band_description(band, label)
        return bytes(memory.read())
