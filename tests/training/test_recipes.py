"""Recipes: each parses, its options exist, and the paper's four have the paper's settings."""

from __future__ import annotations

import inspect
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from samples.paths import ROOT

from framecast import cli
from framecast.registry import dataset_builder, model_entry
from framecast.training.options import training_options

RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PAPER = {
    "moving-mnist": (40, {"size": 64, "context": 10, "horizon": 10}),
    "taxibj": (15, {"context": 4, "horizon": 4}),
    "kth": (20, {"size": 128, "context": 10, "horizon": 10}),
    "german-radar": (20, {"size": 180, "context": 4, "horizon": 4, "interval": 30}),
}


def parsed(recipe: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--config", str(recipe), "--out", "x", "--print_config"])
    assert stop.value.code == 0
    values: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return values


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_parse_and_their_options_exist(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = parsed(recipe, capsys)
    given = yaml.safe_load(recipe.read_text())
    assert {key: values[key] for key in given} == given
    assert values["data_options"].keys() <= inspect.signature(dataset_builder(values["data"])).parameters.keys()
    assert values["model_options"].keys() <= model_entry(values["model"]).options().keys()
    own = {"model", "model_options", "data", "data_options", "out", "resume"}
    training_options({key: value for key, value in values.items() if key not in own})


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_papers_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = parsed(ROOT / f"recipes/paper/{name}.yaml", capsys)
    epochs, options = PAPER[name]
    assert (values["model"], values["data"]) == ("ms-lstm", name)
    assert values["model_options"] == {"hidden": 32, "layers": 6}
    assert (values["epochs"], values["batch"], values["devices"], values["lr"]) == (epochs, 4, 4, 3e-4)
    assert options.items() <= values["data_options"].items()


def test_there_are_the_papers_and_ours() -> None:
    assert {recipe.stem for recipe in RECIPES} == {*PAPER, "moving-mnist-better", "digits", "knmi", "knmi-ensemble"}


def test_the_better_recipe_sees_as_many_clips(capsys: pytest.CaptureFixture[str]) -> None:
    paper, better = (parsed(ROOT / f"recipes/paper/moving-mnist{kind}.yaml", capsys) for kind in ("", "-better"))
    assert all(paper[key] == better[key] for key in ("model", "model_options", "data", "data_options", "epochs"))


def test_what_the_sbatch_file_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Stand-ins for the cluster's commands: one tells its arguments, the other the machines.
    for name, told in (("srun", 'echo "$@" >> started'), ("scontrol", "echo first; echo second")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{told}\n")
        (tmp_path / name).chmod(0o700)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    job = {"SLURM_JOB_NODELIST": "nodes", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **job, "DATA": "there", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = tmp_path / "runs/german-radar"
    for _ in range(2):
        subprocess.run(["bash", ROOT / "recipes/slurm.sbatch"], cwd=tmp_path, env=environment, check=True)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").touch()
    lines = (tmp_path / "started").read_text().splitlines()
    launch = (
        "--kill-on-bad-exit=1 torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-id 7 "
        "--rdzv-endpoint first:29500 -m framecast "
    )
    assert all(line.startswith(launch) for line in lines)
    verbs = [line.removeprefix(launch).split() for line in lines]
    assert [verb[0] for verb in verbs] == ["train", "evaluate"] * 2
    assert ["--resume" in verb for verb in verbs] == [False, False, True, False]
    for verb in verbs:
        given = [str(ROOT / word) if word.startswith("recipes/") else word for word in verb]
        with pytest.raises(SystemExit) as stop:
            cli.main([*given, "--print_config"])
        assert stop.value.code == 0
        assert "workers: 4" in capsys.readouterr().out
