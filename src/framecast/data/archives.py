"""Archives that a conversion reads: files, tar archives and nested archives, divided into units of work.

A piece of work is read from its beginning to its end by one process: a batch of loose files, one archive, or a
run of frames of anything that ``own`` reads. Archives are never unpacked to where they say: only plain files, by
their bare name, into a folder that is gone when the piece is done.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from framecast.data.cache import file_facts
from framecast.data.catalogue import describe_files, open_parts
from framecast.data.formats.arrays import is_zarr
from framecast.data.joined import JoinedSource
from framecast.data.radar import holds_radar, is_radar
from framecast.data.sources import Frame, FrameHeader, ReadOptions
from framecast.errors import DataError, DatasetNotFoundError
from framecast.registry import frame_reader
from framecast.untrusted import FULL, SMALL_BYTES, most_bytes, reading

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz")
BATCH = 16
RATIO = 1000
"""How many times its size an archive may unpack to, once that is above ``SMALL_BYTES``."""


class Item(NamedTuple):
    """A frame, or what is wrong with it.

    Attributes:
        label: the file and, where it holds several, the frame's place in it; unique in a conversion.
        frame: the frame, or None.
        problem: why there is none, or "".
    """

    label: str
    frame: Frame | None
    problem: str = ""


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        facts: what its frames follow from, files, sizes and dates.
        files: loose files, or the one archive.
        member: the archive within the archive that is meant, or "".
        options: how ``own`` is to read the one path, or None where radar files are read.
        start: first frame of the piece, where ``own`` reads.
        stop: one after the last.
    """

    facts: str
    files: tuple[Path, ...]
    member: str = ""
    options: ReadOptions | None = None
    start: int = 0
    stop: int = 0

    @property
    def key(self) -> str:
        """A short name that changes with its files."""
        rest = f"{self.member} {self.options} {self.start} {self.stop}"
        return hashlib.sha256(f"{self.facts} {self.files} {rest}".encode()).hexdigest()[:24]


def find_work(source: Path, options: ReadOptions) -> list[Work]:
    """Cut a file or folder into pieces of work.

    Raises:
        DatasetNotFoundError: there is nothing at the path, or nothing that can be read.
        DataError: it is neither radar files nor anything that ``own`` reads.
    """
    if not source.exists():
        raise DatasetNotFoundError(f"there is nothing at {source}: check the path")
    if is_archive(source):
        return _archive_work(source)
    if source.is_file() and is_radar(source):
        return [Work(file_facts(source), (source,))]
    if source.is_dir() and not is_zarr(source):
        inner = sorted(path for path in source.rglob("*") if path.is_file())
        archives = [path for path in inner if is_archive(path)]
        loose = [path for path in inner if frame_reader(path.name) and not is_archive(path)]
        radar = {folder for folder in {path.parent for path in loose} if holds_radar(folder)}
        loose = [path for path in loose if path.parent in radar]
        if archives or loose:
            batches = [tuple(loose[start : start + BATCH]) for start in range(0, len(loose), BATCH)]
            all_work = [Work(" ".join(map(file_facts, batch)), batch) for batch in batches]
            return all_work + [work for path in archives for work in _archive_work(path)]
    return _own_work(source, options)


def is_archive(path: Path) -> bool:
    """Return whether a file is named as an archive."""
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def _archive_work(path: Path) -> list[Work]:
    """Make a piece of an archive, or, where it is not compressed, of each archive within it."""
    facts = file_facts(path)
    everything = [Work(facts, (path,))]
    if path.suffix.lower() != ".tar":
        return everything
    try:
        with reading(path), tarfile.open(path) as archive:
            names = [member.name for member in archive if member.isfile()]
    except DataError:
        return everything  # reading it says what is wrong
    inner = [name for name in names if name.lower().endswith(ARCHIVES)]
    return [Work(facts, (path,), name) for name in inner] + (everything if len(inner) < len(names) or not names else [])


def _own_work(path: Path, options: ReadOptions) -> list[Work]:
    source = JoinedSource(open_parts(path, options))
    source.close()
    return [
        Work(describe_files(path), (path,), "", options, start, min(start + BATCH, source.count))
        for start in range(0, source.count, BATCH)
    ]


