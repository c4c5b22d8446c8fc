"""Where the time of a training step or a forecast goes: convolutions, gates and so on, by torch's profiler.

It explains how far a step is from the machine's convolution peak, and stands beside every figure of ``speed.py`` that
misses its target, of framecast and of the baseline both.
"""

from __future__ import annotations

from typing import Any

import torch

import framecast as fc
from framecast.models.sampling import truth_mask

# Operations by the name that the profiler gives them; only the first that fits counts. What the compiler fuses between
# convolutions has no names of its own and shows as the region that calls it. Gates that native code computes with a
# convolution, in forecasts, count as part of it.
PARTS = {
    "data": ("data",),
    "sampling": ("sampling", "aten::where"),
    "optimiser": ("Optimizer.", "aten::_fused_adam"),
    "convolutions": (
        "aten::mkldnn_convolution", "aten::convolution", "convolution_backward", "aten::_convolution",
        "mkldnn::_convolution", "_Convolve", "_Transform", "framecast::convolve", "framecast::transform_kernel",
        "framecast::gather", "framecast::kernel_gradient", "aten::mm", "aten::addmm",
    ),
    "pooling and upsampling": ("aten::max_pool", "aten::upsample"),
    "gates": (
        "aten::sigmoid", "aten::tanh", "aten::mul", "aten::add", "aten::cat", "aten::sub", "_TanhBySigmoid", "_Update",
        "_Expose", "framecast::update", "framecast::expose", "## Call Compiled", "CompiledFunction", "Torch-Compiled",
    ),
}  # fmt: skip
REST = "the rest"
TRAINING_PASSES = 3  # backward has twice the operations of forward


def breakdown(way: Any, job: str) -> dict[str, float]:
    """Return the seconds of each part of one "train" or "forecast" of a ``speed.Way``.

    A training step makes its clips and draws its sampling masks first, as ``framecast train`` does.
    """
    batch, _, _, size, _ = way.clip.shape
    shape = {"size": size, "context": way.context, "horizon": way.horizon}
    clips = fc.data("moving-mnist", clips=1500, **shape)["train"]
    work = getattr(way, job)
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        if job == "train":
            with torch.profiler.record_function("data"):
                way.clip = torch.stack([clips[index]["frames"] for index in range(batch)])
            with torch.profiler.record_function("sampling"):
                way.truth = truth_mask(
                    "scheduled", 0.1, seed=0, epoch=0, samples=torch.arange(batch), context=way.context,
                    horizon=way.horizon,
                )  # fmt: skip
        work()
    took = dict.fromkeys([*PARTS, REST], 0.0)
    for event in profile.key_averages():
        part = next((part for part, names in PARTS.items() if event.key.startswith(names)), REST)
        took[part] += event.self_cpu_time_total / 1e6
    return took


def parts_row(way: Any, job: str, macs: int) -> dict[str, Any]:
    """Return the seconds of each part, and the GFLOP/s of the convolutions, of a roll-out of so many operations."""
    took = breakdown(way, job)
    passes = TRAINING_PASSES if job == "train" else 1
    rate = 2 * passes * len(way.clip) * macs / took["convolutions"] / 1e9
    return {"what": job, **took, "GFLOP/s of the convolutions": rate}
