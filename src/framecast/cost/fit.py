"""What fits into a memory: the largest batch for each way of recomputing, and the time it costs.

The tensors of a step are counted for every batch. What the process takes beyond them is measured on two smaller
batches, an eighth and a quarter of what the count alone would allow: a constant and a factor,

    process(B) = constant + live(B; factor)

The factor is what the allocator's heap wastes: gaps that freed blocks leave and later ones do not fit into. Blocks
above 32 MiB come from the system one by one and go back to it, so they count once (glibc's limit; other allocators are
assumed to waste everywhere).

``what_fits`` answers the same after a training has run out of memory: by counting alone, with the allocator's waste at
its worst. ``framecast cost --fit`` measures, and so finds larger batches.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framecast.cost.count import count_memory
from framecast.cost.measure import Measured, measure_base, measure_step
from framecast.cost.memory import StepMemory, shown_bytes
from framecast.errors import OptionError
from framecast.models.forecaster import Recompute, segment_length
from framecast.registry import model_entry
from framecast.reporting.results import text_table

BYTE_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}
GLIBC_HEAP_LIMIT = 2**25
# Factors up to 1.9 were seen; one much larger is noise between two batches that hardly differ.
LARGEST_FACTOR = 4.0


class Fit(NamedTuple):
    """What fits into a memory with one way of recomputing.

    Attributes:
        recompute: the way.
        batch: the largest batch that fits; 0 where not even one clip does.
        memory: bytes that a step of this batch needs, base included; of one clip where none fits.
        step: seconds of a training step of this batch, from those measured in proportion; None where none fits.
        measured: the batches that were measured.
    """

    recompute: Recompute
    batch: int
    memory: int
    step: float | None
    measured: tuple[int, ...]


def read_size(text: str) -> int:
    """Return the bytes that "8GB", "700 MB", "512MiB" or "4e9" mean; KB, MB, GB and TB are powers of 1000.

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([kmgt]?i?)b?\s*", text, re.IGNORECASE)
    if not match or match[2].upper() not in BYTE_UNITS or not float(match[1]):
        raise OptionError(f"the size {text!r} cannot be read: write it like 8GB, 700MB or 512MiB")
    return int(float(match[1]) * BYTE_UNITS[match[2].upper()])


def heap_limit() -> float:
    """Return the size above which the allocator of this process takes a block from the system for itself."""
    return GLIBC_HEAP_LIMIT if platform.libc_ver()[0] == "glibc" else np.inf


def recompute_modes(name: str, steps: int) -> list[Recompute]:
    """Return the ways of recomputing worth comparing, from the fastest to the leanest.

    Raises:
        UnknownNameError: no such model.
    """
    if model_entry(name).cell is None:
        return ["none"]
    root = segment_length(steps, "lean")
    return ["none", *([2 * root] if 2 * root < steps else []), "lean", *([1] if root > 1 else [])]


def largest_batches(
    name: str,
    shape: Sequence[int],
    context: int,
    limit: int,
    *,
    modes: Sequence[Recompute] | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Fit]:
    """Find the largest batch that trains within a memory, for each way of recomputing.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        limit: bytes that the whole process may take, or on an accelerator all its tensors.
        modes: ways of recomputing; None takes all of ``recompute_modes``.
        options: the model's options.
        device: where to compute.
        threads: threads of the processor; None leaves torch's choice.
        progress: called with a line of text at each measurement.

    Raises:
        UnknownNameError: no such model or option.
        ValueError: a shape, context or way of recomputing that the model cannot take, or steps that failed when they
            were measured.
    """
    model_options = dict(options or {})
    chosen = recompute_modes(name, shape[0] - 1) if modes is None else modes
    counts = {mode: count_memory(name, shape, context, mode, **model_options) for mode in chosen}
    base = measure_base() if device == "cpu" else 0
    fits = []
    for mode, count in counts.items():

        def measure(batch: int, mode: Recompute = mode) -> Measured:
            progress(f"measuring {name}, recompute {mode}, batch {batch}")
            return measure_step(
                name,
                shape,
                context,
                batch=batch,
                recompute=mode,
                options=model_options,
                forecasts=False,
                device=device,
                threads=threads,
            )

        fits.append(_fit(mode, count, limit, base, measure))
    return fits


