"""Files that claim to be far larger than they are."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import zarr

MIB = 1024**2
MOST_GROWTH = 150 * MIB


def npy_header(shape: str, kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _npy(path: Path) -> None:
    path.write_bytes(npy_header("(4, 65536, 65536)"))


def _npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("frames.npy", npy_header("(4, 65536, 65536)") + bytes(64))


def _npz_bomb(path: Path) -> None:
    np.savez_compressed(path, frames=np.zeros((4, 4096, 4096), np.uint8))
    assert path.stat().st_size * 900 < 4 * 4096**2


def _hdf5(path: Path, shape: tuple[int, ...] = (10, 10**6, 10**5)) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", shape, "f4", chunks=(1, 16, 16))


def _hdf5_long(path: Path) -> None:
    _hdf5(path, (10**12, 16, 16))


def _hdf5_times(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["frames"] = np.zeros((4, 4, 4))
        file.create_dataset("time", (10**12,), "f8", chunks=(1024,))


def _netcdf(path: Path) -> None:
    _hdf5(path)


def _zarr(path: Path) -> None:
    zarr.create_array(path, shape=(10, 10**6, 10**5), chunks=(1, 16, 16), dtype="f4")


def _zarr_chunk(path: Path) -> None:
    zarr.create_array(path, shape=(4, 8, 8), chunks=(4, 10**6, 10**6), dtype="f4")


def _png(path: Path) -> None:
    path.mkdir()
    head = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    parts = [struct.pack(">I", len(head) - 4), head, struct.pack(">I", zlib.crc32(head)), bytes(12)]
    (path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _gif(path: Path) -> None:
    path.write_bytes(b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\x00\x00" + bytes(6) + b",\x00\x00\x00\x00"
                     + struct.pack("<HH", 65_535, 65_535) + b"\x00\x02\x02L\x01\x00;")  # fmt: skip


def _jpeg(path: Path) -> None:
    path.mkdir()
    sizes = struct.pack(">HBHHB", 11, 8, 50_000, 50_000, 1) + b"\x01\x11\x00"
    (path / "0.jpg").write_bytes(b"\xff\xd8\xff\xc0" + sizes + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9")


def _pgm(path: Path) -> None:
    path.write_bytes(gzip.compress(b"P5\n# claims\n90000 90000\n255\n" + bytes(100)))


def _video(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 12, 16, "gray"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(np.zeros((12, 16), np.uint8), "gray")),
                       *stream.encode()]:  # fmt: skip
            container.mux(packet)
    content = path.read_bytes()
    small, large = struct.pack("<II", 16, 12), struct.pack("<II", 60_000, 60_000)
    assert small in content
    path.write_bytes(content.replace(small, large))


CLAIMS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "npy": ("a.npy", _npy),
    "npz": ("a.npz", _npz),
    "npz of zeros": ("a.npz", _npz_bomb),
    "HDF5": ("a.h5", _hdf5),
    "HDF5 of many frames": ("a.h5", _hdf5_long),
    "HDF5 of many times": ("a.h5", _hdf5_times),
    "NetCDF": ("a.nc", _netcdf),
    "Zarr": ("a.zarr", _zarr),
    "Zarr of one chunk": ("a.zarr", _zarr_chunk),
    "PNG": ("pictures", _png),
    "GIF": ("a.gif", _gif),
    "JPEG": ("photos", _jpeg),
    "GIF by pysteps": ("AQC242171640F_00005.801.gif", _gif),
    "PGM by pysteps": ("202401011200_fmi.radar.composite.lowest_FIN_SUOMI1.pgm.gz", _pgm),
    "video": ("a.avi", _video),
}
