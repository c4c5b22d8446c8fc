"""How stored numbers become physical values: value = scale * stored + offset, and which numbers mean no data.

The rules are those of the CF conventions (chapters 2.5.1 and 8.1, https://cfconventions.org): ``_FillValue``,
``missing_value``, ``valid_min``, ``valid_max`` and ``valid_range`` are compared with the numbers as stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from framecast.errors import DataError

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Packing:
    """How an array is stored.

    Attributes:
        scale: physical units of one stored unit.
        offset: the physical value of a stored zero.
        missing: stored numbers that mean no data.
        least: stored numbers below it are no data, or None.
        most: stored numbers above it are no data, or None.
        unsigned: signed whole numbers are to be read as unsigned ones (CF's ``_Unsigned``).
    """

    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[float, ...] = ()
    least: float | None = None
    most: float | None = None
    unsigned: bool = False

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
        if self.unsigned and stored.dtype.kind == "i":
            stored = stored.view(stored.dtype.str.replace("i", "u"))
        # In float64: 200 * float32(0.01) may fall below 2, and thresholds would see it.
        values = stored.astype(np.float32) if self.plain else (stored * self.scale + self.offset).astype(np.float32)
        for number in self.missing:
            values[stored == self._like(number, stored.dtype)] = np.nan
        if self.least is not None:
            values[stored < self.least] = np.nan
        if self.most is not None:
            values[stored > self.most] = np.nan
        return values

    def _like(self, number: float, dtype: np.dtype[Any]) -> Any:
        """Return a missing number as the array has it: rounded as its floats are, unsigned as they are read."""
        if dtype.kind == "f":
            return dtype.type(number)
        return number + 256**dtype.itemsize if self.unsigned and number < 0 else number

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
        if not self.plain:
            sentences.append(f"stored numbers are unpacked as {self.scale:g} x number + {self.offset:g}")
        if self.missing:
            sentences.append(f"stored {', '.join(f'{number:g}' for number in self.missing)} means no data")
        if self.least is not None or self.most is not None:
            low, high = ("any" if limit is None else f"{limit:g}" for limit in (self.least, self.most))
            sentences.append(f"stored numbers outside [{low}, {high}] mean no data")
        return sentences


def packing_from_attributes(attributes: Mapping[str, Any], nodata: float | None, where: str) -> Packing:
    """Read a packing from CF attributes.

    Args:
        attributes: of the variable.
        nodata: one more stored number that means no data.
        where: the file and variable, for messages.

    Raises:
        DataError: an attribute is not a number, or ``scale_factor`` is zero or not finite.
    """

    def numbers(name: str) -> list[float]:
        try:
            return [float(value) for value in np.atleast_1d(attributes.get(name, ()))]
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: attribute {name} is {attributes[name]!r} and must be a number") from error

    missing = [*numbers("_FillValue"), *numbers("missing_value"), *([] if nodata is None else [float(nodata)])]
    limits = numbers("valid_range")
    if len(limits) not in (0, 2):
        raise DataError(f"{where}: valid_range is {limits} and must be two numbers")
    least, most = limits or numbers("valid_min"), limits or numbers("valid_max")
    scale, offset = (numbers("scale_factor") or [1.0])[0], (numbers("add_offset") or [0.0])[0]
    if not (np.isfinite(scale) and scale and np.isfinite(offset)):
        raise DataError(f"{where}: scale_factor is {scale} and add_offset {offset}: they must be finite, not zero")
    return Packing(
        scale=scale,
        offset=offset,
        missing=tuple(dict.fromkeys(number for number in missing if not np.isnan(number))),
        least=least[0] if least else None,
        most=most[-1] if most else None,
        unsigned=str(attributes.get("_Unsigned", "")).lower() == "true",
    )
