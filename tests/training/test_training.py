"""Training: order, recipes, run folders, and what cannot be trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from samples.models import SMALL_ONE_SHOT
from samples.runs import DATA, MODEL, rows, train

import framecast as fc
from framecast.errors import DataError, WeightsError
from framecast.registry import Training
from framecast.training import loop, run_folder
from framecast.training.augmentation import augment_clips
from framecast.training.callbacks import CheckedCheckpoints
from framecast.training.options import TrainingOptions
from framecast.training.order import EveryClipOnce, ShuffledBatches
from framecast.training.run_folder import RunFolder
from framecast.training.task import OPTIMIZERS, SCHEDULES
from framecast.weights.saving import read_weights


@given(
    st.integers(4, 40),
    st.integers(1, 4).map(lambda n: 4 * n),
    st.integers(1, 30),
    st.integers(0, 9),
    st.integers(0, 29),
)
def test_order_depends_on_seed_and_batch_alone(clips: int, batch: int, total: int, seed: int, start: int) -> None:
    if clips < batch:
        with pytest.raises(DataError, match="fewer than one batch"):
            ShuffledBatches(clips, batch, total, seed)
        return
    whole = ShuffledBatches(clips, batch, total, seed)
    order = list(whole)
    assert len(order) == len(whole) == total
    for ranks in (2, 4):
        shares = [list(ShuffledBatches(clips, batch, total, seed, rank, ranks)) for rank in range(ranks)]
        for number, together in enumerate(order):
            joined = [-1] * batch
            for rank in range(ranks):
                joined[rank::ranks] = shares[rank][number]
            assert joined == together
    whole.start = min(start, total)
    assert list(whole) == order[whole.start :]
    first_epoch = [clip for numbers in order[: clips // batch] for clip in numbers]
    assert len(set(first_epoch)) == len(first_epoch)


def test_a_batch_that_does_not_divide() -> None:
    with pytest.raises(DataError, match="use a multiple of 4"):
        ShuffledBatches(100, 6, 1, 0, 0, 4)


@given(st.integers(0, 50), st.integers(1, 7))
def test_every_clip_is_evaluated_once(clips: int, ranks: int) -> None:
    assert sorted(n for rank in range(ranks) for n in EveryClipOnce(clips, rank, ranks)) == list(range(clips))


def test_a_run_leaves_everything_behind(tmp_path: Path) -> None:
    run = train(tmp_path / "run", epochs=1)
    assert (run.batches, run.finished) == (9, True)
    files = {p.relative_to(run.path).as_posix() for p in run.path.rglob("*") if p.is_file()}
    assert files >= {"config.yaml", "provenance.json", "weights.safetensors", "log/train.csv", "log/validation.csv"}
    assert len(list((run.path / "checkpoints").iterdir())) == 2
    assert any(name.startswith("tensorboard/events") for name in files)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["model"] == "ms-mk-lstm"
    assert config["training"]["lr"] == 3e-4
    assert [row["batch"] for row in rows(run.path / "log/train.csv")] == ["3", "6", "9"]
    assert [row["batch"] for row in rows(run.path / "log/validation.csv")] == ["4", "8", "9"]
    assert run.validation_mse == min(float(row["validation_mse"]) for row in rows(run.path / "log/validation.csv"))
    model = fc.load(run.path)
    assert not model.training
    assert model(torch.rand(1, 2, 1, 16, 16), 3).shape == (1, 3, 1, 16, 16)


def test_tensorboard_gets_scalars_and_a_strip(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(tmp_path / "run", steps=4, log_every=1)
    events = accumulator.EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert {"loss", "lr", "epoch", "validation_mse"} <= set(events.Tags()["scalars"])
    passes = [event.value for event in events.Scalars("epoch")]
    assert passes == sorted(passes)
    assert all(event.value == pytest.approx(3e-4) for event in events.Scalars("lr"))
    (strip,) = events.Images("truth over forecast")
    assert (strip.width, strip.height) == (4 * 16, 2 * 16)


@pytest.mark.parametrize("tf32", [True, False])
def test_training_says_what_gpus_may_round(tmp_path: Path, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    precisions: list[tuple[str, bool]] = []
    begin = loop._begin

    def recorded(*arguments: Any) -> Any:
        precisions.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return begin(*arguments)

    monkeypatch.setattr(loop, "_begin", recorded)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    train(tmp_path / "run", steps=1, tf32=tf32)
    assert precisions == [("high" if tf32 else "highest", tf32)]
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_it_learns(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=60, lr=5e-3, batch=8)
    losses = [float(row["loss"]) for row in rows(run.path / "log/train.csv")]
    assert losses[-1] < 0.7 * losses[0]


def test_same_seed_same_run_and_other_seed_other_run(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, steps=4, seed=seed)
    same, other = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "abc"][1:]
    assert (tmp_path / "a/weights.safetensors").read_bytes() == same != other


def test_fine_tuning_starts_from_the_weights(tmp_path: Path) -> None:
    first = train(tmp_path / "first", steps=4)
    second = train(tmp_path / "second", steps=1, lr=1e-12, init_from=str(first.path))
    before, after = (fc.load(path).state_dict() for path in (first.path, second.path))
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=0, atol=1e-6)
    with pytest.raises(WeightsError, match=r"'embed.weight' is \(4, 1, 1, 1\) in the file and \(8, 1, 1, 1\)"):
        fc.train("ms-lstm", "moving-mnist", out=tmp_path / "third", model_options={**MODEL, "hidden": 8},
                 data_options=DATA, init_from=str(first.path))  # fmt: skip
    assert not (tmp_path / "third").exists()


def test_averaged_weights_are_validated_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "KEPT_CHECKPOINTS", 1000)
    options = {"steps": 6, "save_every": 1, "validate_every": 6, "lr": 0.02, "loss": "mse"}
    run = train(tmp_path / "averaged", ema=0.3, **options)
    states = [
        CheckedCheckpoints().load_checkpoint(path)["state_dict"]
        for path in RunFolder(run.path).saved_checkpoints()[::-1]
    ]
    kept = read_weights(run.path / "weights.safetensors")[1]
    for name, tensor in kept.items():
        average = states[0][f"model.{name}"].double()
        for number, state in enumerate(states):
            decay = min(0.3, (1 + number) / (10 + number))
            average = decay * average + (1 - decay) * state[f"model.{name}"].double()
        torch.testing.assert_close(tensor.double(), average, rtol=1e-5, atol=1e-7)
    # What is learned from is not averaged.
    plain = train(tmp_path / "plain", **options)
    assert (run.path / "log/train.csv").read_bytes() == (plain.path / "log/train.csv").read_bytes()
    assert run.validation_mse != plain.validation_mse
    again = fc.evaluate(run.path, split="validation", scores=["image"], baselines=[], bootstrap=0, progress=False)
    assert again["forecasts"]["ms-lstm"]["mean"]["mse"] == pytest.approx(run.validation_mse, rel=1e-5)


def test_clips_are_turned_about_with_their_masks() -> None:
    frames = torch.rand(512, 2, 1, 3, 3)
    samples = torch.arange(512)
    turned, masks = augment_clips([frames, frames > 0.5], "flips+turns", seed=3, epoch=1, samples=samples)
    assert torch.equal(turned > 0.5, masks)
    eight = [torch.rot90(f, turns, (3, 4)) for f in (frames, frames.flip(4)) for turns in range(4)]
    matches = torch.stack([(turned == one).flatten(1).all(1) for one in eight])
    assert (matches.sum(0) == 1).all()
    # Each of the eight has an eighth of 512 within five standard deviations.
    assert ((matches.sum(1) - 64).abs() < 5 * (512 * 7 / 64) ** 0.5).all()
    assert torch.equal(
        turned[7:9], augment_clips([frames[7:9]], "flips+turns", seed=3, epoch=1, samples=samples[7:9])[0]
    )
    for other in ({"seed": 4, "epoch": 1}, {"seed": 3, "epoch": 2}):
        assert not torch.equal(turned, augment_clips([frames], "flips+turns", samples=samples, **other)[0])
    (flipped,) = augment_clips([frames], "flips", seed=3, epoch=1, samples=samples)
    assert {tuple(int((flipped[n] == f[n]).all()) for f in (frames, frames.flip(3), frames.flip(4), frames.flip(3, 4)))
            for n in range(512)} == {(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)}  # fmt: skip


def test_minutes_stop_early_but_schedules_follow_steps(tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=10_000, minutes=1e-9, schedule="one-cycle", validate_every=5000, log_every=1)
    assert (run.batches, run.finished) == (1, False)
    assert run.validation_mse is not None
    assert fc.load(run.path)
    assert float(rows(run.path / "log/train.csv")[0]["lr"]) == pytest.approx(3e-4 / 25, rel=1e-3)


@pytest.mark.parametrize("select", [None, "ssim"])
def test_patience_is_with_what_is_selected(select: str | None, tmp_path: Path) -> None:
    run = train(tmp_path / "run", steps=100, lr=3e-3, patience=2, validate_every=2, select=select)
    costs = [float(row["validation_mse"]) if select is None else -float(row["validation_ssim"])
             for row in rows(run.path / "log/validation.csv")]  # fmt: skip
    assert len(costs) < 50
    assert int(np.argmin(costs)) == len(costs) - 3, "two validations without a better one, and the end"


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_optimizer_and_schedule_runs(tmp_path: Path, optimizer: str, schedule: str) -> None:
    run = train(tmp_path / "run", steps=5, optimizer=optimizer, schedule=schedule, clip_norm=1.0, weight_decay=0.1,
                loss="mse", sampling="reverse-scheduled", log_every=1, validate_every=5)  # fmt: skip
    rates = [float(row["lr"]) for row in rows(run.path / "log/train.csv")]
    assert (len(set(rates)) == 1) == (schedule == "constant")


def test_recipes_and_totals() -> None:
    recipe = Training(lr=1.0, clip_norm=2.0)
    assert TrainingOptions(lr=0.5).recipe(recipe) == Training(lr=0.5, clip_norm=2.0)
    assert TrainingOptions(clip_norm=0).recipe(recipe).clip_norm is None
    assert TrainingOptions(epochs=3).total_batches(10) == 30
    assert TrainingOptions(steps=7, accumulate=2).total_batches(10) == 14
    assert TrainingOptions(steps=1000).validation_interval(500) == 500
    assert TrainingOptions(steps=7).validation_interval(500) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1, "steps": 1}, "choose one"),
        ({"batch": 0}, "batch is 0"),
        ({"epoch": 1}, "Did you mean 'epochs'"),
        ({"optimizer": "adamm"}, "Did you mean 'adam'"),
        ({"loss": "l2"}, "no loss 'l2'"),
        ({"schedule": "cosine"}, "Did you mean 'warmup-cosine'"),
        ({"sampling": "sheduled"}, "Did you mean 'scheduled'"),
        ({"minutes": 0}, "minutes is 0"),
        ({"batch": 64}, "fewer than one batch"),
        ({"init_from": "nowhere"}, "nowhere"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"lr": float("inf")}, "lr is inf and must be a finite number"),
        ({"lr": float("nan")}, "lr is nan and must be a finite number"),
        ({"lr": 0.0}, "lr is 0.0 and must be above 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0 and must be at least 0"),
        ({"penalty_weight": float("inf")}, "penalty_weight is inf"),
        ({"clip_norm": -1.0}, "clip_norm is -1.0"),
        ({"trainer": {"limit_val_batches": float("inf")}}, "trainer.limit_val_batches is inf"),
        ({"augment": "flip"}, "Did you mean 'flips'"),
    ],
)
def test_impossible_options_leave_no_folder(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_numbers_that_are_not_finite_are_refused_everywhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="attention_dropout is nan"):
        fc.create_model("earthformer", attention_dropout=float("nan"))
    with pytest.raises(ValueError, match="speed is inf"):
        fc.data("moving-mnist", speed=[0.0, float("inf")])
    with pytest.raises(ValueError, match=r"scaling.high is inf"):
        fc.data(np.zeros((20, 8, 8)), scaling={"kind": "min-max", "low": 0.0, "high": float("inf")})
    run = train(tmp_path / "run", steps=1)
    with pytest.raises(ValueError, match="thresholds is nan"):
        fc.evaluate(run, scores=["rain"], score_options={"thresholds": [float("nan")]}, limit=2, progress=False)


def test_models_and_data_that_do_not_meet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in_channels=1"):
        fc.train("convlstm", "moving-mnist", out=tmp_path / "run", model_options={"in_channels": 3}, data_options=DATA)
    with pytest.raises(ValueError, match="needs a model"):
        fc.train(out=tmp_path / "run")
    with pytest.raises(ValueError, match="made already"):
        fc.train(fc.create_model("convlstm"), "moving-mnist", out=tmp_path / "run", model_options=MODEL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere; the disk error is tested by a full device")
def test_a_read_only_disk(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write"):
        train(tmp_path / "run", steps=1)


@pytest.mark.parametrize(("weight", "adapter"), [(None, True), (0.0, False)])
def test_a_penalty_of_no_weight_builds_no_adapter(tmp_path: Path, weight: float | None, adapter: bool) -> None:
    run = fc.train("predrnn-v2", "moving-mnist", out=tmp_path / "run", model_options=MODEL, data_options=DATA, steps=2,
                   progress=False, penalty_weight=weight)  # fmt: skip
    assert any("adapter" in name for name, _ in fc.load(run.path).named_parameters()) == adapter
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["training"]["sampling"] == "reverse-scheduled"
    assert config["training"]["penalty_weight"] == (0.01 if adapter else 0)


@pytest.mark.parametrize("name", ["simvp", "earthformer"])
def test_one_shot_models_train_by_their_own_recipe(tmp_path: Path, name: str) -> None:
    options = {"context": 2, "horizon": 2, **SMALL_ONE_SHOT.get(name, {})}
    run = fc.train(name, "moving-mnist", out=tmp_path / "run", model_options=options, data_options=DATA, steps=3,
                   progress=False, log_every=1)  # fmt: skip
    rates = {row["lr"] for row in rows(run.path / "log/train.csv")}
    assert len(rates) == 3
    assert fc.evaluate(run.path, limit=2, progress=False)["clips"] == 2
