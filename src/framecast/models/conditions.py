"""Conditions: what a model sees beside the frames, and forecasts none of.

For each frame that is forecast a model with conditions sees a row of channels (E, H, W), which it gets with its input:

    extrapolation     the last frame moved on to the time of the one that is forecast (``residual="extrapolation"``); to
                      this the model adds what it computes, so that before training it forecasts extrapolation itself
    covariates        channels that come with the data, such as elevation, the hour, or another model's forecast
    noise             numbers drawn for a member of an ensemble, the same at all places and times of its forecast; where
                      rain is extrapolated the first two are the errors of its motion, so that each member moves its own
                      way

Row t holds what is known when frame t is forecast: of something that is known for the future its value at t, of
something measured the latest value before. A recurrent model sees a row in every step. A one-shot model of c past and n
future frames sees with the i-th past frame its row and those of the future frames i, i + c, ... of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RESIDUALS = ("none", "extrapolation")


class Conditions(NamedTuple):
    """What is seen beside the frames of clips.

    Attributes:
        rows: (B, S, E, H, W), row t for frame t; None for a model that sees frames alone.
        known: booleans (B, S, 1, H, W), False where the extrapolation of a frame comes from outside the map or from no
            data, so that the model knows nothing there; None where nothing is extrapolated.
    """

    rows: Tensor | None = None
    known: Tensor | None = None


def block_width(channels: int, extra: int, context: int, block: int) -> int:
    """Return the channels of the input of a one-shot model whose frames come with rows of ``extra`` channels."""
    return channels + extra * (1 + -(-block // context))


def rows_of_block(rows: Tensor, context: int, block: int) -> Tensor:
    """Return rows (B, context + block, E, H, W) as channels (B, context, E (1 + ⌈block / context⌉), H, W).

    The last row is repeated until each past frame has as many.
    """
    groups = -(-block // context)
    missing = context * (1 + groups) - rows.shape[1]
    whole = torch.cat([rows, rows[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
    return whole.reshape(len(rows), 1 + groups, context, *rows.shape[2:]).transpose(1, 2).flatten(2, 3)


def noise_rows(noise: Tensor, like: Tensor, count: int) -> Tensor:
    """Return noise (B, E) as rows (B, count, E, H, W) for frames (B, T, C, H, W)."""
    height, width = like.shape[-2:]
    return noise.to(like)[:, None, :, None, None].expand(-1, count, -1, height, width)


def resize_rows(rows: Tensor, size: Sequence[int]) -> Tensor:
    """Return rows (B, S, E, H, W) continued right and bottom by their edge up to a size."""
    height, width = rows.shape[-2:]
    if (height, width) == tuple(size):
        return rows
    flat = F.pad(rows.flatten(0, 1), (0, size[1] - width, 0, size[0] - height), mode="replicate")
    return flat.reshape(*rows.shape[:2], *flat.shape[1:])