def frames_of(work: Work) -> Iterator[Item]:
    """Yield every frame of a unit of work; a frame that cannot be read is an item with a problem.

    Raises:
        MissingExtraError: the files need a package that is not installed.
    """
    if work.options is not None:
        yield from _own_frames(work, work.options)
    elif is_archive(work.files[0]):
        yield from _archive_frames(work)
    else:
        for path in work.files:
            yield _read(path, str(path))


def _read(path: Path, label: str) -> Item:
    reader = frame_reader(path.name)
    if reader is None:
        return Item(label, None, "no reader for this name")
    try:
        with reading(label):
            return Item(label, reader(path))
    except (DataError, DatasetNotFoundError) as error:
        return Item(label, None, str(error))


def _own_frames(work: Work, options: ReadOptions) -> Iterator[Item]:
    source = JoinedSource(open_parts(work.files[0], options))
    unit = source.unit
    for number in range(work.start, work.stop):
        label = f"{work.files[0]}, frame {number}"
        time = int(source.times[number]) if source.times is not None else number
        try:
            with reading(label):
                values = source.read(np.array([number]))[0]
                frame = Frame(values, FrameHeader(time, unit, source.product, source.georeference))
        except DataError as error:
            yield Item(label, None, str(error))
        else:
            yield Item(label, frame)
    source.close()


def _archive_frames(work: Work) -> Iterator[Item]:
    path, label = work.files[0], f"{work.files[0]}!{work.member}".removesuffix("!")
    budget = Budget(max(SMALL_BYTES, RATIO * path.stat().st_size))
    with tempfile.TemporaryDirectory(prefix="framecast-") as folder:
        try:
            with reading(label, "is damaged", "fetch it again"), tarfile.open(path) as archive:
                if work.member:
                    yield from _inner_frames(archive, archive.getmember(work.member), label, Path(folder), budget)
                else:
                    skip = path.suffix.lower() == ".tar"
                    yield from _members(archive, label, Path(folder), budget, skip=skip)
        except DataError as error:
            yield Item(label, None, f"the archive is damaged: {error}")


class Budget:
    """The bytes that may still be unpacked from an archive, inner archives included."""

    def __init__(self, most: int) -> None:
        self.most = self.remaining = most

    def take(self, member: tarfile.TarInfo) -> None:
        """Take what a member unpacks to, wanted or not, for to pass over it is to unpack it.

        Raises:
            DataError: it is more than there is left.
        """
        self.remaining -= member.size
        if self.remaining < 0:
            raise DataError(f"{member.name} and those before it would unpack to over {self.most} bytes: do not use it")


def _members(
    archive: tarfile.TarFile, label: str, folder: Path, budget: Budget, *, skip: bool = False
) -> Iterator[Item]:
    """Yield the frames of an archive, those of inner archives too unless they are to be skipped."""
    for member in archive:
        budget.take(member)
        name = Path(member.name).name
        if not member.isfile() or name.startswith("."):
            continue
        if name.lower().endswith(ARCHIVES):
            if not skip:
                yield from _inner_frames(archive, member, f"{label}!{member.name}", folder, budget)
        elif frame_reader(name) is not None:
            if member.size > most_bytes():
                yield Item(f"{label}!{member.name}", None, f"it would unpack to {member.size} bytes")
                continue
            file = _unpack(archive, member, folder)
            yield _read(file, f"{label}!{member.name}")
            file.unlink()


def _inner_frames(
    archive: tarfile.TarFile, member: tarfile.TarInfo, label: str, folder: Path, budget: Budget
) -> Iterator[Item]:
    try:
        with reading(label, "is damaged", "fetch it again"):
            inner = _unpack(archive, member, folder)
            with tarfile.open(inner) as second:
                yield from _members(second, label, folder, budget)
            inner.unlink()
    except DataError as error:
        yield Item(label, None, f"the archive is damaged: {error}")


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> Path:
    """Write one plain file of an archive into a folder by its bare name."""
    content: IO[bytes] | None = archive.extractfile(member) if member.isfile() else None
    if content is None or member.size > most_bytes():
        raise tarfile.TarError(f"{member.name} is not a plain file of a sensible size")
    target = folder / Path(member.name).name
    try:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
    except OSError as error:
        # A write does not say where to.
        raise OSError(error.errno, error.strerror, str(target)) if error.errno in FULL else error from None
    return target
