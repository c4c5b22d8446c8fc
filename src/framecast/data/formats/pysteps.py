"""What pysteps imports (extra ``nowcast``): maps of one time a file, in the formats of a dozen weather services.

An importer is asked for by its name, ``reader="pysteps:bom_rf3"``, with its arguments in ``reader_options``. Two of the
formats have names of their own and are read so without being asked: MeteoSwiss's GIF and the Finnish PGM. Importers
tell no time, so it is taken from the file's name, by pysteps' own pattern for that archive or by ``time``.

Reference: Pulkkinen et al., "Pysteps: an open-source Python library for probabilistic precipitation nowcasting",
Geosci. Model Dev. 12, 2019, doi:10.5194/gmd-12-4185-2019.
"""

from __future__ import annotations

import contextlib
import gzip
import inspect
import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.formats.pictures import check_gif
from framecast.data.formats.times import time_in_name, times_in_names
from framecast.data.georeference import Georeference, from_corner
from framecast.data.packing import Values
from framecast.data.sources import FrameSource, Indices, PerProcess, ReadOptions
from framecast.data.units import one_spelling
from framecast.errors import DataError, MissingExtraError, UnknownNameError
from framecast.untrusted import check_size, reading

PREFIX = "pysteps:"
HEADER = 2000
"""Bytes at the beginning in which pictures say how large they are."""
OF_ALL_IMPORTERS = ["dtype", "fillna"]


class PystepsSource(FrameSource):
    """The one frame of a file, read by an importer of pysteps.

    Raises:
        DataError: it cannot be read.
        UnknownNameError: pysteps has no such importer.
    """

    count = 1

    def __init__(self, path: Path, options: ReadOptions) -> None:
        options.refuse_all_but(("unit", "reader_options"), str(path))
        name = (options.reader or "").removeprefix(PREFIX)
        arguments = _arguments(name, options.reader_options or {})
        self.where = str(path)
        self._map: PerProcess[tuple[Values, dict[str, Any]]] = PerProcess(partial(_import, path, name, arguments))
        values, facts = self._map.get()
        self.shape = (1, *values.shape[-2:])
        self.unit = options.unit or one_spelling(facts.get("unit", ""))
        minutes = f" over {facts['accutime']:g} min" if self.unit == "mm" and facts.get("accutime") else ""
        self.product = f"{facts.get('product') or name}{minutes}"
        self.georeference = _georeference(facts, self.shape[1:])
        self.times: Indices | None = None
        if options.time != "none":
            pattern = options.time or _usual(name).get("fn_pattern")
            time = time_in_name(path.name, pattern) if pattern else None
            stamps = times_in_names([path.name], None) if time is None else np.array([time], np.int64)
            self.times = stamps
        self.notes = [f"read by pysteps' importer {name}"]

    def read(self, numbers: Indices) -> Values:
        """Return frames by their numbers."""
        return np.repeat(self._map.get()[0][None, None], len(numbers), 0)


def open_by_pysteps(path: Path, options: ReadOptions) -> FrameSource:
    """Open a file by the importer that ``options.reader`` names, see ``PystepsSource``."""
    return PystepsSource(path, options)


def open_mch_gif(path: Path, options: ReadOptions) -> FrameSource:
    """Open a GIF of the Swiss radar composite, by MeteoSwiss."""
    return PystepsSource(path, replace(options, reader="pysteps:mch_gif"))


def open_fmi_pgm(path: Path, options: ReadOptions) -> FrameSource:
    """Open a PGM of the Finnish radar composite, plain or packed with gzip."""
    packed = {"gzipped": path.suffix.lower() == ".gz", **(options.reader_options or {})}
    return PystepsSource(path, replace(options, reader="pysteps:fmi_pgm", reader_options=packed))


def _library() -> Any:
    """Import pysteps, which says on the standard output where its configuration is.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import pysteps
            import pysteps.io.importers
    except ImportError as error:
        raise MissingExtraError("pysteps", "nowcast", "reading this format") from error
    return pysteps


def _usual(name: str) -> dict[str, Any]:
    """Return what pysteps knows of the archive that an importer is for: pattern of names and arguments."""
    sources = _library().rcparams.data_sources
    return next((dict(facts) for facts in sources.values() if facts["importer"] == name), {})


def _importer(name: str) -> Any:
    importers = _library().io.importers
    importer = getattr(importers, f"import_{name}", None)
    if importer is None:
        names = [key.removeprefix("import_") for key in dir(importers) if key.startswith("import_")]
        raise UnknownNameError("importer of pysteps", name, names)
    return importer


def _arguments(name: str, asked_for: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments that pysteps keeps for an importer's archive and it takes, and all that are asked for.

    Raises:
        UnknownNameError: one that is asked for is none of the importer's, which would swallow it.
    """
    known = inspect.signature(inspect.unwrap(_importer(name))).parameters
    names = [key for key in known if key not in ("filename", "kwargs")] + OF_ALL_IMPORTERS
    for key in asked_for:
        if key not in names:
            raise UnknownNameError(f"argument of pysteps' importer {name}", key, names)
    usual = _usual(name).get("importer_kwargs", {})
    return {**{key: value for key, value in usual.items() if key in known or "kwargs" in known}, **asked_for}


def check_claim(path: Path) -> None:
    """Refuse a GIF or PGM whose header claims more than may be read, for which an importer would make room.

    Raises:
        DataError: it does, or it cannot be read.
    """
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with reading(path), opener(path, "rb") as file:
        head = file.read(HEADER)
    if head[:4] == b"GIF8" and len(head) >= 10:
        width, height = struct.unpack("<HH", head[6:10])
        check_gif(path, 1, height, width)
    elif head[:2] == b"P5":
        lines = b"\n".join(line.partition(b"#")[0] for line in head.split(b"\n"))
        check_size(path, *(int(number) for number in lines.split()[1:3] if number.isdigit()), itemsize=8)


def _import(path: Path, name: str, arguments: dict[str, Any]) -> tuple[Values, dict[str, Any]]:
    importer = _importer(name)
    check_claim(path)
    with (
        reading(path, f"cannot be read by pysteps' importer {name}"),
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", ResourceWarning)  # some importers leave the file to the garbage collector
        values, _, facts = importer(str(path), **arguments)
        values = np.asarray(values)
    if values.ndim != 2 or values.dtype.kind not in "uif":
        raise DataError(f"{path} gives {values.shape} of {values.dtype} by pysteps, where a map of numbers is expected")
    # pysteps gives rows from the north where it says "upper".
    rows = values if facts.get("yorigin", "upper") == "upper" else values[::-1]
    return np.ma.filled(np.ma.masked_invalid(rows).astype(np.float32), np.nan), facts


def _georeference(facts: dict[str, Any], shape: tuple[int, int]) -> Georeference | None:
    """Return where the pixels are: x1, y1, x2, y2 are the outer corners, in metres of the projection or degrees."""
    if not {"x1", "x2", "y1", "y2", "projection"} <= facts.keys():
        return None
    height, width = shape
    left, right, bottom, top = (float(facts[name]) for name in ("x1", "x2", "y1", "y2"))
    pixel = (right - left) / width, (top - bottom) / height
    return from_corner((left, top), pixel, (height, width), str(facts["projection"]).strip())
