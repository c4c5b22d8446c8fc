"""Run the promises and print one table: ``make torture``, or ``PYTHONPATH=tests python -m torture R3 R4 --short``.

After a mend, ``--out TABLE`` with names makes those rows of the day's table anew.
"""

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


def kept_rows(table: Path) -> dict[tuple[str, str], str]:
    """Return the rows of a table of this day and these versions, by the name and sentence of their promises.

    Raises:
        ValueError: it is another day's or other versions'.
    """
    lines = table.read_text().splitlines()
    above = heading()
    if lines[: len(above)] != above:
        raise ValueError(f"{table} is of another day or other versions: make the whole table anew")
    return {(cells[1].strip(), cells[2].strip()): line for line in lines[len(above) :] if (cells := line.split("|"))}


def main() -> int:
    """Run what was asked for; the exit code is 1 if any promise broke."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("names", nargs="*", help="of promises, e.g. R1 R2; none means all")
    parser.add_argument("--short", action="store_true", help="as few times as make test does")
    parser.add_argument("--times", type=int, help="how many times, instead")
    parser.add_argument("--out", type=Path, help="write the table to this file too; named rows change in that of today")
    options = parser.parse_args()
    if options.out and (options.short or options.times):
        parser.error("--out is for the long forms: leave out --short and --times")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = kept_rows(options.out) if options.out and options.names else {}
    broken = 0
    print("\n".join(heading()), flush=True)
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
        made = rows[promise.name, promise.sentence] = row(promise, figure, time.monotonic() - began)
        print(made, flush=True)
        for line in figure.broken:
            print(f"    {promise.name} broken: {line}", file=sys.stderr, flush=True)
        broken += figure.held < figure.tried
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            known = [rows[key] for each in all_promises() if (key := (each.name, each.sentence)) in rows]
            options.out.write_text("\n".join([*heading(), *known]) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
