"""Outputs of layers: every model's, at every step, and the figure of the ablation models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.models import CONTEXT, HORIZON, RECURRENT, small_clip, small_model

import framecast as fc
from framecast import cli
from framecast.errors import DataError, RunFolderError
from framecast.probes.layer_outputs import record_layers

DATA: dict[str, Any] = {"size": 16, "context": 3, "horizon": 2, "clips": 60}
ABLATION = ["convlstm", "sms-lstm", "tms-lstm", "ms-lstm"]


@pytest.mark.parametrize("name", fc.list_models())
def test_every_layer_at_every_step(name: str) -> None:
    model, past = small_model(name).eval(), small_clip()[:, :CONTEXT]
    found = record_layers(model, past, HORIZON)
    assert list(found) == list(model.layers())
    assert all(maps.ndim == 5 and len(maps) == 2 and maps.isfinite().all() for maps in found.values())
    assert not any(maps.requires_grad for maps in found.values())
    # What comes out at the end is the forecast.
    assert torch.equal(found["head"][:, -HORIZON:], model(past, HORIZON))
    if name in RECURRENT:
        assert {maps.shape[1] for maps in found.values()} == {CONTEXT + HORIZON - 1}
    else:
        assert {maps.shape[1] for maps in found.values()} <= {1, CONTEXT, HORIZON}


def test_steps_are_those_of_streaming() -> None:
    model, past = small_model("sms-lstm").eval(), small_clip()[:, :CONTEXT]
    found = record_layers(model, past, 1)
    state, index = None, 2 * 3  # the state of a ConvLSTM is h, c: that of layer 3 starts at 6
    for step in range(CONTEXT):
        state = model.observe(past[:, step : step + 1], state)
        assert torch.equal(found["layer3"][:, step], state.layers[index])
        assert torch.equal(found["head"][:, step], state.frame)


def test_recording_leaves_the_model_as_it_was() -> None:
    model = small_model("convlstm").train()
    record_layers(model, small_clip()[:, :CONTEXT], 1)
    assert model.training
    assert not any(layer._forward_hooks for layer in model.layers().values())
    with pytest.raises(ValueError, match="horizon is 0"):
        record_layers(model, small_clip()[:, :CONTEXT], 0)
    assert not any(layer._forward_hooks for layer in model.layers().values())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ablation")
    for name in ABLATION:
        fc.train(name, "moving-mnist", out=folder / name, model_options={"hidden": 4}, data_options=DATA, steps=1,
                 progress=False)  # fmt: skip
    return [str(folder / name) for name in ABLATION]


def test_the_figure_of_the_ablation(runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["analyse", "layers", *runs, "--clip", "1", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "ms-lstm: input 4x1x16x16  embed 4x4x16x16  layer0 4x4x16x16  layer1 4x4x8x8  layer2 4x4x4x4" in shown
    svg = (tmp_path / "layer-outputs.svg").read_text()
    labels = [*ABLATION, "input", *(f"layer{number}" for number in range(6)), "output"]
    assert all(f">{label}</text>" in svg for label in labels)
    assert (tmp_path / "layer-outputs.png").read_bytes().startswith(b"\x89PNG")
    with np.load(tmp_path / "layer-outputs.npz", allow_pickle=False) as numbers:
        past = fc.data("moving-mnist", **DATA)["test"][1]["frames"][:3].numpy()
        forecast = fc.predict(runs[3], past, horizon=2)[0]
        assert np.array_equal(numbers["ms-lstm/input"][0, :3], past)
        np.testing.assert_allclose(numbers["ms-lstm/input"][0, 3:], forecast[:1], atol=1e-6)
        np.testing.assert_allclose(numbers["ms-lstm/head"][0, 2:], forecast, atol=1e-6)


def test_what_it_refuses(runs: list[str], tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="at least one run"):
        fc.analyse_layers([], out=tmp_path)
    with pytest.raises(DataError, match="so there is no 999999"):
        fc.analyse_layers(runs[:1], clip=999999, out=tmp_path)
    with pytest.raises(RunFolderError, match="check the path"):
        fc.analyse_layers([tmp_path / "nowhere"], out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_runs_of_one_model_keep_their_names(runs: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "again"
    copy.mkdir()
    for file in ("weights.safetensors", "config.yaml"):
        (copy / file).write_bytes((Path(runs[0]) / file).read_bytes())
    found = fc.analyse_layers([runs[0], copy], out=tmp_path / "figures")
    assert list(found) == ["convlstm", "convlstm (again)"]
