"""Untrusted files: any failure to read one is an error of ours, and declared sizes are checked before use.

A parser of a foreign format fails in as many ways as its authors thought of, and some more. So whoever opens a file
does it within ``reading``. A header may declare any size: ``check_size`` refuses one above the limit before
anything is allocated. The limit is 4 GiB, or the bytes in FRAMECAST_MOST_BYTES.
"""

from __future__ import annotations

import errno
import math
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np

from framecast.errors import (
    DataError,
    DatasetNotFoundError,
    DiskFullError,
    MissingExtraError,
    RunFolderError,
    WeightsError,
)

OURS = (DataError, DatasetNotFoundError, DiskFullError, MissingExtraError, RunFolderError, WeightsError)
VARIABLE = "FRAMECAST_MOST_BYTES"
MOST_BYTES = 4 * 1024**3
MOST_ALIASES = 10
MOST_NESTED = 50
SMALL_BYTES = 64 * 1024**2
"""What an archive of ours may unpack to however well it is packed: a forecast of nothing packs a thousandfold."""
HELD = 16
"""Bytes of memory that a number takes while it is read: as it is stored, as float32, scaled, and masked."""
FRAME_COST = 400
"""Bytes of memory that listing a frame takes, whatever its size: its number in some twenty clips, its time."""


@contextmanager
def reading(
    where: str | Path,
    problem: str = "cannot be read",
    remedy: str = "it is truncated, damaged or of another format",
    kind: type[Exception] = DataError,
    passing: tuple[type[Exception], ...] = OURS,
) -> Iterator[None]:
    """Turn whatever fails while a file is read into one error of ours; errors of ours pass as they are.

    Args:
        where: the file, and what of it is read.
        problem: what cannot be done with it.
        remedy: what to do, or the likely cause.
        kind: the error to raise, with the one that was found as its cause.
        passing: errors that already say what, where and how to mend it.

    Raises:
        DataError: or what ``kind`` says.
    """
    as_they_are: tuple[type[Exception], ...] = (*passing, NameError)  # a wrong name is our mistake, never a file's
    try:
        yield
    except as_they_are:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            # Reading needs no room: what was to be written meanwhile does, and the file is not at fault.
            target = f" ({error.filename})" if error.filename else ""
            raise DiskFullError(
                f"no room is left for what is unpacked of {where}{target}: free some, or name another folder with "
                "TMPDIR or FRAMECAST_CACHE; the file itself may be whole"
            ) from error
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise kind(f"{where} {problem}: {reason}: {_remedy(error) or remedy}") from error


FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room to write."""


def check_no_pipe(path: Path) -> None:
    """Refuse what is there and neither a file nor a folder, before reading from it waits for ever.

    Raises:
        DataError: it is a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is a pipe, a socket or a device and no file: write what it gives into a file")


REMEDIES = {
    errno.EMFILE: "the process has too many files open; raise its limit (ulimit -n), the file may be whole",
    errno.ENFILE: "the machine has too many files open; the file may be whole",
    errno.EACCES: "you may not read it; ask its owner, or change its mode",
    errno.EPERM: "you may not read it; ask its owner, or change its mode",
    errno.EAGAIN: "another process has locked it; wait until it has ended, or copy the file",
    errno.EWOULDBLOCK: "another process has locked it; wait until it has ended, or copy the file",
    errno.EIO: "the disk or its network failed; try again, then copy the file from elsewhere",
    errno.ENOMEM: "memory ran out; close other programs",
    errno.EISDIR: "it is a folder, where a file is expected",
}
"""What to do where the system could not read a file, whatever is in it."""


