"""Out of memory: what was tried, and what needs less."""

from __future__ import annotations

from framecast.datasets.clip import ClipSpec
from framecast.models.forecaster import Forecaster
from framecast.training.options import TrainingOptions

# Processors, cuBLAS and cuDNN have no error class of their own for it; CUDA has.
SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
    )


def memory_advice(error: BaseException, model: Forecaster, clips: ClipSpec, options: TrainingOptions) -> str:
    """Return what was tried and what needs less memory, most effective first."""
    name = model.spec.name if model.spec else type(model).__name__
    shape = f"{clips.context + clips.horizon}x{clips.channels}x{clips.height}x{clips.width}"
    tried = (
        f"{name} with batch {options.batch}, clips of {shape} (time, channels, height, width), "
        f"accumulate {options.accumulate}, recompute {options.recompute}, precision {options.precision}"
    )
    advice = []
    if options.batch > 1:
        # An odd batch can only be cut into single clips without changing how many a step has.
        parts = 2 if options.batch % 2 == 0 else options.batch
        advice.append(
            f"--batch {options.batch // parts} --accumulate {options.accumulate * parts} in a new run "
            "(as many clips for each step)"
        )
    if options.recompute == "none":
        advice.append("--recompute lean (recurrent models; slower, the same gradients), also with --resume")
    if options.precision == "32-true" and options.accelerator != "cpu":
        advice.append("--precision bf16-mixed on a GPU")
    advice.append("smaller frames, a shorter clip or fewer hidden channels")
    size = " ".join(map(str, (clips.context + clips.horizon, clips.channels, clips.height, clips.width)))
    advice.append(f"framecast cost {name} --shape {size} --context {clips.context} --fit 8GB finds what fits")
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return f"out of memory: tried {tried}. What needs less: {'; '.join(advice)}. ({reason})"
