"""Laws over random shapes and values: what is padded, cut, scored or saved comes back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples.formats import tiny_model

from framecast.data.clips import ClipSpec, spec_from_dict
from framecast.data.grid import Grid, grid_from_dict
from framecast.data.scaling import DbzPixel, Log, MinMax, Scaling
from framecast.data.sources import ArraySource
from framecast.data.windows import WindowedClips, windows_by_number
from framecast.files import read_checked, write_checked
from framecast.models.earthformer.attention import Cuboid
from framecast.models.forecaster import pad_frames
from framecast.scores.family import Compared, add_counts, pool_counts
from framecast.scores.image import image_counts, image_scores
from framecast.scores.rain import RainScores
from framecast.training.losses import LOSSES
from framecast.training.options import TrainingOptions, training_options
from framecast.training.run_folder import RunFolder

often = settings(max_examples=200, deadline=None)
in_folders = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIDES = st.integers(1, 40)
SCALINGS: st.SearchStrategy[Scaling] = st.one_of(
    st.builds(lambda low, span: MinMax(low, low + span), st.floats(-100, 100), st.floats(0.1, 1000)),
    st.builds(lambda factor, exponent: DbzPixel(factor, exponent), st.floats(100, 400), st.floats(1, 2)),
    st.just(Log()),
)


# ---- pad, crop, patches


@often
@given(SIDES, SIDES, st.sampled_from([1, 2, 4, 8, 24]), st.integers(0, 99))
def test_padded_frames_hold_the_frames(height: int, width: int, multiple: int, seed: int) -> None:
    frames = torch.rand(1, 2, 1, height, width, generator=torch.Generator().manual_seed(seed))
    padded = pad_frames(frames, multiple, pad=True)
    rows, columns = padded.shape[-2:]
    assert rows % multiple == columns % multiple == 0
    assert 0 <= rows - height < multiple
    assert 0 <= columns - width < multiple
    assert torch.equal(padded[..., :height, :width], frames)
    assert torch.equal(padded[..., height:, :width], frames[..., -1:, :].expand(-1, -1, -1, rows - height, -1))
    fits = not (height % multiple or width % multiple)
    if fits:
        assert pad_frames(frames, multiple, pad=False) is frames
    else:
        with pytest.raises(ValueError, match="drop pad=False"):
            pad_frames(frames, multiple, pad=False)


@often
@given(
    st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.integers(0, 3)] * 3),
    st.sampled_from(["zeros", "ignore"]), st.booleans(),
)  # fmt: skip
def test_patches_come_back(
    shape: tuple[int, ...], size: tuple[int, ...], shift: tuple[int, ...], padding: str, dilated: bool
) -> None:
    boxes = Cuboid(size, dilated, shift, padding)  # type: ignore[arg-type]
    tokens = torch.arange(math.prod(shape) * 2.0).reshape(1, *shape, 2)
    assert torch.equal(boxes.join(boxes.cut(tokens), shape), tokens)


@often
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4), st.integers(1, 3))
def test_crops_and_whole_fractions(rows: int, columns: int, top: int, left: int, factor: int) -> None:
    height, width = top + rows * factor + 1, left + columns * factor + 2
    frames = np.arange(height * width, dtype=np.float32).reshape(1, 1, height, width)
    box = (top, top + rows * factor, left, left + columns * factor)
    whole = Grid(box).apply(frames, MinMax())
    assert np.array_equal(whole, frames[..., box[0] : box[1], box[2] : box[3]])
    mean = Grid(box, (rows, columns), "mean").apply(frames, MinMax())
    assert mean.shape[-2:] == (rows, columns)
    assert mean.mean() == pytest.approx(whole.mean(), rel=1e-5)
    thinned = Grid(box, (rows, columns)).apply(frames, MinMax())
    assert set(thinned.ravel()) <= set(whole.ravel())


# ---- scores


@often
@given(st.integers(0, 10**6), st.integers(1, 3), st.floats(0, 1))
def test_bounds_and_merging_of_scores(seed: int, cut: int, wet: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = [torch.rand(4, 2, 1, 12, 12, generator=generator) for _ in range(2)]
    frames = [values.where(torch.rand(values.shape, generator=generator) < wet, 0.0) for values in frames]
    valid = torch.rand(frames[0].shape, generator=generator) < 0.9
    family, unscale = RainScores(scales=[1, 3]), DbzPixel().unscale

    def counts(part: slice) -> list[dict[str, torch.Tensor]]:
        forecast, truth, mask = frames[0][part], frames[1][part], valid[part]
        rain = family.counts(Compared(forecast, truth, mask, unscale))
        return [pool_counts(found, 0) for found in (image_counts(forecast, truth), rain)]

    for whole, first, second in zip(counts(slice(None)), counts(slice(cut)), counts(slice(cut, None)), strict=True):
        for name, values in add_counts(first, second).items():
            torch.testing.assert_close(values, whole[name], rtol=1e-9, atol=1e-9)
    image, rain = counts(slice(None))
    scores = {**image_scores(image), **family.scores(rain)}
    assert (scores["ssim"] <= 1 + 1e-9).all()
    assert (scores["psnr"] <= 100).all()
    for name, values in scores.items():
        known = values[values.isfinite()]
        if name.startswith(("csi", "pod", "far", "fss", "accuracy")):
            assert ((known >= -1e-9) & (known <= 1 + 1e-9)).all(), name
        if name.startswith(("mse", "mae", "rmse")):
            assert (known >= 0).all(), name
        if name.startswith("hss"):
            assert ((known >= -1 - 1e-9) & (known <= 1 + 1e-9)).all(), name


# ---- dry frames


@often
@given(st.integers(0, 10**6), st.sampled_from(["all dry", "one dry", "one wet pixel", "dry and no data"]), SCALINGS)
def test_dry_input_gives_finite_output(seed: int, kind: str, scaling: Scaling) -> None:
    rng = np.random.default_rng(seed)
    frames = np.zeros((6, 1, 8, 8), np.float32)
    if kind == "one dry":
        frames[:] = rng.gamma(0.5, 3, frames.shape)
        frames[rng.integers(6)] = 0
    elif kind == "one wet pixel":
        frames[rng.integers(6), 0, rng.integers(8), rng.integers(8)] = rng.gamma(0.5, 30)
    elif kind == "dry and no data":
        frames[rng.random(frames.shape) < 0.5] = np.nan
    sample: Any = WindowedClips(ArraySource(frames), windows_by_number(6, 6), scaling)[0]
    clip, valid = sample["frames"][None], sample["valid"][None]
    rollout = tiny_model().rollout(clip, 3, 3)
    assert rollout.frames.isfinite().all()
    truth, seen = clip[:, rollout.first :], valid[:, rollout.first :]
    for loss in LOSSES.values():
        value = loss(rollout.frames, truth, seen)
        assert value.isfinite()
        # What stands where there is no data weighs exactly nothing.
        other = loss(rollout.frames, truth.where(seen, torch.tensor(float(rng.normal()))), seen)
        assert torch.equal(value, other)


# ---- configurations


OPTIONS = st.fixed_dictionaries(
    {"batch": st.integers(1, 64), "seed": st.integers(0, 2**31), "sampling": st.sampled_from([None, "none"])},
    optional={"epochs": st.integers(1, 9), "lr": st.floats(1e-6, 1, allow_subnormal=False), "precision": st.text(),
              "minutes": st.floats(0.1, 1e6), "init_from": st.text(), "trainer": st.dictionaries(
                  st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.integers()))),
              },
)  # fmt: skip


@in_folders
@given(OPTIONS, st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.floats(allow_nan=False))))
def test_configurations_come_back(tmp_path: Path, options: dict[str, Any], given_options: dict[str, Any]) -> None:
    from dataclasses import asdict

    chosen = TrainingOptions(**options)
    config = {"model": "ms-lstm", "model_options": given_options, "data": "own", "data_options": given_options,
              "training": asdict(chosen)}  # fmt: skip
    folder = RunFolder(tmp_path)
    folder.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    read = folder.read_config()
    assert read == config
    assert training_options(read["training"]) == chosen


@often
@given(
    st.tuples(*[st.integers(1, 999)] * 5), SCALINGS, st.one_of(st.none(), st.floats(1, 1e6)),
    st.one_of(st.none(), st.builds(Grid, st.tuples(*[st.integers(0, 9)] * 4), st.tuples(SIDES, SIDES),
                                   st.sampled_from(["decimate", "mean"]))),
)  # fmt: skip
def test_facts_of_clips_come_back(
    sizes: tuple[int, ...], scaling: Scaling, interval: float | None, grid: Grid | None
) -> None:
    spec = ClipSpec(*sizes, "mm/h", scaling, interval, grid)  # type: ignore[arg-type]
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    if grid:
        assert grid_from_dict(json.loads(json.dumps(grid.to_dict()))) == grid


@in_folders
@given(st.binary(max_size=200))
def test_checked_files_come_back(tmp_path: Path, content: bytes) -> None:
    write_checked(tmp_path / "a", "thing", content)
    assert read_checked(tmp_path / "a", "thing") == content
