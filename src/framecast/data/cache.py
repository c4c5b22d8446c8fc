"""The cache of time indexes: listing hundreds of thousands of frames is slow, so their times are kept between runs.

An index is an .npz behind a line with its checksum, in the cache folder, named after what it was made from. It is
remade when the archive's path, size or date of change differ, or when it is damaged, and it is only a short cut: where
it cannot be kept, it is made again each time.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast import __version__
from framecast.files import read_checked, write_checked

Index = dict[str, NDArray[Any]]
KIND = "index"

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where indexes are kept: FRAMECAST_CACHE, or framecast in the user's cache folder."""
    variable = os.environ.get("FRAMECAST_CACHE")
    return Path(variable) if variable else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "framecast"


def kept_index(facts: str, build: Callable[[], Index]) -> Index:
    """Return the index of an archive, from the cache or built anew.

    Args:
        facts: all that the index follows from, such as path, size and date of change.
        build: lists the archive.
    """
    # Another version may read the same files in another way.
    key = hashlib.sha256(f"{__version__} {facts}".encode()).hexdigest()[:32]
    path = cache_folder() / f"index-{key}.index"
    try:
        with np.load(io.BytesIO(read_checked(path, KIND)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError):  # there is none yet, or it is damaged
        index = build()
    content = io.BytesIO()
    np.savez(content, **index)  # type: ignore[arg-type]
    try:
        write_checked(path, KIND, content.getvalue())
    except OSError as error:
        log.warning("the index is not kept, so the next start is as slow: %s", error)
    return index


def file_facts(path: Path) -> str:
    """Return what an index of one file follows from."""
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
