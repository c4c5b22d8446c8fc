"""Measure training steps and forecasts in a separate process, so that its peak of memory is theirs alone.

A crash there, or one for lack of memory, is reported and takes nothing else down. The process imports all that
``framecast train`` imports; what it holds then is its base. ``cheaper_ways`` says what would make a training cheaper on
this machine; none of it is ever switched on by itself.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from framecast.cells.convolution import OneRollout, conv_same
from framecast.cells.native import torch_alone
from framecast.compute.native.library import why_not
from framecast.compute.precision import WORTH, bfloat16_gain, median_seconds, tf32_gain
from framecast.cost.count import count_memory
from framecast.cost.memory import shown_bytes
from framecast.errors import MeasurementError
from framecast.models.forecaster import Recompute
from framecast.plugins import import_plugins
from framecast.registry import model_entry

# The allocator's heap still grows in the second step, so a peak is one of three steps; the first of them only warms up.
STEPS = 3


class Measured(NamedTuple):
    """What training steps and forecasts of one batch took.

    Attributes:
        base: bytes of the process before the model was made; 0 on an accelerator.
        peak: bytes of the process, or on an accelerator of all tensors, at most.
        step: seconds of a training step, the median without the first.
        forecast: seconds of a forecast, the median without the first; None where none was asked for.
    """

    base: int
    peak: int
    step: float
    forecast: float | None


def measure_step(
    name: str,
    shape: Sequence[int],
    context: int,
    *,
    batch: int = 1,
    recompute: Recompute = "none",
    options: Mapping[str, Any] | None = None,
    forecasts: bool = True,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float | None = None,
) -> Measured:
    """Measure training steps (and forecasts) in a process of their own.

    Args:
        name: a model's name or alias; a cell registered by the calling program is unknown to the new process.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        batch: clips.
        recompute: see ``Forecaster.rollout``.
        options: the model's options.
        forecasts: measure forecasts too.
        device: where to compute.
        threads: threads of the processor; None leaves torch's choice.
        seconds: stop after so many.

    Raises:
        MeasurementError: the process failed, was killed (the system does so when memory runs out), or took longer.
    """
    request = {"name": name, "shape": list(shape), "context": context, "batch": batch, "recompute": recompute,
             "options": dict(options or {}), "forecasts": forecasts, "device": device, "threads": threads}  # fmt: skip
    return Measured(*_in_own_process(request, seconds))


def measure_base() -> int:
    """Return the bytes of a process that has imported all that a training needs, and made nothing yet.

    Raises:
        MeasurementError: the process failed.
    """
    peak: int = _in_own_process(None, None)
    return peak


def _in_own_process(request: Mapping[str, Any] | None, seconds: float | None) -> Any:
    command = [sys.executable, "-m", "framecast.cost.measure", json.dumps(request)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"took longer than {seconds:.0f} s") from None
    if done.returncode < 0:
        raise MeasurementError(f"was killed by signal {-done.returncode}, as it happens when memory runs out")
    if done.returncode:
        raise MeasurementError(f"failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def process_memory() -> tuple[int, int]:
    """Return the bytes that this process holds, and the most it ever held.

    Raises:
        OSError: the system tells neither.
    """
    status = Path("/proc/self/status")
    # getrusage would do, but on Linux its maximum is inherited from the process that started this one.
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        now, most = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return now, most
    try:
        import resource
    except ImportError:
        raise OSError("memory is measured on Linux and macOS only: count it instead") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most, most


def process_base() -> int:
    """Import what a training needs and return the bytes that this process then holds."""
    import framecast.training.loop  # noqa: F401

    return process_memory()[0]


def run_steps(
    name: str,
    shape: Sequence[int],
    context: int,
    batch: int,
    recompute: Recompute,
    options: Mapping[str, Any],
    forecasts: bool,
    device: str,
    threads: int | None,
) -> Measured:
    """Run training steps (and forecasts) in this process; see ``measure_step``."""
    import torch

    from framecast.compute.placement import arrange
    from framecast.cost.count import create_for_shape
    from framecast.training.losses import sampled_steps, training_loss
    from framecast.training.task import OPTIMIZERS

    if threads:
        torch.set_num_threads(threads)
    place = torch.device(device)
    base = process_base() if place.type == "cpu" else 0
    model = create_for_shape(name, shape, context, options).train().to(place)
    arrange(model, "auto", place)
    recipe = model.recipe()
    optimizer = OPTIMIZERS[recipe.optimizer](model, recipe, True)
    clip = torch.rand(batch, *shape, device=place)

    def step() -> None:
        truth, rows = sampled_steps(recipe, clip), model.blank_rows(clip, recipe.members)
        loss = training_loss(model, recipe, clip, context, truth, recompute=recompute, rows=rows)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()

    def forecast() -> None:
        with torch.inference_mode():
            model.continue_past(clip[:, :context], shape[0] - context, model.blank_rows(clip))

    trained = _median_seconds(step, place)
    peak = process_memory()[1] if place.type == "cpu" else torch.accelerator.max_memory_allocated(place)
    model.eval()
    return Measured(base, peak, trained, _median_seconds(forecast, place) if forecasts else None)


def _median_seconds(run: Any, place: Any) -> float:
    import torch

    durations = []
    for _ in range(STEPS):
        start = time.perf_counter()
        run()
        if place.type != "cpu":
            torch.accelerator.synchronize(place)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


if __name__ == "__main__":
    import_plugins()
    arguments = json.loads(sys.argv[1])
    print(json.dumps(run_steps(**arguments) if arguments else process_base()))


def native_advice() -> str:
    """Return what native convolutions gain here, measured in moments, or why there are none."""
    reason = why_not()
    if reason:
        return (
            f"native convolutions: none, {reason}. With them a 5x5 convolution takes about a quarter of the time on "
            "processors such as those measured in benchmarks/results."
        )
    x = torch.zeros(4, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    weight, seconds = torch.zeros(128, 64, 5, 5), []
    for alone in (True, False):
        with torch_alone() if alone else nullcontext(), torch.no_grad(), OneRollout():
            seconds.append(median_seconds(lambda: conv_same(x, weight)))
    gain = seconds[0] / seconds[1]
    return f"native convolutions: in use, a 5x5 convolution is {gain:.1f} times as fast as torch's."


def cheaper_ways(
    name: str, shape: Sequence[int], context: int, batch: int = 1, device: str = "cpu", **options: Any
) -> list[str]:
    """Return one sentence each on recomputation, precision, native code and compiling.

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
    advice = []
    if model_entry(name).cell is not None:
        plain, lean = (count_memory(name, shape, context, mode, **options).peak(batch) for mode in ("none", "lean"))
        advice.append(
            f"--recompute lean: {shown_bytes(lean)} at the peak of a step instead of {shown_bytes(plain)}, for at "
            "most one more forward pass of time."
        )
    gain = bfloat16_gain(device)
    if gain > WORTH:
        advice.append(
            f"--precision bf16-mixed: a convolution is {gain:.1f} times faster here; outputs err by about 1e-2."
        )
    else:
        advice.append(
            f"--precision bf16-mixed: not here, a convolution is {1 / gain:.1f} times slower in it on this processor."
        )
    if torch.device(device).type == "cuda":
        advice.append(
            f"--tf32: a convolution of float32 is {tf32_gain(device):.1f} times faster; outputs err by about 1e-3."
        )
    if device == "cpu" and model_entry(name).cell is not None:
        advice.append(native_advice())
    if device == "cpu" and not (shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")):
        advice.append("--compile step: needs a C++ compiler, which is not here.")
    else:
        advice.append("--compile step: fuses what lies between convolutions; takes a minute or more when it starts.")
    return advice
