"""Stopping and resuming: bit for bit, by signal or by damage, and never over what is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from samples.runs import DATA, train

import framecast as fc
from framecast.errors import DataError, RunFolderError, WeightsError
from framecast.training import callbacks, run_folder
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"workers": 2},
        {"accumulate": 2, "save_every": 2, "validate_every": 4},
        {"ema": 0.9, "augment": "flips+turns"},
    ],
)
def test_stop_and_resume_equals_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict) -> None:
    monkeypatch.setattr(run_folder, "KEPT_CHECKPOINTS", 1000)
    whole = train(tmp_path / "whole", **{"steps": 9, "save_every": 1, **options}).path
    points = [path.name for path in RunFolder(whole).saved_checkpoints()]
    assert len(points) == 9
    # After a plain batch, after a batch that was validated, across an epoch, just before the end, and at the end.
    for point in (points[8], points[5], points[4], points[1], points[0]):
        part = tmp_path / "part"
        shutil.copytree(whole, part)
        for later in RunFolder(part).saved_checkpoints():
            if later.name > point:
                later.unlink()
        fc.train(out=part, resume=True, progress=False)
        for name in ("weights.safetensors", "log/train.csv", "log/validation.csv"):
            assert (part / name).read_bytes() == (whole / name).read_bytes(), (point, name)
        assert RunFolder(part).saved_checkpoints()[0].name == points[0]
        shutil.rmtree(part)


@pytest.mark.parametrize("batch", [2, 3], ids=["where it validates", "between validations"])
def test_ctrl_c_at_any_batch_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    options = {"steps": 6, "validate_every": 3, "save_every": 100}
    whole = train(tmp_path / "whole", **options).path
    step = ForecastTask.training_step

    def interrupted(self: ForecastTask, sample: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == batch:
            signal.raise_signal(signal.SIGINT)
        return step(self, sample, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ForecastTask, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match=f"stopped after batch {batch + 1}"):
            train(tmp_path / "part", **options)
    assert RunFolder(tmp_path / "part").saved_checkpoints()
    fc.train(out=tmp_path / "part", resume=True, progress=False)
    for name in ("weights.safetensors", "log/train.csv", "log/validation.csv"):
        assert (tmp_path / "part" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_training_whose_torchrun_has_gone_saves_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, gone = ForecastTask.training_step, []

    def stepped(self: ForecastTask, sample: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 2:
            gone.append(True)
        return step(self, sample, batch_idx)

    monkeypatch.setattr(callbacks, "launched_shape", lambda: (1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(ForecastTask, "training_step", stepped)
        patched.setattr(callbacks.os, "getppid", lambda: 1 if gone else 7)
        with pytest.raises(KeyboardInterrupt, match="stopped after batch 3 of 6: go on with resume=True"):
            train(tmp_path / "run", steps=6, validate_every=6)
    assert fc.train(out=tmp_path / "run", resume=True, progress=False).finished


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine.txt").write_text("precious")
    with pytest.raises(RunFolderError, match=r"never overwritten.*resume=True.*another out"):
        train(tmp_path / "run", steps=1)
    assert (tmp_path / "run/mine.txt").read_text() == "precious"


def test_what_resume_refuses(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no run"):
        fc.train(out=tmp_path, resume=True)
    with pytest.raises(ValueError, match="needs a model and a data set"):
        fc.train("ms-lstm", out=tmp_path, resume=True)
    run = train(tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match=r"model_options .*'layers': 2.* and got .*'layers': 4.*leave out model"):
        fc.train("ms-lstm", "moving-mnist", out=run.path, resume=True, model_options={"hidden": 4, "layers": 4},
                 data_options=DATA)  # fmt: skip
    with pytest.raises(ValueError, match=r"keeps batch=4 and got 8.*init_from"):
        fc.train(out=run.path, resume=True, batch=8)
    (run.path / "provenance.json").write_text('{"fingerprint": "other"}')
    with pytest.raises(DataError, match="fingerprint"):
        fc.train(out=run.path, resume=True)
    shutil.rmtree(run.path / "checkpoints")
    (run.path / "provenance.json").write_text(
        json.dumps({"fingerprint": fc.data("moving-mnist", **DATA).fingerprint()})
    )
    with pytest.raises(WeightsError, match="no training state"):
        fc.train(out=run.path, resume=True)


def test_a_damaged_training_state_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = train(tmp_path / "run", steps=4, save_every=1)
    newest, previous = RunFolder(run.path).saved_checkpoints()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert fc.train(out=run.path, resume=True, progress=False).finished
    assert newest.name in caplog.text
    assert previous.name in caplog.text


def test_a_large_state_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", steps=6, save_every=2).path
    monkeypatch.setattr(callbacks, "PIECE_BYTES", 4096)
    part = train(tmp_path / "part", steps=4, save_every=2).path
    files = sorted((part / "checkpoints").iterdir())
    assert {file.name.partition(".ckpt")[0] for file in files} == {"batch-000000002", "batch-000000004"}  # none is left
    assert len(files) > 8
    assert all(file.stat().st_size < 4096 + 200 for file in files)
    config = part / "config.yaml"
    config.write_text(config.read_text().replace("steps: 4", "steps: 6"))
    # Carried to another machine, and one of the pieces lost on the way: the state before it is whole.
    (part / "checkpoints/batch-000000004.ckpt.3").unlink()
    with pytest.raises(WeightsError, match=r"goes on in .*ckpt\.3, which is missing"):
        callbacks.CheckedCheckpoints().load_checkpoint(part / "checkpoints/batch-000000004.ckpt")
    fc.train(out=part, resume=True, progress=False)
    assert (part / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_second_ctrl_c_stops_at_once_and_keeps_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    step = ForecastTask.training_step

    def interrupted_twice(self: ForecastTask, sample: Any, batch_idx: int) -> torch.Tensor:
        if batch_idx == 3:
            signal.raise_signal(signal.SIGINT)
            assert "stopping after this batch; Ctrl-C again stops at once" in capfd.readouterr().err
            signal.raise_signal(signal.SIGINT)
        return step(self, sample, batch_idx)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(ForecastTask, "training_step", interrupted_twice)
        with pytest.raises(KeyboardInterrupt, match=r"stopped at once; .*batch-000000002.ckpt is kept: go on with"):
            train(tmp_path / "part", steps=6, save_every=2)
        with pytest.raises(KeyboardInterrupt, match="nothing had been saved"):
            train(tmp_path / "new", steps=6, save_every=100)
    assert signal.getsignal(signal.SIGINT) is handler
    whole = train(tmp_path / "whole", steps=6, save_every=2).path
    for name in ("part", "new"):
        fc.train(out=tmp_path / name, resume=True, progress=False)
        assert (tmp_path / name / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_a_finished_run_is_finished(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=4)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()}
    assert fc.train(out=run.path, resume=True, progress=False) == run
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.rglob("*") if path.is_file()}
    assert before == after


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves_and_ends_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C in a terminal and SIGTERM of a scheduler reach those that prepare clips too."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "framecast", "train", "--model", "ms-lstm", "--data", "moving-mnist",
               "--out", str(out), "--model_options.hidden", "4", "--model_options.layers", "2",
               "--data_options.size", "16", "--data_options.clips", "60", "--data_options.context", "2",
               "--data_options.horizon", "2", "--steps", "100000", "--log_every", "1",
               "--workers", "1", "--progress", "false"]  # fmt: skip
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    log = out / "log/train.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.count("stopping after") == (number == signal.SIGINT)
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert fc.load(out)
    resumed = fc.train(out=out, resume=True, minutes=1e-9, progress=False)
    assert resumed.batches > 3
