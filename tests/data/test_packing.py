"""Stored numbers: packing there and back, what means no data, and time stamps of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framecast.data.formats.times import read_times, snap_times, step_statistics
from framecast.data.packing import Packing, packing_from_attributes
from framecast.data.units import one_spelling
from framecast.data.zarr_writer import FILL, packing_for

VALUES = hnp.arrays(np.float32, (5,), elements=st.one_of(st.floats(-1e4, 1e4, width=32), st.just(np.nan)))


@given(VALUES, st.sampled_from(["mm/h", "dBZ", "1", "m/s"]))
def test_packing_keeps_values_to_half_a_step(values: Any, unit: str) -> None:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (np.inf, -np.inf)
    packing = packing_for(unit, low, high, pixels=False)
    back = packing.unpack(packing.pack(values, "uint16"))
    assert np.array_equal(np.isnan(back), np.isnan(values))
    if len(finite):
        assert np.abs(back - values)[np.isfinite(values)].max() <= packing.scale / 2 + 1e-6 * max(abs(low), abs(high))


@given(hnp.arrays(np.uint16, (6,)))
def test_what_is_stored_comes_back(stored: Any) -> None:
    packing = Packing(0.01, -3.0, (FILL,))
    assert np.array_equal(packing.pack(packing.unpack(stored), "uint16"), stored)


def test_hundredths_do_not_fall_below_a_threshold() -> None:
    values = Packing(0.01).unpack(np.arange(65_535, dtype=np.uint16))
    for hundredths in (50, 200, 500, 1000, 3000):
        assert values[hundredths] >= hundredths / 100
        assert values[hundredths - 1] < hundredths / 100


def test_pixels_are_divided_exactly() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(Packing(1 / 255).unpack(pixels), pixels.astype(np.float32) / np.float32(255))
    assert np.array_equal(packing_for("1", 0, 1, pixels=True).pack(pixels / np.float32(255), "uint16"), pixels)


@pytest.mark.parametrize(
    ("attributes", "stored", "expected"),
    [
        ({"_FillValue": np.int16(-1)}, np.array([-1, 0, 5], np.int16), [np.nan, 0, 5]),
        ({"missing_value": [7, 8]}, np.array([7, 8, 9], np.uint8), [np.nan, np.nan, 9]),
        ({"_FillValue": 9.96921e36}, np.array([9.96921e36, 1], np.float32), [np.nan, 1]),
        ({"valid_range": [0, 5]}, np.array([-1, 0, 5, 6], np.int16), [np.nan, 0, 5, np.nan]),
        ({"valid_min": 2}, np.array([1, 2], np.int16), [np.nan, 2]),
        ({"valid_max": 2, "scale_factor": 10.0}, np.array([2, 3], np.int16), [20, np.nan]),
        ({"_Unsigned": "true", "_FillValue": -1}, np.array([-1, -2, 3], np.int8), [np.nan, 254, 3]),
        ({"_FillValue": -9999}, np.array([1, 2], np.uint8), [1, 2]),
        ({"_FillValue": np.nan}, np.array([np.nan, 2], np.float32), [np.nan, 2]),
        ({}, np.array([False, True]), [0, 1]),
    ],
)
def test_what_means_no_data(attributes: dict[str, Any], stored: Any, expected: Any) -> None:
    packing = packing_from_attributes(attributes, stored.dtype, None, "the file")
    np.testing.assert_array_equal(packing.unpack(stored), np.array(expected, np.float32))
    assert packing.masks(stored.dtype) or not np.isnan(expected).any()


UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400}


@given(
    st.lists(st.integers(0, 2_000_000), min_size=1, max_size=20),
    st.sampled_from(sorted(UNITS)),
    st.integers(-5_000_000_000, 3_000_000_000),
)
def test_times_by_cf_units(minutes: list[int], unit: str, start: int) -> None:
    wanted = start + 60 * np.array(minutes, np.int64)
    stored = (wanted - start) / UNITS[unit]
    since = str(np.datetime64(start, "s")).replace("T", " ")
    assert read_times(stored, {"units": f"{unit} since {since}"}, "the file").tolist() == wanted.tolist()
    assert read_times(wanted.astype("datetime64[s]"), {}, "the file").tolist() == wanted.tolist()
    texts = np.array([str(stamp) for stamp in wanted.astype("datetime64[s]")])
    assert read_times(texts, {}, "the file").tolist() == wanted.tolist()


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=30), st.integers(0, 14))
def test_snapping_moves_only_what_is_near(jitter: list[int], tolerance: int) -> None:
    times = 300 * np.arange(len(jitter), dtype=np.int64) + jitter
    snapped = snap_times(times, 300, tolerance)
    assert np.abs(snapped - times).max(initial=0) <= tolerance
    moved = snapped[snapped != times]
    assert len(set((moved % 300).tolist())) <= 1, "all on one grid"
    if np.abs(jitter).max(initial=0) <= tolerance:
        assert not (snapped % 300).any()


@pytest.mark.parametrize("phase", [0, 38, 150, 240])
def test_snapping_is_about_the_series_own_grid(phase: int) -> None:
    jitter = np.random.default_rng(0).integers(-10, 11, 200)
    snapped = snap_times(1_704_067_200 + phase + 300 * np.arange(200) + jitter, 300, 30)
    assert (np.diff(snapped) == 300).all()
    assert abs((int(snapped[0]) % 300) - phase) <= 2


def test_steps_of_a_time_axis() -> None:
    steps = step_statistics(np.array([0, 300, 600, 1500, 1800, 1801]))
    assert (steps.interval, steps.gaps, steps.longest, steps.shorter) == (300, 1, 900, 1)
    assert steps.share == 0.6
    assert step_statistics(np.array([5])).interval is None


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("mm h-1", "mm/h"), (b"mm/hr", "mm/h"), ("  kg  m-2 s-1 ", "mm/s"), ("DBZ", "dBZ"), (None, "1"), ("K", "K")],
)
def test_one_spelling(unit: object, expected: str) -> None:
    assert one_spelling(unit) == expected
