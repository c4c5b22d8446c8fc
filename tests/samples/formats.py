"""Every format we read: how a miniature file of it is made, and how it is read by a public way."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from PIL import Image
from safetensors.torch import save_file

import framecast as fc
from framecast.data.archives import find_work, frames_of
from framecast.data.catalogue import open_parts
from framecast.data.convert import convert
from framecast.data.formats.radolan import read_radolan_forecasts
from framecast.data.formats.video import decode_into_cache
from framecast.data.joined import JoinedSource
from framecast.data.radar import read_radar
from framecast.data.sets.german_radar import RydlSource
from framecast.data.sets.moving_mnist import read_idx
from framecast.data.sets.own import open_own
from framecast.data.sets.taxibj import open_taxibj
from framecast.data.sources import ReadOptions
from framecast.errors import DataError
from framecast.reporting.results import read_examples
from framecast.training.callbacks import CheckedCheckpoints
from framecast.weights.saving import load_weights, save_weights
from samples.kth import moving_bar, video_file
from samples.own import every_kind, pixels, rain_dataset, timed, zarr_of
from samples.radar import knmi_folder, odim_file, radolan_bytes, rydl_file, seconds
from samples.stateless import continue_run, run_without_state
from samples.taxibj import dates_of, flow_file

COUNT = 6
START = seconds("2010-08-26T01:00")
RAW = np.arange(48).reshape(6, 8)


class Format(NamedTuple):
    """A format.

    Attributes:
        make: writes a file into a folder and returns the file to damage, of a Zarr its folder.
        read: reads it and returns what can be compared.
        checksum: whether damage may never change values silently.
        quick: whether it is read within some milliseconds, so that hundreds of examples are no matter.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    checksum: bool = False
    quick: bool = True


def digest(*arrays: Any) -> str:
    """Return a hash of arrays, their shapes and types."""
    found = hashlib.sha256()
    for array in arrays:
        values = np.asarray(array)
        found.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return found.hexdigest()


def read_own(path: Path) -> str:
    """Open frames as ``framecast.data`` does and read every clip."""
    data = open_own(path, context=1, horizon=1)
    return digest(*[clips[index]["frames"] for clips in data.splits.values() for index in range(len(clips))])


def _kind(name: str) -> Callable[[Path], Path]:
    return lambda folder: every_kind(folder, pixels(COUNT))[name]


