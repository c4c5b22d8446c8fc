"""The benchmarks take hours; that they can begin, and that pages say what was measured, is tested here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from samples.paths import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_benchmark_finds_what_it_imports(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("numbers", sorted(FOLDER.glob("results/*.json")), ids=lambda path: path.stem)
def test_pages_say_what_was_measured(numbers: Path) -> None:
    script = numbers.stem if (FOLDER / f"{numbers.stem}.py").exists() else "bench"
    code = f"import {script}, json, sys; print({script}.page(json.load(sys.stdin)), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, input=numbers.read_text(), capture_output=True, text=True, check=True
    )
    assert done.stdout == numbers.with_suffix(".md").read_text()


def test_part_of_the_figures_does_not_replace_all() -> None:
    for option in (["--no-compile"], ["--models", "mim"]):
        command = [sys.executable, "bench.py", *option]
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "name another folder with --out" in done.stderr
