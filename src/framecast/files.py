"""Atomic files: written to a temporary file, flushed to disk, then renamed into place.

A checked file is one line of header, ``framecast <kind> <sha256 of the rest>``, and the content. Reading it
verifies the hash, so a flipped bit or a cut is an error and never a silently different model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from framecast.errors import FramecastError, LockedError, OutputExistsError, OutputPlaceError, WeightsError

try:
    import fcntl
except ImportError:  # Windows has no such locks, but deletes no file that is open
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
ENDING = ".framecast.tmp"
LEFTOVERS = f".*{ENDING}"
_checked_folders: set[Path] = set()
_locked_files: set[int] = set()


def refuse_present(paths: Iterable[Path]) -> None:
    """Refuse to write where something is already.

    Raises:
        OutputExistsError: one of the paths is there.
    """
    for path in paths:
        if path.exists():
            raise OutputExistsError(f"{path} is there already: give another out=, or overwrite=True to replace it")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for what a file shall hold, and put it into its place at the end, flushed to disk.

    What killed writers left in the folder is deleted, once in each process. The file's mode stays as it was.

    Args:
        path: the file.

    Raises:
        OSError: the disk is full or read-only; the message names the path and says what is there now.
    """
    temporary, placed = None, False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _checked_folders:
            _checked_folders.add(path.parent)
            remove_leftovers(path.parent)
        handle, temporary = _temporary(path)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        Path(temporary).replace(path)
        placed = True
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None and not placed:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        if not isinstance(error, OSError) or isinstance(error, FramecastError):
            raise
        raise _describe_failure(error, path, placed) from error


def _describe_failure(error: OSError, path: Path, placed: bool) -> OSError:
    reason = error.strerror or str(error)
    if placed:
        return OSError(
            error.errno,
            f"{path} is written, and its folder cannot be flushed to disk: {reason}: the new file is in place, but "
            "the old one may come back if the power fails now: look at the disk and write it again",
        )
    kept = "; the old file is intact" if path.exists() else ""
    return OSError(error.errno, f"cannot write {path}: {reason}: free space or choose another folder{kept}")


def check_place(path: Path) -> None:
    """Refuse a place where nothing can be written, before there is something to write.

    Raises:
        OutputPlaceError: its name is not UTF-8, a link in it leads nowhere, or its folder is read-only or a file; the
            message says which.
    """
    check_name(path, OutputPlaceError)
    for part in (path, *path.parents):
        if part.is_symlink() and not part.exists():
            raise OutputPlaceError(
                f"{part} is a link to {part.readlink()}, which is not there: make that, or remove it"
            )
    folder = next((part for part in (path, *path.parents) if part.exists()), Path())
    if folder != path and not folder.is_dir():
        raise OutputPlaceError(f"cannot write {path}: {folder} is a file: choose another folder")
    if not os.access(folder, os.W_OK):
        raise OutputPlaceError(
            f"cannot write {path}: {folder.absolute()} is read-only, or not yours: choose another folder"
        )


def check_name(path: Path, kind: type[FramecastError]) -> None:
    """Refuse a path whose name is not UTF-8, as configurations and indices are.

    Raises:
        FramecastError: of the kind that is asked for.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise kind(f"the name {shown} is not UTF-8, which configurations are written in: rename it") from None


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part.

    Args:
        path: the file.
        content: what it shall hold, in as many parts as it comes in, so that large ones need not be copied.

    Raises:
        OSError: the disk is full or read-only; the message names the path and says what is there now.
    """
    with replacing(path) as file:
        file.writelines(content)


