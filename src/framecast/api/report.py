"""Report: one HTML page of one or several result folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framecast.files import check_place, refuse_present
from framecast.reporting.page import write_report

if TYPE_CHECKING:
    from framecast.training.loop import Run


def report(
    results: str | Path | Run | Sequence[str | Path | Run],
    *,
    out: str | Path = "report.html",
    scores: Sequence[str] | None = None,
    clips: int = 4,
    figures: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write one HTML page of one or several result folders: table, costs, curves, training, clips.

    Args:
        results: folders that ``evaluate`` wrote into, or what ``train`` returned for a run that is evaluated.
        out: the page; it holds all it shows and opens from disk. A folder beside it, report-figures for report.html,
            has the figures as SVG and PNG.
        scores: names of scores in the results to draw per lead time, such as ["ssim"]; the first one is an axis of the
            radar chart of several runs. None draws the main ones.
        clips: example clips to show, at most; ``evaluate`` keeps as many as its option ``examples``.
        figures: write the folder beside the page too.
        overwrite: replace a page that is there already.

    Returns:
        The path of the page.

    Raises:
        ValueError: ``clips`` is negative.
        OutputExistsError: there is a page of that name already.
        RunNotFoundError: a folder holds no results.json.
        UnknownNameError: the results have no such score.
    """
    if not overwrite:
        refuse_present([Path(out)])
    check_place(Path(out))
    several: Sequence[Any] = [results] if isinstance(results, str | Path) or hasattr(results, "path") else results
    folders = [Path(getattr(folder, "path", folder)) for folder in several]
    return write_report(folders, Path(out), scores, clips, figures)