def _radar_file(name: str, pack: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    return lambda folder: _written(folder / name, pack(radolan_bytes(RAW)))


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _picture(folder: Path) -> Path:
    return sorted(every_kind(folder, pixels(COUNT))["pictures"].iterdir())[0]


def _mp4(folder: Path) -> Path:
    return video_file(folder / "video.mp4", moving_bar(COUNT, 16, 16), "mpeg4", "yuv420p")


VIDEO_OF: dict[Path, Path] = {}
"""Decoded video -> the video it was made of."""


def _cached(folder: Path) -> Path:
    video = _mp4(folder)
    cached = decode_into_cache(video)
    VIDEO_OF[cached] = video
    return cached


def _fletcher(folder: Path, libver: str | None = "latest") -> Path:
    import h5py

    with h5py.File(folder / "sums.h5", "w", libver=libver) as file:
        file.create_dataset("frames", data=pixels(COUNT), chunks=(1, 6, 8), compression="gzip", fletcher32=True)
    return folder / "sums.h5"


def _converted(folder: Path) -> Path:
    zarr_of(folder / "rain.zarr", rain_dataset(COUNT))
    convert(folder / "rain.zarr", folder / "made.zarr", workers=1, progress=False)
    return folder / "made.zarr"


def _flow(folder: Path) -> Path:
    return flow_file(folder / "a.h5", dates_of("2013-03-01", 4, slots=4))


def _read_flow(path: Path) -> str:
    data = open_taxibj(root=path.parent, files=[path.name], context=1, horizon=1, test_days=1)
    return digest(*[clips[index]["frames"] for clips in data.splits.values() for index in range(len(clips))])


def _read_frame(path: Path) -> str:
    frame = read_radar(path)
    return digest(frame.values, frame.header.time, frame.header.unit)


def _read_rydl(path: Path) -> str:
    source = RydlSource(path)
    return digest(source.read(np.arange(source.count)), source.times)


def _rydl(folder: Path) -> Path:
    return rydl_file(folder / "RYDL.hdf5", {f"2016060100{minute:02}": RAW for minute in range(0, 20, 5)})


def _tar(folder: Path, mode: str = "w", name: str = "maps.tar") -> Path:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        for minute in (45, 50):
            member = radolan_bytes(RAW, stamp=f"1020{minute}")
            info = tarfile.TarInfo(f"raa01-ry_10000-14081020{minute}-dwd---bin")
            info.size = len(member)
            archive.addfile(info, io.BytesIO(member))
    return _written(folder / name, content.getvalue())


def _read_forecasts(path: Path) -> str:
    return digest(*[part for frame in read_radolan_forecasts(path) for part in (frame.values, frame.header.time)])


def _read_archive(path: Path) -> str:
    items = [item for work in find_work(path, ReadOptions()) for item in frames_of(work)]
    if any(item.frame is None for item in items) or not items:
        # A conversion lists what it cannot read and goes on: each entry names the archive.
        raise DataError("; ".join(f"{item.label}: {item.problem}" for item in items) or f"{path} holds nothing")
    return digest(*[part for item in items if item.frame for part in (item.frame.values, item.frame.header.time)])


def tiny_model() -> Any:
    """Create the smallest forecaster."""
    torch.manual_seed(0)
    return fc.create_model("convlstm", hidden=2, layers=1)


def _weights(folder: Path) -> Path:
    save_weights(tiny_model(), folder / "weights.safetensors", clips=None)
    return folder / "weights.safetensors"


def _tensors(model: Any) -> str:
    return digest(*[tensor.detach() for tensor in model.state_dict().values()])


def _read_weights(path: Path) -> str:
    model, header = load_weights(path)
    return _tensors(model) + str(header)


def _state(folder: Path) -> Path:
    CheckedCheckpoints().save_checkpoint({"state_dict": tiny_model().state_dict(), "epoch": 1}, folder / "a.ckpt")
    return folder / "a.ckpt"


def _read_state(path: Path) -> str:
    found = CheckedCheckpoints().load_checkpoint(path)
    return digest(*found["state_dict"].values(), found["epoch"])


def _plain_weights(folder: Path) -> Path:
    torch.save(_wrapped(), folder / "plain.pt")
    return folder / "plain.pt"


def _plain_safetensors(folder: Path) -> Path:
    save_file(_wrapped(), folder / "plain.safetensors")
    return folder / "plain.safetensors"


def _wrapped() -> dict[str, torch.Tensor]:
    return {"weights": torch.arange(12.0).reshape(3, 4), "bias": torch.ones(3)}


def _read_plain(path: Path) -> str:
    from framecast.weights.importing import read_tensors

    return digest(*[tensor for _, tensor in sorted(read_tensors(path).items())])


def _idx(folder: Path) -> Path:
    header = b"".join(number.to_bytes(4, "big") for number in (0x803, 3, 4, 4))
    return _written(folder / "digits.gz", gzip.compress(header + bytes(range(48))))


def _examples(folder: Path) -> Path:
    frames = pixels(COUNT)[None, :, None].astype(np.float16)
    np.savez_compressed(folder / "examples.npz", past=frames[:, :3], truth=frames[:, 3:], valid=frames > 1)
    return folder / "examples.npz"


def _gif(folder: Path) -> Path:
    pictures = [Image.fromarray(frame) for frame in pixels(COUNT)]
    pictures[0].save(folder / "moving.gif", save_all=True, append_images=pictures[1:])
    return folder / "moving.gif"


def _jpeg(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for number, frame in enumerate(pixels(COUNT)):
        Image.fromarray(frame).save(folder / "photos" / f"{number}.jpg")
    return folder / "photos" / "0.jpg"


def _swiss(folder: Path) -> Path:
    """Write a GIF as MeteoSwiss does, its classes in the palette."""
    image = Image.fromarray((RAW % 16).astype(np.uint8)).convert("P")
    image.save(folder / "AQC242171640F_00005.801.gif")
    return folder / "AQC242171640F_00005.801.gif"


def _netcdf(folder: Path) -> Path:
    rain_dataset(COUNT).to_netcdf(folder / "rain.nc", engine="h5netcdf")
    return folder / "rain.nc"


def _classic(folder: Path) -> Path:
    rain_dataset(COUNT).to_netcdf(folder / "old.nc", engine="scipy")
    return folder / "old.nc"


def _raster(driver: str, name: str) -> Callable[[Path], Path]:
    """Return what writes a map as GeoTIFF or GRIB."""

    def write(folder: Path) -> Path:
        import rasterio
        import rasterio.shutil
        from rasterio.transform import Affine

        place = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, 5, 0, -0.5, 55)}
        with rasterio.open(
            folder / "map.tif", "w", driver="GTiff", count=1, height=6, width=8, dtype="float32", nodata=-9999, **place
        ) as file:
            file.write(RAW.astype(np.float32), 1)
        if driver != "GTiff":
            rasterio.shutil.copy(folder / "map.tif", folder / name, driver=driver)
        return folder / name

    return write


