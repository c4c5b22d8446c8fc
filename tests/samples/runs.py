"""A small training, and what it logged."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import framecast as fc

MODEL: dict[str, Any] = {"hidden": 4, "layers": 2}
DATA: dict[str, Any] = {"size": 16, "context": 2, "horizon": 2, "clips": 60}
FAST: dict[str, Any] = {"batch": 4, "progress": False, "validate_every": 4, "log_every": 3}


def train(out: Path, **options: Any) -> Any:
    return fc.train("ms-lstm", "moving-mnist", out=out, model_options=MODEL, data_options=DATA, **{**FAST, **options})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
