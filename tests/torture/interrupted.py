"""What killed conversions and evaluations leave behind, whole or with flipped bits, shows nothing that was not so."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.conversion import START, converted, expected, raw, values_of
from samples.radar import knmi_folder

import framecast as fc
from framecast import files as storage
from framecast.data import convert as converting
from framecast.errors import DataError
from framecast.files import LEFTOVERS
from framecast.reporting.results import read_examples, read_results
from torture.faults import small_run
from torture.flips import flip
from torture.promise import Figure, Promise

QUICK: dict[str, Any] = {"bootstrap": 0, "examples": 3, "progress": False}
PIECES = ("examples.npz", "results.csv", "results.json")


def interrupted_conversion(folder: Path, values: Any) -> Path:
    """Convert frames, break off after the first piece of work, and return what is left of it."""
    knmi_folder(folder / "in", values, START)
    original, work = converting.write_work, []

    def stop(piece: Any) -> Any:
        if work:
            raise KeyboardInterrupt
        work.append(piece)
        return original(piece)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(converting, "write_work", stop)
        with contextlib.suppress(KeyboardInterrupt):
            converted(folder / "in", folder / "out.zarr")
    return (folder / "out.zarr.part").rename(folder / "kept")


def markers(folder: Path, times: int) -> Figure:
    """Flip a bit in a marker of an interrupted conversion, go on, and compare every frame and time stamp."""
    values, rng = raw(36), np.random.default_rng(5)
    kept, target, broken = interrupted_conversion(folder, values), folder / "out.zarr", []
    found = [path for path in sorted(kept.glob("*/*.json")) if path.parent.suffix != ".zarr"]
    assert {path.parent.name for path in found} == {"index", "written"}
    for trial in range(times):
        shutil.copytree(kept, folder / "out.zarr.part")
        marker = folder / "out.zarr.part" / found[int(rng.integers(len(found)))].relative_to(kept)
        content = bytearray(marker.read_bytes())
        flip(content, rng)
        marker.write_bytes(content)
        wrong = []
        try:
            report, stored = converted(folder / "in", target), values_of(target)
            wrong += [f"{report.frames} frames"] if report.frames != len(values) else []
            wrong += [f"unreadable: {report.unreadable}"] if report.unreadable else []
            if not np.allclose(stored["rainfall_rate"].values, expected(values), atol=1e-6, equal_nan=True):
                wrong.append("other values")
            if not (np.diff(stored["time"].values) == np.timedelta64(300, "s")).all():
                wrong.append("other times")
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
        broken += [f"trial {trial}, {marker.name}: {wrong}"] if wrong else []
        for left in (target, folder / "out.zarr.part"):
            shutil.rmtree(left, ignore_errors=True)
    return Figure(times - len(broken), times, "indices and what is written", tuple(broken))


def results(folder: Path, times: int) -> Figure:
    """Flip a bit in results.json or in the pictures beside it: an error, or what was there before."""
    rng, run = np.random.default_rng(6), small_run(folder / "run").path
    fc.evaluate(run, limit=3, **QUICK)
    scores, pictures = read_results(run), read_examples(run)
    broken, refused = [], 0
    for trial in range(times):
        path = run / ("results.json" if trial % 3 else "examples.npz")
        whole = path.read_bytes()
        content = bytearray(whole)
        flip(content, rng)
        path.write_bytes(content)
        try:
            same = read_results(run) == scores and all(
                np.array_equal(pictures[name], array, equal_nan=array.dtype.kind == "f")
                for name, array in read_examples(run).items()
            )
            broken += [] if same else [f"trial {trial}: {path.name} shows something else"]
        except DataError as error:
            refused += 1
            broken += [] if str(path) in str(error) else [f"trial {trial}: the file is not named: {error}"]
        except Exception as error:
            broken.append(f"trial {trial}: {type(error).__name__}: {error}")
        path.write_bytes(whole)
    return Figure(times - len(broken), times, f"{refused} refused", tuple(broken))


def killed_evaluation(folder: Path, times: int) -> Figure:
    """SIGKILL an evaluation before or after it has renamed each of its files; a report must never mix two."""
    run, broken, refused = small_run(folder / "run").path, [], 0
    sets: dict[int, dict[str, bytes]] = {}
    for clips in (2, 3):
        fc.evaluate(run, limit=clips, **QUICK)
        sets[clips] = {name: (run / name).read_bytes() for name in PIECES}
    for trial in range(times):
        for name, content in sets[2].items():
            (run / name).write_bytes(content)
        child = os.fork()
        if not child:
            _killed_at(trial % len(PIECES), after=trial // len(PIECES) % 2 == 1)
            fc.evaluate(run, limit=3, **QUICK)
            os._exit(0)
        wrong = [] if os.WIFSIGNALED(os.waitpid(child, 0)[1]) else ["it was not killed"]
        try:
            shown = {"examples.npz": read_examples(run), "results.json": read_results(run)}
            count = shown["results.json"]["clips"]
            if (run / "examples.npz").read_bytes() != sets[count]["examples.npz"]:
                wrong.append("pictures of another evaluation are shown")
            fc.report(run, out=folder / "page.html", overwrite=True, figures=False)
        except DataError as error:
            refused += 1
            wrong += [] if "evaluate again" in str(error) else [str(error)]
        # The next evaluation is another process, which looks for leftovers.
        storage._checked_folders.clear()
        fc.evaluate(run, limit=3, **QUICK)
        wrong += [] if read_results(run)["clips"] == 3 and read_examples(run) else ["not evaluated again"]
        wrong += [f"left over: {path.name}" for path in run.rglob(LEFTOVERS)]
        broken += [f"trial {trial}: {wrong}"] if wrong else []
    return Figure(times - len(broken), times, f"{refused} say to evaluate again", tuple(broken))


def _killed_at(file: int, *, after: bool) -> None:
    """Let this process be killed before or after the rename of that one of the files."""
    replace, seen = storage.Path.replace, []

    def killing(self: Path, target: Path) -> Path:
        seen.append(target)
        if len(seen) > file and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = replace(self, target)
        if len(seen) > file:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    storage.Path.replace = killing  # type: ignore[method-assign]


PROMISES = [
    Promise("D6", "A conversion that was killed goes on to the same frames and times, whatever bit of its markers has "
            "flipped", markers, long=150, short=8),
    Promise("R11", "A flipped bit in results.json or examples.npz is an error that names the file, or changes nothing",
            results, long=300, short=60),
    Promise("R11", "An evaluation SIGKILLed between its files is never shown as a mixture of two",
            killed_evaluation, long=40, short=3),
]  # fmt: skip
