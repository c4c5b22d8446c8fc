"""What the readers of HDF5 radar files share: opening, attributes of any text or number type, checked pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from framecast.errors import DataError, DatasetNotFoundError


@contextmanager
def open_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever fails in it is told with the file's name.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is no HDF5, cut or damaged.
    """
    if not Path(path).is_file():
        raise DatasetNotFoundError(f"there is no file {path}: give an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as HDF5: {error}: it is cut, damaged or of another format") from error


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
        DataError: there is no such attribute, or it is no number.
    """
    value = _attribute(attributes, name, path)
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has {name} = {value}, which is no number") from error


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
    return np.asarray(dataset[()])
