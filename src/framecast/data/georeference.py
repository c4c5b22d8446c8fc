"""Where the pixels of a frame are: coordinates of rows and columns, and the projection they are in.

Coordinates are those of the middle of each pixel, in metres of the projection or in degrees. Reference: CF
conventions, chapters 4.1, 4.2 and 5.6; projections are read and written by pyproj (extra ``geo``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.data.grid import Grid

WGS84 = "EPSG:4326"
SLACK = 0.05
"""Pixels by which two grids may differ and still be the same: files write coordinates as float32 or rounded."""

Axis = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Georeference:
    """Where the pixels of a frame are.

    Attributes:
        y: (H,) coordinates of the rows, from the first to the last.
        x: (W,) coordinates of the columns.
        crs: the projection, as pyproj reads it: PROJ string, WKT or "EPSG:4326" for degrees; "" where it is unknown.
    """

    y: Axis
    x: Axis
    crs: str = ""

    def __eq__(self, other: object) -> bool:
        """Return whether coordinates and projection are equal; ``differs`` allows for rounding."""
        return isinstance(other, Georeference) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.size, float(self.y[0]), float(self.x[0]), self.crs))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return len(self.y), len(self.x)

    @property
    def geographic(self) -> bool:
        """Whether the coordinates are degrees."""
        return self.crs == WGS84

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel on average, positive; 0 of an axis of one pixel."""
        down, across = (abs(axis[-1] - axis[0]) / max(1, len(axis) - 1) for axis in (self.y, self.x))
        return float(down), float(across)

    @property
    def regular(self) -> bool:
        """Whether all pixels have one size, and are in the order from west to east."""
        plain = [isinstance(_plain(axis), dict) or len(axis) == 2 for axis in (self.y, self.x)]
        return all(plain) and bool(self.x[-1] > self.x[0])

    @property
    def north_up(self) -> bool:
        """Whether the first row is the northernmost."""
        return bool(self.y[0] >= self.y[-1])

    def on(self, grid: Grid | None) -> Georeference:
        """Return where the pixels are after a crop and a resize."""
        if grid is None:
            return self
        height, width = grid.shape(*self.size)
        top, bottom, left, right = grid.crop or (0, len(self.y), 0, len(self.x))
        rows, columns = self.y[top:bottom], self.x[left:right]
        return replace(self, y=_coarser(rows, height, grid), x=_coarser(columns, width, grid))

    def turned(self) -> Georeference:
        """Return it with the rows in the other order."""
        return replace(self, y=self.y[::-1])

    def differs(self, other: Georeference) -> str:
        """Say in what two differ, or "" where they are the same to a twentieth of a pixel."""
        if self.size != other.size:
            return f"{self.size[0]}x{self.size[1]} and {other.size[0]}x{other.size[1]} pixels"
        if self.crs and other.crs and not same_crs(self.crs, other.crs):
            return f"the projections {self.crs} and {other.crs}"
        for name, axis, other_axis, pixel in zip("yx", (self.y, self.x), (other.y, other.x), self.pixel, strict=True):
            error = np.abs(axis - other_axis)
            if name == "x" and self.geographic:
                error = np.abs((axis - other_axis + 180) % 360 - 180)
            if error.max() > SLACK * (pixel or 1):
                ends = [f"{one[0]:g} to {one[-1]:g}" for one in (axis, other_axis)]
                return f"{name} from {ends[0]} and from {ends[1]}"
        return ""

    def corner(self) -> tuple[float, float]:
        """Return (x, y) of the outer corner of the first pixel of the first row."""
        steps = [(axis[1] - axis[0]) if len(axis) > 1 else 0.0 for axis in (self.x, self.y)]
        return float(self.x[0] - steps[0] / 2), float(self.y[0] - steps[1] / 2)

    def text(self) -> str:
        """Say it in words."""
        down, across = self.pixel
        unit = "degrees" if self.geographic else "m"
        order = "north to south" if self.north_up else "south to north"
        rows, columns = (f"{axis[0]:.6g} to {axis[-1]:.6g}" for axis in (self.y, self.x))
        name = "longitude and latitude" if self.geographic else short_crs(self.crs)
        return f"rows {rows} ({order}), columns {columns}, pixels of {down:.5g} x {across:.5g} {unit}, {name}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file; ``georeference_from_dict`` reads them."""
        return {"y": _plain(self.y), "x": _plain(self.x), "crs": self.crs}


