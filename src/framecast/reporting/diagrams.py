"""Diagrams of ensembles and spectra: rank histogram, reliability, sharpness, ROC and power by scale, from counts.

Each is of all lead times together, and drawn from what ``results.json`` holds; see ``scores/ensemble.py`` and
``scores/spectrum.py`` for what the counts are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from framecast.reporting.figures import Drawing, Line, LineStyle, draw_curves

PERFECT = "perfect"


def ensemble_diagrams(
    forecasts: Mapping[str, Mapping[str, Any]],
    infos: Mapping[str, Mapping[str, Any]],
    *,
    muted: Sequence[str] = (),
    styles: Mapping[str, LineStyle] | None = None,
    suffix: str = "",
) -> dict[str, Drawing]:
    """Return the diagrams by their titles, of the forecasts that have members; none where none has.

    Args:
        forecasts: name -> its results, with counts per lead time.
        infos: how the scores are shown; those at thresholds tell what the thresholds are called.
        muted: names of forecasts whose lines are grey.
        styles: of the others.
        suffix: of the titles.
    """
    counts = {name: _pooled(one.get("counts", {})) for name, one in forecasts.items()}
    ensembles = {name: one for name, one in counts.items() if len(_series(one, "rank_")) > 2}
    if not ensembles:
        return {}
    drawings = {}

    def draw(title: str, lines: dict[str, Line], across: str, up: str, **options: Any) -> None:
        lines = {name: line for name, line in lines.items() if line[0]}
        if set(lines) - {PERFECT}:
            drawings[title + suffix] = draw_curves(
                lines, title=title + suffix, across=across, up=up, muted=[*muted, PERFECT], styles=styles, **options
            )

    ranks = {name: _series(one, "rank_") for name, one in ensembles.items()}
    shares = {name: [len(many) * rank / sum(many) for rank in many] for name, many in ranks.items() if sum(many)}
    lines: dict[str, Line] = {name: (list(range(len(many))), many) for name, many in shares.items()}
    if lines:
        longest = max(len(many) for many in shares.values())
        draw("Rank histogram", lines | {PERFECT: ([0, longest - 1], [1.0, 1.0])}, "members below the truth",
             "times as often as if flat")  # fmt: skip
    for key, info in infos.items():
        if not key.startswith("slope_"):
            continue
        threshold, event = key.removeprefix("slope_"), str(info["label"]).removeprefix("reliability slope ")
        forecast = {name: _series(one, f"forecast_{threshold}_") for name, one in ensembles.items()}
        observed = {name: _series(one, f"observed_{threshold}_") for name, one in ensembles.items()}
        chance = {name: _chances(len(many)) for name, many in forecast.items()}
        reliable: dict[str, Line] = {
            name: (
                [p for p, n in zip(chance[name], many, strict=True) if n],
                [o / n for o, n in zip(observed[name], many, strict=True) if n],
            )
            for name, many in forecast.items()
        }
        diagonal: dict[str, Line] = {PERFECT: ([0.0, 1.0], [0.0, 1.0])}
        draw(f"Reliability, {event}", reliable | diagonal, "forecast probability", "observed frequency", whole=False)
        often: dict[str, Line] = {
            name: (chance[name], [n / sum(many) if n else math.nan for n in many])
            for name, many in forecast.items()
            if sum(many)
        }
        draw(f"Sharpness, {event}", often, "forecast probability", "share of pixels", whole=False, log=True)
        roc = {name: _roc(forecast[name], observed[name]) for name in ensembles}
        draw(f"ROC, {event}", roc | diagonal, "false alarm rate", "hit rate", whole=False)
    spectra: dict[str, Line] = {}
    for name, one in ensembles.items():
        for kind, label in (("forecast", name), ("mean", f"{name}, mean")):
            power = _series(one, f"power_{kind}_")[1:]
            spectra[label] = (list(range(1, len(power) + 1)), power)
        truth = _series(one, "power_truth_")[1:]
        spectra["truth"] = (list(range(1, len(truth) + 1)), truth)
    if styles is not None:
        styles = {**dict.fromkeys(spectra, ("#111111", "-")), **styles}
        styles |= {f"{name}, mean": (styles[name][0], ":") for name in ensembles}
    muted = [*muted, *(f"{name}, mean" for name in muted)]
    draw("Power spectrum", spectra, "waves across the frame", "power", log=True)
    return drawings


def _pooled(counts: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: float(sum(values)) for name, values in counts.items()}


def _series(counts: Mapping[str, float], start: str) -> list[float]:
    """Return the counts whose names begin so, in the order of the numbers they end with."""
    numbers = sorted(int(name.removeprefix(start)) for name in counts if name.startswith(start))
    return [counts[f"{start}{number}"] for number in numbers]


def _chances(count: int) -> list[float]:
    return [number / (count - 1) for number in range(count)]


def _roc(forecast: Sequence[float], observed: Sequence[float]) -> Line:
    """Return false alarm rates and hit rates, from the most certain forecasts to all of them."""
    events, others = sum(observed), sum(forecast) - sum(observed)
    if not events or not others:
        return [], []
    hits = alarms = 0.0
    line: tuple[list[float], list[float]] = ([0.0], [0.0])
    for number in reversed(range(len(forecast))):
        hits, alarms = hits + observed[number], alarms + forecast[number] - observed[number]
        line[0].append(alarms / others)
        line[1].append(hits / events)
    return line
