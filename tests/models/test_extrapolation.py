"""The extrapolation baseline: rain that moves, rain that does not, and nothing to follow."""

from __future__ import annotations

import sys

import pytest
import torch

from framecast.data.scaling import DbzPixel
from framecast.errors import MissingExtraError
from framecast.models.baselines import Persistence
from framecast.models.extrapolation import Extrapolation
from framecast.registry import make_baselines

SCALING = DbzPixel()

pytest.importorskip("pysteps", reason="pysteps needs a C compiler to install")


def drifting(pixels: int, frames: int, seed: int = 0) -> torch.Tensor:
    """Return showers (1, T, 1, 96, 96) in [0, 1] that move right by so many pixels a frame."""
    generator = torch.Generator().manual_seed(seed)
    field = torch.rand(1, 1, 96, 96 + pixels * frames, generator=generator)
    field = torch.nn.functional.avg_pool2d(field, 9, 1, 4)[0, 0]
    rates = ((field - 0.5) * 200).clamp(min=0)
    start = pixels * frames
    views = [rates[:, start - pixels * t : start - pixels * t + 96] for t in range(frames)]
    return SCALING.scale(torch.stack(views))[None, :, None]


def error(forecast: torch.Tensor, truth: torch.Tensor) -> float:
    return (forecast - truth)[..., 8:-8, 24:-8].square().mean().item()


def test_it_follows_the_motion() -> None:
    clip = drifting(3, 8)
    past, truth = clip[:, :4], clip[:, 4:]
    baseline = Extrapolation(SCALING)
    forecast = baseline(past, 4)
    assert forecast.shape == truth.shape
    assert baseline.fallbacks == 0
    assert error(forecast, truth) < 0.25 * error(Persistence(SCALING)(past, 4), truth)


def test_what_stands_under_the_mask_changes_nothing() -> None:
    past = drifting(3, 4)
    valid = torch.ones_like(past, dtype=torch.bool)
    valid[..., :20, :] = False
    baseline = Extrapolation(SCALING)
    forecasts = [baseline(past.where(valid, other), 2, valid) for other in (0.0, 0.9)]
    assert torch.equal(*forecasts)


def test_nothing_to_follow_is_persistence_and_counted() -> None:
    past = torch.cat([drifting(3, 4), torch.zeros(2, 4, 1, 96, 96)])
    past[1, :-1, :, 20:40, 20:40] = 0.7
    baseline = Extrapolation(SCALING)
    forecast = baseline(past, 3)
    assert baseline.fallbacks == 2
    assert torch.equal(forecast[1:], Persistence(SCALING)(past[1:], 3))
    assert forecast.isfinite().all()
    single = Extrapolation(SCALING)
    assert torch.equal(single(past[:1, -1:], 2), Persistence(SCALING)(past[:1], 2))
    assert single.fallbacks == 1


def test_frames_too_small_for_it() -> None:
    baseline = Extrapolation(SCALING)
    assert torch.equal(baseline(torch.full((1, 3, 1, 4, 4), 0.5), 2), torch.full((1, 2, 1, 4, 4), 0.5))
    assert baseline.fallbacks == 1


def test_without_pysteps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "extrapolation" not in make_baselines("mm/h", SCALING)
    monkeypatch.setitem(sys.modules, "pysteps.motion.lucaskanade", None)
    with pytest.raises(MissingExtraError, match=r"pysteps.*pip install 'framecast\[nowcast\]'"):
        make_baselines("mm/h", SCALING, ["extrapolation"])


def test_pysteps_says_nothing_on_the_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Extrapolation(SCALING)
    assert capsys.readouterr().out == ""
