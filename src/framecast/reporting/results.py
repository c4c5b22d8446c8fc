"""Read the results of evaluations, name the runs, and make tables and columns of them.

Which scores there are, and how they are labelled, is part of the results.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.errors import OptionError, RunNotFoundError
from framecast.files import read_sealed
from framecast.registry import resolve
from framecast.untrusted import SMALL_BYTES, check_npz, reading

Results = dict[str, Any]


def read_results(folder: Path) -> Results:
    """Return what results.json of a folder holds.

    Raises:
        RunNotFoundError: there is none.
        DataError: it is damaged.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise RunNotFoundError(f"{folder} holds no results.json: run framecast evaluate on it first")
    with reading(file, "is not what framecast evaluate writes", "evaluate again"):
        results: Results = read_sealed(file)
        for needed in ("forecasts", "clip_spec", "scores"):
            if not results[needed]:
                raise OptionError(f"{needed} is empty")
    return results


def read_examples(folder: Path) -> dict[str, NDArray[Any]]:
    """Return the example clips of a folder: frames in physical units as float32, NaN where there is no data.

    Raises:
        DataError: examples.npz is damaged, or of another evaluation than results.json.
    """
    path = folder / "examples.npz"
    if not path.is_file():
        return {}
    expected = read_results(folder).get("examples_sha256") if (folder / "results.json").is_file() else None
    with reading(path, remedy="evaluate again"):
        if expected is not None and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise OptionError("it is of another evaluation than results.json beside it, or has changed")
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
            mask = valid[:, :context] if name == "past" else valid[:, context : context + array.shape[1]]
            array[~np.broadcast_to(mask, array.shape)] = np.nan
    return frames if times is None else {**frames, "times": times}


def run_names(results: list[Results]) -> list[str]:
    """Call every run by its model, and by its folder too where two have the same model."""
    models = [run["model"] for run in results]
    return [f"{run['model']} ({run['run']})" if models.count(run["model"]) > 1 else run["model"] for run in results]


def forecast_columns(names: list[str], results: list[Results], block: str) -> dict[str, tuple[Results, bool]]:
    """Return forecast name -> (its scores, whether it is a model), the baselines last and once."""
    models: dict[str, tuple[Results, bool]] = {}
    baselines: dict[str, tuple[Results, bool]] = {}
    for name, run in zip(names, results, strict=True):
        for forecast, scores in run.get(block, {}).items():
            if forecast == run["model"]:
                models[name] = (scores, True)
            else:
                # Runs of one test set share their baselines; another test set shows its own.
                label = forecast if run["fingerprint"] == results[0]["fingerprint"] else f"{forecast} of {name}"
                baselines.setdefault(label, (scores, False))
    return models | baselines


def score_infos(results: list[Results]) -> dict[str, dict[str, Any]]:
    """Return how each score of any of the results is shown."""
    infos: dict[str, dict[str, Any]] = {}
    for run in results:
        for score, info in run["scores"].items():
            infos.setdefault(score, info)
    return infos


UNDEFINED = "–"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *more in rows:
        cells = [cell.rjust(width) for cell, width in zip(more, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def row_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as aligned text: whole numbers with separators, others with one decimal."""

    def text_of(value: Any) -> str:
        if value is None:
            return UNDEFINED
        return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)

    return text_table([list(rows[0]), *([text_of(value) for value in row.values()] for row in rows)])


def number_text(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits, without a power of ten where people read none."""
    if not math.isfinite(value) or (value and not 1e-5 <= abs(value) < 1e7):
        return f"{value:.{digits}g}"
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def range_text(low: float, high: float) -> str:
    """Return two numbers with as many digits as it takes to tell them apart, three to seven."""
    for digits in range(3, 8):
        texts = number_text(low, digits), number_text(high, digits)
        if texts[0] != texts[1]:
            break
    return " to ".join(texts)


def shown_score(value: float | None) -> str:
    """Return a score with four digits, a dash where it is undefined."""
    return UNDEFINED if value is None else number_text(value)


class Scores(dict[str, Any]):
    """What results.json holds, which a notebook shows as tables."""

    def __repr__(self) -> str:
        """Return the first main score of each forecast."""
        score = next(name for name, info in self["scores"].items() if info["main"])
        found = [f"{name} {shown_score(scores['mean'][score])}" for name, scores in self["forecasts"].items()]
        return f"{self['scores'][score]['label']} on {self['clips']} clips: {', '.join(found)}"

    def _repr_html_(self) -> str:
        return str(resolve("framecast.api.show:show")(self).html)


def score_table(results: Mapping[str, Any]) -> str:
    """Return the main scores of an evaluation as small text tables, one for each kind."""
    return "\n\n".join(text_table(rows) for rows in score_rows(results))


def score_rows(results: Mapping[str, Any]) -> list[list[list[str]]]:
    """Return the main scores of an evaluation in rows, one table for each kind, the heads first."""
    named = [
        *results["forecasts"].items(),
        *((f"{name}, as published", scores_of) for name, scores_of in results.get("as_published", {}).items()),
    ]
    kinds: dict[str, list[str]] = {}
    for score, info in results["scores"].items():
        if info["main"]:
            kinds.setdefault(info["table"], []).append(score)
    tables = []
    for scores in kinds.values():
        rows = [[name, *(shown_score(scores_of["mean"][score]) for score in scores)] for name, scores_of in named]
        tables.append([["forecast", *(results["scores"][score]["label"] for score in scores)], *rows])
    return tables


def score_csv(results: Mapping[str, Any]) -> str:
    """Return the scores of an evaluation per lead time, and of all together, as CSV; undefined ones are empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    names = list(results["scores"])
    writer.writerow(["forecast", "protocol", "lead", "clips", *names])
    blocks = {"forecast": results["forecasts"], "as-published": results.get("as_published", {})}
    for protocol, block in blocks.items():
        for name, scores_of in block.items():
            leads = zip(*(scores_of["per_lead"][score] for score in names), strict=True)
            for lead, scores in [*enumerate(leads, 1), ("mean", [scores_of["mean"][score] for score in names])]:
                writer.writerow([name, protocol, lead, results["clips"], *scores])
    return content.getvalue()
