"""Cuboids: how the tokens of a clip are cut into boxes, and put together again.

    cut:       an axis of n tokens becomes n/b boxes of b; token p lies at place p mod b of box ⌊p/b⌋ or, dilated,
               at place ⌊p·b/n⌋ of box p mod (n/b); the grid may be shifted, cyclically

Tokens are (B, T, H, W, C), boxes (B, N, V, C): N boxes of V tokens.

Reference: Gao et al., Earthformer: Exploring Space-Time Transformers for Earth System Forecasting,
NeurIPS 2022, doi:10.48550/arXiv.2207.05833.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Shape = tuple[int, int, int]


class Cuboid(NamedTuple):
    """How tokens (T, H, W) are cut into boxes.

    Attributes:
        size: frames, rows and columns of a box.
        dilated: a box takes tokens at equal distances rather than neighbours.
        shift: how far the grid of boxes is moved along each axis.
        padding: what completes the last boxes: "zeros", "nearest" (the tokens are stretched), or "ignore"
            (zeros that no token sees).
    """

    size: Shape
    dilated: bool = False
    shift: Shape = (0, 0, 0)
    padding: str = "zeros"

    @property
    def volume(self) -> int:
        """Tokens of a box."""
        return math.prod(self.size)

    def fit(self, shape: Sequence[int]) -> Cuboid:
        """Return the cuboid no longer than tokens (T, H, W), and unshifted along an axis of one box."""
        axes = zip(self.size, shape, self.shift, strict=True)
        (t, dt), (h, dh), (w, dw) = ((min(b, n), 0 if self.dilated or b >= n else s) for b, n, s in axes)
        return self._replace(size=(t, h, w), shift=(dt, dh, dw))

    def cut(self, x: Tensor) -> Tensor:
        """Return the boxes (B, N, V, C) of tokens (B, T, H, W, C), padded to whole boxes."""
        return self._boxes(extend(x, self._whole(x.shape[1:4]), self.padding))

    def join(self, boxes: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the tokens (B, T, H, W, C) of the boxes (B, N, V, C): undo ``cut``.

        Padding "nearest" is undone by the nearest token, too, which need not be the one it came from.
        """
        whole, samples, units = self._whole(shape), boxes.shape[0], boxes.shape[-1]
        counts = (n // b for n, b in zip(whole, self.size, strict=True))
        order = (0, 4, 1, 5, 2, 6, 3, 7) if self.dilated else (0, 1, 4, 2, 5, 3, 6, 7)
        x = boxes.reshape(samples, *counts, *self.size, units).permute(order).reshape(samples, *whole, units)
        if any(self.shift):
            x = torch.roll(x, self.shift, (1, 2, 3))
        return stretch(x, shape) if self.padding == "nearest" else x[:, : shape[0], : shape[1], : shape[2]]

    def kept(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor:
        """Return booleans (N, V): the tokens of the boxes that ``join`` keeps."""
        number = torch.arange(math.prod(self._whole(shape)), dtype=torch.float32, device=device)
        boxes = number.view(1, -1, self.volume, 1)
        return torch.isin(boxes[0, ..., 0].contiguous(), self.join(boxes, shape).contiguous())

    def labels(self, shape: Sequence[int], device: torch.device | None = None) -> Tensor | None:
        """Return integers (N, V), or None where all are equal: tokens see those of equal labels in their box.

        Tokens that a shift brought together from opposite ends differ; ignored padding, labelled -1, sees
        padding only.
        """
        whole = self._whole(shape)
        ignored = self.padding == "ignore" and whole != tuple(shape)
        if not (ignored or any(self.shift)):
            return None
        label = torch.zeros(1, *whole, 1, dtype=torch.long, device=device)
        for axis, (n, s) in enumerate(zip(whole, self.shift, strict=True)):
            wrapped = torch.arange(n, device=device) < s
            label = label + (wrapped.long() << axis).view(-1, *[1] * (3 - axis))
        labels = self._boxes(label)[0, ..., 0]
        return labels.masked_fill(~self.kept(shape, device), -1) if ignored else labels

    def _whole(self, shape: Sequence[int]) -> Shape:
        t, h, w = (-(-n // b) * b for n, b in zip(shape, self.size, strict=True))
        return t, h, w

    def _boxes(self, x: Tensor) -> Tensor:
        if any(self.shift):
            x = torch.roll(x, [-s for s in self.shift], (1, 2, 3))
        pairs = ((n // b, b) for n, b in zip(x.shape[1:4], self.size, strict=True))
        split = [n for count, b in pairs for n in ((b, count) if self.dilated else (count, b))]
        order = (0, 2, 4, 6, 1, 3, 5, 7) if self.dilated else (0, 1, 3, 5, 2, 4, 6, 7)
        x = x.reshape(x.shape[0], *split, x.shape[-1]).permute(order)
        return x.reshape(x.shape[0], -1, self.volume, x.shape[-1])


def extend(x: Tensor, shape: Sequence[int], padding: str) -> Tensor:
    """Return (B, T, H, W, C) as large as ``shape``: stretched if "nearest", else with zeros at the ends."""
    if padding == "nearest":
        return stretch(x, shape)
    t, h, w = (new - old for old, new in zip(x.shape[1:4], shape, strict=True))
    return F.pad(x, (0, 0, 0, w, 0, h, 0, t)) if t or h or w else x


def stretch(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return (B, T, H, W, C) as large as ``shape``, by the nearest token."""
    if tuple(x.shape[1:4]) == tuple(shape):
        return x
    return F.interpolate(x.permute(0, 4, 1, 2, 3), tuple(shape)).permute(0, 2, 3, 4, 1)