def georeference_from_dict(facts: Mapping[str, Any]) -> Georeference:
    """Make a georeference from what ``Georeference.to_dict`` returned."""
    return Georeference(_axis(facts["y"]), _axis(facts["x"]), str(facts["crs"]))


def from_corner(corner: Sequence[float], pixel: Sequence[float], size: tuple[int, int], crs: str) -> Georeference:
    """Make a georeference of a regular grid, row 0 in the north.

    Args:
        corner: (x, y) of the outer corner of the north-western pixel.
        pixel: width and height of a pixel, both positive.
        size: (H, W).
        crs: the projection.
    """
    height, width = size
    y = corner[1] - pixel[1] * (np.arange(height) + 0.5)
    return Georeference(y, corner[0] + pixel[0] * (np.arange(width) + 0.5), crs)


Coordinates = dict[str, tuple[Axis, dict[str, str]]]


def cf_coordinates(place: Georeference) -> tuple[Coordinates, dict[str, Any]]:
    """Return name -> (values, CF attributes) of the axes y and x, and the attributes of the grid mapping, or none."""
    names = ("latitude", "longitude") if place.geographic else ("projection_y_coordinate", "projection_x_coordinate")
    units = ("degrees_north", "degrees_east") if place.geographic else ("m", "m")
    coordinates = {
        axis: (values, {"standard_name": name, "units": unit, "axis": axis.upper()})
        for axis, values, name, unit in zip("yx", (place.y, place.x), names, units, strict=True)
    }
    if not place.crs:
        return coordinates, {}
    try:
        from pyproj import CRS

        mapping = dict(CRS(place.crs).to_cf())
    except (ImportError, ValueError):
        return coordinates, {}
    if mapping.get("grid_mapping_name") == "polar_stereographic":  # CF wants the pole, which PROJ takes for granted
        mapping.setdefault("latitude_of_projection_origin", 90.0 if mapping.get("standard_parallel", 90) > 0 else -90.0)
    return coordinates, mapping


def same_crs(first: str, second: str) -> bool:
    """Return whether two projections are the same; without pyproj, whether they are written alike."""
    if first == second:
        return True
    try:
        from pyproj import CRS
    except ImportError:
        return False
    try:
        return bool(_parameters(CRS(first)) == _parameters(CRS(second)))
    except ValueError:
        return False


def _parameters(crs: Any) -> Any:
    """Return what a projection does, whatever its name: WKT, PROJ and CF name the same one differently."""
    facts = crs.to_cf() if crs.is_projected else {"grid_mapping_name": "latitude_longitude"}
    numbers = ("semi_major_axis", "semi_minor_axis") if crs.is_projected else ()
    return {
        name: np.round(value, 6).tolist() if isinstance(value, float | tuple | list) else value
        for name, value in sorted(facts.items())
        if (name in numbers or not name.endswith(("name", "wkt", "axis", "flattening"))) or name == "grid_mapping_name"
    }


def short_crs(crs: str) -> str:
    """Name a projection in a few words."""
    if not crs:
        return "of unknown projection"
    try:
        from pyproj import CRS

        known: CRS | None = CRS(crs)
    except (ImportError, ValueError):
        return crs[:60]
    if known is not None and known.is_bound:
        known = known.source_crs
    if known is None:
        return crs[:60]
    if known.name not in ("unknown", "undefined"):
        return str(known.name)
    method = known.coordinate_operation.method_name if known.coordinate_operation else "geographic"
    return f"projection {method}"


def _coarser(axis: Axis, count: int, grid: Grid) -> Axis:
    factor = len(axis) // count
    if grid.method == "decimate":
        return axis[factor // 2 :: factor]
    return np.asarray(axis.reshape(count, factor).mean(1))


def _plain(axis: Axis) -> dict[str, float] | list[float]:
    """Return an axis as its ends and its length where it is regular, else all of it."""
    if len(axis) > 2:
        line = np.linspace(axis[0], axis[-1], len(axis))
        if np.abs(line - axis).max() <= 1e-6 * abs(axis[1] - axis[0]):
            return {"first": float(axis[0]), "last": float(axis[-1]), "count": len(axis)}
    return [float(value) for value in axis]


def _axis(facts: Any) -> Axis:
    if isinstance(facts, Mapping):
        return np.linspace(facts["first"], facts["last"], int(facts["count"]))
    return np.asarray(facts, np.float64)
