"""RADOLAN composites of the German Weather Service: binary rain maps with an ASCII header, one map a file.

    RY102050100000814BY1620134VS 3SW   2.13.1PR E-02INT   5GP 900x 900MS 62<boo,...> ETX, then uint16 values

Product, day, hour and minute, 10000 for a composite, month and year; BY the length of the whole file, PR the
precision, INT the minutes a value adds up, GP rows x columns, VV the minutes a forecast looks ahead. Values are
little-endian, twelve bits and four flags; row 0 is the southernmost.

``wradlib`` (extra ``radar``, no GDAL) decodes the values. Before that, a check of ours: the header holds known
tokens only, and its declared length, the grid and the file agree, so that a cut or patched file is an error and
never a shifted map. We return mm/h, north up; reflectivity (RX, EX, WX) is turned into rain by Z = 256 R^1.42. What is
flagged as no data is NaN, and so is clutter, which is an echo but no rain, unless it is asked for.

Source: German Weather Service, https://opendata.dwd.de (RADKLIM: climate_environment/CDC/grids_germany/5_minutes/
radolan/reproc/2017_002/bin). Licence: CC BY 4.0. Citation of RADKLIM: Winterrath et al. 2018,
doi:10.5676/DWD/RADKLIM_YW_V2017.002. Reference of wradlib: Heistermann, Jacobi and Pfaff, Hydrol. Earth Syst. Sci.
17, 2013, doi:10.5194/hess-17-863-2013.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import tarfile
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framecast.data.georeference import Georeference, from_corner
from framecast.data.scaling import rain_from_reflectivity
from framecast.data.sources import Frame, FrameHeader
from framecast.errors import DataError, DatasetNotFoundError, MissingExtraError
from framecast.untrusted import reading

# Products whose values are millimetres of rain that add up over INT minutes; others hold flags.
RAIN = frozenset(
    {"RY", "RZ", "RW", "RH", "RB", "RL", "RU", "RV", "RQ", "YW", "SF", "SH", "SQ", "EY", "EZ", "EW", "EH", "EB",
     "W1", "W2", "W3", "W4"}
)  # fmt: skip
REFLECTIVITY = frozenset({"RX", "EX", "WX"})
"""Products of one byte a pixel, in half dBZ."""
ETX = b"\x03"
COMPOSITE = "10000"
GRIDS = ((900, 900), (1100, 900), (1200, 1100), (1500, 1400))
SPHERE = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6370040 +b=6370040 +x_0=0 +y_0=0 +units=m"
ELLIPSOID = (
    "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6378137 +b=6356752.3142451802 +x_0=543196.83521776402 "
    "+y_0=3622588.8619310018 +units=m"
)
LONGEST_HEADER = 2000
MOST_BYTES = 64 * 1024 * 1024
PIECE_BYTES = 1024**2

# ASCII: Latin-1 has further spaces and letters that \s and \w would take, and numbers made of them are none.
START = re.compile(r"(?P<product>[A-Z%][A-Z0-9])(?P<stamp>\d{6})(?P<site>\d{5})(?P<month>\d{4})", re.ASCII)
TOKENS = tuple(
    re.compile(token, re.ASCII)
    for token in (
        r"BY\s*(?P<BY>\d+)",
        r"VS\s*(?P<VS>\d+)",
        r"SW\s*(?P<SW>[\w.]+?)\s*(?=PR)",
        r"PR\s*(?P<PR>E[-+]?\d+)",
        r"INT\s*(?P<INT>\d{1,5})",
        r"U(?P<U>\d)",
        r"GP\s*(?P<GP>\d+x\s*\d+)",
        r"VV\s*(?P<VV>\d{1,5})",
        r"MF\s*(?P<MF>\d+)",
        r"QN\s*(?P<QN>\d+)",
        r"VR\s*(?P<VR>\d+\.\d+)",
        r"MS\s*\d+\s*(?P<MS><[^>]*>)\s*",
        r"ST\s*\d+\s*(?P<ST><[^>]*>)\s*",
    )
)
NEEDED = ("BY", "PR", "INT", "GP")


class Header(NamedTuple):
    """What a header says: product, end of the measurement, minutes ahead, grid, precision and lengths."""

    product: str
    time: int
    ahead: int
    rows: int
    columns: int
    precision: float
    minutes: int
    declared: int
    length: int
    version: int


def read_radolan(path: str | Path, *, keep_clutter: bool = False) -> Frame:
    """Read a RADOLAN composite, plain or packed with gzip or bzip2.

    Args:
        path: the file.
        keep_clutter: return what is flagged as clutter as rain instead of NaN.

    Returns:
        Rain rate (1, H, W) in mm/h, row 0 in the north, NaN for no data; of a forecast, the time it holds for.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the file is empty, damaged, cut, no composite of rain, or its header does not fit its content.
        MissingExtraError: wradlib is not installed.
    """
    path = Path(path)
    return _decode(_unpacked(path), str(path), keep_clutter)


def read_radolan_forecasts(path: str | Path, *, keep_clutter: bool = False) -> list[Frame]:
    """Read a tar archive of RADOLAN composites, such as RV's 25 forecasts, in the order of their times.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the archive is damaged or empty, or a member is not what ``read_radolan`` takes.
        MissingExtraError: wradlib is not installed.
    """
    path = Path(path)
    content = _unpacked(path, most=16 * MOST_BYTES)
    frames = []
    with (
        reading(path, "cannot be read as a tar archive", "fetch it again"),
        tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive,
    ):
        for member in archive:
            if member.isfile() and member.size > MOST_BYTES:
                raise DataError(f"{path}:{member.name} claims {member.size} bytes, which no composite needs")
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None:
                frames.append(_decode(file.read(), f"{path}:{member.name}", keep_clutter))
    if not frames:
        raise DataError(f"{path} holds no file: fetch it again")
    return sorted(frames, key=lambda frame: frame.header.time)


def radolan_header(path: str | Path) -> FrameHeader:
    """Return what a composite says without its values; of a forecast, the time it holds for.

    Raises:
        DatasetNotFoundError: there is no such file.
        DataError: the header cannot be read.
    """
    path = Path(path)
    return _frame_header(check_header(_unpacked(path, first=LONGEST_HEADER), str(path), complete=False))


def _frame_header(header: Header) -> FrameHeader:
    kind = "" if header.product in REFLECTIVITY else f" {header.minutes} min"
    product = f"{header.product}{' forecast' if header.ahead else ''}{kind}"
    return FrameHeader(header.time + 60 * header.ahead, "mm/h", product, _georeference(header))


def _georeference(header: Header) -> Georeference | None:
    """Return where the pixels are: grids of their size on the sphere or, from format 5 on, on the ellipsoid."""
    size = header.rows, header.columns
    if header.version >= 5 and size == (1200, 1100):
        return from_corner((-500.0, 500.0), (1000.0, 1000.0), size, ELLIPSOID)
    corner = _corner_on_the_sphere(size)
    return from_corner(corner, (1000.0, 1000.0), size, SPHERE) if corner else None


@lru_cache
def _corner_on_the_sphere(size: tuple[int, int]) -> tuple[float, float] | None:
    """Return (x, y) in metres of the north-western corner of a grid, or None where wradlib does not know it."""
    try:
        from wradlib.georef import get_radolan_grid
    except ImportError:
        return None
    if size not in GRIDS:
        return None
    corners = 1000 * get_radolan_grid(*size)  # the south-western corner of each pixel, in kilometres
    return float(corners[0, 0, 0]), float(corners[-1, 0, 1]) + 1000


def check_header(content: bytes, where: str, *, complete: bool = True) -> Header:
    """Parse the header of a composite and check that its lengths agree with each other and with the content.

    Args:
        content: the file, unpacked.
        where: the file's name for messages.
        complete: the content is the whole file, not its beginning only.

    Raises:
        DataError: no end of the header, an unknown or missing token, no composite of rain, or lengths that disagree.
    """
    if not content:
        raise DataError(f"{where} is empty (0 bytes): fetch it again")
    if content[257:262] == b"ustar":
        raise DataError(f"{where} is a tar archive of several maps: read it with read_radolan_forecasts or unpack it")
    end = content.find(ETX, 0, LONGEST_HEADER)
    if end < 0:
        raise DataError(
            f"{where} has no end of header (byte 3) in its first {LONGEST_HEADER} bytes: it is not a RADOLAN "
            "composite, or damaged"
        )
    header = _parse(content[:end].decode("latin-1"), where, end + 1)
    if header.product not in RAIN | REFLECTIVITY:
        raise DataError(
            f"{where} is product {header.product}, which is neither rain in mm nor reflectivity: use one of "
            f"{', '.join(sorted(RAIN | REFLECTIVITY))}"
        )
    size = header.length + (1 if header.product in REFLECTIVITY else 2) * header.rows * header.columns
    if header.declared != size:
        raise DataError(
            f"{where} declares {header.declared} bytes (BY) and a header of {header.length} with a grid of "
            f"{header.rows}x{header.columns} (GP) makes {size}: the product's size is wrong, do not use the file"
        )
    if complete and len(content) != size:
        raise DataError(
            f"{where} has {len(content)} bytes and declares {size}: it was cut or changed on the way, fetch it again"
        )
    return header


def _parse(text: str, where: str, length: int) -> Header:
    start = START.match(text)
    if not start:
        raise DataError(f"{where} begins with {text[:20]!r}, which is not a RADOLAN header")
    if start["site"] != COMPOSITE:
        raise DataError(f"{where} is of the radar site {start['site']}, not a composite ({COMPOSITE}): use a composite")
    tokens: dict[str, str] = {}
    position = start.end()
    while position < len(text):
        token = next((match for match in (token.match(text, position) for token in TOKENS) if match), None)
        if token is None:
            raise DataError(
                f"{where} has an unknown token in its header at {text[position : position + 12]!r}: "
                "it is damaged or of a format newer than this reader"
            )
        tokens.update(token.groupdict())
        position = token.end()
    missing = [name for name in NEEDED if name not in tokens]
    if missing:
        raise DataError(f"{where} has a header without {', '.join(missing)}: it is damaged")
    rows, columns = (int(number) for number in tokens["GP"].split("x"))
    try:
        moment = datetime.strptime(start["stamp"] + start["month"], "%d%H%M%m%y").replace(tzinfo=UTC)
    except ValueError as error:
        raise DataError(f"{where} has the date {start['stamp']} {start['month']} in its header: {error}") from error
    minutes = int(tokens["INT"]) * (1440 if tokens.get("U") == "1" else 1)
    if not minutes:
        raise DataError(f"{where} adds up rain over 0 minutes (INT): its header is damaged")
    return Header(
        start["product"], int(moment.timestamp()), int(tokens.get("VV") or 0), rows, columns,
        float("1" + tokens["PR"]), minutes, int(tokens["BY"]), length, int(tokens.get("VS") or 0),
    )  # fmt: skip


def _decode(content: bytes, where: str, keep_clutter: bool) -> Frame:
    header = check_header(content, where)
    try:
        from wradlib.io.radolan import read_radolan_composite
    except ImportError as error:
        raise MissingExtraError("wradlib", "radar", f"reading {where}") from error
    with reading(where, "cannot be decoded by wradlib", "it is damaged"):
        values, facts = read_radolan_composite(io.BytesIO(content), missing=-9999)
    if values.shape != (header.rows, header.columns) or facts["precision"] != header.precision:
        raise DataError(
            f"{where} is {values.shape} at {facts['precision']} mm by wradlib and {header.rows}x{header.columns} at "
            f"{header.precision} mm by its header: do not use the file"
        )
    if header.product in REFLECTIVITY:
        rates = rain_from_reflectivity(values).astype(np.float32)
    else:
        rates = values.astype(np.float32) * np.float32(60 / header.minutes)
    rates.flat[facts["nodatamask"]] = np.nan
    if not keep_clutter:
        rates.flat[facts["cluttermask"]] = np.nan
    # The file's row 0 is in the south.
    return Frame(np.ascontiguousarray(rates[None, ::-1]), _frame_header(header))


def _unpacked(path: Path, first: int | None = None, most: int = MOST_BYTES) -> bytes:
    """Return the content of a plain, gzip or bzip2 file, or its first bytes."""
    if not path.is_file():
        raise DatasetNotFoundError(f"there is no file {path}: give a RADOLAN composite")
    with path.open("rb") as plain:
        magic = plain.read(3)
    opened = gzip.open if magic[:2] == b"\x1f\x8b" else bz2.open if magic == b"BZh" else open
    with reading(path, "is damaged", "fetch it again"), opened(path, "rb") as file:
        # In pieces, as bz2 holds twice what it is asked for, and joined only if they are not too many.
        remaining, pieces = first if first is not None else most + 1, []
        while remaining > 0 and (piece := file.read(min(remaining, PIECE_BYTES))):
            pieces.append(piece)
            remaining -= len(piece)
    if first is None and remaining <= 0:
        raise DataError(f"{path} unpacks to more than {most} bytes, which no composite needs: do not use the file")
    return b"".join(pieces)
