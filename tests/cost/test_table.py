"""Tables of costs: rows that are measured, counted or impossible, kept, gone on with, and shown."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import framecast as fc
from framecast import cli
from framecast.cost import table as cost_table
from framecast.cost.fit import free_memory
from framecast.cost.measure import Measured
from framecast.cost.table import PAPER_SHAPES, CostRow, convolution_rate, make_cost_table, read_clips
from framecast.errors import MeasurementError, UnknownNameError

SHAPE, MODELS = "4,1,16,16", ["simvp", "convlstm"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were measured; none takes any time."""
    names: list[str] = []

    def measure(name: str, *_: Any, **__: Any) -> Measured:
        names.append(name)
        return Measured(10**8, 3 * 10**8, 1.0 + len(names), 0.5)

    monkeypatch.setattr(cost_table, "measure_step", measure)
    monkeypatch.setattr(cost_table, "measure_base", lambda: 10**8)
    monkeypatch.setattr(cost_table, "convolution_rate", lambda _: 1e11)
    return names


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_rows_and_ratios(measured: list[str], tmp_path: Path) -> None:
    told: list[str] = []
    make_cost_table([SHAPE], models=MODELS, out=tmp_path / "t.csv", progress=told.append)
    assert measured == ["convlstm", "simvp"]
    assert len(told) == 2
    convlstm, simvp = rows_of(tmp_path / "t.csv")
    counted = fc.cost("convlstm", (4, 1, 16, 16), 2)
    assert (int(convlstm["parameters"]), int(convlstm["macs"])) == (counted.parameters, counted.macs)
    assert convlstm["MACs_ratio"] == "1.0"
    assert float(simvp["MACs_ratio"]) == int(simvp["macs"]) / counted.macs
    assert float(simvp["memory_ratio"]) == int(simvp["counted"]) / int(convlstm["counted"])
    assert (convlstm["step"], simvp["step"], simvp["step_ratio"]) == ("2.0", "3.0", "1.5")


def test_a_table_is_gone_on_with(measured: list[str], tmp_path: Path) -> None:
    make_cost_table([SHAPE], models=["convlstm"], out=tmp_path / "t.md")
    text = make_cost_table([SHAPE, "4,1,8,8:1"], models=MODELS, out=tmp_path / "t.md")
    assert measured == ["convlstm", "simvp", "convlstm", "simvp"]
    assert (tmp_path / "t.md").read_text() == text
    assert text.count("| measured |") == 4
    assert text.count("### ") == 2
    assert "4 x 1 x 8 x 8, context 1" in text
    # Another batch is another row, beside those that are there.
    make_cost_table([SHAPE], models=["convlstm"], batch=2, out=tmp_path / "t.csv")
    assert [row["batch"] for row in rows_of(tmp_path / "t.csv")] == ["1"] * 4 + ["2"]
    assert make_cost_table([SHAPE, "4,1,8,8:1"], models=MODELS, out=tmp_path / "t.md") == text


def test_rows_that_cannot_be_measured(measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any, **__: Any) -> Measured:
        raise MeasurementError("was killed by signal 9")

    assert "would take" in make_cost_table([SHAPE], models=["convlstm"], seconds=1e-4)
    with monkeypatch.context() as patch:
        patch.setattr(cost_table, "free_memory", lambda: 10**8)
        assert "counted: may need" in make_cost_table([SHAPE], models=["convlstm"])
    assert measured == []
    monkeypatch.setattr(cost_table, "measure_step", killed)
    text = make_cost_table([SHAPE], models=["convlstm"])
    assert "counted: measuring was killed by signal 9" in text
    assert "0.44 M" in text


def test_a_row_that_cannot_be(measured: list[str], tmp_path: Path) -> None:
    # Earthformer takes no frames so small.
    for _ in range(2):
        text = make_cost_table(["4,1,2,2:2"], models=["earthformer"], out=tmp_path / "t.csv")
        assert "impossible: " in text
    assert measured == ["convlstm"]


def test_the_command(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", "--table", SHAPE, "4,1,8,8", "--models", "convlstm"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("| convlstm |") == 2
    assert shown.err.count("measured") == 2
    assert cli.main(["cost", "--table", "kht"]) == 1
    assert "Did you mean 'kth'" in capsys.readouterr().err


def test_clips_by_name_or_shape() -> None:
    assert [read_clips(name)[1:] for name in PAPER_SHAPES] == list(PAPER_SHAPES.values())
    assert read_clips("8,2,32,24:3")[1:] == ((8, 2, 32, 24), 3)
    assert read_clips("9,1,8,8").context == 4


@pytest.mark.parametrize("text", ["8,1,32", "8,1,0,32", "8,1,32,32:8", "8,1,32,32:0"])
def test_impossible_shapes(text: str) -> None:
    with pytest.raises(ValueError, match="write T,C,H,W"):
        read_clips(text)


def test_other_errors(measured: list[str], tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no model 'convlstn'"):
        make_cost_table([SHAPE], models=["convlstn"])
    with pytest.raises(ValueError, match=r"name a file \.csv or \.md"):
        make_cost_table([SHAPE], out=tmp_path / "t.txt")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a table of costs"):
        make_cost_table([SHAPE], models=["convlstm"], out=tmp_path / "t.csv")
    head = ",".join(CostRow._fields).encode()
    for damaged in (b"\xff\xfe", head + b"\nmoving-mnist,convlstm", head + b"\na,b,many", head + b'\n"\0"' * 2):
        (tmp_path / "t.csv").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"t\.csv is not a table of costs"):
            make_cost_table([SHAPE], models=["convlstm"], out=tmp_path / "t.csv")
    assert measured == []


def test_what_the_machine_can_do() -> None:
    assert free_memory() > 10**8
    assert 1e8 < convolution_rate(1) < 1e14
