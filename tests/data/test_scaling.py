"""Scalings: literals, round trips over their whole range, and what they refuse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framecast.data.scaling import SCALINGS, DbzPixel, Log, MinMax, Scaling, scaling_from_dict

SOME: list[Scaling] = [DbzPixel(), DbzPixel(200, 1.6, -32, 60), Log(), Log(0, 20, 0.01), MinMax(-3, 7)]


def test_literal_thresholds_of_the_dbz_pixel() -> None:
    pixels = DbzPixel().scale(torch.tensor([0.5, 2, 5, 0.12, 0, 1e6]))
    expected = torch.tensor([0.42583, 0.54796, 0.62868, 0.30010, 0, 1])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=5e-6)
    assert DbzPixel().limits == (0, pytest.approx(338.38, abs=0.01))
    assert DbzPixel().least == pytest.approx(0.00398, abs=1e-5)


def test_no_rain_stays_no_rain() -> None:
    scaling = DbzPixel()
    assert scaling.unscale(scaling.scale(torch.zeros(3))).tolist() == [0, 0, 0]
    assert scaling.unscale(torch.tensor([-0.5, 0.0, 2.0])).tolist() == [0, 0, pytest.approx(338.38, abs=0.01)]


def test_log_is_rainnets_between_its_limits() -> None:
    scaling, amount = Log(), 0.37  # mm in 5 minutes
    bottom, top = math.log(0 + 0.01), math.log(20 + 0.01)
    expected = (math.log(amount + 0.01) - bottom) / (top - bottom)
    assert scaling.scale(torch.tensor(12 * amount)).item() == pytest.approx(expected, abs=1e-6)
    assert scaling.limits == (0, 240)


@pytest.mark.parametrize("scaling", SOME, ids=repr)
@settings(max_examples=200, deadline=None)
@given(share=st.floats(0, 1))
def test_round_trips(scaling: Scaling, share: float) -> None:
    low, high = scaling.limits
    value = torch.tensor(low + share**3 * (high - low), dtype=torch.float64)
    least = scaling.least if isinstance(scaling, DbzPixel) else low
    expected = value if value >= least else torch.zeros_like(value)
    torch.testing.assert_close(scaling.unscale(scaling.scale(value)), expected, rtol=1e-7, atol=1e-7)
    single = scaling.unscale(scaling.scale(expected.float()))
    torch.testing.assert_close(single.double(), expected, rtol=3e-6, atol=2e-6)
    number = torch.tensor(share, dtype=torch.float64)
    torch.testing.assert_close(scaling.scale(scaling.unscale(number)), number, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("scaling", SOME, ids=repr)
@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.floats(-10, 1e5, width=32), min_size=2, max_size=9))
def test_order_is_kept_and_saturation_stays_in_range(scaling: Scaling, values: list[float]) -> None:
    numbers = scaling.scale(torch.tensor(sorted(values)))
    assert (numbers.diff() >= -1e-6).all()
    if scaling.saturates:
        assert ((numbers >= 0) & (numbers <= 1)).all()
    assert scaling.unscale(numbers).isfinite().all()


@pytest.mark.parametrize("scaling", SOME, ids=repr)
def test_saved_and_made_again(scaling: Scaling) -> None:
    assert scaling_from_dict(scaling.to_dict()) == scaling
    assert scaling.kind in SCALINGS


def test_what_scalings_refuse() -> None:
    with pytest.raises(ValueError, match=r"low < high"):
        MinMax(1, 1)
    with pytest.raises(ValueError, match="low_dbz < high_dbz"):
        DbzPixel(low_dbz=60)
    with pytest.raises(ValueError, match=r"low \+ offset > 0"):
        Log(offset=0)
    with pytest.raises(ValueError, match=r"Did you mean 'dbz-pixel'"):
        scaling_from_dict({"kind": "dbz-pixels"})
