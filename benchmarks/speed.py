"""How fast a training step and a forecast are beside the published sequence of operations, in one run.

Every way to compute a model takes its turn in every round, so that whatever else the machine does hits all alike. A
ratio is taken within each round; the median of all rounds is given, and the quartiles, between which half of them lie.
Ways: "published" (``benchmarks/published.py``, its outputs first checked against the reference vectors), "framecast" as
it is, "torch alone" without native code, "lean" (recomputing), "compiled", and bfloat16 where the processor is faster
in it. GFLOP/s count the convolutions as they are written, whatever is saved of them; those of "published" stand beside
the convolution peak measured in the same process, so that everybody can see whether the baseline is a straw man.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from breakdown import parts_row
from published import PublishedForecaster
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import framecast as fc
from framecast.cells.native import torch_alone
from framecast.compute.compiling import compile_step
from framecast.compute.placement import arrange
from framecast.cost.count import count_memory
from framecast.cost.paper import published_cost

REFERENCE = Path(__file__).parents[1] / "tests/reference"
VECTORS = {"ms-lstm": "ms_lstm", "convlstm": "convlstm", "predrnn": "predrnn", "mim": "mim"}
SHAPES = {"16 x 32x32, 4 -> 4": (16, 32, 4), "4 x 64x64, 10 -> 10": (4, 64, 10)}
HIDDEN, LAYERS = 32, 6
JOBS = ("train", "forecast")
ROUNDS = 3, 11
# Least ratios to the baseline, of training and forecast.
OTHERS, MS_LSTM, LEAN = (1.7, 2.0), (3.0, 3.5), (2.4, None)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def conv_peak(dtype: torch.dtype, kernel: int = 5, rounds: int = 7) -> float:
    """Return the best GFLOP/s of a 64 -> 128 convolution on 16 maps of 32x32, in either layout."""
    best = 0.0
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(16, 64, 32, 32, dtype=dtype).contiguous(memory_format=layout)
        weight = torch.randn(128, 64, kernel, kernel, dtype=dtype).contiguous(memory_format=layout)
        took = min(seconds(lambda x=x, w=weight: F.conv2d(x, w, padding=kernel // 2)) for _ in range(rounds))
        best = max(best, 2 * x[:, 0].numel() * weight.numel() / took / 1e9)
    return best


def check_baseline(name: str) -> float:
    """Return the largest difference of the baseline's outputs from the reference vectors.

    Raises:
        AssertionError: it is more than 1e-5.
    """
    file = REFERENCE / f"{VECTORS[name]}.safetensors"
    tensors = load_file(file)
    with safe_open(file, "pt") as handle:
        facts = handle.metadata()
    weights = {key: value for key, value in tensors.items() if key.startswith(("embed.", "rnns.", "fc."))}
    width, channels = weights["embed.conv_embed.weight"].shape[:2]
    model = PublishedForecaster(name, width, channels)
    model.load_state_dict(weights)
    with torch.no_grad():
        forecast = model(tensors["input"].transpose(0, 1), int(facts["in_len"]), int(facts["out_len"]))
    difference = float((forecast - tensors["output"].transpose(0, 1)).abs().max())
    assert difference < 1e-5, f"{name}: the baseline differs from the reference vectors by {difference}"
    return difference


class Way:
    """One way to compute a model: a training step and a forecast to be timed."""

    def __init__(self, name: str, way: str, clip: Tensor, context: int, recompute: Any = "none") -> None:
        torch.manual_seed(0)
        self.clip, self.context, self.horizon = clip, context, clip.shape[1] - context
        self.truth: Tensor | None = None
        self.mixed, self.recompute = "bfloat16" in way, "lean" if way == "lean" else recompute
        self.alone = nullcontext if way not in ("torch alone", "bfloat16") else torch_alone
        self.published = way == "published"
        if self.published:
            self.model: Any = PublishedForecaster(name, HIDDEN, 1, LAYERS)
        else:
            self.model = fc.create_model(name, hidden=HIDDEN, layers=LAYERS)
            with self.alone():
                arrange(self.model, "auto", torch.device("cpu"))
            if "compiled" in way:
                compile_step(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 3e-4, fused=not self.published)

    def frames(self) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            if self.published:
                result: Tensor = self.model(self.clip, self.context, self.horizon)
                return result
            rollout = self.model.rollout(self.clip, self.context, self.horizon, self.truth, recompute=self.recompute)
        return rollout.frames.float()

    def train(self) -> None:
        with self.alone():
            self._train()

    def _train(self) -> None:
        error = self.frames() - self.clip[:, 1:]
        loss = (error.square() + error.abs()).sum((2, 3, 4)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def forecast(self) -> None:
        with torch.no_grad(), self.alone():
            self.frames()


def measure(ways: dict[str, Way], minutes: float) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of training steps and of forecasts of every way, all in turn, round by round.

    There are as many rounds as fit into the minutes, ROUNDS at the least and at the most.
    """
    for way in ways.values():
        way.train()
        way.forecast()
    times: dict[str, dict[str, list[float]]] = {name: {job: [] for job in JOBS} for name in ways}
    end = time.monotonic() + 60 * minutes
    least, most = ROUNDS
    for number in range(most):
        if number >= least and time.monotonic() > end:
            break
        for name, way in ways.items():
            times[name]["train"].append(seconds(way.train))
            times[name]["forecast"].append(seconds(way.forecast))
    return times


