"""Units: one spelling for each, and whether a unit contradicts the name it stands beside."""

from __future__ import annotations

from framecast.errors import DataError

_SPELLINGS = {
    "mm/h": ("mm h-1", "mm hr-1", "mm/hr", "mm/hour", "mm h^-1", "mm.h-1", "mm h**-1", "kg m-2 h-1", "kg/m2/h"),
    "mm/s": ("mm s-1", "kg m-2 s-1", "kg/m2/s", "kg m**-2 s**-1"),
    "mm/d": ("mm d-1", "mm/day", "mm day-1", "kg m-2 d-1"),
    "m/s": ("m s-1", "m s**-1"),
    "mm": ("kg m-2", "kg/m2", "millimeter", "millimetre", "kg m**-2"),
    "m": ("meter", "metre"),
    "dBZ": ("dbz", "db z"),
    "1": ("", "dimensionless", "none", "unitless"),
}
_KINDS = {
    "a rate": ("mm/h", "mm/s", "mm/d", "mm/min", "mm/5min", "m/s"),
    "an amount": ("mm", "m", "cm"),
    "a reflectivity": ("dBZ",),
    "a temperature": ("K", "degC", "°C", "celsius", "kelvin"),
    "a pressure": ("Pa", "hPa", "kPa", "mbar"),
}
_NAMES = {
    "a rate": ("rain_rate", "rainrate", "rainfall_rate", "precipitation_rate", "rainfall_flux", "precipitation_flux"),
    "an amount": ("rainfall_amount", "precipitation_amount", "rain_amount"),
    "a reflectivity": ("reflectivity", "dbz", "equivalent_reflectivity_factor", "dbzh"),
    "a temperature": ("temperature",),
    "a pressure": ("air_pressure", "surface_pressure"),
}


def one_spelling(unit: object) -> str:
    """Return a unit in the one spelling used here, unknown ones as they are; "1" for no unit."""
    words = unit.decode("ascii", "replace") if isinstance(unit, bytes) else str(unit or "")
    words = " ".join(words.split())
    return next((ours for ours, known in _SPELLINGS.items() if words == ours or words.lower() in known), words)


def check_unit(name: str, unit: str, where: str) -> None:
    """Refuse a unit that contradicts the name of a variable, such as a rain rate in dBZ; unknown ones pass.

    Raises:
        DataError: they contradict each other.
    """
    lowered = name.lower()
    named = next((kind for kind, parts in _NAMES.items() if any(part in lowered for part in parts)), None)
    given = next((kind for kind, units in _KINDS.items() if unit in units), None)
    if named and given and named != given:
        raise DataError(
            f"{where}: the name {name!r} says {named} and its unit {unit!r} says {given}: correct the file, or say "
            "what it is with unit="
        )
