"""Units: spellings, kind, CF name, scaling and colours of each in one table, and contradictions of unit and name."""

from __future__ import annotations

from dataclasses import dataclass

from framecast.errors import DataError


@dataclass(frozen=True)
class Unit:
    """What is known of a unit.

    Attributes:
        name: its one spelling here.
        kind: what it measures, such as "a rate"; "" where nothing follows from it.
        spellings: others in lower case, which are read as this one.
        cf: its spelling by the CF conventions.
        standard_name: CF standard name of a variable in this unit, or "".
        variable: name of a variable in this unit, in files that framecast writes.
        packing: scale and offset of 16-bit numbers that lose nothing that radars tell, or None.
        scaling: name of the scaling that suits it, or "" where it follows from the values.
        colours: name of its colour scale in pictures, or "" for shades of grey.
        possible: the least and the largest value that can be, or None where nothing is known of it.
    """

    name: str
    kind: str = ""
    spellings: tuple[str, ...] = ()
    cf: str = ""
    standard_name: str = ""
    variable: str = "frames"
    packing: tuple[float, float] | None = None
    scaling: str = ""
    colours: str = ""
    possible: tuple[float, float] | None = None


_TABLE = (
    Unit(
        "mm/h", "a rate",
        ("mm h-1", "mm hr-1", "mm/hr", "mm/hour", "mm h^-1", "mm.h-1", "mm h**-1", "kg m-2 h-1", "kg/m2/h"),
        "mm h-1", "rainfall_rate", "rainfall_rate", (0.01, 0.0), "dbz-pixel", "rain", (0.0, 3000.0),
    ),
    Unit("mm/s", "a rate", ("mm s-1", "kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1")),
    Unit("mm/d", "a rate", ("mm d-1", "mm/day", "mm day-1", "kg m-2 d-1")),
    Unit("mm/min", "a rate"),
    Unit("mm/5min", "a rate"),
    Unit("m/s", "a rate", ("m s-1", "m s**-1")),
    Unit(
        "mm", "an amount", ("kg m-2", "kg/m2", "millimeter", "millimetre", "kg m**-2"),
        "mm", "rainfall_amount", "rainfall_amount", (0.01, 0.0), possible=(0.0, 30_000.0),
    ),
    Unit("m", "an amount", ("meter", "metre")),
    Unit("cm", "an amount"),
    Unit(
        "dBZ", "a reflectivity", ("dbz", "db z"),
        "dBZ", "equivalent_reflectivity_factor", "reflectivity", (0.01, -100.0),
        possible=(-200.0, 100.0),
    ),
    *(Unit(name, "a temperature", possible=(0.0, 500.0)) for name in ("K", "kelvin")),
    *(Unit(name, "a temperature", possible=(-250.0, 250.0)) for name in ("degC", "°C", "celsius")),
    *(Unit(name, "a pressure") for name in ("Pa", "hPa", "kPa", "mbar")),
    Unit("1", spellings=("", "dimensionless", "none", "unitless")),
)  # fmt: skip
UNITS = {unit.name: unit for unit in _TABLE}
# What parts of the names of variables say about the kind of their unit.
_NAMES = {
    "a rate": ("rain_rate", "rainrate", "rainfall_rate", "precipitation_rate", "rainfall_flux", "precipitation_flux"),
    "an amount": ("rainfall_amount", "precipitation_amount", "rain_amount"),
    "a reflectivity": ("reflectivity", "dbz", "equivalent_reflectivity_factor", "dbzh"),
    "a temperature": ("temperature",),
    "a pressure": ("air_pressure", "surface_pressure"),
}


def unit_facts(name: str) -> Unit:
    """Return what is known of a unit by its one spelling; of an unknown one, its name alone."""
    return UNITS.get(name, Unit(name, cf=name))


def one_spelling(unit: object) -> str:
    """Return a unit in the one spelling used here, unknown ones as they are; "1" for no unit."""
    words = unit.decode("ascii", "replace") if isinstance(unit, bytes) else str(unit or "")
    words = " ".join(words.split())
    return next((u.name for u in UNITS.values() if words == u.name or words.lower() in u.spellings), words)


def check_unit(name: str, unit: str, where: str) -> None:
    """Refuse a unit that contradicts the name of a variable, such as a rain rate in dBZ; unknown ones pass.

    Raises:
        DataError: they contradict each other.
    """
    lowered = name.lower()
    named = next((kind for kind, parts in _NAMES.items() if any(part in lowered for part in parts)), None)
    declared = unit_facts(unit).kind
    if named and declared and named != declared:
        raise DataError(
            f"{where}: the name {name!r} says {named} and its unit {unit!r} says {declared}: correct the file, or say "
            "what it is with unit="
        )


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that keeps it at 1 or more, such as "40 ms", "5 min" or "1.5 h"."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if abs(seconds) >= length:
            return f"{seconds / length:.4g} {unit}"
    return f"{1000 * seconds:.4g} ms"
