"""The trained model that comes with the package does what its card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import framecast as fc
from framecast.errors import RunFolderError
from framecast.registry import shipped_runs

LARGEST = 8_000_000


@pytest.mark.parametrize("name", shipped_runs())
def test_it_loads_by_name_and_forecasts(name: str) -> None:
    model = fc.load(name)
    with torch.no_grad():
        forecast = model(torch.rand(1, 5, 1, 32, 32), 3)
    assert forecast.shape == (1, 3, 1, 32, 32)
    assert forecast.isfinite().all()


@pytest.mark.parametrize(("name", "folder"), shipped_runs().items())
def test_it_is_small_and_has_a_card(name: str, folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    card = (folder / "card.md").read_text()
    assert card.startswith(f"# {name}\n")
    for section in ("## Data", "## Training", "## Scores", "## Limits", "## Licence"):
        assert section in card


def test_its_forecasts_beat_persistence_and_are_no_blur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = fc.evaluate("ms-lstm-moving-mnist", limit=64, bootstrap=0, examples=1, progress=False)["forecasts"]
    ours, persistence = found["ms-lstm"], found["persistence"]
    assert ours["mean"]["mse"] < persistence["mean"]["mse"] / 2
    assert ours["per_lead"]["ssim"][-1] > persistence["per_lead"]["ssim"][-1]
    assert ours["per_lead"]["sharpness"][-1] >= 0.5
    # The package itself is no place for results.
    assert (tmp_path / "runs/ms-lstm-moving-mnist/results.json").is_file()


def test_a_path_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ms-lstm-moving-mnist").mkdir()
    with pytest.raises(RunFolderError, match="holds no weights"):
        fc.load("ms-lstm-moving-mnist")


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RunFolderError, match="ms-lstm-moving-mnist"):
        fc.load("ms-lstm-moving-mnits")
