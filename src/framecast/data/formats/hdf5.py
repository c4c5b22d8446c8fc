"""Shared by the readers of HDF5 radar files: opening, attributes of any text or number type, checked pixels."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from framecast.data.packing import meaningful_fill
from framecast.errors import DataError, DatasetNotFoundError
from framecast.untrusted import check_size, reading

HEAP = b"GCOL\x01\0\0\0"
HEAP_OBJECT = 16
"""Bytes before the content of an object of a heap, and of the heap itself."""
SCANNED = 2**28


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; any failure names the file.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is not HDF5, cut or damaged.
    """
    if not Path(path).is_file():
        raise DatasetNotFoundError(f"there is no file {path}: give an HDF5 file")
    with reading(path, "cannot be read as HDF5", "it is cut, damaged or of another format"):
        check_heaps(Path(path))
        with h5py.File(path, "r") as file:
            yield file


def check_heaps(path: Path) -> None:
    """Refuse a file with a heap in which HDF5's library would turn round for ever: free space of no size.

    A global heap, in which texts and lists of any length stand, begins with GCOL, a version, three zeros and its size;
    then one object follows another, each with a number (0: the free space), and 8 bytes on its size. The library steps
    over free space by the size that it claims, and never ends where that is 0. Files above ``SCANNED`` are not looked
    through.

    Raises:
        ValueError: there is one.
    """
    if not 0 < path.stat().st_size <= SCANNED:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            end = min(len(content), start + int.from_bytes(content[start + 8 : start + 16], "little"))
            place = start + HEAP_OBJECT
            while place + HEAP_OBJECT <= end:
                number = int.from_bytes(content[place : place + 2], "little")
                size = int.from_bytes(content[place + 8 : place + 16], "little")
                if number == 0 and size < HEAP_OBJECT:
                    raise ValueError(f"the free space of its heap at byte {start} has no size")
                place += size if number == 0 else HEAP_OBJECT + (size + 7) // 8 * 8
            start = content.find(HEAP, start + 1)


DEEPEST = 32
"""Groups within groups; no archive of frames has more than a few."""


def members(file: h5py.File, path: Any) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield name and object of all groups and datasets, each once, by name; links within the file are left out.

    Raises:
        DataError: a link leads to another file, which would be read with it, or groups nest too deep.
    """
    stack: list[tuple[str, Any]] = [("", file)]
    visited = set()
    while stack:
        name, item = stack.pop()
        if name:
            yield name, item
        if not isinstance(item, h5py.Group):
            continue
        if name.count("/") >= DEEPEST:
            raise DataError(f"{path} has groups within groups deeper than {DEEPEST}: it holds no frames of ours")
        inner = []
        for word in item:
            link, full = item.get(word, getlink=True), f"{name}/{word}" if name else word
            if isinstance(link, h5py.ExternalLink):
                raise DataError(f"{path}: {full} leads to another file, which is not read: copy its values in")
            part = None if isinstance(link, h5py.SoftLink) else item[word]
            if isinstance(part, h5py.Group | h5py.Dataset):
                address = h5py.h5o.get_info(part.id).addr
                if address not in visited:
                    visited.add(address)
                    inner.append((full, part))
        stack += reversed(inner)


def check_self_contained(file: h5py.File, path: Any) -> None:
    """Refuse a file of which a link or a dataset leads to another file, which would be read with it.

    Raises:
        DataError: one does.
    """
    for _, item in members(file, path):
        if _is_elsewhere(item):
            check_own(item, path)


def _is_elsewhere(item: Any) -> bool:
    """Return whether a dataset takes its values from other files."""
    if not isinstance(item, h5py.Dataset):
        return False
    sources = {source.file_name for source in item.virtual_sources()} if item.is_virtual else set()
    return bool(item.external or sources - {"."})


def check_own(dataset: Any, path: Any) -> Any:
    """Return a dataset whose values stand in the file itself, and no frame or piece of which is above the limit.

    Raises:
        DataError: it is not a dataset, or its values are taken from other files.
    """
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{path} holds a group where a dataset of numbers is expected")
    if _is_elsewhere(dataset) or Path(dataset.file.filename) != Path(path):
        raise DataError(f"{path}: {dataset.name} takes its values from other files, which are not read: copy them in")
    return dataset


def hdf5_fill(dataset: h5py.Dataset) -> float | None:
    """Return the fill value that a dataset declares if it can only mean no data, else None.

    The netCDF library always declares one; h5py declares 0 unless it is told otherwise.
    """
    declared = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    return meaningful_fill(dataset.fillvalue, dataset.dtype) if declared else None


def check_small(dataset: h5py.Dataset, path: Any) -> Any:
    """Return a dataset that may be read into memory whole.

    Raises:
        DataError: it is above the limit.
    """
    for shape in (dataset.shape, dataset.chunks or ()):  # a chunk is unpacked whole, however little of it is used
        check_size(f"{path}, dataset {dataset.name}", *shape, itemsize=dataset.dtype.itemsize)
    return dataset


def text(attributes: Any, name: str, path: Any) -> str:
    """Return an attribute as text, whether it is stored as bytes, text or an array of one of them.

    Raises:
        DataError: there is no such attribute.
    """
    value = _attribute(attributes, name, path)
    return value.decode("latin-1").strip("\x00 ") if isinstance(value, bytes) else str(value)


def number(attributes: Any, name: str, path: Any) -> float:
    """Return an attribute as a number, whether it is stored as one, as text or as an array of one.

    Raises:
        DataError: there is no such attribute, or it is not a number.
    """
    value = _attribute(attributes, name, path)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has {name} = {value}, which is not a number") from error


def _attribute(attributes: Any, name: str, path: Any) -> Any:
    if name not in attributes:
        raise DataError(f"{path} lacks the attribute {name}: it is damaged or of another format")
    value = np.asarray(attributes[name])
    if value.size != 1:
        raise DataError(f"{path} has {value.size} values in the attribute {name}: one is expected")
    return value.reshape(-1)[0]


def check_pixels(dataset: Any, path: Any) -> NDArray[Any]:
    """Return the values of a map (H, W).

    Raises:
        DataError: it is not a map of numbers.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind not in "uif":
        kind = f"{dataset.shape} of {dataset.dtype}" if isinstance(dataset, h5py.Dataset) else "a group"
        raise DataError(f"{path} holds {kind} where a map (rows, columns) of numbers is expected")
    return np.asarray(check_small(check_own(dataset, path), path)[()])
