"""Where the repository and the reference vectors are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests/reference"
