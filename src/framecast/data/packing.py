"""How stored numbers become physical values: value = scale * stored + offset, and which numbers mean no data.

The rules are those of the CF conventions (chapters 2.5.1 and 8.1, https://cfconventions.org) and of the NetCDF Users'
Guide (appendix on attribute conventions):

- ``_FillValue``, ``missing_value``, ``valid_min``, ``valid_max`` and ``valid_range`` are compared with the numbers as
  stored. Limits of a floating type beside packed whole numbers are physical values instead.
- ``_Unsigned`` holds for all of them, so that the limits [0, -6] of 16-bit numbers are [0, 65530].
- Where there is no ``_FillValue``, the fill value that the file declares for its unwritten parts means no data too. In
  HDF5 and Zarr 2, 0 is what writers declare without being asked, so 0 never means no data unless an attribute says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from framecast.errors import DataError

Values = NDArray[np.float32]

NETCDF_FILLS: Mapping[str, float] = {
    "i1": -127, "u1": 255, "i2": -32767, "u2": 65535, "i4": -2147483647, "u4": 4294967295, "i8": -9223372036854775806,
    "u8": 18446744073709551614, "f4": 9.969209968386869e36, "f8": 9.969209968386869e36,
}  # fmt: skip
"""What the netCDF library declares, by type."""


@dataclass(frozen=True)
class Packing:
    """How an array is stored.

    Attributes:
        scale: physical units of one stored unit.
        offset: the physical value of a stored zero.
        missing: stored numbers that mean no data.
        least: numbers below it are no data, or None.
        most: numbers above it are no data, or None.
        unsigned: whether whole numbers are to be read as unsigned ones (CF's ``_Unsigned``), whatever their type; None
            takes the type.
        physical_limits: whether ``least`` and ``most`` are physical values, not stored numbers.
    """

    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    least: float | None = None
    most: float | None = None
    unsigned: bool | None = None
    physical_limits: bool = False

    @property
    def plain(self) -> bool:
        """Whether stored numbers are the physical values."""
        return self.scale == 1.0 and self.offset == 0.0

    def masks(self, dtype: DTypeLike) -> bool:
        """Return whether numbers of that type can mean no data."""
        kind = np.dtype(dtype).kind
        return kind == "f" or bool(self.missing) or self.least is not None or self.most is not None

    def unpack(self, stored: NDArray[Any]) -> Values:
        """Return physical values float32, NaN where there is no data."""
        if self.unsigned is not None and stored.dtype.kind in "iu":
            stored = stored.view(stored.dtype.str.replace(*("iu" if self.unsigned else "ui")))
        # In float64: 200 * float32(0.01) may fall below 2, and thresholds would see it.
        exact = stored if self.plain else stored * self.scale + self.offset
        values = exact.astype(np.float32)
        for number in self.missing:
            values[stored == self._like(number, stored.dtype)] = np.nan
        # A limit in physical units is met by the number nearest to it.
        limited, slack = (exact, abs(self.scale) / 2) if self.physical_limits else (stored, 0)
        if self.least is not None:
            values[limited < self._like(self.least, limited.dtype) - slack] = np.nan
        if self.most is not None:
            values[limited > self._like(self.most, limited.dtype) + slack] = np.nan
        return values

    def _like(self, number: float, dtype: np.dtype[Any]) -> Any:
        """Return a number as the array has it: rounded as its floats are, and of its sign."""
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                return dtype.type(number)
        top = 256**dtype.itemsize
        if self.unsigned and number < 0:
            return number + top
        return number - top if self.unsigned is False and number >= top // 2 else number

    def pack(self, values: Values, dtype: DTypeLike) -> NDArray[Any]:
        """Return values as stored whole numbers, NaN as the first missing one; what does not fit is cut."""
        limits, kind = np.iinfo(np.dtype(dtype)), np.dtype(dtype)
        fill = self.missing[0]
        top = limits.max - 1 if fill == limits.max else limits.max
        numbers = np.clip(np.rint((values.astype(np.float64) - self.offset) / self.scale), limits.min, top)
        return np.where(np.isnan(values), fill, numbers).astype(kind)

    def notes(self) -> list[str]:
        """Say in words what is not plain."""
        sentences = []
        if self.scale == 1 / 255 and not self.offset:
            sentences.append("whole numbers of 8 bits are taken as pixels: 255 is 1")
        elif not self.plain:
            sentences.append(f"stored numbers are unpacked as {self.scale:g} x number + {self.offset:g}")
        if self.missing:
            sentences.append(f"stored {', '.join(f'{number:g}' for number in self.missing)} means no data")
        if self.least is not None or self.most is not None:
            low, high = ("any" if limit is None else f"{limit:g}" for limit in (self.least, self.most))
            subject = "values" if self.physical_limits else "stored numbers"
            sentences.append(f"{subject} outside [{low}, {high}] mean no data")
        return sentences


def packing_from_attributes(
    attributes: Mapping[str, Any], dtype: DTypeLike, nodata: float | None, where: str, declared: float | None = None
) -> Packing:
    """Read a packing from CF attributes.

    Args:
        attributes: of the variable.
        dtype: type of the stored numbers.
        nodata: one more stored number that means no data.
        where: the file and variable, for messages.
        declared: the fill value that the file declares besides its attributes; it counts without ``_FillValue``.

    Raises:
        DataError: an attribute is not a number, ``scale_factor`` is zero or not finite, or no number is valid.
    """

    def numbers(name: str) -> NDArray[Any]:
        value = np.atleast_1d(attributes.get(name, ()))
        try:
            return value if value.dtype.kind in "iuf" else value.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: attribute {name} is {attributes[name]!r} and must be a number") from error

    kind = np.dtype(dtype)
    fills = numbers("_FillValue")
    if not len(fills) and declared is not None:
        fills = np.array([declared])
    named = [] if nodata is None else [nodata]
    missing = [float(number) for number in (*fills, *numbers("missing_value"), *named)]
    scale = float(next(iter(numbers("scale_factor")), 1.0))
    offset = float(next(iter(numbers("add_offset")), 0.0))
    if not (np.isfinite(scale) and scale and np.isfinite(offset)):
        raise DataError(f"{where}: scale_factor is {scale} and add_offset {offset}: they must be finite, not zero")
    limits = numbers("valid_range")
    if len(limits) not in (0, 2):
        raise DataError(f"{where}: valid_range is {limits.tolist()} and must be two numbers")
    ends = [limits[:1], limits[1:]] if len(limits) else [numbers("valid_min"), numbers("valid_max")]
    least, most = (float(end[0]) if len(end) and not np.isnan(end[0]) else None for end in ends)
    packed = kind.kind in "iu" and (scale, offset) != (1.0, 0.0)
    word = str(attributes.get("_Unsigned", "")).lower()
    packing = Packing(
        scale=scale,
        offset=offset,
        missing=tuple(dict.fromkeys(number for number in missing if not np.isnan(number))),
        least=least,
        most=most,
        unsigned={"true": True, "false": False}.get(word),
        physical_limits=packed and any(end.dtype.kind == "f" for end in ends if len(end)),
    )
    if least is not None and most is not None:
        low, high = (least, most) if packing.physical_limits else (packing._like(n, kind) for n in (least, most))
        if low > high:
            raise DataError(
                f"{where}: valid_range is [{least:g}, {most:g}], outside of which is no data, so no number would be "
                "valid: correct the file (is _Unsigned missing?)"
            )
    return packing


def meaningful_fill(declared: Any, dtype: DTypeLike) -> float | None:
    """Return the fill value that a file declares for its unwritten parts if it can only mean no data, else None.

    Args:
        declared: the value, or None where the file declares none.
        dtype: type of the stored numbers.
    """
    if declared is None or np.dtype(dtype).kind not in "iuf":
        return None
    number = float(np.asarray(declared).reshape(-1)[0])
    return None if number == 0 or np.isnan(number) else number
