"""Where a model is computed and how its maps are kept there: device, threads and layout.

None of them changes the function that a model computes. Channels-last keeps the channels of a pixel together, which
native convolutions of the cells need, and torch's on GPUs and on processors with AVX-512 prefer; on other processors
torch's 5x5 convolutions are slower that way (``benchmarks/speed.py`` measures both).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from framecast.cells.native import native
from framecast.errors import UnknownNameError
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster

LAYOUTS = ("auto", "channels-first", "channels-last")


@contextmanager
def arithmetic(threads: int | None = None, tf32: bool = False) -> Iterator[None]:
    """Set the threads of the processor and the rounding of GPUs for the process, and restore them at the end.

    Args:
        threads: threads of the processor, for processes started meanwhile too; None leaves torch's choice.
        tf32: let GPUs round float32 factors to 10 bits (TF32), in convolutions too, where torch does so by default.
    """
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    variable = os.environ.get("OMP_NUM_THREADS")
    if threads:
        torch.set_num_threads(threads)
        # Lightning sets another number in and for the processes it starts, unless it finds one here.
        os.environ["OMP_NUM_THREADS"] = str(threads)
    # Lightning reads these older switches, and torch refuses that once the newer fp32_precision has been set.
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32 = before[2]
        if threads and variable is None:
            del os.environ["OMP_NUM_THREADS"]
        elif threads and variable is not None:
            os.environ["OMP_NUM_THREADS"] = variable


def arrange(model: Forecaster, layout: str, device: torch.device) -> None:
    """Put a model's weights, and with them all it computes, into the order of ``layout``.

    Args:
        model: the model, on whatever device.
        layout: "channels-first", "channels-last", or "auto" for the faster one on the device.
        device: where the model will be computed.

    Raises:
        UnknownNameError: no such layout.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    last = layout == "channels-last" or (layout == "auto" and _prefers_channels_last(model, device))
    order = torch.channels_last if last else torch.contiguous_format
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=order)
    if isinstance(model, RecurrentForecaster):
        model.layout = order


def _prefers_channels_last(model: Forecaster, device: torch.device) -> bool:
    if device.type != "cpu":
        return device.type == "cuda"
    has_native = isinstance(model, RecurrentForecaster) and native() is not None
    return has_native or torch.backends.cpu.get_cpu_capability() == "AVX512"


def place(model: Forecaster, device: torch.device) -> None:
    """Move a model to where it is to be computed, in the layout that is faster there."""
    model.to(device)
    arrange(model, "auto", device)


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the accelerator where there is one."""
    if name != "auto":
        return torch.device(name)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")
