"""The benchmarks take hours; that they can begin is tested here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_every_benchmark_finds_what_it_imports(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
