"""What README and docs claim and a test can see: numbers, sizes, lists of pages, commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from samples.models import small_model
from samples.paths import ROOT

import framecast as fc
from framecast import cli
from framecast.errors import OptionError
from framecast.registry import list_models

README = (ROOT / "README.md").read_text()
DOCS = {page.relative_to(ROOT / "docs").as_posix(): page.read_text() for page in (ROOT / "docs").rglob("*.md")}
COMMANDS = [
    pytest.param(line, id=f"{name}: {line[:60]}")
    for name, text in [("README.md", README), *DOCS.items()]
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("framecast ")
]


def test_the_readmes_figures_of_cost_are_those_of_the_benchmark() -> None:
    (page,) = re.findall(r"\[These results\]\((benchmarks/results/[^)]+\.md)\)", README)
    results = (ROOT / page).read_text()
    table = {cells[1].strip(): [cell.strip() for cell in cells[2:4]] for cells in
             (line.split("|") for line in README.splitlines() if line.startswith("| ") and "x" in line)}  # fmt: skip
    measured = [line.split("|") for line in results.splitlines() if line.startswith("| ")]
    names = {"MS-LSTM": "ms-lstm", "ConvLSTM": "convlstm", "PredRNN": "predrnn", "MIM": "mim"}
    lines = {label: (name, measured) for label, name in names.items()}
    (wider,) = (label for label in table if "with AVX-512" in label)
    other = (ROOT / wider.split("(")[1].split(")")[0]).read_text()
    assert "AVX512" in other
    assert "AVX2" in results
    lines[wider] = "ms-lstm", [line.split("|") for line in other.splitlines() if line.startswith("| ")]
    for label, (name, found) in lines.items():
        rows = [row for row in found if row[1].strip() == name and row[3].strip() == "framecast" and " to " in row[6]]
        assert table[label] == [f"{row[5].strip()}x, {row[9].strip()}x" for row in rows], label
    (lean,) = (label for label in table if "lean" in label)
    rows = [row for row in measured if (row[1].strip(), row[3].strip()) == ("ms-lstm", "lean") and " to " in row[6]]
    assert table[lean] == [f"{row[5].strip()}x" for row in rows]
    peak = re.search(r"peak of a step, lean / none.*: ([\d.]+)\.", results)
    assert peak is not None
    assert f"{peak[1]} of the memory at the peak" in lean


def test_the_readmes_figures_of_a_gpu_are_those_of_the_benchmark() -> None:
    lines = json.loads((ROOT / "benchmarks/results/gpu.json").read_text())["lines"]
    took = {(row["way"], row["precision"]): row["train_ms"] for row in lines
            if (row["model"], row["batch"]) == ("ms-lstm", 16)}  # fmt: skip
    ours, released, published = took["graph", "bf16"], took["released", "fp32"], took["published", "tf32"]
    claim = f"{ours:.0f} ms in one graph (bf16), {released / ours:.0f}x and {published / ours:.1f}x as fast"
    assert claim in " ".join(README.split())


@pytest.mark.parametrize("name", list_models())
def test_models_take_frames_of_any_size_and_forecast_any_number(name: str) -> None:
    model, past = small_model(name).eval(), torch.rand(1, 3, 1, 19, 23)
    if name == "earthformer":  # "which is built for one"
        with pytest.raises(OptionError, match="was built for"):
            model(past, 2)
        past = torch.rand(1, 3, 1, 16, 16)
    with torch.no_grad():
        for horizon in (1, 2, 7):
            assert model(past, horizon).shape == (1, horizon, *past.shape[2:])
    assert "All but Earthformer, which is built for one, take frames of any size" in " ".join(README.split())


def test_the_home_page_names_every_page() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text().split("nav:")[1].join(["nav:", ""]))["nav"]
    pages = set(re.findall(r"[\w/-]+\.md", str(nav))) - {"index.md"}
    assert pages == DOCS.keys() - {"index.md"}
    assert pages == set(re.findall(r"\]\(([\w/-]+\.md)\)", DOCS["index.md"]))


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_docs_are_commands(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line parses: the verb runs up to where it would begin its work."""
    monkeypatch.chdir(ROOT)
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    parsed: list[Any] = []
    values = cli._values

    class Parsed(Exception):
        pass

    def stop(*arguments: Any) -> Any:
        parsed.append(values(*arguments))
        raise Parsed

    monkeypatch.setattr(cli, "_values", stop)
    monkeypatch.setattr(cli, "_import_modules", lambda words: [w for w in words if w not in ("--import", "my_cell.py")])
    if words[:1] == ["VERB"]:
        return
    with pytest.raises((Parsed, SystemExit)) as found:
        cli.main(words)
    assert parsed or found.value.args == (0,), line


def test_the_page_on_checkpoints_imports_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stored = load_file(ROOT / "tests/reference/mk_lstm.safetensors")
    weights = {key: value for key, value in stored.items() if key.startswith(("embed.", "rnns.", "fc."))}
    (code,) = re.findall(r"^```py\n(.*?)^```", DOCS["checkpoints.md"], re.M | re.S)
    save_file(weights, tmp_path / "checkpoint.safetensors")
    code = code.replace("checkpoint.pth", "checkpoint.safetensors").replace('"ms-lstm"', '"mk-lstm"')
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    assert fc.load("ms-lstm.safetensors")


def test_the_studies_of_the_results_page_are_in_the_repository() -> None:
    for folder in re.findall(r"`framecast study (studies/\w+)`", DOCS["results.md"]):
        assert (ROOT / folder / "tables.md").is_file()
        records = list((ROOT / folder / "results").glob("*.json"))
        assert records
        assert all(json.loads(record.read_text())["evaluation"]["clips"] for record in records)
