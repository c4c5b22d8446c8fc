"""Convert radar files, archives of them, or any readable frames into one time-chunked Zarr.

There are two passes, each over pieces of work in parallel (dask, extra ``geo``). The first reads every frame for its
time, size, unit and range, so that the second knows where each frame belongs and writes it there, sorted by time. Every
finished piece leaves a marker beside the archive: a second start goes on where the first one stopped. The archive gets
its name when it is complete. Files that cannot be read are listed, and so are duplicate time stamps.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from framecast import __version__
from framecast.data.archives import Work, find_work, frames_of
from framecast.data.catalogue import open_parts
from framecast.data.formats.arrays import SEAL, is_zarr, metadata_digest
from framecast.data.formats.netcdf import open_cf
from framecast.data.formats.times import step_statistics
from framecast.data.georeference import Georeference, georeference_from_dict
from framecast.data.packing import Packing, Values
from framecast.data.sources import Frame, ReadOptions
from framecast.data.units import unit_facts
from framecast.data.zarr_writer import FILL, ArchiveWriter, ConversionPlan, create_archive, import_zarr, packing_for
from framecast.errors import DataError, MissingExtraError, WorkerLostError, check_count
from framecast.files import check_place, read_sealed, sealed_json, write_atomically
from framecast.untrusted import reading

BULK = (0.02, 0.98)
"""Between which of its quantiles the bulk of a frame's values lies."""
FEW_STEPS = 20
"""Steps of storage that the bulk of the values has to span at least."""


WorkFacts = dict[str, Any]


def run_pieces(
    title: str,
    task: Callable[[Any], WorkFacts],
    pieces: Sequence[Any],
    folder: Path,
    *,
    workers: int,
    progress: bool,
) -> dict[str, WorkFacts]:
    """Do every piece that has no marker yet, in parallel, and return what all markers say, by the piece's key.

    Args:
        title: what the progress bar says.
        task: turns a piece into facts that JSON can hold.
        pieces: each a ``Work``, or a tuple that begins with one.
        folder: where the markers stand.
        workers: processes.
        progress: show a progress bar.

    Raises:
        MissingExtraError: dask is not installed.
        RuntimeError: a worker process died.
    """
    try:
        dask: Any = importlib.import_module("dask")
        callback = importlib.import_module("dask.callbacks").Callback
    except ImportError as error:
        raise MissingExtraError("dask", "geo", "framecast data convert") from error
    folder.mkdir(parents=True, exist_ok=True)
    markers = {_work_of(piece).key: folder / f"{_work_of(piece).key}.json" for piece in pieces}
    open_pieces = [piece for piece in pieces if _marker_facts(markers[_work_of(piece).key]) is None]
    # A partial hides the arguments from dask, which would search them for tasks of its own.
    tasks = [
        dask.delayed(partial(_do, task, piece, markers[_work_of(piece).key]), traverse=False)() for piece in open_pieces
    ]
    scheduler = "synchronous" if workers == 1 or len(tasks) == 1 else "processes"
    try:
        with (
            tqdm(total=len(pieces), initial=len(pieces) - len(tasks), desc=title, disable=not progress) as bar,
            callback(posttask=lambda *_: bar.update()),
        ):
            dask.compute(*tasks, scheduler=scheduler, num_workers=workers)
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process died: in a script of your own, call convert below if __name__ == '__main__', or "
            "with workers=1; if memory ran out, take fewer workers. What is done is kept"
        ) from error
    with reading(folder, "holds what cannot be read of an earlier conversion", "delete it"):
        return {key: read_sealed(marker) for key, marker in markers.items()}


def _marker_facts(marker: Path) -> WorkFacts | None:
    """Return what the marker of a finished piece says, or None where there is none that is whole."""
    try:
        return read_sealed(marker)
    except (OSError, ValueError):
        return None


def _work_of(piece: Any) -> Work:
    work: Work = piece if isinstance(piece, Work) else piece[0]
    return work


def _do(task: Callable[[Any], WorkFacts], piece: Any, marker: Path) -> None:
    write_atomically(marker, sealed_json(task(piece)))


