"""From the grid of the files to the grid of the model: a crop, then a smaller size by a named rule.

- ``decimate`` keeps one pixel of each block, the one at its middle: of 900 -> 180 pixels ``a[2::5, 2::5]``, which is
  what a bilinear resize without anti-aliasing computes at whole factors, and what the released code does.
- ``mean`` averages each block, which takes the tops off showers and spreads drizzle. Space "rain" averages rates,
  space "pixel" the model's numbers, so dBZ: the two differ.

A block with no data in more than half of its pixels has no data; otherwise those it has are averaged.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from framecast.data.packing import Values
from framecast.data.scaling import Scaling
from framecast.errors import DataError, UnknownNameError

Method = Literal["decimate", "mean"]
Space = Literal["rain", "pixel"]
METHODS, SPACES = ("decimate", "mean"), ("rain", "pixel")


@dataclass(frozen=True)
class Grid:
    """How frames of files become frames of the model.

    Attributes:
        crop: first row, one after the last, first column, one after the last; None keeps all.
        size: height and width afterwards, at a whole fraction; None keeps it.
        method: "decimate" or "mean".
        space: of the mean, "rain" or "pixel"; decimation is the same in both.
    """

    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None
    method: Method = "decimate"
    space: Space = "rain"

    def __post_init__(self) -> None:
        for kind, name, choices in (("method", self.method, METHODS), ("space", self.space, SPACES)):
            if name not in choices:
                raise UnknownNameError(f"resize {kind}", name, choices)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a file; ``grid_from_dict`` reads them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that frames of this height and width get.

        Raises:
            DataError: the crop lies outside, or the size is not a whole fraction.
        """
        top, bottom, left, right = self.crop or (0, height, 0, width)
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise DataError(f"crop {self.crop} (rows from, to, columns from, to) lies outside of {height}x{width}")
        rows, columns = bottom - top, right - left
        new = self.size or (rows, columns)
        if min(new) < 1 or rows % new[0] or columns % new[1]:
            raise DataError(
                f"size {new[0]}x{new[1]} is not a whole fraction of {rows}x{columns}: choose one, or "
                "crop to a multiple of it"
            )
        return new

    def apply(self, frames: Values, scaling: Scaling) -> Values:
        """Crop and resize frames (..., H, W) in physical units, NaN where there is no data."""
        height, width = self.shape(*frames.shape[-2:])
        if self.crop:
            top, bottom, left, right = self.crop
            frames = frames[..., top:bottom, left:right]
        down, across = frames.shape[-2] // height, frames.shape[-1] // width
        if (down, across) == (1, 1):
            return np.ascontiguousarray(frames)
        if self.method == "decimate":
            return np.ascontiguousarray(frames[..., down // 2 :: down, across // 2 :: across])
        if self.space == "rain":
            return block_mean(frames, down, across)
        pixels = block_mean(scaling.scale(torch.from_numpy(np.ascontiguousarray(frames))).numpy(), down, across)
        return scaling.unscale(torch.from_numpy(pixels)).numpy()


def grid_from_dict(facts: dict[str, Any]) -> Grid:
    """Make a grid from what ``Grid.to_dict`` returned."""
    pairs: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return Grid(**pairs)


def block_mean(frames: Values, down: int, across: int) -> Values:
    """Return the means of blocks of (..., H, W), NaN where more than half of a block is NaN."""
    *lead, height, width = frames.shape
    blocks = frames.reshape(*lead, height // down, down, width // across, across)
    empty: NDArray[np.float64] = np.isnan(blocks).mean((-3, -1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means: Values = np.nanmean(blocks, (-3, -1)).astype(np.float32)
    means[empty > 0.5] = np.nan
    return means
