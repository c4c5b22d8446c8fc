"""What makes a picture of a grid a map: a graticule with its degrees, and a scale bar.

Degrees need pyproj (extra ``geo``) where the projection is not longitude and latitude itself; without it a map has the
scale bar alone, taken from its coordinates in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from framecast.data.georeference import WGS84, Georeference

Overlay = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

DEGREES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45)
MOST_LINES = 5
KILOMETRES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LARGEST_BAR = 1 / 3
METRES_PER_DEGREE = 111_195.0  # of latitude, on a sphere of 6,371 km
SAMPLES = 64
LEAST_PIXELS = 100
"""Of the shorter side of a picture that has room for a graticule."""
LINE, INK, PAPER = (172, 177, 185), (55, 60, 70), (255, 255, 255)


class GraticuleLine(NamedTuple):
    """A meridian or parallel on a map.

    Attributes:
        label: such as "5°E".
        across: places from the left edge (0) to the right (1).
        down: places from the upper edge (0) to the lower (1).
        meridian: whether it is one, which is labelled at the lower edge; parallels are at the left.
    """

    label: str
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    meridian: bool


def map_overlay(place: Georeference | None) -> Overlay | None:
    """Return what draws graticule and scale bar on a picture of a map, or None where nothing is known of its place."""
    if place is None or min(place.size) < 2:
        return None
    lines, bar = list(graticule(place)), scale_bar(place)
    if not lines and bar is None:
        return None

    def draw(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        if min(height, width) < LEAST_PIXELS:
            return picture
        image = Image.fromarray(picture).convert("RGB")
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(10)
        for line in lines:
            pen.line([(x * width, y * height) for x, y in zip(line.across, line.down, strict=True)], LINE, 1)
        for line in lines:
            last = int(np.argmax(line.down)) if line.meridian else int(np.argmin(line.across))
            x, y = line.across[last] * width, line.down[last] * height
            at_edge = line.down[last] > 0.97 if line.meridian else line.across[last] < 0.03
            if at_edge and x < width - 24 and y > 12:
                _write(pen, (x + 2, min(y, height) - 12), line.label, font)
        if bar:
            words, share = bar
            left, right, y = width * (1 - share) - 6, width - 6, 6
            pen.rectangle((left - 3, 2, right + 3, 22), fill=PAPER)
            pen.line([(left, y), (right, y)], INK, 2)
            pen.text((left, y + 2), words, INK, font)
        return np.asarray(image)

    return draw


def _write(pen: Any, where: tuple[float, float], words: str, font: Any) -> None:
    pen.text(where, words, INK, font, stroke_width=1, stroke_fill=PAPER)


def graticule(place: Georeference) -> Iterator[GraticuleLine]:
    """Return meridians and parallels at round degrees, a few of each; none where the projection cannot be read."""
    to_degrees, to_place = _transformers(place)
    if to_degrees is None:
        return
    # Upper and lower edge, and the middle column.
    (left, right), (top, bottom) = _outer_edges(place.x), _outer_edges(place.y)
    x, y = np.linspace(left, right, SAMPLES), np.linspace(top, bottom, SAMPLES)
    longitudes, latitudes = to_degrees(
        np.concatenate([x, x, np.full(SAMPLES, (left + right) / 2)]),
        np.concatenate([np.full(SAMPLES, top), np.full(SAMPLES, bottom), y]),
    )
    known = np.isfinite(longitudes) & np.isfinite(latitudes)
    if not known.any():
        return
    spans = [(values[known].min(), values[known].max()) for values in (longitudes, latitudes)]
    for meridian, (low, high) in zip((True, False), spans, strict=True):
        step = next((step for step in DEGREES if (high - low) / step <= MOST_LINES), DEGREES[-1])
        other = np.linspace(*spans[meridian], SAMPLES * 4)
        for degree in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step:
            fixed = np.full_like(other, degree)
            x, y = to_place(fixed, other) if meridian else to_place(other, fixed)
            across, down = _shares(place.x, np.asarray(x)), _shares(place.y, np.asarray(y))
            inside = np.isfinite(across) & np.isfinite(down)
            if inside.sum() > 1:
                yield GraticuleLine(_degrees(float(degree), meridian), across[inside], down[inside], meridian)


def _shares(axis: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """Return where values lie between the outer edges of an axis' first and last pixel, 0 to 1; NaN outside."""
    order = slice(None) if axis[-1] > axis[0] else slice(None, None, -1)
    first, last = _outer_edges(axis)
    longer = np.concatenate([[first], axis, [last]])
    places = np.concatenate([[-0.5], np.arange(len(axis)), [len(axis) - 0.5]])
    found = np.interp(values, longer[order], places[order], left=np.nan, right=np.nan)
    return np.asarray((found + 0.5) / len(axis))


def _outer_edges(axis: NDArray[Any]) -> tuple[float, float]:
    """Return the coordinates of the outer edges of an axis' first and last pixel."""
    return float(1.5 * axis[0] - 0.5 * axis[1]), float(1.5 * axis[-1] - 0.5 * axis[-2])


def _degrees(degree: float, meridian: bool) -> str:
    side = ("W" if degree < 0 else "E") if meridian else ("S" if degree < 0 else "N")
    return f"{abs(degree):g}°{side if degree else ''}"


def _transformers(place: Georeference) -> tuple[Any, Any]:
    """Return functions from the place's coordinates to degrees and back, or None twice."""
    if place.geographic:
        return (lambda x, y: (x, y)), (lambda x, y: (x, y))
    try:
        from pyproj import Transformer
        from pyproj.exceptions import ProjError
    except ImportError:
        return None, None
    try:
        there = Transformer.from_crs(place.crs, WGS84, always_xy=True).transform
        back = Transformer.from_crs(WGS84, place.crs, always_xy=True).transform
    except ProjError:
        return None, None
    return there, back


def scale_bar(place: Georeference) -> tuple[str, float] | None:
    """Return a round length in words and its share of the map's width in its middle row, or None."""
    width = _width(place)
    lengths = [length for length in KILOMETRES if 1000 * length <= LARGEST_BAR * width]
    return (f"{lengths[-1]:g} km", 1000 * lengths[-1] / width) if lengths else None


def _width(place: Georeference) -> float:
    """Return the metres from the left to the right edge of the middle row; 0 where they are not known."""
    pixels, row = len(place.x), float(place.y[len(place.y) // 2])
    span = abs(float(place.x[-1] - place.x[0])) * pixels / (pixels - 1)
    if place.geographic:
        return span * METRES_PER_DEGREE * float(np.cos(np.radians(row)))
    to_degrees, _ = _transformers(place)
    if to_degrees is None:
        return span if place.crs else 0.0
    from pyproj import Geod

    along = np.linspace(place.x[0], place.x[-1], SAMPLES)
    longitudes, latitudes = to_degrees(along, np.full(SAMPLES, row))
    length = float(Geod(ellps="WGS84").line_length(longitudes, latitudes))
    return length * pixels / (pixels - 1) if np.isfinite(length) else span
