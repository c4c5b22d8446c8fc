"""Zarr arrays whose axes have no names: they are told by letters or guessed, as those of .npy files."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from framecast.boundary import reading
from framecast.datasets.formats.arrays import array_source, choose_variable
from framecast.datasets.formats.layout import FileSource, Layout
from framecast.errors import DataError, MissingExtraError

SEAL = "framecast_sha256_of_metadata"
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in MARKS)


def has_named_axes(path: Path) -> bool:
    """Return whether all arrays of a Zarr group name their axes, as xarray needs it.

    Raises:
        DataError: its metadata cannot be read.
    """
    if (path / ".zarray").is_file() or _metadata(path / "zarr.json").get("node_type") == "array":
        return False
    arrays = [*path.glob("*/zarr.json"), *path.glob("*/.zarray")]
    return all(_axes_named(array) for array in arrays)


def _axes_named(array: Path) -> bool:
    facts = _metadata(array)
    if array.name == ".zarray":
        return "_ARRAY_DIMENSIONS" in _metadata(array.with_name(".zattrs"))
    names = facts.get("dimension_names")
    return facts.get("node_type") != "array" or not facts.get("shape") or bool(names and all(names))


def _metadata(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    with reading(file, "is no JSON", "the Zarr is damaged"):
        facts = json.loads(file.read_bytes())
    return facts if isinstance(facts, dict) else {}


def metadata_digest(path: Path) -> str:
    """Return a hash of the metadata of a Zarr's arrays, which has no checksum of its own."""
    found = hashlib.sha256()
    for file in sorted(path.glob("*/zarr.json")):
        found.update(file.parent.name.encode() + file.read_bytes())
    return found.hexdigest()


def check_seal(path: Path) -> None:
    """Refuse a Zarr that was made here and whose arrays are described otherwise than then.

    Raises:
        DataError: it is, or its metadata cannot be read.
    """
    attributes = _metadata(path / "zarr.json").get("attributes")
    made = attributes.get(SEAL) if isinstance(attributes, dict) else None
    if made is not None and made != metadata_digest(path):
        raise DataError(
            f"{path}: the metadata of its arrays has changed since it was made: make it again, or, if you changed it "
            f"on purpose, delete the attribute {SEAL} of its zarr.json"
        )


def open_zarr_array(path: Path, layout: Layout) -> FileSource:
    """Open a Zarr array, or one of a group, by the letters of its axes.

    Raises:
        MissingExtraError: zarr is not installed.
        DataError: it is damaged, or there is no such array.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "geo", "reading Zarr") from error
    with reading(path, remedy="the Zarr is damaged or of another version"):
        node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Array):
            return array_source(str(path), partial(zarr.open_array, path, mode="r"), layout, node.attrs.asdict(), None)
        arrays = dict(node.arrays())
    name = choose_variable({key: array.ndim for key, array in arrays.items()}, layout, str(path))
    opener = partial(zarr.open_array, path / name, mode="r")
    return array_source(f"{path}, array {name!r}", opener, layout, arrays[name].attrs.asdict(), None)
