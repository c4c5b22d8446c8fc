"""Grids of radar data: crops, decimation, means, and options that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples.radar import knmi_folder, seconds

import framecast as fc
from framecast.data.grid import Grid, block_mean, grid_from_dict
from framecast.data.scaling import DbzPixel


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
def test_decimation_is_what_a_bilinear_resize_does(factor: int) -> None:
    frames = np.random.default_rng(0).random((2, 1, 4 * factor, 3 * factor)).astype(np.float32)
    small = Grid(size=(4, 3)).apply(frames, DbzPixel())
    if factor % 2:  # at even factors a bilinear resize averages the two in the middle
        resized = torch.nn.functional.interpolate(torch.from_numpy(frames), (4, 3), mode="bilinear")
        np.testing.assert_allclose(small, resized, atol=1e-6)
    np.testing.assert_array_equal(small, frames[..., factor // 2 :: factor, factor // 2 :: factor])


def test_means_in_rain_and_in_pixel_space_differ() -> None:
    rates = np.array([[[0.0, 4.0], [0.0, 4.0]]], np.float32)
    rain = Grid(size=(1, 1), method="mean").apply(rates, DbzPixel())
    pixel = Grid(size=(1, 1), method="mean", space="pixel").apply(rates, DbzPixel())
    assert rain.item() == 2
    scaling = DbzPixel()
    assert pixel.item() == pytest.approx(scaling.unscale(scaling.scale(torch.tensor(4.0)) / 2).item(), rel=1e-5)


def test_means_leave_out_gaps_until_most_is_missing() -> None:
    block = np.array([[1, 3, np.nan, np.nan, np.nan, np.nan]], np.float32)
    np.testing.assert_array_equal(block_mean(block.reshape(1, 1, 6)[..., :4], 1, 4), [[[2]]])
    assert np.isnan(block_mean(block.reshape(1, 1, 6), 1, 6)).all()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_mean_keeps_the_amount_of_rain(down: int, across: int, top: int, left: int) -> None:
    frames = np.random.default_rng(top).random((1, 12 + top, 12 + left)).astype(np.float32)
    grid = Grid((top, 12 + top, left, 12 + left), (12 // down, 12 // across), "mean")
    assert grid.apply(frames, DbzPixel()).mean() == pytest.approx(frames[:, top:, left:].mean(), rel=1e-5)
    assert grid_from_dict(grid.to_dict()) == grid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (0, 9, 0, 4)}, "lies outside of 4x4"),
        ({"size": 3}, "not a whole fraction of 4x4"),
        ({"size": (2, 2, 2)}, "one or two numbers"),
        ({"crop": (0, 4)}, "crop .* four"),
        ({"method": "nearest"}, "no resize method 'nearest'"),
        ({"space": "rains"}, "Did you mean 'rain'"),
        ({"scaling": "dbz"}, "no scaling of rain 'dbz'"),
        ({"nodata": "zero"}, "no way with nodata 'zero'"),
        ({"interval": 0}, "interval is 0"),
        ({"every": 0}, "every is 0"),
        ({"interval": 7}, "hold no clip of 8 frames at 7 minutes"),
        ({"context": 0}, "context is 0"),
        ({"blocks": (0.5, 0.5)}, "three shares or three numbers"),
        ({"blocks": (10, 9, 2)}, "ask for 21 frames and there are 20"),
        ({"stride": 2}, "no option of data set knmi 'stride'"),
    ],
)
def test_impossible_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    root = knmi_folder(tmp_path / "knmi", np.ones((20, 4, 4), np.int64), seconds("2010-08-26T00:00"))
    with pytest.raises(ValueError, match=message):
        fc.data("knmi", root=root, **{"context": 4, "horizon": 4, **options})
