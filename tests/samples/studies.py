"""A study small enough for tests, and records of it that can be checked by hand."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import yaml

from framecast.studies.plan import StudyPlan

STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": "moving-mnist",
    "data_options": {"size": 16, "context": 2, "horizon": 2, "clips": 30},
    "model_options": {"hidden": 4, "layers": 2},
    "training": {"steps": 6, "batch": 4, "lr": "1e-3", "validate_every": 3, "save_every": 1, "log_every": 2},
    "evaluation": {"limit": 5},
    "seeds": [0, 1],
    "reference": "convlstm",
    "models": {"convlstm": {}, "ms-lstm": {"training": {"lr": 0.01}}},
    "published": {"source": "a paper, Table 3", "values": {"mse": {"convlstm": 90.36, "ms-lstm": 52.63}}},
}


def write_study(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Scores of five test clips by model and seed, for tables that can be checked by hand.
BY_HAND = {("convlstm", 0): [10, 20, 30, 40, 50], ("convlstm", 1): [12, 22, 32, 42, 52],
           ("ms-lstm", 0): [8, 18, 28, 38, 48], ("ms-lstm", 1): [8, 18, 28, 38, 48]}  # fmt: skip


def write_record(plan: StudyPlan, label: str, seed: int, mse: list[float], **changes: Any) -> None:
    info = {"mse": {"label": "MSE", "best": "low", "table": "", "main": True}}
    mean = statistics.mean(mse)
    scores = {"mean": {"mse": mean}, "per_lead": {"mse": [mean - 1, mean + 1]}}
    record = {
        "study": plan.name,
        "model": label,
        "seed": seed,
        "recipe": plan.recipe(plan.trial(label, seed)),
        "cost": {"parameters": 1234, "macs": 5_000_000, "shape": [4, 1, 16, 16], "context": 2, "batch": 4,
                 "saved_bytes": 2_000_000, "peak_bytes": 3_500_000},
        "training": {"batches": 6, "clips": 24, "seconds": 3600, "seconds_per_clip": 0.25},
        "curve": {"batch": [3, 6], "clips": [12, 24], "seconds": [1, 2], "validation_mse": [5, 4]},
        "evaluation": {"data": "moving-mnist", "split": "test", "clips": 5, "fingerprint": "f", "horizon": 2,
                       "seconds_per_clip": 0.05, "scores": info, "notes": []},
        "forecast": {**scores, "per_clip": {"clip": [0, 1, 2, 3, 4], "mse": mse}},
        "baselines": {"persistence": {"mean": {"mse": 99}, "per_lead": {"mse": [98, 100]}}},
        **changes,
    }  # fmt: skip
    path = plan.result_file(plan.trial(label, seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
