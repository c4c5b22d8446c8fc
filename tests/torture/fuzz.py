"""Long fuzzing of one parser with atheris, which is not installed with the rest: ``pip install atheris``.

    PYTHONPATH=tests python -m torture.fuzz npy -max_total_time=600 -rss_limit_mb=4096

The first argument is a name of ``samples.formats.FORMATS``; what follows goes to libFuzzer. It starts from a miniature
file, and stops at the first input that ends in anything but data or an error of ours that names the file. Of a format
that is a folder the first byte of an input chooses the file. framecast's own modules are instrumented, so that inputs
that reach new lines of them are kept and changed further; parsers in C are not seen inside.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

ADVICE = "atheris is not installed: pip install atheris (Linux and macOS, Python up to 3.13)"


class Target:
    """A miniature file of a format that can be given other content and read again.

    Args:
        name: of the format.
        folder: an empty folder for it.

    Attributes:
        files: the files it consists of, of most formats one.
        whole: their contents as they were made.
    """

    def __init__(self, name: str, folder: Path) -> None:
        from samples.formats import FORMATS

        self.folder, self._kind, self._count = folder, FORMATS[name], 0
        self._root = self._kind.make(folder)
        inside = self._root.rglob("*") if self._root.is_dir() else [self._root]
        self.files = sorted(path for path in inside if path.is_file())
        self.whole = [path.read_bytes() for path in self.files]

    def read(self, content: bytes, number: int = 0) -> bool:
        """Read with other content of one of the files, and return whether it was data; our errors are none.

        Raises:
            AssertionError: an error of ours does not name the file.
        """
        from samples.mutations import DOCUMENTED

        self._count += 1
        said = None
        for path, whole in zip(self.files, self.whole, strict=True):
            path.write_bytes(content if path == self.files[number] else whole)
            # Of the same size and date as before, it would be taken from the cache.
            os.utime(path, ns=(self._count, self._count))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._kind.read(self._root)
            except DOCUMENTED as error:
                said = str(error)
        assert said is None or str(self.folder) in said, said
        return said is None

    def chosen(self, fuzzed: bytes) -> tuple[bytes, int]:
        """Return the content that fuzzed bytes stand for, and the number of its file."""
        if len(self.files) == 1:
            return fuzzed, 0
        return fuzzed[1:], (fuzzed[0] if fuzzed else 0) % len(self.files)

    def corpus(self) -> Iterator[bytes]:
        """Yield the inputs that stand for the files as they were made."""
        for number, whole in enumerate(self.whole):
            yield whole if len(self.files) == 1 else bytes([number]) + whole


def watched(atheris: Any) -> AbstractContextManager[None]:
    """Return what makes atheris see which lines of framecast run, of modules that are imported within it."""
    seen: AbstractContextManager[None] = atheris.instrument_imports(include=["framecast"])
    return seen


def main(arguments: list[str]) -> int:
    """Fuzz until libFuzzer stops."""
    try:
        import atheris
    except ImportError:
        atheris = None
    # Before anything of framecast is imported: what was imported before is not instrumented.
    if atheris is not None:
        with watched(atheris):
            from samples.formats import FORMATS
    else:
        from samples.formats import FORMATS
    if len(arguments) < 2 or arguments[1] not in FORMATS:
        print(f"usage: python -m torture.fuzz FORMAT [libFuzzer options]\nformats: {', '.join(FORMATS)}")
        return 2
    if atheris is None:
        print(ADVICE)
        return 1
    folder = Path(tempfile.mkdtemp(prefix="framecast-fuzz-"))
    os.environ["FRAMECAST_CACHE"] = str(folder / "cache")
    (folder / "file").mkdir()
    (folder / "corpus").mkdir()
    with watched(atheris):  # what a first reading imports
        target = Target(arguments[1], folder / "file")
        for number, content in enumerate(target.corpus()):
            (folder / "corpus" / str(number)).write_bytes(content)
            target.read(*target.chosen(content))

    def fuzz(fuzzed: bytes) -> None:
        target.read(*target.chosen(fuzzed))

    atheris.Setup([arguments[0], *arguments[2:], str(folder / "corpus")], fuzz)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
