"""One of each kind is added as CONTRIBUTING says: one module, one line in a table of the registry."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples.fresh import run_framecast

import framecast as fc
from framecast import registry
from framecast.cells.cell import Cell
from framecast.errors import CellError, OptionError
from framecast.registry import BaselineEntry, CellEntry, FileFormat

CELL = """
import torch
from torch import nn
from framecast.cells.cell import Cell, zeros


class Leaky(Cell):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels, channels, 1)

    def init_state(self, x):
        return (zeros(x),)

    def forward(self, x, state, memory):
        h = 0.9 * state[0] + torch.tanh(self.conv(x))
        return h, (h,), memory


def column(channels, depth):
    return [Leaky(channels) for _ in range(depth)]
"""
FORMAT = """
import json
import numpy as np
from framecast.data.sources import ArraySource


def open_json(path, options):
    source = ArraySource(np.array(json.loads(path.read_text()), np.float32)[:, None])
    source.where = str(path)
    return source
"""
DATA_SET = '''
"""Noise: frames without any order."""
import numpy as np
from framecast.data.clips import SPLITS, ClipData, ClipSpec
from framecast.data.scaling import MinMax
from framecast.data.sources import ArraySource
from framecast.data.windows import WindowedClips, windows_by_number


def open_noise(*, seed: int = 0):
    frames = np.random.default_rng(seed).random((30, 1, 8, 8), np.float32)
    windows = windows_by_number(30, 4, 2)
    parts = dict(zip(SPLITS, np.array_split(windows, 3), strict=True))
    clips = {split: WindowedClips(ArraySource(frames), part, MinMax()) for split, part in parts.items()}
    return ClipData("noise", {}, ClipSpec(8, 8, 1, 2, 2), clips)
'''
SCORE = """
import torch
from framecast.scores.family import ScoreFamily, ScoreInfo


class WorstPixel(ScoreFamily):
    @staticmethod
    def suits(unit):
        return True

    def info(self):
        return {"worst": ScoreInfo("worst pixel", best="low", table="Extremes", main=True)}

    def counts(self, pair):
        worst = (pair.forecast - pair.truth).abs().double().amax((2, 3, 4))
        return {"worst_sum": worst, "worst_frames": torch.ones_like(worst, dtype=torch.int64)}

    def scores(self, counts):
        return {"worst": counts["worst_sum"] / counts["worst_frames"]}
"""
BASELINE = """
from framecast.models.baselines import Baseline


class Grey(Baseline):
    def __call__(self, past, horizon, valid=None):
        return past.new_full((1,), 0.5).expand(past.shape[0], horizon, *past.shape[2:])
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules outside the package, and their lines in the tables."""
    modules = {"a_cell": CELL, "a_format": FORMAT, "a_data_set": DATA_SET, "a_score": SCORE, "a_baseline": BASELINE}
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(registry.CELLS, "leaky", CellEntry("a_cell:column", "Leaky", "nobody", "none"))
    monkeypatch.setitem(registry.DATASETS, "noise", "a_data_set:open_noise")
    monkeypatch.setitem(registry.SCORES, "worst", "a_score:WorstPixel")
    monkeypatch.setitem(registry.BASELINES, "grey", BaselineEntry("a_baseline:Grey"))
    monkeypatch.setattr(registry, "FORMATS", [*registry.FORMATS, FileFormat("*.json", "a_format:open_json")])


@pytest.mark.usefixtures("added")
def test_one_of_each(tmp_path: Path) -> None:
    assert {"leaky", "ms-leaky"} <= set(fc.list_models())
    assert fc.list_data()["noise"] == "Noise: frames without any order."
    options = {"model_options": {"hidden": 4, "layers": 2}, "steps": 2, "batch": 2, "progress": False}
    run = fc.train("ms-leaky", "noise", out=tmp_path / "run", **options)
    results = fc.evaluate(run.path, progress=False)
    assert results["forecasts"]["ms-leaky"]["mean"]["worst"] > 0
    assert {"grey", "persistence"} <= set(results["forecasts"])
    assert "worst pixel" in fc.report(run.path, out=tmp_path / "page.html", figures=False).read_text()
    frames = np.random.default_rng(1).random((5, 8, 8)).tolist()
    (tmp_path / "frames.json").write_text(json.dumps(frames))
    assert fc.data(tmp_path / "frames.json", context=2, horizon=1, shares=(1, 0, 0)).spec.height == 8
    assert fc.predict(run.path, tmp_path / "frames.json", horizon=3).shape == (1, 3, 1, 8, 8)


PLUGIN = """
import framecast as fc
from framecast.registry import DATASETS, SCORES
from a_cell import column
from a_data_set import open_noise
from a_score import WorstPixel