def _fit(mode: Recompute, count: StepMemory, limit: int, base: int, measure: Callable[[int], Measured]) -> Fit:
    most = largest_batch(lambda batch: base + count.peak(batch), limit)
    if not most:
        return Fit(mode, 0, base + count.peak(1), None, ())
    batches = sorted({max(1, most // 8), min(most, max(2, most // 4))})
    measured = {batch: measure(batch) for batch in batches}
    if measured[batches[0]].peak > limit and batches[0] == 1:
        return Fit(mode, 0, measured[1].peak, None, tuple(batches))
    peaks = [(batch, measured[batch].peak) for batch in batches]
    predict = predicted_memory(count, peaks)
    batch = min(most, largest_batch(predict, limit))
    if not batch:
        return Fit(mode, 0, predict(1), None, tuple(batches))
    near = max((b for b in batches if b <= batch), default=batches[0])
    return Fit(mode, batch, predict(batch), measured[near].step * batch / near, tuple(batches))


def predicted_memory(count: StepMemory, peaks: Sequence[tuple[int, int]]) -> Callable[[int], int]:
    """Return the function from batch to bytes of the process that goes through measured peaks.

    Args:
        count: the tensors of a step.
        peaks: one or two pairs of a batch and the bytes measured, the smaller batch first.
    """
    below, factor = heap_limit(), 1.0
    (first, low), (last, high) = peaks[0], peaks[-1]
    if first != last:
        # Halving: what the batches differ by grows with the factor.
        least, largest = 1.0, LARGEST_FACTOR
        for _ in range(40):
            factor = (least + largest) / 2
            more = count.peak(last, factor, below) - count.peak(first, factor, below) > high - low
            least, largest = (least, factor) if more else (factor, largest)
    rest = high - count.peak(last, factor, below)
    return lambda batch: rest + count.peak(batch, factor, below)


def largest_batch(needs: Callable[[int], int], limit: int) -> int:
    """Return the largest batch that needs at most so much, 0 where there is none."""
    low, high = 0, 1
    while needs(high) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= limit else (low, middle)
    return low


def fit_text(fits: Sequence[Fit], limit: int) -> str:
    """Return what fits as a text table, and in words where not one clip does."""
    rows = [["recompute", "batch", "memory", "s/step", "s/clip", "measured at batch"]]
    for fit in fits:
        if fit.step is not None:
            rows.append([str(fit.recompute), str(fit.batch), shown_bytes(fit.memory), f"{fit.step:.3g}",
                         f"{fit.step / fit.batch:.3g}", ", ".join(map(str, fit.measured))])  # fmt: skip
    none = [
        f"recompute {fit.recompute}: not one clip fits into {shown_bytes(limit)}; it needs "
        f"{'' if fit.measured else 'at least '}{shown_bytes(fit.memory)}"
        for fit in fits
        if fit.step is None
    ]
    return "\n".join(([text_table(rows)] if len(rows) > 1 else []) + none)


# How much more than its tensors a process may take, at worst: factors up to 1.9 were seen.
CAUTION = 2.5


def free_memory() -> int:
    """Return the bytes that the machine could give to a new process."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_for_process() -> int:
    """Return the bytes this process could still take: what the machine has, or its own limit of addresses leaves."""
    free = free_memory()
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return free
    limit, statm = resource.getrlimit(resource.RLIMIT_AS)[0], Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not statm.exists():
        return free
    return max(0, min(free, limit - int(statm.read_text().split()[0]) * resource.getpagesize()))


def what_fits(
    name: str,
    shape: Sequence[int],
    context: int,
    batch: int,
    recompute: Recompute,
    *,
    processes: int = 1,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Return in words which batches fit by count into the memory of processors that is free now.

    Args:
        name: a model's name or alias.
        shape: (T, C, H, W) of the clip.
        context: number of past frames.
        batch: clips of the batch that did not fit, over all processes.
        recompute: how it was computed, see ``Forecaster.rollout``.
        processes: that share the batch and this machine.
        options: the model's options.

    Returns:
        A sentence, or nothing where this cannot be counted, as with memory too short even for that.
    """
    try:
        free = free_for_process() // processes
        modes = dict.fromkeys([recompute, *recompute_modes(name, shape[0] - 1)])
        largest, least = {}, []
        for mode in modes:
            count = count_memory(name, shape, context, mode, **(options or {}))

            def needs(clips: int, count: Any = count) -> int:
                return int(count.peak(clips, CAUTION, heap_limit()))

            largest[mode] = largest_batch(needs, free) * processes
            least.append(needs(1))
    except Exception:
        # What was wrong is said already; a second error on top of it would hide it.
        return ""
    if largest[recompute] >= batch:
        return (
            f"by count, {shown_bytes(free)} that are free now would hold batch {largest[recompute]} with recompute "
            f"{recompute}: other programs took the memory then, or it was asked for by something else"
        )
    fitting = [f"batch {most} with recompute {mode}" for mode, most in largest.items() if most]
    if not fitting:
        return (
            f"by count, not one clip fits into the {shown_bytes(free)} that are free now: it needs at least "
            f"{shown_bytes(min(least))}"
        )
    return f"by count, the {shown_bytes(free)} that are free now hold {', or '.join(fitting)}"