def _temporary(path: Path) -> tuple[int, str]:
    """Make a temporary file beside a file, locked as long as it is open, and return its handle and name."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=ENDING, dir=path.parent)
        if fcntl is None:
            return handle, name
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return handle, name
        # Before it was locked, someone who cleans up took it for a leftover.
        os.close(handle)


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


def write_checked(path: Path, kind: str, content: bytes | memoryview, piece: int | None = None) -> None:
    """Write a checked file of that kind atomically.

    Args:
        path: the file.
        kind: a word for what it is.
        content: what it shall hold.
        piece: bytes that a file may hold; what is left goes into files .1, .2, ... beside it, of which only the last is
            shorter. None for one file.
    """
    header = f"framecast {kind} {hashlib.sha256(content).hexdigest()}\n".encode()
    content, piece = memoryview(content), piece or len(content) + 1
    # The file itself comes last: without it the others are nothing.
    for number in range(len(content) // piece, 0, -1):
        write_atomically(_piece(path, number), content[number * piece : (number + 1) * piece])
    write_atomically(path, header, content[:piece])


def _piece(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def read_checked(path: Path, kind: str, piece: int | None = None) -> bytes:
    """Return the content of a checked file.

    Args:
        path: the file.
        kind: a word for what it is.
        piece: as it was written.

    Raises:
        WeightsError: there is no such file, it is of another kind, its content has changed, or a piece is missing.
    """
    if not path.is_file():
        raise WeightsError(f"there is no {kind} {path}: check the path")
    header, _, content = path.read_bytes().partition(b"\n")
    pieces = [content]
    while len(pieces[-1]) == piece:
        following = _piece(path, len(pieces))
        if not following.is_file():
            raise WeightsError(f"{path} goes on in {following}, which is missing: fetch it, or use the previous one")
        pieces.append(following.read_bytes())
    content = b"".join(pieces)
    words = header.decode("ascii", "replace").split(" ")
    if len(words) != 3 or words[:2] != ["framecast", kind]:
        raise WeightsError(f"{path} is not a framecast {kind}: it begins with {header[:24]!r}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != words[2]:
        raise WeightsError(
            f"{path} is damaged: its content has sha256 {digest} and should have {words[2]}: use the previous one"
        )
    return content


SEAL = "sha256"


def sealed_json(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return plain values as JSON that carries their checksum, so that a flipped bit is no other number."""
    plain = json.loads(json.dumps(content))  # as it will be read: with text for keys
    separators = (",", ":") if indent is None else None
    return json.dumps({**plain, SEAL: _seal(plain)}, indent=indent, separators=separators).encode()


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what a file of ``sealed_json`` holds; one without a checksum, as earlier versions wrote, as it is.

    Raises:
        ValueError: it is no JSON, or has changed since it was written.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__} and no mapping")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _seal(content):
        raise ValueError("it has changed since it was written: its checksum is of other content")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that killed writers left in a folder; those that are being written stay."""
    for leftover in folder.glob(LEFTOVERS):
        with contextlib.suppress(OSError):
            if not _is_written(leftover):
                leftover.unlink()


def _is_written(temporary: Path) -> bool:
    if fcntl is None:
        return False
    with temporary.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that one process at a time can have; the system frees it when the process ends, however it ends.

    The file says who holds it, and is deleted in the end. On Windows, and on file systems without locks, nobody is
    kept out.

    Args:
        path: the lock's file.

    Raises:
        LockedError: it is held; the message says by which process, where and since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, owner = _locked(path), os.getpid()
    _locked_files.add(handle)
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        os.truncate(handle, 0)
        os.write(handle, f"process {owner} on {socket.gethostname()} since {since}\n".encode())
        yield
    finally:
        if os.getpid() == owner:
            _locked_files.discard(handle)
            with contextlib.suppress(OSError):
                path.unlink()  # while it is locked, so that nobody else's is deleted
            os.close(handle)


def _locked(path: Path) -> int:
    """Open a lock's file, lock it and return its handle."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is None:
            return handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            raise LockedError(holder or "another process") from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): start no second process here", path, error)
            return handle
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        # Whoever held it has ended and deleted it in between.
        os.close(handle)


def _let_go() -> None:
    """Give up in a forked process what its parent holds: one that prepares clips outlives a killed training."""
    for handle in _locked_files:
        os.close(handle)
    _locked_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
