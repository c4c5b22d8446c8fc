"""Compiled steps and graphs of kernels: the same function at fewer launches.

On a GPU a recurrent model is bound by the launches of small kernels. ``step`` has torch compile a whole time step,
embedding, all cells and head, so that what lies between convolutions is fused. ``graph`` also records the kernels of a
roll-out once and launches them together from then on (CUDA graphs). ``auto`` takes what pays where the model is.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch

from framecast.cells.native import native
from framecast.compute.graphs import Replayed, can_capture
from framecast.errors import OptionError, UnknownNameError
from framecast.models.forecaster import Forecaster
from framecast.models.recurrent import RecurrentForecaster
from framecast.registry import model_entry

log = logging.getLogger(__name__)

Mode = Literal["auto", "none", "step", "graph"]
MODES: tuple[Mode, ...] = ("auto", "none", "step", "graph")
# Initial states, forecasts without gradients and other batches are compiled each on their own.
RECOMPILE_LIMIT = 64
COMPILING_PAYS = 500
"""Training steps from which on compiling, half a minute to a minute, takes less than it saves."""
CALLS = ("continue_past", "observe", "forecast")
"""Methods that forecast, and are replayed."""


class Way(NamedTuple):
    """How a model's steps are run.

    Attributes:
        compiled: whether the time step is compiled.
        captured: whether kernels are recorded and launched together.
        reason: why it is less than what was asked for, or "".
    """

    compiled: bool
    captured: bool
    reason: str = ""

    def text(self) -> str:
        """Return what is done in words."""
        done = [*["time step compiled"] * self.compiled, *["kernels launched as one graph"] * self.captured]
        return " and ".join(done or ["computed as it is"]) + (f" ({self.reason})" if self.reason else "")


def choose_way(
    mode: str, model: Forecaster, device: torch.device, *, steps: int | None = None, obstacle: str = ""
) -> Way:
    """Return how a model is run in a mode.

    Args:
        mode: "auto", "none", "step" or "graph".
        model: the model.
        device: where it is computed.
        steps: training steps that follow; None for forecasts.
        obstacle: why this training cannot be captured, or "".

    Raises:
        UnknownNameError: no such mode.
        OptionError: "graph" on a device that has no graphs.
    """
    if mode not in MODES:
        raise UnknownNameError("mode of compile", mode, MODES)
    if mode == "graph" and not can_capture(device):
        raise OptionError(f"compile='graph' is for CUDA and the model is on {device}: take 'step', 'none' or 'auto'")
    if mode in ("none", "step"):
        return Way(mode == "step", False)
    if not can_capture(device):
        return Way(False, False)
    if model.spec is not None and not model_entry(model.spec.name).capturable:
        obstacle = f"{model.spec.name} cannot be captured"
    if mode == "graph":
        return Way(True, not obstacle, obstacle)
    pays = steps is not None and steps >= COMPILING_PAYS and shutil.which("cc") is not None
    return Way(pays, not obstacle, obstacle)


def compile_step(model: Forecaster) -> None:
    """Have a time step of a model, or a block of a one-shot model, compiled when it first runs.

    That takes half a minute to two for all shapes.

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
    native()  # looked for now, as the compiler cannot trace how
    step = getattr(model, model.compiled_method)
    setattr(model, model.compiled_method, torch.compile(step, dynamic=False, options=options))


def speed_up(model: Forecaster, mode: str = "auto") -> Forecaster:
    """Have a model's forecasts compiled, or replayed as a graph of kernels, where it is.

    Args:
        model: a forecaster on its device. calls, ``observe`` and ``forecast`` are replayed where no gradient is
            asked for: the first call of a shape runs as it is, the second records, later ones replay.
        mode: "none"; "step" compiles a time step when it first runs; "graph", on CUDA, also replays; "auto" replays on
            CUDA and does nothing elsewhere.

    Returns:
        The model itself.

    Raises:
        UnknownNameError: no such mode.
        OptionError: "graph" on a device that has no graphs.
    """
    way = choose_way(mode, model, next(model.parameters()).device)
    apply_way(model, way)
    if way.reason:
        log.warning("compile %s: %s", mode, way.text())
    return model


def apply_way(model: Forecaster, way: Way) -> None:
    """Have a model compiled and its forecasts replayed, as chosen."""
    undo_way(model)
    if way.compiled:
        compile_step(model)
    if way.captured:
        if isinstance(model, RecurrentForecaster):
            model.shares_kernels = True
        # A motion is found on the processor, which no graph holds: a stream's, between its steps.
        for name in CALLS if model.residual == "none" else CALLS[:1]:
            if hasattr(model, name):
                setattr(model, name, Replayed(getattr(model, name), model))


def undo_way(model: Forecaster) -> None:
    """Take back what ``apply_way`` did, so that the model can be copied and kept."""
    for name in (model.compiled_method, "shares_kernels", *CALLS):
        vars(model).pop(name, None)


@contextmanager
def on_its_way(model: Forecaster, way: Way) -> Iterator[None]:
    """Have a model compiled and replayed for a while."""
    apply_way(model, way)
    try:
        yield
    finally:
        undo_way(model)
