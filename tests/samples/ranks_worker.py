"""What ``test_distributed.py`` does in one process and in two: train, stop, resume and evaluate into a folder."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

import framecast as fc
from framecast import cli
from framecast.data.clips import ClipData, ClipSpec
from framecast.data.scaling import MinMax
from framecast.data.sources import ArraySource
from framecast.data.windows import WindowedClips, windows_by_number
from framecast.errors import DataError
from framecast.registry import Training
from framecast.training import run_folder
from framecast.training.distributed import Peers
from framecast.training.loop import run_training
from framecast.training.options import TrainingOptions
from framecast.training.run_folder import RunFolder

DATA: dict[str, Any] = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
COMMON: dict[str, Any] = {"accelerator": "cpu", "progress": False, "batch": 4, "validate_clips": 5,
                          "log_every": 2}  # fmt: skip
# Name: precision, loss, share of pixels without data, batches per step.
GRADIENTS = {
    "float32": ("32-true", "l1+l2", 0.0, 1),
    "float64": ("64-true", "l1+l2", 0.5, 1),
    "masked32": ("32-true", "mse", 0.7, 1),
    "masked64": ("64-true", "mse", 0.7, 2),
}
SMALL_SIMVP = {"context": 2, "horizon": 2, "hid_S": 4, "hid_T": 8, "N_S": 2, "N_T": 3, "mlp_ratio": 2.0, "drop": 0.2}


class Watch(lightning.Callback):
    """Keeps which clips were seen, and the gradients of the first step; asks one process to stop."""

    def __init__(self, ask: int | None = None) -> None:
        self.seen: list[list[int]] = []
        self.gradients: dict[str, torch.Tensor] = {}
        self.ask = ask

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(batch["index"].tolist())
        if batch_idx == 2 and self.ask == trainer.global_rank:
            os.kill(os.getpid(), signal.SIGINT)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if not self.gradients:
            self.gradients = {name: p.grad.clone() for name, p in pl_module.model.named_parameters()}


def masked_data(share: float) -> ClipData:
    """Return clips of noise of which about that share has no data, much more in some clips than in others."""
    rng = np.random.default_rng(0)
    frames = rng.random((60, 1, 12, 12), np.float32)
    frames[rng.random(frames.shape) < 2 * share * rng.random((60, 1, 1, 1))] = np.nan
    clips = WindowedClips(ArraySource(frames), windows_by_number(60, 4), MinMax())
    return ClipData("noise", {}, ClipSpec(12, 12, 1, 2, 2), {"train": clips, "validation": clips, "test": clips})


def fitted(folder: Path, watch: Watch, data: ClipData, recipe: Training, **options: Any) -> Any:
    model = fc.create_model("ms-lstm", hidden=4, layers=2)
    chosen = TrainingOptions(**{**COMMON, **options}, trainer={"callbacks": [watch]})
    return run_training(model, data, RunFolder(folder), chosen, recipe, {})


def train(out: Path, **options: Any) -> Any:
    model = {"hidden": 4, "layers": 2}
    return fc.train("ms-lstm", "moving-mnist", out=out, model_options=model, data_options=DATA, **{**COMMON, **options})


def work(folder: Path, ask: int) -> None:
    """Do everything; what the tests compare is written to ``folder``, by each process in its own file."""
    found: dict[str, Any] = {}
    for name, (precision, loss, share, accumulate) in GRADIENTS.items():
        watch, recipe = Watch(), Training(loss=loss, sampling="scheduled")
        torch.manual_seed(0)
        fitted(folder / name, watch, masked_data(share), recipe, steps=3, precision=precision, accumulate=accumulate,
               validate_every=3)  # fmt: skip
        found[name] = {"seen": watch.seen, "gradients": watch.gradients}
    peers = Peers()
    found["number"] = peers.number
    found["stopped"] = stopped(folder, ask)
    found["refused"] = refused(folder) if peers.count > 1 else []
    resume(folder, peers)
    train(folder / "half", steps=2, precision="bf16-mixed", tf32=True, trainer={"deterministic": True})
    for name, limit in (("odd", 13), ("single", 1)):
        fc.evaluate(folder / "whole", limit=limit, batch=4, examples=3, out=folder / name, progress=False)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(["evaluate", str(folder / "whole"), "--limit", "3", "--bootstrap", "0", "--progress", "false",
                  "--out", str(folder / "printed")])  # fmt: skip
    found["printed"] = printed.getvalue()
    torch.save(found, folder / f"found-{peers.number}.pt")


def stopped(folder: Path, ask: int) -> dict[str, int]:
    """Return after how many batches this process ended where it was told to stop early."""
    late = train(folder / "late", steps=1000, minutes=1e-9)
    patient = train(folder / "patient", steps=100, lr=1e-12, patience=2, validate_every=2)
    watch = Watch(ask)
    try:
        fitted(folder / "asked", watch, masked_data(0.0), Training(), steps=1000, validate_every=500)
    except KeyboardInterrupt:
        return {"late": late.batches, "patient": patient.batches, "asked": len(watch.seen)}
    raise AssertionError("it was asked to stop")


def refused(folder: Path) -> list[str]:
    """Return the messages that impossible numbers of clips get."""
    messages = []
    for options in ({"batch": 3}, {"validate_clips": 1}):
        try:
            train(folder / "refused", **{"steps": 1, **options})
        except DataError as error:
            messages.append(str(error))
    return messages


def resume(folder: Path, peers: Peers) -> None:
    """Train a model with dropout and running means without a stop, and once more from the third batch on."""
    run_folder.KEPT_CHECKPOINTS = 1000
    fc.train("simvp-v2", "moving-mnist", out=folder / "whole", model_options=SMALL_SIMVP, data_options=DATA, steps=6,
             save_every=1, validate_every=4, **{**COMMON, "log_every": 4})  # fmt: skip
    if peers.number == 0:
        shutil.copytree(folder / "whole", folder / "part")
        for later in RunFolder(folder / "part").saved_checkpoints()[:3]:
            later.unlink()
    peers.gather(None)
    fc.train(out=folder / "part", resume=True, progress=False, accelerator="cpu")
    run_folder.KEPT_CHECKPOINTS = 2


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]))
