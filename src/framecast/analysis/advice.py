"""What would make a training cheaper on this machine; nothing of it is ever switched on by itself."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from framecast.analysis.memory import count_memory, shown_bytes
from framecast.registry import ONE_SHOT

ROUNDS = 5
WORTH = 1.1


def bfloat16_gain(device: str = "cpu") -> float:
    """Return how many times faster a convolution is in bfloat16 than in float32 on a device, measured in moments."""
    where = torch.device(device)
    took = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(4, 32, 32, 32, dtype=dtype, device=where)
        weight = torch.zeros(64, 32, 3, 3, dtype=dtype, device=where)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            F.conv2d(x, weight, padding=1).sum().item()  # the number makes an accelerator finish
            times.append(time.perf_counter() - began)
        took[dtype] = statistics.median(times[1:])
    return took[torch.float32] / took[torch.bfloat16]


def cheaper_ways(
    name: str, shape: Sequence[int], context: int, batch: int = 1, device: str = "cpu", **options: Any
) -> list[str]:
    """Return one sentence each on recomputation, bfloat16 and compiling.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        batch: clips of a training step.
        device: to train on.
        options: the model's options.

    Raises:
        UnknownNameError: no such model or option.
        ValueError: a shape or context the model cannot take.
    """
    said = []
    if name not in ONE_SHOT:
        plain, lean = (count_memory(name, shape, context, mode, **options).peak(batch) for mode in ("none", "lean"))
        said.append(
            f"--recompute lean: {shown_bytes(lean)} at the peak of a step instead of {shown_bytes(plain)}, for at "
            "most one more forward pass of time."
        )
    gain = bfloat16_gain(device)
    if gain > WORTH:
        said.append(
            f"--precision bf16-mixed: a convolution is {gain:.1f} times faster here; outputs err by about 1e-2."
        )
    else:
        said.append(
            f"--precision bf16-mixed: not here, a convolution is {1 / gain:.1f} times slower in it on this processor."
        )
    if device == "cpu" and not (shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")):
        said.append("--compile true: needs a C++ compiler, which is not here.")
    else:
        said.append("--compile true: fuses what lies between convolutions; takes a minute or more when it starts.")
    return said
