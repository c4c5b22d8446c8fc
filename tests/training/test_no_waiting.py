"""No device waits for its host within a training step, and everything a step makes is made on the device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from samples.models import RECURRENT, small_clip, small_model
from torch.utils._python_dispatch import TorchDispatchMode

import framecast as fc
from framecast.data.clips import ClipSpec
from framecast.models.sampling import POLICIES, truth_mask
from framecast.registry import Training
from framecast.training import loop as fitting
from framecast.training.loop import run_training
from framecast.training.options import TrainingOptions
from framecast.training.run_folder import RunFolder
from framecast.training.task import ForecastTask

# What hands values, or a size that depends on values, from a device to its host.
WAITING = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "equal", "is_nonzero"}


class Waits(TorchDispatchMode):
    """Counts operations for which a device's host would have to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        index = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in args[1] if one is not None
        )
        if name in WAITING or index:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


class Step(lightning.Callback):
    """Counts from the beginning of the second batch to the beginning of the third, loops and callbacks included."""

    def __init__(self) -> None:
        self.waits = Waits()
        self.finished = False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            self.waits.__enter__()
        elif batch_idx == 2:
            self.waits.__exit__(None, None, None)
            self.finished = True


def test_the_counter_counts() -> None:
    with Waits() as waits:
        x = torch.rand(3)
        float(x.sum())
        x[x > 0.5]
        torch.where(x > 0.5, x, 0)
    assert waits.found == {"_local_scalar_dense": 1, "index": 1}


@pytest.mark.parametrize("name", RECURRENT)
def test_no_step_hands_a_value_to_the_host(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, trainer_made = Step(), fitting._trainer

    def trainer_watched(*arguments: Any) -> lightning.Trainer:
        trainer = trainer_made(*arguments)
        trainer.callbacks.append(step)
        return trainer

    monkeypatch.setattr(fitting, "_trainer", trainer_watched)
    data = fc.data("moving-mnist", size=16, context=2, horizon=1, clips=20)
    recipe = Training(sampling="scheduled", clip_norm=1.0, schedule="one-cycle", loss="mse", penalty_weight=0.1)
    # The bar waits twice a second at most, and for the first two batches, to tell how long they take.
    options = TrainingOptions(steps=3, batch=2, validate_clips=1, log_every=50, accelerator="cpu", progress=False)
    run_training(small_model(name, hidden=4), data, RunFolder(tmp_path / "run"), options, recipe, {})
    assert step.finished
    assert not step.waits.found


@pytest.mark.parametrize("name", RECURRENT)
def test_masks_and_states_are_made_where_the_frames_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing has a value on this device: whatever asks for one, or mixes in a tensor made elsewhere, raises.
    there = torch.device("meta")
    recipe = Training(loss="mse", penalty_weight=0.1)
    task = ForecastTask(
        small_model(name, hidden=4).to(there), ClipSpec(16, 16, 1, 2, 1), recipe, seed=1, per_epoch=5, total=10
    )  # fmt: skip
    monkeypatch.setattr(task, "log", lambda *args, **options: None)
    clip = small_clip()[:, :3]
    batch = {"frames": clip, "index": torch.arange(2), "valid": clip > 0.5}
    moved: Any = {key: value.to(there) for key, value in batch.items()}
    loss = task.training_step(moved, 4)
    assert loss.device == there
    loss.backward()
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_sampling_mask_is_made_where_the_numbers_are(policy: str) -> None:
    samples = torch.arange(3, device="meta")
    assert truth_mask(policy, 0.5, seed=1, epoch=2, samples=samples, context=2, horizon=3).device.type == "meta"
