"""All benchmarks, as Markdown and JSON: ratios measured side by side in one run, the machine and the versions.

Run: make bench, or python benchmarks/bench.py [--minutes 6] [--only speed "main job" archive cost "full maps"]
It takes hours and wants a machine that does nothing else. Each part is kept as soon as it is measured, and so are the
rows of the table of costs; a part that is measured again the same day takes the place of its former figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import full_maps
import main_job
import speed
import torch
from breakdown import PARTS as PARTS_OF_STEP
from breakdown import REST

from framecast.cost.fit import fit_text, largest_batches, read_size
from framecast.cost.table import PAPER_SHAPES, make_cost_table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
# In this order, because the memory that a process once had stays with it: evaluation is measured by its growth, costs
# need what is free on the machine, and training in this process takes most.
PARTS = ("main job", "cost", "archive", "full maps", "speed")
FIT = ("ms-lstm", (20, 1, 64, 64), 10, "4GB")


def machine(threads: int) -> dict[str, str]:
    """Return what the figures depend on."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "threads": str(threads),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("framecast", "torch", "lightning", "numpy")),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def taken_by_others() -> float:
    """Return the seconds of all processors that went to other programs so far; NaN where the system does not tell."""
    for line in _lines("/proc/stat")[:1]:
        user, nice, system, _, _, *interrupts = map(int, line.split()[1:8])
        own = os.times()
        return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK") - sum(own[:4])
    return math.nan


def measure(part: str, minutes: float, models: list[str], compiled: bool, rows: Path) -> Any:
    """Return the figures of one part; rows of the cost table are kept in a file as they come."""
    if part == "main job":
        grown = main_job.evaluation(4500)
        return {
            "memory growth while 4,500 clips are evaluated, MB (at most 1000)": grown,
            "trainer step / bare step (at most 1.10)": main_job.trainer(),
            "making clips / training on them (at most 0.05)": main_job.clips(),
        }
    if part == "cost":
        return {"fit": _fit(), "table": make_cost_table(list(PAPER_SHAPES), out=rows, progress=_tell)}
    if part == "archive":
        done = subprocess.run([sys.executable, HERE / "archive.py"], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.splitlines()
    if part == "full maps":
        return full_maps.run(torch.get_num_threads())
    return speed.run(models, minutes, compiled)


def _fit() -> str:
    name, shape, context, memory = FIT
    limit = read_size(memory)
    return fit_text(largest_batches(name, shape, context, limit, progress=_tell), limit)


def _tell(text: str) -> None:
    print(f"cost: {text}", file=sys.stderr, flush=True)


def page(kept: dict[str, Any]) -> str:
    """Return all figures of a day as one Markdown page."""
    about = "\n".join(f"- {key}: {value}" for key, value in kept["machine"].items())
    paragraphs = [f"# Benchmarks, {kept['date']}", about]
    sections = {"speed": _speed, "full maps": _full_maps, "main job": _main_job, "cost": _cost, "archive": _archive}
    for part, paragraphs_of in sections.items():
        if part in kept["figures"]:
            title, *rest = paragraphs_of(kept["figures"][part])
            others = kept["processors taken by others"].get(part)
            known = "" if others is None else f" Meanwhile other programs took {others:.2f} processors."
            paragraphs += [f"## {title}", f"Made by `{kept['commands'][part]}`.{known}", *rest]
    return "\n\n".join(paragraphs) + "\n"


def _speed(found: dict[str, Any]) -> list[str]:
    peaks = ", ".join(f"{dtype} {peak:.0f}" for dtype, peak in found["convolution peak, GFLOP/s"].items())
    step = found["training step of ms-lstm, seconds"]
    total = sum(value for part, value in step.items() if part in (*PARTS_OF_STEP, REST))
    shares = ", ".join(f"{part} {step[part] / total:.1%}" for part in (*PARTS_OF_STEP, REST))
    paragraphs = [
        "Speed beside the published sequence of operations",
        _table(found["rows"]),
        f"Convolution peak here, GFLOP/s: {peaks}. Layout that `auto` takes here: {found['default layout']}.",
        f"One training step of ms-lstm at the first shape: {shares}. Its convolutions, backward included, run at "
        f"{step['GFLOP/s of the convolutions']:.0f} GFLOP/s.",
        *(f"{name}: {value:.2f}." for name, value in found["lean"].items()),
        *found["notes"],
    ]
    if found["missed"]:
        paragraphs += ["### Seconds of what misses its target, and of the baseline", _table(found["missed"])]
    return paragraphs


def _full_maps(found: list[dict[str, Any]]) -> list[str]:
    title = f"Forecasts of full maps, {full_maps.HEIGHT}x{full_maps.WIDTH}"
    return [title, _table(found), "Memory is what the process held at most, the model apart."]


def _main_job(found: dict[str, float]) -> list[str]:
    lines = "\n".join(f"- {name}: {value:.4g}" for name, value in found.items())
    return ["Trainer, clips, evaluation", lines]


def _archive(found: list[str]) -> list[str]:
    return ["Archives", "```\n" + "\n".join(found) + "\n```"]


def _cost(found: dict[str, str]) -> list[str]:
    name, shape, _, memory = FIT
    fits = f"What fits into {memory}, {name} at {' x '.join(map(str, shape))}:"
    return ["What a training step costs", found["table"], fits, f"```\n{found['fit']}\n```"]


def _table(rows: list[dict[str, Any]]) -> str:
    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.2f}"
        return "" if value is None else str(value)

    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([text(row[head]) for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure, print, and write the page and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=6, help="of each comparison of speed")
    parser.add_argument("--models", nargs="+", default=list(speed.VECTORS), choices=list(speed.VECTORS))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled ways out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.out == RESULTS and (given.no_compile or set(given.models) != set(speed.VECTORS)):
        parser.error("fewer models or ways would take the place of all: name another folder with --out")
    torch.set_num_threads(given.threads)
    date, about = datetime.now(UTC).date().isoformat(), machine(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"{date}-{torch.backends.cpu.get_cpu_capability().lower()}"
    target = given.out / f"{name}.json"
    kept = json.loads(target.read_text()) if target.exists() else {}
    if kept.get("machine") != about:
        kept = {"date": date, "machine": about, "commands": {}, "processors taken by others": {}, "figures": {}}
    place = ("--out", str(given.out), f"--out={given.out}")
    options = [word for word in sys.argv[1:] if word not in place]
    command = shlex.join(["python", "benchmarks/bench.py", *options]) if options else "make bench"
    for part in PARTS:
        if part in given.only:
            rows = given.out / f"{name}-cost.csv"
            before = time.monotonic(), taken_by_others()
            kept["figures"][part] = measure(part, given.minutes, given.models, not given.no_compile, rows)
            elapsed, others = time.monotonic() - before[0], taken_by_others() - before[1]
            kept["commands"][part] = command
            kept["processors taken by others"][part] = None if math.isnan(others) else others / elapsed
            target.write_text(json.dumps(kept, indent=1) + "\n")
            target.with_suffix(".md").write_text(page(kept))
    print(page(kept))


if __name__ == "__main__":
    main()
