"""Each parser under hypothesis: files that differ from a whole one anywhere give data, or an error of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers.formats import FORMATS
from torture import fuzz

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
    (tmp_path / "file").mkdir()
    read = fuzz.target(name, tmp_path / "file")
    made = FORMATS[name].make(tmp_path)
    if made.is_dir():
        made = sorted(made.rglob("zarr.json"))[-1]
    whole, seen = made.read_bytes(), set()

    @settings(max_examples=500, deadline=5000, database=None, suppress_health_check=list(HealthCheck))
    @given(EDITS, st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.5, 0.1]))
    def parse(edits: list[tuple[float, int, bytes]], kept: float) -> None:
        seen.add(read(edited(whole, edits, kept)))

    parse()
    assert seen == {True, False}, "some examples are data and some are refused, or this proves nothing"


@pytest.mark.parametrize("name", sorted(set(FORMATS) - set(QUICK)))
def test_targets_of_the_slow_ones(name: str, tmp_path: Path) -> None:
    """They are fuzzed by ``make torture`` and by hand; here only that their targets read and refuse."""
    read = fuzz.target(name, tmp_path)
    assert read(b"no such thing") is (name == "decoded video")


def test_the_fuzzer_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["fuzz"]) == 2
    assert "npy" in capsys.readouterr().out
