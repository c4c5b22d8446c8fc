"""Precisions in which a model is computed, and what they gain on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional as F

from framecast.errors import UnknownNameError

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16}
ROUNDS = 5
WORTH = 1.1
"""Least gain that is worth the lower precision."""


def bfloat16_gain(device: str = "cpu") -> float:
    """Return how many times faster a convolution is in bfloat16 than in float32 on a device, measured in moments."""
    return _convolution_seconds(device, torch.float32) / _convolution_seconds(device, torch.bfloat16)


def tf32_gain(device: str) -> float:
    """Return how many times faster a convolution of float32 is with TF32 than without, measured in moments."""
    seconds = []
    for allowed in (False, True):
        with torch.backends.cudnn.flags(allow_tf32=allowed):
            seconds.append(_convolution_seconds(device, torch.float32))
    return seconds[0] / seconds[1]


def faster_precisions(device: str = "cpu") -> dict[str, float]:
    """Return the options of precision that are worth it on a device -> how many times as fast a convolution is."""
    gains = {"precision='bf16-mixed'": bfloat16_gain(device)}
    if torch.device(device).type == "cuda":
        gains["tf32=True"] = tf32_gain(device)
    return {option: gain for option, gain in gains.items() if gain > WORTH}


def _convolution_seconds(device: str, dtype: torch.dtype) -> float:
    where = torch.device(device)
    maps, side = (4, 32) if where.type == "cpu" else (64, 64)  # too little work would measure an accelerator's launches
    x = torch.zeros(maps, 32, side, side, dtype=dtype, device=where)
    weight = torch.zeros(64, 32, 3, 3, dtype=dtype, device=where)
    return median_seconds(lambda: F.conv2d(x, weight, padding=1))


def median_seconds(work: Callable[[], torch.Tensor]) -> float:
    """Return the median of a few rounds, without the first, of what gives a tensor."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work().sum().item()  # the number makes an accelerator finish
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Return the context in which a model forecasts in a precision.

    Args:
        device: where it is computed.
        precision: "32-true", or "bf16-mixed" to compute convolutions and products in bfloat16 (outputs err by about
            1e-2). Scores are never computed in it.

    Raises:
        UnknownNameError: no such precision.
    """
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS)
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
