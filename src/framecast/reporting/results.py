"""Result folders as evaluate wrote them: reading, naming, and the columns that tables and curves share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.boundary import SMALL_BYTES, check_npz, reading
from framecast.errors import RunFolderError

Results = dict[str, Any]


def read_results(folder: Path) -> Results:
    """Return what results.json of a folder holds.

    Raises:
        RunFolderError: there is none.
        DataError: it is damaged.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise RunFolderError(f"{folder} holds no results.json: run framecast evaluate on it first")
    with reading(file, "is not what framecast evaluate writes", "evaluate again"):
        found: Results = json.loads(file.read_text())
        for needed in ("forecasts", "clip_spec", "scores"):
            if not found[needed]:
                raise ValueError(f"{needed} is empty")
    return found


def read_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the example clips of a folder: frames in physical units as float32, NaN where there is no data.

    Raises:
        DataError: examples.npz is damaged.
    """
    path = folder / "examples.npz"
    if not path.is_file():
        return {}
    with reading(path, remedy="evaluate again"):
        return _examples(path)


def _examples(path: Path) -> dict[str, NDArray[Any]]:
    check_npz(path, harmless=SMALL_BYTES)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    valid, times = arrays.pop("valid", None), arrays.pop("times", None)
    frames = {name: array.astype(np.float32) for name, array in arrays.items()}
    if valid is not None and "past" in frames:
        context = frames["past"].shape[1]
        for name, array in frames.items():
            seen = valid[:, :context] if name == "past" else valid[:, context : context + array.shape[1]]
            array[~np.broadcast_to(seen, array.shape)] = np.nan
    return frames if times is None else {**frames, "times": times}


def run_names(results: list[Results]) -> list[str]:
    """Call every run by its model, and by its folder too where two have the same model."""
    models = [found["model"] for found in results]
    return [
        f"{found['model']} ({found['run']})" if models.count(found["model"]) > 1 else found["model"]
        for found in results
    ]


def forecast_columns(names: list[str], results: list[Results], block: str) -> dict[str, tuple[Results, bool]]:
    """Return forecast name -> (its scores, whether it is a model), the baselines last and once."""
    models: dict[str, tuple[Results, bool]] = {}
    baselines: dict[str, tuple[Results, bool]] = {}
    for name, found in zip(names, results, strict=True):
        for forecast, scores in found.get(block, {}).items():
            if forecast == found["model"]:
                models[name] = (scores, True)
            else:
                # Runs of one test set share their baselines; another test set shows its own.
                label = forecast if found["fingerprint"] == results[0]["fingerprint"] else f"{forecast} of {name}"
                baselines.setdefault(label, (scores, False))
    return models | baselines


def score_infos(results: list[Results]) -> dict[str, dict[str, Any]]:
    """Return how each score of any of the results is shown."""
    infos: dict[str, dict[str, Any]] = {}
    for found in results:
        for score, info in found["scores"].items():
            infos.setdefault(score, info)
    return infos
