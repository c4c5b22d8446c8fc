"""How physical values become the numbers a model sees, and back.

A scaling is saved with the weights, so a forecast can be given in physical units again.

Rain rates R in mm/h, by name:

    dBZ pixel   Z = 256 R^1.42,  dBZ = 10 log₁₀ Z,  number = (dBZ + 10) / 70, cut to [0, 1]
    log         number = ln((R + offset) / (low + offset)) / ln((high + offset) / (low + offset))

References: the dBZ pixel is that of Shi et al., "Deep Learning for Precipitation Nowcasting: A Benchmark and a New
Model", NeurIPS 2017, with the Z-R relation of the German Weather Service; the logarithm is RainNet's, Ayzel,
Scheffer and Heistermann, Geosci. Model Dev. 13, 2020, doi:10.5194/gmd-13-2631-2020.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framecast.errors import OptionError, UnknownNameError


class Scaling(ABC):
    """A map between physical values and the model's range [0, 1].

    Attributes:
        kind: the name it is saved by.
        saturates: whether values above the upper limit are cut to it; otherwise they are an error.
    """

    kind: ClassVar[str]
    saturates: ClassVar[bool] = False

    @abstractmethod
    def scale(self, values: Tensor) -> Tensor:
        """Turn physical values of any shape into the model's numbers."""

    @abstractmethod
    def unscale(self, numbers: Tensor) -> Tensor:
        """Turn the model's numbers of any shape into physical values."""

    @property
    @abstractmethod
    def limits(self) -> tuple[float, float]:
        """The physical values that become 0 and 1."""

    def to_dict(self) -> dict[str, Any]:
        """Return what ``scaling_from_dict`` needs to make this scaling again."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class MinMax(Scaling):
    """The straight line from [low, high] to [0, 1].

    Raises:
        ValueError: ``high`` is not above ``low``.
    """

    low: float = 0.0
    high: float = 1.0
    kind: ClassVar[str] = "min-max"

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise OptionError(f"min-max scaling needs low < high and got {self.low} and {self.high}")

    def scale(self, values: Tensor) -> Tensor:
        """Return (values - low) / (high - low)."""
        return (values - self.low) / (self.high - self.low)

    def unscale(self, numbers: Tensor) -> Tensor:
        """Return low + numbers (high - low)."""
        return self.low + numbers * (self.high - self.low)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value."""
        return self.low, self.high


@dataclass(frozen=True)
class DbzPixel(Scaling):
    """Rain rates in mm/h as pixels of reflectivity: 0 at ``low_dbz``, 1 at ``high_dbz``, cut between.

    A rate below ``least`` (0.00398 mm/h by default, a hundredth of drizzle) becomes 0, and 0 becomes no rain at all,
    not ``least``: so no rain stays no rain in a round trip, and every rate from ``least`` up to the limit returns.

    Raises:
        ValueError: a limit or factor that makes no rising scale.
    """

    factor: float = 256.0
    exponent: float = 1.42
    low_dbz: float = -10.0
    high_dbz: float = 60.0
    kind: ClassVar[str] = "dbz-pixel"
    saturates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.factor > 0 and self.exponent > 0 and self.high_dbz > self.low_dbz):
            raise OptionError(f"dBZ scaling needs positive factor and exponent and low_dbz < high_dbz and got {self}")

    def _rate(self, dbz: float) -> float:
        return float((10 ** (dbz / 10) / self.factor) ** (1 / self.exponent))

    @property
    def least(self) -> float:
        """The least rate in mm/h that is told from no rain."""
        return self._rate(self.low_dbz)

    def scale(self, values: Tensor) -> Tensor:
        """Return pixels in [0, 1] of rates in mm/h."""
        decibels = 10 * (math.log10(self.factor) + self.exponent * values.clamp(min=self.least / 2).log10())
        return ((decibels - self.low_dbz) / (self.high_dbz - self.low_dbz)).clamp(0, 1)

    def unscale(self, numbers: Tensor) -> Tensor:
        """Return rates in mm/h of pixels, which are cut to [0, 1] first."""
        decibels = self.low_dbz + numbers.clamp(0, 1) * (self.high_dbz - self.low_dbz)
        rates = 10 ** ((decibels / 10 - math.log10(self.factor)) / self.exponent)
        return rates.where(numbers > 0, numbers.new_zeros(()))

    @property
    def limits(self) -> tuple[float, float]:
        """No rain, and the rate of the highest reflectivity (338 mm/h by default)."""
        return 0.0, self._rate(self.high_dbz)


def rain_from_reflectivity(dbz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rain rates in mm/h of reflectivity in dBZ by Z = 256 R^1.42, cut to -10 to 60 dBZ; -10 is no rain."""
    relation = DbzPixel()
    pixels = (torch.from_numpy(np.array(dbz, np.float64)) - relation.low_dbz) / (relation.high_dbz - relation.low_dbz)
    return relation.unscale(pixels).numpy()


@dataclass(frozen=True)
class Log(Scaling):
    """The logarithm of values from ``low`` to ``high`` after adding ``offset``, brought to [0, 1].

    The default offset of 0.12 mm/h is RainNet's 0.01 mm in 5 minutes.

    Raises:
        ValueError: ``high`` is not above ``low``, or low + offset is not above 0.
    """

    low: float = 0.0
    high: float = 240.0
    offset: float = 0.12
    kind: ClassVar[str] = "log"
    saturates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (self.high > self.low and self.low + self.offset > 0):
            raise OptionError(f"log scaling needs low < high and low + offset > 0 and got {self}")

    def scale(self, values: Tensor) -> Tensor:
        """Return the logarithm, 0 at ``low`` and 1 at ``high``; values beyond are cut."""
        base = self.low + self.offset
        logarithm = ((values.clamp(self.low, self.high) + self.offset) / base).log()
        return (logarithm / math.log((self.high + self.offset) / base)).clamp(0, 1)

    def unscale(self, numbers: Tensor) -> Tensor:
        """Return values of numbers, which are cut to [0, 1] first."""
        base = self.low + self.offset
        grown = (numbers.clamp(0, 1) * math.log((self.high + self.offset) / base)).expm1()
        return self.low + base * grown

    @property
    def limits(self) -> tuple[float, float]:
        """The values that become 0 and 1."""
        return self.low, self.high


SCALINGS: dict[str, type[Scaling]] = {scaling.kind: scaling for scaling in (MinMax, DbzPixel, Log)}


def scaling_from_dict(facts: dict[str, Any]) -> Scaling:
    """Make a scaling from what ``Scaling.to_dict`` returned.

    Raises:
        UnknownNameError: there is no scaling of that kind.
    """
    kind = facts.get("kind", "")
    if kind not in SCALINGS:
        raise UnknownNameError("scaling", str(kind), SCALINGS)
    return SCALINGS[kind](**{key: value for key, value in facts.items() if key != "kind"})
