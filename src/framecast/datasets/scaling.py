"""How physical values become the numbers a model sees, and back.

A scaling is saved with the weights, so a forecast can be given in physical units again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from framecast.errors import UnknownNameError


class Scaling(ABC):
    """A map between physical values and the model's range [0, 1]."""

    kind: ClassVar[str]

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
            raise ValueError(f"min-max scaling needs low < high and got {self.low} and {self.high}")

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


SCALINGS: dict[str, type[Scaling]] = {scaling.kind: scaling for scaling in (MinMax,)}


def scaling_from_dict(facts: dict[str, Any]) -> Scaling:
    """Make a scaling from what ``Scaling.to_dict`` returned.

    Raises:
        UnknownNameError: there is no scaling of that kind.
    """
    kind = facts.get("kind", "")
    if kind not in SCALINGS:
        raise UnknownNameError("scaling", str(kind), SCALINGS)
    return SCALINGS[kind](**{key: value for key, value in facts.items() if key != "kind"})
