"""Where the files of a published data set are sought, and what is said when they are not there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from framecast.errors import DatasetNotFoundError


def data_root(name: str, root: str | Path | None) -> Path:
    """Return the folder of a data set: the one given, else its name in ``$FRAMECAST_DATA`` or in ``data``."""
    return Path(root) if root is not None else Path(os.environ.get("FRAMECAST_DATA", "data")) / name


def missing_files(what: Iterable[str], folder: Path, source: str, layout: str) -> DatasetNotFoundError:
    """Return the error for files that are not there.

    Args:
        what: the files that are missing.
        folder: where they were sought.
        source: where they are officially to be had.
        layout: the files and folders expected.
    """
    return DatasetNotFoundError(
        f"{', '.join(what)}: not found in {folder.absolute()}. Nothing is downloaded: fetch it from {source} and "
        f"lay it out as\n{layout}\nthen give root=FOLDER, or set FRAMECAST_DATA to the folder that holds it by its name"
    )