SHOWN = 20
REPLACED = "replaced.zarr"
KEPT = "framecast_conversion"
"""The attribute that says what an archive was made of."""


@dataclass
class ConversionReport:
    """What a conversion did.

    Attributes:
        path: the archive.
        frames: frames it holds.
        written: pieces of work that this start wrote; the others were there already.
        unreadable: what could not be read, and why.
        doubled: frames left out because another one has their time.
        cut: values beyond what 16 bits hold at this scale, cut to the limit.
        step: the smallest difference between two stored values, in the unit.
        unit: of the values.
    """

    path: Path
    frames: int
    written: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    cut: int = 0
    step: float = 0.0
    unit: str = "1"

    def text(self) -> str:
        """Say all of it."""
        lines = [f"{self.path}: {self.frames} frames, stored in steps of {self.step:g} {self.unit}"]
        for title, entries in (
            ("not readable", [f"{label}: {problem}" for label, problem in self.unreadable]),
            ("left out, another frame has their time", self.doubled),
        ):
            if entries:
                more = [f"  and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
                lines += [f"{len(entries)} {title}:", *(f"  {line}" for line in entries[:SHOWN]), *more]
        return "\n".join([*lines, *([f"{self.cut} values were cut at the limit of 16 bits"] if self.cut else [])])


def convert(
    source: str | Path,
    target: str | Path,
    *,
    workers: int = 2,
    progress: bool = True,
    scale_factor: float | None = None,
    add_offset: float = 0.0,
    variable: str | None = None,
    time: str | None = None,
    axes: str | None = None,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    nodata: float | None = None,
    unit: str | None = None,
    product: str | None = None,
    append: bool = False,
) -> ConversionReport:
    """Convert radar files, archives of them, or frames of your own into one Zarr.

    Args:
        source: a folder or archive (.tar, .tar.gz, .tar.bz2) of radar files in a format of
            ``framecast.registry.FORMATS``; or anything that ``framecast.data`` reads by its path.
        target: the Zarr to make; ``<target>.part`` beside it holds what is done so far.
        workers: processes; in a script of your own, call this below ``if __name__ == "__main__"``, or take 1.
        progress: show a progress bar.
        scale_factor: physical units of one stored unit; None takes 0.01 for rain and reflectivity, 1/255 for
            pixels, and the finest that holds all values for others.
        add_offset: physical value of a stored zero, with ``scale_factor``.
        variable: name of the array, in a file of several.
        time: name of the time axis or array; "none" leaves time stamps out.
        axes: the axes of an array without names, by letters.
        channels: 1 turns pictures and videos to grey, 3 to colour.
        size: height and width to which pictures and videos are resized.
        nodata: a stored number that means no data.
        unit: unit of the values, instead of the one the file gives.
        product: which of several products in a folder, such as "RATE".
        append: add the frames to the target, which is there already, of the same grid, product, unit and step; of two
            frames of one time the target's is kept. The target is replaced when the new one is complete.

    Returns:
        What was done, and what could not be.

    Raises:
        DatasetNotFoundError: there is nothing at the path.
        DataError: nothing can be read, the target was made of other files, or what is to be added does not fit it.
        MissingExtraError: dask, zarr or a reader's package is not installed.
        OutputPlaceError: nothing can be written there.
    """
    check_count("workers", workers)
    read_options = ReadOptions(
        variable=variable, time=time, axes=axes, channels=channels, size=size, nodata=nodata, unit=unit, product=product
    )
    source, target = Path(source), Path(target)
    check_place(target)
    part = target.with_name(f"{target.name}.part")
    _restore(target, part)
    works = find_work(source, read_options)
    made_of = _digest([*(work.key for work in works), scale_factor, add_offset])
    if append:
        if _kept(target).get("added") == made_of:
            return _done_before(target, _kept(target)["made_of"])
        before_it = open_cf(target, ReadOptions())
        if scale_factor is not None or before_it.times is None:
            raise DataError(f"{target}: only frames with times are appended, at the scale that is there")
        scale_factor, add_offset = before_it.packing.scale, before_it.packing.offset
        before_it.close()
        works = [*find_work(target, ReadOptions()), *works]
        made_of, added = _digest([*(work.key for work in works), scale_factor, add_offset]), made_of
    elif target.exists():
        return _done_before(target, made_of)
    else:
        added = ""
    run = partial(run_pieces, workers=workers, progress=progress)
    indexed = run("read", index_work, works, part / "index")
    if append:
        _check_appended(works, indexed, target)
    slots, report = _slots(works, indexed, target)
    plan = _plan(works, indexed, slots, scale_factor, add_offset)
    chosen = _digest([slots, repr(plan.packing), plan.shape, plan.unit])
    state = part / "plan"
    if not state.is_file() or state.read_text() != chosen:
        for old in (part / "archive.zarr", part / "written"):
            shutil.rmtree(old, ignore_errors=True)
        create_archive(part / "archive.zarr", plan)
        write_atomically(state, chosen.encode())
    light = replace(plan, times=None)  # what a task does not need is not sent to it
    pieces = [(work, slots[work.key], part / "archive.zarr", light) for work in works if slots[work.key]]
    before = sum(_marker_facts(marker) is not None for marker in (part / "written").glob("*.json"))
    batches_written = run("write", write_work, pieces, part / "written")
    report.written, report.step, report.unit = len(pieces) - before, plan.packing.scale, plan.unit
    for facts in batches_written.values():
        report.cut += facts["cut"]
        report.unreadable += [(label, problem) for label, problem in facts["problems"]]
    summary = {"made_of": made_of, "added": added, "frames": report.frames,
               "unreadable": report.unreadable, "doubled": report.doubled,
            "cut": report.cut, "step": report.step, "unit": report.unit}  # fmt: skip
    seal = {SEAL: metadata_digest(part / "archive.zarr")}
    import_zarr().open_group(part / "archive.zarr", mode="r+").attrs.update({KEPT: summary, **seal})
    if target.exists():
        target.replace(part / REPLACED)
    (part / "archive.zarr").replace(target)
    shutil.rmtree(part)
    return report


def _restore(target: Path, part: Path) -> None:
    """Put an archive back that was about to be replaced when the process was killed."""
    if not target.exists() and (part / REPLACED).exists():
        (part / REPLACED).replace(target)


def _kept(target: Path) -> WorkFacts:
    """Return what an archive says of its conversion.

    Raises:
        DataError: there is no archive, or it was not made here.
    """
    if not is_zarr(target):
        raise DataError(f"{target} is no archive to append to: make it first, without append")
    with reading(target):
        summary: WorkFacts = import_zarr().open_group(target, mode="r").attrs.asdict().get(KEPT, {})
    if not summary:
        raise DataError(f"{target} was not made by framecast data convert, so nothing is appended to it")
    return summary


def _check_appended(works: Sequence[Work], indexed: Mapping[str, WorkFacts], target: Path) -> None:
    """Refuse to append frames at another step in time than those of the archive, or of another kind or place.

    Raises:
        DataError: they differ.
    """
    own = {work.key for work in works if work.files[0] == target}
    _, _, shape, kind = next(facts["frames"][0] for key, facts in indexed.items() if key in own)
    for key, facts in indexed.items():
        for label, _, *found in facts["frames"]:
            misfit = _misfit((tuple(found[0]), found[1]), (tuple(shape), kind)) if found != [shape, kind] else ""
            if misfit and key not in own:
                raise DataError(f"{label} does not fit {target}: {misfit.replace('most', 'its frames')}")
    times = [
        np.unique([time for key, facts in indexed.items() if (key in own) is there for _, time, *_ in facts["frames"]])
        for there in (True, False)
    ]
    steps = [step_statistics(stamps.astype(np.int64)).interval for stamps in times]
    if None not in steps and steps[0] != steps[1]:
        raise DataError(
            f"{target} has steps of {steps[0]} s and what is to be appended {steps[1]} s: convert it by itself"
        )


def _done_before(target: Path, made_of: str) -> ConversionReport:
    """Return the report of an archive that is there, if it was made of the same files."""
    facts: WorkFacts = {}
    with reading(target, "is there and cannot be read", "choose another name, or delete it first"):
        if is_zarr(target):
            facts = dict(import_zarr().open_group(target, mode="r").attrs.get(KEPT, {}))
        if facts.get("made_of") != made_of:
            raise DataError(
                f"{target} exists and was not made from these files: choose another name, or delete it first"
            )
        unreadable = [(label, problem) for label, problem in facts["unreadable"]]
        return ConversionReport(
            target, facts["frames"], 0, unreadable, facts["doubled"], facts["cut"], facts["step"], facts["unit"]
        )


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def index_work(work: Work) -> WorkFacts:
    """Read a piece of work for what the plan needs: of each frame label, time, size and kind; the values' range."""
    frames, problems, bulks = [], [], list[list[float]]()
    low, high = np.inf, -np.inf
    for item in frames_of(work):
        if item.frame is None:
            problems.append((item.label, item.problem))
            continue
        finite = item.frame.values[np.isfinite(item.frame.values)]
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            bulks.append(np.quantile(finite, BULK).tolist())
        frames.append((item.label, item.frame.header.time, list(item.frame.values.shape), item.frame.header.kind))
    limits = [low, high] if low <= high else None
    bulk = np.median(bulks, 0).tolist() if bulks else None
    return {"frames": frames, "problems": problems, "limits": limits, "bulk": bulk}


def write_work(piece: tuple[Work, Mapping[str, int], Path, ConversionPlan]) -> WorkFacts:
    """Write the frames of a piece of work to their places; what cannot be read any more is told, and has no data."""
    work, slots, path, plan = piece
    writer, cut, problems, missing = ArchiveWriter(path, plan), 0, [], dict(slots)
    for item in frames_of(work):
        if missing.pop(item.label, None) is None:
            continue
        if item.frame is None:
            problems.append((item.label, item.problem))
        else:
            cut += writer.write(slots[item.label], _in_place(item.frame, plan.georeference))
    problems += [(label, "it was there when it was first read, and is gone") for label in missing]
    return {"cut": cut, "problems": problems}


def _in_place(frame: Frame, expected: Georeference | None) -> Values:
    """Return the values of a frame with the rows in the order of the archive."""
    place = frame.header.georeference
    turned = place and expected and place.differs(expected) and not place.turned().differs(expected)
    return frame.values[:, ::-1] if turned else frame.values


def _slots(
    works: Sequence[Work], indexed: Mapping[str, WorkFacts], target: Path
) -> tuple[dict[str, dict[str, int]], ConversionReport]:
    """Sort all frames by time and give each a place, one a time; those of another size, unit or place are left out.

    Of two frames of one time the one of the earlier work is kept, and of frames of several products none.
    """
    report = ConversionReport(target, 0)
    records = [(time, number, label, work.key, tuple(shape), kind) for number, work in enumerate(works)
             for label, time, shape, kind in indexed[work.key]["frames"]]  # fmt: skip
    report.unreadable = [(label, problem) for work in works for label, problem in indexed[work.key]["problems"]]
    if not records:
        first = "; ".join(f"{label}: {problem}" for label, problem in report.unreadable[:3]) or "no file has a reader"
        raise DataError(f"{works[0].files[0]}: there is nothing to convert: {first}")
    usual = Counter((shape, kind) for *_, shape, kind in records).most_common(1)[0][0]
    _check_one_product(records)
    misfits = {key: _misfit(key, usual) for key in {(shape, kind) for *_, shape, kind in records}}
    slots: dict[str, dict[str, int]] = {work.key: {} for work in works}
    last: int | None = None
    for time, _, label, key, shape, kind in sorted(records, key=lambda entry: entry[:3]):
        if misfits[shape, kind]:
            report.unreadable.append((label, misfits[shape, kind]))
        elif time == last:
            report.doubled.append(label)
        else:
            slots[key][label] = report.frames
            report.frames += 1
            last = time
    return slots, report


def _check_one_product(records: Sequence[tuple[Any, ...]]) -> None:
    """Refuse frames of several products, which one archive would mix.

    Raises:
        DataError: there are several; the message names one frame of each.
    """
    examples: dict[str, str] = {}
    for _, _, label, _, _, kind in records:
        examples.setdefault(json.loads(kind)["product"], label)
    if len(examples) > 1:
        listing = ", ".join(f"{product or 'unnamed'} ({label})" for product, label in examples.items())
        raise DataError(f"there are {len(examples)} products, which do not mix: {listing}: convert each by itself")


def _misfit(other: tuple[Any, str], usual: tuple[Any, str]) -> str:
    """Say why frames of that size and kind do not belong to the usual ones, or ""."""
    facts, usual_facts = json.loads(other[1]), json.loads(usual[1])
    if (other[0], facts["unit"]) != (usual[0], usual_facts["unit"]):
        return f"it is {other[0]} in {facts['unit']} and most are {usual[0]} in {usual_facts['unit']}"
    if not facts["georeference"] or not usual_facts["georeference"]:
        return ""
    place, expected = georeference_from_dict(facts["georeference"]), georeference_from_dict(usual_facts["georeference"])
    difference = place.differs(expected)
    return f"it is elsewhere than most: {difference}" if difference and place.turned().differs(expected) else ""


def _check_possible(unit: str, low: float, high: float, bulk: Sequence[float] | None, step: float) -> None:
    """Refuse values that cannot be, and steps so large that an archive would hold but few distinct values.

    Raises:
        DataError: there are such values.
    """
    mend = "name the number that means no data with nodata=, correct the unit with unit=, or give scale_factor="
    possible = unit_facts(unit).possible
    if possible and (low < possible[0] - 1e-3 * (possible[1] - possible[0]) or high > possible[1]):
        raise DataError(
            f"values reach from {low:g} to {high:g} {unit}, and only {possible[0]:g} to {possible[1]:g} can be: {mend}"
        )
    if bulk is not None and bulk[1] > bulk[0] and step > (bulk[1] - bulk[0]) / FEW_STEPS:
        raise DataError(
            f"values reach from {low:g} to {high:g}, so an archive would hold steps of {step:g}, and most lie in "
            f"[{bulk[0]:g}, {bulk[1]:g}]: {mend}"
        )


def _plan(
    works: Sequence[Work],
    indexed: Mapping[str, WorkFacts],
    slots: Mapping[str, Mapping[str, int]],
    scale: float | None,
    offset: float,
) -> ConversionPlan:
    times = {slots[key][label]: time for key, facts in indexed.items() for label, time, *_ in facts["frames"]
             if label in slots[key]}  # fmt: skip
    shape, kind = next(
        (tuple(shape), json.loads(kind))
        for key, facts in indexed.items()
        for label, _, shape, kind in facts["frames"]
        if label in slots[key]
    )
    unit, place = kind["unit"], georeference_from_dict(kind["georeference"]) if kind["georeference"] else None
    limits = [facts["limits"] for facts in indexed.values() if facts["limits"]]
    low, high = min((low for low, _ in limits), default=0.0), max((high for _, high in limits), default=0.0)
    bulks = [facts["bulk"] for facts in indexed.values() if facts["bulk"]]
    timed, pixels = True, False
    if works[0].options is not None:
        parts = open_parts(works[0].files[0], works[0].options)
        timed, pixels = parts[0].times is not None, parts[0].pixels
        if not timed and sum(len(part.sequences) for part in parts) > 1:
            raise DataError(
                f"{works[0].files[0]} holds several sequences without time stamps, which one archive would run "
                "together: convert each by itself, or use them as they are"
            )
    packing = packing_for(unit, low, high, pixels) if scale is None else Packing(scale, offset, (FILL,))
    if scale is None:
        _check_possible(unit, low, high, np.median(bulks, 0).tolist() if bulks else None, packing.scale)
    history = f"framecast {__version__} convert, from {works[0].files[0].parent if timed else works[0].files[0]}"
    stamps = np.array([times[slot] for slot in range(len(times))], np.int64) if timed else None
    size = shape[0], shape[1], shape[2]
    return ConversionPlan(size, unit, packing, stamps, len(times), history, place, kind["product"])
