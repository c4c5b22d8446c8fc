"""Code and command lines in processes of their own, which know nothing of this one and start at once.

They are forked from a server that has imported what takes seconds, torch and Lightning, and nothing of ours.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

PATIENCE = 280
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "lightning", "matplotlib.figure", "xarray", "h5py"])


def run_code(code: str, folder: Path) -> CompletedProcess[str]:
    """Run Python code in a folder."""
    with TemporaryDirectory() as place:
        (Path(place) / "code.py").write_text(code)
        return _run(runpy.run_path, str(Path(place) / "code.py"), [], folder, {})


def run_framecast(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Run a command line of framecast in a folder, with changes of the environment."""
    return _run(runpy.run_module, "framecast", words, folder, environment or {})


def _run(
    runner: Callable[..., object], what: str, words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> CompletedProcess[str]:
    with TemporaryDirectory() as place:
        said = [Path(place) / name for name in ("stdout", "stderr")]
        arguments = (runner, what, list(words), folder, {**os.environ, **environment}, said)
        process = _context.Process(target=_become, args=arguments)
        process.start()
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode is not None
        return CompletedProcess([what, *words], process.exitcode, *(file.read_text() for file in said))


def _become(
    runner: Callable[..., object], what: str, words: list[str], folder: Path, environment: dict[str, str],
    said: list[Path],
) -> None:  # fmt: skip
    """Do in this process what ``python`` would do in one of its own."""
    for number, file in enumerate(said, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [what, *words]
    runner(what, run_name="__main__")