def _read_parts(path: Path) -> str:
    """Read all frames of a file as ``framecast.data`` opens it, also of one that is too short for a clip."""
    source = JoinedSource(open_parts(path, ReadOptions()))
    return digest(source.read(np.arange(source.count)), *([] if source.times is None else [source.times]))


def _arrays(folder: Path) -> Path:
    xr.Dataset({"frames": (("time", "y", "x"), pixels(COUNT))}).to_zarr(folder / "plain.zarr", consolidated=False)
    return folder / "plain.zarr"


def _blosc(folder: Path) -> Path:
    frames = xr.Dataset({"frames": (("time", "y", "x"), pixels(COUNT))})
    frames.to_zarr(folder / "blosc.zarr", consolidated=False, zarr_format=2)
    return folder / "blosc.zarr"


def _odim(folder: Path) -> Path:
    return odim_file(folder / "composite.h5", RAW.astype(np.uint16))


def _knmi(folder: Path) -> Path:
    return sorted(knmi_folder(folder, [RAW], START).iterdir())[0]


def _times(folder: Path) -> Path:
    return timed(folder / "timed.h5", np.arange(COUNT) * 300 + START)


RADOLAN = "raa01-ry_10000-1408102050-dwd---bin"
FORMATS: dict[str, Format] = {
    "npy": Format(_kind("array.npy"), read_own),
    "npz": Format(_kind("archive.npz"), read_own, checksum=True),
    "HDF5": Format(_times, read_own),
    "HDF5, fletcher32": Format(_fletcher, read_own, checksum=True),
    # As others write it with h5py's defaults: values have a checksum, names, shapes and attributes have none.
    "HDF5, fletcher32, older format": Format(lambda folder: _fletcher(folder, None), read_own, quick=False),
    "HDF5, TaxiBJ": Format(_flow, _read_flow),
    "HDF5, KNMI": Format(_knmi, _read_frame),
    "HDF5, ODIM": Format(_odim, _read_frame),
    "HDF5, RYDL": Format(_rydl, _read_rydl),
    "NetCDF": Format(_netcdf, read_own),
    "NetCDF 3": Format(_classic, read_own),
    "GeoTIFF": Format(_raster("GTiff", "map.tif"), _read_parts),
    "GRIB": Format(_raster("GRIB", "map.grib2"), _read_parts),
    "Zarr": Format(_arrays, read_own),
    "Zarr 2, Blosc": Format(_blosc, read_own, quick=False),
    "Zarr, converted": Format(_converted, read_own, checksum=True, quick=False),
    "RADOLAN": Format(_radar_file(RADOLAN, bytes), _read_frame),
    "RADOLAN, gzip": Format(_radar_file(f"{RADOLAN}.gz", gzip.compress), _read_frame),
    "RADOLAN, bzip2": Format(_radar_file(f"{RADOLAN}.bz2", bz2.compress), _read_frame),
    "tar of forecasts": Format(_tar, _read_forecasts),
    "tar to convert": Format(_tar, _read_archive),
    "PNG": Format(_picture, lambda path: read_own(path.parent), checksum=True),
    "JPEG": Format(_jpeg, lambda path: read_own(path.parent)),
    "GIF": Format(_gif, read_own),
    "GIF by pysteps": Format(_swiss, _read_parts),
    "AVI": Format(_kind("video.avi"), read_own),
    "MP4": Format(_mp4, read_own),
    "decoded video": Format(_cached, lambda path: read_own(VIDEO_OF[path]), quick=False),
    "MNIST idx": Format(_idx, lambda path: digest(read_idx(path))),
    "our weights": Format(_weights, _read_weights, checksum=True),
    "training state": Format(_state, _read_state, checksum=True),
    "others' .pt": Format(_plain_weights, _read_plain),
    "others' safetensors": Format(_plain_safetensors, _read_plain),
    "run configuration": Format(lambda folder: run_without_state(folder) / "config.yaml", continue_run),
    "run provenance": Format(lambda folder: run_without_state(folder) / "provenance.json", continue_run),
    "examples.npz": Format(_examples, lambda path: digest(*read_examples(path.parent).values())),
}
