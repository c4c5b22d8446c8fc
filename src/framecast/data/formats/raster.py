"""GeoTIFF and GRIB through rasterio (extra ``geo``), whose GDAL reads both.

A file of one band is one frame. Of several bands, those of one GRIB element at several times are the frames of a
sequence, and all others are channels. Scale, offset and nodata are those of the band, or the items Gain, Offset and
Nodata of its metadata, as the Finnish Meteorological Institute writes them; the time is that of the GRIB message or the
item "Observation time".

Reference: GDAL raster drivers GTiff and GRIB, https://gdal.org. Negative codes of NOAA's MRMS are no data.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.formats.arrays import pixel_packing
from framecast.data.formats.times import read_times
from framecast.data.georeference import WGS84, Georeference
from framecast.data.packing import Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions, check_times
from framecast.data.units import one_spelling
from framecast.errors import DataError, MissingExtraError
from framecast.untrusted import check_frames, check_read, reading

MOST_BANDS = 5000
MRMS_CODES = (-1.0, -3.0)
"""Missing, and out of what the radars see."""
ITEM = re.compile(r'<Item name="(?P<name>[^"]+)"(?P<attributes>[^>]*)>(?P<value>[^<]*)</Item>')


def open_raster_file(path: Path) -> Any:
    """Open a file with GDAL's driver of GeoTIFF or GRIB, and no other, which might read what the file points to.

    Raises:
        MissingExtraError: rasterio is not installed.
        DataError: it cannot be read.
    """
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise MissingExtraError("rasterio", "geo", "reading GeoTIFF and GRIB") from error
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # it is told by ``georeference``
        return rasterio.open(path, driver="GTiff" if path.suffix.lower() in (".tif", ".tiff") else "GRIB")


class RasterSource(FrameSource):
    """The bands of a GeoTIFF or GRIB file.

    Raises:
        DataError: it cannot be read, or holds several elements of which one has to be chosen.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        options.refuse_all_but(("variable", "nodata", "unit"), str(path))
        self.where = str(path)
        self._file: PerProcess[Any] = PerProcess(partial(open_raster_file, path))
        file = self._file.get()
        if file.count > MOST_BANDS:
            raise DataError(
                f"{path} has {file.count} bands, and {MOST_BANDS} are read at most: it is damaged, or cut it"
            )
        with reading(path):
            facts = _facts_of_bands(file)
            dtype = np.dtype(file.dtypes[0])
        self.bands, times = _choose_bands(facts, options, self.where)
        frames = len(self.bands) if len(times) else 1
        self.channels = 1 if len(times) else len(self.bands)
        self.count, self.shape = frames, (self.channels, file.height, file.width)
        check_frames(self.where, self.count, self.shape, max(4, dtype.itemsize))
        chosen = facts[self.bands[0] - 1]
        self.packing, self.pixels, self.unit = pixel_packing(dtype, chosen, options, self.where)
        self.complete = not self.packing.masks(dtype)
        self.product = str(chosen.get("product", ""))
        self.times: Indices | None = None
        if options.time != "none" and len(times):
            stamps = read_times(np.array(times), {}, self.where, options.tolerance)
            self.times = check_times(stamps, self.where)
        self.georeference = _georeference(file)
        self.notes = list(self.packing.notes())

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        file = self._file.get()
        check_read(self.where, len(numbers), *self.shape)
        frames = np.empty((len(numbers), *self.shape), np.float32)
        for place, number in enumerate(numbers.tolist()):
            bands = [self.bands[number]] if self.times is not None or self.channels == 1 else self.bands
            with reading(self.where, remedy="the file is damaged"):
                stored = file.read(bands)
            frames[place] = self.packing.unpack(stored)
        return frames

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_raster(path: Path, options: ReadOptions) -> FrameSource:
    """Open a GeoTIFF or GRIB file, see ``RasterSource``."""
    return RasterSource(path, options)


