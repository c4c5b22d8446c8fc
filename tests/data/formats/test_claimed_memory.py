"""No parser takes the memory that a file only claims: each reads such a file in a process whose peak is looked at."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import resource
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from samples.formats import FORMATS, RAW
from samples.mutations import run_apart
from samples.radar import radolan_bytes
from samples.sizes import CLAIMS, MIB, MOST_GROWTH

from framecast.files import write_checked
from framecast.training.callbacks import KIND

MOST_AT_ALL = 1024 * MIB
GRID, LARGE = b"GP   6x   8", b"GP9999x9999"


def larger_arrays(path: Path) -> None:
    """Give every array of a file of HDF5 a shape that nobody can hold, and nothing in it."""
    with h5py.File(path, "r+") as file:
        arrays: list[str] = []
        file.visititems(lambda name, node: arrays.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in arrays:
            old = file[name]
            facts, kind, rank = dict(old.attrs), old.dtype, old.ndim
            if rank < 2:
                continue
            del file[name]
            shape = (*[4] * (rank - 2), 10**6, 10**5)
            file.create_dataset(name, shape, kind, chunks=(*[1] * (rank - 2), 16, 16)).attrs.update(facts)


def _radolan(pack: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pack(radolan_bytes(RAW) + bytes(200 * MIB)))


def _tar(path: Path) -> None:
    """Write a member that unpacks to far more than the archive holds, and one whose header claims a terabyte."""
    with tarfile.open(path, "w") as archive:
        packed = gzip.compress(radolan_bytes(RAW) + bytes(200 * MIB))
        info = tarfile.TarInfo("raa01-ry_10000-1408102045-dwd---bin.gz")
        info.size = len(packed)
        archive.addfile(info, io.BytesIO(packed))
        info = tarfile.TarInfo("raa01-ry_10000-1408102050-dwd---bin")
        info.size = 10**12
        archive.fileobj.write(info.tobuf())  # type: ignore[union-attr]


def _safetensors(path: Path) -> None:
    facts = json.dumps({"a": {"dtype": "F64", "shape": [10**9, 8], "data_offsets": [0, 64 * 10**9]}}).encode()
    path.write_bytes(struct.pack("<Q", len(facts)) + facts + bytes(64))


def _packed_torch() -> bytes:
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(50 * MIB)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return packed.getvalue()


def _examples(path: Path) -> None:
    np.savez_compressed(path, past=np.zeros((4, 4, 1, 1024, 4096), np.float32))


def _aliases(path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    path.write_text("\n".join([*lines, path.read_text()]))


def _numbers(path: Path) -> None:
    path.write_text(f'{{"fingerprint": {"[" * 10**5}')


def _huge_raster(path: Path) -> None:
    """Declare a raster of 10^11 pixels, of which none is stored."""
    import rasterio

    place = {"crs": "EPSG:4326", "transform": (1e-4, 0, 0, 0, -1e-4, 0)}
    facts = {"driver": "GTiff", "count": 1, "dtype": "float32", "sparse_ok": True, "bigtiff": "YES", **place}
    with rasterio.open(path, "w", height=10**5, width=10**6, tiled=True, **facts):
        pass


def _huge_grib(path: Path) -> None:
    """Declare 10^5 x 10^6 points in section 3 of a GRIB message, where the numbers of points stand."""
    content, place = bytearray(path.read_bytes()), 16
    while content[place + 4] != 3:
        place += int.from_bytes(content[place : place + 4], "big")
    content[place + 30 : place + 38] = struct.pack(">II", 10**6, 10**5)
    path.write_bytes(content)


def _huge_classic(path: Path) -> None:
    """Declare dimensions of 2^30 in a NetCDF 3 file: each name is followed by its length in four bytes."""
    content = path.read_bytes()
    for name in (b"y", b"x"):
        header = struct.pack(">I", 1) + name + bytes(3)
        place = content.index(header) + len(header)
        content = content[:place] + struct.pack(">I", 2**30) + content[place + 4 :]
    path.write_bytes(content)


MADE: dict[str, Callable[[Path], object]] = {
    **{f"HDF5, {name}": larger_arrays for name in ("TaxiBJ", "KNMI", "ODIM", "RYDL")},
    "GeoTIFF": _huge_raster,
    "GRIB": _huge_grib,
    "NetCDF 3": _huge_classic,
    "RADOLAN": lambda path: path.write_bytes(radolan_bytes(RAW).replace(GRID, LARGE)),
    "RADOLAN, gzip": _radolan(gzip.compress),
    "RADOLAN, bzip2": _radolan(bz2.compress),
    "tar of forecasts": _tar,
    "tar to convert": _tar,
    "MNIST idx": lambda path: path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 2**31, 2**15, 2**15))),
    "our weights": _safetensors,
    "others' safetensors": _safetensors,
    "training state": lambda path: write_checked(path, KIND, _packed_torch()),
    "others' .pt": lambda path: path.write_bytes(_packed_torch()),
    "run configuration": _aliases,
    "run provenance": _numbers,
    "examples.npz": _examples,
}
# One parser reads both, and what test_sizes gives it is as large; a video that is decoded already is a .npy.
ALIKE = {"HDF5, fletcher32": "HDF5", "HDF5, fletcher32, older format": "HDF5", "Zarr, converted": "Zarr",
         "Zarr 2, Blosc": "Zarr",
         "AVI": "video", "MP4": "video", "decoded video": "npy"}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_a_file_only_claims_takes_no_memory(name: str, tmp_path: Path) -> None:
    path = FORMATS[name].make(tmp_path)
    MADE[name](path)
    before = run_apart(lambda number: number, 1, 0, path)
    result = run_apart(lambda number: FORMATS[name].read(path), 1, None, tmp_path)
    assert result.outcomes == {"refused": 1}, result
    assert result.peak - before.peak < MOST_GROWTH
    # Whatever else the tests before have taken.
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert result.peak < max(MOST_AT_ALL, held + MOST_GROWTH)


def test_every_format_has_a_file_that_claims_too_much() -> None:
    assert set(FORMATS) == set(MADE) | set(ALIKE) | (set(FORMATS) & set(CLAIMS))
    assert set(ALIKE.values()) <= set(CLAIMS)
