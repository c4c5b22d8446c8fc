"""Each parser under hypothesis: files that differ from a whole one anywhere give data, or an error of ours."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples.formats import FORMATS
from samples.paths import ROOT
from torture import fuzz

PATH = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
QUICK = [name for name, kind in FORMATS.items() if kind.quick]
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 3), st.binary(max_size=6)), max_size=4)
"""Where, how many bytes are taken out, and what is put in."""


def edited(content: bytes, edits: list[tuple[float, int, bytes]], kept: float) -> bytes:
    for place, taken, put in edits:
        # Squared, so that headers, which stand first, have their share.
        start = int(place**2 * len(content))
        content = content[:start] + put + content[start + taken :]
    return content[: max(1, round(kept * len(content)))]


@pytest.mark.parametrize("name", QUICK)
def test_parsers(name: str, tmp_path: Path) -> None:
    target, seen = fuzz.Target(name, tmp_path), Counter[tuple[int, bool]]()

    @settings(max_examples=500, deadline=5000, database=None, suppress_health_check=list(HealthCheck))
    @given(EDITS, st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.1]), st.sampled_from(range(len(target.files))))
    def parse(edits: list[tuple[float, int, bytes]], kept: float, number: int) -> None:
        seen[number, target.read(edited(target.whole[number], edits, kept), number)] += 1

    parse()
    assert sum(seen.values()) >= 500
    both = set(itertools.product(range(len(target.files)), (True, False)))
    assert set(seen) == both, "some examples of each file are data and some are refused, or this proves nothing"


@pytest.mark.parametrize("name", sorted(set(FORMATS) - set(QUICK)))
def test_targets_of_the_slow_ones(name: str, tmp_path: Path) -> None:
    """They are fuzzed by ``make torture`` and by hand; here only that their targets read and refuse."""
    assert fuzz.Target(name, tmp_path).read(b"no such thing") is (name == "decoded video")


def test_the_fuzzer_says_how_it_is_used(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert fuzz.main(["fuzz"]) == 2
    assert "npy" in capsys.readouterr().out
    assert fuzz.main(["fuzz", "npy"]) == 1
    assert "pip install atheris" in capsys.readouterr().out


class Stand:
    """What the fuzzer asks of atheris; it feeds what stands in the corpus, and some of it changed."""

    def __init__(self) -> None:
        self.included: list[str] = []
        self.watching = False
        self.read = 0

    @contextlib.contextmanager
    def instrument_imports(self, include: list[str]) -> Iterator[None]:
        self.included, self.watching = include, True
        yield
        self.watching = False

    def Setup(self, arguments: list[str], fuzz: Callable[[bytes], None]) -> None:
        assert arguments[:2] == ["fuzz", "-max_total_time=1"]
        assert not self.watching
        self.corpus, self.fuzz = sorted(Path(arguments[-1]).iterdir()), fuzz

    def Fuzz(self) -> None:
        for path in self.corpus:
            for content in (path.read_bytes(), path.read_bytes()[:-20], b""):
                self.fuzz(content)
                self.read += 1


@pytest.mark.parametrize(("name", "files"), [("npy", 1), ("Zarr", 3)])
def test_the_fuzzer_sees_our_modules_and_chooses_files(
    name: str, files: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in, as atheris need not be installed."""
    stand = Stand()
    monkeypatch.setitem(sys.modules, "atheris", stand)  # type: ignore[arg-type]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("FRAMECAST_CACHE", str(tmp_path / "cache"))
    assert fuzz.main(["fuzz", name, "-max_total_time=1"]) == 0
    assert stand.included == ["framecast"]
    assert stand.read == 3 * files


def test_nothing_of_ours_is_imported_before_the_fuzzer_watches() -> None:
    code = "import sys, torture.fuzz; sys.exit(any(name.split('.')[0] == 'framecast' for name in sys.modules))"
    assert not subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH}).returncode
