"""The demo, as short as it can be: every stage runs and says where its results are."""

from __future__ import annotations

from pathlib import Path

import pytest

from framecast import cli
from framecast.demo import demo


def test_the_demo_ends_with_a_report(tmp_path: Path) -> None:
    shown = demo(out=tmp_path / "demo", steps=2, hidden=4, batch=2, progress=False)
    assert "persistence" in shown
    for name in ("report.html", "forecast/forecast.gif", "results.json", "weights.safetensors"):
        assert (tmp_path / "demo" / name).is_file()
    assert str(tmp_path / "demo/report.html") in shown


def test_a_second_demo_takes_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/demo").mkdir(parents=True)
    arguments = ["demo", "--steps", "1", "--hidden", "2", "--batch", "1", "--progress", "false"]
    assert cli.main(arguments) == 0
    assert "demo-2" in capsys.readouterr().out