fc.register_cell("leaky", fc.CellEntry(column, "Leaky", "nobody", "none"), replace=True)
DATASETS["noise"] = "a_data_set:open_noise"
SCORES["worst"] = WorstPixel
"""
STUDY = """
name: own
data: noise
training: {steps: 2, batch: 2, progress: false}
seeds: [0]
model_options: {hidden: 2, layers: 2}
models: {ms-leaky: {}}
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with modules of one's own, none of which is installed."""
    modules = {"a_cell": CELL, "a_data_set": DATA_SET, "a_score": SCORE, "mine": PLUGIN}
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def test_what_is_registered_outside_works_in_every_verb_and_in_subprocesses(outside: Path) -> None:
    train = ["train", "--model", "ms-leaky", "--data", "noise", "--model_options.hidden", "2",
             "--model_options.layers", "2", "--steps", "2", "--batch", "2", "--progress", "false"]  # fmt: skip
    lost = run_framecast([*train, "--out", "run"], outside)
    assert lost.returncode == 1
    assert "--import MODULE" in lost.stderr
    done = run_framecast(["--import", "mine.py", *train, "--out", "run"], outside)
    assert done.returncode == 0, done.stderr
    assert "next: framecast evaluate --import mine.py run" in done.stdout
    lost = run_framecast(["evaluate", "run"], outside)
    assert "--import MODULE" in lost.stderr
    assert "fetch it again" not in lost.stderr
    done = run_framecast(["evaluate", "run", "--progress", "false", "--import=mine"], outside)
    assert "worst pixel" in done.stdout, done.stderr
    done = run_framecast(["study", "study.yaml", "--import", "mine.py"], outside)
    assert "1 trials done" in done.stdout, done.stderr
    measure = ["cost", "ms-leaky", "--shape", "4", "1", "8", "8", "--measure"]
    done = run_framecast(measure, outside, {"FRAMECAST_IMPORT": "mine"})
    assert "training step" in done.stdout, done.stderr


def test_an_installed_plugin_is_found_by_its_entry_point(outside: Path) -> None:
    facts = outside / "own_cells-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-cells\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[framecast.plugins]\nmine = mine\nbroken = nowhere\n")
    path = f"{outside}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = run_framecast(["models"], outside, {"PYTHONPATH": path})
    assert "ms-leaky" in done.stdout
    assert "plugin nowhere cannot be imported" in done.stderr
    assert done.returncode == 0


def a_cell(**changes: Any) -> Any:
    """Return a column of cells that keep the contract but for what is changed."""

    class Own(Cell):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.channels = channels

        def init_state(self, x: Any) -> Any:
            return changes.get("state", lambda x: (x,))(x)

        def forward(self, x: Any, state: Any, memory: Any) -> Any:
            return changes.get("result", lambda x, state, memory: (x, state, memory))(x, state, memory)

    return lambda channels, depth: [Own(changes.get("channels", channels)) for _ in range(changes.get("depth", depth))]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": 1}, "should give a list of 2 cells"),
        ({"channels": 3}, "says channels = 3 and was built for 4"),
        ({"state": lambda x: x}, r"init_state\(x\) is .* and should be a flat tuple of tensors"),
        ({"state": lambda x: ((x, x),)}, "should be a flat tuple of tensors"),
        ({"result": lambda x, state, memory: (x, state)}, "gives 2 results, and should give"),
        ({"result": lambda x, state, memory: x}, "gives Tensor, and should give"),
        ({"result": lambda x, state, memory: (x[:, :2], state, memory)}, "h is 1 x 2 x 16 x 16, and should be as x"),
        ({"result": lambda x, state, memory: (x, (x, x), memory)}, "the new state is"),
        ({"result": lambda x, state, memory: (x, state, (x,))}, "the memory is tuple"),
        ({"result": lambda x, state, memory: x @ x}, "gives Tensor"),
        ({"result": lambda x, state, memory: x.nowhere}, "fails: AttributeError"),
    ],
)
def test_a_cell_that_breaks_the_contract_is_refused_in_words(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CellError, match=said):
        fc.register_cell("broken", CellEntry(a_cell(**changes), "Broken", "nobody", "none"))
    assert "broken" not in registry.CELLS


def test_a_cell_is_replaced_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CELLS", dict(registry.CELLS))
    fc.register_cell("own", CellEntry(a_cell(), "Own", "nobody", "none"))
    with pytest.raises(OptionError, match="replace=True"):
        fc.register_cell("own", CellEntry(a_cell(), "Own", "nobody", "none"))
    fc.register_cell("own", CellEntry(a_cell(), "New", "nobody", "none"), replace=True)
    assert registry.CELLS["own"].title == "New"
    with pytest.raises(OptionError, match="choose another"):
        fc.register_cell("simvp", CellEntry(a_cell(), "Own", "nobody", "none"), replace=True)
