"""Where and how numbers are kept changes speed and memory, not what is computed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from samples.models import CONTEXT, HORIZON, RECURRENT, small_clip, small_model

import framecast as fc
from framecast.compute.placement import arithmetic, arrange
from framecast.errors import UnknownNameError

CPU = torch.device("cpu")
TINY = {"size": 16, "context": 2, "horizon": 2, "clips": 30}


@pytest.mark.parametrize("name", fc.list_models())
def test_channels_last_gives_the_same_numbers(name: str) -> None:
    # In float64: what is left is the order of sums, on any processor.
    model, clip = small_model(name).eval().double(), small_clip().double()
    results = []
    for layout in ("channels-first", "channels-last"):
        arrange(model, layout, CPU)
        model.zero_grad()
        frames = model.rollout(clip, CONTEXT, HORIZON).frames
        frames.square().sum().backward()
        results.append([frames, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * float(theirs.detach().abs().max()) + 1e-12)


@pytest.mark.parametrize("name", RECURRENT)
def test_states_follow_the_layout(name: str) -> None:
    model = small_model(name)
    arrange(model, "channels-last", CPU)
    maps = []
    for label, layer in model.layers().items():
        if label.startswith("layer"):
            layer.register_forward_pre_hook(lambda _, given: maps.append(given[0]))
    model(small_clip()[:, :CONTEXT], HORIZON)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in maps)


def test_no_such_layout() -> None:
    with pytest.raises(UnknownNameError, match="channels-last"):
        arrange(small_model("convlstm"), "chanels-last", CPU)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return fc.load(folder).state_dict()


def test_training_leanly_and_channels_last_learns_the_same(tmp_path: Path) -> None:
    # In float64, as Adam turns the rounding of a small gradient into a step of the size of any other.
    common = {"model_options": {"hidden": 4, "layers": 2}, "steps": 3, "batch": 2, "progress": False,
              "precision": "64-true"}  # fmt: skip
    ways = {"plain": {}, "lean": {"recompute": "lean"}, "last": {"layout": "channels-last"}}
    for way, options in ways.items():
        fc.train("ms-predrnn-v2", "moving-mnist", data_options=TINY, out=tmp_path / way, **common, **options)  # type: ignore[arg-type]
    plain, lean, last = (weights_of(tmp_path / way) for way in ways)
    assert all(torch.equal(lean[key], plain[key]) for key in plain)
    for key in plain:
        torch.testing.assert_close(last[key], plain[key], rtol=0, atol=1e-7)
    # Recomputation is no part of what is computed: a run may go on without it, or with it.
    fc.train(resume=True, out=tmp_path / "lean", recompute=1, progress=False)


def test_training_with_bfloat16(tmp_path: Path) -> None:
    options = {"model_options": {"hidden": 4, "layers": 2}, "steps": 2, "batch": 2, "progress": False}
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        out = tmp_path / precision
        fc.train("ms-lstm", "moving-mnist", data_options=TINY, out=out, precision=precision, **options)  # type: ignore[arg-type]
        weights = weights_of(out)
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        losses.append(torch.cat([tensor.flatten() for tensor in weights.values()]))
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=5e-3)
    assert not torch.equal(losses[1], losses[0])


@pytest.mark.parametrize("protocol", ["forecast", "as-published"])
def test_forecasts_and_scores_in_bfloat16(protocol: Any, tmp_path: Path) -> None:
    run = fc.train("ms-lstm", "moving-mnist", data_options=TINY, model_options={"hidden": 4, "layers": 2}, steps=20,
                   lr=1e-2, out=tmp_path / "run", progress=False).path  # fmt: skip
    past = np.random.default_rng(0).random((2, 16, 16), np.float32)
    found = {}
    for precision in ("32-true", "bf16-mixed"):
        results = fc.evaluate(run, protocol=protocol, precision=precision, bootstrap=0, limit=4, progress=False)
        assert results["precision"] == precision
        found[precision] = fc.predict(run, past, precision=precision), results["forecasts"]
    (full, exact), (mixed, near) = found.values()
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, full, rtol=0, atol=2e-2)
    assert not np.array_equal(mixed, full)
    assert near["ms-lstm"]["mean"]["mse"] == pytest.approx(exact["ms-lstm"]["mean"]["mse"], rel=0.05)
    assert near["persistence"] == exact["persistence"], "scores themselves are computed in full"
    for verb in (lambda: fc.predict(run, past, precision="bf15"), lambda: fc.evaluate(run, precision="bf15")):
        with pytest.raises(UnknownNameError, match="Known: 32-true, bf16-mixed"):
            verb()


def test_process_wide_settings_are_restored() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    variable = os.environ.get("OMP_NUM_THREADS")
    with arithmetic(threads=3, tf32=True):
        assert torch.get_num_threads() == 3
        assert os.environ["OMP_NUM_THREADS"] == "3"
        assert torch.get_float32_matmul_precision() == "high"
    assert before == (
        torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32,
    )  # fmt: skip
    assert os.environ.get("OMP_NUM_THREADS") == variable
