"""What training does with numbers that are not finite, too little memory, and processes that are lost."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.runs import train
from torture.finite import DATA, MODELS, Poison

import framecast as fc
from framecast.api.data import data
from framecast.cost import fit as fitting
from framecast.cost.count import count_memory
from framecast.cost.fit import CAUTION, heap_limit, recompute_modes
from framecast.data.sets.moving_mnist import GeneratedClips
from framecast.errors import (
    NonFiniteError,
    OutOfMemoryError,
    PeerLostError,
    RunFolderError,
    WorkerLostError,
    is_out_of_memory,
    is_worker_lost,
)
from framecast.registry import Training
from framecast.training import distributed as ranks
from framecast.training.callbacks import _cut
from framecast.training.loop import memory_advice, run_training
from framecast.training.nonfinite import NonFiniteGuard
from framecast.training.options import TrainingOptions
from framecast.training.run_folder import RunFolder


def trained(folder: Path, *callbacks: Any, **options: Any) -> Any:
    """Train without a limit to what Lightning is told."""
    name, arguments = MODELS[0]
    chosen = TrainingOptions(accelerator="cpu", progress=False, batch=4, validate_clips=4,
                             trainer={"callbacks": list(callbacks)}, **options)  # fmt: skip
    return run_training(
        fc.create_model(name, **arguments), data("moving-mnist", **DATA), RunFolder(folder), chosen, Training(), {}
    )


@pytest.mark.parametrize("batch", [3, 4])
def test_one_bad_batch_of_several_spoils_the_step(tmp_path: Path, batch: int) -> None:
    poison = Poison({batch}, np.nan, "frames")
    with pytest.raises(NonFiniteError, match=r"step 2 \(batch 3 to 4\) has a loss of .*nan") as error:
        trained(tmp_path / "run", poison, steps=4, accumulate=2, validate_every=8)
    clips = sorted(poison.seen[3] + poison.seen[4])
    assert f"training clips {', '.join(map(str, clips))}," in str(error.value)


def test_a_finite_training_is_not_changed_by_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for name in ("watched", "unwatched"):
        torch.manual_seed(0)
        runs.append(trained(tmp_path / name, steps=3, validate_every=3))
        monkeypatch.setattr(NonFiniteGuard, "on_before_optimizer_step", lambda *arguments: None)
    one, other = (run.path / "weights.safetensors" for run in runs)
    assert one.read_bytes() == other.read_bytes()


def test_an_optimiser_that_cannot_skip_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from framecast.training.task import ForecastTask

    monkeypatch.setattr(ForecastTask, "_fused", lambda task: False)
    poison = Poison({2}, np.inf, "gradient")
    assert trained(tmp_path / "run", poison, steps=4, on_nonfinite="skip", skip_limit=1).finished
    for name, before in poison.weights[2].items():
        assert torch.equal(before, poison.weights[3][name])
    assert not all(torch.equal(before, poison.weights[4][name]) for name, before in poison.weights[3].items())
    with pytest.raises(NonFiniteError, match="step 2 "):
        trained(tmp_path / "raised", poison := Poison({2}, np.inf, "gradient"), steps=4)
    assert max(poison.weights) == 2


class Hungry(Poison):
    """Asks for more memory than there is."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            torch.empty(2**60)


def test_out_of_memory_says_what_needs_less(tmp_path: Path) -> None:
    with pytest.raises(
        OutOfMemoryError, match=r"tried convlstm with batch 4, clips of 4x1x16x16.*batch=2 and accumulate=2.*lean"
    ):
        trained(tmp_path / "run", Hungry(set(), 0, ""), steps=4)
    spec, model = data("moving-mnist", **DATA).spec, fc.create_model("convlstm", hidden=4, layers=2)
    single = memory_advice(MemoryError(), model, spec, TrainingOptions(batch=1, recompute="lean"))
    assert "--batch" not in single
    assert "lean," in single
    assert "batch=1 and accumulate=3" in memory_advice(MemoryError(), model, spec, TrainingOptions(batch=3))
    with pytest.raises(OutOfMemoryError, match=r"weights of convlstm .* do not fit"):
        fc.train("convlstm", "moving-mnist", out=tmp_path / "wide", model_options={"hidden": 2**24}, data_options=DATA)
    with pytest.raises(OutOfMemoryError, match=r"data moving-mnist with options .* does not fit: use smaller frames"):
        fc.train("convlstm", "moving-mnist", out=tmp_path / "wide", model_options=MODELS[0][1],
                 data_options={"size": 2**20})  # fmt: skip
    assert not (tmp_path / "wide").exists()


