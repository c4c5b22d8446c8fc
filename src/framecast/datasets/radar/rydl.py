"""RYDL.hdf5, the archive of German rain maps that RainNet was trained on: one data set per time at the root.

    "201606010005" -> (900, 900) float, mm in 5 minutes; keys are taken as UTC, rows in the order they are stored

We return mm/h; what is negative or not finite is no data. The archive is opened once per process, and its keys are
listed once and kept in an index, for listing hundreds of thousands of them is slow.

Source: Ayzel, "RYDL: the sample data of the RY product for deep learning applications", Zenodo 2020,
doi:10.5281/zenodo.3629951. Data: German Weather Service. Licence: CC BY 4.0. Reference: Ayzel, Scheffer and
Heistermann, "RainNet v1.0", Geosci. Model Dev. 13, 2020, doi:10.5194/gmd-13-2631-2020.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import h5py
import numpy as np

from framecast.boundary import reading
from framecast.datasets.formats.hdf5 import check_pixels, open_hdf5
from framecast.datasets.sources.index import Index, file_facts, kept_index
from framecast.datasets.sources.perprocess import PerProcess
from framecast.datasets.windows import FrameSource, Numbers, Values
from framecast.errors import DataError, DatasetNotFoundError

PER_HOUR = 12
KEY_LENGTH = 12


class RydlSource(FrameSource):
    """The frames of an archive by number, in mm/h.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: it is no HDF5, or its keys are not times YYYYMMDDHHMM.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetNotFoundError(f"there is no file {path}: give RainNet's RYDL.hdf5")
        index = kept_index(file_facts(self.path), self._list)
        self.times: Numbers = index["times"]
        self.count = len(self.times)
        self._file = PerProcess(partial(h5py.File, str(self.path), "r"))
        with open_hdf5(self.path) as file:
            self.shape = (1, *check_pixels(file[_key(int(self.times[0]))], self.path).shape)

    def _list(self) -> Index:
        with open_hdf5(self.path) as file:
            keys = sorted(file)
        wrong = [key for key in keys if not (len(key) == KEY_LENGTH and key.isdigit())]
        if wrong or not keys:
            found = f"the key {wrong[0]!r}" if wrong else "no keys"
            raise DataError(f"{self.path} has {found} at its root where times YYYYMMDDHHMM are expected: it is no RYDL")
        stamps = [f"{key[:4]}-{key[4:6]}-{key[6:8]}T{key[8:10]}:{key[10:]}" for key in keys]
        try:
            return {"times": np.array(stamps, "datetime64[s]").astype(np.int64)}
        except ValueError as error:
            raise DataError(f"{self.path} has a key that is no time: {error}") from error

    def read(self, numbers: Numbers) -> Values:
        """Return frames by their numbers."""
        return np.stack([self._frame(_key(int(self.times[number]))) for number in numbers])

    def _frame(self, key: str) -> Values:
        with reading(f"{self.path}:{key}", remedy="the archive is damaged"):
            amounts = check_pixels(self._file.get()[key], self.path).astype(np.float32)
        if amounts.shape != self.shape[1:]:
            raise DataError(
                f"{self.path}:{key} is {amounts.shape} and the first map is {self.shape[1:]}: sizes are mixed"
            )
        amounts[~np.isfinite(amounts) | (amounts < 0)] = np.nan
        return (amounts * np.float32(PER_HOUR))[None]

    def close(self) -> None:
        """Close the archive in this process."""
        self._file.close()


def _key(seconds: int) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[m]")).translate({ord(mark): None for mark in "-T:"})
