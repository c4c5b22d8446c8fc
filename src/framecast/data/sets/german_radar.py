"""Rain over Germany from 2006 to 2017 in mm/h, the radar set of the MS-LSTM paper.

900 x 900 maps of 1 km are brought to 180 x 180, one every 30 minutes, 4 -> 4; 2006-2014 to train on, 2015-2017 to
test. They are read from RainNet's RYDL.hdf5, from a folder of RADOLAN or ODIM composites or, much faster, from the
Zarr that ``framecast data convert`` makes of one.

RYDL.hdf5 has one data set per time at its root:

    "201606010005" -> (900, 900) float, mm in 5 minutes; keys are taken as UTC, rows in the order they are stored

We return mm/h; negative and non-finite values are missing data.

Differs from the released code: a clip is frames at equal steps in time, where that code takes consecutive files and
so may jump over days; values are not cut to 8 bits; nodata is masked, where that code takes it as dry
(``nodata="dry"`` does that too); and validation years are taken from the training ones, where that code validates on
the test set.

Sources: RYDL, Ayzel, "RYDL: the sample data of the RY product for deep learning applications", Zenodo 2020,
doi:10.5281/zenodo.3629951; RADOLAN and RADKLIM of the German Weather Service, https://opendata.dwd.de,
doi:10.5676/DWD/RADKLIM_YW_V2017.002. Licence: CC BY 4.0; name the German Weather Service as the source. References:
Ma et al., "MS-LSTM", Applied Soft Computing 2023, doi:10.1016/j.asoc.2023.110731. Ayzel, Scheffer and Heistermann,
"RainNet v1.0", Geosci. Model Dev. 13, 2020, doi:10.5194/gmd-13-2631-2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from framecast.data.cache import Index, file_facts, kept_index
from framecast.data.clips import ClipData, Split, data_root, missing_files
from framecast.data.formats.arrays import is_zarr
from framecast.data.formats.hdf5 import check_pixels, open_hdf5
from framecast.data.grid import Method, Space
from framecast.data.packing import Values
from framecast.data.radar import radar_archive, radar_folder
from framecast.data.rain_clips import Crop, cut_clips, make_grid, prepare_source, rain_scaling
from framecast.data.sources import FrameSource, Indices, PerProcess
from framecast.errors import DataError, DatasetNotFoundError
from framecast.untrusted import reading

PER_HOUR = 12
KEY_LENGTH = 12


class RydlSource(FrameSource):
    """The frames of an archive by number, in mm/h.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: it is not HDF5, or its keys are not times YYYYMMDDHHMM.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetNotFoundError(f"there is no file {path}: give RainNet's RYDL.hdf5")
        index = kept_index(file_facts(self.path), self._list)
        self.times: Indices = index["times"]
        self.count = len(self.times)
        self._file = PerProcess(partial(h5py.File, str(self.path), "r"))
        with open_hdf5(self.path) as file:
            self.shape = (1, *check_pixels(file[_key(int(self.times[0]))], self.path).shape)

    def _list(self) -> Index:
        with open_hdf5(self.path) as file:
            keys = sorted(file)
        wrong = [key for key in keys if not (len(key) == KEY_LENGTH and key.isdigit())]
        if wrong or not keys:
            keys_text = f"the key {wrong[0]!r}" if wrong else "no keys"
            raise DataError(
                f"{self.path} has {keys_text} at its root where times YYYYMMDDHHMM are expected: it is not a RYDL"
            )
        stamps = [f"{key[:4]}-{key[4:6]}-{key[6:8]}T{key[8:10]}:{key[10:]}" for key in keys]
        try:
            return {"times": np.array(stamps, "datetime64[s]").astype(np.int64)}
        except ValueError as error:
            raise DataError(f"{self.path} has a key that is not a time: {error}") from error

    def read(self, numbers: Indices) -> Values:
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


Years = Sequence[int]

