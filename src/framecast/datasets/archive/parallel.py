"""Pieces of work done in parallel, each once: what is done leaves a marker, so a second start goes on from there."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from framecast.boundary import reading
from framecast.datasets.archive.pieces import Work
from framecast.errors import MissingExtraError
from framecast.storage import write_atomically

Facts = dict[str, Any]


def run_pieces(
    title: str,
    task: Callable[[Any], Facts],
    pieces: Sequence[Any],
    folder: Path,
    *,
    workers: int,
    progress: bool,
) -> dict[str, Facts]:
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
    open_pieces = [piece for piece in pieces if not markers[_work_of(piece).key].is_file()]
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
        raise RuntimeError(
            "a worker process died: in a script of your own, call convert_data below if __name__ == '__main__', or "
            "with workers=1; if memory ran out, take fewer workers. What is done is kept"
        ) from error
    with reading(folder, "holds what cannot be read of an earlier conversion", "delete it"):
        return {key: json.loads(marker.read_bytes()) for key, marker in markers.items()}


def _work_of(piece: Any) -> Work:
    work: Work = piece if isinstance(piece, Work) else piece[0]
    return work


def _do(task: Callable[[Any], Facts], piece: Any, marker: Path) -> None:
    write_atomically(marker, json.dumps(task(piece)).encode())
