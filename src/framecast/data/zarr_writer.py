"""The Zarr that a conversion writes: what it will hold is planned, then it is created, then filled frame by frame.

It follows the CF conventions, one chunk a frame, packed into 16 bits, compressed, each chunk with a checksum:

    variable (time, y, x), or (time, channel, y, x)   uint16, scale_factor, add_offset, _FillValue = 65535
    time     (time,)                                  seconds since 1970-01-01, where there are time stamps
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framecast.data.formats.netcdf import PRODUCT
from framecast.data.georeference import Georeference, cf_coordinates
from framecast.data.packing import Packing, Values
from framecast.data.sources import Indices
from framecast.data.units import unit_facts
from framecast.errors import MissingExtraError

FILL = 65_535
LEVEL = 3


@dataclass(frozen=True)
class ConversionPlan:
    """What an archive will hold.

    Attributes:
        shape: (C, H, W) of a frame.
        unit: of the values.
        packing: how they are stored.
        times: of the frames, or None.
        count: the number of frames.
        history: where they come from.
        georeference: where the pixels are, or None.
        product: what was measured, or "".
    """

    shape: tuple[int, int, int]
    unit: str
    packing: Packing
    times: Indices | None
    count: int
    history: str
    georeference: Georeference | None = None
    product: str = ""

    @property
    def names(self) -> tuple[str, str, str]:
        """Name, CF standard name and CF unit of the variable."""
        facts = unit_facts(self.unit)
        return facts.variable, facts.standard_name, facts.cf or self.unit


def packing_for(unit: str, low: float, high: float, pixels: bool) -> Packing:
    """Return a packing for values between two limits: the unit's own steps where they reach, else as fine as can be."""
    if pixels:
        return Packing(1 / 255, 0.0, (FILL,))
    scale, offset = unit_facts(unit).packing or (0.0, 0.0)
    if scale and offset <= low and (high - offset) / scale < FILL:
        return Packing(scale, offset, (FILL,))
    if not high > low:
        return Packing(1.0, low if np.isfinite(low) else 0.0, (FILL,))
    return Packing((high - low) / (FILL - 1), low, (FILL,))


def create_archive(path: Path, plan: ConversionPlan) -> None:
    """Create the archive with all but its frames.

    Raises:
        MissingExtraError: zarr is not installed.
        OSError: it cannot be written.
    """
    zarr = import_zarr()
    name, standard, unit = plan.names
    group = zarr.create_group(path, zarr_format=3, attributes={
        "Conventions": "CF-1.11",
        "title": f"{plan.count} frames of {plan.shape[1]}x{plan.shape[2]}",
        "history": plan.history,
    })  # fmt: skip
    channels, height, width = plan.shape
    axes = ("time", "y", "x") if channels == 1 else ("time", "channel", "y", "x")
    frame = (height, width) if channels == 1 else plan.shape
    facts: dict[str, Any] = {"units": unit, "scale_factor": plan.packing.scale, "add_offset": plan.packing.offset}
    coordinates, mapping = cf_coordinates(plan.georeference) if plan.georeference else ({}, {})
    if plan.product:
        facts[PRODUCT] = plan.product
    if mapping:
        facts["grid_mapping"] = "crs"
        group.create_array("crs", shape=(), dtype="int32", dimension_names=(), attributes=plain_attributes(mapping))
    group.create_array(
        name,
        shape=(plan.count, *frame),
        chunks=(1, *frame),
        dtype="uint16",
        fill_value=FILL,
        compressors=_codecs(),
        dimension_names=axes,
        attributes={**facts, "_FillValue": FILL, **({"standard_name": standard} if standard else {})},
    )
    for axis, (values, attributes) in coordinates.items():
        _add_axis(group, axis, values, attributes)
    if plan.times is not None:
        time_attributes = {
            "units": "seconds since 1970-01-01",
            "calendar": "standard",
            "standard_name": "time",
            "axis": "T",
        }
        _add_axis(group, "time", plan.times, time_attributes)


def plain_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes that JSON can hold."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items()}


def _codecs() -> list[Any]:
    codecs = import_zarr().codecs
    return [codecs.ZstdCodec(level=LEVEL), codecs.Crc32cCodec()]


def _add_axis(group: Any, name: str, values: Any, attributes: Mapping[str, Any]) -> None:
    """Write the coordinate of an axis as one chunk, so that opening costs one read."""
    array = group.create_array(
        name,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=_codecs(),
        dimension_names=(name,),
        attributes=dict(attributes),
    )
    array[:] = values


class ArchiveWriter:
    """Writes frames of an archive by number; any number of processes may, each its own frames."""

    def __init__(self, path: Path, plan: ConversionPlan) -> None:
        self.array = import_zarr().open_group(path, mode="r+")[plan.names[0]]
        self.packing, self.single = plan.packing, plan.shape[0] == 1

    def write(self, number: int, values: Values) -> int:
        """Write frame (C, H, W) and return how many of its values lie beyond the packing and were cut."""
        packed = self.packing.pack(values, "uint16")
        self.array[number] = packed[0] if self.single else packed
        low, high = self.packing.offset, self.packing.offset + self.packing.scale * (FILL - 1)
        slack = self.packing.scale / 2
        return int(((values < low - slack) | (values > high + slack)).sum())


def import_zarr() -> Any:
    """Import zarr.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError("zarr", "geo", "writing Zarr") from error
    return zarr
