"""Results as text tables."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

SCORES = ("mse", "mae", "psnr", "ssim")


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def score_table(results: Mapping[str, Any]) -> str:
    """Return the mean scores of an evaluation as a small text table."""
    named = [
        *results["forecasts"].items(),
        *((f"{name}, as published", found) for name, found in results.get("as_published", {}).items()),
    ]
    rows = [[name, *(f"{found['mean'][score]:.4g}" for score in SCORES)] for name, found in named]
    return text_table([["forecast", *(score.upper() for score in SCORES)], *rows])


def score_csv(results: Mapping[str, Any]) -> str:
    """Return the scores of an evaluation per lead time, and their mean, as CSV."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["forecast", "protocol", "lead", "clips", *SCORES])
    blocks = {"forecast": results["forecasts"], "as-published": results.get("as_published", {})}
    for protocol, block in blocks.items():
        for name, found in block.items():
            leads = zip(*(found["per_lead"][score] for score in SCORES), strict=True)
            for lead, scores in [*enumerate(leads, 1), ("mean", [found["mean"][score] for score in SCORES])]:
                writer.writerow([name, protocol, lead, results["clips"], *scores])
    return content.getvalue()
