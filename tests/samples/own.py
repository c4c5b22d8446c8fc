"""Miniature files of a user's own, of every kind, from one array."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from PIL import Image

from framecast.data.clips import ClipData
from samples.kth import video_file

KINDS = ("array.h5", "array.nc", "array.npy", "array.zarr", "archive.npz", "moving.gif", "pictures", "video.avi")
"""The files that ``every_kind`` writes."""

TIMES = np.datetime64("2017-06-01T12:00", "s")


def pixels(count: int = 40, height: int = 6, width: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    """Draw frames (T, H, W) uint8, each different."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)


def stamps(count: int, seconds: int = 300) -> NDArray[np.datetime64]:
    """Return time stamps at equal steps."""
    return TIMES + np.arange(count) * np.timedelta64(seconds, "s")


def rain_dataset(count: int = 40, **attributes: Any) -> xr.Dataset:
    """Make frames in the layout of mlcast's archives: rainfall_rate (time, y, x), NaN where there is no data."""
    rates = np.random.default_rng(0).gamma(0.5, 2, (count, 6, 8)).astype(np.float32)
    rates[:, 0, :3] = np.nan
    return xr.Dataset(
        {
            "rainfall_rate": (
                ("time", "y", "x"),
                rates,
                {"units": "mm h-1", "standard_name": "rainfall_rate", **attributes},
            ),
            "crs": ((), np.int8(0), {"grid_mapping_name": "stereographic"}),
        },
        coords={
            "time": ("time", stamps(count).astype("datetime64[ns]")),
            "y": ("y", np.arange(6)[::-1] * 1000.0, {"standard_name": "projection_y_coordinate"}),
            "x": ("x", np.arange(8) * 1000.0, {"standard_name": "projection_x_coordinate"}),
            "lat": (("y", "x"), np.zeros((6, 8))),
        },
    )


def png_folder(folder: Path, frames: NDArray[Any], name: str = "frame_{}.png") -> Path:
    """Write pictures named by number, without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(number))
    return folder


def every_kind(folder: Path, frames: NDArray[np.uint8]) -> dict[str, Path]:
    """Write the same frames (T, H, W) uint8 in every format that keeps them exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "array.npy", frames)
    np.savez(folder / "archive.npz", frames=frames)
    with h5py.File(folder / "array.h5", "w") as file:
        file.create_dataset("frames", data=frames, chunks=(1, *frames.shape[1:]), compression="gzip")
    dataset = xr.Dataset({"frames": (("time", "y", "x"), frames)})
    dataset.to_netcdf(folder / "array.nc", engine="h5netcdf")
    dataset.to_zarr(folder / "array.zarr", consolidated=False)
    pictures = [Image.fromarray(frame) for frame in frames]
    pictures[0].save(folder / "moving.gif", save_all=True, append_images=pictures[1:])
    video_file(folder / "video.avi", frames)
    png_folder(folder / "pictures", frames)
    return {path.name: path for path in sorted(folder.iterdir())}


SHORT: dict[str, Any] = {"context": 2, "horizon": 2}


def save(path: Path, array: Any) -> Path:
    """Save an array and return the path."""
    np.save(path, array)
    return path


def zarr_of(path: Path, dataset: xr.Dataset, **options: Any) -> Path:
    """Write a Zarr and return the path."""
    dataset.to_zarr(path, consolidated=False, **options)
    return path


def lengths(data: ClipData) -> list[int]:
    """Return the clips of train, validation and test."""
    return [len(clips) for clips in data.splits.values()]


def timed(path: Path, times: Any, count: int | None = None, **attributes: Any) -> Path:
    """Write an HDF5 file of random frames and their time stamps."""
    frames = np.random.default_rng(0).random((count or len(times), 6, 8))
    with h5py.File(path, "w") as file:
        file["rain"] = frames
        file["time"] = times
        file["time"].attrs.update(attributes)
    return path


def video(path: Path, shown: Any, rate: int = 25) -> Path:
    """Write a video whose frames are shown at these times, in seconds."""
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate)
        stream.height = stream.width = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for number, moment in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * moment), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path
