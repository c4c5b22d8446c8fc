"""Studies: every trial once, whatever happens in between, and tables that say what the records say."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from samples.holding import holding
from samples.paths import ROOT
from samples.studies import BY_HAND, STUDY, rows, write_record, write_study

import framecast as fc
from framecast import cli
from framecast.errors import DataError, TrialBusyError, UnknownNameError
from framecast.evaluation import ScoreAccumulator
from framecast.scores.family import Compared
from framecast.scores.image import ImageScores
from framecast.studies import run as conducting
from framecast.studies.plan import read_plan
from framecast.studies.records import find_record, trial_cost
from framecast.studies.run import run_trial
from framecast.training.losses import LOSSES


def test_two_models_and_two_seeds_end_in_tables(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    records = {str(trial): run_trial(plan, trial) for trial in plan.trials()}
    assert list(records) == ["convlstm-seed0", "ms-lstm-seed0", "convlstm-seed1", "ms-lstm-seed1"]
    record = records["ms-lstm-seed1"]
    assert record["recipe"]["training"] == {**STUDY["training"], "lr": 0.01, "seed": 1}
    assert record["training"] | {"seconds": 0, "seconds_per_clip": 0} == {
        "batches": 6, "steps": 6, "clips": 24, "seconds": 0, "seconds_per_clip": 0,
    }  # fmt: skip
    assert record["curve"]["clips"] == [12, 24]
    assert record["forecast"]["per_clip"]["clip"] == [0, 1, 2, 3, 4]
    each = statistics.mean(record["forecast"]["per_clip"]["mse"])
    assert each == pytest.approx(record["forecast"]["mean"]["mse"], rel=1e-5)
    assert record["cost"]["macs"] == fc.cost("ms-lstm", (4, 1, 16, 16), 2, hidden=4, layers=2).macs

    outcome = fc.study(tmp_path, tables=True)
    assert (outcome.remaining, outcome.failed, len(outcome.done)) == ([], {}, 4)
    for name in ("tables.csv", "differences.csv", "log.csv", "study-report.html", "figures/learning-time.svg"):
        assert (tmp_path / name).stat().st_size
    page = (tmp_path / "study-report.html").read_text()
    assert page.count("animation of clip") == 2
    assert 'class="best"' not in page
    assert not (tmp_path / "report-figures").exists()
    # A study that takes these trials shows their clips too.
    other = write_study(tmp_path / "other", models={"taken": {"model": "convlstm"}}, also=[".."], published=None,
                        reference="taken")  # fmt: skip
    assert len(fc.study(other, tables=True).done) == 2
    assert "|convlstm − truth|" in (tmp_path / "other/study-report.html").read_text()
    shutil.rmtree(plan.run_folder(plan.trial("ms-lstm", 0)))
    fc.study(tmp_path, tables=True)
    assert (tmp_path / "study-report.html").read_text() == page, "a part took the place of the whole"
    mine = [row for row in rows(tmp_path / "tables.csv") if (row["model"], row["score"]) == ("ms-lstm", "mse")]
    scores = [records[f"ms-lstm-seed{seed}"]["forecast"]["mean"]["mse"] for seed in (0, 1)]
    mean = next(row for row in mine if row["lead"] == "mean" and row["source"] == "ours")
    assert float(mean["mean"]) == pytest.approx(statistics.mean(scores))
    assert float(mean["deviation"]) == pytest.approx(statistics.stdev(scores))
    assert [row["lead"] for row in mine] == ["1", "2", "mean", "mean"]
    assert all(path.stat().st_size < 200_000 for path in (tmp_path / "results").iterdir())


def test_an_interrupted_cell_goes_on_and_a_recorded_one_never_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"models": {"convlstm": {}}, "seeds": [0], "published": None}
    training = {**STUDY["training"], "steps": 120, "validate_every": 60, "save_every": 10}
    plan = read_plan(write_study(tmp_path / "a", training=training, **changes))
    (trial,) = plan.trials()
    checkpoints = plan.run_folder(trial) / "checkpoints"
    monkeypatch.setattr(conducting._TrialRunner, "_late", lambda self: any(checkpoints.glob("*.ckpt")))
    outcome = fc.study(plan.file, threads=1)
    assert (outcome.done, outcome.remaining, outcome.failed) == ([], ["convlstm-seed0"], {})
    assert "interrupted, to be continued" in caplog.text
    reached = sorted(checkpoints.glob("*.ckpt"))[-1].name
    assert reached < "batch-000000120.ckpt"

    resumed = run_trial(plan, trial)
    other = read_plan(write_study(tmp_path / "b", training=training, **changes))
    straight = run_trial(other, other.trials()[0])
    assert resumed["forecast"] == straight["forecast"]
    assert resumed["curve"]["validation_mse"] == straight["curve"]["validation_mse"]
    assert [row["outcome"] for row in rows(tmp_path / "a/log.csv")] == ["interrupted", "done"]

    shutil.rmtree(tmp_path / "a/runs")
    assert run_trial(plan, trial) == resumed
    assert not plan.run_folder(trial).exists()
    assert len(rows(tmp_path / "a/log.csv")) == 2


def test_a_cell_that_is_trained_is_only_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = read_plan(write_study(tmp_path))
    trial = plan.trials()[0]

    def stopped(*given: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("framecast.studies.run.evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_trial(plan, trial)
    assert find_record(plan, trial) is None
    monkeypatch.setattr("framecast.studies.run.train", stopped)
    assert run_trial(plan, trial)["training"]["batches"] == 6


def test_a_run_killed_before_its_first_state_begins_again(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    trial = plan.trials()[0]
    plan.run_folder(trial).mkdir(parents=True)
    (plan.run_folder(trial) / "config.yaml").write_text("model: convlstm")
    assert run_trial(plan, trial)["training"]["batches"] == 6


def test_a_failing_cell_is_told_and_the_others_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = {"broken": {"model": "ms-lstm", "model_options": {"hidden": 0}}, "convlstm": {}}
    path = write_study(tmp_path, models=models, seeds=[0], published=None)
    assert cli.main(["study", str(path), "--jobs", "2", "--threads", "1"]) == 1
    said = capsys.readouterr()
    assert "failed: broken-seed0" in said.err
    assert "1 trials done, 1 left, 1 failed" in said.out
    assert (tmp_path / "results/convlstm-seed0.json").is_file()
    assert {row["trial"]: row["outcome"] for row in rows(tmp_path / "log.csv")} == {
        "broken-seed0": "failed",
        "convlstm-seed0": "done",
    }


def test_no_cell_starts_when_time_is_up(tmp_path: Path) -> None:
    outcome = fc.study(write_study(tmp_path), minutes=0)
    assert (outcome.done, len(outcome.remaining), outcome.failed) == ([], 4, {})
    assert "None of 4 trials is done" in (tmp_path / "tables.md").read_text()


def test_two_processes_never_share_a_trial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fcntl")
    plan = read_plan(write_study(tmp_path))
    trial = plan.trials()[0]
    lock = plan.run_folder(trial).with_name("seed0.lock")
    with holding(lock) as other:
        with pytest.raises(TrialBusyError, match=f"another process works on convlstm-seed0: process {other} on"):
            run_trial(plan, trial)
        assert cli.main(["study", str(plan.file), "--trial", "convlstm", "0"]) == conducting.BUSY
    assert "another process" in capsys.readouterr().err
    assert cli.main(["study", str(plan.file), "--trial", "convlstm", "0"]) == 0


def test_equal_cells_of_another_study_are_taken(tmp_path: Path) -> None:
    first = read_plan(write_study(tmp_path / "first"))
    write_record(first, "convlstm", 0, BY_HAND["convlstm", 0])
    write_record(first, "ms-lstm", 0, BY_HAND["ms-lstm", 0])
    models = {"plain": {"model": "convlstm"}, "ms-lstm": {}}
    second = write_study(tmp_path / "second", models=models, reference="plain", also=["../first"], published=None)
    # The model is equal under another label; ms-lstm is trained with another learning rate here.
    assert fc.study(second, tables=True).done == ["plain-seed0"]
    assert "| plain | 1 |" in (tmp_path / "second/tables.md").read_text()


def test_records_and_runs_of_another_recipe_are_refused(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    trial = plan.trials()[0]
    run_trial(plan, trial)
    changed = read_plan(write_study(tmp_path, training={**STUDY["training"], "steps": 7}))
    with pytest.raises(DataError, match=r"training\.steps=6 and stands as 7 .* restore the file"):
        fc.study(changed.file, minutes=0)
    changed.result_file(trial).unlink()
    with pytest.raises(DataError, match="delete the folder to begin again"):
        run_trial(changed, changed.trials()[0])
    changed.result_file(trial).write_text("{")
    with pytest.raises(DataError, match="not a record of a study's trial"):
        find_record(changed, changed.trials()[0])
    changed.result_file(trial).write_text("{}")
    with pytest.raises(DataError, match=r"not a record of a study's trial: .*recipe, cost"):
        find_record(changed, changed.trials()[0])
    changed.result_file(trial).unlink()
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "runs/convlstm/seed0.json").write_text(damaged)
        with pytest.raises(DataError, match=r"seed0\.json cannot be read.* delete it and .*seed0 to begin again"):
            run_trial(changed, changed.trials()[0])


def test_trials_tested_on_different_clips_are_refused(tmp_path: Path) -> None:
    plan = read_plan(write_study(tmp_path))
    for (label, seed), mse in BY_HAND.items():
        write_record(plan, label, seed, mse)
    path = plan.result_file(plan.trial("ms-lstm", 1))
    path.write_text(path.read_text().replace('"fingerprint": "f"', '"fingerprint": "g"'))
    with pytest.raises(DataError, match="delete the wrong record"):
        fc.study(tmp_path, tables=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sedes": [0]}, UnknownNameError, "key of a study .*'sedes'.* Did you mean 'seeds'"),
        ({"models": {"ms-lstmm": {}}}, UnknownNameError, "Did you mean 'ms-lstm'"),
        ({"models": {"convlstm": {"modell": "x"}}}, UnknownNameError, "Did you mean 'model'"),
        ({"models": {"convlstm": {"model_options": {"hiden": 3}}}}, UnknownNameError, "Did you mean 'hidden'"),
        ({"models": {"a/b": {"model": "convlstm"}}, "published": None}, ValueError, "'a/b' names files"),
        ({"models": ["convlstm"]}, ValueError, "must be names with values"),
        ({"training": {"step": 3}}, UnknownNameError, "Did you mean 'steps'"),
        ({"training": {"steps": "many"}}, ValueError, "study.yaml, training: .*steps"),
        ({"training": {"seed": 3}}, ValueError, "list seeds instead"),
        ({"training": {"minutes": 3}}, ValueError, "all trials must see the clips"),
        ({"evaluation": {"split": "test", "limits": 3}}, UnknownNameError, "Did you mean 'limit'"),
        ({"seeds": [0, 0]}, ValueError, "names a seed twice"),
        ({"seeds": [-1]}, ValueError, "must be a whole number of at least 0"),
        ({"seeds": None}, ValueError, "has no seeds"),
        ({"reference": "persistence"}, UnknownNameError, "to be a reference"),
        ({"published": {"values": {}}}, ValueError, "needs source and values"),
        ({"published": {**STUDY["published"], "values": {"mse": {"mim": 1}}}}, UnknownNameError, "of published.values"),
        ({"published": {**STUDY["published"], "values": {"mse": {"ms-lstm": "good"}}}}, ValueError, "must be a number"),
        ({"published": {**STUDY["published"], "values": {"mse": 3}}}, ValueError, "must be names with values"),
    ],
)  # fmt: skip
def test_a_bad_study_is_refused(tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_plan(write_study(tmp_path, **changes))


def test_bad_options_are_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no study"):
        fc.study(tmp_path / "nothing.yaml")
    with pytest.raises(UnknownNameError, match="model of this study"):
        fc.study(path, only=["convlstn"], minutes=0)
    with pytest.raises(ValueError, match="minutes is -1"):
        fc.study(path, minutes=-1)
    with pytest.raises(ValueError, match="has the seeds 0, 1 and not 7"):
        fc.study(path, trial=["convlstm", "7"])
    with pytest.raises(ValueError, match="a model's label and a seed"):
        fc.study(path, trial=["convlstm"])
    path.write_text("a: [")
    with pytest.raises(ValueError, match="is not YAML"):
        fc.study(path)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_trial_by_any_loss_is_counted(loss: str, tmp_path: Path) -> None:
    noise = 2 if LOSSES[loss].members else 0
    models = {"one": {"model": "convlstm", "model_options": {"noise": noise}, "training": {"loss": loss}}}
    plan = read_plan(write_study(tmp_path, models=models, reference="one", published=None))
    cost = trial_cost(plan, plan.trial("one", 0), (4, 1, 16, 16), 2)
    assert cost["peak_bytes"] > cost["saved_bytes"] > 0


def test_the_studies_of_the_repository_are_sound() -> None:
    files = sorted((ROOT / "studies").glob("*/study.yaml"))
    plans = {plan.name: plan for plan in map(read_plan, files)}
    assert {"ablation", "models", "pyramids"} <= plans.keys()
    for plan in plans.values():
        assert plan.file.parent.name == plan.name
        assert plan.out.resolve() == plan.file.parent.resolve()
        for model in plan.models.values():
            fc.create_model(model.name, **model.options)
    # What one study trains another takes: equal labels are equal recipes, for every seed they share.
    for label in plans["models"].models.keys() & plans["pyramids"].models.keys():
        recipes = [plans[name].recipe(plans[name].trial(label, 0)) for name in ("models", "pyramids")]
        assert recipes[0] == recipes[1]


def test_scores_of_each_clip_in_order_whoever_scored_them() -> None:
    family = {"image": ImageScores()}
    whole, even, odd = ScoreAccumulator(family), ScoreAccumulator(family), ScoreAccumulator(family)
    forecast, truth = torch.rand(4, 3, 1, 12, 12), torch.rand(4, 3, 1, 12, 12)

    def add(accumulator: ScoreAccumulator, clips: list[int]) -> None:
        accumulator.add(Compared(forecast[clips], truth[clips], None, lambda values: values), None, clips)

    add(whole, [0, 1, 2, 3])
    add(odd, [1, 3])
    add(even, [0, 2])
    odd.merge(even)
    assert odd.results()["per_clip"] == whole.results()["per_clip"]
    squared = (forecast - truth).square().sum((2, 3, 4)).mean(1).tolist()
    assert whole.results()["per_clip"]["mse"] == pytest.approx(squared)
    assert whole.results()["per_clip"]["clip"] == [0, 1, 2, 3]
