"""What a GPU gains: the published sequence of operations, eager steps, compiled steps and graphs, side by side.

One command of at most six minutes, whose lines stand in the order of their worth; what does not fit into the minutes is
named as left out. Each line is a training step (forward, backward, Adam) and a forecast, 64x64, 10 -> 10, 6 layers of
32 channels, as the median of the rounds after three to warm up. Beside them stand clips a second through
``framecast.train``, the share of that spent waiting for clips, and the equality of 200 steps as they are and recorded.

Run: PYTHONPATH=src python benchmarks/gpu.py [--out FOLDER] [--minutes 6]
     (--device cpu --size 16 tries the script itself, in seconds)
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from published import PublishedForecaster
from torch import Tensor

import framecast as fc
from framecast.compute.compiling import Way, apply_way
from framecast.compute.graphs import CapturedLoss, can_capture
from framecast.compute.placement import place

HIDDEN, LAYERS, LENGTH, CONTEXT = 32, 6, 20, 10
WARMUP, ROUNDS, FEWEST, SECONDS = 3, 15, 5, 2.0
STEPS_EQUAL, LAYERS_EQUAL, STEPS_TRAINED = 200, 2, 400
TOLERANCE = 1e-5
PRECISIONS = ("fp32", "tf32", "bf16")
WAYS = {"eager": Way(False, False), "step": Way(True, False), "replay": Way(False, True), "graph": Way(True, True)}


class Line(NamedTuple):
    """What one line measures; ``way`` is a name of WAYS, "published", or "released" (published without cuDNN)."""

    model: str
    batch: int
    way: str
    precision: str


def lines() -> list[Line]:
    """Return all lines, the most telling first."""
    result = [Line("ms-lstm", 16, "released", "fp32"), Line("ms-lstm", 16, "published", "tf32"),
              Line("ms-lstm", 16, "graph", "bf16"), Line("ms-lstm", 16, "eager", "bf16"),
              Line("ms-lstm", 4, "released", "fp32"), Line("ms-lstm", 4, "published", "tf32"),
              Line("ms-lstm", 4, "graph", "bf16"), Line("ms-lstm", 1, "graph", "bf16")]  # fmt: skip
    for model in ("convlstm", "predrnn"):
        result += [Line(model, 16, "published", "tf32"), Line(model, 16, "graph", "bf16")]
    cheap = [Line("ms-lstm", batch, way, precision) for batch in (16, 4, 64) for precision in PRECISIONS
             for way in ("published", "eager", "replay")]  # fmt: skip
    cheap += [Line(model, 16, way, precision) for model in ("convlstm", "predrnn") for precision in PRECISIONS
              for way in ("eager", "replay")]  # fmt: skip
    dear = [
        Line("ms-lstm", 16, "graph", "tf32"),
        Line("ms-lstm", 16, "step", "bf16"),
        Line("ms-lstm", 64, "graph", "bf16"),
        Line("ms-lstm", 16, "graph", "fp32"),
    ]
    return list(dict.fromkeys([*result, *cheap, *dear]))


@contextmanager
def rounding(line: Line) -> Iterator[None]:
    """Set cuDNN and TF32 as the line has them."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = line.precision == "tf32"
    with torch.backends.cudnn.flags(enabled=line.way != "released", allow_tf32=line.precision == "tf32"):
        yield


def loss_of(model: Any, published: bool) -> Callable[..., Tensor]:
    """Return the paper's loss of a roll-out as a function of frames and of which steps see the truth."""

    def loss(frames: Tensor, truth: Tensor) -> Tensor:
        if published:
            forecast = model(frames, CONTEXT, LENGTH - CONTEXT, truth[:, CONTEXT:])
        else:
            forecast = model.rollout(frames, CONTEXT, LENGTH - CONTEXT, truth).frames
        error = forecast.float() - frames[:, 1:]
        return (error.square() + error.abs()).sum((2, 3, 4)).mean()

    return loss


