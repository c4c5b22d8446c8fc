"""How a model is computed: device, threads, precision, memory format and compiled layers.

None of them changes the function that a model computes. Channels-last keeps the channels of a pixel together, which
convolutions on GPUs and on processors with AVX-512 prefer; on processors without AVX-512, 5x5 convolutions are slower
that way (``benchmarks/speed.py`` measures both).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from framecast.errors import UnknownNameError
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster

LAYOUTS = ("auto", "channels-first", "channels-last")
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16}
# Every scale of a pyramid, its first step, and forecasts without gradients are compiled each on their own.
RECOMPILE_LIMIT = 64


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
    last = layout == "channels-last" or (layout == "auto" and _prefers_channels_last(device))
    order = torch.channels_last if last else torch.contiguous_format
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=order)
    if isinstance(model, RecurrentForecaster):
        model.layout = order


def _prefers_channels_last(device: torch.device) -> bool:
    return device.type == "cuda" or (device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512")


def compile_layers(model: Forecaster) -> None:
    """Have every cell or block of a model compiled when it first runs, which takes a minute or more for all shapes.

    Raises:
        RuntimeError: when it first runs: the machine has no C++ compiler, which processors need.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    # Left to itself the compiler puts convolutions into channels-last order, whatever order the model was put into.
    options: dict[str, Any] = {"layout_optimization": getattr(model, "layout", None) != torch.contiguous_format}
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        # Where torch keeps to AVX2 on a processor with AVX-512, kernels of 512 bits give NaN now and then (torch 2.13).
        options["cpp.simdlen"] = 256
    for layer in model.layers().values():
        # A single convolution has nothing to be fused with.
        if any(layer.children()):
            layer.compile(dynamic=False, options=options)


def place(model: Forecaster, device: torch.device, compiled: bool) -> None:
    """Move a model to where it is to forecast, in the memory format that is faster there.

    Args:
        model: the model.
        device: where it will be computed.
        compiled: have its layers compiled, see ``compile_layers``.
    """
    model.to(device)
    arrange(model, "auto", device)
    if compiled:
        compile_layers(model)


def find_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the accelerator where there is one."""
    if name != "auto":
        return torch.device(name)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return device or torch.device("cpu")
