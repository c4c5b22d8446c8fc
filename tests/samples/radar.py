"""Miniature radar files in the exact formats: KNMI and ODIM HDF5, RADOLAN binaries, RainNet's RYDL.hdf5."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint16]
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
NODATA, CLUTTER, SECONDARY = 0x2000 | 2500, 0x8000, 0x1000


def seconds(stamp: str) -> int:
    """Return 2010-08-26T01:00 as seconds since 1970 UTC."""
    return int(datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp())


def knmi_name(when: int) -> str:
    return f"RAD_NL25_RAP_5min_{datetime.fromtimestamp(when, UTC):%Y%m%d%H%M}.h5"


def knmi_file(folder: Path, pixels: Any, when: int, minutes: int = 5, **facts: Any) -> Path:
    """Write pixels (H, W) of 0.01 mm that end at ``when``; ``facts`` replace attributes."""

    def words(moment: int) -> bytes:
        day = datetime.fromtimestamp(moment, UTC)
        return f"{day:%d}-{MONTHS[day.month - 1]}-{day:%Y;%H:%M:%S}.000".encode()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / knmi_name(when)
    with h5py.File(path, "w") as file:
        file["image1/image_data"] = np.asarray(pixels, np.uint16)
        calibration = file.create_group("image1/calibration").attrs
        calibration["calibration_formulas"] = np.bytes_(facts.get("formula", b"GEO=0.01*PV+0.0"))
        for name in ("calibration_missing_data", "calibration_out_of_image"):
            calibration[name] = np.array([65535], np.int32)
        overview = file.create_group("overview").attrs
        overview["product_datetime_start"] = np.array([words(when - 60 * minutes)], "S25")
        overview["product_datetime_end"] = np.array([facts.get("end", words(when))], "S25")
    return path


def knmi_folder(folder: Path, frames: Any, start: int, minutes: int = 5) -> Path:
    """Write frames (T, H, W) of pixels, the first one ending at ``start``."""
    for number, pixels in enumerate(frames):
        knmi_file(folder, pixels, start + 60 * minutes * number, minutes)
    return folder


def odim_file(path: Path, pixels: Any, *, where: str = "data", start: str = "20250922 0440",
              end: str = "20250922 0540", quantity: str = "ACRR", gain: float = 0.1, nodata: float = 65535,
              text: bool = False) -> Path:  # fmt: skip
    """Write a composite; ``where`` puts gain and offset at the "data" or the "dataset", ``text`` stores text as str."""
    kind = str if text else np.bytes_
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = kind("ODIM_H5/V2_3")
        file["dataset1/data1/data"] = pixels
        what = file.create_group("dataset1/what").attrs
        for edge, stamp in (("start", start), ("end", end)):
            day, clock = stamp.split()
            what[f"{edge}date"], what[f"{edge}time"] = kind(day), kind(f"{clock}00")
        attrs = what if where == "dataset" else file.create_group("dataset1/data1/what").attrs
        attrs["quantity"] = kind(quantity)
        for name, value in {"gain": gain, "offset": 0.0, "nodata": nodata, "undetect": 0.0}.items():
            attrs[name] = value if where == "dataset" else np.array([value])
    return path


def radolan_bytes(values: Any, *, product: str = "RY", stamp: str = "102050", month: str = "0814", precision: int = 2,
                  interval: str = "INT   5", tail: str = "MS 14<boo,ros,emd>", by: int | None = None,
                  extra: str = "", version: int = 3) -> bytes:  # fmt: skip
    """Return a composite of raw 16-bit values (H, W), row 0 in the south; ``by`` declares another length."""
    raw = np.asarray(values, "<u2")
    rows, columns = raw.shape

    def header(size: int) -> bytes:
        words = (
            f"{product}{stamp}10000{month}BY{size:7d}VS{version:2d}SW   2.13.1PR E-{precision:02d}{interval}"
            f"GP{rows:4d}x{columns:4d}{extra}{tail}\x03"
        )
        return words.encode()

    size = len(header(0)) + raw.nbytes
    return header(size if by is None else by) + raw.tobytes()


def rydl_file(path: Path, frames: dict[str, Any]) -> Path:
    """Write maps in mm per 5 minutes by their key."""
    with h5py.File(path, "w") as file:
        for key, values in frames.items():
            file[key] = np.asarray(values, np.float32)
    return path
