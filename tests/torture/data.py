"""Damaged files of every format we read: a documented error that names the file, or data; and nothing else."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

from samples.formats import FORMATS
from samples.mutations import Outcomes, mutate, run_apart

from torture.promise import Figure, Promise


def damage(name: str, folder: Path, count: int, seed: int = 0) -> Outcomes:
    """Damage a file of a format so many times, one of the files of a Zarr each time, and read it."""
    kind = FORMATS[name]
    made = kind.make(folder)
    files = sorted(path for path in made.rglob("*") if path.is_file()) if made.is_dir() else [made]
    whole = {file: file.read_bytes() for file in files}
    expected = kind.read(made)

    def read(number: int) -> object:
        for file, content in whole.items():
            file.write_bytes(content)
        chosen = random.Random(f"{seed} {number} file").choice(files)
        chosen.write_bytes(mutate(whole[chosen], number, seed))
        # Of the same size and date as another damage, it would find an index or a video in the cache.
        os.utime(chosen, ns=(number + 1, number + 1))
        return kind.read(made)

    result = run_apart(read, count, expected, made)
    if kind.checksum and result.outcomes["changed"]:
        result.wrong.append(f"{result.outcomes['changed']} silent changes in spite of a checksum")
    return result


def damaged_files(name: str, folder: Path, times: int) -> Figure:
    """Check a format."""
    result = damage(name, folder, times)
    seen = [f"{result.outcomes[what]} {what}" for what in ("refused", "same", "changed")]
    kept = "has a checksum: never another value" if FORMATS[name].checksum else "no checksum of all: values may change"
    note = f"{', '.join(seen)}; {kept}"
    return Figure(times - min(times, len(result.wrong)), times, note, tuple(result.wrong))


PROMISES = [
    Promise(
        "D1",
        f"damaged {name}: our error with path and reason, or data; never a hang, crash or other error",
        partial(damaged_files, name),
        200,
        10,
    )
    for name in FORMATS
]
