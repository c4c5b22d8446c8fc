"""All benchmarks, as Markdown and JSON: ratios measured side by side in one run, the machine and the versions.

Run: make bench, or python benchmarks/bench.py [--rounds 3] [--only speed main_job archive] [--out benchmarks/results]
It takes about half an hour on two cores and wants a machine that does nothing else.
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

HERE = Path(__file__).parent
PARTS = ("speed", "main_job", "archive")


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


def measure_all(parts: list[str], rounds: int, models: list[str], compiled: bool) -> dict[str, Any]:
    """Run the chosen parts and return their figures."""
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
    return figures


def markdown(date: str, about: dict[str, str], figures: dict[str, Any]) -> str:
    """Return all figures as one Markdown page."""
    parts = [f"# Benchmarks, {date}", "Made by `make bench`."]
    parts.append("\n".join(f"- {key}: {value}" for key, value in about.items()))
    if "speed" in figures:
        found = figures["speed"]
        peaks = ", ".join(f"{dtype} {peak:.0f}" for dtype, peak in found["convolution peak, GFLOP/s"].items())
        shares = ", ".join(f"{part} {share:.1%}" for part, share in found["training step of ms-lstm, shares"].items())
        parts += [
            "## Speed beside the published sequence of operations",
            _table(found["rows"]),
            f"Convolution peak here, GFLOP/s: {peaks}. Layout that `auto` takes here: {found['default layout']}.",
            f"One training step of ms-lstm at the first shape: {shares}. Its convolutions, backward included, run at "
            f"{found['convolutions within it, GFLOP/s']:.0f} GFLOP/s.",
            *(f"{name}: {value:.2f}." for name, value in found["lean"].items()),
            *found["notes"],
        ]
    if "main job" in figures:
        parts += ["## Trainer, clips, evaluation", _list(figures["main job"])]
    if "archive" in figures:
        parts += ["## Archives", "```\n" + "\n".join(figures["archive"]) + "\n```"]
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
    figures = measure_all(given.only, given.rounds, given.models, not given.no_compile)
    page = markdown(date, about, figures)
    given.out.mkdir(parents=True, exist_ok=True)
    # A part of the benchmarks never takes the place of the whole.
    name = "-".join([date, *([] if set(given.only) == set(PARTS) else given.only)])
    (given.out / f"{name}.md").write_text(page)
    numbers = {"date": date, "machine": about, "figures": figures}
    (given.out / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(page)


if __name__ == "__main__":
    main()
