"""Run the promises and print one table: ``make torture``, or ``PYTHONPATH=tests python -m torture R3 R4 --short``."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path

from torture.promise import Figure, Promise, all_promises

LIBRARIES = ("torch", "lightning", "numpy", "safetensors", "h5py")


def row(promise: Promise, figure: Figure, seconds: float) -> str:
    """Return a row of the table."""
    cells = (promise.name, promise.sentence, f"{figure.held} of {figure.tried}", figure.note, f"{seconds:.0f}")
    return "| " + " | ".join(cells) + " |"


def heading() -> list[str]:
    """Return what stands above the rows: the date, the machine, the versions."""
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        "# What was promised, and how often it held",
        "",
        f"Written by `make torture` on {datetime.date.today()}: Python {platform.python_version()}, {versions}, "
        f"{os.cpu_count()} processors, {platform.system()}. `docs/reliability.md` says what the promises mean.",
        "",
        "| | promise | held | seen besides | seconds |",
        "|---|---|---|---|---|",
    ]


def main() -> int:
    """Run what was asked for; the exit code is 1 if any promise broke."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("names", nargs="*", help="of promises, e.g. R1 R2; none means all")
    parser.add_argument("--short", action="store_true", help="as few times as make test does")
    parser.add_argument("--times", type=int, help="how many times, instead")
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    if options.out and (options.names or options.short):
        parser.error("--out is for the whole table: leave out the names and --short")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    lines, broken = heading(), 0
    print("\n".join(lines), flush=True)
    for promise in all_promises():
        times = options.times or (promise.short if options.short else promise.long)
        if (options.names and promise.name not in options.names) or not times:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="framecast-torture-") as folder:
            try:
                figure = promise.check(Path(folder), times)
            except Exception as error:
                traceback.print_exc()
                figure = Figure(0, times, f"the check ended with {type(error).__name__}")
        lines.append(row(promise, figure, time.monotonic() - began))
        print(lines[-1], flush=True)
        for line in figure.broken:
            print(f"    {promise.name} broken: {line}", file=sys.stderr, flush=True)
        broken += figure.held < figure.tried
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text("\n".join(lines) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
