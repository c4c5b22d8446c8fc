"""A compiled time step computes what the step does, and every way of running it is chosen with a reason."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.models import CONTEXT, HORIZON, pyramids_in_long_form, small_clip, small_model

import framecast as fc
from framecast.cells import native
from framecast.compute import compiling
from framecast.compute.compiling import Way, apply_way, choose_way, compile_step, speed_up, undo_way
from framecast.compute.placement import arrange
from framecast.errors import OptionError, UnknownNameError
from framecast.registry import model_entry
from framecast.training.options import training_options

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {"size": 16, "context": 2, "horizon": 2, "clips": 30}
NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("c++") is None, reason="needs a C++ compiler"
)
# Said inside torch where it looks at states that carry a gradient.
OF_TORCH = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.mark.parametrize("name", pyramids_in_long_form(fc.list_models()))
def test_every_step_is_one_graph_of_the_compiler(name: str) -> None:
    model, clip = small_model(name).eval().double(), small_clip()[:, :CONTEXT].double()
    with torch.no_grad():
        expected = model(clip, HORIZON)
        torch.compiler.reset()
        step = getattr(model, model.compiled_method)
        setattr(model, model.compiled_method, torch.compile(step, backend="eager", fullgraph=True, dynamic=False))
        torch.testing.assert_close(model(clip, HORIZON), expected, rtol=0, atol=1e-12)


@NEEDS_COMPILER
@OF_TORCH
def test_a_compiled_step_learns_the_same() -> None:
    results = []
    clip = small_clip(height=8, width=8)[:, :2].double()
    for compiled in (False, True):
        model = small_model("convlstm", hidden=4, layers=1).train().double()
        if compiled:
            compile_step(model)
        frames = model.rollout(clip, 1, 1).frames
        frames.square().sum().backward()
        results.append([frames, *(p.grad for p in model.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * float(theirs.detach().abs().max()))


@NEEDS_COMPILER
@OF_TORCH
def test_compiled_runs_learn_resume_and_forecast_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    common = {"data_options": TINY, "model_options": {"hidden": 4, "layers": 1}, "steps": 2, "save_every": 1,
              "batch": 2, "progress": False, "precision": "64-true", "recompute": 1}  # fmt: skip
    past = np.random.default_rng(0).random((2, 16, 16), np.float32)
    plain = fc.train("convlstm", "moving-mnist", out=tmp_path / "plain", **common).path  # type: ignore[arg-type]
    ours = fc.train("convlstm", "moving-mnist", out=tmp_path / "compiled", compile="step", **common).path  # type: ignore[arg-type]
    assert "time step compiled; to prepare that took" in caplog.text
    weights = fc.load(ours).state_dict()
    for key, tensor in fc.load(plain).state_dict().items():
        torch.testing.assert_close(weights[key], tensor, rtol=0, atol=1e-7)
    (ours / "checkpoints" / "batch-000000002.ckpt").unlink()
    fc.train(resume=True, out=ours, progress=False)
    for key, tensor in fc.load(ours).state_dict().items():
        assert torch.equal(weights[key], tensor)
    np.testing.assert_allclose(fc.predict(plain, past, compile="step"), fc.predict(plain, past), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("mode", "device", "steps", "way"), [
    ("none", CUDA, 10_000, Way(False, False)),
    ("step", CUDA, 1, Way(True, False)),
    ("auto", CPU, 10_000, Way(False, False)),
    ("auto", CUDA, 10, Way(False, True)),
    ("auto", CUDA, None, Way(False, True)),
    ("graph", CUDA, 10, Way(True, True)),
])  # fmt: skip
def test_the_way_of_a_mode(mode: str, device: torch.device, steps: int | None, way: Way) -> None:
    assert choose_way(mode, small_model("convlstm"), device, steps=steps) == way


def test_long_trainings_are_compiled_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("convlstm")
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/cc")
    assert choose_way("auto", model, CUDA, steps=500) == Way(True, True)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert choose_way("auto", model, CUDA, steps=500) == Way(False, True)


def test_what_hinders_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("convlstm")
    assert choose_way("auto", model, CUDA, obstacle="so").text() == "computed as it is (so)"
    entry = replace(model_entry("convlstm"), capturable=False)
    monkeypatch.setattr(compiling, "model_entry", lambda _: entry)
    assert choose_way("graph", model, CUDA) == Way(True, False, "convlstm cannot be captured")
    with pytest.raises(OptionError, match="for CUDA and the model is on cpu"):
        choose_way("graph", model, CPU)
    with pytest.raises(UnknownNameError, match="Did you mean 'graph'"):
        speed_up(model, "grap")
    with pytest.raises(UnknownNameError, match="Known: auto, graph, none, step"):
        fc.train(model, "moving-mnist", out="x", compile="max")


def test_runs_of_earlier_versions_say_true_or_false() -> None:
    assert training_options({"compile": True}).compile == "step"
    assert training_options({"compile": False}).compile == "none"


def test_a_way_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("convlstm")
    before = set(vars(model))
    apply_way(model, Way(True, True))
    assert {"_step", "continue_past", "observe", "forecast"} <= set(vars(model))
    undo_way(model)
    assert set(vars(model)) == before
    monkeypatch.setattr(compiling, "can_capture", lambda _: False)
    assert speed_up(model) is model
    assert set(vars(model)) == before


def test_a_step_is_one_graph_where_native_code_was_not_looked_for_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_found", [])
    model, clip, graphs = small_model("convlstm").eval(), small_clip()[:, :CONTEXT], []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    arrange(model, "channels-first", CPU)
    monkeypatch.setattr(torch, "compile", partial(compile_with, torch.compile, count))
    compile_step(model)
    torch.compiler.reset()
    with torch.no_grad():
        model.observe(clip[:, :1])  # type: ignore[operator]
    assert len(graphs) == 1


def compile_with(compile: Any, backend: Any, function: Any, **options: Any) -> Any:
    """Compile as asked for, by another backend and whole."""
    return compile(function, backend=backend, fullgraph=True, dynamic=options["dynamic"])
