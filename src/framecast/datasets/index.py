"""Indexes of large archives, kept between runs: listing hundreds of thousands of frames is slow, their times are few.

An index is one .npz in the cache folder, named after what it was made from. It is remade when the archive's path,
size or date of change differ, and it is only a short cut: where it cannot be kept, it is made again each time.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.storage import write_atomically

Index = dict[str, NDArray[Any]]

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where indexes are kept: FRAMECAST_CACHE, or framecast in the user's cache folder."""
    own = os.environ.get("FRAMECAST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "framecast"


def kept_index(facts: str, build: Callable[[], Index]) -> Index:
    """Return the index of an archive, from the cache or built anew.

    Args:
        facts: all that the index follows from, such as path, size and date of change.
        build: lists the archive.
    """
    path = cache_folder() / f"index-{hashlib.sha256(facts.encode()).hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        index = build()
    content = io.BytesIO()
    np.savez(content, **index)  # type: ignore[arg-type]
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        log.warning("the index is not kept, so the next start is as slow: %s", error)
    return index


def file_facts(path: Path) -> str:
    """Return what an index of one file follows from."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
