"""Results as text tables. Which scores there are, and how they are called, stands in the results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

UNDEFINED = "–"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def row_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of equal keys as aligned text: whole numbers with separators, others with one decimal."""

    def shown(value: Any) -> str:
        if value is None:
            return UNDEFINED
        return f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)

    return text_table([list(rows[0]), *([shown(value) for value in row.values()] for row in rows)])


def shown_score(value: float | None) -> str:
    """Return a score with four digits, a dash where it is undefined."""
    return UNDEFINED if value is None else f"{value:.4g}"


def score_table(results: Mapping[str, Any]) -> str:
    """Return the main scores of an evaluation as small text tables, one for each kind."""
    named = [
        *results["forecasts"].items(),
        *((f"{name}, as published", found) for name, found in results.get("as_published", {}).items()),
    ]
    kinds: dict[str, list[str]] = {}
    for score, info in results["scores"].items():
        if info["main"]:
            kinds.setdefault(info["table"], []).append(score)
    tables = []
    for scores in kinds.values():
        rows = [[name, *(shown_score(found["mean"][score]) for score in scores)] for name, found in named]
        tables.append(text_table([["forecast", *(results["scores"][score]["label"] for score in scores)], *rows]))
    return "\n\n".join(tables)


def score_csv(results: Mapping[str, Any]) -> str:
    """Return the scores of an evaluation per lead time, and of all together, as CSV; undefined ones are empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    names = list(results["scores"])
    writer.writerow(["forecast", "protocol", "lead", "clips", *names])
    blocks = {"forecast": results["forecasts"], "as-published": results.get("as_published", {})}
    for protocol, block in blocks.items():
        for name, found in block.items():
            leads = zip(*(found["per_lead"][score] for score in names), strict=True)
            for lead, scores in [*enumerate(leads, 1), ("mean", [found["mean"][score] for score in names])]:
                writer.writerow([name, protocol, lead, results["clips"], *scores])
    return content.getvalue()
