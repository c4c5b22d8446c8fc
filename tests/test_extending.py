"""One of each kind is added as CONTRIBUTING says: one module, one line in a table of the registry."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import framecast as fc
from framecast import registry
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
    assert "worst pixel" in fc.report(run.path, out=tmp_path / "page.html").read_text()
    frames = np.random.default_rng(1).random((5, 8, 8)).tolist()
    (tmp_path / "frames.json").write_text(json.dumps(frames))
    assert fc.data(tmp_path / "frames.json", context=2, horizon=1, shares=(1, 0, 0)).spec.height == 8
    assert fc.predict(run.path, tmp_path / "frames.json", horizon=3).shape == (1, 3, 1, 8, 8)