def _facts_of_bands(file: Any) -> list[dict[str, Any]]:
    """Return each band's attributes by their CF names, and its time and product where it tells them."""
    of_file = file.tags()
    columns = zip(file.indexes, file.scales, file.offsets, file.nodatavals, file.units, strict=True)
    return [_band_facts({**of_file, **file.tags(band)}, *stored) for band, *stored in columns]


def _band_facts(tags: dict[str, str], scale: float, offset: float, nodata: float | None, unit: str) -> dict[str, Any]:
    items = {match["name"].lower(): match for match in ITEM.finditer(tags.get("GDAL_METADATA", ""))}
    facts: dict[str, Any] = {}
    if (scale, offset) != (1.0, 0.0):
        facts |= {"scale_factor": scale, "add_offset": offset}
    if nodata is not None:
        facts["_FillValue"] = nodata
    for item, name in (("gain", "scale_factor"), ("offset", "add_offset"), ("nodata", "_FillValue")):
        if item in items:
            facts.setdefault(name, float(items[item]["value"]))
    unit = unit or tags.get("GRIB_UNIT", "").strip("[]") or tags.get("units", "")
    if "quantity" in items:
        declared = re.search(r'unit="([^"]+)"', items["quantity"]["attributes"])
        unit, facts["product"] = unit or (declared[1] if declared else ""), items["quantity"]["value"]
    facts["units"] = one_spelling(unit)
    if "GRIB_ELEMENT" in tags:
        ahead = int(tags.get("GRIB_FORECAST_SECONDS", "0").split()[0])
        facts["product"] = tags["GRIB_ELEMENT"] + (f" {tags['GRIB_SHORT_NAME']}" if "GRIB_SHORT_NAME" in tags else "")
        facts["product"] += " forecast" if ahead else ""
        facts["time"] = int(tags["GRIB_VALID_TIME"].split()[0])
        if "CENTER=161(" in tags.get("GRIB_IDS", "") and tags.get("GRIB_DISCIPLINE", "").startswith("209"):
            facts["missing_value"] = np.array(MRMS_CODES)
    elif "observation time" in items:
        facts["time"] = int(items["observation time"]["value"])
    return facts


def _choose_bands(facts: list[dict[str, Any]], options: ReadOptions, where: str) -> tuple[list[int], list[int]]:
    """Return the numbers of the bands, and their times if they are frames of a sequence.

    Raises:
        DataError: there are several elements and none is asked for, or none of that name.
    """
    products = list(dict.fromkeys(str(band.get("product", "")) for band in facts))
    element = options.variable
    if element is not None:
        products = [name for name in products if element in (name, name.split(" ")[0])]
        if len(products) != 1:
            raise DataError(f"{where} has no {element!r}: it has {', '.join(map(str, products)) or 'no named element'}")
    times = [band.get("time") for band in facts]
    if len(products) > 1 and None not in times:
        raise DataError(f"{where} holds several elements ({', '.join(products)}): name one with variable=")
    bands = [n + 1 for n, band in enumerate(facts) if len(products) > 1 or str(band.get("product", "")) == products[0]]
    stamps = [facts[band - 1].get("time") for band in bands]
    if None in stamps or (len(bands) > 1 and len(set(stamps)) == 1):
        known = stamps[0]
        return bands, [known] if known is not None and len(bands) == 1 else []
    order = np.argsort(np.array(stamps), kind="stable").tolist()
    return [bands[n] for n in order], [stamps[n] for n in order]


def _georeference(file: Any) -> Georeference | None:
    """Return where the pixels are; None of turned or unplaced rasters."""
    if file.crs is None:
        return None
    transform = file.transform
    if transform.b or transform.d or not transform.a or not transform.e:
        return None
    x = transform.c + transform.a * (np.arange(file.width) + 0.5)
    y = transform.f + transform.e * (np.arange(file.height) + 0.5)
    return Georeference(y, x, WGS84 if file.crs.is_geographic else str(file.crs.to_wkt()))