class Job:
    """A model with a training step and a forecast to be timed."""

    def __init__(self, line: Line, device: torch.device, size: int, layers: int = LAYERS) -> None:
        torch.manual_seed(0)
        self.published = line.way in ("released", "published")
        self.device, self.dtype = device, torch.bfloat16 if line.precision == "bf16" else None
        self.way = Way(False, False) if self.published else WAYS[line.way]
        if self.published:
            self.model: Any = PublishedForecaster(line.model, HIDDEN, 1, layers).to(device)
        else:
            self.model = fc.create_model(line.model, hidden=HIDDEN, layers=layers)
            place(self.model, device)
            apply_way(self.model, self.way._replace(captured=self.way.captured and can_capture(device)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 3e-4, fused=not self.published)
        self.batch = {"frames": torch.rand(line.batch, LENGTH, 1, size, size, device=device),
                      "truth": torch.zeros(line.batch, LENGTH - 1, dtype=torch.bool, device=device)}  # fmt: skip
        self.batch["truth"][:, :CONTEXT] = True
        self.loss: Callable[..., Tensor] = loss_of(self.model, self.published)

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def prepare(self) -> None:
        """Record the training step, where the line does."""
        if self.way.captured and can_capture(self.device):
            captured = CapturedLoss(self.model, self.loss, self.batch, self.dtype, accumulated=False)
            self.loss = lambda **batch: captured(batch)

    def train(self) -> Tensor:
        with self.autocast():
            loss = self.loss(**self.batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def forecast(self) -> None:
        past = self.batch["frames"][:, :CONTEXT]
        with torch.inference_mode(), self.autocast():
            if self.published:
                self.model(past, CONTEXT, LENGTH - CONTEXT)
            else:
                self.model(past, LENGTH - CONTEXT)


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def median_ms(run: Callable[[], object], device: torch.device) -> float:
    """Return the median of the rounds in milliseconds."""
    for _ in range(WARMUP):
        run()
    wait(device)
    took: list[float] = []
    while len(took) < FEWEST or (len(took) < ROUNDS and sum(took) < 1000 * SECONDS):
        began = time.perf_counter()
        run()
        wait(device)
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def launches(run: Callable[[], object], device: torch.device) -> int | None:
    """Return how often the host launches something in one run, or None where it launches nothing."""
    if device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        wait(device)
    return sum(event.count for event in profile.key_averages() if "Launch" in event.key)


def measure(line: Line, device: torch.device, size: int) -> dict[str, Any]:
    """Return the figures of one line."""
    torch._dynamo.reset()
    if device.type == "cuda":
        gc.collect()  # graphs lie in cycles, and would count for the next line's peak
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with rounding(line):
        job, began = Job(line, device, size), time.perf_counter()
        learns = line.batch > 1  # nobody trains with one clip
        if learns:
            job.prepare()
            job.train()
        job.forecast()
        wait(device)
        row: dict[str, Any] = {**line._asdict(), "prepared_s": time.perf_counter() - began}
        if learns:
            row["train_ms"] = median_ms(job.train, device)
            row["launches"] = launches(job.train, device)
            if device.type == "cuda":
                row["peak_MiB"] = torch.cuda.max_memory_reserved() / 2**20
        row["forecast_ms"] = median_ms(job.forecast, device)
    return row


def equality(device: torch.device, size: int, steps: int) -> dict[str, Any]:
    """Return the largest relative difference of the loss between steps as they are and recorded, in float32."""
    losses = []
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    for way in ("eager", "replay"):
        line = Line("ms-lstm", 4, way, "fp32")
        with rounding(line):
            job = Job(line, device, size, LAYERS_EQUAL)
            job.model.shares_kernels = True  # the same sums in the same order, recorded or not
            job.prepare()
            generator = torch.Generator(device).manual_seed(1)
            found = []
            for _ in range(steps):
                job.batch["frames"] = torch.rand(job.batch["frames"].shape, generator=generator, device=device)
                found.append(job.train())
            losses.append(torch.stack(found).double())
    torch.use_deterministic_algorithms(deterministic)
    difference = float(((losses[0] - losses[1]).abs() / losses[0].abs()).max())
    return {"steps": steps, "layers": LAYERS_EQUAL, "difference": difference, "holds": difference <= TOLERANCE}


def through_train(device: torch.device, size: int, steps: int) -> dict[str, Any]:
    """Return clips a second through ``framecast.train``, in its steady state, and the share spent waiting for clips."""
    with tempfile.TemporaryDirectory() as folder:
        ways = {"accelerator": "gpu", "compile": "graph", "precision": "bf16-mixed"}
        plain = {"accelerator": "cpu", "compile": "none", "precision": "32-true"}
        run = fc.train(
            "ms-lstm", "moving-mnist", out=Path(folder) / "run", batch=16, steps=steps, workers=4,
            **(ways if can_capture(device) else plain), progress=False, log_every=50,
            model_options={"hidden": HIDDEN, "layers": LAYERS}, validate_every=steps, validate_clips=16,
            data_options={"size": size, "context": CONTEXT, "horizon": LENGTH - CONTEXT, "clips": 15_000},
        )  # fmt: skip
        rows = list(csv.DictReader((run.path / "log/timing.csv").read_text().splitlines()))
    steady = rows[len(rows) // 2 :]
    pace = statistics.median(float(row["seconds_per_batch"]) for row in steady)
    waiting = statistics.median(float(row["waiting_per_batch"]) for row in steady)
    return {"clips_per_s": 16 / pace, "waiting": waiting / pace}


def page(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    columns = (
        "model",
        "batch",
        "way",
        "precision",
        "train, ms",
        "forecast, ms",
        "peak, MiB",
        "launches",
        "prepared, s",
    )
    text = [f"# Cost on {figures['card']}", "",
            f"torch {figures['torch']}, {figures['date']}: `python benchmarks/gpu.py`. A training step (forward, "
            "backward, Adam) and a forecast, medians; 6 layers of 32 channels, 64x64, 10 -> 10. `released` is the "
            "published sequence of operations without cuDNN, as it was published; `published` the same with cuDNN; "
            "`replay` is recorded and not compiled, `graph` compiled and recorded. Launches are those of the host in a "
            "training step.", "",
            f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]  # fmt: skip
    for row in sorted(
        figures["lines"], key=lambda row: (row["model"], row["batch"], row["precision"], row["forecast_ms"])
    ):
        trained, peak, count = (row.get(name) for name in ("train_ms", "peak_MiB", "launches"))
        text.append(
            f"| {row['model']} | {row['batch']} | {row['way']} | {row['precision']} | "
            f"{f'{trained:.1f}' if trained else '-'} | {row['forecast_ms']:.1f} | {f'{peak:,.0f}' if peak else '-'} | "
            f"{count if count else '-'} | {row['prepared_s']:.0f} |"
        )
    for name, reason in figures["failed"].items():
        text.append(f"\n{name}: {reason}")
    if figures["left_out"]:
        text.append(f"\nLeft out, as the minutes were over: {', '.join(figures['left_out'])}.")
    if "train" in figures:
        trained = figures["train"]
        text.append(f"\nThrough `framecast.train`, bf16, batch 16: {trained['clips_per_s']:.0f} clips/s, "
                    f"{trained['waiting']:.0%} of the time waiting for clips.")  # fmt: skip
    if "equality" in figures:
        equal = figures["equality"]
        verdict = "within" if equal["holds"] else "NOT within"
        text.append(f"\nLoss of {equal['steps']} steps of {equal['layers']} layers, as they are and recorded, float32: "
                    f"largest relative difference {equal['difference']:.1e}, {verdict} {TOLERANCE:g}.")  # fmt: skip
    text += [f"\n{note}" for note in figures.get("notes", [])]
    return "\n".join(text) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder for gpu.md, gpu.json"
    )
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    device, end = torch.device(options.device), time.monotonic() + 60 * options.minutes
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here: --device cpu --size 16 tries the script")
    options.out.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device.type == "cuda" else "a processor (a trial of the script)",
        "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"), "lines": [], "failed": {}, "left_out": [],
    }  # fmt: skip

    def keep() -> None:
        (options.out / "gpu.json").write_text(json.dumps(figures, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(figures))

    def add(name: str, work: Callable[[], Any]) -> None:
        try:
            figures[name] = work()
        except Exception as error:
            figures["failed"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        keep()

    small = options.size < 64
    parts: list[tuple[str, Callable[[], Any]]] = [
        ("equality", lambda: equality(device, options.size, 2 if small else STEPS_EQUAL)),
        ("train", lambda: through_train(device, options.size, 20 if small else STEPS_TRAINED)),
    ]
    todo = [line for line in lines() if not small or line.batch == 4]
    for number, line in enumerate(todo):
        if number == 4:  # the head of the table stands; these two come next
            for name, work in parts:
                add(name, work)
        if time.monotonic() > end:
            figures["left_out"].append(" ".join(map(str, line)))
            continue
        try:
            row = measure(line, device, options.size)
        except Exception as error:
            figures["failed"][" ".join(map(str, line))] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            figures["lines"].append(row)
            print(json.dumps(row), flush=True)
        keep()
    print(page(figures))
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
