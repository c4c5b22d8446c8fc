"""Two processes do what one does: the same gradients, order, logs and scores, and they stop together."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.paths import ROOT
from samples.ranks_worker import GRADIENTS, work
from samples.runs import rows

import framecast as fc
from framecast.errors import RunFolderError
from framecast.reporting.results import read_results

TORCHRUN = "torch.distributed.run"
TRAIN = ["framecast", "train", "--model", "ms-lstm", "--data", "moving-mnist", "--accelerator", "cpu",
         "--model_options.hidden", "4", "--model_options.layers", "2", "--data_options.size", "16",
         "--data_options.clips", "60", "--data_options.context", "2", "--data_options.horizon", "2",
         "--precision", "64-true", "--progress", "false"]  # fmt: skip
TOLERANCE = {"32-true": 1e-5, "64-true": 1e-12}
PATIENCE = 200
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start commands of this Python; what still runs when the test ends is ended, and so is what it started."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *map(str, arguments)]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=40)
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Wait for the end, and return what was printed and what was complained about."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, errors
    return output, errors


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return fc.load(run).state_dict()


def numbers(path: Path) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in rows(path)]


def check_gradients(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    for name, (precision, *_) in GRADIENTS.items():
        assert two[0][name]["gradients"].keys() == one[name]["gradients"].keys()
        for mine in two:
            for key, gradient in one[name]["gradients"].items():
                worst = (mine[name]["gradients"][key] - gradient).abs().max()
                assert worst <= TOLERANCE[precision] * gradient.abs().max(), (name, key)
        for number, together in enumerate(one[name]["seen"]):
            assert together[0::2] == two[0][name]["seen"][number]
            assert together[1::2] == two[1][name]["seen"][number]


def check_evaluation(one: Path, two: Path, clips: int) -> None:
    ours, theirs = (read_results(folder) for folder in (one, two))
    assert ours["clips"] == theirs["clips"] == clips
    for name, expected in ours["forecasts"].items():
        for key, count in expected["counts"].items():
            if isinstance(count[0], int):
                assert theirs["forecasts"][name]["counts"][key] == count, (name, key)
            np.testing.assert_allclose(theirs["forecasts"][name]["counts"][key], count, rtol=1e-5)
        for key, bounds in expected["interval"]["mean"].items():
            # A bound may lie near zero, where rounding of the clips' scores is not relative to it but to the interval.
            slack = 1e-5 * np.abs(np.asarray(bounds, float)).max()
            np.testing.assert_allclose(theirs["forecasts"][name]["interval"]["mean"][key], bounds, rtol=0, atol=slack)
    files = [np.load(side / "examples.npz", allow_pickle=False) for side in (one, two)]
    with files[0] as shown, files[1] as also:
        assert set(shown) == set(also)
        assert np.array_equal(shown["past"], also["past"])
        assert len(also["past"]) == min(3, clips)


def test_two_processes_do_what_one_does(tmp_path: Path, start: Start) -> None:
    worker = str(ROOT / "tests/samples/ranks_worker.py")
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    together = start(TORCHRUN, "--standalone", "--nproc-per-node", "2", worker, tmp_path / "two", "1")
    work(tmp_path / "one", ask=0)
    _, errors = ended(together)
    one = torch.load(tmp_path / "one/found-0.pt", weights_only=True)
    two = [torch.load(tmp_path / f"two/found-{rank}.pt", weights_only=True) for rank in range(2)]
    assert "Warning: It is recommended" not in errors
    check_gradients(one, two)

    # All stop after the same batch, whichever was asked.
    assert one["stopped"]["late"] == 1
    assert one["stopped"]["patient"] < 100
    assert one["stopped"]["asked"] == 3
    assert two[0]["stopped"] == two[1]["stopped"] == one["stopped"]
    for mine in two:
        assert [message.split(":")[0] for message in mine["refused"]] == [
            "a batch of 3 does not divide among 2 processes",
            "there are 1 clips to validate with and 2 processes, one of which would have none",
        ]
    assert not (tmp_path / "two/refused").exists()

    # Losses in the log are means over the processes; validation counts each of an odd number of clips once.
    for name in ("masked64", "patient"):
        for log in ("train", "validation"):
            ours, theirs = (numbers(tmp_path / side / name / f"log/{log}.csv") for side in ("one", "two"))
            assert len(ours) == len(theirs) > 0
            for row, other in zip(ours, theirs, strict=True):
                assert row == pytest.approx(other, rel=1e-5)
    for side in ("one", "two"):
        for name in ("weights.safetensors", "log/train.csv", "log/validation.csv"):
            assert (tmp_path / side / "part" / name).read_bytes() == (tmp_path / side / "whole" / name).read_bytes()
    assert fc.load(tmp_path / "two/half")

    # The weights of both sides differ (dropout), so those of one side are evaluated in both ways.
    for name, limit in (("odd", 13), ("single", 1)):
        fc.evaluate(tmp_path / "two/whole", limit=limit, batch=4, examples=3, out=tmp_path / name, progress=False)
        check_evaluation(tmp_path / name, tmp_path / "two" / name, limit)
    assert "persistence" in two[0]["printed"]
    assert two[1]["printed"] == ""


def test_two_devices_start_a_second_process_and_stop_together(tmp_path: Path, start: Start) -> None:
    out = tmp_path / "run"
    process = start(*TRAIN, "--devices", "2", "--out", out, "--steps", "100000", "--log_every", "1")
    log = out / "log/train.csv"
    deadline = time.monotonic() + PATIENCE
    while not (log.exists() and len(log.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(RunFolderError, match=f"is being trained by process {process.pid} on"):
        fc.train(out=out, resume=True, devices=1, accelerator="cpu", progress=False)
    process.send_signal(signal.SIGINT)
    output, errors = ended(process, 130)
    assert errors.count("--resume") == 1
    assert "Traceback" not in errors
    assert output == ""
    with log.open(newline="") as file:
        batches = [int(row["batch"]) for row in csv.DictReader(file)]
    assert batches == list(range(1, len(batches) + 1))
    assert len(list((out / "tensorboard").glob("events*"))) <= 1
    # Where it is computed may change when it goes on.
    resumed = fc.train(out=out, resume=True, devices=1, accelerator="cpu", minutes=1e-9, progress=False)
    assert resumed.batches == batches[-1] + 1


# Two agents on one machine now and then wait for each other until the time is up: not for every run of the checks.
@pytest.mark.slow
def test_two_machines_train_what_one_does(tmp_path: Path, start: Start) -> None:
    steps = ["--steps", "5", "--log_every", "2"]
    meet = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test",
            "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--local-addr", "127.0.0.1"]  # fmt: skip
    agents = [start(TORCHRUN, *meet, "-m", *TRAIN, *steps, "--out", tmp_path / "two") for _ in range(2)]
    one = fc.train("ms-lstm", "moving-mnist", out=tmp_path / "one", model_options={"hidden": 4, "layers": 2},
                   data_options={"size": 16, "clips": 60, "context": 2, "horizon": 2}, steps=5, log_every=2,
                   precision="64-true", accelerator="cpu", progress=False)  # fmt: skip
    printed = [ended(agent)[0] for agent in agents]
    assert sorted(text.count("next: framecast evaluate") for text in printed) == [0, 1]
    ours, theirs = weights(one.path), weights(tmp_path / "two")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-6, atol=1e-7)
    assert numbers(one.path / "log/train.csv") == [
        pytest.approx(row, rel=1e-9) for row in numbers(tmp_path / "two/log/train.csv")
    ]
