"""Maps: graticule and scale bar where they belong, by hand on a plain grid and by pyproj on a projection."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import framecast as fc
from framecast.data.georeference import WGS84, Georeference
from framecast.reporting.maps import LEAST_PIXELS, graticule, map_overlay, scale_bar
from framecast.reporting.pictures import enlarge

# 10 rows from 54 to 49 degrees north, 20 columns from 0 to 10 degrees east; coordinates are of the middle of pixels.
PLAIN = Georeference(np.linspace(53.75, 49.25, 10), np.linspace(0.25, 9.75, 20), WGS84)
POLAR = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=0 +a=6378137 +b=6356752 +units=m"


def test_degrees_by_hand() -> None:
    lines = {line.label: line for line in graticule(PLAIN)}
    assert {"2°E", "4°E", "6°E", "8°E", "50°N", "51°N", "52°N", "53°N"} <= set(lines)
    assert lines["4°E"].across == pytest.approx(0.4)
    assert (lines["4°E"].down.min(), lines["4°E"].down.max()) == pytest.approx((0, 1), abs=0.02)
    assert lines["52°N"].down == pytest.approx(0.4)
    south_first = Georeference(PLAIN.y[::-1], PLAIN.x, WGS84)
    assert {line.label: line for line in graticule(south_first)}["52°N"].down == pytest.approx(0.6)
    west = Georeference(-PLAIN.y, PLAIN.x - 10, WGS84)
    assert {"4°W", "52°S"} <= {line.label for line in graticule(west)}


def test_a_projection_by_pyproj() -> None:
    pyproj = pytest.importorskip("pyproj")
    place = Georeference(np.linspace(-3.8375e6, -4.2325e6, 80), np.linspace(162500, 557500, 80), POLAR)
    lines = list(graticule(place))
    assert {"4°E", "6°E", "51°N", "53°N"} <= {line.label for line in lines}
    back = pyproj.Transformer.from_crs(POLAR, WGS84, always_xy=True)
    for line in lines:
        x = 160_000 + 400_000 * line.across
        y = -3.835e6 - 400_000 * line.down
        longitude, latitude = back.transform(x, y)
        degree = float(line.label[:-2]) if line.label[-1] in "EN" else 0.0
        assert (longitude if line.meridian else latitude) == pytest.approx(np.full(len(x), degree), abs=1e-6)


def test_scale_bars() -> None:
    words, share = scale_bar(PLAIN) or ("", 0.0)
    # At 51.25 degrees a degree of longitude is 69.6 km long: 696 km in all.
    assert words == "200 km"
    assert share == pytest.approx(200 / 696, rel=0.01)
    polar = Georeference(np.linspace(-3.8375e6, -4.2325e6, 80), np.linspace(162500, 557500, 80), POLAR)
    words, share = scale_bar(polar) or ("", 0.0)
    assert words == "100 km"
    # The projection is true at 60 degrees north and stretches what lies south of it.
    assert share == pytest.approx(0.25, rel=0.06)
    assert scale_bar(Georeference(np.arange(4.0), np.arange(4.0), "")) is None


def test_without_pyproj_a_map_has_its_scale_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyproj", None)
    place = Georeference(np.linspace(-3.8375e6, -4.2325e6, 80), np.linspace(162500, 557500, 80), POLAR)
    assert list(graticule(place)) == []
    assert scale_bar(place) == ("100 km", 0.25)


def test_what_is_drawn() -> None:
    overlay = map_overlay(PLAIN)
    assert overlay is not None
    blank = np.full((100, 200, 3), 255, np.uint8)
    drawn = overlay(blank)
    assert (blank == 255).all()
    changed = (drawn != 255).any(-1)
    assert changed[:, 80].mean() > 0.9  # the meridian of 4 degrees
    assert changed[40].mean() > 0.9  # the parallel of 52
    small = np.full((LEAST_PIXELS - 1, 200, 3), 255, np.uint8)
    assert overlay(small) is small
    assert map_overlay(None) is None


def test_rain_is_shown_as_a_map() -> None:
    data = fc.data("knmi-sample")
    shown = fc.show(data)
    assert "<img" in shown.html
    overlay = map_overlay(data.spec.georeference)
    assert overlay is not None
    assert not np.array_equal(overlay(enlarge(np.zeros((80, 80, 3), np.uint8), 240)), np.zeros((240, 240, 3), np.uint8))