def _remedy(error: BaseException | None) -> str:
    """Return what to do about an error of the system, also one behind another or match in words as HDF5 does, or ""."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            return REMEDIES[error.errno]
        match = re.search(r"errno = (\d+)", str(error))
        if match and int(match[1]) in REMEDIES:
            return REMEDIES[int(match[1])]
        if isinstance(error, MemoryError):
            return REMEDIES[errno.ENOMEM]
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def asked_by(where: str | Path) -> Iterator[None]:
    """Have errors about what a file asks for, such as data of an impossible size, say which file it was.

    Args:
        where: the file.

    Raises:
        DataError: or DatasetNotFoundError, as it was, with the file before it.
    """
    try:
        yield
    except (DataError, DatasetNotFoundError) as error:
        if str(where) in str(error):
            raise
        raise type(error)(f"{where} asks for data that cannot be opened: {error}") from error


def most_bytes() -> int:
    """Return the most bytes that a file may make us allocate at a time.

    Raises:
        DataError: FRAMECAST_MOST_BYTES is not a whole number above 0.
    """
    text = os.environ.get(VARIABLE, str(MOST_BYTES))
    if not text.isdecimal() or not int(text):
        raise DataError(f"{VARIABLE} is {text!r} and must be a number of bytes, such as {MOST_BYTES}")
    return int(text)


def check_size(where: str | Path, *shape: int, itemsize: int = 1) -> None:
    """Refuse to allocate an array of that shape above the limit.

    Raises:
        DataError: it is larger, or a length is negative.
    """
    size, most = math.prod(shape) * itemsize, most_bytes()
    if size > most or any(length < 0 for length in shape):
        raise DataError(
            f"{where} declares {' x '.join(map(str, shape))} of {itemsize} bytes, {size} in all, and {most} are read "
            f"at a time: it is damaged, or raise the limit with {VARIABLE}"
        )


def check_read(where: str | Path, *shape: int) -> None:
    """Refuse to read an array of that shape whose copies, while it is turned into a model's numbers, exceed the limit.

    Raises:
        DataError: they do.
    """
    size, most = math.prod(shape) * HELD, most_bytes()
    if size > most:
        raise DataError(
            f"{where}: to read {' x '.join(map(str, shape))} numbers takes {size} bytes of memory, and {most} is the "
            f"limit: it is damaged, or read less at a time, or raise the limit with {VARIABLE}"
        )


def check_frames(where: str | Path, count: int, shape: tuple[int, ...], itemsize: int = 4) -> None:
    """Refuse frames of which one, or the list of all, would be above the limit.

    Raises:
        DataError: they are.
    """
    check_size(f"{where}, a frame of which", *shape, itemsize=itemsize)
    check_read(f"{where}, a frame of it", *shape)
    check_size(f"{where}, the list of whose frames", count, itemsize=FRAME_COST)


def check_aliases(text: str) -> str:
    """Return YAML that hardly refers to itself and is not deep, or reading it could fill the memory or the stack.

    Nine lines of aliases can stand for more than any memory holds.

    Raises:
        ValueError: it holds more than ten aliases, or nests deeper than fifty levels.
        yaml.YAMLError: it is not YAML.
    """
    import yaml

    opening = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken, yaml.BlockSequenceStartToken,
               yaml.BlockMappingStartToken)  # fmt: skip
    closing = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    aliases = depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        aliases += isinstance(token, yaml.AliasToken)
        depth += isinstance(token, opening) - isinstance(token, closing)
        if depth > MOST_NESTED:
            raise ValueError(f"it nests deeper than {MOST_NESTED} levels")
    if aliases > MOST_ALIASES:
        raise ValueError(f"it refers to itself {aliases} times by aliases (*), and {MOST_ALIASES} are allowed")
    return text


def check_npz(path: Path, ratio: int = 200, harmless: int = 0) -> None:
    """Refuse an .npz that unpacks to far too much, or whose arrays declare more than it holds, before unpacking.

    Args:
        path: the archive.
        ratio: how many times its size it may unpack to.
        harmless: so many bytes are let pass at any ratio.

    Raises:
        DataError: it is refused.
        zipfile.BadZipFile: it is not an archive.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > max(harmless, ratio * path.stat().st_size):
            raise DataError(
                f"{path} would unpack to {unpacked} bytes, over {ratio} times its size: save it as .npy instead"
            )
        check_size(f"{path}, unpacked,", unpacked)
        for member in archive.infolist():
            _check_member(archive, member, path)


def check_stored(file: Path | BytesIO) -> None:
    """Refuse a zip archive with a packed member, or with members larger than itself, before anything is unpacked.

    Args:
        file: the archive, or its content, which is read from its beginning afterwards.

    Raises:
        ValueError: it is refused.
    """
    size = file.getbuffer().nbytes if isinstance(file, BytesIO) else file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    packed = next((member.filename for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None or sum(member.file_size for member in members) > size:
        raise ValueError(
            f"its members are packed ({packed or 'more bytes than the file has'}), as torch never saves them"
        )
    if isinstance(file, BytesIO):
        file.seek(0)


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    with archive.open(member) as content:
        if content.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            return
        content.seek(0)
        version = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(content)
        size = content.tell() + math.prod(shape) * dtype.itemsize
    # Exactly: the checksum is looked at when the last byte is read.
    if size != member.file_size and not dtype.hasobject:
        raise DataError(
            f"{path}: {member.filename} declares {' x '.join(map(str, shape))} of {dtype} and holds "
            f"{member.file_size} bytes: it is truncated or damaged"
        )