def test_out_of_memory_says_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, options = (8, 1, 32, 32), {"hidden": 8, "layers": 1}
    modes = [mode for mode in recompute_modes("convlstm", 7) if mode in ("none", "lean")]
    counts = {mode: count_memory("convlstm", shape, 4, mode, **options) for mode in modes}
    free = counts["none"].peak(5, CAUTION, heap_limit())
    monkeypatch.setattr(fitting, "count_memory", cache(fitting.count_memory))
    monkeypatch.setattr(fitting, "free_for_process", lambda: free)
    said = fitting.what_fits("convlstm", shape, 4, 16, "none", options=options)
    assert "hold batch 5 with recompute none, or batch " in said
    most = int(re.findall(r"batch (\d+) with recompute lean", said)[0])
    assert counts["lean"].peak(most, CAUTION, heap_limit()) <= free
    assert counts["lean"].peak(most + 1, CAUTION, heap_limit()) > free
    # Processes share the memory, and each has its part of the batch.
    assert "hold batch 4 with" in fitting.what_fits("convlstm", shape, 4, 16, "none", options=options, processes=2)
    assert "other programs took the memory" in fitting.what_fits("convlstm", shape, 4, 5, "none", options=options)
    monkeypatch.setattr(fitting, "free_for_process", lambda: 1000)
    assert "not one clip fits into the 0 MB" in fitting.what_fits("convlstm", shape, 4, 5, "none", options=options)
    for wrong in ({"hidden": 2**24}, {"no": 1}):
        assert fitting.what_fits("convlstm", shape, 4, 5, "none", options=wrong) == ""

    def hungry(*_: object) -> None:
        raise OutOfMemoryError("out of memory: tried it.")

    monkeypatch.setattr("framecast.training.loop.run_training", hungry)
    asked: dict[str, Any] = {"model_options": options, "data_options": DATA, "accelerator": "cpu", "out": tmp_path}
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: tried it\. What fits: by count, not one clip fits"):
        fc.train("convlstm", "moving-mnist", **asked)
    monkeypatch.setattr(fitting, "free_for_process", hungry)
    with pytest.raises(OutOfMemoryError, match=r"^out of memory: tried it\.$"):
        fc.train("convlstm", "moving-mnist", **asked)


def test_a_limit_of_addresses_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    if not Path("/proc/self/statm").exists():
        pytest.skip("the addresses a process has taken are known on Linux only")
    assert fitting.free_for_process() > 10**8
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (taken + 10**7, taken + 10**7))
    assert 0 <= fitting.free_for_process() <= 2 * 10**7


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError("no space")])
def test_other_errors_are_not_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_lost_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(Poison):
        def on_train_batch_start(self, *arguments: Any) -> None:
            monkeypatch.setattr(ranks, "_joined", lambda: True)
            raise RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:1234")

    with pytest.raises(PeerLostError, match=r"another process.*resume=True, out="):
        trained(tmp_path / "run", Lost(set(), 0, ""), steps=4)


def test_one_command_starts_and_continues(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model_options": MODELS[0][1], "data_options": DATA, "steps": 3, "progress": False,
                               "validate_clips": 4, "resume": True}  # fmt: skip
    first = fc.train("convlstm", "moving-mnist", out=tmp_path / "run", **options)
    again = fc.train("convlstm", "moving-mnist", out=tmp_path / "run", **options)
    assert first == again


def test_a_start_that_was_killed_early_is_no_run(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=1).path
    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    (begun / "provenance.json").write_bytes((run / "provenance.json").read_bytes())
    (begun / "checkpoints/initial.safetensors").write_bytes(b"old")
    (begun / ".config.yaml.abc.tmp").write_bytes(b"torn")
    assert trained(begun, steps=1).finished
    with pytest.raises(RunFolderError, match="never overwritten"):
        trained(begun, steps=1)


def test_a_log_survives_whoever_is_killed_while_cutting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.csv"
    path.write_text("batch,loss\n1,0.5\n2,0.4\n3,0.3\n")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _cut(path, ("batch", "loss"), 2)
    assert path.read_text() == "batch,loss\n1,0.5\n2,0.4\n3,0.3\n"
    _cut(path, ("batch", "loss"), 2)
    assert path.read_text() == "batch,loss\n1,0.5\n2,0.4\n"
    path.write_text("batch,loss\none,0.5\n")
    with pytest.raises(RunFolderError, match=r"train\.csv is no log of a training"):
        _cut(path, ("batch", "loss"), 2)


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_killed_loader_is_told_with_the_way_on(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GeneratedClips.__getitem__
    run = train(tmp_path / "run", steps=1).path

    def killed(self: GeneratedClips, index: int) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, index)

    monkeypatch.setattr(GeneratedClips, "__getitem__", killed)
    start: dict[str, Callable[[], Any]] = {
        "train": lambda: train(tmp_path / "other", steps=4, workers=1),
        "evaluate": lambda: fc.evaluate(run, workers=1, limit=8, progress=False),
    }
    with pytest.raises(WorkerLostError, match="prepares clips has ended, killed or out of memory"):
        start[verb]()
    if verb == "train":
        monkeypatch.setattr(GeneratedClips, "__getitem__", whole)
        assert fc.train(out=tmp_path / "other", resume=True, workers=1, progress=False).finished


def test_what_says_that_a_loader_was_lost() -> None:
    assert is_worker_lost(ConnectionResetError(104, "Connection reset by peer"))
    assert is_worker_lost(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert not is_worker_lost(RuntimeError("DataLoader worker raised"))
    # Which is a ConnectionError too, and says of itself what was lost.
    assert not is_worker_lost(PeerLostError("another process of this training has ended"))
