"""The demo, as short as it can be: every part runs, in order, and says where its pictures are."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from framecast import cli
from framecast.api.evaluate import evaluate
from framecast.demo import demo
from framecast.errors import MissingExtraError

parts = sys.modules[demo.__module__]  # the package has the function under the module's name


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DIGIT_CLIPS": 2,
        "RAIN_MEMBERS": 2,
        "SMALL_STEPS": 2,
        "SMALL_CLIPS": 2,
        "SMALL_MODEL": {"hidden": 4},
    }.items():
        monkeypatch.setattr(parts, name, value)


def test_the_demo_shows_digits_rain_and_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = demo(out=tmp_path / "demo", progress=False)
    shown = capsys.readouterr().out
    places = [shown.index(f"{number} of 3:") for number in (1, 2, 3)]
    assert places == sorted(places)
    assert "squared error of a frame before training" in shown
    assert str(page) in shown
    for part in ("digits", "rain", "training"):
        moving = Image.open(io.BytesIO((tmp_path / f"demo/{part}.gif").read_bytes()))
        assert getattr(moving, "n_frames", 1) > 1
        Image.open(tmp_path / f"demo/{part}.png").verify()
    text = page.read_text()
    assert [text.count(f"<h2>{number}. {name}</h2>") for number, name in
            ((1, "moving-mnist"), (2, "knmi-sample"), (3, "moving-mnist"))] == [1, 1, 1]  # fmt: skip
    assert text.index("animation of clip") < text.index("<table>"), "pictures come first"
    assert "2010-08-26, 03:20 to 04:55 UTC" in text


def test_a_quick_one_trains_nothing_a_second_takes_another_folder_and_what_is_missing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_extras(model: str, **options: Any) -> Any:
        if model == parts.RAIN:
            raise MissingExtraError("pysteps", "nowcast", "extrapolation")
        return evaluate(model, **options)

    monkeypatch.setattr(parts, "evaluate", without_extras)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/demo").mkdir(parents=True)
    assert cli.main(["demo", "--quick", "--progress", "false"]) == 0
    shown = capsys.readouterr().out
    assert "1 of 2:" in shown
    assert "and extrapolation needs pysteps, which is not installed: pip install 'framecast[nowcast]'" in shown
    assert "demo-2" in shown
    assert not (tmp_path / "runs/demo-2/training").exists()