def ratio(base: list[float], took: list[float]) -> tuple[float, str]:
    """Return how many times as fast as the base, round by round: the median, and both quartiles."""
    low, middle, high = statistics.quantiles([b / t for b, t in zip(base, took, strict=True)], n=4, method="inclusive")
    return middle, f"{low:.2f} to {high:.2f}"


def rows(names: list[str], minutes: float, ways: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one row for each model, shape and way; the compiled ones at the first shape of ms-lstm only."""
    for name in names:
        difference = check_baseline(name)
        for place, (shape, (batch, size, frames)) in enumerate(SHAPES.items()):
            clip = torch.rand(batch, 2 * frames, 1, size, size)
            print(f"speed: {name}, {shape}", file=sys.stderr, flush=True)
            here = [way for way in ways if "compiled" not in way or (name == "ms-lstm" and place == 0)]
            times = measure({way: Way(name, way, clip, frames) for way in here}, minutes)
            for way in here:
                macs = rollout_macs(name, way, size, frames)
                took = {job: statistics.median(times[way][job]) for job in JOBS}
                row: dict[str, Any] = {"model": name, "batch x size, frames": shape, "way": way}
                for job, least in zip(JOBS, targets(name, way), strict=True):
                    middle, quartiles = ratio(times["published"][job], times[way][job])
                    known = {"s": took[job], "ratio": middle, "ratio, half of the rounds": quartiles}
                    row |= {f"{job}, {what}": value for what, value in known.items()} | {f"{job}, at least": least}
                yield row | {
                    "rounds": len(times[way]["train"]),
                    "GFLOP/s in training": 6 * batch * macs / took["train"] / 1e9,
                    "baseline off by": difference if way == "published" else None,
                }


def rollout_macs(name: str, way: str, size: int, frames: int) -> int:
    """Return the multiply-accumulates of a roll-out as the way computes it."""
    count = published_cost if way == "published" else fc.cost
    counted = count(name, (2 * frames, 1, size, size), frames, hidden=HIDDEN, layers=LAYERS)
    assert counted is not None
    return counted.macs


def targets(name: str, way: str) -> tuple[float | None, float | None]:
    """Return what a way is to reach; nothing for those that are there to compare."""
    if way == "lean" and name == "ms-lstm":
        return LEAN
    if way != "framecast":
        return None, None
    return MS_LSTM if name == "ms-lstm" else OTHERS


def saved_by_baseline(batch: int, size: int, frames: int) -> int:
    """Return the bytes that the baseline's MS-LSTM keeps for backward, its parameters apart."""
    model = PublishedForecaster("ms-lstm", HIDDEN, 1, LAYERS)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = model(torch.rand(batch, 2 * frames, 1, size, size), frames, frames)
    del result
    return sum(kept.values())


def leaner(minutes: float) -> dict[str, float]:
    """Return what recomputation saves and costs: MS-LSTM at the second shape, ratios."""
    batch, size, frames = SHAPES["4 x 64x64, 10 -> 10"]
    clip = torch.rand(batch, 2 * frames, 1, size, size)
    times = measure({mode: Way("ms-lstm", "default", clip, frames, mode) for mode in ("none", "lean")}, minutes)

    def counted(mode: Any, times_longer: int = 1) -> Any:
        length = 2 * frames * times_longer
        return count_memory("ms-lstm", (length, 1, size, size), length // 2, mode, hidden=HIDDEN, layers=LAYERS)

    none, lean, longer = counted("none"), counted("lean"), counted("lean", 2)
    baseline = saved_by_baseline(batch, size, frames)
    time_ratio, _ = ratio(times["lean"]["train"], times["none"]["train"])
    return {
        "bytes saved for backward, lean / baseline (at most 0.33)": lean.saved(batch) / baseline,
        "bytes saved for backward, none / baseline": none.saved(batch) / baseline,
        "all tensors at the peak of a step, lean / none": lean.peak(batch) / none.peak(batch),
        "bytes saved by lean, 40 frames / 20 frames (at most 1.5)": longer.saved(batch) / lean.saved(batch),
        "peak of lean, 40 frames / 20 frames": longer.peak(batch) / lean.peak(batch),
        "seconds of a training step, lean / none (at most 1.4)": time_ratio,
    }


def why_missed(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts of every figure that misses its target, of the way and of the baseline."""
    parts = []
    for row in found:
        name, label = row["model"], row["batch x size, frames"]
        batch, size, frames = SHAPES[label]
        for job in JOBS:
            if row[f"{job}, ratio"] >= (row[f"{job}, at least"] or 0):
                continue
            for way in ("published", row["way"]):
                macs = rollout_macs(name, way, size, frames)
                made = Way(name, way, torch.rand(batch, 2 * frames, 1, size, size), frames)
                parts.append({"model": name, "batch x size, frames": label, "way": way, **parts_row(made, job, macs)})
    return parts


def default_layout() -> str:
    """Return the layout that a model is computed in where nothing is said."""
    model = fc.create_model("convlstm", hidden=4, layers=1)
    arrange(model, "auto", torch.device("cpu"))
    return "channels-last" if model.layout == torch.channels_last else "channels-first"


def run(names: list[str], minutes: float, compiled: bool) -> dict[str, Any]:
    """Measure everything and return it as plain numbers."""
    peaks = {str(dtype).removeprefix("torch."): conv_peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    ways = ["published", "torch alone", "framecast", "lean"]
    notes = []
    if compiled:
        ways.append("compiled")
    if peaks["bfloat16"] > peaks["float32"]:
        ways += ["bfloat16", "bfloat16, compiled"] if compiled else ["bfloat16"]
    else:
        notes.append(
            "bfloat16 is not timed: this processor computes a convolution in it "
            f"{peaks['float32'] / peaks['bfloat16']:.0f} times slower than in float32"
        )
    found = list(rows(names, minutes, ways))
    batch, size, frames = next(iter(SHAPES.values()))
    step = Way("ms-lstm", "default", torch.rand(batch, 2 * frames, 1, size, size), frames)
    return {
        "convolution peak, GFLOP/s": peaks,
        "rows": found,
        "default layout": default_layout(),
        "lean": leaner(minutes),
        "training step of ms-lstm, seconds": parts_row(step, "train", rollout_macs("ms-lstm", "ours", size, frames)),
        "missed": why_missed(found),
        "notes": notes,
    }
