"""Files that are whole or not there: written beside, flushed to disk, then renamed into place.

A checked file is one line of header, ``framecast <kind> <sha256 of the rest>``, and the content. Reading it
verifies the hash, so a flipped bit or a cut is an error and never a silently different model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from framecast.errors import WeightsError

LEFTOVERS = ".*.tmp"


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part.

    Args:
        path: the file.
        content: what it shall hold, in as many parts as it comes in, so that large ones need not be copied.

    Raises:
        OSError: the disk is full or read-only; the message names the path, and nothing there has changed.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot write {path}: {reason}: free space or choose another folder; the old file is intact"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder; there the rename is as durable as the file system makes it.
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_checked(path: Path, kind: str, content: bytes | memoryview) -> None:
    """Write a checked file of that kind atomically."""
    header = f"framecast {kind} {hashlib.sha256(content).hexdigest()}\n".encode()
    write_atomically(path, header, content)


def read_checked(path: Path, kind: str) -> bytes:
    """Return the content of a checked file.

    Raises:
        WeightsError: there is no such file, it is of another kind, or its content has changed.
    """
    if not path.is_file():
        raise WeightsError(f"there is no {kind} {path}: check the path")
    header, _, content = path.read_bytes().partition(b"\n")
    words = header.decode("ascii", "replace").split(" ")
    if len(words) != 3 or words[:2] != ["framecast", kind]:
        raise WeightsError(f"{path} is not a framecast {kind}: it begins with {header[:24]!r}")
    found = hashlib.sha256(content).hexdigest()
    if found != words[2]:
        raise WeightsError(
            f"{path} is damaged: its content has sha256 {found} and should have {words[2]}: use the previous one"
        )
    return content


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed writer left in a folder."""
    for leftover in folder.glob(LEFTOVERS):
        leftover.unlink(missing_ok=True)
