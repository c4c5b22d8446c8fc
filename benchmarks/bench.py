"""All benchmarks, as Markdown and JSON: ratios measured side by side in one run, the machine and the versions.

Run: make bench, or python benchmarks/bench.py [--rounds 3] [--only speed main_job archive cost]
It takes hours, above all for the table of costs, whose rows are kept as they come, and wants a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import main_job
import speed
import torch
from breakdown import PARTS as PARTS_OF_STEP
from breakdown import REST

from framecast.analysis.cost_table import PAPER_SHAPES, make_cost_table
from framecast.analysis.fitting_memory import fit_text, largest_batches, read_size

HERE = Path(__file__).parent
PARTS = ("speed", "main_job", "archive", "cost")
FIT = ("ms-lstm", (20, 1, 64, 64), 10, "4GB")


def machine(threads: int) -> dict[str, str]:
    """Return what the figures depend on."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "threads": str(threads),
        "load before": f"{busy:.2f}",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("framecast", "torch", "lightning", "numpy")),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def measure_all(parts: list[str], rounds: int, models: list[str], compiled: bool, rows: Path) -> dict[str, Any]:
    """Run the chosen parts and return their figures; rows of the cost table are kept in a file as they come."""
    figures: dict[str, Any] = {}
    if "main_job" in parts:
        # First, because a process's peak of memory never falls again and training has a higher one.
        grown = main_job.evaluation(4500)
        figures["main job"] = {
            "memory growth while 4,500 clips are evaluated, MB (at most 1000)": grown,
            "trainer step / bare step (at most 1.10)": main_job.trainer(),
            "making clips / training on them (at most 0.05)": main_job.clips(),
        }
    if "speed" in parts:
        figures["speed"] = speed.run(models, rounds, compiled)
    if "archive" in parts:
        done = subprocess.run([sys.executable, HERE / "archive.py"], stdout=subprocess.PIPE, text=True, check=True)
        figures["archive"] = done.stdout.splitlines()
    if "cost" in parts:
        figures["cost"] = {"fit": _fit(), "table": make_cost_table(list(PAPER_SHAPES), out=rows, tell=_tell)}
    return figures


def _fit() -> str:
    name, shape, context, memory = FIT
    limit = read_size(memory)
    return fit_text(largest_batches(name, shape, context, limit, tell=_tell), limit)


def _tell(text: str) -> None:
    print(f"cost: {text}", file=sys.stderr, flush=True)


def markdown(date: str, about: dict[str, str], figures: dict[str, Any]) -> str:
    """Return all figures as one Markdown page."""
    parts = [f"# Benchmarks, {date}", "Made by `make bench`."]
    parts.append("\n".join(f"- {key}: {value}" for key, value in about.items()))
    if "speed" in figures:
        found = figures["speed"]
        peaks = ", ".join(f"{dtype} {peak:.0f}" for dtype, peak in found["convolution peak, GFLOP/s"].items())
        step = found["training step of ms-lstm, seconds"]
        total = sum(value for part, value in step.items() if part in (*PARTS_OF_STEP, REST))
        shares = ", ".join(f"{part} {step[part] / total:.1%}" for part in (*PARTS_OF_STEP, REST))
        parts += [
            "## Speed beside the published sequence of operations",
            _table(found["rows"]),
            f"Convolution peak here, GFLOP/s: {peaks}. Layout that `auto` takes here: {found['default layout']}.",
            f"One training step of ms-lstm at the first shape: {shares}. Its convolutions, backward included, run at "
            f"{step['GFLOP/s of the convolutions']:.0f} GFLOP/s.",
            *(f"{name}: {value:.2f}." for name, value in found["lean"].items()),
            *found["notes"],
        ]
        if found["missed"]:
            parts += ["### Seconds of what misses its target, and of the baseline", _table(found["missed"])]
    if "main job" in figures:
        parts += ["## Trainer, clips, evaluation", _list(figures["main job"])]
    if "archive" in figures:
        parts += ["## Archives", "```\n" + "\n".join(figures["archive"]) + "\n```"]
    if "cost" in figures:
        name, shape, _, memory = FIT
        parts += ["## What a training step costs", figures["cost"]["table"]]
        fits = f"What fits into {memory}, {name} at {' x '.join(map(str, shape))}:"
        parts += [fits, f"```\n{figures['cost']['fit']}\n```"]
    return "\n\n".join(parts) + "\n"


def _table(rows: list[dict[str, Any]]) -> str:
    def text(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.2f}"
        return "" if value is None else str(value)

    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([text(row[head]) for head in heads] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(figures: dict[str, float]) -> str:
    return "\n".join(f"- {name}: {value:.4g}" for name, value in figures.items())


def main() -> None:
    """Measure, print, and write the page and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(speed.VECTORS), choices=list(speed.VECTORS))
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled ways out")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    date, about = datetime.now(UTC).date().isoformat(), machine(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    rows = given.out / f"{date}-cost.csv"
    figures = measure_all(given.only, given.rounds, given.models, not given.no_compile, rows)
    page = markdown(date, about, figures)
    # A part of the benchmarks never takes the place of the whole.
    name = "-".join([date, *([] if set(given.only) == set(PARTS) else given.only)])
    (given.out / f"{name}.md").write_text(page)
    numbers = {"date": date, "machine": about, "figures": figures}
    (given.out / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(page)


if __name__ == "__main__":
    main()