SOURCE = (
    "https://zenodo.org, doi:10.5281/zenodo.3629951 (RYDL.hdf5), or https://opendata.dwd.de, below "
    "climate_environment/CDC/grids_germany/5_minutes/radolan/reproc/2017_002/bin (RADKLIM, unpacked)"
)
FOLDER_TREE = """  german-radar/RYDL.hdf5
or one file a map, in any folders below:
  german-radar/**/raa01-ry_10000-YYMMDDHHMM-dwd---bin[.gz]
  german-radar/**/YW2017.002_YYYYMMDD_HHMM
  german-radar/**/*.hdf5 (ODIM)"""


def open_german_radar(
    *,
    root: str | Path | None = None,
    size: int | Sequence[int] | None = 180,
    crop: Crop | None = None,
    method: Method = "decimate",
    space: Space = "rain",
    interval: int = 30,
    every: int = 30,
    context: int = 4,
    horizon: int = 4,
    train_years: Years = (2006, 2014),
    validation_years: Years = (2012, 2012),
    test_years: Years = (2015, 2017),
    scaling: str = "dbz-pixel",
    nodata: Literal["masked", "dry"] = "masked",
    covariates: Mapping[str, Any] | None = None,
) -> ClipData:
    """Open the German radar set.

    Args:
        root: RYDL.hdf5, a folder that holds it, a folder of RADOLAN or ODIM composites, or the Zarr that framecast data
            convert makes of them; None looks for german-radar in $FRAMECAST_DATA or in data.
        size: side, or height and width, of the model's frames in pixels; None keeps the files'.
        crop: rows from and to, columns from and to, before resizing.
        method: "decimate" (the released code's) or "mean", see ``framecast.data.grid``.
        space: "rain" or "pixel", where the mean is taken.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        train_years: first and last year to learn from.
        validation_years: first and last year of these to validate with instead.
        test_years: first and last year to test with.
        scaling: "dbz-pixel" or "log".
        nodata: "masked", or "dry" to take it as no rain.
        covariates: channels for the model to see and not to forecast, of files on the grid of the composites or of the
            frames, see ``data/covariates.py``.

    Raises:
        DatasetNotFoundError: there are no files at ``root``.
        DataError: damaged files, or options that they do not allow.
        UnknownNameError: no such scaling, method, space or nodata.
    """
    rules = make_grid(size, crop, method, space), rain_scaling(scaling)
    source = prepare_source(_german_source(data_root("german-radar", root)), *rules, nodata)
    years = _years(source.times)
    (first, last), (validation_first, validation_last), test = (
        _span(pair) for pair in (train_years, validation_years, test_years)
    )
    validation = (years >= validation_first) & (years <= validation_last) & (years >= first) & (years <= last)
    tested = (years >= test[0]) & (years <= test[1])
    if test[0] <= last and test[1] >= first:
        raise DataError(f"test_years {test} and train_years {(first, last)} overlap: a test must be of other years")
    parts: dict[Split, Indices] = {
        "train": np.flatnonzero((years >= first) & (years <= last) & ~validation),
        "validation": np.flatnonzero(validation),
        "test": np.flatnonzero(tested),
    }
    return cut_clips("german-radar", source, parts, rules, (context, horizon), interval, every, covariates)


def _german_source(root: Path) -> FrameSource:
    if is_zarr(root):
        return radar_archive(root)
    if root.is_file():
        return RydlSource(root)
    if (root / "RYDL.hdf5").is_file():
        return RydlSource(root / "RYDL.hdf5")
    try:
        return radar_folder(root)
    except DatasetNotFoundError as error:
        raise missing_files(["German radar files"], root, SOURCE, FOLDER_TREE) from error


def _years(times: Indices | None) -> Indices:
    assert times is not None
    return times.astype("datetime64[s]").astype("datetime64[Y]").astype(np.int64) + 1970


def _span(years: Years) -> tuple[int, int]:
    if len(years) != 2 or years[0] > years[1]:
        raise DataError(f"years are a first and a last one and got {list(years)}")
    return years[0], years[1]
