"""Trained weights that come with the package: run folders without logs, each with a model card."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped_runs() -> dict[str, Path]:
    """Return name -> run folder of all trained models that come with the package."""
    folder = Path(str(files("framecast.weights"))) / "shipped"
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}
