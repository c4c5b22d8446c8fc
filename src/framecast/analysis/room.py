"""What would have fitted: the largest batches by count into the memory that is free after a training ran out of it.

Nothing is run: a step is counted on tensors without values, as in ``framecast.analysis.memory``, and the allocator's
waste taken at its worst. ``framecast cost --fit`` measures, and so finds larger batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framecast.analysis.cost_table import CAUTION, free_memory
from framecast.analysis.fitting_memory import heap_limit, largest_batch, recompute_modes
from framecast.analysis.memory import count_memory, shown_bytes
from framecast.models.recomputing import Recompute


def free_for_process() -> int:
    """Return the bytes this process could still take: what the machine has, or its own limit of addresses leaves."""
    free = free_memory()
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return free
    limit, taken = resource.getrlimit(resource.RLIMIT_AS)[0], Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not taken.exists():
        return free
    return max(0, min(free, limit - int(taken.read_text().split()[0]) * resource.getpagesize()))


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
        found, least = {}, []
        for mode in modes:
            count = count_memory(name, shape, context, mode, **(options or {}))

            def needs(clips: int, count: Any = count) -> int:
                return int(count.peak(clips, CAUTION, heap_limit()))

            found[mode] = largest_batch(needs, free) * processes
            least.append(needs(1))
    except Exception:
        # What was wrong is said already; a second error on top of it would hide it.
        return ""
    if found[recompute] >= batch:
        return (
            f"by count, {shown_bytes(free)} that are free now would hold batch {found[recompute]} with recompute "
            f"{recompute}: other programs took the memory then, or it was asked for by something else"
        )
    fitting = [f"batch {most} with recompute {mode}" for mode, most in found.items() if most]
    if not fitting:
        return (
            f"by count, not one clip fits into the {shown_bytes(free)} that are free now: it needs at least "
            f"{shown_bytes(min(least))}"
        )
    return f"by count, the {shown_bytes(free)} that are free now hold {', or '.join(fitting)}"
