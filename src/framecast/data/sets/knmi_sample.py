"""Rain over the Netherlands for five hours, in mm/h: 60 of KNMI's radar composites, which come with the package.

Five-minute accumulations of 26 August 2010, 00:00 to 04:55 UTC, 765 x 700 pixels of 1 km, as KNMI published them. By
default they are cut and averaged to 80 x 80 pixels of 5 km, an hour is forecast from the last twenty minutes, and the
first 24 frames are to learn from, the next 16 to validate, the last 20 to test. Enough to try everything with real
rain, far too few to learn it.

Source: Royal Netherlands Meteorological Institute (KNMI), https://dataplatform.knmi.nl. Licence: CC BY 4.0; name KNMI
as the source. How the file was made: ``knmi_sample/README.md`` beside this module. Reference: Overeem, Holleman and
Buishand, "Derivation of a 10-Year Radar-Based Climatology of Rainfall", J. Appl. Meteorol. Climatol. 48, 2009,
doi:10.1175/2009JAMC1954.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from framecast.data.clips import ClipData
from framecast.data.formats.hdf5 import open_hdf5
from framecast.data.formats.knmi import file_calibration, file_georeference, product_name
from framecast.data.grid import Method, Space
from framecast.data.packing import Values
from framecast.data.rain_clips import Crop, cut_clips, make_grid, prepare_source, rain_scaling, split_in_time
from framecast.data.sources import FrameSource, Indices
from framecast.registry import RAIN_RATE


def open_knmi_sample(
    *,
    size: int | Sequence[int] | None = 80,
    crop: Crop | None = (185, 585, 160, 560),
    method: Method = "mean",
    space: Space = "rain",
    interval: int = 5,
    every: int = 5,
    context: int = 4,
    horizon: int = 12,
    blocks: Sequence[float] = (24, 16, 20),
    scaling: str = "dbz-pixel",
    nodata: Literal["masked", "dry"] = "masked",
    covariates: Mapping[str, Any] | None = None,
) -> ClipData:
    """Open the KNMI composites that come with the package.

    Args:
        size: side, or height and width, of the model's frames in pixels; None keeps the crop's.
        crop: rows from and to, columns from and to, before resizing; None takes the whole map.
        method: "decimate" or "mean", see ``framecast.data.grid``.
        space: "rain" or "pixel", where the mean is taken.
        interval: minutes between the frames of a clip.
        every: minutes between the starts of clips.
        context: past frames of a clip.
        horizon: frames of a clip to forecast.
        blocks: shares of the 60 frames, or numbers of frames, that train, validation and test get, one after another in
            time.
        scaling: "dbz-pixel" or "log".
        nodata: "masked", or "dry" to take it as no rain.
        covariates: channels for the model to see and not to forecast, of files on the grid of the composites or of the
            frames, see ``data/covariates.py``.

    Raises:
        DataError: options that the frames do not allow.
        UnknownNameError: no such scaling, method, space or nodata.
    """
    rules = make_grid(size, crop, method, space), rain_scaling(scaling)
    source = prepare_source(PackedComposites(SAMPLE), *rules, nodata)
    parts = split_in_time(source.count, blocks)
    return cut_clips("knmi-sample", source, parts, rules, (context, horizon), interval, every, covariates)


SAMPLE = Path(__file__).parent / "knmi_sample" / "composites.h5"


class PackedComposites(FrameSource):
    """Composites of several times in one file, as ``tools/make_knmi_sample.py`` packs them."""

    unit = RAIN_RATE

    def __init__(self, path: Path) -> None:
        with open_hdf5(path) as file:
            self.times: Indices = file["times"][()]
            self.calibration, self.georeference = file_calibration(file, path), file_georeference(file, path)
            self.count, *size = file["image1/image_data"].shape
        self.path, self.where, self.shape = path, str(path), (1, *size)
        self.product = product_name(self.calibration.seconds)
        self._pixels: NDArray[np.uint16] | None = None

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        if self._pixels is None:
            # All at once: they are packed in blocks of all times.
            with open_hdf5(self.path) as file:
                self._pixels = file["image1/image_data"][()]
        return self.calibration.rates(self._pixels[numbers])[:, None]

    def close(self) -> None:
        """Forget what was unpacked in this process."""
        self._pixels = None
