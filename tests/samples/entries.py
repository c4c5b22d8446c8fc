"""Every public way a file comes in, as a function that is given the content of one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import framecast as fc
from framecast import cli
from framecast.data.check import check
from framecast.data.convert import convert
from framecast.data.formats.radolan import read_radolan_forecasts
from framecast.data.formats.video import cached_video
from framecast.data.sets.german_radar import RydlSource
from framecast.data.sets.moving_mnist import read_idx
from framecast.registry import sequence_endings
from samples.formats import RADOLAN
from samples.kth import moving_bar, video_file
from samples.radar import rydl_file

DATA: dict[str, Any] = {"size": 16, "context": 3, "horizon": 2, "clips": 15}
STUDY: dict[str, Any] = {
    "name": "tiny", "data": "moving-mnist", "data_options": DATA, "model_options": {"hidden": 2, "layers": 1},
    "training": {"steps": 1}, "seeds": [0], "models": {"convlstm": {}}, "also": ["other"],
}  # fmt: skip
Entry = Callable[[bytes, Path, Path], object]
"""``(content, empty folder, whole run folder)``"""


def tiny_run(out: Path) -> Path:
    """Train the smallest model for a step and evaluate it."""
    options = {"hidden": 2, "layers": 1}
    fc.train("convlstm", "moving-mnist", out=out, model_options=options, data_options=DATA, steps=1, progress=False)
    fc.evaluate(out, progress=False, bootstrap=0, examples=1)
    return out


def _file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _given(name: str, call: Callable[[Path], object]) -> Entry:
    """Give a function the path of a file of that name."""
    return lambda content, folder, run: call(_file(folder, name, content))


def _in_run(name: str, call: Callable[[Path], object]) -> Entry:
    """Give a function a copy of the run in which one file is replaced."""

    def entry(content: bytes, folder: Path, run: Path) -> object:
        copy = shutil.copytree(run, folder / "run")
        for path in sorted(copy.glob(name)):
            path.write_bytes(content)
        return call(copy)

    return entry


def _read_all(path: Path | str, **options: Any) -> None:
    for clips in fc.data(path, context=1, horizon=1, **options).splits.values():
        for index in range(len(clips)):
            clips[index]


def _predict(frames: Path, run: Path) -> object:
    return fc.predict(run, frames)


def _cached_video(content: bytes, folder: Path, run: Path) -> None:
    video = video_file(folder / "bar.avi", moving_bar(6))
    _read_all(video)
    cached_video(video, None, None).write_bytes(content)
    _read_all(video)


def _index(content: bytes, folder: Path, run: Path) -> None:
    import os

    path = rydl_file(folder / "RYDL.hdf5", {"201606010005": [[0.0]], "201606010010": [[1.0]]})
    RydlSource(path)
    for index in Path(os.environ["FRAMECAST_CACHE"]).glob("index-*"):
        index.write_bytes(content)
    RydlSource(path)


def _marker_of_conversion(content: bytes, folder: Path, run: Path) -> None:
    video = video_file(folder / "bar.avi", moving_bar(6))
    _file(folder / "a.zarr.part/index", "0.json", content)
    convert(video, folder / "a.zarr", workers=1, progress=False)
    _file(folder / "a.zarr", "zarr.json", content)
    convert(video, folder / "a.zarr", workers=1, progress=False)


def _command(verb: str, *arguments: str) -> Callable[[Path], object]:
    return lambda path: cli.main([verb, "--config", str(path), *arguments])


def _import(path: Path) -> object:
    return fc.import_weights("convlstm", path)


def _start(path: Path) -> object:
    out, options = path.parent / "out", {"hidden": 2, "layers": 1}
    return fc.train("convlstm", "moving-mnist", out=out, model_options=options, data_options=DATA, steps=1,
                    init_from=str(path), progress=False)  # fmt: skip


def _resume(run: Path) -> object:
    return fc.train(out=run, resume=True, progress=False)


def _evaluate(run: Path) -> object:
    return fc.evaluate(run, progress=False, bootstrap=0, examples=1)


def _report(run: Path) -> object:
    return fc.report(run, out=run / "page.html", figures=False)


def _convert(path: Path) -> object:
    return convert(path, path.with_name("made.zarr"), workers=1, progress=False)


def _study(name: str, **asked: Any) -> Entry:
    """Give a study, whose cell has a run folder, with a file of that name beside study.yaml or in its place."""

    def entry(content: bytes, folder: Path, run: Path) -> object:
        shutil.copytree(run, folder / "runs/convlstm/seed0")
        (folder / "other").mkdir()
        (folder / "study.yaml").write_text(json.dumps(STUDY))
        (folder / "other/study.yaml").write_text(json.dumps({**STUDY, "also": []}))
        _file(folder, name, content)
        return fc.study(folder, **asked)

    return entry


def _layers(run: Path) -> object:
    return fc.analyse_layers([run], out=run / "layers")


def _cost_table(path: Path) -> object:
    return fc.make_cost_table(["5,1,16,16"], models=["convlstm"], out=path)


def _mnist(**options: Any) -> object:
    return fc.data("moving-mnist", **(DATA | options))


def _predict_entry(suffix: str) -> Entry:
    return lambda content, folder, run: _predict(_file(folder, f"past{suffix}", content), run)


ENTRIES: dict[str, Entry] = {
    "load": _given("weights.safetensors", fc.load),
    "load .pt": _given("weights.pt", fc.load),
    "load a run": _in_run("weights.safetensors", fc.load),
    "import .pt": _given("weights.pt", _import),
    "import .ckpt": _given("weights.ckpt", _import),
    "import .safetensors": _given("weights.safetensors", _import),
    "init_from": _given("weights.safetensors", _start),
    "resume, config": _in_run("config.yaml", _resume),
    "resume, state": _in_run("checkpoints/*.ckpt", _resume),
    "resume, provenance": _in_run("provenance.json", _resume),
    "evaluate, weights": _in_run("weights.safetensors", _evaluate),
    "evaluate, config": _in_run("config.yaml", _evaluate),
    "report, results": _in_run("results.json", _report),
    "report, examples": _in_run("examples.npz", _report),
    "report, log": _in_run("log/*.csv", _report),
    "train --config": _given("a.yaml", _command("train", "--out", "out")),
    "evaluate --config": _given("a.yaml", _command("evaluate", "run")),
    "predict --config": _given("a.yaml", _command("predict", "run", "frames")),
    "study": _study("study.yaml", tables=True),
    "study, another's plan": _study("other/study.yaml", tables=True),
    "study, record": _study("results/convlstm-seed0.json", tables=True),
    "study, another's record": _study("other/results/convlstm-seed0.json", tables=True),
    "study, state of a trial": _study("runs/convlstm/seed0.json", trial=("convlstm", "0")),
    "study, provenance": _study("runs/convlstm/seed0/provenance.json", trial=("convlstm", "0")),
    "study --config": _given("a.yaml", _command("study", "study.yaml")),
    "analyse layers, weights": _in_run("weights.safetensors", _layers),
    "analyse layers, config": _in_run("config.yaml", _layers),
    "analyse receptive, weights": _in_run("weights.safetensors", lambda run: fc.analyse_receptive([run])),
    "analyse --config": _given("a.yaml", _command("analyse")),
    "cost --config": _given("a.yaml", _command("cost")),
    "cost --table": _given("table.csv", _cost_table),
    "data check": _given("a.h5", check),
    "data convert .tar": _given("a.tar", _convert),
    "data convert .tar.gz": _given("a.tar.gz", _convert),
    "data convert .h5": _given("a.h5", _convert),
    "data convert, markers": _marker_of_conversion,
    "taxibj": _given("BJ.h5", lambda path: fc.data("taxibj", root=path.parent, files=[path.name])),
    "kth": _given("00sequences.txt", lambda path: fc.data("kth", root=path.parent)),
    "moving-mnist, digits": _given("digits.gz", lambda path: _mnist(digits=path)),
    "moving-mnist, file": _given("clips.npy", lambda path: _mnist(file=path)),
    "moving-mnist, test_file": _given("clips.npy", lambda path: _mnist(test_file=path)),
    "idx": _given("digits", read_idx),
    "knmi": _given("RAD_NL25_RAP_5min_201008260100.h5", lambda path: fc.data("knmi", root=path.parent)),
    "german-radar": _given("RYDL.hdf5", lambda path: fc.data("german-radar", root=path)),
    "german-radar, folder": _given(RADOLAN, lambda path: fc.data("german-radar", root=path.parent)),
    "RADOLAN folder": _given(RADOLAN, lambda path: _read_all(path.parent)),
    "RADOLAN forecasts": _given("RV.tar", read_radolan_forecasts),
    "ODIM folder": _given("a.hdf", lambda path: _read_all(path.parent)),
    "pictures": _given("0.png", lambda path: _read_all(path.parent)),
    "Zarr 3": _given("a.zarr/zarr.json", lambda path: _read_all(path.parent)),
    "Zarr 2": _given("a.zarr/.zarray", lambda path: _read_all(path.parent)),
    "cache of videos": _cached_video,
    "cache of indices": _index,
    **{
        f"data *{suffix}": _given(f"a{suffix}", partial(_read_all))
        for suffix in sequence_endings()
        if suffix != ".zarr"
    },
    **{f"predict *{suffix}": _predict_entry(suffix) for suffix in (".npy", ".npz", ".gif", ".h5", ".nc", ".avi")},
}
