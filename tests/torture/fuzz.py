"""Long fuzzing of one parser with atheris, which is not installed with the rest: ``pip install atheris``.

    PYTHONPATH=tests python -m torture.fuzz npy -max_total_time=600 -rss_limit_mb=4096

The first argument is a name of ``makers.formats.FORMATS``; what follows goes to libFuzzer. It starts from a miniature
file, and stops at the first input that ends in anything but data or an error of ours that names the file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from makers.formats import FORMATS
from makers.mutations import DOCUMENTED


def target(name: str, folder: Path) -> Callable[[bytes], bool]:
    """Return a function that reads content as a format and returns whether it was data; our errors are none.

    Raises:
        AssertionError: an error of ours does not name the file.
    """
    kind = FORMATS[name]
    made = kind.make(folder)
    if made.is_dir():
        made = sorted(path for path in made.rglob("zarr.json"))[-1]
    root = made if made.name != "zarr.json" else next(path for path in made.parents if path.suffix == ".zarr")
    count = 0

    def read(content: bytes) -> bool:
        nonlocal count
        count += 1
        made.write_bytes(content)
        os.utime(made, ns=(count, count))
        said = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                kind.read(root)
            except DOCUMENTED as error:
                said = str(error)
        assert said is None or str(folder) in said, said
        return said is None

    return read


def main(arguments: list[str]) -> int:
    """Fuzz until libFuzzer stops."""
    if len(arguments) < 2 or arguments[1] not in FORMATS:
        print(f"usage: python -m torture.fuzz FORMAT [libFuzzer options]\nformats: {', '.join(FORMATS)}")
        return 2
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: pip install atheris (Linux and macOS, Python up to 3.13)")
        return 1
    folder = Path(tempfile.mkdtemp(prefix="framecast-fuzz-"))
    os.environ["FRAMECAST_CACHE"] = str(folder / "cache")
    read = target(arguments[1], folder / "file")
    corpus = folder / "corpus"
    corpus.mkdir()
    FORMATS[arguments[1]].make(corpus)
    atheris.Setup([arguments[0], *arguments[2:], str(corpus)], lambda content: (read(content), None)[1])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
