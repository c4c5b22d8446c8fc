"""Recipes: each parses, its options exist, and the paper's four have the paper's settings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from framecast import cli
from framecast.registry import dataset_builder, model_entry
from framecast.training.options import training_options

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
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
    values = parsed(ROOT / f"recipes/{name}.yaml", capsys)
    epochs, options = PAPER[name]
    assert (values["model"], values["data"]) == ("ms-lstm", name)
    assert values["model_options"] == {"hidden": 32, "layers": 6}
    assert (values["epochs"], values["batch"], values["devices"], values["lr"]) == (epochs, 4, 4, 3e-4)
    assert options.items() <= values["data_options"].items()


def test_there_are_the_papers_and_one_for_knmi() -> None:
    assert {recipe.stem for recipe in RECIPES} >= {*PAPER, "knmi"}
