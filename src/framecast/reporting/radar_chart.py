"""Cost and score of several models in one radar chart, as in Figure 4 of the MS-LSTM paper.

Every axis is the share of the largest value, so outwards is worse; a score that is best high enters as its inverse.

Reference: Ma et al., MS-LSTM, Applied Soft Computing 147, 2023, doi:10.1016/j.asoc.2023.110731, Figure 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from framecast.reporting.figures import COLOURS, Drawing, new_figure, rendered
from framecast.reporting.results import Results, score_infos

# Key in the results, its name, and what the number is divided by to be readable.
COSTS = (
    ("parameters", "parameters", 1e6, "M"),
    ("macs", "multiply-accumulates", 1e9, "G"),
    ("training_bytes", "training memory", 1e9, "GB"),
    ("seconds_per_clip", "forecast time", 1e-3, "ms"),
)
TITLE = "Cost and score"


def radar_axes(results: Sequence[Results], score: str | None = None) -> dict[str, list[float]]:
    """Return axis -> one positive value of each run, greater is worse; what any run lacks is left out.

    Args:
        results: of the runs.
        score: the score of the last axis; None takes the first one.
    """
    axes = {}
    for key, label, divisor, unit in COSTS:
        values = [found.get(key) for found in results]
        if all(values):
            axes[f"{label} ({unit})"] = [float(value) / divisor for value in values if value]
    infos = score_infos(list(results))
    name = score or next(iter(infos))
    scores = [found["forecasts"][found["model"]]["mean"].get(name) for found in results]
    if infos[name]["best"] in ("low", "high") and all(value is not None and value > 0 for value in scores):
        low = infos[name]["best"] == "low"
        label = infos[name]["label"]
        axes[label if low else f"1 / {label}"] = [value if low else 1 / value for value in scores]
    return axes


def draw_radar(names: Sequence[str], axes: Mapping[str, Sequence[float]]) -> Drawing:
    """Draw one polygon a name over three axes or more, each of positive values, as shares of the largest.

    Raises:
        ValueError: fewer than three axes.
    """
    if len(axes) < 3:
        raise ValueError(f"a radar chart needs at least three axes and got {list(axes)}: use a table")
    angles = [2 * math.pi * number / len(axes) for number in range(len(axes))]
    figure = new_figure(6.4, 5)
    plot: Any = figure.add_subplot(projection="polar")
    plot.set_theta_offset(math.pi / 2)
    plot.set_theta_direction(-1)
    for number, name in enumerate(names):
        shares = [values[number] / max(values) for values in axes.values()]
        colour = COLOURS[number % len(COLOURS)]
        dashes = ("-", "--", ":", "-.")[number // len(COLOURS) % 4]
        plot.plot([*angles, angles[0]], [*shares, shares[0]], color=colour, linestyle=dashes, linewidth=2, label=name)
        plot.fill(angles, shares, color=colour, alpha=0.07)
    names_of_axes = [f"{label}\nmost: {max(values):.3g}" for label, values in axes.items()]
    plot.set_xticks(angles, names_of_axes, fontsize=8)
    for angle, label in zip(angles, plot.get_xticklabels(), strict=True):
        # Away from the plot, on whichever side of it the axis ends.
        across = math.sin(angle)
        label.set_horizontalalignment("left" if across > 0.1 else "right" if across < -0.1 else "center")
    plot.set_ylim(0, 1.05)
    plot.set_yticks([0.25, 0.5, 0.75, 1], ["", "50 %", "", "100 %"], fontsize=7, color="#7f8c8d")
    plot.tick_params(axis="x", pad=6)
    plot.grid(alpha=0.3)
    plot.spines["polar"].set_visible(False)
    plot.set_title(f"{TITLE}: outwards is worse", fontsize=11, pad=18)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return rendered(figure, TITLE)
