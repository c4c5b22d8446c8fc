"""The trained models that come with the package do what their cards say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import framecast as fc
from framecast.errors import RunFolderError, UnknownNameError
from framecast.registry import shipped_runs

LARGEST = 4_000_000


@pytest.mark.parametrize("name", shipped_runs())
def test_it_loads_by_name_and_forecasts(name: str) -> None:
    model = fc.load(name)
    clips = model.clips
    assert clips is not None
    with torch.no_grad():
        forecast = model(torch.rand(1, clips.context, clips.channels, clips.height, clips.width), 3)
    assert forecast.shape == (1, 3, clips.channels, clips.height, clips.width)
    assert forecast.isfinite().all()
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


@pytest.mark.parametrize("name", shipped_runs())
def test_it_is_made_by_what_it_has_learned_from(name: str) -> None:
    model, data = name.split("-", 2)[:2], name.split("-", 2)[2]
    made, loaded = fc.create_model("-".join(model), pretrained=data), fc.load(name)
    assert made.training
    assert not loaded.training
    for one, other in zip(made.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    assert made.clips == loaded.clips


def test_what_pretrained_refuses() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'moving-mnist'"):
        fc.create_model("ms-lstm", pretrained="moving-mnits")
    with pytest.raises(UnknownNameError, match="no trained convlstm"):
        fc.create_model("convlstm", pretrained="moving-mnist")
    with pytest.raises(ValueError, match="hidden=32 and got 8"):
        fc.create_model("ms-lstm", pretrained="moving-mnist", hidden=8)
    with pytest.raises(UnknownNameError, match="Did you mean 'hidden'"):
        fc.create_model("ms-lstm", pretrained="moving-mnist", hiden=32)
    assert fc.create_model("ms-lstm", pretrained="moving-mnist", hidden=32, in_channels=1).spec is not None


@pytest.mark.parametrize(("name", "folder"), shipped_runs().items())
def test_it_is_small_and_has_a_card(name: str, folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    card = (folder / "card.md").read_text()
    assert card.startswith(f"# {name}\n")
    for section in ("## Data", "## Training", "## Scores", "## Limits", "## Licence"):
        assert section in card


def test_its_forecasts_of_digits_beat_what_needs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = fc.evaluate("ms-lstm-moving-mnist", limit=12, bootstrap=0, examples=1, progress=False)["forecasts"]
    ours = found.pop("ms-lstm")
    assert all(ours["mean"]["mse"] < other["mean"]["mse"] / 1.8 for other in found.values())
    assert ours["mean"]["ssim"] > found["persistence"]["mean"]["ssim"]
    # The package itself is no place for results.
    assert (tmp_path / "runs/ms-lstm-moving-mnist/results.json").is_file()


def test_its_forecasts_of_rain_beat_persistence(tmp_path: Path) -> None:
    pytest.importorskip("pysteps", reason="it adds to rain that pysteps moves on")
    found = fc.evaluate("ms-lstm-knmi", members=4, bootstrap=0, examples=1, out=tmp_path, progress=False)["forecasts"]
    ours, persistence = (found[name]["mean"] for name in ("ms-lstm", "persistence"))
    assert ours["mse"] < persistence["mse"]
    assert ours["csi_0.5"] > persistence["csi_0.5"]


def test_a_path_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ms-lstm-moving-mnist").mkdir()
    with pytest.raises(RunFolderError, match="holds no weights"):
        fc.load("ms-lstm-moving-mnist")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RunFolderError, match="ms-lstm-moving-mnist"):
        fc.load("ms-lstm-moving-mnits")
